"""The native CUDA kernels, through ctypes onto the flc_cuda functions of csrc/fastlogconv.h.

They work on the current stream of the tensor's device. Nothing waits for the GPU or looks at the data, so
every function can be captured in a CUDA graph; values that the other backends refuse (a label of 0.5, a
negative mask, a distance of NaN) give weights without meaning.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import engines
from ..settings import WeightSettings
from . import c_interface as c
from . import terms
from .devices import queue_of, why_no_gpu


@functools.cache
def _load() -> Any:
    """The CUDA library, or a str: why there is none. Opened when first asked for, never by an import."""
    library = c.open_library(c.CUDA_LIBRARY, "nvcc", "flc_cuda_abi_version")
    return library if isinstance(library, str) else _with_signatures(library)


def _with_signatures(library: ctypes.CDLL) -> ctypes.CDLL:
    tensor, params = ctypes.POINTER(c.TensorView), ctypes.POINTER(c.WeightParams)
    int32, int64, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
    result, queue = (pointer, int32), (int32, pointer)
    library.flc_cuda_weight_map.argtypes = (*(tensor,) * 4, params, *result, pointer, *queue)
    library.flc_cuda_region_weight_map.argtypes = (tensor, tensor, params, *result, pointer, *queue)
    library.flc_cuda_distance_to_weight.argtypes = (tensor, tensor, params, *result, *queue)
    library.flc_cuda_separable_conv2d.argtypes = (
        tensor, ctypes.c_double, int64, int32, *result, pointer, *queue,
    )  # fmt: skip
    for name, arguments in (
        ("weight_map", (tensor,) * 3),
        ("region_weight_map", (tensor,)),
        ("separable_conv2d", (tensor, ctypes.c_double, int64, int32, int32)),
    ):
        scratch_bytes = getattr(library, f"flc_cuda_{name}_scratch_bytes")
        scratch_bytes.argtypes, scratch_bytes.restype = arguments, int64
    _add_nearest_signatures(library)
    library.flc_cuda_error_text.restype = ctypes.c_char_p
    return library


def _add_nearest_signatures(library: ctypes.CDLL) -> None:
    tensor, params = ctypes.POINTER(c.TensorView), ctypes.POINTER(c.NearestParams)
    lengths = ctypes.c_double * 3
    int32, pointer = ctypes.c_int32, ctypes.c_void_p
    result, queue = (pointer, int32), (int32, pointer)
    library.flc_cuda_nearest_instances.argtypes = (
        tensor, tensor, lengths, int32, *result, pointer, pointer, *queue,
    )  # fmt: skip
    library.flc_cuda_nearest_weight_map.argtypes = (*(tensor,) * 4, params, *result, pointer, *queue)
    for name, arguments in (
        ("nearest_instances", (tensor, lengths, int32, int32)),
        ("nearest_weight_map", (tensor, params, int32)),
    ):
        scratch_bytes = getattr(library, f"flc_cuda_{name}_scratch_bytes")
        scratch_bytes.argtypes, scratch_bytes.restype = arguments, ctypes.c_int64


def why_not(device: torch.device) -> str | None:
    """Why it cannot serve the CUDA device `device`; None where it can."""
    library = _load()
    if isinstance(library, str):
        return library
    return why_no_gpu(device, least=(7, 5)) or _why_driver_is_too_old(library)


@functools.cache
def _why_driver_is_too_old(library: ctypes.CDLL) -> str | None:
    needed, there = library.flc_cuda_runtime_version() // 1000, library.flc_cuda_driver_version() // 1000
    if there >= needed:
        return None
    return (
        f"{c.CUDA_LIBRARY.name} needs a GPU driver for CUDA {needed}, and this one serves CUDA {there}: "
        f"update it, or build fastlogconv with nvcc of CUDA {there}"
    )


def describe() -> dict[str, str]:
    """What to print about it. The library is not loaded for that where there is no use for it."""
    if torch.cuda.is_available():
        library = _load()
        return {"CUDA library": library if isinstance(library, str) else c.CUDA_LIBRARY.name}
    return {"CUDA library": f"{c.CUDA_LIBRARY.name}, not loaded" if c.CUDA_LIBRARY.exists() else _load()}


# --------------------------------------------------------------------------------------------------- calls

# What a call needs but for addresses depends on these alone, and is kept.
_Layout = tuple[torch.dtype, torch.Size, tuple[int, ...]]


def _layout(tensor: Tensor | None) -> _Layout | None:
    return None if tensor is None else (tensor.dtype, tensor.shape, tensor.stride())


def _view_of_layout(layout: _Layout | None) -> c.TensorView | None:
    """A view of nothing, but not at 0: the C interface takes that for a tensor that is missing."""
    return None if layout is None else c.view_of_layout(*layout, address=64)


def _view(kept: c.TensorView | None, tensor: Tensor | None) -> c.TensorView | None:
    """One of its own for each call: threads may call with tensors of one layout at a time."""
    if kept is None:
        return None
    view = c.TensorView.from_buffer_copy(kept)
    view.data = _address(tensor)  # type: ignore[arg-type]
    return view


def _address(tensor: Tensor) -> int:
    """Of what the kernels read; tests put something else here."""
    return tensor.data_ptr()


def _check(status: int, function: str, input: Tensor) -> None:
    if status < 0:
        text = _load().flc_cuda_error_text(-status).decode()
        raise RuntimeError(f"fastlogconv: {function} on {input.dtype} {tuple(input.shape)} failed: {text}")
    c.check_status(status, function, input)


def _on_device(tensor: Tensor) -> contextlib.AbstractContextManager[tuple[int, int | None]]:
    """(device, stream) for launches that concern a tensor. Tests put something else here."""
    return queue_of(tensor)


class _Prepared(NamedTuple):
    """What a call needs but for addresses."""

    out_dtype: torch.dtype
    out_code: int
    params: c.WeightParams
    scratch_bytes: int | None
    views: list[c.TensorView | None]


@functools.lru_cache(1024)
def _prepared(
    function: str, settings: WeightSettings, height: int, width: int, *layouts: _Layout | None
) -> _Prepared:
    views = [_view_of_layout(layout) for layout in layouts]
    double = layouts[0] is not None and layouts[0][0] == torch.float64
    dtype = torch.float64 if double else torch.float32
    params = c.params_for(settings, height, width, "gpu", double)
    scratch_bytes = _scratch_bytes(function, *(views[i] for i in _SCRATCH_FOR[function]))
    return _Prepared(dtype, c.DTYPES[dtype], params, scratch_bytes, views)


# By function: which of its tensors decide on the size of its scratch; where none does it takes none.
_SCRATCH_FOR = {
    "flc_cuda_weight_map": (0, 1, 3),
    "flc_cuda_region_weight_map": (0,),
    "flc_cuda_distance_to_weight": (),
}


def _scratch_bytes(function: str, *arguments) -> int | None:
    return getattr(_load(), f"{function}_scratch_bytes")(*arguments) if arguments else None


def _scratch(size: int, device: torch.device) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device=device)


def _weigh(function: str, shape: torch.Size, settings: WeightSettings, *tensors: Tensor | None) -> Tensor:
    """Calls a function for its tensors, of which the first decides on device and dtype."""
    like: Tensor = tensors[0]  # type: ignore[assignment]
    device = like.device
    dtype, code, params, scratch_bytes, kept = _prepared(
        function, settings, shape[-2], shape[-1], *map(_layout, tensors)
    )
    out = torch.empty(shape, dtype=dtype, device=device)
    views = map(_view, kept, tensors)
    with _on_device(like) as queue:
        if scratch_bytes is None:
            status = getattr(_load(), function)(*views, params, out.data_ptr(), code, *queue)
        else:
            memory = _scratch(scratch_bytes, device)
            result = out.data_ptr(), code, memory.data_ptr()
            status = getattr(_load(), function)(*views, params, *result, *queue)
    if status != c.OK:
        _check(status, function, like)
    return c.as_result(out, like)


def weight_map(
    labels: Tensor,
    classes: Tensor | None,
    ignore: Tensor | None,
    foreground: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    """Weights [B, H, W] of labels [B, H, W], as in the reference."""
    if settings.distance == "euclidean" and engines.choose(settings).name == "two nearest":
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
    beside = classes, foreground, ignore
    return _weigh("flc_cuda_weight_map", labels.shape, settings, labels, *beside)


def region_weight_map(masks: Tensor, ignore: Tensor | None, settings: WeightSettings) -> Tensor:
    """Weights [H, W] of one mask >= 0 per region, [N, H, W]: they may overlap and may be soft."""
    return _weigh("flc_cuda_region_weight_map", masks.shape[1:], settings, masks, ignore)


def distance_to_weight(distance: Tensor, foreground: Tensor | None, settings: WeightSettings) -> Tensor:
    """Weights [H, W] of the distances [N, H, W] to N instances; `foreground` [H, W] is bool or None."""
    return _weigh("flc_cuda_distance_to_weight", distance.shape[1:], settings, distance, foreground)


@functools.lru_cache(1024)
def _prepared_convolution(
    layout: _Layout, decay_length: float, radius: int, padding: int, out_dtype: int
) -> tuple[c.TensorView | None, int]:
    """As `_prepared`."""
    view = _view_of_layout(layout)
    return view, _load().flc_cuda_separable_conv2d_scratch_bytes(
        view, decay_length, radius, padding, out_dtype
    )


def separable_conv2d(input: Tensor, lmbda: float, ks: int, padding_mode: str) -> Tensor:
    """The separable lambda-kernel convolution of [N, H, W]."""
    out = c.output(input, input.shape)
    dtype = c.DTYPES[out.dtype]
    convolution = lmbda, min(ks // 2, c.LARGEST_RADIUS), c.PADDINGS[padding_mode]
    layout: _Layout = _layout(input)  # type: ignore[assignment]
    kept, scratch_bytes = _prepared_convolution(layout, *convolution, dtype)
    with _on_device(input) as queue:
        scratch = _scratch(scratch_bytes, input.device)
        status = _load().flc_cuda_separable_conv2d(
            _view(kept, input), *convolution, out.data_ptr(), dtype, scratch.data_ptr(), *queue
        )
    if status != c.OK:
        _check(status, "flc_cuda_separable_conv2d", input)
    return c.as_result(out, input)


# ----------------------------------------------------------------------------------- the nearest instances


def nearest_instances(
    labels: Tensor, ignore: Tensor | None, k: int, spacing: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Distances [k, B, H, W] or [k, B, D, H, W] to the nearest instances, and the ids of the nearest."""
    out = c.output(labels, torch.Size((k, *labels.shape)))
    ids = torch.empty(labels.shape, dtype=torch.int64, device=labels.device)
    lengths = (ctypes.c_double * 3)(*(1.0,) * (3 - len(spacing)), *spacing)
    dtype = c.DTYPES[out.dtype]
    _call_nearest(
        "nearest_instances", labels,
        (_view_of_volumes(ignore), lengths, k, out.data_ptr(), dtype, ids.data_ptr()),
        scratch_for=(lengths, dtype, True),
    )  # fmt: skip
    return out, ids


