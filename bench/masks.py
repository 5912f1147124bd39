"""The mask tools against what they replace: `python -m bench.masks [--mask FILE] [--quick]`, one thread.

- calculate_weights, and weight_map by both distances, against OpenCV's exact distance transform of the whole
  image, once per instance, alone.
- preprocess_mask against one 3x3 grey closing of the instance ids, by SciPy and by OpenCV.
- 10,000 centres drawn from a 512 x 512 density, one by one and together.

Results are held against OpenCV's and SciPy's before anything is timed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy import ndimage

import fastlogconv

from . import report
from .cases import DIAMETER, read_mask, tissue, tissue_at_density
from .timing import QUICK, Contestant, Effort, alternate

CENTERS = 10_000


def opencv_distances(labels: np.ndarray):
    """Yields the exact distance to each instance."""
    for i in np.unique(labels[labels > 0]):
        yield cv2.distanceTransform((labels != i).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def check_weights(labels: np.ndarray) -> None:
    """Raises AssertionError unless calculate_weights and weight_map agree with OpenCV's distances."""
    drawn, weights, _ = fastlogconv.calculate_weights(instlabels=labels)
    in_training = fastlogconv.weight_map(torch.from_numpy(labels), distance="euclidean").numpy()
    near, second = np.full((2, *labels.shape), np.inf)
    fd = np.zeros(labels.shape)
    for d in map(np.float64, opencv_distances(labels)):
        near, second = np.minimum(near, d), np.minimum(second, np.maximum(near, d))
        fd += np.exp(-(d**2) / 200)
    background = 0.1 + 0.9 * fd + 10 * np.exp(-((near + second) ** 2) / 200)
    for foreground, found in ((drawn > 0, weights), (labels > 0, in_training)):
        expected = np.where(foreground, 1, background)
        assert (abs(found - expected) / np.maximum(expected, 1)).max() < 2e-5


def check_ridges(labels: np.ndarray) -> None:
    """Raises AssertionError unless preprocess_mask agrees with a dilation of the whole image per instance."""
    dilated = ndimage.maximum_filter(labels, 3, mode="constant")
    closing = ndimage.minimum_filter(dilated, 3, mode="constant", cval=labels.max() + 1)
    candidates = np.unique(closing[closing != labels])
    drawn = (labels > 0) & ~np.isin(labels, candidates)
    for i in candidates:
        drawn |= (labels == i) & ~ndimage.binary_dilation(drawn, np.ones((3, 3)))
    assert (fastlogconv.preprocess_mask(instlabels=labels) == drawn).all()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.masks", description=__doc__.splitlines()[0])
    parser.add_argument("--mask", type=Path, help="a mask of yours, for calculate_weights")
    parser.add_argument("--quick", action="store_true", help="small inputs: does it all work?")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    size, cells = (128, 12) if arguments.quick else (2048, 2000)
    labels = tissue_at_density(size // 4)
    if arguments.mask:
        labels = read_mask(arguments.mask)[0].numpy()
    tensor = torch.from_numpy(labels)
    packed = tissue((size, size), cells, 1.1 * np.sqrt(size**2 / cells)).astype(np.int32)
    square = tissue((512, 512), 120, DIAMETER)
    pdf = fastlogconv.create_pdf(square, scale=None)
    rng = np.random.default_rng(0)

    check_weights(labels)
    check_ridges(tissue((256, 256), 40, 45).astype(np.int32))
    ridges = (packed > 0).sum() - fastlogconv.preprocess_mask(instlabels=packed).sum()
    # The C library hands freed memory back to the system, to be faulted in again, beyond the largest size
    # that it saw freed. A process that works on images has freed a larger one before.
    np.ones(1 << 24, dtype=np.uint8)
    contestants = {
        "calculate_weights": lambda: fastlogconv.calculate_weights(instlabels=labels),
        'weight_map, distance="euclidean"': lambda: fastlogconv.weight_map(tensor, distance="euclidean"),
        'weight_map, distance="logconv"': lambda: fastlogconv.weight_map(tensor),
        "OpenCV, one exact transform per instance": lambda: [None for _ in opencv_distances(labels)],
        "preprocess_mask": lambda: fastlogconv.preprocess_mask(instlabels=packed),
        "SciPy, one 3x3 grey closing": lambda: ndimage.grey_closing(packed, size=3),
        "OpenCV, one 3x3 closing (of int16)": lambda: cv2.morphologyEx(
            packed.astype(np.int16), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)
        ),
        f"random_center, {CENTERS} times": lambda: [
            fastlogconv.random_center(pdf, square.shape, scale=None, rng=rng) for _ in range(CENTERS)
        ],
        f"random_centers, {CENTERS} at once": lambda: fastlogconv.random_centers(
            pdf, square.shape, CENTERS, scale=None, rng=rng
        ),
    }
    timed = {name: Contestant(call) for name, call in contestants.items()}
    alternate(list(timed.values()), QUICK if arguments.quick else Effort())
    print(report.machine_line(report.machine(1)))
    print(f"calculate_weights: {labels.shape}, {len(np.unique(labels)) - 1} instances")
    print(f"preprocess_mask: {packed.shape}, {packed.max()} cells, {ridges} pixels of ridges\n")
    rows = (
        (name, report.duration(who.times.median), *map(report.duration, who.times.quartiles))
        for name, who in timed.items()
    )
    print(report.table(("", "median", "1st quartile", "3rd quartile"), rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
