"""The native CUDA kernels, through ctypes onto the flc_cuda functions of csrc/fastlogconv.h.

They work on the current stream of the tensor's device. Nothing waits for the GPU or looks at the data, so
every function can be captured in a CUDA graph; values that the other backends refuse (a label of 0.5, a
negative mask, a distance of NaN) give weights without meaning.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from ..settings import WeightSettings
from . import c_interface as c
from . import terms
from .devices import why_no_gpu


@functools.cache
def _load() -> Any:
    """The CUDA library, or a str: why there is none. Opened when first asked for, never by an import."""
    library = c.open_library(c.CUDA_LIBRARY, "nvcc", "flc_cuda_abi_version")
    return library if isinstance(library, str) else _with_signatures(library)


def _with_signatures(library: ctypes.CDLL) -> ctypes.CDLL:
    tensor, params = ctypes.POINTER(c.TensorView), ctypes.POINTER(c.WeightParams)
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
    return library if isinstance(library, str) else why_no_gpu(device, least=(7, 5))


def describe() -> dict[str, str]:
    """What to print about it. The library is not loaded for that where there is no use for it."""
    if torch.cuda.is_available():
        library = _load()
        return {"CUDA library": library if isinstance(library, str) else c.CUDA_LIBRARY.name}
    return {"CUDA library": f"{c.CUDA_LIBRARY.name}, not loaded" if c.CUDA_LIBRARY.exists() else _load()}


def _call(name: str, input: Tensor, *arguments, scratch_for: tuple | None = ()) -> None:
    """Calls flc_cuda_NAME(input, *arguments, [scratch,] device, stream) for a tensor on a device.

    `scratch_for`: what the function NAME_scratch_bytes takes besides; None: there is none.
    """
    library, tensor = _load(), c.view(input)
    scratch: tuple[int, ...] = ()
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
    c.check_status(status, function, input)


@contextlib.contextmanager
def _on_device(tensor: Tensor):
    """(device, stream) for launches that concern a tensor. Tests put something else here."""
    with torch.cuda.device(tensor.device):
        yield tensor.device.index, torch.cuda.current_stream(tensor.device).cuda_stream


def _weigh(
    name: str,
    like: Tensor,
    beside: tuple,
    shape: torch.Size,
    settings: WeightSettings,
    scratch_for: tuple | None,
) -> Tensor:
    """Calls flc_cuda_NAME for a tensor and what goes `beside` it; `scratch_for` as for `_call`."""
    out = c.output(like, shape)
    params = c.params_for(settings, shape[-2], shape[-1], "gpu", out.dtype == torch.float64)
    _call(name, like, *beside, params, out.data_ptr(), c.DTYPES[out.dtype], scratch_for=scratch_for)
    return c.as_result(out, like)


def weight_map(
    labels: Tensor,
    classes: Tensor | None,
    ignore: Tensor | None,
    foreground: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    """Weights [B, H, W] of labels [B, H, W], as in the reference."""
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
    beside = (c.view(classes), c.view(ignore))
    return _weigh("weight_map", labels, beside, labels.shape, settings, scratch_for=beside)


def region_weight_map(masks: Tensor, ignore: Tensor | None, settings: WeightSettings) -> Tensor:
    """Weights [H, W] of one mask >= 0 per region, [N, H, W]: they may overlap and may be soft."""
    return _weigh("region_weight_map", masks, (c.view(ignore),), masks.shape[1:], settings, scratch_for=())


def distance_to_weight(distance: Tensor, foreground: Tensor | None, settings: WeightSettings) -> Tensor:
    """Weights [H, W] of the distances [N, H, W] to N instances; `foreground` [H, W] is bool or None."""
    beside = (c.view(foreground),)
    return _weigh("distance_to_weight", distance, beside, distance.shape[1:], settings, scratch_for=None)


def separable_conv2d(input: Tensor, lmbda: float, ks: int, padding_mode: str) -> Tensor:
    """The separable lambda-kernel convolution of [N, H, W]."""
    out = c.output(input, input.shape)
    dtype = c.DTYPES[out.dtype]
    arguments = (lmbda, min(ks // 2, c.LARGEST_RADIUS), c.PADDINGS[padding_mode], out.data_ptr(), dtype)
    _call("separable_conv2d", input, *arguments, scratch_for=(dtype,))
    return c.as_result(out, input)