def nearest_weight_map(
    labels: Tensor,
    classes: Tensor | None,
    foreground: Tensor | None,
    ignore: Tensor | None,
    params: c.NearestParams,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Weights [B, H, W] or [B, D, H, W] by the two nearest instances of each class; see fastlogconv.h."""
    out = torch.empty(labels.shape, dtype=dtype, device=labels.device)
    beside = map(_view_of_volumes, (classes, foreground, ignore))
    arguments = (*beside, params, out.data_ptr(), c.DTYPES[dtype])
    _call_nearest("nearest_weight_map", labels, arguments, scratch_for=(params, c.DTYPES[dtype]))
    return out


def _call_nearest(name: str, labels: Tensor, arguments: tuple, scratch_for: tuple) -> None:
    """Calls flc_cuda_NAME(labels, *arguments, scratch, device, stream), labels as volumes."""
    library, tensor = _load(), _view_of_volumes(labels)
    size = getattr(library, f"flc_cuda_{name}_scratch_bytes")(tensor, *scratch_for)
    scratch = _scratch(size, labels.device)
    with _on_device(labels) as (device, stream):
        status = getattr(library, f"flc_cuda_{name}")(tensor, *arguments, scratch.data_ptr(), device, stream)
    if status != c.OK:
        _check(status, f"flc_cuda_{name}", labels)


def _view_of_volumes(tensor: Tensor | None) -> c.TensorView | None:
    view = c.view_of_volumes(tensor)
    if view is not None:
        view.data = _address(tensor)  # type: ignore[arg-type]
    return view
