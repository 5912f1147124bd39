"""Where the tests for a GPU run: on a CUDA device, or on stand-ins for one, so that they are tested, too.

A stand-in's tensors lie in the CPU's memory, and the kernels run there as they were compiled: Triton's as PTX
for a GPU, those in CUDA C++ built by g++. Nothing runs beside the Python program, and no graph is recorded:
what only a GPU can show, it alone proves. But each line of a test is executed, on tensors that were copied as
they are to a GPU, and what would wait for a GPU is an error there, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import gpu_on_cpu
import torch
from torch import Tensor

from fastlogconv import backends
from fastlogconv.backends import native

# What has to know values: a GPU would be waited for.
WAITING = ("__bool__", "__float__", "__int__", "cpu", "item", "nonzero", "numpy", "tolist", "unique")


class CudaDevice:
    """The first CUDA device, and a backend that can run there."""

    device = "cuda"

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def why_not(self, *features: str) -> str | None:
        """Why the backend cannot compute it there; None where it can."""
        return backends.why_not(backends.BACKENDS[self.backend], torch.device(self.device), features)

    def fewer(self, usual, on_stand_in):
        """What takes too long on a stand-in is less there."""
        return usual

    @contextlib.contextmanager
    def ready(self):
        """Within it, tests can run."""
        yield

    def exactly(self, operator: Callable[..., Tensor], *arguments, **settings) -> Tensor:
        """What to expect, of tensors in the CPU's memory."""
        return operator(*arguments, **settings, backend="native")

    def recorded(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """What a call returned while a graph recorded it, and what replays that."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call()
        return result, graph.replay

    @contextlib.contextmanager
    def nothing_waits(self):
        """Within it, waiting for the GPU is an error."""
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def on_a_busy_stream(self, call: Callable[[], Tensor]) -> tuple[Tensor, bool]:
        """What a call returns on a stream that is busy, and whether the stream was so when it returned."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(10**8)
            result = call()
        was_busy = not stream.query()
        stream.synchronize()
        return result, was_busy


class StandIn(CudaDevice):
    """For a GPU where there is none."""

    device = "cpu"

    def why_not(self, *features: str) -> str | None:
        return gpu_on_cpu.why_no_triton() if self.backend == "triton" else gpu_on_cpu.why_not()

    def fewer(self, usual, on_stand_in):
        return on_stand_in

    @contextlib.contextmanager
    def ready(self):
        from gpu_on_cpu.cuda_kernels import load_host_library, serving
        from gpu_on_cpu.cuda_plugin import copies

        with contextlib.ExitStack() as stack:
            if self.backend == "triton":
                from gpu_on_cpu.triton_kernels import Emulator

                # Not 90: there the convolution's products are wgmma, which the runner does not know.
                stack.enter_context(Emulator(capability=80).serving())
            else:
                stack.enter_context(serving(load_host_library()))
            stack.enter_context(copies())
            yield

    def exactly(self, operator, *arguments, **settings):
        served, native._is_for_cuda = native._is_for_cuda, lambda tensor: False
        try:
            return super().exactly(operator, *arguments, **settings)
        finally:
            native._is_for_cuda = served

    def recorded(self, call):
        result = torch.full_like(call(), torch.nan)
        return result, lambda: result.copy_(call())

    @contextlib.contextmanager
    def nothing_waits(self):
        def refused(*arguments, **options):
            raise RuntimeError("a GPU would be waited for")

        before = {name: getattr(Tensor, name) for name in WAITING}
        for name in WAITING:
            setattr(Tensor, name, refused)
        try:
            yield
        finally:
            for name, method in before.items():
                setattr(Tensor, name, method)

    def on_a_busy_stream(self, call):
        return call(), True
