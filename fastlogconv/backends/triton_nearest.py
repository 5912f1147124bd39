"""The two nearest instances by the Triton kernels of `fastlogconv.kernels.nearest`: their launches."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import triton_launch
from .c_interface import NearestParams
from .triton_launch import Launch, Run, Work
from .triton_plans import blocks

COLUMNS = 32  # of a program: a warp with some voxels of a column in each thread
VOXELS, FEWER_VOXELS = 8, 4  # the second in double and for many warps, so that registers suffice
SHORTEST_BLOCK, LONGEST_BLOCK = 32, 128  # voxels along a row that are looked at together
VOXELS_OF_ROWS = 128  # of a warp, in all its rows
SLOTS = 16  # classes that have launches of their own
WARPS_OF_FURTHER = 8  # of a program for all other classes of a volume
FLOAT_COUNTS_TO = 2**24
# Float errs by 6e-7 of an exponent at most: where a factor is larger than this, that shows at weights of 1.
LARGEST_FACTOR_FOR_FLOAT = 1e6
REGISTERS, MOST_REGISTERS = 128, 255  # with short ids in float32, else


@dataclasses.dataclass(frozen=True)
class Volumes:
    """Volumes [B, D, H, W] with their axes in the order that suits the passes: rows last.

    Axes of one voxel come first, and a thin W gives way to a longer axis: so rows are long.
    """

    volumes: int
    size: tuple[int, int, int]
    order: tuple[int, int, int]  # of the axes
    steps: tuple[float, float, float]  # spacings in units of the smallest
    unit: float
    fit_float: bool  # places and squares
    exact_in_float: bool  # squares, so that ties are seen

    @property
    def rows(self) -> int:
        return self.volumes * self.size[0] * self.size[1]

    @property
    def voxels(self) -> int:
        return self.rows * self.size[2]

    def strides(self, tensor: Tensor | None) -> list[int]:
        """Those of a tensor [B, D, H, W] or [B, H, W], in the order of the axes; 0 for None."""
        if tensor is None:
            return [0] * 4
        batch, *axes = tensor.stride()
        axes = [0] * (3 - len(axes)) + axes
        return [batch, *(axes[axis] for axis in self.order)]


@functools.lru_cache(1024)
def volumes_of(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> Volumes:
    """What a tensor's shape [B, D, H, W] or [B, H, W] and the spacings come to."""
    sizes = (1,) * (4 - len(shape)) + shape[1:]
    order = sorted(range(3), key=lambda axis: sizes[axis] != 1)
    if sizes[order[2]] < COLUMNS:
        order.sort(key=lambda axis: sizes[axis])
    unit = min(spacing)
    steps = tuple(1.0 if sizes[axis] == 1 else spacing[axis] / unit for axis in order)
    extents = [sizes[axis] * step for axis, step in zip(order, steps, strict=True)]
    largest_square = sum(extent * extent for extent in extents)
    fit_float = max(sizes) < FLOAT_COUNTS_TO and largest_square < 1e36
    exact = all(step.is_integer() for step in steps) and largest_square < FLOAT_COUNTS_TO
    size = tuple(sizes[axis] for axis in order)
    return Volumes(shape[0], size, tuple(order), steps, unit, fit_float, exact)  # type: ignore[arg-type]


def _flags(image: Tensor | None, instead: Tensor) -> Tensor:
    """bool as uint8; None as a pointer that is not used."""
    return instead if image is None else image.view(torch.uint8) if image.dtype == torch.bool else image


