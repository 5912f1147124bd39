"""The native C++ kernels for the CPU. CUDA tensors go to the functions of the same names in native_cuda."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .. import engines
from ..errors import distance_error, label_error, mask_error
from ..numerics import exact_limit
from ..settings import WeightSettings
from . import c_interface as c
from . import native_cuda, reference, terms

_Operator = TypeVar("_Operator", bound=Callable[..., Any])
LACKS = {
    "cpu": frozenset(("volumes of regions", "spacing of regions")),
    "cuda": frozenset(("volumes by every instance", "spacing by every instance")),
}


@functools.cache
def _load() -> Any:
    """The CPU library, or a str: why there is none."""
    library = c.open_library(c.CPU_LIBRARY, "a C++ compiler", "flc_abi_version")
    if isinstance(library, str):
        return library
    tensor, params = ctypes.POINTER(c.TensorView), ctypes.POINTER(c.WeightParams)
    int32, int64, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
    number = ctypes.POINTER(ctypes.c_double)
    result, threads = (pointer, int32), int32
    library.flc_cpu_weight_map.argtypes = (*(tensor,) * 4, params, *result, threads, number)
    library.flc_cpu_region_weight_map.argtypes = (tensor, tensor, params, *result, threads, number)
    library.flc_cpu_distance_to_weight.argtypes = (tensor, tensor, params, *result, threads, number)
    library.flc_cpu_class_labels.argtypes = (tensor, tensor, pointer, threads, number)
    library.flc_cpu_nearest_instances.argtypes = (
        tensor, tensor, ctypes.c_double * 3, int32, *result, pointer, threads, number,
    )  # fmt: skip
    nearest_params = ctypes.POINTER(c.NearestParams)
    library.flc_cpu_nearest_weight_map.argtypes = (
        *(tensor,) * 4, nearest_params, int32, *result, threads, number,
    )  # fmt: skip
    library.flc_cpu_separable_conv2d.argtypes = (tensor, ctypes.c_double, int64, int32, *result, threads)
    library.flc_cpu_foreground_with_gaps.argtypes = (tensor, tensor, pointer, threads)
    library.flc_cpu_instruction_set.restype = ctypes.c_char_p
    library.flc_cpu_use_instruction_set.argtypes = (ctypes.c_char_p,)
    return library


def why_not(device: torch.device) -> str | None:
    """Why this backend cannot serve `device`; None where it can."""
    if device.type == "cuda":
        return native_cuda.why_not(device)
    if device.type != "cpu":
        return f"its kernels run on the CPU and on CUDA devices, not on {device.type}"
    library = _load()
    return library if isinstance(library, str) else None


def describe() -> dict[str, str]:
    """What to print about this backend."""
    library = _load()
    if isinstance(library, str):
        description = {"library": library}
    else:
        name = library.flc_cpu_instruction_set().decode()
        description = {"library": c.CPU_LIBRARY.name, "instruction set": name}
    return description | native_cuda.describe()


def _is_for_cuda(tensor: Tensor) -> bool:
    """Tests put something else here."""
    return tensor.is_cuda


def _also_on_cuda(function: _Operator) -> _Operator:
    """`function` for CPU tensors, and its namesake in native_cuda for CUDA tensors."""

    @functools.wraps(function)
    def by_device(tensor: Tensor, *arguments):
        chosen = getattr(native_cuda, function.__name__) if _is_for_cuda(tensor) else function
        return chosen(tensor, *arguments)

    return by_device  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------- threads

_one_thread = contextvars.ContextVar("fastlogconv_one_thread", default=False)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within it, in this thread, the native code takes one thread, whatever PyTorch does."""
    token = _one_thread.set(True)
    try:
        yield
    finally:
        _one_thread.reset(token)


def _threads() -> int:
    return 1 if _one_thread.get() else torch.get_num_threads()


def use_instruction_set(name: str) -> None:
    """Chooses "avx512", "avx2", "baseline" or (aarch64) "neon" for the process: for tests and benchmarks.

    Raises:
        ValueError: unknown, or not of this CPU.
    """
    if _load().flc_cpu_use_instruction_set(name.encode()) != c.OK:
        raise ValueError(f"this CPU (or this build) has no instruction set {name!r}")


