"""Is a result right? Each against its class's float64 oracle, whole on small inputs, in windows on large."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import cases, exact, oracles
from .cases import CONVOLUTION, REGION_WEIGHTS, WEIGHTS, Case, Workload

KERNEL = dict(lmbda=0.35, ks=73)
FARTHEST = dict(border="farthest", bws=10, fds=10, bwf=1, fbr=0.1)  # WeightTransform's defaults
SECOND = dict(border="second_nearest", bws=10, fds=10, bwf=10, fbr=0.1)  # weight_map's


@dataclass(frozen=True)
class ResultClass:
    """What a competitor computes: `distance` is the oracle's, to one region [H, W]."""

    name: str
    definition: str
    distance: Callable[[np.ndarray], np.ndarray] | None = None
    settings: dict | None = None


RESULT_CLASSES = {
    result.name: result
    for result in (
        ResultClass(
            "logconv-farthest",
            "LogConv distance, border from the farthest instance: deepflash2's real-time weights",
            functools.partial(oracles.logconv, **KERNEL),
            FARTHEST,
        ),
        ResultClass(
            "logconv-second",
            "LogConv distance, border from the second nearest instance",
            functools.partial(oracles.logconv, **KERNEL),
            SECOND,
        ),
        ResultClass(
            "exact-second",
            "Euclidean distance, border from the second nearest instance: the published U-Net weights",
            oracles.euclidean,
            SECOND,
        ),
        ResultClass(
            "cascade-second",
            "kornia's distance, a cascade of convolutions, border from the second nearest instance",
            functools.partial(oracles.cascade, kernel_size=exact.KORNIA_KERNEL_SIZE),
            SECOND,
        ),
        ResultClass("convolution", "the lambda kernel along W, then along H, zeros beyond the edge"),
        ResultClass("copy", "the input itself: what any pass over it costs at least"),
    )
}

