"""Launches of the package's Triton backend: compiled as for a GPU, run on the CPU, or measured for any GPU."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastlogconv import backends
from fastlogconv.backends.triton import Launch

from .ptx import Module
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
    options = dict(num_warps=launch.warps)
    if launch.registers is not None:
        options["maxnreg"] = launch.registers
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(launch: Launch, capability: int) -> Resources:
    """Registers, spills, shared memory and occupancy of a launch on a GPU."""
    compiled = compile_launch(launch, capability)
    return measure(compiled.asm["cubin"], 32 * launch.warps, compiled.metadata.shared)


@dataclasses.dataclass
class Record:
    """One launch that was run, and what came of it."""

    launch: Launch
    races: int
    profile: dict


class Emulator:
    """Runs launches on CPU tensors and keeps a record of each."""

    _modules: dict = {}  # shared by all: translation takes seconds

    def __init__(self, profile: bool = False, threads: int = 2, steps: dict[str, int] | None = None) -> None:
        """`steps`: for a kernel by name, n to run only every n-th of its programs."""
        self.profile, self.threads, self.steps = profile, threads, steps or {}
        self.records: list[Record] = []

    def run(self, launch: Launch) -> None:
        constants = tuple((name, str(value)) for name, value in launch.constants.items())
        key = (launch.name, tuple(_types(launch).values()), constants, launch.warps, launch.registers, self.profile)
        if key not in self._modules:
            compiled = compile_launch(launch, 80)
            module = Module(compiled.asm["ptx"], profile=self.profile)
            self._modules[key] = module, compiled.metadata.name, compiled.metadata.shared
        module, name, shared = self._modules[key]
        races = module.launch(
            name,
            (launch.programs,),
            (32 * launch.warps,),
            launch.arguments,
            shared,
            threads=self.threads,
            step=self.steps.get(launch.name, 1),
        )
        self.records.append(Record(launch, races, module.profile(name) if self.profile else {}))

    @property
    def races(self) -> int:
        return sum(record.races for record in self.records)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Emulator]:
        """Within it, backend "triton" serves CPU tensors by this emulator."""
        backend = backends.triton
        before = backend._run, backend.why_not
        backend._run, backend.why_not = self.run, lambda device: None
        try:
            yield self
        finally:
            backend._run, backend.why_not = before


@contextlib.contextmanager
def collected() -> Iterator[list[Launch]]:
    """Within it, backend "triton" takes CPU tensors and computes nothing: its launches gather in the list."""
    launches: list[Launch] = []
    emulator = Emulator()
    emulator.run = launches.append
    with emulator.serving():
        yield launches
