"""How the Triton kernels are launched.

Triton looks at every argument of every launch anew, to find what it has compiled for the like of them. That
takes longer than small images take the GPU. So the first call with tensors of some layout is launched by
Triton, and what it compiled is kept with a recipe for the arguments; further calls pass addresses to it at
once. The layout, with whether addresses are multiples of 16, is all that decides on what is compiled.

Where a profiler or the like hooks into launches, or Triton is of a version whose inner workings are not known
here, every launch is Triton's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .devices import queue_of

KNOWN_VERSIONS = ((3, 4), (3, 9))  # from, to: in these a compiled kernel is run with the same arguments
ALIGNMENT = 256  # bytes, of pieces of scratch
ASSUMED_ALIGNMENT = 16  # of addresses: Triton compiles for it where it finds it


def why_too_old() -> str | None:
    """Why the installed Triton does not compile the kernels; None where it does, or has no version."""
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:  # it goes by other names too
        return None
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) >= KNOWN_VERSIONS[0]:
        return None
    return f"its kernels need Triton {'.'.join(map(str, KNOWN_VERSIONS[0]))} or newer, not {version}"


@dataclasses.dataclass
class Launch:
    """One kernel launch: its arguments in order, and the constants that it is compiled for."""

    name: str
    programs: int
    arguments: list
    constants: dict
    warps: int
    registers: int | None = None  # the most that a thread may use

    @property
    def kernel(self):
        return kernels()[self.name]

    @property
    def options(self) -> dict[str, Any]:
        """How it is to be compiled. Versions of Triton differ in what they take for granted."""
        options = dict(num_warps=self.warps, enable_fp_fusion=True)
        return options if self.registers is None else options | dict(maxnreg=self.registers)


@dataclasses.dataclass
class Work:
    """Launches, the result that they write, and what else they need beside what they read."""

    result: Tensor
    launches: list[Launch]
    scratch: Tensor | None = None  # of any content; arguments are pieces of it
    zeros: Tensor | None = None  # int64 [..]


@functools.cache
def kernels() -> dict[str, Any]:
    """The kernels by name, imported when first needed: Triton takes a second."""
    from ..kernels import (
        cells,
        convolution,
        distances,
        nearest_classes,
        nearest_passes,
        nearest_rows,
        regions,
        weights,
    )

    return {
        "list_cells": cells.list_cells_kernel,
        "weigh_tiles": weights.weigh_tiles_kernel,
        "box_regions": regions.box_regions_kernel,
        "weigh_regions": regions.weigh_regions_kernel,
        "weigh_distances": distances.weigh_distances_kernel,
        "convolve_axis": convolution.convolve_axis_kernel,
        "find_class": nearest_rows.find_class_kernel,
        "nearest_in_rows": nearest_rows.nearest_in_rows_kernel,
        "nearest_along": nearest_passes.nearest_along_kernel,
        "measure_nearest": nearest_passes.measure_nearest_kernel,
        "weigh_nearest": nearest_passes.weigh_nearest_kernel,
        "weigh_further_classes": nearest_classes.weigh_further_classes_kernel,
    }


@functools.cache
def pads_products() -> bool:
    """Whether this Triton multiplies no matrices as small as ours, so that they are padded."""
    from ..kernels.products import LEAST

    return LEAST.value > 8


def scratch(
    device: torch.device, *pieces: tuple[tuple[int, ...], torch.dtype]
) -> tuple[Tensor | None, list[Tensor]]:
    """Memory of any content in one piece, and the pieces of it. Tests put something else here."""
    sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in pieces]
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    memory = torch.empty(ends[-1], dtype=torch.uint8, device=device)
    parts = zip(pieces, sizes, ends[:-1], strict=True)
    return memory, [
        memory[start : start + size].view(dtype).view(shape) for (shape, dtype), size, start in parts
    ]


def values_together(images: Tensor) -> int:
    """How many values of a row [N, H, W] are a word of up to 16 bytes, from any multiple of 16 on."""
    if images.stride(2) != 1 or images.data_ptr() % ASSUMED_ALIGNMENT != 0:
        return 1
    return math.gcd(*images.stride()[:2], images.shape[2], ASSUMED_ALIGNMENT // images.itemsize)


def by_triton(launch: Launch):
    """Launches on the current stream of the current device; returns what Triton compiled."""
    return launch.kernel[(launch.programs,)](*launch.arguments, **launch.constants, **launch.options)


Run = Callable[[Launch], Any]


def compute(run: Run, body: Callable[..., Work | Tensor], settings: Any, *tensors: Tensor | None) -> Tensor:
    """The result of the work that `body(*tensors, settings)` finds, or the result that it returns.

    What is to be done depends on the settings and on layout and device of the tensors, of which the first is
    no None. `run` launches by Triton.
    """
    like: Tensor = tensors[0]  # type: ignore[assignment]
    layouts = [
        None
        if tensor is None
        else (tensor.dtype, tensor.shape, tensor.stride(), tensor.data_ptr() % ASSUMED_ALIGNMENT == 0)
        for tensor in tensors
    ]
    kept = _kept(run, body, settings, like.device, *layouts)
    if kept and not _watched(kept[0]):
        result = kept[0].follow(tensors)
        if result is not None:
            return result
    work = body(*tensors, settings)
    if isinstance(work, Tensor):
        return work
    compiled = launch_all(run, like, work.launches)
    recipe = _recipe(work, tensors, compiled)
    if recipe is not None:
        kept[:] = [recipe]
    return work.result


def pointer_to(image: Tensor | None, instead: Tensor) -> Tensor:
    """What a kernel reads: bool as uint8; for None a pointer that is not used."""
    if image is None:
        return instead
    return image.view(torch.uint8) if image.dtype == torch.bool else image


def launch_all(run: Run, like: Tensor, launches: Sequence[Launch]) -> list:
    """Launches on the current stream of the tensor's device; what was compiled for each."""
    with _queue_of(like):
        return [run(launch) for launch in launches]


