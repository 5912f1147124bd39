"""The native CUDA kernels, through ctypes onto the flc_cuda functions of csrc/fastlogconv.h.

They work on the current stream of the tensor's device. Nothing waits for the GPU or looks at the data, so
every function can be captured in a CUDA graph; values that the other backends refuse (a label of 0.5, a
negative mask, a distance of NaN) give weights without meaning.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools

import torch
from torch import Tensor

from .native import (
    _DTYPES,
    _PADDINGS,
    CUDA_LIBRARY,
    _as_result,
    _check,
    _open,
    _output,
    _params,
    _Tensor,
    _tensor,
    _WeightParams,
)


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The CUDA library, or why there is none. It is opened when first asked for, never by an import."""
    library = _open(CUDA_LIBRARY, "nvcc", "flc_cuda_abi_version")
    return library if isinstance(library, str) else _with_signatures(library)


def _with_signatures(library: ctypes.CDLL) -> ctypes.CDLL:
    tensor, params = ctypes.POINTER(_Tensor), ctypes.POINTER(_WeightParams)
    int32, int64, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
    result, queue = (pointer, int32), (int32, pointer)
    library.flc_cuda_weight_map.argtypes = (*(tensor,) * 3, params, *result, pointer, *queue)
    library.flc_cuda_region_weight_map.argtypes = (tensor, tensor, params, *result, pointer, *queue)
    library.flc_cuda_distance_to_weight.argtypes = (tensor, tensor, params, *result, *queue)
    library.flc_cuda_separable_conv2d.argtypes = (
        tensor, ctypes.c_double, int64, int32, *result, pointer, *queue,
    )  # fmt: skip
    for name, arguments in (
        ("weight_map", (tensor,) * 3),
        ("region_weight_map", (tensor,)),
        ("separable_conv2d", (tensor, int32)),
    ):
        scratch_bytes = getattr(library, f"flc_cuda_{name}_scratch_bytes")
        scratch_bytes.argtypes, scratch_bytes.restype = arguments, int64
    library.flc_cuda_error_text.restype = ctypes.c_char_p
    return library


def why_not(device: torch.device) -> str | None:
    """Why it cannot serve the CUDA device `device`; None where it can."""
    library = _load()
    if isinstance(library, str):
        return library
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device"
    if torch.version.hip is not None:
        return "its kernels are written for NVIDIA GPUs"
    if torch.cuda.get_device_capability(device) < (7, 5):
        return "its kernels need compute capability 7.5 or higher"
    return None


def describe() -> dict[str, str]:
    """What to print about it. The library is not loaded for that where there is no use for it."""
    if torch.cuda.is_available():
        library = _load()
        return {"CUDA library": library if isinstance(library, str) else CUDA_LIBRARY.name}
    return {"CUDA library": f"{CUDA_LIBRARY.name}, not loaded" if CUDA_LIBRARY.exists() else _load()}


def _call(name: str, input: Tensor, *arguments, scratch_for: tuple = ()) -> None:
    """Calls flc_cuda_NAME(input, *arguments, [scratch,] device, stream) for a tensor on a device.

    `scratch_for`: what the function NAME_scratch_bytes takes besides; None: there is none.
    """
    library, tensor = _load(), _tensor(input)
    scratch = ()
    if scratch_for is not None:
        size = getattr(library, f"flc_cuda_{name}_scratch_bytes")(tensor, *scratch_for)
        memory = torch.empty(size, dtype=torch.uint8, device=input.device)
        scratch = (memory.data_ptr(),)
    with _on_device(input) as (device, stream):
        status = getattr(library, f"flc_cuda_{name}")(tensor, *arguments, *scratch, device, stream)
    function = f"flc_cuda_{name}"
    if status < 0:
        text = library.flc_cuda_error_text(-status).decode()
        raise RuntimeError(f"fastlogconv: {function} on {input.dtype} {tuple(input.shape)} failed: {text}")
    _check(status, function, input)


@contextlib.contextmanager
def _on_device(tensor: Tensor):
    """(device, stream) for launches that concern a tensor. Tests put something else here."""
    with torch.cuda.device(tensor.device):
        yield tensor.device.index, torch.cuda.current_stream(tensor.device).cuda_stream


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
    out = _output(labels, labels.shape)
    params = _params(border, bws, fds, bwf, fbr, lmbda, ks, distance)
    optional = (_tensor(classes), _tensor(ignore))
    _call("weight_map", labels, *optional, params, out.data_ptr(), _DTYPES[out.dtype], scratch_for=optional)
    return _as_result(out, labels)


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
    out = _output(masks, masks.shape[1:])
    params = _params(border, bws, fds, bwf, fbr, lmbda, ks, distance)
    _call("region_weight_map", masks, _tensor(ignore), params, out.data_ptr(), _DTYPES[out.dtype])
    return _as_result(out, masks)


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
    out = _output(distance, distance.shape[1:])
    params = _params(border, bws, fds, bwf, fbr)
    arguments = (_tensor(foreground), params, out.data_ptr(), _DTYPES[out.dtype])
    _call("distance_to_weight", distance, *arguments, scratch_for=None)
    return _as_result(out, distance)


def separable_conv2d(input: Tensor, *, lmbda: float, ks: int, padding_mode: str) -> Tensor:
    """The separable lambda-kernel convolution of [N, H, W]."""
    out = _output(input, input.shape)
    code = _DTYPES[out.dtype]
    settings = (lmbda, min(ks // 2, 2**62), _PADDINGS[padding_mode], out.data_ptr(), code)
    _call("separable_conv2d", input, *settings, scratch_for=(code,))
    return _as_result(out, input)
