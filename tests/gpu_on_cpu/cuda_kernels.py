"""The package's CUDA kernels on CPU tensors: built for the CPU, or as nvcc compiles them for a GPU.

Both go the way of backend "native" on a GPU: through its Python and the C interface, with `csrc/cuda` built
by g++ (see host/cuda_runtime.h). There kernels run as they stand, or each launch is taken to nvcc's PTX.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

import fastlogconv
from fastlogconv.backends import native, native_cuda

from . import why_no_nvcc
from . import why_not as why_no_ptx
from .build import built
from .ptx import Module, Record
from .resources import Resources, measure

CSRC = Path(__file__).resolve().parents[2] / "csrc"
HERE = Path(__file__).resolve().parent
HOST_FLAGS = (
    "-std=c++20 -O2 -march=native -ffp-contract=off -mtls-dialect=gnu2 -w -fPIC -pthread -fno-gnu-unique "
    f"-I{HERE / 'host'} -I{CSRC}"
)
NVCC_FLAGS = f"-std=c++17 -O3 -I{CSRC}"


def why_not() -> str | None:
    """Why nothing can be counted here; None where it can."""
    return why_no_nvcc() or why_no_ptx()


def _made(name: str, sources: list[Path], command: Callable[[Path], list[str]]) -> Path:
    """A file that `command(file)` makes from sources and headers, unless it was made from the same before."""
    texts = [path.read_bytes() for folder in (CSRC, HERE) for path in sorted(folder.rglob("*.h"))]
    texts += [path.read_bytes() for path in sources]
    key = hashlib.sha256(b"\0".join([shlex.join(command(Path())).encode(), *texts])).hexdigest()[:16]
    return built(f"{key}-{name}", lambda target: subprocess.run(command(target), check=True, timeout=600))


def _sources() -> list[Path]:
    """Those that nvcc compiles for a GPU."""
    return sorted((CSRC / "cuda").glob("*.cu"))


# ------------------------------------------------------------------------------------- built for the CPU


def host_library(extra_flags: str = "") -> Path:
    """csrc/cuda as a library for the CPU."""
    command = ["g++", *shlex.split(f"{HOST_FLAGS} {extra_flags}")]

    def compiled_source(source: Path) -> Path:
        return _made(
            f"{source.stem}.o",
            [source],
            lambda target: [*command, "-x", "c++", "-c", str(source), "-o", str(target)],
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled_source, sorted((CSRC / "cuda").glob("*.c*"))))
    return _made(
        "host.so", objects, lambda target: [*command, "-shared", *map(str, objects), "-o", str(target)]
    )


@functools.cache
def load_host_library(extra_flags: str = "") -> ctypes.CDLL:
    return native_cuda._with_signatures(ctypes.CDLL(str(host_library(extra_flags))))


@contextlib.contextmanager
def serving(library: ctypes.CDLL, threads: int = 2, order: int = 0) -> Iterator[None]:
    """Within it, backend "native" serves CPU tensors by the CUDA kernels, built for the CPU.

    `threads`: blocks that run at a time; `order`: that of a block's threads, see set_thread_order.
    """
    library.set_launch_threads(threads)
    library.set_thread_order(order)
    before = native._is_for_cuda, native_cuda._load, native_cuda._on_device, native.LACKS
    native._is_for_cuda, native_cuda._load = lambda tensor: True, lambda: library
    native_cuda._on_device = lambda tensor: contextlib.nullcontext((0, None))
    native.LACKS = native.LACKS | {"cpu": native.LACKS["cuda"]}
    try:
        yield
    finally:
        native._is_for_cuda, native_cuda._load, native_cuda._on_device, native.LACKS = before


# ------------------------------------------------------------------------------------ compiled for a GPU


def compiled(source: Path, capability: int) -> Path:
    """The PTX that nvcc makes of a source for compute capability `capability` / 10."""
    flags = [*shlex.split(NVCC_FLAGS), f"-arch=sm_{capability}", "-ptx"]
    return _made(
        f"{source.stem}-{capability}.ptx",
        [source],
        lambda target: ["nvcc", *flags, str(source), "-o", str(target)],
    )


def assembled(source: Path, capability: int) -> tuple[Path, Path]:
    """Machine code of that PTX, and what ptxas reports of each kernel: registers, stack, spills."""
    ptx = compiled(source, capability)
    cubin = ptx.with_suffix(".cubin")

    def command(report: Path) -> list[str]:
        build = ["nvcc", f"-arch=sm_{capability}", "-cubin", "-Xptxas=-v", str(ptx), "-o", str(cubin)]
        return ["sh", "-c", f"{shlex.join(build)} 2> {shlex.quote(str(report))}"]

    return cubin, _made(f"{source.stem}-{capability}.usage", [ptx], command)


def resource_usage(capability: int) -> list[str]:
    """What ptxas reports of each kernel on a GPU."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = list(pool.map(lambda source: assembled(source, capability)[1], _sources()))
    reports = [report for file in files for report in file.read_text().split("Compiling entry function")[1:]]
    assert reports
    return reports


