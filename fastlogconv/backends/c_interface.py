"""The C interface of csrc/fastlogconv.h through ctypes: what the libraries for CPU and CUDA share."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import codes
from ..numerics import Numbers, gaussian_exponent, nearest_numbers, numbers_for
from ..rules import BORDERS, DISTANCES
from ..settings import OF_LABELS, SETTINGS, WeightSettings
from .reference import result_dtype

_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
_FOLDER = Path(__file__).resolve().parent.parent
CPU_LIBRARY = _FOLDER / f"libfastlogconv_cpu{_SUFFIX}"
CUDA_LIBRARY = _FOLDER / f"libfastlogconv_cuda{_SUFFIX}"

OK, OUT_OF_MEMORY, NOT_AN_ID, UNSUPPORTED = range(len(codes.STATUSES))
DTYPES = {getattr(torch, name): code for code, name in enumerate(codes.DTYPES)}
ARRAY_DTYPES = {np.dtype(name): code for code, name in enumerate(codes.DTYPES) if name != "bfloat16"}
PADDINGS = {name: code for code, name in enumerate(codes.PADDING_MODES)}
LARGEST_RADIUS = 2**62


class TensorView(ctypes.Structure):
    """flc_tensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("axes", ctypes.c_int32),
        ("size", ctypes.c_int64 * codes.MOST_AXES),
        ("stride", ctypes.c_int64 * codes.MOST_AXES),
    )


_C_TYPES: dict[Any, Any] = {
    "DistanceName": ctypes.c_int32,
    "BorderName": ctypes.c_int32,
    "float": ctypes.c_double,
    "int": ctypes.c_int64,
    "bool": ctypes.c_int64,
}
_DERIVED = ("lmbda", "ks", "spacing")  # Numbers have the first two as decay_length and radius
# Of the sum over instances, and of the nearest ones. The border term can be had without a falloff.
_FALLOFF_FACTORS = {"sum": (1.0, 0.0), "nearest": (0.0, 1.0), "none": (0.0, 0.0)}
_PASSED = [name for name in SETTINGS if name not in _DERIVED + OF_LABELS]  # of those see backends/terms.py


class WeightParams(ctypes.Structure):
    """flc_weight_params."""

    _fields_ = [
        *((name, _C_TYPES[SETTINGS[name].type]) for name in _PASSED),
        *((field.name, _C_TYPES[field.type]) for field in dataclasses.fields(Numbers)),
        ("sum_factor", ctypes.c_double),
        ("nearest_factor", ctypes.c_double),
    ]


class NearestParams(ctypes.Structure):
    """flc_nearest_params."""

    _fields_ = (
        ("spacing", ctypes.c_double * 3),
        *((name, ctypes.c_double) for name in (
            "one", "zero", "fall", "bwf", "foreground_exponent", "border_exponent", "limit", "pair_limit",
        )),
        ("border_everywhere", ctypes.c_int64),
    )  # fmt: skip


@functools.lru_cache(1024)
def nearest_params_for(
    settings: WeightSettings, double: bool, one: float, zero: float, kernels: str
) -> NearestParams:
    """The parameters of a call, for results that are computed in float64 if `double`."""
    numbers = nearest_numbers(settings, double, kernels)
    spacing = (1.0, 1.0, 1.0, *(settings.spacing or ()))[-3:]  # an image is a volume of depth 1
    return NearestParams(
        spacing, one, zero, 0.0 if settings.falloff == "none" else 1 - settings.fbr, settings.bwf,
        gaussian_exponent(settings.fds), gaussian_exponent(settings.bws),
        numbers.limit, numbers.pair_limit, settings.border_everywhere,
    )  # fmt: skip


@functools.lru_cache(1024)
def params_for(settings: WeightSettings, height: int, width: int, kernels: str, double: bool) -> WeightParams:
    """The parameters of a call, for the arguments of `numbers_for`."""
    numbers = numbers_for(settings, height, width, kernels, double)
    values = [getattr(settings, name) for name in _PASSED]
    values[:2] = DISTANCES[settings.distance].code, BORDERS[settings.border].code
    return WeightParams(*values, *dataclasses.astuple(numbers), *_FALLOFF_FACTORS[settings.falloff])


