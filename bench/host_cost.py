"""What a call on a CUDA tensor costs the host, measured without a GPU: `python -m bench.host_cost`.

In the number: everything from the public function to the last step before the GPU's driver. Checks, the
operator's dispatch, the choice of a plan, tensors for result and scratch, the arguments. By CUDA C++ also
ctypes and the C++ on the host (csrc/cuda, built by g++); its launches do nothing. By Triton, what it does
itself up to the call of its launcher, which does nothing.

Not in the number: the GPU's driver (a launch takes it some microseconds), Triton's launcher in C, PyTorch's
allocator for CUDA (tensors lie on the CPU, whose allocator is about as fast), and asking PyTorch for device
and stream (answered by constants here).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import gc
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import torch

import fastlogconv
from fastlogconv import backends
from fastlogconv.backends import triton_launch

WANTED = {"native": 25e-6, "triton": 45e-6}  # seconds of weight_map with everything warm
Launcher = Callable[..., None]
NAMES = {"native": "CUDA C++", "triton": "Triton"}


@functools.cache
def calls() -> dict[str, Callable[[str], object]]:
    """What is called, by name; each takes the backend. Images are small: memory is slow to get on a CPU."""
    labels = torch.zeros(1, 64, 64, dtype=torch.int32)
    labels[0, 3:19, 4:19] = 1
    masks = torch.zeros(2, 64, 64)
    ignore, classes = labels == 1, labels.clone()
    weight_map, region_weight_map = fastlogconv.weight_map, fastlogconv.region_weight_map
    return {
        "weight_map": lambda backend: weight_map(labels, backend=backend),
        "weight_map, exact": lambda backend: weight_map(labels, distance="euclidean", backend=backend),
        "weight_map, farthest": lambda backend: weight_map(labels, border="farthest", backend=backend),
        "weight_map, classes and ignore": lambda backend: weight_map(
            labels, classes=classes, ignore=ignore, backend=backend
        ),
        "region_weight_map": lambda backend: region_weight_map(masks, backend=backend),
        "distance_to_weight": lambda backend: fastlogconv.distance_to_weight(masks, backend=backend),
        "separable_conv2d": lambda backend: fastlogconv.separable_conv2d(masks, 0.35, backend=backend),
    }


def why_not(backend: str) -> str | None:
    """Why a backend cannot be measured here; None where it can."""
    try:
        kernels = importlib.import_module("tests.gpu_on_cpu")
    except ModuleNotFoundError as error:
        return f"{error}: it is part of the sources"
    return kernels.why_no_triton() if backend == "triton" else kernels.why_not()


# ---------------------------------------------------------------------------------------- launches of nothing


@contextlib.contextmanager
def _native() -> Iterator[None]:
    """Within it, backend "native" takes CPU tensors for those of a GPU; launches do nothing."""
    from tests.gpu_on_cpu import cuda_kernels

    library = cuda_kernels.load_host_library()
    # Takes no arguments, returns 0, and costs nothing.
    nothing = ctypes.cast(ctypes.CDLL("libm.so.6").fegetround, ctypes.c_void_p)
    library.set_launch_handler.argtypes = (ctypes.c_void_p,)
    with cuda_kernels.serving(library):
        library.set_launch_handler(nothing)
        try:
            yield
        finally:
            library.set_launch_handler(None)


class _Utilities:
    """What Triton asks of a GPU's driver when it loads a kernel."""

    def load_binary(self, *_):
        return 1, 1, 0, 0, 1024

    def get_device_properties(self, _):
        return dict(max_shared_mem=232448, multiprocessor_count=132, warpSize=32)

    def unload_module(self, _):
        pass


def _launch_nothing(source, metadata) -> Launcher:
    return lambda *arguments: None


class _Driver:
    """A GPU for Triton, on which launches are those of `launcher(source, metadata)`."""

    def __init__(self, launcher: Callable[..., Launcher], capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        target = GPUTarget("cuda", capability, 32)
        self.utils = _Utilities()
        self.get_current_target = lambda: target
        self.get_current_device = lambda: 0
        self.get_current_stream = lambda device: 0
        self.launcher_cls = launcher


@contextlib.contextmanager
def triton(launcher: Callable[..., Launcher] = _launch_nothing, capability: int = 90) -> Iterator[None]:
    """Within it, backend "triton" takes CPU tensors for those of a GPU, on which `launcher` launches."""
    from triton.runtime.driver import driver

    backend = backends.triton
    before = backend.why_not
    held_in = "_active" if hasattr(driver, "_active") else "active"  # before Triton 3.5
    before_driver = getattr(driver, held_in)
    backend.why_not = lambda device: None
    driver.set_active(_Driver(launcher, capability))
    forget()
    try:
        yield
    finally:
        backend.why_not = before
        setattr(driver, held_in, before_driver)
        forget()


def forget() -> None:
    """What was compiled for another GPU, or kept of its launches."""
    triton_launch._kept.cache_clear()
    for kernel in triton_launch.kernels().values():
        for compiled in kernel.device_caches.pop(0, ({},))[0].values():
            compiled.module = None  # there is nothing to unload


LAUNCHING_NOTHING = {"native": _native, "triton": triton}


def seconds(call: Callable[[], object], calls: int = 2000) -> tuple[float, float]:
    """Of a warm call: the median, and the fastest."""
    for _ in range(200):
        call()
    took = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(calls):
            start = time.perf_counter()
            call()
            took.append(time.perf_counter() - start)
    finally:
        gc.enable()
    return statistics.median(took), min(took)


def measure(
    backend: str, count: int = 2000, names: Sequence[str] | None = None
) -> dict[str, tuple[float, float]]:
    """Seconds of each call by a backend (or of those named), median and least."""
    chosen = {name: call for name, call in calls().items() if names is None or name in names}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with LAUNCHING_NOTHING[backend]():
            return {name: seconds(lambda call=call: call(backend), count) for name, call in chosen.items()}
    finally:
        torch.set_num_threads(threads)


def main(argv: list[str] | None = None) -> int:
    """Prints a table; returns 1 where nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.host_cost", description=__doc__)
    parser.add_argument("--backend", choices=LAUNCHING_NOTHING, nargs="+", default=list(LAUNCHING_NOTHING))
    parser.add_argument("--calls", type=int, default=2000, metavar="N", help="of each (default: 2000)")
    options = parser.parse_args(argv)
    measured = 0
    for backend in options.backend:
        if reason := why_not(backend):
            print(f"{NAMES[backend]}: {reason}")
            continue
        measured += 1
        print(f"| {NAMES[backend]} | median | fastest |\n|---|---:|---:|")
        for name, (median, fastest) in measure(backend, options.calls).items():
            print(f"| {name} | {median * 1e6:.1f} us | {fastest * 1e6:.1f} us |")
        print()
    return int(not measured)


if __name__ == "__main__":
    sys.exit(main())
