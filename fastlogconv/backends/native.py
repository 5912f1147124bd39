"""The native C++ kernels, through ctypes onto the C interface of csrc/fastlogconv.h.

What is here runs on the CPU; CUDA tensors go to the functions of the same names in native_cuda.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from ..errors import distance_error, label_error, mask_error
from .reference import result_dtype

_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
_FOLDER = Path(__file__).resolve().parent.parent
CPU_LIBRARY = _FOLDER / f"libfastlogconv_cpu{_SUFFIX}"
CUDA_LIBRARY = _FOLDER / f"libfastlogconv_cuda{_SUFFIX}"

# The enumerations of fastlogconv.h.
_ABI_VERSION = 3
_OK, _OUT_OF_MEMORY, _NOT_AN_ID, _UNSUPPORTED = range(4)
_DTYPES = {
    dtype: code
    for code, dtype in enumerate(
        (
            torch.bool,
            torch.uint8,
            torch.int8,
            torch.uint16,
            torch.int16,
            torch.uint32,
            torch.int32,
            torch.uint64,
            torch.int64,
            torch.float16,
            torch.bfloat16,
            torch.float32,
            torch.float64,
        )
    )
}
_ARRAY_DTYPES = {
    np.dtype(str(dtype).removeprefix("torch.")): code
    for dtype, code in _DTYPES.items()
    if dtype != torch.bfloat16
}
_DISTANCES = {"logconv": 0, "euclidean": 1}
_BORDERS = {"farthest": 0, "second_nearest": 1}
_PADDINGS = {"constant": 0, "reflect": 1, "replicate": 2, "circular": 3}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        *((f"{name}{axis}", ctypes.c_int64) for name in ("size", "stride") for axis in range(3)),
    )


class _WeightParams(ctypes.Structure):
    _fields_ = (
        ("border_weight_sigma", ctypes.c_double),
        ("foreground_dist_sigma", ctypes.c_double),
        ("border_weight_factor", ctypes.c_double),
        ("foreground_background_ratio", ctypes.c_double),
        ("decay_length", ctypes.c_double),
        ("radius", ctypes.c_int64),
        ("border", ctypes.c_int32),
        ("distance", ctypes.c_int32),
    )


def _open(path: Path, needed: str, version_function: str) -> ctypes.CDLL | str:
    """A library, or why there is none; building it takes `needed`."""
    if not path.exists():
        return f"{path.name} was not built: install fastlogconv with {needed} at hand"
    try:
        library = ctypes.CDLL(str(path))
        version = getattr(library, version_function)()
    except (OSError, AttributeError) as error:
        return f"{path.name} could not be loaded: {error}"
    if version != _ABI_VERSION:
        return f"{path.name} is of another version ({version}, not {_ABI_VERSION}): reinstall fastlogconv"
    return library


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The CPU library, or why there is none."""
    library = _open(CPU_LIBRARY, "a C++ compiler", "flc_abi_version")
    if isinstance(library, str):
        return library
    tensor, params = ctypes.POINTER(_Tensor), ctypes.POINTER(_WeightParams)
    int32, pointer, number = ctypes.c_int32, ctypes.c_void_p, ctypes.POINTER(ctypes.c_double)
    library.flc_cpu_weight_map.argtypes = (*(tensor,) * 4, params, pointer, int32, int32, number)
    library.flc_cpu_region_weight_map.argtypes = (tensor, tensor, params, pointer, int32, int32, number)
    library.flc_cpu_distance_to_weight.argtypes = (tensor, tensor, params, pointer, int32, int32, number)
    library.flc_cpu_class_labels.argtypes = (tensor, tensor, pointer, int32, number)
    library.flc_cpu_separable_conv2d.argtypes = (
        tensor,
        ctypes.c_double,
        ctypes.c_int64,
        int32,
        pointer,
        int32,
        int32,
    )
    library.flc_cpu_instruction_set.restype = ctypes.c_char_p
    library.flc_cpu_use_instruction_set.argtypes = (ctypes.c_char_p,)
    return library