@functools.lru_cache(256)
def _kept(*key) -> list[Recipe]:
    """Room for what is kept for a key; threads that fill it at a time fill it with the same."""
    return []


def _queue_of(tensor: Tensor) -> contextlib.AbstractContextManager[tuple[int, int]]:
    return queue_of(tensor) if tensor.is_cuda else contextlib.nullcontext((0, 0))


# ------------------------------------------------------------------------------------------------- recipes


@dataclasses.dataclass(frozen=True)
class Step:
    """A launch of what Triton compiled."""

    run: Callable[..., None]
    programs: int
    function: int
    metadata: tuple
    arguments: Callable[[tuple], tuple]  # picked from all values
    hooks: list  # those of the kernel


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to do the same again with other tensors of the same layout."""

    shape: torch.Size
    dtype: torch.dtype
    scratch_bytes: int
    pieces: tuple[int, ...]  # where those of the scratch begin
    zeros: torch.Size | None
    constants: tuple
    steps: tuple[Step, ...]

    def follow(self, tensors: Sequence[Tensor | None]) -> Tensor | None:
        """The result; None where new memory is not aligned as all of PyTorch's own is."""
        like: Tensor = tensors[0]  # type: ignore[assignment]
        device = like.device
        result = torch.empty(self.shape, dtype=self.dtype, device=device)
        values = [tensor.data_ptr() for tensor in tensors if tensor is not None]
        values.append(result.data_ptr())
        start = 0
        if self.zeros is not None:
            zeros = torch.zeros(self.zeros, dtype=torch.int64, device=device)
            values.append(zeros.data_ptr())
        if self.scratch_bytes:
            memory = torch.empty(self.scratch_bytes, dtype=torch.uint8, device=device)
            start = memory.data_ptr()
            values += [start + piece for piece in self.pieces]
        if any(address % ASSUMED_ALIGNMENT for address in (result.data_ptr(), start)):
            return None
        given = (*values, *self.constants)
        with _queue_of(like) as (_, stream):
            for step in self.steps:
                step.run(
                    step.programs, 1, 1, stream, step.function, step.metadata, None, None, None,
                    *step.arguments(given),
                )  # fmt: skip
        return result


def _recipe(work: Work, tensors: Sequence[Tensor | None], compiled: list) -> Recipe | None:
    """None where an argument is something else than the tensors, the result and pieces of the scratch."""
    if why_by_triton() or not all(_can_be_run(kernel) for kernel in compiled):
        return None
    known = [t for t in (*tensors, work.result, work.zeros) if t is not None]
    places = {tensor.data_ptr(): place for place, tensor in enumerate(known)}
    if len(places) < len(known) or 0 in places:  # one tensor twice, or none at all: which one is it?
        return None
    start = 0 if work.scratch is None else work.scratch.data_ptr()
    end = start + (0 if work.scratch is None else work.scratch.numel())
    pieces: list[int] = []
    constants: list = []
    picked: list[
        list[tuple[list, int]]
    ] = []  # for each launch and argument the list that it is in, and where
    for launch in work.launches:
        named = launch.kernel.arg_names[len(launch.arguments) :]
        given = [*launch.arguments, *(launch.constants[name] for name in named)]
        picked.append([])
        for value in given:
            address = value.data_ptr() if isinstance(value, Tensor) else None
            if address is None:
                picked[-1].append((constants, len(constants)))
                constants.append(value)
            elif address in places:
                picked[-1].append((known, places[address]))
            elif start <= address < end:
                picked[-1].append((pieces, len(pieces)))
                pieces.append(address - start)
            else:
                return None
    first = {id(known): 0, id(pieces): len(known), id(constants): len(known) + len(pieces)}
    steps = [
        Step(
            kernel.run,
            launch.programs,
            kernel.function,
            kernel.packed_metadata,
            operator.itemgetter(*(first[id(values)] + i for values, i in which)),
            launch.kernel.pre_run_hooks,
        )
        for launch, kernel, which in zip(work.launches, compiled, picked, strict=True)
    ]
    return Recipe(
        work.result.shape,
        work.result.dtype,
        end - start,
        tuple(pieces),
        None if work.zeros is None else work.zeros.shape,
        tuple(constants),
        tuple(steps),
    )


# ------------------------------------------------------------------------------------- what Triton has to say


@functools.cache
def why_by_triton() -> str | None:
    """Why every launch goes through Triton's binding of arguments; None where warm ones need not."""
    import triton

    try:
        version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    except ValueError:
        version = ()
    oldest, newest = KNOWN_VERSIONS
    if not oldest <= version <= newest:
        return f"the launches of Triton {triton.__version__} are not known here"
    return None


def _can_be_run(kernel) -> bool:
    """Whether this is a compiled kernel, and no promise of one or what the interpreter returns."""
    from triton.compiler import CompiledKernel

    return isinstance(kernel, CompiledKernel)


@functools.cache
def _knobs():
    from triton import knobs

    return knobs


def _watched(recipe: Recipe) -> bool:
    """Whether somebody wants to see launches, or has changed what is compiled."""
    knobs = _knobs()
    runtime = knobs.runtime
    for hook in (runtime.launch_enter_hook, runtime.launch_exit_hook):
        if getattr(hook, "calls", hook):  # a chain of hooks, since Triton 3.5
            return True
    if getattr(runtime, "add_stages_inspection_hook", None) or getattr(
        knobs.compilation, "instrumentation_mode", ""
    ):
        return True
    return any(step.hooks for step in recipe.steps)
