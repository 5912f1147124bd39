"""The Triton kernels of `fastlogconv.kernels`: how they are launched, on the current stream of the device.

CUDA tensors only, and CPU tensors where Triton's interpreter is switched on (TRITON_INTERPRET=1). Nothing
here waits for the GPU or looks at the data, so every function can be captured in a CUDA graph; values that
the other backends refuse (a label of 0.5, a negative mask, a distance of NaN) give weights without meaning.

The one exception is a window or a reach beyond about 1000 pixels (MOST_LISTS): there the reference computes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import math
import os
from collections.abc import Callable

import torch
from torch import Tensor

from ..settings import WeightSettings
from . import reference
from .reference import result_dtype

# As in the kernels: pixels on a side of a cell, the ways to find a distance, the paddings.
CELL = 32
INSTANCE_SCALED, CHUNK_SCALED, LOGARITHMIC, EUCLIDEAN = range(4)
_PADDINGS = {"constant": 0, "reflect": 1, "replicate": 2, "circular": 3}


@dataclasses.dataclass(frozen=True)
class Tile:
    """The pixels that a program weighs."""

    height: int
    width: int
    warps: int


# Sizes that were found best by counting (see bench/NOTES.md). ROWS of an instance are taken together.
ROWS = 16
EUCLIDEAN_ROWS = 2
TILES = {"logconv": Tile(32, 16, 2), "euclidean": Tile(16, 32, 1), "regions": Tile(32, 16, 4)}
REGISTERS, MORE_REGISTERS, MOST_REGISTERS = 128, 168, 255  # 16, 12 and 8 warps on an SM
MOST_LISTS = 4096  # cells within reach of a tile: beyond, the reference computes

_SHORT_KEYS = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.float16, torch.bfloat16)


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@functools.cache
def _missing() -> str | None:
    try:
        found = importlib.util.find_spec("triton") is not None
    except ValueError:  # a stand-in without a spec in sys.modules
        found = False
    if not found:
        return "the package triton is not installed"
    if importlib.util.find_spec("fastlogconv.kernels") is None:  # a source tree that is not installed
        return "its kernels are not installed: pip install fastlogconv, or pip install -e . in the sources"
    return None


def why_not(device: torch.device) -> str | None:
    """Why this backend cannot serve `device`; None where it can."""
    if device.type == "cpu" and not _interpreted():
        return "its kernels run on CUDA devices and, with TRITON_INTERPRET=1, in Triton's interpreter"
    if device.type not in ("cpu", "cuda"):
        return f"its kernels run on CUDA devices, not on {device.type}"
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return "PyTorch finds no CUDA device"
        if torch.version.hip is not None:
            return "its kernels are written for NVIDIA GPUs"
        if torch.cuda.get_device_capability(device) < (8, 0):
            return "its kernels need compute capability 8.0 or higher"
    return _missing()


def describe() -> dict[str, str]:
    """What to print about this backend."""
    reason = _missing()
    if reason is not None:
        return {"kernels": reason}
    import triton

    return {
        "triton": triton.__version__,
        "interpreter": "on" if _interpreted() else "off",
        "beyond 1000 px": "a window or reach so large is left to the reference",
    }


# ------------------------------------------------------------------------------------------------- launches


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
        return _kernels()[self.name]


@functools.cache
def _kernels() -> dict[str, Callable]:
    """The kernels by name, imported when first needed: Triton takes a second."""
    from ..kernels import cells, convolution, distances, regions, weights

    return {
        "list_cells": cells.list_cells_kernel,
        "weigh_tiles": weights.weigh_tiles_kernel,
        "box_regions": regions.box_regions_kernel,
        "weigh_regions": regions.weigh_regions_kernel,
        "weigh_distances": distances.weigh_distances_kernel,
        "convolve_axis": convolution.convolve_axis_kernel,
    }


def _run(launch: Launch) -> None:
    """Launches on the current stream; tests put something else here."""
    options = dict(num_warps=launch.warps)
    if launch.registers is not None:
        options["maxnreg"] = launch.registers
    launch.kernel[(launch.programs,)](*launch.arguments, **launch.constants, **options)


def _launch(like: Tensor, *launches: Launch) -> None:
    device = torch.cuda.device(like.device) if like.is_cuda else contextlib.nullcontext()
    with device:
        for launch in launches:
            _run(launch)


def _compute(double: bool):
    import triton.language as tl

    return tl.float64 if double else tl.float32


def _capability(device: torch.device) -> int:
    """10 times the compute capability; tests put something else here."""
    return 10 * torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 80


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


# ------------------------------------------------------------------------------------------------- settings


@dataclasses.dataclass(frozen=True)
class Settings:
    """The numbers that the kernels compute with; see weigh_tiles_kernel."""

    double: bool
    distance: int
    radius: int
    reach: int
    limit: int
    step_scale: float
    border_scale: float
    square_scale: float
    log2_decay: float = 0.0
    exponent: float = 0.0
    log_scale: float = 0.0


def _farthest(fds: float, bws: float, bwf: float, epsilon: float) -> float:
    """Beyond this distance the terms of the weight are below epsilon.

    For all usual bwf the same, so that the border term can be switched off without changing any other bit.
    """
    foreground = fds * math.sqrt(2 * math.log(1 / epsilon))
    return max(foreground, bws * math.sqrt(2 * math.log(max(bwf, 50.0) / epsilon)))


def _clamp(x: float) -> float:
    return min(max(x, 1e-30), 1e30)


def _scales(bws: float, fds: float) -> dict[str, float]:
    """The scales of distances in pixels, of their squares and of the border term, for a float32."""
    step_scale = _clamp(math.sqrt(0.5 / math.log(2)) / fds)
    return dict(
        step_scale=step_scale,
        square_scale=-_clamp(step_scale**2),
        border_scale=_clamp((fds / bws) * (fds / bws)),
    )


def settings_for(
    double: bool, height: int, width: int, distance: str,
    *, bws: float, fds: float, bwf: float, lmbda: float, ks: int,
) -> Settings:  # fmt: skip
    """Chooses how to compute, for results in float64 if `double`, else float32."""
    if distance == "euclidean":
        return _euclidean_settings(double, height, width, bws, fds, bwf)
    return _logconv_settings(double, height, width, bws, fds, bwf, lmbda, ks)


@functools.lru_cache(256)
def _euclidean_settings(
    double: bool, height: int, width: int, bws: float, fds: float, bwf: float
) -> Settings:
    # Instances beyond the limit, at most one for each pixel there, add up to no more than
    # 2 pi fds^2 exp(-limit^2 / (2 fds^2)). A border term misses one instance alone; ten classes have room.
    error = 1e-12 if double else 1e-6
    foreground = fds * math.sqrt(2 * (math.log(2 * math.pi / error) + 2 * math.log(max(fds, 1))))
    border = bws * math.sqrt(2 * math.log(10 * max(bwf, 50.0) / error))
    limit = math.ceil(min(max(foreground, border), 1e9))
    reach = min(limit, max(height, width) - 1)
    return Settings(
        double=double, distance=EUCLIDEAN, radius=reach, reach=reach, limit=limit, **_scales(bws, fds)
    )


@functools.lru_cache(256)
def _logconv_settings(
    double: bool, height: int, width: int, bws: float, fds: float, bwf: float, lmbda: float, ks: int
) -> Settings:
    radius = min(ks // 2, max(height, width) - 1)
    lmbda = max(lmbda, 1e-12)
    bits_per_step = 1 / (lmbda * math.log(2))
    # A sum errs by about 1e-6 of itself in float32; a distance, by lmbda times that.
    narrowest = min(fds, bws)
    double = double or lmbda > 0.7 * narrowest
    terms = 1 + min(
        radius, 1 / math.expm1(1 / lmbda) if lmbda > 0.01 else 0
    )  # no less than 1 + a + ... + a^radius
    widest_sum = 2 * terms - 1  # along one axis
    slack = 2 * lmbda * math.log(widest_sum)  # no distance is below -slack
    limit = _farthest(fds, bws, bwf, 2.0**-60 if double else 2.0**-36) + slack
    # What lies beyond `reach` does not even show in the sum of an instance that is `limit` away.
    tail = lmbda * ((40 if double else 20) + 3 * math.log1p(lmbda))
    reach = int(min(radius, math.ceil(min(limit + tail, 1e9)) + 1))

    # A scaled sum grows up to widest_sum^2 2^(2 exponent) and has to stay below 2^128; below 2^-126 it counts
    # as 0, which must not happen at distances that matter. More scale than that takes would cost precision.
    room = 127 - math.ceil(2 * math.log2(widest_sum))
    matters = _farthest(fds, bws, bwf, 5e-7) + slack

    def exponent_for(steps: float, steps_along: float) -> int | None:
        """The exponent for terms down to a^steps, and a^steps_along on one axis; None: none suffices."""
        bits, bits_along = (min(s, matters) * bits_per_step for s in (steps, steps_along))
        exponent = max(math.ceil((bits - 125) / 2), math.ceil(bits_along - 125), 0)
        return exponent if 2 * exponent <= room else None

    instance = exponent_for(2 * radius, radius)
    chunk = exponent_for(min(2 * radius, ROWS + CELL - 2), min(radius, CELL - 1))
    way, exponent = LOGARITHMIC, 0
    if not double and instance is not None:
        way, exponent = INSTANCE_SCALED, instance
    elif not double and chunk is not None:
        way, exponent = CHUNK_SCALED, chunk
    scales = _scales(bws, fds)
    return Settings(
        double=double,
        distance=way,
        radius=radius,
        reach=reach,
        limit=math.ceil(min(limit, 1e9)),
        log2_decay=-bits_per_step,
        exponent=float(exponent),
        log_scale=scales["step_scale"] / bits_per_step,
        **scales,
    )


def _lists(tile: Tile, height: int, width: int, reach: int) -> int:
    """Cells within reach of a tile, at most, rounded up to a power of 2 (and no less than a warp)."""
    rows = min(_blocks(tile.height - 1 + 2 * reach, CELL) + 1, _blocks(height, CELL))
    columns = min(_blocks(tile.width - 1 + 2 * reach, CELL) + 1, _blocks(width, CELL))
    return max(32, 1 << (rows * columns - 1).bit_length())


def _registers(s: Settings, lists: int, long_keys: bool, has_classes: bool, capability: int) -> int:
    """The most registers that a thread of weigh_tiles_kernel may use: as few as it takes without spills."""
    if s.double or lists > 64:
        return MOST_REGISTERS
    if s.distance == EUCLIDEAN:
        return (REGISTERS, MORE_REGISTERS, MOST_REGISTERS)[long_keys + has_classes]
    long_keys = long_keys and (has_classes or capability < 90)
    return MORE_REGISTERS if s.distance != INSTANCE_SCALED or lists > 32 or long_keys else REGISTERS


# -------------------------------------------------------------------------------------------------- weights


def _optional(image: Tensor | None, instead: Tensor) -> list:
    """Pointer and strides of an image that may be None; bool as uint8."""
    if image is None:
        return [instead, *[0] * instead.dim()]
    return [image.view(torch.uint8) if image.dtype == torch.bool else image, *image.stride()]


def _number_classes(labels: Tensor, classes: Tensor, ignore: Tensor | None) -> tuple[Tensor, Tensor]:
    """Classes numbered from 1 on in each image, and how many instances each has.

    Returns int32 [B, H, W] and int64 [B, 1 + H * W], 0 throughout in an image where an id is absent: no class
    has a farthest instance then.
    """
    classes = classes.clamp(min=0) if ignore is None else classes.clamp(min=0).masked_fill(ignore, 0)
    ids = torch.where(classes > 0, labels.to(torch.int64), 0).clamp(min=0).flatten(1)
    ids, by_id = ids.sort(dim=1)
    zero = torch.zeros_like(ids[:, :1])
    complete = (ids.diff(dim=1, prepend=zero) != 0).sum(dim=1) == ids[:, -1]
    sorted_classes, by_class = classes.flatten(1).gather(1, by_id).sort(dim=1, stable=True)
    ids, pixels = ids.gather(1, by_class), by_id.gather(1, by_class)
    new_class = sorted_classes.diff(dim=1, prepend=zero.to(torch.int32)) != 0
    numbers = new_class.cumsum(dim=1)
    new_instance = (ids > 0) & (new_class | (ids.diff(dim=1, prepend=zero) != 0))
    instances = torch.zeros((len(ids), 1 + ids.shape[1]), dtype=torch.int64, device=ids.device)
    instances.scatter_add_(1, numbers, (new_instance & complete[:, None]).to(torch.int64))
    numbers = torch.zeros_like(numbers).scatter_(1, pixels, numbers)
    return numbers.to(torch.int32).view(labels.shape), instances


def weight_map(
    labels: Tensor,
    classes: Tensor | None,
    ignore: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    """Weights [B, H, W] of instance labels [B, H, W], by class (int32) and without what is to be ignored."""
    distance, border, bws, fds, bwf, fbr, lmbda = settings.values[:7]
    ks = 2 * settings.radius + 1
    images, height, width = labels.shape
    out = torch.empty(labels.shape, dtype=result_dtype(labels), device=labels.device)
    if out.numel() == 0:
        return out
    s = settings_for(
        labels.dtype == torch.float64, height, width, distance, bws=bws, fds=fds, bwf=bwf, lmbda=lmbda, ks=ks
    )
    tile = TILES[distance]
    lists = _lists(tile, height, width, s.reach)
    if lists > MOST_LISTS:
        return reference.weight_map(labels, classes, ignore, settings)
    import triton.language as tl

    key = tl.int32 if labels.dtype in _SHORT_KEYS or labels.dtype == torch.bool else tl.int64
    if labels.dtype == torch.bool:
        labels = labels.view(torch.uint8)
    farthest, has_classes = border == "farthest", classes is not None
    cells_y, cells_x = _blocks(height, CELL), _blocks(width, CELL)
    tiles_y, tiles_x = _blocks(height, tile.height), _blocks(width, tile.width)
    cells = images * cells_y * cells_x
    new = functools.partial(torch.empty, device=labels.device)
    first_keys = new(cells, dtype=torch.int64)
    instances = unused = first_keys
    if farthest and has_classes:
        classes, instances = _number_classes(labels, classes, ignore)
    elif farthest:
        instances = torch.zeros(images, dtype=torch.int64, device=labels.device)
    lists_of_cells = [
        first_keys,
        new(cells, dtype=torch.int32) if has_classes else unused,
        new((labels.numel(), 2), dtype=torch.int64),
        new(labels.numel(), dtype=torch.int32) if has_classes else unused,
        new(labels.numel(), dtype=torch.int32),
        new((cells, CELL), dtype=torch.int64),
        instances,
    ]
    size = [height, width, cells_y, cells_x]
    _launch(
        labels,
        Launch(
            "list_cells",
            cells,
            [labels, *labels.stride(), *_optional(classes, labels), *_optional(ignore, labels)]
            + [*lists_of_cells, *size],
            dict(
                KEY=key,
                HAS_CLASSES=has_classes,
                HAS_IGNORE=ignore is not None,
                FIND_LARGEST=farthest and not has_classes,
            ),
            warps=4,
            registers=REGISTERS,
        ),
        Launch(
            "weigh_tiles",
            images * tiles_y * tiles_x,
            [*lists_of_cells, out, *size, tiles_y, tiles_x, s.radius, s.reach, s.limit]
            + [s.log2_decay, s.exponent, s.step_scale, s.log_scale, s.square_scale]
            + [float(fbr), float(bwf), s.border_scale],
            dict(
                KEY=key,
                COMPUTE=_compute(s.double),
                DISTANCE=s.distance,
                FARTHEST=farthest,
                HAS_CLASSES=has_classes,
                HAS_IGNORE=ignore is not None,
                LISTS=lists,
                ROWS=EUCLIDEAN_ROWS if distance == "euclidean" else ROWS,
                TILE_H=tile.height,
                TILE_W=tile.width,
            ),
            warps=2 * tile.warps if s.double else tile.warps,
            registers=_registers(s, lists, key == tl.int64, has_classes, _capability(labels.device)),
        ),
    )
    return out


def region_weight_map(
    masks: Tensor,
    ignore: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    """Weights [H, W] of one mask >= 0 per region, [N, H, W]: they may overlap and may be soft."""
    distance, border, bws, fds, bwf, fbr, lmbda = settings.values[:7]
    ks = 2 * settings.radius + 1
    regions, height, width = masks.shape
    out = torch.empty(masks.shape[1:], dtype=result_dtype(masks), device=masks.device)
    if out.numel() == 0:
        return out
    s = settings_for(
        masks.dtype == torch.float64, height, width, distance, bws=bws, fds=fds, bwf=bwf, lmbda=lmbda, ks=ks
    )
    tile = TILES["regions"]
    lists = _lists(tile, height, width, s.radius)
    if lists > MOST_LISTS:
        return reference.region_weight_map(masks, ignore, settings)
    if not masks.is_floating_point():
        masks = masks.view(torch.uint8) if masks.dtype == torch.bool else masks.to(torch.float64)
    cells_y, cells_x = _blocks(height, CELL), _blocks(width, CELL)
    tiles_x = _blocks(width, tile.width)
    boxes = torch.empty(max(regions, 1) * cells_y * cells_x, dtype=torch.int32, device=masks.device)
    size = [height, width, cells_y, cells_x]
    ignored, has_ignore = _optional(ignore, boxes.view(1, -1)), ignore is not None
    measure = Launch(
        "box_regions",
        regions * cells_y * cells_x,
        [masks, *masks.stride(), *ignored, boxes, *size],
        dict(HAS_IGNORE=has_ignore),
        warps=1,
    )
    weigh = Launch(
        "weigh_regions",
        _blocks(height, tile.height) * tiles_x,
        [masks, regions, *masks.stride(), *ignored, boxes, out, *size, tiles_x, s.radius, s.log2_decay]
        + [s.step_scale, s.log_scale, s.square_scale, float(fbr), float(bwf), s.border_scale],
        dict(
            COMPUTE=_compute(s.double),
            DISTANCE=EUCLIDEAN if s.distance == EUCLIDEAN else LOGARITHMIC,
            FARTHEST=border == "farthest",
            HAS_IGNORE=has_ignore,
            LISTS=lists,
            TILE_H=tile.height,
            TILE_W=tile.width,
        ),
        warps=tile.warps,
        registers=MORE_REGISTERS if s.double else REGISTERS,
    )
    _launch(masks, *([measure] if regions else []), weigh)
    return out


def distance_to_weight(
    distance: Tensor,
    foreground: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    """Weights [H, W] of the distances [N, H, W] to N instances."""
    _, border, bws, fds, bwf, fbr = settings.values[:6]
    instances, height, width = distance.shape
    out = torch.empty(distance.shape[1:], dtype=result_dtype(distance), device=distance.device)
    if out.numel() == 0:
        return out
    scales = _scales(bws, fds)
    covered = foreground is not None
    foreground = (
        foreground.view(torch.uint8) if covered else torch.empty(0, 0, dtype=torch.uint8, device=out.device)
    )
    block = 256
    _launch(
        distance,
        Launch(
            "weigh_distances",
            _blocks(height * width, block),
            [distance, instances, *distance.stride(), foreground, *foreground.stride(), out, height, width]
            + [scales["step_scale"], float(fbr), float(bwf), scales["border_scale"]],
            dict(
                COMPUTE=_compute(distance.dtype == torch.float64),
                FARTHEST=border == "farthest",
                HAS_FOREGROUND=covered,
                BLOCK=block,
            ),
            warps=4,
        ),
    )
    return out


# ---------------------------------------------------------------------------------------------- convolution


def separable_conv2d(input: Tensor, lmbda: float, ks: int, padding_mode: str) -> Tensor:
    """The separable lambda-kernel convolution of [N, H, W]."""
    images = len(input)
    out = torch.empty(input.shape, dtype=result_dtype(input), device=input.device)
    if out.numel() == 0:
        return out
    if not input.is_floating_point():
        input = input.to(torch.float32)
    double = input.dtype == torch.float64
    between = torch.empty(input.shape, dtype=torch.float64 if double else torch.float32, device=input.device)

    def along(axis: int, source: Tensor, target: Tensor) -> Launch:
        across = 3 - axis
        size, lines = source.shape[axis], source.shape[across]
        radius, edge_weight = _steps(lmbda, ks // 2, size, padding_mode, double)
        block, block_across = (128, 32) if not double else (32, 32)
        tiles, tiles_across = _blocks(size, block), _blocks(lines, block_across)
        strides = [[t.stride(0), t.stride(axis), t.stride(across)] for t in (source, target)]
        return Launch(
            "convolve_axis",
            images * tiles * tiles_across,
            [source, *strides[0], target, *strides[1], size, lines, tiles, tiles_across, radius]
            + [-1 / (max(lmbda, 1e-12) * math.log(2)), edge_weight],
            dict(
                COMPUTE=_compute(double),
                PADDING=_PADDINGS[padding_mode],
                ALONG_ROWS=axis == 2,
                ALONG=block,
                ACROSS=block_across,
                CHUNK=32,
            ),
            warps=8,
            registers=REGISTERS,
        )

    _launch(input, along(2, input, between), along(1, between, out))
    return out


def _steps(lmbda: float, radius: int, size: int, padding_mode: str, double: bool) -> tuple[int, float]:
    """How many steps to sum over on each side, and what all further ones weigh that show the edge value.

    Factors that are 0 in the type of the computation are left out, and zeros beyond the edge.
    """
    wanted = min(radius, math.ceil(min((750 if double else 105) * lmbda, 2.0**31)) + 1)
    if padding_mode == "constant":
        return min(wanted, size - 1), 0.0
    if padding_mode == "replicate" and wanted > size:
        # a^(size + 1) + ... + a^radius
        start = math.exp(-(size + 1) / lmbda)
        return size, start * math.expm1(-(radius - size) / lmbda) / math.expm1(-1 / lmbda)
    return wanted, 0.0
