"""The workloads, by name: what is computed, and on what input."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

# What a case computes. "weights": instance labels [B, H, W] to weights [B, H, W]; "region weights": one mask
# per region [N, H, W] to weights [H, W]; "convolution": [N, H, W] with the lambda kernel along W, then H.
WEIGHTS, REGION_WEIGHTS, CONVOLUTION = "weights", "region weights", "convolution"

# 125 cells on 512 x 512 pixels, 23 pixels in diameter: about what a tile of nuclei holds.
CELLS_PER_PIXEL = 125 / 512**2
DIAMETER = 23


class Unavailable(Exception):
    """The input of a case cannot be had here; the message says why."""


@dataclass(frozen=True)
class Case:
    """One workload; `series` is the sweep that it is a point of, for the plots."""

    name: str
    computes: str
    about: str
    make: Callable[[], Tensor]
    series: str = ""

    def workload(self) -> Workload:
        """The case with its input made. Raises Unavailable."""
        return Workload(self, self.make())


class Workload:
    """A case with its input, float32, and what that input holds."""

    def __init__(self, case: Case, input: Tensor) -> None:
        self.case = case
        self.input = input

    @property
    def pixels(self) -> int:
        """Pixels of the input: B H W of labels, N H W of regions and of the convolution."""
        return self.input.numel()

    @functools.cached_property
    def instances(self) -> int:
        """Instances that are present; of regions and of the convolution all N channels."""
        return sum(map(len, self._boxes)) if self.case.computes == WEIGHTS else len(self.input)

    @functools.cached_property
    def channels(self) -> list[int]:
        """For each image how many one-hot channels its labels need: the largest id."""
        return [int(image.max()) for image in self.input]

    @functools.cached_property
    def _boxes(self) -> list[list[tuple[slice, slice]]]:
        images = (image.numpy().astype(np.int32) for image in self.input)
        return [[box for box in ndimage.find_objects(image) if box] for image in images]

    def dilated_boxes(self, margin: int) -> list[tuple[int, int]]:
        """(height, width) of each instance's bounding box, grown by `margin` within its image."""
        _, height, width = self.input.shape
        return [
            (
                min(y.stop + margin, height) - max(y.start - margin, 0),
                min(x.stop + margin, width) - max(x.start - margin, 0),
            )
            for boxes in self._boxes
            for y, x in boxes
        ]


# -------------------------------------------------------------------------------------------- generators


