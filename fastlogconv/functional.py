"""The functions: documented here, checked here, computed by the operators."""

from __future__ import annotations

import math
import numbers

import torch
from torch import Tensor

from . import backends, ops
from .backends import reference

DISTANCES = ("logconv", "euclidean")
BORDERS = ("second_nearest", "farthest")
PADDING_MODES = ("constant", "reflect", "replicate", "circular")
LARGEST_KS = 2**31 - 1
LARGEST_FACTOR = 1e30  # times any sum of an image is still a float32
PRESETS = {
    "unet": dict(distance="euclidean", border="second_nearest", bwf=10.0),
    "unet_logconv": dict(distance="logconv", border="second_nearest", bwf=10.0),
    "deepflash2": dict(distance="logconv", border="farthest", bwf=1.0),
}

_INTEGERS = (
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64,
    torch.int64,
)  # fmt: skip
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DTYPES = frozenset(_INTEGERS + _FLOATS)


def weight_map(
    labels: Tensor,
    *,
    classes: Tensor | None = None,
    ignore: Tensor | None = None,
    ignore_index: int | None = None,
    distance: str = "logconv",
    border: str = "second_nearest",
    bws: float = 10.0,
    fds: float = 10.0,
    bwf: float = 10.0,
    fbr: float = 0.1,
    lmbda: float = 0.35,
    ks: int | None = 73,
    backend: str = "auto",
) -> Tensor:
    """The weight of every pixel in a segmentation loss, from instance labels.

    Foreground pixels get 1, pixels to ignore 0, background pixels p

        fbr + (1 - fbr) fd(p) + bwf border(p)
        fd(p) = sum over i of exp(-d_i(p)^2 / (2 fds^2))
        border(p) = exp(-(near(p) + X(p))^2 / (2 bws^2))

    with d_i(p) the distance to instance i, near the smallest of them and X the second smallest
    (`border="second_nearest"`: ridges between neighbours, as in U-Net, Ronneberger et al. 2015 and Falk et
    al. 2019) or the largest (`border="farthest"`: what deepflash2's real-time transform computes; one
    instance out of reach makes the border term 0).

    The defaults are the published border and deepflash2's offline border factor. `WeightTransform` has
    deepflash2's real-time defaults instead: `border="farthest"`, `bwf=1`. With `distance="euclidean"` the
    weights are those of `calculate_weights` without ridges.

    Args:
        labels: instance ids [H, W] or [B, H, W], any integer or floating-point type or bool (one instance),
            any strides. Whole numbers up to 2**63 - 1; 0 and below are background. Ids may be sparse, but for
            "farthest" the instances of an image are 1..max, so that an id which is absent makes the border 0.
        classes: class labels of the shape and device of `labels`, of any of its types: whole numbers up to
            2**31 - 1, 0 and below are background. An instance is then where an id and a class meet, border
            is the sum of what each class's instances give by themselves, and fd sums over all. (With
            "farthest", X is the farthest instance of the class; the ids 1..max may lie in whatever classes.)
            None: one class.
        ignore: bool, of a shape that broadcasts to that of `labels`, on their device; True where a pixel is
            to be ignored: its weight is 0, it belongs to no instance, and its label (not its class) may be
            anything.
        ignore_index: the label of further pixels to ignore.
        distance: "logconv": about the city-block distance, found by convolution, +inf where i is more than ks
            // 2 pixels away along an axis. "euclidean": exact, unbounded.
        border: "second_nearest" or "farthest".
        bws: border weight sigma in pixels, > 0.
        fds: foreground distance sigma in pixels, > 0.
        bwf: border weight factor, from 0 to 1e30. What float16 cannot hold (above 65504) becomes inf there.
        fbr: foreground background ratio, the weight of the far background, from 0 to 1e30. Above 1, weights
            become smaller near instances, and negative where many are near.
        lmbda: decay length of the LogConv kernel in pixels, > 0. The smaller, the closer to city-block. Of no
            effect with "euclidean".
        ks: size of the LogConv kernel in pixels, >= 1; an even one is taken one larger. None: unbounded. Of
            no effect with "euclidean".
        backend: "auto", "triton", "native" or "reference"; see `fastlogconv.info()`.

    Returns:
        Weights of the shape and device of `labels`, contiguous; float32 for integer and bool labels, else the
        labels' dtype (half types are computed in float32 or better, float64 in float64).

    Raises:
        TypeError: an argument is of the wrong type; `labels` is complex, sparse or no tensor.
        ValueError: an argument is out of its range, `labels` has the wrong rank, requires grad, lies on a
            device that no backend serves, or (on the CPU) holds NaN, inf or a fraction, as `classes` must
            not; `classes` or `ignore` is of another shape or device.
        RuntimeError: the backend that was asked for cannot run here; the message says why.

    Source: weights of deepflash2 (Griebel et al.); distance of Karam, Sugimoto and Hirakawa, "Fast
    convolutional distance transform", IEEE Signal Processing Letters 26(6), 2019.
    """
    _check_tensor(labels, "labels", (2, 3), "[H, W] or [B, H, W]")
    if labels.requires_grad:
        raise _grad_error("labels")
    bws, fds, bwf, fbr = _check_weight(border, bws, fds, bwf, fbr, backend)
    lmbda, ks = _check_distance(distance, lmbda, ks)
    if classes is not None:
        _check_classes(classes, labels)
    if ignore is not None:
        ignore = _broadcast_ignore(ignore, labels.shape, labels.device, "labels")
    if ignore_index is not None:
        ignore = _with_ignore_index(ignore, labels, check_ignore_index(ignore_index))
    if labels.dim() == 3:
        return ops.weight_map(
            labels, classes, ignore, distance, border, bws, fds, bwf, fbr, lmbda, ks, backend
        )
    classes = None if classes is None else classes[None]
    ignore = None if ignore is None else ignore[None]
    return ops.weight_map(
        labels[None], classes, ignore, distance, border, bws, fds, bwf, fbr, lmbda, ks, backend
    )[0]