def why_not(device: torch.device) -> str | None:
    """Why this backend cannot serve `device`; None where it can."""
    if device.type == "cuda":
        return _cuda().why_not(device)
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
        description = {"library": CPU_LIBRARY.name, "instruction set": name}
    return description | _cuda().describe()


def _cuda() -> ModuleType:
    from . import native_cuda

    return native_cuda


def _is_for_cuda(tensor: Tensor) -> bool:
    """Tests put something else here."""
    return tensor.is_cuda


def _also_on_cuda(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function` for CPU tensors, and its namesake in native_cuda for CUDA tensors."""

    @functools.wraps(function)
    def by_device(tensor: Tensor, *arguments, **settings) -> Tensor:
        chosen = getattr(_cuda(), function.__name__) if _is_for_cuda(tensor) else function
        return chosen(tensor, *arguments, **settings)

    return by_device


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
    """Chooses "avx512", "avx2" or "baseline" for the whole process, for tests and benchmarks.

    Raises:
        ValueError: unknown, or not of this CPU.
    """
    if _load().flc_cpu_use_instruction_set(name.encode()) != _OK:
        raise ValueError(f"this CPU (or this build) has no instruction set {name!r}")


def _tensor(tensor: Tensor | None) -> _Tensor | None:
    if tensor is None:
        return None
    size, stride = tensor.shape, tensor.stride()
    if len(size) == 2:
        size, stride = (1, *size), (0, *stride)
    return _Tensor(tensor.data_ptr(), _DTYPES[tensor.dtype], *size, *stride)


def _output(like: Tensor, shape: torch.Size) -> Tensor:
    """Room for a result: float64 where it is to be float64, else float32."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.empty(shape, dtype=dtype, device=like.device)


def _as_result(out: Tensor, like: Tensor) -> Tensor:
    """`out` in the dtype of a result computed from `like`."""
    dtype = result_dtype(like)
    return out if out.dtype == dtype else out.to(dtype)


def _params(
    border: str,
    bws: float,
    fds: float,
    bwf: float,
    fbr: float,
    lmbda: float = 1.0,
    ks: int = 1,
    distance: str = "logconv",
) -> _WeightParams:
    radius = min(ks // 2, 2**62)
    return _WeightParams(bws, fds, bwf, fbr, lmbda, radius, _BORDERS[border], _DISTANCES[distance])


def _check(status: int, function: str, like: Tensor | np.ndarray, data_error=None, bad_value=None) -> None:
    if status == _OK:
        return
    if status == _NOT_AN_ID:
        raise data_error(bad_value.value)
    what = f"{function} on {like.dtype} {tuple(like.shape)}"
    if status == _OUT_OF_MEMORY:
        raise MemoryError(f"fastlogconv: out of memory in {what}")
    raise ValueError(f"fastlogconv: {what} is beyond what the native backend handles (2**30 pixels a side)")


def _weights(
    function: str, tensors: tuple[Tensor | None, ...], shape: torch.Size, params: _WeightParams, data_error
) -> Tensor:
    """Calls `function`, whose result is like the first of `tensors` but for its shape."""
    out = _output(tensors[0], shape)
    bad_value = ctypes.c_double()
    status = getattr(_load(), function)(
        *map(_tensor, tensors), params, out.data_ptr(), _DTYPES[out.dtype], _threads(), bad_value
    )
    _check(status, function, tensors[0], data_error, bad_value)
    return _as_result(out, tensors[0])


@_also_on_cuda
def weight_map(
    labels: Tensor,
    classes: Tensor | None,
    ignore: Tensor | None,
    *,
    distance: str,
    border: str,
    bws: float,
    fds: float,
    bwf: float,
    fbr: float,
    lmbda: float,
    ks: int,
) -> Tensor:
    """Weights [B, H, W] of instance labels [B, H, W], by class (int32) and without what is to be ignored."""
    params = _params(border, bws, fds, bwf, fbr, lmbda, ks, distance)
    tensors = (labels, classes, None, ignore)
    return _weights("flc_cpu_weight_map", tensors, labels.shape, params, label_error)


@_also_on_cuda
def region_weight_map(
    masks: Tensor,
    ignore: Tensor | None,
    *,
    distance: str,
    border: str,
    bws: float,
    fds: float,
    bwf: float,
    fbr: float,
    lmbda: float,
    ks: int,
) -> Tensor:
    """Weights [H, W] of one mask >= 0 per region, [N, H, W]: they may overlap and may be soft."""
    if not masks.is_floating_point():
        masks = masks != 0 if masks.dtype == torch.bool else masks.to(torch.float64)
    params = _params(border, bws, fds, bwf, fbr, lmbda, ks, distance)
    return _weights("flc_cpu_region_weight_map", (masks, ignore), masks.shape[1:], params, mask_error)


@_also_on_cuda
def distance_to_weight(
    distance: Tensor,
    foreground: Tensor | None,
    *,
    border: str,
    bws: float,
    fds: float,
    bwf: float,
    fbr: float,
) -> Tensor:
    """Weights [H, W] of the distances [N, H, W] to N instances."""
    params = _params(border, bws, fds, bwf, fbr)
    tensors = (distance, foreground)
    return _weights("flc_cpu_distance_to_weight", tensors, distance.shape[1:], params, distance_error)


# ------------------------------------------------------------------------------------------ NumPy arrays


def _array(array: np.ndarray | None) -> _Tensor | None:
    """An array [H, W] that `can_read` accepts, as the native code reads it."""
    if array is None:
        return None
    stride = (s // array.itemsize for s in array.strides)
    return _Tensor(array.ctypes.data, _ARRAY_DTYPES[array.dtype], 1, *array.shape, 0, *stride)


def can_read(array: np.ndarray) -> bool:
    """Whether the native code reads this array [H, W] in place."""
    return array.dtype in _ARRAY_DTYPES and array.flags.aligned and all(
        s % array.itemsize == 0 for s in array.strides
    )  # fmt: skip


def euclidean_weights(
    instances: np.ndarray | None,
    classes: np.ndarray | None,
    foreground: np.ndarray | None = None,
    *,
    border: str,
    bws: float,
    fds: float,
    bwf: float,
    fbr: float,
    dtype: type = np.float32,
) -> np.ndarray:
    """Weights [H, W] by exact distances to `instances` [H, W] of each of `classes` [H, W].

    Without instances these are the 4-connected components of each class, without classes there is one. The
    weight is 1 where `foreground` > 0 (without it: on instances). `dtype` is that of the result, float32 or
    float64.
    """
    like = classes if instances is None else instances
    out = np.empty(like.shape, dtype=dtype)
    bad_value = ctypes.c_double()
    status = _load().flc_cpu_weight_map(
        _array(instances),
        _array(classes),
        _array(foreground),
        None,
        _params(border, bws, fds, bwf, fbr, distance="euclidean"),
        out.ctypes.data,
        _ARRAY_DTYPES[out.dtype],
        _threads(),
        bad_value,
    )
    _check(status, "flc_cpu_weight_map", like, label_error, bad_value)
    return out


def class_labels(instances: np.ndarray | None, classes: np.ndarray | None) -> np.ndarray:
    """Class labels [H, W], int32, with ridges between touching instances; arguments as above."""
    like = classes if instances is None else instances
    out = np.empty(like.shape, dtype=np.int32)
    bad_value = ctypes.c_double()
    status = _load().flc_cpu_class_labels(
        _array(instances), _array(classes), out.ctypes.data, _threads(), bad_value
    )
    _check(status, "flc_cpu_class_labels", like, label_error, bad_value)
    return out


@_also_on_cuda
def separable_conv2d(input: Tensor, *, lmbda: float, ks: int, padding_mode: str) -> Tensor:
    """The separable lambda-kernel convolution of [N, H, W]."""
    out = _output(input, input.shape)
    status = _load().flc_cpu_separable_conv2d(
        _tensor(input),
        lmbda,
        min(ks // 2, 2**62),
        _PADDINGS[padding_mode],
        out.data_ptr(),
        _DTYPES[out.dtype],
        _threads(),
    )
    _check(status, "flc_cpu_separable_conv2d", input)
    return _as_result(out, input)
