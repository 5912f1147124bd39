"""The Triton kernels of `fastlogconv.kernels`: how they are launched, on the current stream of the device.

CUDA tensors only, and CPU tensors where Triton's interpreter is switched on (TRITON_INTERPRET=1). Nothing
here waits for the GPU or looks at the data, so every function can be captured in a CUDA graph; values that
the other backends refuse (a label of 0.5, a negative mask, a distance of NaN) give weights without meaning.

The one exception is a window or a reach beyond about 220 pixels (LISTS_WITHOUT_SPILLS in triton_plans.py):
weights are then computed by CUDA C++ where that is there. Where it is not, kernels are compiled for
so many cells up to about 1000 pixels (MOST_LISTS); beyond, the reference computes.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import engines
from ..codes import CELL, PADDING_MODES, WAYS
from ..numerics import Numbers, numbers_for
from ..rules import BORDERS, Border
from ..settings import WeightSettings
from . import native, reference, terms, triton_launch, triton_nearest
from .c_interface import NearestParams
from .devices import why_no_gpu
from .reference import result_dtype
from .triton_classes import number_classes
from .triton_launch import Launch, Work
from .triton_nearest import terms_of
from .triton_plans import REGISTERS, Plan, blocks, plan_convolution, plan_labels, plan_regions

_SHORT_KEYS = (
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32,
    torch.float16, torch.bfloat16,
)  # fmt: skip

LACKS = dict.fromkeys(("cpu", "cuda"), frozenset(("volumes by every instance", "spacing by every instance")))


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
    return triton_launch.why_too_old()


def why_not(device: torch.device) -> str | None:
    """Why this backend cannot serve `device`; None where it can."""
    if device.type == "cpu" and not _interpreted():
        return "its kernels run on CUDA devices and, with TRITON_INTERPRET=1, in Triton's interpreter"
    if device.type not in ("cpu", "cuda"):
        return f"its kernels run on CUDA devices, not on {device.type}"
    reason = why_no_gpu(device, least=(8, 0)) if device.type == "cuda" else None
    return reason or _missing()


def describe() -> dict[str, str]:
    """What to print about this backend."""
    reason = _missing()
    if reason is not None:
        return {"kernels": reason}
    import triton

    return {
        "triton": triton.__version__,
        "interpreter": "on" if _interpreted() else "off",
        "warm launches": triton_launch.why_by_triton() or "without Triton's binding of arguments",
        "beyond 220 px": "a window or reach so large is left to CUDA C++ where it is there",
        "beyond 1000 px": "a window or reach so large is left to the reference",
    }


# ------------------------------------------------------------------------------------------------- launches


def _run(launch: Launch):
    """Launches on the current stream; tests put something else here."""
    return triton_launch.by_triton(launch)


def _has_cuda_cpp(device: torch.device) -> bool:
    """Whether the kernels in CUDA C++ can serve `device`; tests put something else here."""
    return device.type == "cuda" and native.why_not(device) is None


def _compute(double: bool):
    import triton.language as tl

    return tl.float64 if double else tl.float32


def _scales(settings: WeightSettings, numbers: Numbers) -> list[float]:
    """Those of distances and of the terms of the weight, as weigh_tiles_kernel takes them."""
    return [
        numbers.step_scale,
        numbers.step_scale / numbers.bits_per_step,
        numbers.foreground_exponent,
        settings.fbr,
        settings.bwf,
        numbers.border_scale,
    ]


def _constants(plan: Plan, rule: Border) -> dict:
    """What the kernels that weigh tiles are compiled for."""
    return dict(
        COMPUTE=_compute(plan.numbers.double_inside),
        WAY=WAYS.index(plan.way),
        BORDER=rule.code,
        EVERY_INSTANCE=rule.every_instance,
        FEWEST_INSTANCES=rule.fewest_instances,
        LISTS=plan.lists,
        TILE_H=plan.tile.height,
        TILE_W=plan.tile.width,
    )


# -------------------------------------------------------------------------------------------------- weights


def _optional(image: Tensor | None, instead: Tensor) -> list:
    """Pointer and strides of an image that may be None; bool as uint8."""
    strides = [0] * instead.dim() if image is None else image.stride()
    return [triton_launch.pointer_to(image, instead), *strides]


def _result(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A new tensor for what is computed from `like`."""
    return torch.empty(shape, dtype=result_dtype(like), device=like.device)