def region_weight_map(
    masks: Tensor,
    *,
    ignore: Tensor | None = None,
    distance: str = "logconv",
    border: str = "second_nearest",
    bws: float = 10.0,
    fds: float = 10.0,
    bwf: float = 10.0,
    fbr: float = 0.1,
    lmbda: float = 0.35,
    ks: int | None = 73,
    backend: str = "auto",
) -> Tensor:
    """The weights of `weight_map`, from one mask per region: regions may overlap and may be soft.

    A mask's values weigh its pixels in the convolution; the foreground is where any of them is > 0. A region
    that is 0 everywhere is infinitely far away. With `distance="euclidean"` a region is where its mask is
    > 0, and the values do not matter.

    Args:
        masks: [N, H, W], finite and >= 0, usually in [0, 1]; any floating-point type, bool, or integers
            (taken as float32). N = 0 gives `fbr` everywhere.
        ignore: bool, of a shape that broadcasts to [H, W], on the device of `masks`; True where a pixel is to
            be ignored: its weight is 0, it belongs to no region, and its mask values may be anything.
        distance, border, bws, fds, bwf, fbr, lmbda, ks, backend: as for `weight_map`.

    Returns:
        Weights [H, W], contiguous, on the device of `masks`; float32 for integer and bool masks, else their
        dtype.

    Raises:
        TypeError, ValueError, RuntimeError: as for `weight_map`; ValueError also for a negative mask value.
    """
    _check_tensor(masks, "masks", (3,), "[N, H, W]")
    if masks.requires_grad:
        raise _grad_error("masks")
    bws, fds, bwf, fbr = _check_weight(border, bws, fds, bwf, fbr, backend)
    lmbda, ks = _check_distance(distance, lmbda, ks)
    if ignore is not None:
        ignore = _broadcast_ignore(ignore, masks.shape[1:], masks.device, "masks")
    if not masks.is_floating_point() and masks.dtype is not torch.bool:
        masks = masks.to(torch.float32)
    return ops.region_weight_map(masks, ignore, distance, border, bws, fds, bwf, fbr, lmbda, ks, backend)