def open_library(path: Path, needed: str, version_function: str) -> Any:
    """A library, a `ctypes.CDLL`, or a str: why there is none. Building it takes `needed`."""
    if not path.exists():
        tree = _FOLDER.parent
        if not CPU_LIBRARY.exists() and (tree / "setup.py").is_file() and (tree / "csrc").is_dir():
            return (
                f"{path.name} is not in {_FOLDER}: Python was started in the source tree and imports that in "
                f'place of an installed fastlogconv. Leave {tree}, or run "pip install -e ." in it'
            )
        return f"{path.name} was not built: install fastlogconv with {needed} at hand"
    try:
        library = ctypes.CDLL(str(path))
        version = getattr(library, version_function)()
    except (OSError, AttributeError) as error:
        return f"{path.name} could not be loaded: {error}"
    if version != codes.ABI_VERSION:
        return (
            f"{path.name} is of another version ({version}, not {codes.ABI_VERSION}): reinstall fastlogconv"
        )
    return library


def view(tensor: Tensor | None) -> TensorView | None:
    """A tensor as the native code reads it: an image [H, W] is one of [1, H, W]."""
    if tensor is None:
        return None
    return view_of_layout(tensor.dtype, tensor.shape, tensor.stride(), tensor.data_ptr())


def view_of_layout(
    dtype: torch.dtype, shape: torch.Size, strides: tuple[int, ...], address: int
) -> TensorView:
    """The same of what a tensor consists of."""
    size, stride = tuple(shape), strides
    if len(size) == 2:
        size, stride = (1, *size), (0, *stride)
    return TensorView(address, DTYPES[dtype], len(size), size, stride)


def view_of_volumes(tensor: Tensor | None) -> TensorView | None:
    """A tensor [B, D, H, W] as the native code reads it; images [B, H, W] are volumes of depth 1."""
    if tensor is None:
        return None
    size, stride = tuple(tensor.shape), tensor.stride()
    if len(size) == 3:
        size, stride = (size[0], 1, *size[1:]), (stride[0], 0, *stride[1:])
    return TensorView(tensor.data_ptr(), DTYPES[tensor.dtype], len(size), size, stride)


def view_of_array(array: np.ndarray | None) -> TensorView | None:
    """An array [H, W] that `can_read` accepts, as the native code reads it."""
    if array is None:
        return None
    size, stride = (1, *array.shape), (0, *(s // array.itemsize for s in array.strides))
    return TensorView(array.ctypes.data, ARRAY_DTYPES[array.dtype], len(size), size, stride)


def can_read(array: np.ndarray) -> bool:
    """Whether the native code reads this array [H, W] in place."""
    return array.dtype in ARRAY_DTYPES and array.flags.aligned and all(
        s % array.itemsize == 0 for s in array.strides
    )  # fmt: skip


def output(like: Tensor, shape: torch.Size) -> Tensor:
    """Room for a result: float64 where it is to be float64, else float32."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.empty(shape, dtype=dtype, device=like.device)


def as_result(out: Tensor, like: Tensor) -> Tensor:
    """`out` in the dtype of a result computed from `like`."""
    dtype = result_dtype(like)
    return out if out.dtype == dtype else out.to(dtype)


def check_status(
    status: int,
    function: str,
    like: Tensor | np.ndarray,
    data_error: Callable[[float], ValueError] | None = None,
    bad_value: float = 0.0,
) -> None:
    """Raises what a status of the C interface stands for; `data_error(bad_value)` where data is refused."""
    if status == OK:
        return
    if status == NOT_AN_ID and data_error is not None:
        raise data_error(bad_value)
    what = f"{function} on {like.dtype} {tuple(like.shape)}"
    if status == OUT_OF_MEMORY:
        raise MemoryError(f"fastlogconv: out of memory in {what}")
    raise ValueError(f"fastlogconv: {what} is beyond what the native backend handles (2**30 pixels a side)")
