"""Blocks of the CUDA kernels share tiles, so that a few images fill a GPU: the weights do not show it."""

import functools

import gpu_on_cpu
import numpy as np
import pytest
import torch
from cases import disk, scattered, weight_error
from test_cuda_compiled import in_classes, needs_nvcc
from tolerances import WEIGHT

import fastlogconv

pytestmark = pytest.mark.skipif(gpu_on_cpu.why_not() is not None, reason=str(gpu_on_cpu.why_not()))
SHAPE = (139, 41)  # 6 tiles
# Images, and how many blocks share a tile of them.
BATCHES = {1: 8, 7: 7, 8: 6, 9: 5, 11: 4, 15: 3, 22: 2, 30: 1}


@functools.cache
def scene():
    """Cells, one that is higher than two tiles, scattered pixels of another; classes and pixels to ignore."""
    labels = scattered(SHAPE, 25, 7, np.random.default_rng(71))
    labels[2:137, 30:33] = 30
    labels[np.random.default_rng(72).random(SHAPE) < 0.01] = 31
    labels[disk(SHAPE, 100, 10, 6)] = 32
    labels = np.unique(labels, return_inverse=True)[1].reshape(SHAPE)
    return [torch.from_numpy(array) for array in in_classes(labels, 73)]


# By scaled sums, with some that are too small, by logarithms (float64) and by exact distances.
CASES = [
    *(
        (torch.int32, settings, False)
        for settings in (
            dict(),
            dict(ks=21),
            dict(border="farthest"),
            dict(fds=25),
            dict(fds=25, lmbda=0.2, border="farthest"),
            dict(fds=25, lmbda=0.2, falloff="nearest"),
            dict(distance="euclidean"),
            dict(distance="euclidean", border="farthest"),
        )
    ),
    (torch.int32, dict(), True),
    (torch.int32, dict(fds=25, border="farthest"), True),
    (torch.int32, dict(distance="euclidean"), True),
    (torch.float64, dict(), False),
    (torch.float64, dict(distance="euclidean", border="farthest"), True),
]


def batch_of(images, dtype, settings, by_class):
    labels, classes, ignore = scene()
    given = dict(classes=classes, ignore=ignore) if by_class else {}
    given = {name: tensor.expand(images, -1, -1) for name, tensor in given.items()}
    labels = labels.to(dtype).expand(images, -1, -1)
    return fastlogconv.weight_map(labels, **given, **settings, backend="native")


@pytest.mark.parametrize("dtype, settings, by_class", CASES)
def test_an_image_has_the_same_bits_in_any_batch(dtype, settings, by_class):
    from gpu_on_cpu.cuda_kernels import load_host_library, serving

    with serving(load_host_library()):
        weights = {images: batch_of(images, dtype, settings, by_class) for images in BATCHES}
    own = weights[1][0]
    labels, classes, ignore = scene()
    given = dict(classes=classes, ignore=ignore) if by_class else {}
    expected = fastlogconv.weight_map(labels.double(), **given, **settings, backend="reference")
    assert weight_error(own, expected) <= WEIGHT[own.dtype]
    for batch in weights.values():
        assert torch.equal(batch, own.expand_as(batch))


@needs_nvcc
def test_an_image_has_the_same_bits_in_any_batch_by_ptx():
    from gpu_on_cpu.cuda_kernels import Emulator

    emulator = Emulator()
    with emulator.serving():
        for settings in (dict(), dict(fds=25), dict(distance="euclidean")):
            own = batch_of(1, torch.int32, settings, False)
            for images in (15, 30):
                batch = batch_of(images, torch.int32, settings, False)
                assert torch.equal(batch, own.expand_as(batch))
    assert emulator.races == 0


def launches(labels, **settings):
    """(blocks, threads) of the kernel that weighs tiles."""
    from gpu_on_cpu.cuda_kernels import Emulator

    emulator, found = Emulator(), []
    emulator._launch = lambda kernel, blocks, threads, *_: found.append((kernel, blocks, threads))
    with emulator.serving():
        fastlogconv.weight_map(labels, **settings, backend="native")
    (launch,) = (launch[1:] for launch in found if b"weigh_tiles" in launch[0])
    return launch


@pytest.mark.parametrize("dtype, threads", [(torch.int32, 256), (torch.float64, 96)])
def test_one_image_gives_two_blocks_for_each_processor(dtype, threads):
    """Of an H100: 132. Where tiles suffice they are not shared."""
    assert launches(torch.zeros(1, 512, 512, dtype=dtype)) == (3 * 128, threads)
    assert launches(torch.zeros(2, 512, 512, dtype=dtype)) == (2 * 128, 256)
    for images, sharing in BATCHES.items():
        assert launches(torch.zeros(images, *SHAPE, dtype=dtype))[0] == 6 * images * sharing
