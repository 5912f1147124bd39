"""Instance labels made ready: gaps where instances touch, and instances of binary masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import checks
from .errors import label_error

_SHAPES = {2: "[H, W] or [B, H, W]", 3: "[D, H, W] or [B, D, H, W]"}

Offset = tuple[int, ...]  # from a pixel to a neighbour, along each of the last axes


def separate_touching(labels: Tensor, classes: Tensor | None = None, *, spatial_dims: int = 2) -> Tensor:
    """Labels with a gap of background, one pixel thin, wherever two instances touch.

    A labelled pixel becomes 0 where one of the neighbours that come before it in scan order (north-west,
    north, north-east and west; in volumes 13 of the 26) has another positive label, of the same class if
    there are classes. All of them are looked up in the labels as given. Afterwards no two different labels
    (of a class) are neighbours, corners included.

    Plain PyTorch, on any device: nothing waits for a GPU, and `torch.compile` takes it. (`preprocess_mask`
    has deepflash2's ridges, which leave many touching pairs joined where they meet along a straight line.)

    Args:
        labels: instance ids [H, W] or [B, H, W], for volumes [D, H, W] or [B, D, H, W], any integer or
            floating-point type or bool; 0 and below are background and stay as they are.
        classes: class labels of the shape and device of `labels`: instances of different classes may touch.
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        Labels of the shape, dtype and device of `labels`, contiguous.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a rank, shape or device does not fit; on the CPU, and not in compiled code, labels that
            are NaN, infinite or fractional.
    """
    checks.check_spatial_dims(spatial_dims)
    checks.check_tensor(labels, "labels", (spatial_dims, spatial_dims + 1), _SHAPES[spatial_dims])
    if classes is not None:
        checks.check_classes(classes, labels)
    if labels.is_floating_point() and checks.values_are_looked_at(labels):
        found = labels.detach()
        checks.refuse_values(found, ~(found.isfinite() & (found == found.floor())), label_error)
    return separated(labels, classes, spatial_dims)


def separated(labels: Tensor, classes: Tensor | None, spatial_dims: int) -> Tensor:
    """`separate_touching` behind its checks."""
    values = checks.comparable(labels)
    kinds = None if classes is None else checks.comparable(classes)
    positive = checks.positive(labels)
    touching = torch.zeros_like(positive)
    for offset in _offsets(spatial_dims):
        if not _fits(offset, labels.shape):
            continue
        here, there = _pair(offset, labels.shape)
        other = (values[here] != values[there]) & positive[there]
        if kinds is not None:
            other &= kinds[here] == kinds[there]
        touching[here].bitwise_or_(other)
    separate = torch.where(touching & positive, torch.zeros_like(values), values).contiguous()
    return separate if values is labels else separate.view(labels.dtype)


def binary_to_instances(masks: Tensor, *, connectivity: int = 1, spatial_dims: int = 2) -> Tensor:
    """The connected components of binary masks as instance labels, for data without instance ids.

    Cells that touch in the mask become one instance: where that matters, separate them first, by a watershed
    for example. Components are numbered from 1 in scan order of their first pixels, in each image by itself,
    on every device alike. On the CPU by SciPy; on a GPU by label propagation in PyTorch, which waits for the
    GPU a few times.

    Args:
        masks: [H, W] or [B, H, W], for volumes [D, H, W] or [B, D, H, W]; foreground is where they are > 0.
        connectivity: as in scikit-image: 1 joins pixels along the axes (4 neighbours, 6 in volumes), 2 across
            one corner too (8, 18), 3 in volumes across all (26).
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        Instance ids of the shape and device of `masks`, int32 (int64 for an image of 2**31 pixels or more).

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a rank does not fit, or `connectivity` is not from 1 to `spatial_dims`; on the CPU, and
            not in compiled code, a NaN.
        ImportError: on the CPU, SciPy is not installed.
    """
    checks.check_spatial_dims(spatial_dims)
    checks.check_tensor(masks, "masks", (spatial_dims, spatial_dims + 1), _SHAPES[spatial_dims])
    if isinstance(connectivity, bool) or not isinstance(connectivity, int):
        raise TypeError(f"connectivity must be an integer, got {connectivity!r}")
    if not 1 <= connectivity <= spatial_dims:
        raise ValueError(f"connectivity must be from 1 to {spatial_dims}, got {connectivity}")
    if masks.is_floating_point() and checks.values_are_looked_at(masks):
        checks.refuse_values(masks.detach(), masks.detach().isnan(), _no_mask)
    foreground = checks.positive(masks)
    batch = foreground if masks.dim() > spatial_dims else foreground[None]
    if batch.device.type == "cpu":
        ids = _components_by_scipy(batch, connectivity)
    else:
        ids = components_by_propagation(batch, connectivity)
    return ids if masks.dim() > spatial_dims else ids[0]


def _no_mask(value: float) -> ValueError:
    return ValueError(f"masks must hold numbers (foreground is where they are > 0), got {value}")


def _id_dtype(batch: Tensor) -> torch.dtype:
    return torch.int32 if batch[:1].numel() < 2**31 else torch.int64


def _components_by_scipy(batch: Tensor, connectivity: int) -> Tensor:
    try:
        import scipy.ndimage  # it takes a while, and few need it
    except ImportError as error:
        text = "binary_to_instances on the CPU needs SciPy: pip install scipy"
        raise ImportError(text, name="scipy") from error

    ids = torch.empty(batch.shape, dtype=_id_dtype(batch))
    structure = scipy.ndimage.generate_binary_structure(batch.dim() - 1, connectivity)
    for mask, out in zip(batch.detach().numpy(), ids.numpy(), strict=True):
        if mask.size:
            scipy.ndimage.label(np.ascontiguousarray(mask), structure, output=out)
    return ids


def components_by_propagation(batch: Tensor, connectivity: int) -> Tensor:
    """Connected components of bool [B, ...], on any device: what `binary_to_instances` does on a GPU.

    Every pixel points to one that comes before it in its component, at first to itself. In turn the pixel
    that it points to is given the first of what its neighbours point to, and pointers are followed two at a
    time, until nothing changes: then all point to the first one. Taking the first of several is the same in
    whatever order they come, so the result is always the same.
    """
    spatial = batch.dim() - 1
    offsets = [offset for offset in _offsets(spatial) if sum(map(abs, offset)) <= connectivity]
    position = torch.arange(batch.numel(), device=batch.device)
    pointer = position.clone()
    links = []
    for offset in offsets:
        if _fits(offset, batch.shape):
            here, there = _pair(offset, batch.shape)
            joined = batch[here] & batch[there]
            at = position.view(batch.shape)
            links.append((at[here][joined], at[there][joined]))
    a = torch.cat([link[0] for link in links]) if links else position[:0]
    b = torch.cat([link[1] for link in links]) if links else position[:0]
    while True:
        to_a, to_b = pointer[a], pointer[b]
        first = torch.minimum(to_a, to_b)
        changed = pointer.scatter_reduce(0, to_a, first, "amin").scatter_reduce(0, to_b, first, "amin")
        changed = changed[changed]
        changed = changed[changed]
        if torch.equal(changed, pointer):
            break
        pointer = changed
    flat = batch.flatten()
    is_first = (pointer == position) & flat
    number = is_first.view(len(batch), -1).cumsum(1).flatten()
    return torch.where(flat, number[pointer], 0).view(batch.shape).to(_id_dtype(batch))


def _offsets(spatial_dims: int) -> list[Offset]:
    """To the neighbours that come before a pixel in scan order."""
    offsets: list[Offset] = [()]
    for _ in range(spatial_dims):  # itertools are not compiled by PyTorch 2.4
        offsets = [(*offset, step) for offset in offsets for step in (-1, 0, 1)]
    return offsets[: len(offsets) // 2]


def _fits(offset: Offset, shape: torch.Size) -> bool:
    sizes = shape[len(shape) - len(offset) :]
    return all(size > abs(step) for size, step in zip(sizes, offset, strict=True))


def _pair(offset: Offset, shape: torch.Size) -> tuple[tuple, tuple]:
    """Indices of all pixels that have a neighbour at `offset`, and of these neighbours."""
    here = tuple(slice(max(-step, 0), size - max(step, 0)) for step, size in _of_axes(offset, shape))
    there = tuple(slice(max(step, 0), size - max(-step, 0)) for step, size in _of_axes(offset, shape))
    return (..., *here), (..., *there)


def _of_axes(offset: Offset, shape: torch.Size) -> list[tuple[int, int]]:
    return list(zip(offset, shape[len(shape) - len(offset) :], strict=True))
