"""What masks.py computes in volumes, and for pixels that are not square: NumPy, and `weight_map`.

The rule of the ridges is the one of images with 3x3x3 in place of 3x3, and 26 neighbours in place of 8: of a
volume of depth 1 it is that of the image.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch

from .arrays import as_tensor
from .functional import weight_map
from .labels import binary_to_instances
from .settings import WeightSettings

MARGIN = 2  # what a class's closing may change around it


def class_labels(instances: np.ndarray | None, classes: np.ndarray | None) -> np.ndarray:
    """Class labels [D, H, W], int32, with ridges: see `masks.preprocess_mask`."""
    classes, ids = _classes_and_ids(instances, classes)
    out = np.zeros(ids.shape, dtype=np.int32)
    for c in np.unique(classes[classes > 0]):
        here = (classes == c) & (ids > 0)
        if here.any():
            box = _box_around(here)
            here = here[box]
            ranks = np.zeros(here.shape, dtype=np.int32)
            ranks[here] = np.unique(ids[box][here], return_inverse=True)[1].reshape(-1) + 1
            out[box][_drawn(ranks)] = c
    return out


def weights(
    instances: np.ndarray | None,
    classes: np.ndarray | None,
    labels: np.ndarray,
    settings: WeightSettings,
) -> np.ndarray:
    """Weights, float32, by exact distances to the instances of each class; 1 where `labels` > 0."""
    given = classes is not None
    of_class, ids = _classes_and_ids(instances, classes)
    found = weight_map(
        as_tensor(ids, "instlabels"),
        classes=as_tensor(of_class, "clabels") if given else None,
        foreground=torch.from_numpy(labels > 0),
        settings=settings,
        spatial_dims=ids.ndim,
    )
    return found.to(torch.float32).numpy()


def _classes_and_ids(
    instances: np.ndarray | None, classes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(int32 classes, integer ids) of what was given: one class, or the components of each."""
    if classes is not None:
        classes = classes.astype(np.int32)
    if instances is not None:
        ids = instances.astype(np.int64) if instances.dtype.kind in "fu" else instances
        ids = ids.astype(np.uint8) if ids.dtype == np.bool_ else ids
        return (ids > 0).astype(np.int32) if classes is None else classes, ids
    assert classes is not None
    return classes, components(classes)


def components(classes: np.ndarray) -> np.ndarray:
    """The connected components of each class, int64, numbered through: instances where none were given."""
    ids = np.zeros(classes.shape, dtype=np.int64)
    for c in np.unique(classes[classes > 0]):
        here = classes == c
        of_class = binary_to_instances(torch.from_numpy(here), spatial_dims=here.ndim).numpy()
        ids[here] = of_class[here] + ids.max(initial=0)
    return ids


def _box_around(here: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(here.ndim):
        others = tuple(other for other in range(here.ndim) if other != axis)
        at = np.flatnonzero(here.any(axis=others))
        box.append(slice(max(at[0] - MARGIN, 0), at[-1] + 1 + MARGIN))
    return tuple(box)


def _drawn(ranks: np.ndarray) -> np.ndarray:
    """Which pixels of one class are no ridge; its instances are numbered from 1 in the order of their ids."""
    closing = _filtered(_filtered(ranks, np.maximum), np.minimum)
    gives_way = np.zeros(ranks.max() + 1, dtype=bool)
    gives_way[closing[closing != ranks]] = True

    padded = np.pad(ranks, 1)
    flat = padded.reshape(-1)
    steps = np.array(padded.strides) // padded.itemsize
    neighbours = np.array(
        [np.dot(offset, steps) for offset in itertools.product((-1, 0, 1), repeat=ranks.ndim) if any(offset)]
    )
    drawn = (flat > 0) & ~gives_way[flat]
    pixels = np.flatnonzero((flat > 0) & gives_way[flat])
    around = np.zeros(len(pixels), dtype=bool)  # whether another instance is a neighbour
    for step in neighbours:
        other = flat[pixels + step]
        around |= (other > 0) & (other != flat[pixels])
    drawn[pixels[~around]] = True
    pixels = pixels[around]
    pixels = pixels[np.argsort(flat[pixels], kind="stable")]
    ends = np.flatnonzero(np.diff(flat[pixels])) + 1
    for of_one in np.split(pixels, ends) if len(pixels) else []:
        beside = of_one[:, None] + neighbours
        drawn[of_one] = ~(drawn[beside] & (flat[beside] != flat[of_one[0]])).any(axis=1)
    inner = tuple(slice(1, -1) for _ in range(ranks.ndim))
    return drawn.reshape(padded.shape)[inner]


def _filtered(values: np.ndarray, better: Callable[..., np.ndarray]) -> np.ndarray:
    """The best of each pixel and its neighbours, corners included; there is nothing beyond the edge."""
    for axis in range(values.ndim):
        lower, upper = (np.moveaxis(values, axis, 0)[part] for part in (np.s_[:-1], np.s_[1:]))
        out = values.copy()
        at = np.moveaxis(out, axis, 0)
        better(at[1:], lower, out=at[1:])
        better(at[:-1], upper, out=at[:-1])
        values = out
    return values