class _Passes:
    """The launches of a call, but for what the last pass comes to."""

    def __init__(
        self, labels: Tensor, classes: Tensor | None, ignore: Tensor | None, volumes: Volumes, double: bool,
        short_ids: bool, with_second: bool,
    ) -> None:  # fmt: skip
        import triton.language as tl

        self.volumes = volumes
        real = torch.float64 if double else torch.float32
        id = torch.int32 if short_ids else torch.int64
        depth, _, width = volumes.size
        places = 2 if depth > 1 else 1
        pieces = [((volumes.voxels,), dtype) for dtype in (real, real, id)] * places
        self.scratch, pieces_of_scratch = triton_launch.scratch(labels.device, *pieces)
        self.along_w, self.along_h = pieces_of_scratch[:3], pieces_of_scratch[3:]
        self.found, self.slots = labels, 1
        if classes is not None:
            self.found = torch.zeros(SLOTS + 1, dtype=torch.int64, device=labels.device)
            self.slots = SLOTS
        self.types: dict[str, Any] = dict(
            COMPUTE=tl.float64 if double else tl.float32, ID=tl.int32 if id == torch.int32 else tl.int64
        )
        self.classes = dict(HAS_CLASSES=classes is not None)
        self.second = dict(WITH_SECOND=with_second)
        self.registers = REGISTERS if short_ids and not double else MOST_REGISTERS
        self.voxels = FEWER_VOXELS if double else VOXELS
        block = min(max(_next_power_of_2(width), SHORTEST_BLOCK), LONGEST_BLOCK)
        self.rows_of_program = VOXELS_OF_ROWS // block
        self.of_rows = dict(HAS_IGNORE=ignore is not None, ROWS=self.rows_of_program, BLOCK=block)
        self.one_block = dict(ONE_BLOCK=width <= block)
        self.labels = _flags(labels, labels)
        self.beside = [
            item
            for tensor in (classes, ignore)
            for item in (_flags(tensor, self.labels), *volumes.strides(tensor))
        ]

    def find_class(self) -> Launch:
        depth, height, width = self.volumes.size
        return Launch(
            "find_class",
            blocks(self.volumes.rows, self.rows_of_program),
            [self.labels, *self.volumes.strides(self.labels), *self.beside, self.found]
            + [self.volumes.rows, depth, height, width],
            dict(ID=self.types["ID"], **self.of_rows),
            warps=1,
        )

    def in_rows(self, slot: int) -> Launch:
        depth, height, width = self.volumes.size
        return Launch(
            "nearest_in_rows",
            blocks(self.volumes.rows, self.rows_of_program),
            [self.labels, *self.volumes.strides(self.labels), *self.beside, self.found, slot]
            + [*self.along_w, self.volumes.rows, depth, height, width, self.volumes.steps[2]],
            dict(**self.types, **self.classes, **self.of_rows, **self.one_block),
            warps=1,
            registers=self.registers,
        )

    def along_planes(self, slot: int, limit: float, second_limit: float, smaller_id: bool) -> list[Launch]:
        """Along H, where there is more than one plane."""
        depth, height, width = self.volumes.size
        if depth == 1:
            return []
        groups, columns = blocks(height, self.voxels), self.volumes.volumes * depth * width
        return [
            Launch(
                "nearest_along",
                groups * blocks(columns, COLUMNS),
                [*self.along_w, *self.along_h, self.found, slot, groups, columns, width, height]
                + [self.volumes.steps[1], limit, second_limit],
                dict(**self.types, **self.classes, **self.second)
                | dict(SMALLER_ID=smaller_id, VOXELS=self.voxels, COLUMNS=COLUMNS),
                warps=1,
                registers=self.registers,
            )
        ]

    def last(self, name: str, before: list, after: list, constants: dict) -> Launch:
        """The last pass: along D, or along H where there is one plane."""
        depth, height, width = self.volumes.size
        source, count, inner, step = (
            (self.along_h, depth, height * width, self.volumes.steps[0])
            if depth > 1
            else (self.along_w, height, width, self.volumes.steps[1])
        )
        groups, columns = blocks(count, self.voxels), self.volumes.voxels // count
        return Launch(
            name,
            groups * blocks(columns, COLUMNS),
            [*source, *before, groups, columns, inner, count, step, *after],
            dict(**self.types, **self.second, **constants, VOXELS=self.voxels, COLUMNS=COLUMNS),
            warps=1,
            registers=self.registers,
        )

    def of_further_classes(
        self, inside: Tensor | None, out: Tensor, border_everywhere: int, scales: list, classes_decide: bool
    ) -> Launch:
        """All passes of what the slots have no room for, one program for each volume."""
        depth, height, width = self.volumes.size
        block = self.of_rows["BLOCK"]
        rows = WARPS_OF_FURTHER * VOXELS_OF_ROWS // block
        return Launch(
            "weigh_further_classes",
            self.volumes.volumes,
            [self.labels, *self.volumes.strides(self.labels), *self.beside]
            + [_flags(inside, self.labels), *self.volumes.strides(inside)]
            + [*self.along_w, *(self.along_h or self.along_w), out, *self.volumes.strides(out)]
            + [border_everywhere, self.found, SLOTS, depth, height, width, *self.volumes.steps, *scales],
            dict(**self.types, **self.second, **self.one_block, ROWS=rows, BLOCK=block)
            | dict(HAS_IGNORE=self.of_rows["HAS_IGNORE"], CLASSES_DECIDE=classes_decide, DEEP=depth > 1)
            | dict(VOXELS=FEWER_VOXELS, COLUMNS=COLUMNS * WARPS_OF_FURTHER),
            warps=WARPS_OF_FURTHER,
        )

    def strides(self, tensor: Tensor | None) -> list[int]:
        """Of the batch, of the last pass's axis, and of rows and columns."""
        batch, plane, row, column = self.volumes.strides(tensor)
        return [batch, plane, row, column] if self.volumes.size[0] > 1 else [batch, row, 0, column]


