"""Exact distances to instances: the nearest ones of every pixel, and signed distances to a mask's edge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks, ops


def nearest_instances(
    labels: Tensor,
    k: int = 2,
    spacing: Sequence[float] | None = None,
    spatial_dims: int = 2,
    *,
    ignore: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """The exact Euclidean distances to the nearest and to the second nearest instance, and the nearest's id.

    The distance transform of all instances at once, whatever their number; equivalent to (but in time and
    memory that do not grow with the instances)

        d = torch.stack([distance_transform_edt(labels != i, sampling=spacing) for i in ids])
        distances, order = d.sort(dim=0); ids[order[0]]

    Args:
        labels: instance ids [H, W] or [B, H, W], with `spatial_dims=3` [D, H, W] or [B, D, H, W]; types,
            strides and values as for `weight_map`. 0 and below are background.
        k: how many of the nearest instances, 1 or 2.
        spacing: the length of a pixel along each axis, (sy, sx) or (sz, sy, sx), from 1e-30 to 1e30: the unit
            of the distances. None: 1 along each.
        spatial_dims: 2 for images, 3 for volumes.
        ignore: bool, of a shape that broadcasts to that of `labels`, on their device; True where there is no
            instance, whatever the label. Distances and ids are found there, too.
        backend: as for `weight_map`. On CUDA devices "native", where it was built, else the reference: slow,
            as a warning says.

    Returns:
        distances: [k, *labels.shape], float64 for float64 labels, else float32. 0 to a pixel's own instance;
            +inf where there is no instance, or no second one. They err by 1e-6
            of themselves (float64: 1e-12).
        ids: int64 [*labels.shape], of the nearest instance; 0 where there is none. Of several that are as
            near the smallest id. (That is certain where the spacings are multiples of the smallest one; else
            equal distances may come out different, by their last bit in float64.)

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a wrong shape or device, `k` or `spacing` out of range, or on the CPU a label
            that is no id.
        RuntimeError: `backend` cannot run on the device of `labels`.
    """
    checks.check_spatial_labels(labels, spatial_dims)
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k must be the integer 1 or 2, got {k!r} of type {type(k).__name__}")
    if k not in (1, 2):
        raise ValueError(f"k must be 1 or 2, got {k}")
    lengths = checks.check_axes_of_spacing(spacing, spatial_dims)
    checks.check_backend(backend)
    if ignore is not None:
        ignore = checks.broadcast_ignore(ignore, labels.shape, labels.device, "labels")
    if labels.dim() > spatial_dims:
        return ops.nearest_instances(labels, ignore, k, lengths, backend)
    ignore = None if ignore is None else ignore[None]
    distances, ids = ops.nearest_instances(labels[None], ignore, k, lengths, backend)
    return distances[:, 0], ids[0]


def signed_distance_map(
    labels: Tensor,
    spacing: Sequence[float] | None = None,
    spatial_dims: int = 2,
    *,
    ignore: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """The exact distance to the foreground outside of it, minus that to the background inside.

    For boundary losses (Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019). With
    foreground = labels > 0, equivalent to SciPy's

        distance_transform_edt(~foreground, spacing) - distance_transform_edt(foreground, spacing)

    so that it is nowhere 0: from one side of an edge to the other it goes from 1 to -1. Between touching
    instances there is no edge.

    Args:
        labels: labels or a mask, of the shapes and types of `nearest_instances`; what is > 0 is foreground.
        spacing, spatial_dims, backend: as for `nearest_instances`.
        ignore: bool, of a shape that broadcasts to that of `labels`, on their device; where True a pixel is
            neither foreground nor background, and its result is 0.

    Returns:
        [*labels.shape], float64 for float64 labels, else float32. +inf where there is no foreground, -inf
        where there is no background.

    Raises:
        TypeError, ValueError, RuntimeError: as for `nearest_instances`, but values that are no ids are taken.
    """
    checks.check_spatial_labels(labels, spatial_dims)
    foreground = checks.positive(labels)
    background = ~foreground
    if ignore is not None:
        ignore = checks.broadcast_ignore(ignore, labels.shape, labels.device, "labels")
    to_foreground, to_background = (
        nearest_instances(
            mask.to(labels.dtype) if labels.dtype is torch.float64 else mask,
            1,
            spacing,
            spatial_dims,
            ignore=ignore,
            backend=backend,
        )[0][0]
        for mask in (foreground, background)
    )
    signed = torch.where(foreground, -to_background, to_foreground)
    return signed if ignore is None else signed.masked_fill(ignore, 0)