# ------------------------------------------------------------------------------------------------- tensors


def _weigh(
    function: str,
    like: Tensor,
    beside: tuple[Tensor | None, ...],
    shape: torch.Size,
    settings: WeightSettings,
    data_error: Callable[[float], ValueError],
) -> Tensor:
    """Calls `function` for a tensor and what goes `beside` it; the result is like it but for its shape."""
    out = c.output(like, shape)
    params = c.params_for(settings, shape[-2], shape[-1], "cpu", out.dtype == torch.float64)
    bad_value = ctypes.c_double()
    status = getattr(_load(), function)(
        c.view(like), *map(c.view, beside), params, out.data_ptr(), c.DTYPES[out.dtype], _threads(), bad_value
    )
    c.check_status(status, function, like, data_error, bad_value.value)
    return c.as_result(out, like)


@_also_on_cuda
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
        return terms.by_two_nearest(nearest_weight_map, "cpu", labels, *beside, settings)
    if labels.dim() == 4 or settings.spacing is not None:
        return reference.weight_map(labels, classes, ignore, foreground, settings, _distance_within_reach)
    if settings.balance != "none" or settings.border_everywhere:
        return terms.weight_map(_by_instances, labels, classes, ignore, foreground, settings)
    return _by_instances(labels, classes, ignore, foreground, settings)