def tissue(shape: tuple[int, int], instances: int, diameter: float, seed: int = 0) -> np.ndarray:
    """Labels [H, W] int32 of ellipses on a jittered grid, drawn over one another where they meet."""
    rng = np.random.default_rng(seed)
    height, width = shape
    columns = max(1, round(math.sqrt(instances * width / height)))
    rows = math.ceil(instances / columns)
    cells = np.sort(rng.choice(rows * columns, instances, replace=False))
    pitch_y, pitch_x = height / rows, width / columns
    jitter = rng.uniform(-0.25, 0.25, (2, instances))
    centre_y = (cells // columns + 0.5 + jitter[0]) * pitch_y
    centre_x = (cells % columns + 0.5 + jitter[1]) * pitch_x
    radii = diameter / 2 * np.exp(rng.normal(0, 0.15, (2, instances)))
    angle = rng.uniform(0, math.pi, instances)
    cos, sin = np.cos(angle), np.sin(angle)
    labels = np.zeros(shape, dtype=np.int32)
    for i in range(instances):
        cy, cx = centre_y[i], centre_x[i]
        reach = math.ceil(radii[:, i].max())
        top, left = max(int(cy) - reach, 0), max(int(cx) - reach, 0)
        bottom, right = min(int(cy) + reach + 1, height), min(int(cx) + reach + 1, width)
        y = np.arange(top, bottom)[:, None] - cy
        x = np.arange(left, right) - cx
        u, v = (cos[i] * x + sin[i] * y) / radii[0, i], (cos[i] * y - sin[i] * x) / radii[1, i]
        labels[top:bottom, left:right][u * u + v * v <= 1] = i + 1
        labels[int(cy), int(cx)] = i + 1
    return labels


def tissue_at_density(size: int, seed: int = 0) -> np.ndarray:
    """`tissue` of size x size pixels with the number of cells that keeps their density."""
    return tissue((size, size), max(1, round(CELLS_PER_PIXEL * size**2)), DIAMETER, seed)


def specks(size: int, across: int, seed: int = 0) -> np.ndarray:
    """Labels of across^2 rectangles of 1 to 6 pixels, one in each cell of a grid."""
    rng = np.random.default_rng(seed)
    edges = np.arange(across + 1) * size // across
    labels = np.zeros((size, size), dtype=np.int32)
    height, width = rng.integers(1, 3, (across, across)), rng.integers(1, 4, (across, across))
    for i, (top, bottom) in enumerate(itertools.pairwise(edges)):
        for j, (left, right) in enumerate(itertools.pairwise(edges)):
            h, w = min(height[i, j], bottom - top), min(width[i, j], right - left)
            labels[top : top + h, left : left + w] = i * across + j + 1
    return labels


def ring(size: int, radius: float, thickness: float) -> np.ndarray:
    """One instance: a circle's line."""
    y, x = np.ogrid[:size, :size]
    from_centre = np.hypot(y - size / 2, x - size / 2)
    return (abs(from_centre - radius) <= thickness / 2).astype(np.int32)


def blob(size: int, radius: float) -> np.ndarray:
    """One instance: a disk with a wavy outline."""
    y, x = np.ogrid[:size, :size]
    y, x = y - size / 2, x - size / 2
    angle = np.arctan2(y, x)
    outline = radius * (1 + 0.2 * np.sin(3 * angle) + 0.1 * np.cos(7 * angle))
    return (np.hypot(y, x) <= outline).astype(np.int32)


def checkerboard(size: int, background: bool) -> np.ndarray:
    """Labels of two instances, pixel by pixel; with `background` in every third column."""
    y, x = np.ogrid[:size, :size]
    return ((1 + (x + y) % 2) * (x % 3 > 0 if background else 1)).astype(np.int32)


def scattered_ids(size: int, ids: int, density: float, seed: int = 0) -> np.ndarray:
    """Labels of instances whose pixels lie anywhere, alone."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, ids + 1, (size, size)) * (rng.random((size, size)) < density)
    return labels.astype(np.int32)


def squares(size: int, pitch: int, side: int) -> np.ndarray:
    """Labels of (size / pitch)^2 squares, one in each cell of a grid."""
    y, x = np.ogrid[:size, :size]
    ids = y // pitch * (size // pitch) + x // pitch + 1
    return (ids * (np.maximum(y % pitch, x % pitch) < side)).astype(np.int32)


def mosaic(size: int, tiles: int) -> np.ndarray:
    """tiles x tiles images of tissue, each numbered from 1: an id has a piece in each."""
    side = size // tiles
    rows = [[tissue_at_density(side, i * tiles + j) for j in range(tiles)] for i in range(tiles)]
    return np.block(rows).astype(np.int32)


def one_hot(labels: np.ndarray) -> Tensor:
    """float32 [max, H, W]."""
    ids = torch.arange(1, int(labels.max()) + 1, dtype=torch.int32)
    return (torch.from_numpy(labels) == ids[:, None, None]).float()


def _batch(*images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(images)).float()


def read_mask(path: Path | None) -> Tensor:
    """Labels float32 [B, H, W] from a .tif, .png or .npy. Raises Unavailable where there is no path."""
    if path is None:
        raise Unavailable("no mask given: --mask FILE")
    from fastlogconv.cli.weights import read_labels  # it needs the extra [cli]

    labels = torch.from_numpy(read_labels(path).labels).float()
    return labels if labels.dim() == 3 else labels[None]


# --------------------------------------------------------------------------------------------- the table


def tissue_case(size: int) -> Case:
    """Tissue of constant density on size x size pixels."""
    return Case(
        f"tissue-{size}",
        WEIGHTS,
        "tissue of constant density",
        lambda: _batch(tissue_at_density(size)),
        series="pixels",
    )


def all_cases(mask: Path | None = None) -> dict[str, Case]:
    """Every case by name; those of `--quick` begin with "quick"."""
    cases = [
        Case("dsb", WEIGHTS, "a real mask of nuclei", lambda: read_mask(mask)),
        Case(
            "tile-32",
            WEIGHTS,
            "one cell on a tile: the cost of a call",
            lambda: _batch(tissue_at_density(32)),
        ),
    ]
    cases += map(tissue_case, (256, 512, 1024, 2048, 4096, 8192))
    for diameter in (8, 40):
        cases.append(
            Case(
                f"tissue-512-diameter-{diameter}",
                WEIGHTS,
                f"125 cells of {diameter} px",
                lambda diameter=diameter: _batch(tissue((512, 512), 125, diameter)),
            )
        )
    for instances in (1, 4, 16, 64, 256, 1024, 4096):
        cases.append(
            Case(
                f"instances-{instances}",
                WEIGHTS,
                "cells of 6 px on 512 x 512",
                lambda instances=instances: _batch(tissue((512, 512), instances, 6)),
                series="instances",
            )
        )
    cases += [
        Case(
            "batch-16x512",
            WEIGHTS,
            "16 images of tissue",
            lambda: _batch(*(tissue_at_density(512, seed) for seed in range(16))),
        ),
        Case(
            "giant-ring", WEIGHTS, "one ring, 800 px wide, 12 px thick", lambda: _batch(ring(1024, 400, 12))
        ),
        Case("giant-blob", WEIGHTS, "one blob of 600 px", lambda: _batch(blob(1024, 300))),
        Case(
            "checkerboard-full",
            WEIGHTS,
            "two ids, no background, 2048 x 2048",
            lambda: _batch(checkerboard(2048, background=False)),
        ),
        Case(
            "checkerboard",
            WEIGHTS,
            "two ids, a third background, 2048 x 2048",
            lambda: _batch(checkerboard(2048, background=True)),
        ),
        Case(
            "scattered-full",
            WEIGHTS,
            "100 ids over all pixels of 1024 x 1024",
            lambda: _batch(scattered_ids(1024, 100, 1)),
        ),
        Case(
            "scattered",
            WEIGHTS,
            "100 ids over a quarter of 1024 x 1024",
            lambda: _batch(scattered_ids(1024, 100, 0.25)),
        ),
        Case(
            "scattered-thinly",
            WEIGHTS,
            "100 ids over a hundredth of 1024 x 1024",
            lambda: _batch(scattered_ids(1024, 100, 0.01)),
        ),
        Case(
            "mosaic", WEIGHTS, "4 x 4 tiles of tissue, each numbered from 1", lambda: _batch(mosaic(2048, 4))
        ),
        Case("million", WEIGHTS, "squares of 3 px on 4096 x 4096", lambda: _batch(squares(4096, 4, 3))),
        Case("tiny-40000", WEIGHTS, "specks of 1 to 6 px", lambda: _batch(specks(512, 200))),
        Case(
            "regions-125",
            REGION_WEIGHTS,
            "one-hot regions of tissue",
            lambda: one_hot(tissue_at_density(512)),
        ),
        Case("conv-125", CONVOLUTION, "one-hot regions of tissue", lambda: one_hot(tissue_at_density(512))),
        Case(
            "conv-125-random",
            CONVOLUTION,
            "uniform random numbers",
            lambda: torch.rand(125, 512, 512, generator=torch.Generator().manual_seed(0)),
        ),
        Case("quick-tissue", WEIGHTS, "tissue", lambda: _batch(tissue((96, 80), 8, 14)), series="pixels"),
        Case("quick-few", WEIGHTS, "two cells", lambda: _batch(tissue((48, 64), 2, 14)), series="instances"),
        Case("quick-regions", REGION_WEIGHTS, "regions", lambda: one_hot(tissue((48, 56), 4, 14))),
        Case("quick-conv", CONVOLUTION, "regions", lambda: one_hot(tissue((48, 56), 4, 14))),
    ]
    return {case.name: case for case in cases}


QUICK = ("quick-tissue", "quick-few", "quick-regions", "quick-conv")