# No result depends on pixels farther away than this.
MARGIN = max(KERNEL["ks"] // 2, exact.reach(max(SECOND["fds"], SECOND["bws"])))


@dataclass(frozen=True)
class Window:
    """A part of a result: `image` is the image of a batch, the channel of a convolution, else 0."""

    image: int
    rows: slice
    columns: slice

    def grown(self) -> tuple[slice, slice]:
        """The rows and columns that the result there depends on; slicing cuts them off at the far edge."""
        return tuple(slice(max(s.start - MARGIN, 0), s.stop + MARGIN) for s in (self.rows, self.columns))

    def inner(self) -> tuple[slice, slice]:
        """The window's own place within `grown`."""
        return tuple(
            slice(s.start - g.start, s.stop - g.start)
            for s, g in zip((self.rows, self.columns), self.grown(), strict=True)
        )


def whole(workload: Workload) -> list[Window]:
    """All of the result."""
    _, height, width = workload.input.shape
    images = 1 if workload.case.computes == REGION_WEIGHTS else len(workload.input)
    return [Window(i, slice(0, height), slice(0, width)) for i in range(images)]


def some(workload: Workload, count: int = 3, size: int = 32, seed: int = 0) -> list[Window]:
    """A few windows, each near the outline of some instance: elsewhere there is little to get wrong."""
    rng = np.random.default_rng(seed)
    images, height, width = workload.input.shape
    windows = []
    for _ in range(count):
        image = int(rng.integers(images))
        where = _outlines(workload.input[image])
        y, x = where[rng.integers(len(where))].tolist() if len(where) else (height // 2, width // 2)
        top, left = (
            int(np.clip(centre + rng.integers(-20, 21) - size // 2, 0, max(length - size, 0)))
            for centre, length in ((y, height), (x, width))
        )
        rows, columns = slice(top, min(top + size, height)), slice(left, min(left + size, width))
        windows.append(Window(0 if workload.case.computes == REGION_WEIGHTS else image, rows, columns))
    return windows


def _outlines(image: Tensor) -> Tensor:
    """[n, 2]: the pixels of instances whose right or lower neighbour is another's or background."""
    different = torch.zeros(image.shape, dtype=torch.bool)
    different[:-1] = image[:-1] != image[1:]
    different[:, :-1] |= image[:, :-1] != image[:, 1:]
    return (different & (image > 0)).nonzero()


def expected(result: ResultClass, workload: Workload, window: Window) -> np.ndarray:
    """What a result of that class holds in the window, float64."""
    rows, columns = window.grown()
    if workload.case.computes == REGION_WEIGHTS:
        around = workload.input[:, rows, columns].numpy()
        regions = (region for region in around if region.any())
        foreground = (around > 0).any(axis=0)
        absent = not (around != 0).any(axis=(1, 2)).all()
    else:
        around = workload.input[window.image, rows, columns].numpy()
        if result.name == "copy":
            return around[window.inner()].astype(np.float64)
        if result.name == "convolution":
            return oracles.convolve(around, **KERNEL)[window.inner()]
        regions = oracles.regions_of(around)
        foreground = around > 0
        present = len(np.unique(around[foreground]))
        absent = present < workload.channels[window.image]
    distances = (result.distance(region) for region in regions)
    return oracles.weights(distances, foreground, absent, **result.settings)[window.inner()]


class Expected:
    """The oracle's values in the windows of one workload, computed once for each result class."""

    def __init__(self, workload: Workload, windows: list[Window]) -> None:
        self.workload = workload
        self.windows = windows
        self._values: dict[str, list[np.ndarray]] = {}

    def values(self, result: str) -> list[np.ndarray]:
        """One array for each window."""
        if result not in self._values:
            self._values[result] = [
                expected(RESULT_CLASSES[result], self.workload, window) for window in self.windows
            ]
        return self._values[result]

    def error(self, result: str, output: Tensor) -> float:
        """max |w - w64| / max(1, w64) of weights, max |y - y64| / max |y64| of others; inf for NaN."""
        values = self.values(result)
        weights = self.workload.case.computes != CONVOLUTION
        scale = 1.0 if weights else max(abs(v).max() for v in values) or 1.0
        if weights and output.dim() == 2:
            output = output[None]
        worst = 0.0
        for window, value in zip(self.windows, values, strict=True):
            got = output[window.image, window.rows, window.columns].detach().numpy().astype(np.float64)
            if got.shape != value.shape:
                return math.inf
            off = abs(got - value) / (np.maximum(value, 1) if weights else scale)
            worst = max(worst, float(np.nan_to_num(off, nan=math.inf).max()))
        return worst


# ---------------------------------------------------------------------------------------- small inputs


def _small_labels() -> Tensor:
    shape = (56, 72)
    touching = np.zeros(shape, dtype=np.int32)
    touching[20:33, 22:36], touching[20:37, 36:50] = 1, 2
    ids = np.array([0, 3, 7, 40, 41], dtype=np.int32)
    images = (
        touching,  # every instance within reach: the farthest-border is alive
        cases.tissue(shape, 10, 14),
        ids[cases.tissue(shape, 4, 14)],  # ids that are absent
        cases.tissue(shape, 1, 20),
        np.zeros(shape, dtype=np.int32),
    )
    return torch.from_numpy(np.stack(images)).float()


def _small_regions() -> Tensor:
    """Overlapping and soft."""
    hard = cases.one_hot(cases.tissue((56, 72), 3, 24))
    soft = torch.rand(hard.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(soft > 0.2, torch.maximum(hard, hard.roll(7, 2)) * soft, 0)


SMALL_INPUTS = {
    WEIGHTS: _small_labels,
    REGION_WEIGHTS: _small_regions,
    CONVOLUTION: lambda: torch.rand(3, 56, 72, generator=torch.Generator().manual_seed(0)),
}


@functools.cache
def small(computes: str) -> Expected:
    """The small input of a kind of case, to be checked whole."""
    workload = Case(f"small {computes}", computes, "", SMALL_INPUTS[computes]).workload()
    return Expected(workload, whole(workload))
