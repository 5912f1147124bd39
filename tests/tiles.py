"""What the tests of large.py share: a mask, settings, and how to compare with the image in one piece."""

import numpy as np
import torch
from cases import scattered

import fastlogconv

SHAPE = (150, 190)
LABELS = scattered(SHAPE, 80, 12, np.random.default_rng(5))
LOGCONV = dict(ks=31, bws=7, fds=6, bwf=5, fbr=0.2, lmbda=0.8)
EUCLIDEAN = dict(distance="euclidean", bws=4, fds=5, bwf=20)
NEAR = 1e-6  # on these masks: tiles cut instances, so sums are rounded in another order; test_large_bound.py


def whole(labels, **settings):
    return fastlogconv.weight_map(torch.from_numpy(labels), **settings).numpy()


def error(weights, expected):
    return (np.abs(weights - expected) / np.maximum(1, expected)).max()


class Rows:
    """An array that counts its reads, and fails at a pixel that it is told."""

    def __init__(self, array, broken=None):
        self.array, self.broken, self.reads = array, broken, []
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key):
        if self.broken is not None and all(
            s.start <= x < s.stop for s, x in zip(key, self.broken, strict=True)
        ):
            raise OSError("disk is gone")
        self.reads.append(key)
        return self.array[key]
