"""Launches of the package's Triton backend: compiled as for a GPU, and run on the CPU or measured."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import fastlogconv
from fastlogconv import backends
from fastlogconv.backends import triton_launch
from fastlogconv.backends.triton import Launch

from . import why_no_triton
from .ptx import Module, Record
from .resources import Resources, measure

_POINTERS = {
    torch.uint8: "*u8", torch.int8: "*i8", torch.uint16: "*u16", torch.int16: "*i16", torch.uint32: "*u32",
    torch.int32: "*i32", torch.uint64: "*u64", torch.int64: "*i64", torch.float16: "*fp16",
    torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.float64: "*fp64",
}  # fmt: skip


def _types(launch: Launch) -> dict[str, str]:
    """The types of the arguments by name, as Triton's own launcher would find them."""
    types = {}
    for parameter, argument in zip(launch.kernel.params, launch.arguments, strict=False):
        if isinstance(argument, torch.Tensor):
            types[parameter.name] = _POINTERS[argument.dtype]
        elif isinstance(argument, float):
            types[parameter.name] = "fp64"
            assert parameter.annotation_type == "fp64", parameter.name
        else:
            types[parameter.name] = "i32" if -(2**31) <= argument < 2**31 else "i64"
            assert parameter.do_not_specialize, parameter.name
    return types


def compile_launch(launch: Launch, capability: int):
    """What Triton compiles for a launch, for a GPU of compute capability `capability` / 10."""
    types = _types(launch)
    names = list(launch.kernel.arg_names)
    aligned = {
        (names.index(parameter.name),): [["tt.divisibility", 16]]
        for parameter in launch.kernel.params
        if types.get(parameter.name, "").startswith("*") and not parameter.do_not_specialize
    }
    source = ASTSource(
        fn=launch.kernel,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs=launch.constants,
        attrs=aligned,
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)


def resources(launch: Launch, capability: int) -> Resources:
    """What a launch takes of a GPU."""
    compiled = compile_launch(launch, capability)
    metadata = compiled.metadata
    return measure(compiled.asm["cubin"], metadata.name, capability, 32 * launch.warps, metadata.shared)


_modules: dict = {}  # translated and built once


def _in_pieces(device: torch.device, *pieces) -> tuple[None, list[Tensor]]:
    """Scratch of separate pieces: nothing may reach from one into the next."""
    return None, [torch.empty(shape, dtype=dtype) for shape, dtype in pieces]


class Emulator:
    """Runs launches on CPU tensors as compiled for compute capability `capability` / 10; records each."""

    def __init__(self, profile: bool = False, threads: int = 2, capability: int = 80) -> None:
        self.profile, self.threads, self.capability = profile, threads, capability
        self.launches: list[Launch] = []
        self.records: list[Record] = []

    def run(self, launch: Launch) -> None:
        """Runs one launch as it stands compiled for the GPU."""
        constants = tuple((name, str(value)) for name, value in launch.constants.items())
        key = (
            launch.name,
            tuple(_types(launch).values()),
            constants,
            launch.warps,
            launch.registers,
            self.profile,
            self.capability,
        )
        if key not in _modules:
            compiled = compile_launch(launch, self.capability)
            module = Module(compiled.asm["ptx"], profile=self.profile)
            _modules[key] = module, compiled.metadata.name, compiled.metadata.shared
        module, name, shared = _modules[key]
        grid, block = (launch.programs,), (32 * launch.warps,)
        races = module.launch(name, grid, block, launch.arguments, shared, self.threads)
        self.launches.append(launch)
        self.records.append(Record(launch.name, races, module.profile(name) if self.profile else None))

    @property
    def races(self) -> int:
        return sum(record.races for record in self.records)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Emulator]:
        """Within it, backend "triton" serves CPU tensors by this emulator."""
        backend = backends.triton
        before = backend._run, backend.why_not, triton_launch.scratch
        backend._run, backend.why_not, triton_launch.scratch = self.run, lambda device: None, _in_pieces
        try:
            yield self
        finally:
            backend._run, backend.why_not, triton_launch.scratch = before


@contextlib.contextmanager
def collected() -> Iterator[list[Launch]]:
    """Within it, backend "triton" takes CPU tensors and computes nothing: its launches gather in the list."""
    launches: list[Launch] = []
    emulator = Emulator()
    emulator.run = launches.append
    with emulator.serving():
        yield launches


# ---------------------------------------------------------------------------------- for bench.gpu_counts


def why_not() -> str | None:
    """Why nothing can be counted here; None where it can."""
    return why_no_triton()


def resources_by_kernel(labels: Tensor, capability: int, **settings) -> dict[str, Resources]:
    """What each kernel takes of a GPU, with these settings of weight_map."""
    with collected() as launches:
        fastlogconv.weight_map(labels, **settings, backend="triton")
        fastlogconv.separable_conv2d(labels.float(), 0.35, backend="triton")
        fastlogconv.distance_to_weight(labels.float(), backend="triton")
        fastlogconv.region_weight_map(labels.float(), backend="triton")
    return {launch.name: resources(launch, capability) for launch in launches}


def run(operator: Callable[..., Tensor], *arguments, **settings) -> tuple[Tensor, list[Record]]:
    """What operator(*arguments, **settings) returns by this backend, and a record of each of its launches."""
    emulator = Emulator(profile=True)
    with emulator.serving():
        return operator(*arguments, **settings, backend="triton"), emulator.records
