"""Where to cut training tiles: a density over the pixels of an image, and random centres drawn from it."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from .arrays import plain_array
from .masks import check_labels, read_array, read_ignore
from .settings import check_factor

_INTEGERS = (int, np.integer)
_GENERATORS = (np.random.Generator, np.random.RandomState)


def create_pdf(labels, ignore=None, fbr: float = 0.1, scale: int | None = 512) -> np.ndarray:
    """The cumulated probability of drawing each pixel as a centre: 1 on foreground to `fbr` on background.

    An image higher than `scale` is resized to `scale` rows, bicubically (a = -0.75, half-pixel centres, edge
    clamped), as deepflash2 does. That overshoots: beside sharp edges the resized density may be slightly
    negative, and the cumulated one then falls there.

    Args:
        labels: [H, W], foreground where > 0; any dtype, as for `preprocess_mask`.
        ignore: bool [H, W], where the density is 0; None for nowhere.
        fbr: the density of the background relative to the foreground, >= 0.
        scale: rows from which on images are resized; None or 0 for never.

    Returns:
        float64, flat: H W numbers, or scale int(W / H scale) where H > scale. The last is 1, up to rounding.

    Raises:
        TypeError: a dtype is not served, or an array is masked.
        ValueError: shapes that differ, labels that are NaN, infinite or above 2**63 - 1, a setting out of its
            range, or a density that is 0 everywhere.

    Source: deepflash2 (Griebel et al.).
    """
    fbr = check_factor("fbr", fbr)
    labels = read_array(labels, "labels")
    check_labels(labels)
    ignore = read_ignore(ignore, labels.shape)
    p = np.where(labels > 0, 1.0, fbr)
    if ignore is not None:
        p[ignore] = 0
    if not p.any():
        raise ValueError(
            "nothing to draw: "
            + (
                "labels have no pixel"
                if p.size == 0
                else "every pixel is ignored, or background with fbr = 0"
            )
        )
    grid = _grid(labels.shape, scale)
    if grid != labels.shape:
        p = F.interpolate(torch.from_numpy(p)[None, None], size=grid, mode="bicubic")[0, 0].numpy()
    total = p.sum()
    if not total > 0:  # specks between the points that the resizing looks at
        raise ValueError(f"nothing is left to draw after resizing {list(labels.shape)} to {list(grid)}")
    return np.cumsum(p / total)


def random_center(pdf, orig_shape, scale: int | None = 512, rng=None) -> tuple[int, int]:
    """A pixel (row, column) drawn from `create_pdf(labels, scale=scale)`, in O(log n).

    Where the image was resized, all pixels under the drawn point of the resized one are equally likely.

    Args:
        pdf: as returned by `create_pdf`.
        orig_shape: (H, W) of the labels.
        scale: as given to `create_pdf`.
        rng: a `numpy.random.Generator` (or RandomState). None: NumPy's global state, which PyTorch's
            DataLoader seeds differently in each worker.

    Raises:
        TypeError: `rng` is neither.
        ValueError: `pdf` is not of the size that `orig_shape` and `scale` lead to.

    Source: deepflash2 (Griebel et al.); there it is wrong for images of up to `scale` rows.
    """
    pdf, grid, last, rng = _check_drawing(pdf, orig_shape, scale, rng)
    row, column = divmod(
        int(pdf.searchsorted(min(rng.random() * last, math.nextafter(last, 0)), "right")), grid[1]
    )
    if grid == tuple(orig_shape):
        return row, column
    height, width = orig_shape
    return (
        min(int((row + rng.random()) * (height / grid[0])), height - 1),
        min(int((column + rng.random()) * (width / grid[1])), width - 1),
    )


def random_centers(pdf, orig_shape, n: int, scale: int | None = 512, rng=None) -> np.ndarray:
    """`n` pixels drawn as by `random_center`, independently: int64 [n, 2] of (row, column).

    Args and errors: as for `random_center`; `n` >= 0.
    """
    pdf, grid, last, rng = _check_drawing(pdf, orig_shape, scale, rng)
    shape = tuple(orig_shape)
    if isinstance(n, bool) or not isinstance(n, _INTEGERS) or n < 0:
        raise ValueError(f"n must be a whole number >= 0, got {n!r}")
    # The first pixel whose cumulated probability exceeds the number drawn: never one of probability 0.
    drawn = np.minimum(rng.random(n) * last, math.nextafter(last, 0))
    row, column = np.divmod(np.searchsorted(pdf, drawn, side="right"), grid[1])
    if grid != shape:
        row, column = (
            np.minimum(((position + rng.random(n)) * (size / cells)).astype(np.int64), size - 1)
            for position, size, cells in zip((row, column), shape, grid, strict=True)
        )
    return np.stack([row, column], axis=1)


def _check_drawing(pdf, orig_shape, scale, rng):
    """(pdf as an array, the shape of its grid, its last number, the source of random numbers)."""
    pdf = plain_array(pdf, "pdf")
    shape = tuple(orig_shape)
    if len(shape) != 2 or not all(isinstance(size, _INTEGERS) and size > 0 for size in shape):
        raise ValueError(f"orig_shape must be (H, W) of whole numbers > 0, got {orig_shape!r}")
    grid = _grid(shape, scale)
    if pdf.shape != (grid[0] * grid[1],):
        raise ValueError(
            f"pdf must have the shape {[grid[0] * grid[1]]} ({grid[0]} x {grid[1]}) for orig_shape {shape} "
            f"and scale {scale}, got {list(pdf.shape)}"
        )
    if rng is None:
        rng = np.random
    elif not isinstance(rng, _GENERATORS):
        raise TypeError(f"rng must be a numpy.random.Generator or None, got {type(rng).__name__}")
    last = float(pdf[-1])
    if not 0 < last < math.inf:
        raise ValueError(f"pdf must be cumulated, from create_pdf: its last number is {last}")
    return pdf, grid, last, rng


def _grid(shape: tuple[int, int], scale: int | None) -> tuple[int, int]:
    """The shape in which an image's density is held."""
    if scale is None or scale == 0:
        return shape
    if isinstance(scale, bool) or not isinstance(scale, _INTEGERS) or scale < 0:
        raise ValueError(f"scale must be a whole number of rows > 0, or None, got {scale!r}")
    height, width = shape
    return (int(scale), max(int(width / height * scale), 1)) if height > scale else shape