def weight_map(
    labels: Tensor,
    classes: Tensor | None,
    ignore: Tensor | None,
    foreground: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    """Weights [B, H, W] of labels [B, H, W], as in the reference."""
    if engines.choose(settings).name == "two nearest":
        beside = classes, ignore, foreground
        return terms.by_two_nearest(nearest_weight_map, "gpu", labels, *beside, settings)
    if settings.composed:
        return terms.weight_map(_by_instances, labels, classes, ignore, foreground, settings)
    return _by_instances(labels, classes, ignore, foreground, settings)


def _by_instances(
    labels: Tensor,
    classes: Tensor | None,
    ignore: Tensor | None,
    foreground: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    return triton_launch.compute(_run, _weight_map, settings, labels, classes, ignore, foreground)


def _weight_map(
    labels: Tensor,
    classes: Tensor | None,
    ignore: Tensor | None,
    foreground: Tensor | None,
    settings: WeightSettings,
) -> Work | Tensor:
    images, height, width = labels.shape
    out = _result(labels, labels.shape)
    if out.numel() == 0:
        return out
    plan = plan_labels(settings, height, width, labels.dtype == torch.float64)
    if plan.spills and _has_cuda_cpp(labels.device):
        return native.weight_map(labels, classes, ignore, foreground, settings)
    if not plan.feasible:
        return reference.weight_map(labels, classes, ignore, foreground, settings)
    import triton.language as tl

    key = tl.int32 if labels.dtype in _SHORT_KEYS else tl.int64
    if labels.dtype == torch.bool:
        labels = labels.view(torch.uint8)
    rule, has_classes = BORDERS[settings.border], classes is not None
    numbers, tile = plan.numbers, plan.tile
    cells_y, cells_x = blocks(height, CELL), blocks(width, CELL)
    tiles_y, tiles_x = blocks(height, tile.height), blocks(width, tile.width)
    cells = images * cells_y * cells_x
    pieces = [
        ((cells,), torch.int64),
        ((labels.numel(), 2), torch.int64),
        ((labels.numel(),), torch.int32),
        ((cells, CELL), torch.int64),
    ]
    if has_classes:
        pieces += [((cells,), torch.int32), ((labels.numel(),), torch.int32)]
    scratch, (first_keys, entries, words, marks, *of_classes) = triton_launch.scratch(labels.device, *pieces)
    first_classes, next_classes = of_classes or (first_keys, first_keys)
    instances, zeros = first_keys, None
    if rule.every_instance and classes is not None:
        classes, instances = number_classes(labels, classes, ignore)
    elif rule.every_instance:
        instances = zeros = torch.zeros(images, dtype=torch.int64, device=labels.device)
    lists_of_cells = [first_keys, first_classes, entries, next_classes, words, marks, instances]
    size = [height, width, cells_y, cells_x]
    of_both = dict(KEY=key, HAS_CLASSES=has_classes, HAS_IGNORE=ignore is not None)
    launches = [
        Launch(
            "list_cells",
            cells,
            [labels, *labels.stride(), *_optional(classes, labels), *_optional(ignore, labels)]
            + [*_optional(foreground, labels), *lists_of_cells, *size],
            dict(
                **of_both,
                HAS_FOREGROUND=foreground is not None,
                FIND_LARGEST=rule.every_instance and not has_classes,
            ),
            warps=4,
            registers=REGISTERS,
        ),
        Launch(
            "weigh_tiles",
            images * tiles_y * tiles_x,
            [*lists_of_cells, out, *size, tiles_y, tiles_x]
            + [numbers.radius, numbers.cut_radius, math.ceil(numbers.limit)]
            + [-numbers.bits_per_step, float(plan.scale_exponent), *_scales(settings, numbers)],
            dict(
                **of_both,
                **_constants(plan, rule),
                NEAREST_FALLOFF=settings.falloff == "nearest",
                ROWS=tile.rows,
            ),
            warps=plan.warps,
            registers=plan.registers(key == tl.int64, has_classes, triton_launch.pads_products()),
        ),
    ]
    return Work(out, launches, scratch, zeros)


def region_weight_map(masks: Tensor, ignore: Tensor | None, settings: WeightSettings) -> Tensor:
    """Weights [H, W] of one mask >= 0 per region, [N, H, W]: they may overlap and may be soft."""
    return triton_launch.compute(_run, _region_weight_map, settings, masks, ignore)


def _region_weight_map(masks: Tensor, ignore: Tensor | None, settings: WeightSettings) -> Work | Tensor:
    regions, height, width = masks.shape
    out = _result(masks, (height, width))
    if out.numel() == 0:
        return out
    plan = plan_regions(settings, height, width, masks.dtype == torch.float64)
    if plan.spills and _has_cuda_cpp(masks.device):
        return native.region_weight_map(masks, ignore, settings)
    if not plan.feasible:
        return reference.region_weight_map(masks, ignore, settings)
    if not masks.is_floating_point():
        masks = masks.view(torch.uint8) if masks.dtype == torch.bool else masks.to(torch.float64)
    rule, numbers, tile = BORDERS[settings.border], plan.numbers, plan.tile
    cells_y, cells_x = blocks(height, CELL), blocks(width, CELL)
    tiles_x = blocks(width, tile.width)
    of_boxes = (max(regions * cells_y * cells_x, CELL),), torch.int32  # no fewer than a warp reads
    scratch, (boxes,) = triton_launch.scratch(masks.device, of_boxes)
    size = [height, width, cells_y, cells_x]
    ignored, has_ignore = _optional(ignore, boxes.view(1, -1)), ignore is not None
    measure = Launch(
        "box_regions",
        regions * cells_y * cells_x,
        [masks, *masks.stride(), *ignored, boxes, *size],
        dict(HAS_IGNORE=has_ignore, TOGETHER=triton_launch.values_together(masks)),
        warps=1,
    )
    weigh = Launch(
        "weigh_regions",
        blocks(height, tile.height) * tiles_x,
        [masks, regions, *masks.stride(), *ignored, boxes, out, *size, tiles_x, numbers.radius]
        + [-numbers.bits_per_step, float(plan.scale_exponent), *_scales(settings, numbers)],
        dict(HAS_IGNORE=has_ignore, ADJACENT=masks.stride(2) == 1, **_constants(plan, rule), ROWS=tile.rows),
        warps=plan.warps,
        registers=plan.registers_of_regions(has_ignore, triton_launch.pads_products()),
    )
    return Work(out, [measure, weigh] if regions else [weigh], scratch)


def distance_to_weight(distance: Tensor, foreground: Tensor | None, settings: WeightSettings) -> Tensor:
    """Weights [H, W] of the distances [N, H, W] to N instances."""
    return triton_launch.compute(_run, _distance_to_weight, settings, distance, foreground)


def _distance_to_weight(
    distance: Tensor, foreground: Tensor | None, settings: WeightSettings
) -> Work | Tensor:
    instances, height, width = distance.shape
    out = _result(distance, (height, width))
    if out.numel() == 0:
        return out
    double = distance.dtype == torch.float64
    rule, numbers = BORDERS[settings.border], numbers_for(settings, height, width, "gpu", double)
    block = 256
    weigh = Launch(
        "weigh_distances",
        blocks(height * width, block),
        [distance, instances, *distance.stride(), *_optional(foreground, out), out, height, width]
        + [numbers.foreground_exponent, numbers.border_exponent, settings.fbr, settings.bwf],
        dict(
            COMPUTE=_compute(numbers.double_inside),
            BORDER=rule.code,
            FEWEST_INSTANCES=rule.fewest_instances,
            HAS_FOREGROUND=foreground is not None,
            BLOCK=block,
        ),
        warps=4,
    )
    return Work(out, [weigh])


# ----------------------------------------------------------------------------------- the nearest instances


def nearest_instances(
    labels: Tensor, ignore: Tensor | None, k: int, spacing: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Distances [k, B, H, W] or [k, B, D, H, W] to the nearest instances, and the ids of the nearest."""
    short_ids = labels.dtype in _SHORT_KEYS
    return triton_nearest.nearest_instances(_run, short_ids, labels, ignore, k, spacing)


def nearest_weight_map(
    labels: Tensor,
    classes: Tensor | None,
    foreground: Tensor | None,
    ignore: Tensor | None,
    params: NearestParams,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Weights [B, H, W] or [B, D, H, W] by the two nearest instances of each class."""
    weigh = _weigh_short_ids if labels.dtype in _SHORT_KEYS else _weigh_long_ids
    return triton_launch.compute(_run, weigh, terms_of(params, dtype), labels, classes, foreground, ignore)


_weigh_short_ids = functools.partial(triton_nearest.weigh, True)
_weigh_long_ids = functools.partial(triton_nearest.weigh, False)

# ---------------------------------------------------------------------------------------------- convolution


def separable_conv2d(input: Tensor, lmbda: float, ks: int, padding_mode: str) -> Tensor:
    """The separable lambda-kernel convolution of [N, H, W]."""
    return triton_launch.compute(_run, _separable_conv2d, (lmbda, ks, padding_mode), input)


def _separable_conv2d(input: Tensor, settings: tuple[float, int, str]) -> Work | Tensor:
    lmbda, ks, padding_mode = settings
    images = len(input)
    out = _result(input, input.shape)
    if out.numel() == 0:
        return out
    if not input.is_floating_point():
        input = input.to(torch.float32)
    double = input.dtype == torch.float64
    of_between = tuple(input.shape), torch.float64 if double else torch.float32
    scratch, (between,) = triton_launch.scratch(input.device, of_between)

    def along(axis: int, source: Tensor, target: Tensor) -> Launch:
        across = 3 - axis
        size, lines = source.shape[axis], source.shape[across]
        plan = plan_convolution(lmbda, ks // 2, size, padding_mode, double)
        tiles, tiles_across = blocks(size, plan.along), blocks(lines, plan.across)
        strides = [[t.stride(0), t.stride(axis), t.stride(across)] for t in (source, target)]
        return Launch(
            "convolve_axis",
            images * tiles * tiles_across,
            [source, *strides[0], target, *strides[1], size, lines, tiles, tiles_across, plan.radius]
            + [plan.log2_decay, plan.edge_weight],
            dict(
                COMPUTE=_compute(double),
                PADDING=PADDING_MODES.index(padding_mode),
                ALONG_ROWS=axis == 2,
                ALONG=plan.along,
                ACROSS=plan.across,
                CHUNK=16,
                FEW=plan.few,
            ),
            warps=plan.warps,
            registers=plan.registers,
        )

    return Work(out, [along(2, input, between), along(1, between, out)], scratch)