def distance_to_weight(
    distance: Tensor,
    foreground: Tensor | None = None,
    *,
    border: str = "second_nearest",
    bws: float = 10.0,
    fds: float = 10.0,
    bwf: float = 10.0,
    fbr: float = 0.1,
    backend: str = "auto",
) -> Tensor:
    """The weights of `weight_map`, from distances of your own, one map per instance.

    Args:
        distance: distance in pixels to each of N instances, [N, H, W]; +inf where out of reach; any
            floating-point type, or integers (taken as float32). N = 0 gives `fbr` on the whole background.
        foreground: bool [H, W], True where the weight is 1; None for nowhere.
        border, bws, fds, bwf, fbr, backend: as for `weight_map`.

    Returns:
        Weights [H, W], contiguous, on the device of `distance`; float32 for integer distances, else their
        dtype.

    Raises:
        TypeError, ValueError, RuntimeError: as for `weight_map`; ValueError also for a distance of NaN or
            -inf, or a `foreground` of another shape or device.
    """
    _check_tensor(distance, "distance", (3,), "[N, H, W]")
    if distance.requires_grad:
        raise _grad_error("distance")
    if foreground is not None:
        _check_foreground(foreground, distance)
    bws, fds, bwf, fbr = _check_weight(border, bws, fds, bwf, fbr, backend)
    if not distance.is_floating_point():
        distance = distance.to(torch.float32)
    return ops.distance_to_weight(distance, foreground, border, bws, fds, bwf, fbr, backend)


def separable_conv2d(
    input: Tensor, lmbda: float, ks: int = 73, padding_mode: str = "constant", *, backend: str = "auto"
) -> Tensor:
    """Convolves with `lambda_kernel` along W, then along H.

    Differentiable in reverse mode, any number of times.

    Args:
        input: [N, H, W], any floating-point type, or integers and bool (taken as float32).
        lmbda: decay length of the kernel in pixels, > 0.
        ks: kernel size in pixels, >= 1; an even one is taken one larger. Each axis is padded by r = ks // 2.
        padding_mode: "constant" (zeros), "reflect" (r < H and r < W), "replicate" or "circular" (r <= H and r
            <= W).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        [N, H, W], contiguous, of the input's dtype (float32 for integers and bool) and device.

    Raises:
        TypeError, ValueError, RuntimeError: as for `weight_map`.

    Source: Karam, Sugimoto and Hirakawa, 2019, as used in deepflash2 (Griebel et al.).
    """
    _check_tensor(input, "input", (3,), "[N, H, W]")
    lmbda, ks = check_convolution(lmbda, ks, padding_mode, backend)
    if padding_mode == "reflect" or padding_mode == "circular":
        _check_padding(input, ks // 2, padding_mode)
    if not input.is_floating_point():
        input = input.to(torch.float32)
    return ops.separable_conv2d(input, lmbda, ks, padding_mode, backend)


def lambda_kernel(ks: int, lmbda: float) -> Tensor:
    """exp(-|x| / lmbda) at the `ks` points x = arange(ks) - ks // 2, moved by +0.5 where `ks` is even.

    Args:
        ks: number of points, one pixel apart, >= 1.
        lmbda: decay length in pixels, > 0.

    Returns:
        float32 [ks], symmetric, on the CPU.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of its range.
    """
    lmbda, ks = _check_kernel(lmbda, ks)
    return reference.lambda_kernel(ks, lmbda).to(torch.float32)


# ------------------------------------------------------------------------------------------------- checks
# Cheap when all is well: plain comparisons that torch.compile can trace. The errors are built elsewhere.


def check_settings(
    *,
    distance: str,
    border: str,
    bws: float,
    fds: float,
    bwf: float,
    fbr: float,
    lmbda: float,
    ks: int | None,
    backend: str,
) -> dict[str, str | float | int | None]:
    """The settings of `weight_map`, checked, as plain str, float and int."""
    bws, fds, bwf, fbr = _check_weight(border, bws, fds, bwf, fbr, backend)
    lmbda, checked_ks = _check_distance(distance, lmbda, ks)
    return dict(
        distance=distance, border=border, bws=bws, fds=fds, bwf=bwf, fbr=fbr, lmbda=lmbda,
        ks=None if ks is None else checked_ks, backend=backend,
    )  # fmt: skip


def check_preset(name: str) -> dict[str, str | float]:
    """The settings of a preset.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in tuple(PRESETS):
        raise _choice_error("preset", name, tuple(PRESETS))
    return PRESETS[name]


def check_ignore_index(value: int) -> int:
    """The value as a plain int.

    Raises:
        TypeError: it is no integer.
        ValueError: it does not fit 64 bits.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"ignore_index must be an integer, got {value!r} of type {type(value).__name__}")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"ignore_index must be from -2**63 to 2**63 - 1, got {value}")
    return int(value)


