"""What every result is held against: float64 NumPy and SciPy, sharing no code with what is timed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from scipy import ndimage


def convolve(channel: np.ndarray, lmbda: float, ks: int) -> np.ndarray:
    """The lambda kernel along W, then along H, of [H, W], zeros beyond the edge."""
    x = np.arange(ks) - ks // 2
    kernel = np.exp(-abs(x) / lmbda)
    along_w = ndimage.correlate1d(channel.astype(np.float64), kernel, axis=1, mode="constant")
    return ndimage.correlate1d(along_w, kernel, axis=0, mode="constant")


def logconv(region: np.ndarray, lmbda: float = 0.35, ks: int = 73) -> np.ndarray:
    """The LogConv distance to a region [H, W]; its smallest terms, exp(-206), are far within float64."""
    with np.errstate(divide="ignore"):
        return -lmbda * np.log(convolve(region, lmbda, ks))


def euclidean(region: np.ndarray) -> np.ndarray:
    """The exact distance to a region [H, W]."""
    if not region.any():
        return np.full(region.shape, math.inf)
    return ndimage.distance_transform_edt(region == 0)


def cascade(region: np.ndarray, kernel_size: int, h: float = 0.35) -> np.ndarray:
    """kornia's distance: rings of kernel_size // 2 pixels, each by the soft distance to the one before."""
    half = kernel_size // 2
    y, x = np.ogrid[-half : half + 1, -half : half + 1]
    kernel = np.exp(-np.hypot(y, x) / h)
    reached = (region > 0).astype(np.float64)
    d = np.zeros(region.shape)
    for ring in range(math.ceil(max(region.shape) / half)):
        sums = ndimage.correlate(reached, kernel, mode="nearest")
        with np.errstate(divide="ignore"):
            soft = np.where(sums > 0, -h * np.log(sums), 0)
        fresh = soft > 0
        d[fresh] = ring * half + soft[fresh]
        reached[fresh] = 1
    return d


def weights(
    distances: Iterable[np.ndarray],
    foreground: np.ndarray,
    absent: bool,
    *,
    border: str,
    bws: float,
    fds: float,
    bwf: float,
    fbr: float,
) -> np.ndarray:
    """Weights [H, W] of distances [H, W]; `absent`: some instance besides is infinitely far away."""
    near, second = np.full(foreground.shape, math.inf), np.full(foreground.shape, math.inf)
    far = np.full(foreground.shape, math.inf if absent else -math.inf)
    fd = np.zeros(foreground.shape)
    for d in distances:
        second = np.minimum(second, np.maximum(near, d))
        near, far = np.minimum(near, d), np.maximum(far, d)
        fd += np.exp(-(d**2) / (2 * fds**2))
    other = {"second_nearest": second, "farthest": np.where(np.isinf(near), math.inf, far)}[border]
    background = fbr + (1 - fbr) * fd + bwf * np.exp(-((near + other) ** 2) / (2 * bws**2))
    return np.where(foreground, 1.0, background)


def regions_of(labels: np.ndarray) -> Iterator[np.ndarray]:
    """The mask of every instance of labels [H, W], by ascending id."""
    return (labels == i for i in np.unique(labels) if i > 0)
