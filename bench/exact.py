"""The U-Net weights from a Euclidean distance per instance: what one builds around a distance transform.

All libraries share the loop and the sums below, on PyTorch tensors in place, so that they differ by their
distance transform alone. `crop` runs it in each instance's bounding box grown by `reach` pixels, beyond which
float32 cannot see the instance; without it, it runs on the whole image, as is common.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .dense import LEAST_EXPONENT

# (labels [h, w] float32, an id that is among them) -> squared distance to that instance, float32 [h, w]
SquaredDistance = Callable[[np.ndarray, int], Tensor]


def reach(sigma: float) -> int:
    """Where exp(-d^2 / (2 sigma^2)) falls below half a unit in the last place of 1."""
    return math.ceil(sigma * math.sqrt(2 * 24 * math.log(2)))


def weights(
    labels: Tensor,
    squared_distance: SquaredDistance,
    crop: bool,
    *,
    bws: float,
    fds: float,
    bwf: float,
    fbr: float,
) -> Tensor:
    """Weights [B, H, W] of instance labels [B, H, W], with the second nearest instance in the border term."""
    margin = reach(max(fds, bws))
    out = torch.empty_like(labels)
    for image, result in zip(labels, out, strict=True):
        near, second = torch.full_like(image, math.inf), torch.full_like(image, math.inf)
        fd = torch.zeros_like(image)
        pixels = image.numpy()
        for i, box in enumerate(ndimage.find_objects(pixels.astype(np.int32)), start=1):
            if box is None:
                continue
            if crop:
                window = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
            else:
                window = (slice(None), slice(None))
            d2 = squared_distance(pixels[window], i)
            nearest, next_nearest = near[window], second[window]
            torch.minimum(next_nearest, torch.maximum(nearest, d2), out=next_nearest)
            torch.minimum(nearest, d2, out=nearest)
            fd[window].add_(d2.mul_(-0.5 / fds**2).clamp_(min=LEAST_EXPONENT).exp_())
        border = near.sqrt_().add_(second.sqrt_()).div_(bws).square_().mul_(-0.5).exp_()
        result.copy_(torch.where(image > 0, 1.0, fbr + (1 - fbr) * fd + bwf * border))
    return out


def opencv(threads: int) -> SquaredDistance:
    """OpenCV's exact Euclidean transform: DIST_L2 with DIST_MASK_PRECISE."""
    import cv2

    cv2.setNumThreads(threads)

    def squared_distance(labels, i):
        others = (labels != i).view(np.uint8)
        return torch.from_numpy(cv2.distanceTransform(others, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)).square_()

    return squared_distance


def scipy(threads: int) -> SquaredDistance:
    """SciPy's distance_transform_edt; it has one thread and float64 results."""
    return lambda labels, i: (
        torch.from_numpy(ndimage.distance_transform_edt(labels != i)).to(torch.float32).square_()
    )


def edt(threads: int) -> SquaredDistance:
    """seung-lab's edt; its squared variant saves it the root."""
    from edt import edtsq

    return lambda labels, i: torch.from_numpy(edtsq(labels != i, parallel=threads))


# The fastest of 3, 5, .., 43, and as far from Euclidean as any of them.
KORNIA_KERNEL_SIZE = 9


def kornia(threads: int) -> SquaredDistance:
    """kornia's cascade of convolutions, which stops where nothing is left to reach."""
    from kornia.contrib import distance_transform

    def squared_distance(labels, i):
        instance = torch.from_numpy(np.asarray(labels == i, dtype=np.float32))
        return distance_transform(instance[None, None], KORNIA_KERNEL_SIZE)[0, 0].square_()

    return squared_distance