def _readable(kernel: str) -> str:
    """weigh_tiles of _ZN3flc4cuda18weigh_tiles_kernelIf..."""
    name = subprocess.run(["c++filt", kernel], capture_output=True, text=True, check=True).stdout
    return re.search(r"(\w+)_kernel\b", name)[1]


_LAUNCH_HANDLER = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_uint64
)
_modules: dict[tuple[str, bool, int], Module] = {}  # translated and built once


def _module_of(kernel: str, profile: bool, capability: int) -> Module:
    """The kernel alone: translating all of a source would take minutes."""
    if (kernel, profile, capability) not in _modules:
        texts = [compiled(source, capability).read_text() for source in _sources()]
        entry = re.compile(rf"\.entry {re.escape(kernel)}\(.*?\n\}}\n", re.S)
        text = next(found[0] for text in texts if (found := entry.search(text)))
        _modules[kernel, profile, capability] = Module(text, profile=profile)
    return _modules[kernel, profile, capability]


class Emulator:
    """Runs the kernels as nvcc compiles them for a GPU, on CPU tensors, and keeps a record of each launch."""

    def __init__(self, profile: bool = False, threads: int = 2, capability: int = 80) -> None:
        self.profile, self.threads, self.capability = profile, threads, capability
        self.records: list[Record] = []
        self.shapes: list[tuple[str, int, int]] = []  # kernel, blocks, threads
        self._reachable: list[Tensor] = []

    def _launch(self, kernel: bytes, blocks: int, threads: int, argument: int, size: int) -> None:
        name = kernel.decode()
        self.shapes.append((name, blocks, threads))
        module = _module_of(name, self.profile, self.capability)
        argument = ctypes.string_at(argument, size)
        races = module.launch(
            name, (blocks,), (threads,), [argument], threads=self.threads, reachable=self._reachable
        )
        profile = module.profile(name) if self.profile else None
        self.records.append(Record(_readable(name), races, profile))

    @property
    def races(self) -> int:
        return sum(record.races for record in self.records)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Emulator]:
        """Within it, backend "native" serves CPU tensors by this emulator."""
        library = load_host_library()
        handler = _LAUNCH_HANDLER(self._launch)
        empty, address = torch.empty, native_cuda._address

        def noted_empty(*arguments, **options):
            self._reachable.append(empty(*arguments, **options))
            return self._reachable[-1]

        def noted_address(tensor):
            self._reachable.append(tensor)
            return address(tensor)

        with serving(library):
            library.set_launch_handler(handler)
            torch.empty, native_cuda._address = noted_empty, noted_address
            try:
                yield self
            finally:
                torch.empty, native_cuda._address = empty, address
                library.set_launch_handler(_LAUNCH_HANDLER(0))
                self._reachable.clear()


# ---------------------------------------------------------------------------------- for bench.gpu_counts


def run(operator: Callable[..., Tensor], *arguments, **settings) -> tuple[Tensor, list[Record]]:
    """What operator(*arguments, **settings) returns by this backend, and a record of each of its launches."""
    emulator = Emulator(profile=True)
    with emulator.serving():
        return operator(*arguments, **settings, backend="native"), emulator.records


def _launched(labels: Tensor, settings: dict) -> dict[str, int]:
    """The kernels that run with these settings of weight_map, and the size of their blocks."""
    found: dict[str, int] = {}
    emulator = Emulator()
    emulator._launch = lambda kernel, blocks, threads, *_: found.setdefault(kernel.decode(), threads)
    with emulator.serving():
        fastlogconv.weight_map(labels, **settings, backend="native")
        fastlogconv.separable_conv2d(labels.float(), 0.35, backend="native")
        fastlogconv.distance_to_weight(labels.float(), backend="native")
        fastlogconv.region_weight_map(labels.float(), backend="native")
    return found


def resources_by_kernel(labels: Tensor, capability: int, **settings) -> dict[str, Resources]:
    """What each kernel takes of a GPU, of those that run with these settings of weight_map."""
    resources = {}
    for source in _sources():
        cubin = assembled(source, capability)[0].read_bytes()
        for kernel, threads in _launched(labels, settings).items():
            if kernel.encode() in cubin:
                resources[_readable(kernel)] = measure(cubin, kernel, capability, threads)
    return resources