def check_weight_settings(
    bws: float = 10, fds: float = 10, bwf: float = 10, fbr: float = 0.1
) -> tuple[float, float, float, float]:
    """The settings of `calculate_weights`, checked, as plain float."""
    return _check_weight("second_nearest", bws, fds, bwf, fbr, "auto")


def check_convolution(lmbda: float, ks: int, padding_mode: str, backend: str) -> tuple[float, int]:
    """Checks the settings of `separable_conv2d`; returns lmbda and ks as plain float and int."""
    if padding_mode not in PADDING_MODES:
        raise _choice_error("padding_mode", padding_mode, PADDING_MODES)
    if backend not in backends.NAMES:
        backends.check_name(backend)
    return _check_kernel(lmbda, ks)


def _check_weight(border, bws, fds, bwf, fbr, backend) -> tuple[float, float, float, float]:
    if border not in BORDERS:
        raise _choice_error("border", border, BORDERS)
    bws, fds = _number("bws", bws), _number("fds", fds)
    bwf, fbr = _number("bwf", bwf), _number("fbr", fbr)
    if not 0 < bws < math.inf:
        raise _range_error("bws", bws, "> 0 (pixels)")
    if not 0 < fds < math.inf:
        raise _range_error("fds", fds, "> 0 (pixels)")
    if not 0 <= bwf <= LARGEST_FACTOR:
        raise _range_error("bwf", bwf, f">= 0 and at most {LARGEST_FACTOR:g}")
    if not 0 <= fbr <= LARGEST_FACTOR:
        raise _range_error("fbr", fbr, f">= 0 and at most {LARGEST_FACTOR:g}")
    if backend not in backends.NAMES:
        backends.check_name(backend)
    return bws, fds, bwf, fbr


def _check_distance(distance, lmbda, ks) -> tuple[float, int]:
    if distance not in DISTANCES:
        raise _choice_error("distance", distance, DISTANCES)
    return _check_kernel(lmbda, LARGEST_KS if ks is None else ks)


def _check_kernel(lmbda, ks) -> tuple[float, int]:
    lmbda = _number("lmbda", lmbda)
    if not 0 < lmbda < math.inf:
        raise _range_error("lmbda", lmbda, "> 0 (pixels)")
    if type(ks) is not int:
        if isinstance(ks, bool) or not isinstance(ks, numbers.Integral):
            raise TypeError(f"ks must be an integer, got {ks!r} of type {type(ks).__name__}")
        ks = int(ks)
    if not 1 <= ks <= LARGEST_KS:
        raise ValueError(f"ks must be a whole number of pixels from 1 to {LARGEST_KS}, got {ks}")
    return lmbda, ks


def _number(name: str, value) -> float:
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:  # an integer beyond float's range
        return math.inf if value > 0 else -math.inf


def _check_tensor(tensor, name: str, ranks: tuple[int, ...], shape: str) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor {shape}, got {type(tensor).__name__}{_hint(tensor)}")
    if tensor.dtype not in _DTYPES:
        raise TypeError(
            f"{name} must be bool, integer, float16, bfloat16, float32 or float64, got {tensor.dtype}"
        )
    if tensor.dim() not in ranks:
        raise ValueError(f"{name} must have the shape {shape}, got {tuple(tensor.shape)}")
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be dense, got layout {tensor.layout}: pass {name}.to_dense()")
    if tensor.device.type not in ops.DEVICES:
        raise _device_error(name, tensor.device)


def _check_classes(classes, labels: Tensor) -> None:
    _check_tensor(classes, "classes", (2, 3), "[H, W] or [B, H, W]")
    if classes.requires_grad:
        raise _grad_error("classes")
    if classes.shape != labels.shape or classes.device != labels.device:
        raise ValueError(
            f"classes must have the shape and device of labels, {tuple(labels.shape)} on {labels.device}, "
            f"got {tuple(classes.shape)} on {classes.device}"
        )


