"""What the figures of algorithm.md show, computed in NumPy as plainly as it can be said.

The numbers are those of fastlogconv/numerics.py and of csrc, written down once more: the figures can then be
made without the package, and a test holds the limits against those of the package.
"""

import math

import numpy as np

CELL, TILE_H, TILE_W, STRIP_H, TABLE_ROWS, CANDIDATES, CHUNK = 32, 64, 32, 8, 192, 32, 16
LMBDA, RADIUS, FDS, BWS, BWF, FBR = 0.35, 36, 10.0, 10.0, 10.0, 0.1  # the defaults


def tissue(height: int, width: int, cells: int, seed: int) -> np.ndarray:
    """Instance labels [height, width]: each pixel goes to the nearest of the centres, if that is near."""
    rng = np.random.default_rng(seed)
    yx = rng.uniform(0, (height, width), (cells, 2))
    radius = rng.uniform(7, 14, cells)
    y, x = (a[..., None] for a in np.indices((height, width)))
    turn = np.arctan2(y - yx[:, 0], x - yx[:, 1])
    d = np.hypot(y - yx[:, 0], x - yx[:, 1]) / (radius * (1 + 0.2 * np.sin(3 * turn + yx[:, 0])))
    return np.where(d.min(axis=-1) < 1, d.argmin(axis=-1) + 1, 0)


def hook(size: int = 24) -> np.ndarray:
    """An instance that is not convex: three quarters of a ring, bool [size, size]."""
    y, x = np.indices((size, size)) - (size - 1) / 2
    return (abs(np.hypot(y, x) - 0.35 * size) < 0.13 * size) & ((y > 0) | (x < 0))


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """top, bottom, left, right, inclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[0], rows[-1], columns[0], columns[-1]


def widened(box: tuple, by: int, height: int, width: int) -> tuple[slice, slice]:
    top, bottom, left, right = box
    return slice(max(top - by, 0), min(bottom + by, height - 1) + 1), slice(
        max(left - by, 0), min(right + by, width - 1) + 1
    )


def kernel_matrix(size: int, lmbda: float, radius: int) -> np.ndarray:
    """[size, size]: a^|i - j| within the window, else 0."""
    steps = abs(np.subtract.outer(np.arange(size), np.arange(size)))
    return np.where(steps <= radius, np.exp(-steps / lmbda), 0)


def logconv(mask: np.ndarray, lmbda: float = LMBDA, radius: int = RADIUS) -> tuple[np.ndarray, np.ndarray]:
    """The sums along rows, and d."""
    height, width = mask.shape
    rows = mask @ kernel_matrix(width, lmbda, radius)
    with np.errstate(divide="ignore"):
        return rows, -lmbda * np.log(kernel_matrix(height, lmbda, radius) @ rows)


def along_columns(mask: np.ndarray) -> np.ndarray:
    """The distance to the nearest pixel of the same column; inf where it has none."""
    y = np.arange(len(mask))[:, None]
    above = np.maximum.accumulate(np.where(mask, y, -np.inf))
    below = np.minimum.accumulate(np.where(mask, y, np.inf)[::-1])[::-1]
    return np.minimum(y - above, below - y)


def gaussian_reach(sigma: float, factor: float, epsilon: float) -> float:
    return sigma * math.sqrt(2 * math.log(max(factor, 1.0) / epsilon))


def largest_sum(lmbda: float, radius: int) -> float:
    """W: no sum along one axis is larger."""
    return 2 * sum(math.exp(-t / lmbda) for t in range(radius + 1)) - 1


def limit_of(
    epsilon: float, lmbda: float = LMBDA, radius: int = RADIUS, fds: float = FDS, bws: float = BWS
) -> float:
    """The steps from which on an instance adds less than epsilon: see algorithm.md."""
    slack = 2 * lmbda * math.log(largest_sum(lmbda, radius))
    foreground, border = gaussian_reach(fds, 1 - FBR, epsilon), gaussian_reach(bws, max(BWF, 50), epsilon)
    return max(foreground + slack, border + 2 * slack)


def entries_of(cell: np.ndarray) -> list[dict]:
    """What a cell's list holds of it, by ascending id."""
    listed, first_word = [], 0
    for id_ in np.unique(cell[cell > 0]):
        words = [int(sum(1 << int(x) for x in np.flatnonzero(row == id_))) for row in cell]
        row_set = sum(1 << y for y, word in enumerate(words) if word)
        words = [word for word in words if word]
        entry = dict(id=id_, box=box_of(cell == id_), row_set=row_set, first_word=first_word, words=words)
        listed.append(entry)
        first_word += len(words)
    return listed


def gpu_way(lmbda: float, radius: int, sigma: float = FDS) -> str:
    """The way of the CUDA kernels for results in float32, as csrc/cuda chooses it."""
    if lmbda > 0.7 * sigma:
        return "LOGARITHMIC, float64"
    bits_per_step = 1 / lmbda / math.log(2)
    w = largest_sum(lmbda, radius)
    limit = limit_of(2.0**-36, lmbda, radius, sigma, sigma)
    tail = lmbda * (20 + 3 * math.log1p(lmbda))
    cut = min(radius, math.ceil(limit + tail) + 1)
    matter = limit_of(5e-7, lmbda, radius, sigma, sigma) * bits_per_step
    most = (127 - math.ceil(2 * math.log2(w))) // 2
    exponent = max(0, min(math.ceil((min(2 * cut * bits_per_step, matter) - 125) / 2), most))
    fits = TILE_W + 2 * cut <= 5 * 32 and TILE_H + 2 * cut <= TABLE_ROWS
    along = min(min(TILE_H + 2 * cut - 1 + STRIP_H, cut) * bits_per_step, matter) <= exponent + 125
    product = min((2 * cut + STRIP_H) * bits_per_step, matter) <= 2 * exponent + 125
    return "SCALED" if fits and along and product else "MIXED"


def cpu_arithmetic(lmbda: float, radius: int, size: int, sigma: float = FDS) -> str:
    """How the CPU forms the sums of an instance of size x size pixels with holes, results in float32."""
    steps = 2 * min(size - 1, radius) + CHUNK - 1
    accurate = largest_sum(lmbda, radius) < 199 and lmbda * (min(radius, 64) + 8) * 2.0**-25 <= 1e-6 * sigma
    if lmbda <= sigma and accurate and steps / lmbda < (126 + 110 - 1) * math.log(2):
        return "SINGLE"
    return "DOUBLE" if steps / lmbda < (1022 + 900 - 110) * math.log(2) else "LOGARITHMIC"
