"""The functions: documented here, checked here, computed by the operators."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from . import checks, ops
from .backends import reference
from .settings import DEFAULTS, NAMES, WeightSettings, checked_values

_DEFAULT_VALUES = tuple(DEFAULTS.values())
_remembered_values = functools.lru_cache(1024, typed=True)(checked_values)


def _values(settings: WeightSettings | None, *single) -> tuple:
    """The settings in the order of `NAMES`, from an object or from single ones."""
    if settings is None:
        if torch.compiler.is_compiling():
            return checked_values(*single)
        try:
            return _remembered_values(*single)
        except TypeError:  # of a wrong type, perhaps of one without a hash
            return checked_values(*single)
    if not isinstance(settings, WeightSettings):
        raise TypeError(f"settings must be WeightSettings or None, got {type(settings).__name__}")
    if single != _DEFAULT_VALUES:
        given = [name for name, a, b in zip(NAMES, single, _DEFAULT_VALUES, strict=True) if a != b]
        raise TypeError(
            f"give settings or single ones, not both, got settings and {', '.join(given)}: pass "
            f"settings.replace({given[0]}=...)"
        )
    return settings.values


def weight_map(
    labels: Tensor,
    *,
    classes: Tensor | None = None,
    ignore: Tensor | None = None,
    ignore_index: int | None = None,
    settings: WeightSettings | None = None,
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
        settings: all of the settings below in one object, in their place.
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
    checks.check_tensor(labels, "labels", (2, 3), "[H, W] or [B, H, W]")
    if labels.requires_grad:
        raise checks.grad_error("labels")
    values = _values(settings, distance, border, bws, fds, bwf, fbr, lmbda, ks)
    checks.check_backend(backend)
    if classes is not None:
        checks.check_classes(classes, labels)
    if ignore is not None:
        ignore = checks.broadcast_ignore(ignore, labels.shape, labels.device, "labels")
    if ignore_index is not None:
        ignore = checks.with_ignore_index(ignore, labels, checks.check_ignore_index(ignore_index))
    if labels.dim() == 3:
        return ops.weight_map(labels, classes, ignore, *values, backend)
    classes = None if classes is None else classes[None]
    ignore = None if ignore is None else ignore[None]
    return ops.weight_map(labels[None], classes, ignore, *values, backend)[0]


def region_weight_map(
    masks: Tensor,
    *,
    ignore: Tensor | None = None,
    settings: WeightSettings | None = None,
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
        settings, distance, border, bws, fds, bwf, fbr, lmbda, ks, backend: as for `weight_map`.

    Returns:
        Weights [H, W], contiguous, on the device of `masks`; float32 for integer and bool masks, else their
        dtype.

    Raises:
        TypeError, ValueError, RuntimeError: as for `weight_map`; ValueError also for a negative mask value.
    """
    checks.check_tensor(masks, "masks", (3,), "[N, H, W]")
    if masks.requires_grad:
        raise checks.grad_error("masks")
    values = _values(settings, distance, border, bws, fds, bwf, fbr, lmbda, ks)
    checks.check_backend(backend)
    if ignore is not None:
        ignore = checks.broadcast_ignore(ignore, masks.shape[1:], masks.device, "masks")
    if not masks.is_floating_point() and masks.dtype is not torch.bool:
        masks = masks.to(torch.float32)
    return ops.region_weight_map(masks, ignore, *values, backend)


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
    checks.check_tensor(distance, "distance", (3,), "[N, H, W]")
    if distance.requires_grad:
        raise checks.grad_error("distance")
    if foreground is not None:
        checks.check_foreground(foreground, distance)
    values = checked_values(
        DEFAULTS["distance"], border, bws, fds, bwf, fbr, DEFAULTS["lmbda"], DEFAULTS["ks"]
    )
    checks.check_backend(backend)
    if not distance.is_floating_point():
        distance = distance.to(torch.float32)
    return ops.distance_to_weight(distance, foreground, *values, backend)


def separable_conv2d(
    input: Tensor, lmbda: float, ks: int = 73, padding_mode: str = "constant", *, backend: str = "auto"
) -> Tensor:
    """Convolves with `lambda_kernel` along W, then along H.

    Differentiable any number of times, in reverse mode, in forward mode and in mixtures of both.
    `torch.compile` takes it, and so do the transforms of `torch.func`, also inside each other (before torch
    2.5 `vmap` is a loop). A derivative takes memory of the order of the input's, and time of the order of the
    convolution's; neither grows with a `ks` that is larger than the image.

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
    checks.check_tensor(input, "input", (3,), "[N, H, W]")
    lmbda, ks = checks.check_convolution(lmbda, ks, padding_mode, backend)
    if padding_mode == "reflect" or padding_mode == "circular":
        checks.check_padding(input, ks // 2, padding_mode)
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
    lmbda, ks = checks.check_kernel(lmbda, ks)
    return reference.lambda_kernel(ks, lmbda).to(torch.float32)