def _broadcast_ignore(ignore, shape: torch.Size, device: torch.device, like: str) -> Tensor:
    """`ignore`, checked, as a view of `shape`, that of the weights."""
    if not isinstance(ignore, Tensor) or ignore.dtype is not torch.bool:
        kind = ignore.dtype if isinstance(ignore, Tensor) else type(ignore).__name__
        raise TypeError(f"ignore must be a bool tensor or None, got {kind}: pass mask > 0")
    if ignore.layout is not torch.strided or ignore.device != device:
        raise ValueError(
            f"ignore must be dense and on the device of {like}, {device}, "
            f"got layout {ignore.layout} on {ignore.device}"
        )
    trailing = shape[len(shape) - ignore.dim() :] if ignore.dim() <= len(shape) else None
    if trailing is None or any(n != 1 and n != m for n, m in zip(ignore.shape, trailing, strict=True)):
        raise ValueError(
            f"ignore must have a shape that broadcasts to {tuple(shape)}, got {tuple(ignore.shape)}"
        )
    return ignore.expand(shape)


def _with_ignore_index(ignore: Tensor | None, labels: Tensor, value: int) -> Tensor | None:
    """`ignore`, and with it the pixels whose label is `value`."""
    if not _can_hold(labels.dtype, value):
        return ignore  # comparing would wrap around, or round
    here = labels == value
    return here if ignore is None else ignore | here


def _can_hold(dtype: torch.dtype, value: int) -> bool:
    if dtype is torch.bool:
        return value in (0, 1)
    limits = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    if not limits.min <= value <= limits.max:
        return False
    odd_part = value // (value & -value or 1)
    return not dtype.is_floating_point or abs(odd_part) <= 2 / limits.eps


def _check_foreground(foreground, distance: Tensor) -> None:
    if not isinstance(foreground, Tensor) or foreground.dtype is not torch.bool:
        kind = foreground.dtype if isinstance(foreground, Tensor) else type(foreground).__name__
        raise TypeError(f"foreground must be a bool tensor [H, W] or None, got {kind}")
    if foreground.shape != distance.shape[1:]:
        raise ValueError(
            f"foreground must have the shape {tuple(distance.shape[1:])} of the distances, "
            f"got {tuple(foreground.shape)}"
        )
    if foreground.layout is not torch.strided or foreground.device != distance.device:
        raise ValueError(
            f"foreground must be dense and on the device of distance, {distance.device}, "
            f"got layout {foreground.layout} on {foreground.device}"
        )


def _check_padding(input: Tensor, r: int, padding_mode: str) -> None:
    _, h, w = input.shape
    if h == 0 or w == 0:
        return
    if padding_mode == "reflect" and not (r < h and r < w):
        raise ValueError(
            f"padding_mode='reflect' needs ks // 2 < H and W, got ks // 2 = {r} for H = {h}, W = {w}"
        )
    if padding_mode == "circular" and not (r <= h and r <= w):
        raise ValueError(
            f"padding_mode='circular' needs ks // 2 <= H and W, got ks // 2 = {r} for H = {h}, W = {w}"
        )


def _hint(value) -> str:
    if type(value).__module__ == "numpy":
        return ": pass torch.from_numpy(array)"
    return ": pass torch.as_tensor(...)" if isinstance(value, (list, tuple, int, float)) else ""


def _choice_error(name: str, value, allowed: tuple[str, ...]) -> ValueError:
    return ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _range_error(name: str, value: float, allowed: str) -> ValueError:
    return ValueError(f"{name} must be a finite number {allowed}, got {value}")


def _grad_error(name: str) -> ValueError:
    return ValueError(f"{name} must not require grad, got requires_grad=True: pass {name}.detach()")


def _device_error(name: str, device: torch.device) -> ValueError:
    if device.type == "meta":
        return ValueError(f"{name} must be on cpu or cuda, got the meta device, which holds no values")
    listed = "; ".join(f"{backend}: {reason}" for backend, reason in backends.reasons(device).items())
    return ValueError(f"{name} must be on {' or '.join(ops.DEVICES)}, got {device.type} ({listed})")