def _next_power_of_2(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


# ---------------------------------------------------------------------------------------------- distances


def nearest_instances(
    run: Run, short_ids: bool, labels: Tensor, ignore: Tensor | None, k: int, spacing: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Distances [k, B, H, W] or [k, B, D, H, W] to the nearest instances, and the ids of the nearest."""
    double = labels.dtype == torch.float64
    dtype = torch.float64 if double else torch.float32
    distances = torch.empty((k, *labels.shape), dtype=dtype, device=labels.device)
    ids = torch.empty(labels.shape, dtype=torch.int64, device=labels.device)
    if ids.numel() == 0:
        return distances, ids
    lengths = (1.0,) * (3 - len(spacing)) + tuple(spacing)
    volumes = volumes_of(tuple(labels.shape), lengths)  # type: ignore[arg-type]
    passes = _Passes(labels, None, ignore, volumes, double or not volumes.exact_in_float, short_ids, k > 1)
    last = passes.last(
        "measure_nearest",
        [distances, ids, volumes.voxels, *passes.strides(ids), volumes.size[2]],
        [volumes.unit],
        {},
    )
    triton_launch.launch_all(
        run, labels, [passes.in_rows(0), *passes.along_planes(0, math.inf, math.inf, True), last]
    )
    return distances, ids


# ------------------------------------------------------------------------------------------------ weights


class Terms(NamedTuple):
    """What flc_nearest_params holds, and the dtype of the weights; what is kept for a call goes by it."""

    spacing: tuple[float, float, float]
    one: float
    zero: float
    fall: float
    bwf: float
    foreground_exponent: float
    border_exponent: float
    limit: float
    pair_limit: float
    border_everywhere: int
    dtype: torch.dtype


def terms_of(params: NearestParams, dtype: torch.dtype) -> Terms:
    values = (getattr(params, name) for name in Terms._fields[1:-1])
    return Terms._make((tuple(params.spacing), *values, dtype))


def weigh(
    short_ids: bool,
    labels: Tensor,
    classes: Tensor | None,
    foreground: Tensor | None,
    ignore: Tensor | None,
    terms: Terms,
) -> Work | Tensor:
    """The work for weights [B, H, W] or [B, D, H, W] by the two nearest instances of each class."""
    out = torch.empty(labels.shape, dtype=terms.dtype, device=labels.device)
    if out.numel() == 0:
        return out
    volumes = volumes_of(tuple(labels.shape), terms.spacing)
    double = (
        terms.dtype == torch.float64
        or not volumes.fit_float
        or max(abs(terms.fall), terms.bwf) > LARGEST_FACTOR_FOR_FLOAT
    )
    fall_limit = min(terms.limit / volumes.unit, 1e18) if terms.fall else 0.0
    pair_limit = min(terms.pair_limit / volumes.unit, 1e18) if terms.bwf else 0.0
    # near + second <= pair_limit cannot be had where near is more than half of it; an own instance always is.
    near_limit = max(fall_limit, pair_limit / 2, 0.5) ** 2
    exponents = [
        -min(max(-exponent * volumes.unit**2, 1e-30), 1e30)
        for exponent in (terms.foreground_exponent, terms.border_exponent)
    ]
    passes = _Passes(labels, classes, ignore, volumes, double, short_ids, pair_limit > 0)
    inside = labels if foreground is None and classes is not None else foreground  # None: the nearest tells
    of_weights = [
        item
        for tensor in (inside, classes, ignore)
        for item in (_flags(tensor, passes.labels), *passes.strides(tensor))
    ]
    of_weights += [out, *passes.strides(out), volumes.size[2], int(terms.border_everywhere), passes.found]
    factors = [terms.one, terms.zero, terms.fall, terms.bwf, *exponents]
    constants = dict(
        HAS_FOREGROUND=inside is not None,
        CLASSES_DECIDE=foreground is None and classes is not None,
        HAS_IGNORE=ignore is not None,
        **passes.classes,
    )
    launches = [] if classes is None else [passes.find_class()]
    limit = max(fall_limit, pair_limit, 0.5) ** 2
    for slot in range(passes.slots):
        launches.append(passes.in_rows(slot))
        launches += passes.along_planes(slot, limit, pair_limit**2, False)
        launches.append(
            passes.last(
                "weigh_nearest",
                [*of_weights, slot],
                [*factors, near_limit, fall_limit**2, pair_limit],
                constants,
            )
        )
    if classes is not None:
        scales = [*factors[2:], limit, pair_limit**2, near_limit, fall_limit**2, pair_limit]
        decide = foreground is None
        launches.append(passes.of_further_classes(inside, out, terms.border_everywhere, scales, decide))
    return Work(out, launches, passes.scratch, None if classes is None else passes.found)