def _by_instances(
    labels: Tensor,
    classes: Tensor | None,
    ignore: Tensor | None,
    foreground: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    beside = (classes, foreground, ignore)
    return _weigh("flc_cpu_weight_map", labels, beside, labels.shape, settings, label_error)


@_also_on_cuda
def region_weight_map(masks: Tensor, ignore: Tensor | None, settings: WeightSettings) -> Tensor:
    """Weights [H, W] of one mask >= 0 per region, [N, H, W]: they may overlap and may be soft."""
    if not masks.is_floating_point():
        masks = masks != 0 if masks.dtype == torch.bool else masks.to(torch.float64)
    return _weigh("flc_cpu_region_weight_map", masks, (ignore,), masks.shape[1:], settings, mask_error)


@_also_on_cuda
def distance_to_weight(distance: Tensor, foreground: Tensor | None, settings: WeightSettings) -> Tensor:
    """Weights [H, W] of the distances [N, H, W] to N instances; `foreground` [H, W] is bool or None."""
    beside, shape = (foreground,), distance.shape[1:]
    return _weigh("flc_cpu_distance_to_weight", distance, beside, shape, settings, distance_error)


@_also_on_cuda
def separable_conv2d(input: Tensor, lmbda: float, ks: int, padding_mode: str) -> Tensor:
    """The separable lambda-kernel convolution of [N, H, W]."""
    out = c.output(input, input.shape)
    padding, dtype = c.PADDINGS[padding_mode], c.DTYPES[out.dtype]
    status = _load().flc_cpu_separable_conv2d(
        c.view(input), lmbda, min(ks // 2, c.LARGEST_RADIUS), padding, out.data_ptr(), dtype, _threads()
    )
    c.check_status(status, "flc_cpu_separable_conv2d", input)
    return c.as_result(out, input)


# ----------------------------------------------------------------------------------- the nearest instances


def foreground_with_gaps(labels: Tensor, classes: Tensor | None) -> Tensor:
    """Where `separate_touching` leaves labels [B, H, W] or [B, D, H, W] (of the int32 classes above 0)."""
    out = torch.empty(labels.shape, dtype=torch.bool)
    status = _load().flc_cpu_foreground_with_gaps(
        c.view_of_volumes(labels), c.view_of_volumes(classes), out.data_ptr(), _threads()
    )
    c.check_status(status, "flc_cpu_foreground_with_gaps", labels)
    return out


@_also_on_cuda
def nearest_instances(
    labels: Tensor, ignore: Tensor | None, k: int, spacing: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Distances [k, B, H, W] or [k, B, D, H, W] to the nearest instances, and the ids of the nearest."""
    out = c.output(labels, torch.Size((k, *labels.shape)))
    ids = torch.empty(labels.shape, dtype=torch.int64)
    lengths = (ctypes.c_double * 3)(*(1.0,) * (3 - len(spacing)), *spacing)
    bad_value = ctypes.c_double()
    status = _load().flc_cpu_nearest_instances(
        c.view_of_volumes(labels), c.view_of_volumes(ignore), lengths, k, out.data_ptr(), c.DTYPES[out.dtype],
        ids.data_ptr(), _threads(), bad_value,
    )  # fmt: skip
    c.check_status(status, "flc_cpu_nearest_instances", labels, label_error, bad_value.value)
    return out, ids


def _distance_within_reach(
    region: Tensor, corner: tuple[int, ...], shape: torch.Size, settings: WeightSettings
) -> tuple[Tensor, tuple[slice, ...]]:
    """The exact distance to an instance where it can change a weight: see reference.FindDistance."""
    spacing = settings.spacing or (1.0,) * len(shape)
    limit = exact_limit(settings, math.prod(shape))
    window, place = [], []
    for start, extent, size, length in zip(corner, region.shape, shape, spacing, strict=True):
        reach = math.ceil(min(limit / length, size))
        first, last = max(start - reach, 0), min(start + extent + reach, size)
        window.append(slice(first, last))
        place.append(slice(start - first, start - first + extent))
    inside = torch.zeros([part.stop - part.start for part in window], dtype=torch.float64)
    inside[tuple(place)] = region > 0
    distances, _ = nearest_instances(inside[None], None, 1, spacing)
    return distances[0, 0], tuple(window)


@_also_on_cuda
def nearest_weight_map(
    labels: Tensor,
    classes: Tensor | None,
    foreground: Tensor | None,
    ignore: Tensor | None,
    params: c.NearestParams,
    dtype: torch.dtype = torch.float32,
    balanced: bool = False,
) -> Tensor:
    """Weights [B, H, W] or [B, D, H, W] by the two nearest instances of each class; see fastlogconv.h."""
    out = torch.empty(labels.shape, dtype=dtype)
    views = map(c.view_of_volumes, (labels, classes, foreground, ignore))
    bad_value = ctypes.c_double()
    status = _load().flc_cpu_nearest_weight_map(
        *views, params, balanced, out.data_ptr(), c.DTYPES[out.dtype], _threads(), bad_value
    )
    c.check_status(status, "flc_cpu_nearest_weight_map", labels, label_error, bad_value.value)
    return out


# ------------------------------------------------------------------------------------------ NumPy arrays


def _given(instances: np.ndarray | None, classes: np.ndarray | None) -> np.ndarray:
    given = classes if instances is None else instances
    assert given is not None
    return given


def exact_weights(
    instances: np.ndarray | None,
    classes: np.ndarray | None,
    foreground: np.ndarray | None,
    settings: WeightSettings,
    dtype: type = np.float32,
) -> np.ndarray:
    """Weights [H, W] by exact distances to `instances` [H, W] of each of `classes` [H, W].

    Without instances these are the 4-connected components of each class, without classes there is one. The
    weight is 1 where `foreground` > 0 (None: on instances). `dtype` is that of the result, float32 or
    float64.
    """
    like = _given(instances, classes)
    out: np.ndarray = np.empty(like.shape, dtype=dtype)
    params = c.params_for(settings, *like.shape, "cpu", out.dtype == np.float64)
    arrays = map(c.view_of_array, (instances, classes, foreground, None))
    bad_value = ctypes.c_double()
    status = _load().flc_cpu_weight_map(
        *arrays, params, out.ctypes.data, c.ARRAY_DTYPES[out.dtype], _threads(), bad_value
    )
    c.check_status(status, "flc_cpu_weight_map", like, label_error, bad_value.value)
    return out


def class_labels(instances: np.ndarray | None, classes: np.ndarray | None) -> np.ndarray:
    """Class labels [H, W], int32, with ridges between touching instances; arguments as above."""
    like = _given(instances, classes)
    out = np.empty(like.shape, dtype=np.int32)
    arrays = map(c.view_of_array, (instances, classes))
    bad_value = ctypes.c_double()
    status = _load().flc_cpu_class_labels(*arrays, out.ctypes.data, _threads(), bad_value)
    c.check_status(status, "flc_cpu_class_labels", like, label_error, bad_value.value)
    return out
