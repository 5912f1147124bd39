"""The functions: documented here, checked here, computed by the operators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks, ops, regions
from .arguments import settings_values
from .backends import reference
from .rules import BalanceName, BorderName, DistanceName, FalloffName
from .settings import DEFAULTS, NAMES, PresetName, WeightSettings, checked_values

_GAPS = NAMES.index("gaps")


def weight_map(
    labels: Tensor,
    *,
    classes: Tensor | None = None,
    ignore: Tensor | None = None,
    ignore_index: checks.IgnoreIndex | None = None,
    foreground: Tensor | None = None,
    settings: WeightSettings | None = None,
    preset: PresetName | None = None,
    distance: DistanceName | None = None,
    border: BorderName | None = None,
    falloff: FalloffName | None = None,
    balance: BalanceName | None = None,
    border_everywhere: bool = False,
    gaps: bool | None = None,
    bws: float | None = None,
    fds: float = 10.0,
    bwf: float | None = None,
    fbr: float = 0.1,
    lmbda: float = 0.35,
    ks: int | None = 73,
    spacing: tuple[float, ...] | None = None,
    spatial_dims: int = 2,
    backend: str = "auto",
) -> Tensor:
    """The weight of every pixel in a segmentation loss, from instance labels.

    Foreground pixels get 1, pixels to ignore 0, background pixels p

        fbr + (1 - fbr) fall(p) + bwf border(p)
        fall(p) = sum over i of exp(-d_i(p)^2 / (2 fds^2))
        border(p) = exp(-(near(p) + X(p))^2 / (2 bws^2))

    with d_i(p) the distance to instance i, near the smallest of them and X the second smallest
    (`border="second_nearest"`: ridges between neighbours, as in U-Net, Ronneberger et al. 2015 and Falk et
    al. 2019) or the largest (`border="farthest"`: what deepflash2's real-time transform computes; one
    instance out of reach makes the border term 0). The other terms that were published:

        falloff="nearest"      fall(p) = exp(-near(p)^2 / (2 fds^2))
        falloff="none"         fall(p) = 0
        balance="frequency"    N / (K n) in place of 1 and fbr, where n of the N pixels of an image are of the
                               pixel's kind: one of the K kinds that are present, background and classes
        border_everywhere      bwf border(p) is added on the foreground, too
        gaps                   the foreground is `separate_touching(labels, classes) > 0`: give the training
                               target the same gaps

    Presets choose among them; what is given beside a preset wins:

        preset                distance     border            falloff    balance      gaps  bwf  bws
        "unet2019"            "euclidean"  "second_nearest"  "nearest"  "none"       yes   50   6
        "unet2015"            "euclidean"  "second_nearest"  "none"     "frequency"  no    10   5
        "deepflash2_offline"  "euclidean"  "second_nearest"  "sum"      "none"       no    10   10
        "deepflash2_logconv"  "logconv"    "second_nearest"  "sum"      "none"       no    10   10
        "deepflash2"          "logconv"    "farthest"        "sum"      "none"       no    1    10

    "unet2019" is Falk et al. as the authors' Fiji plugin computes it, "unet2015" equation 2 of Ronneberger et
    al. "deepflash2_offline" is `calculate_weights` without ridges, "deepflash2" deepflash2's real-time
    transform and the default of `WeightTransform`, "deepflash2_logconv" the default here, a faster
    approximation of the offline weights.

    Weights err by at most 1e-5 (float64: 1e-10) of max(1, fbr + |1 - fbr| fall + bwf border), which is
    max(1, weight) where `fbr` is at most 1; for `lmbda` of up to 1000 times the smaller sigma.

    Args:
        labels: instance ids [H, W] or [B, H, W], with `spatial_dims=3` [D, H, W] or [B, D, H, W]; any integer
            or floating-point type or bool (one instance), any strides. Whole numbers up to `2**63 - 1`
            (float16: `2**11`, bfloat16: `2**8`, where they cannot tell ids apart any more); 0 and below are
            background. Ids may be sparse, but for "farthest" the instances of an image are 1..max, so that an
            id which is absent makes the border 0.
        classes: class labels of the shape and device of `labels`, of any of its types: whole numbers up to
            `2**31 - 1`, 0 and below are background. An instance is then where an id and a class meet, border
            is the sum of what each class's instances give by themselves, and fd sums over all. (With
            "farthest", X is the farthest instance of the class; the ids 1..max may lie in whatever classes.)
            None: one class.
        ignore: bool, of a shape that broadcasts to that of `labels`, on their device; True where a pixel is
            to be ignored: its weight is 0, it belongs to no instance, and its label (not its class) may be
            anything.
        ignore_index: the label of further pixels to ignore, or a list of such labels.
        foreground: bool, of the shape and device of `labels`: a foreground of your own, in place of where
            instances are. Distances still go to instances. Not together with `gaps`.
        settings: all of the settings below in one object, in their place.
        preset: one of the names above; None: "deepflash2_logconv", in volumes "deepflash2_offline".
        distance: "logconv": about the city-block distance, found by convolution, +inf where i is more than ks
            // 2 pixels away along an axis. "euclidean": exact, unbounded. None: the preset's.
        border: "second_nearest" or "farthest"; None: the preset's.
        falloff: "sum", "nearest" or "none"; None: the preset's.
        balance: "none", or, with `falloff="none"`, "frequency": then `fbr` has no effect; None: the preset's.
        border_everywhere: True adds the border term on the foreground, too; with exact distances.
        gaps: True puts gaps between touching instances; distances still go to whole instances, 0 in a gap;
            None: the preset's.
        bws: border weight sigma in pixels, > 0; None: the preset's.
        fds: foreground distance sigma in pixels, > 0.
        bwf: border weight factor, from 0 to 1e30; None: the preset's. What float16 cannot hold (above 65504)
            becomes inf there.
        fbr: foreground background ratio, the weight of the far background, from 0 to 1e30. Above 1, weights
            become smaller near instances, and negative where many are near.
        lmbda: decay length of the LogConv kernel in pixels, > 0. The smaller, the closer to city-block. Of no
            effect with "euclidean".
        ks: size of the LogConv kernel in pixels, >= 1; an even one is taken one larger. None: unbounded. Of
            no effect with "euclidean".
        spacing: the length of a pixel along each axis, (sy, sx) or (sz, sy, sx), from 1e-30 to 1e30: the unit
            of `bws` and `fds`. None: 1 along each. Unequal ones need exact distances.
        spatial_dims: 2 for images, 3 for volumes, which have exact distances alone.
        backend: "auto", "triton", "native" or "reference"; see `fastlogconv.info()`.

    Returns:
        Weights of the shape and device of `labels`, contiguous; float32 for integer and bool labels, else the
        labels' dtype (half types are computed in float32 or better, float64 in float64).

    Raises:
        TypeError: an argument is of the wrong type; `labels` is complex, sparse, nested or no tensor;
            settings come with a preset or single ones.
        ValueError: an argument is out of its range or does not go with another; `labels` has the wrong rank,
            requires grad, lies on a device that no backend serves, or (on the CPU) holds NaN, inf or a
            fraction, as `classes` must not; `classes`, `ignore` or `foreground` is of another shape or
            device.
        RuntimeError: the backend that was asked for cannot run here; the message says why.

    Source: weights of deepflash2 (Griebel et al.); distance of Karam, Sugimoto and Hirakawa, "Fast
    convolutional distance transform", IEEE Signal Processing Letters 26(6), 2019.
    """
    checks.check_spatial_labels(labels, spatial_dims)
    if labels.dtype in checks.OF_MASKS and ignore_index is None:
        checks.warn_of_masks(labels)
    values = settings_values(
        settings, preset, spatial_dims, distance, border, falloff, balance,
        border_everywhere, gaps, bws, fds, bwf, fbr, lmbda, ks, spacing,
    )  # fmt: skip
    checks.check_backend(backend)
    if classes is not None:
        checks.check_classes(classes, labels)
    if ignore is not None:
        ignore = checks.broadcast_ignore(ignore, labels.shape, labels.device, "labels")
    if ignore_index is not None:
        ignore = checks.with_ignore_index(ignore, labels, checks.check_ignore_labels(ignore_index))
    if foreground is not None:
        checks.check_foreground(foreground, labels.shape, labels.device, "labels")
    if values[_GAPS] and foreground is not None:
        raise ValueError("give foreground or gaps=True, not both: foreground says where gaps are")
    single = labels.dim() == spatial_dims
    if single:
        labels = labels[None]
        classes, ignore, foreground = (
            None if tensor is None else tensor[None] for tensor in (classes, ignore, foreground)
        )
    if values[_GAPS]:
        foreground = ops.foreground_with_gaps(labels, classes)
    weights = ops.weight_map(labels, classes, ignore, foreground, *values, backend)
    return weights[0] if single else weights


def region_weight_map(
    masks: Tensor,
    *,
    classes: Sequence[int] | Tensor | None = None,
    ignore: Tensor | None = None,
    settings: WeightSettings | None = None,
    preset: PresetName | None = None,
    distance: DistanceName | None = None,
    border: BorderName | None = None,
    bws: float | None = None,
    fds: float = 10.0,
    bwf: float | None = None,
    fbr: float = 0.1,
    lmbda: float = 0.35,
    ks: int | None = 73,
    spacing: tuple[float, ...] | None = None,
    spatial_dims: int = 2,
    backend: str = "auto",
) -> Tensor:
    """The weights of `weight_map`, from one mask per region: regions may overlap and may be soft.

    Of its terms those with `falloff="sum"`: the others are for instance labels.

    The values of floating-point masks weigh their pixels in the convolution: a value v shortens distances by
    lmbda ln(v). Integers and bool say where a region is (> 0), not how much: 0 and 255 are as good as 0 and
    1. The foreground is where any mask is > 0. A region that is 0 everywhere is infinitely far away. With
    `distance="euclidean"` a region is where its mask is > 0, and the values do not matter.

    Weights are as accurate as those of `weight_map`, on the CPU for masks of any values; on a GPU float32
    masks hold it for values v with lmbda ln(v) <= 2 min(bws, fds) (at the defaults: up to 1e24).

    Args:
        masks: [N, H, W], or [B, N, H, W] for B images; with `spatial_dims=3` [N, D, H, W] or [B, N, D, H, W]
            and exact distances, which only the slow reference computes yet. Finite and >= 0, usually in
            [0, 1]; any floating-point type, or bool or integers, for which 0 and below are background. N = 0
            gives `fbr` everywhere. Images of fewer regions may have masks of 0, but for "farthest", where a
            region that is absent makes the border 0.
        classes: the class of each region, N whole numbers, the same in all images: a list, a tuple or a
            tensor [N] (one on a GPU is waited for). Regions of class 0 and below count as background. As in
            `weight_map`, border is then the sum of what each class's regions give by themselves ("farthest":
            a region that is absent makes its class's border 0), and fd sums over all. None: one class.
        ignore: bool, of a shape that broadcasts to that of the weights, on the device of `masks`; True where
            a pixel is to be ignored: its weight is 0, it belongs to no region, and its mask values may be
            anything.
        settings, preset, distance, border, bws, fds, bwf, fbr, lmbda, ks: as for `weight_map`.
        spacing, spatial_dims, backend: as for `weight_map`.

    Returns:
        Weights [H, W] or [B, H, W], contiguous, on the device of `masks`; float32 for integer and bool masks,
        else their dtype.

    Raises:
        TypeError, ValueError, RuntimeError: as for `weight_map`; ValueError also for a negative mask value,
            and for `classes` of another length than N.
    """
    checks.check_region_masks(masks, spatial_dims)
    if masks.requires_grad:
        raise checks.grad_error("masks")
    values = settings_values(
        settings, preset, spatial_dims, distance, border, None, None, False, None,
        bws, fds, bwf, fbr, lmbda, ks, spacing,
    )  # fmt: skip
    checks.check_of_regions(values)
    checks.check_backend(backend)
    if ignore is not None:
        shape = masks.shape[: -spatial_dims - 1] + masks.shape[-spatial_dims:]
        ignore = checks.broadcast_ignore(ignore, shape, masks.device, "masks")
    if not masks.is_floating_point() and masks.dtype is not torch.bool:
        masks = checks.positive(masks)
    if classes is not None:
        of_regions = checks.check_region_classes(classes, masks.shape[-spatial_dims - 1])
        return regions.weights_by_class(masks, of_regions, ignore, values, spatial_dims, backend)
    return regions.weights(masks, ignore, values, spatial_dims, backend)


def distance_to_weight(
    distance: Tensor,
    foreground: Tensor | None = None,
    *,
    border: BorderName = "second_nearest",
    bws: float = 10.0,
    fds: float = 10.0,
    bwf: float = 10.0,
    fbr: float = 0.1,
    backend: str = "auto",
) -> Tensor:
    """The weights of `weight_map`, from distances of your own, one map per instance.

    Args:
        distance: distance in pixels to each of N instances, [N, H, W]; of any size and sign, +inf where out
            of reach; any floating-point type, or integers (taken as float32). N = 0 gives `fbr` on the whole
            background.
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
        checks.check_foreground(foreground, distance.shape[1:], distance.device, "distance")
    given = dict(distance="euclidean", border=border, bws=bws, fds=fds, bwf=bwf, fbr=fbr)
    values = checked_values(*{**DEFAULTS, **given}.values())
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
