"""Places that 31 bits do not count: slices far apart in memory of which hardly any is touched, and chunks of
a whole that is larger than memory."""

import dask.array as da
import numpy as np
import pytest
import torch

import fastlogconv
from fastlogconv import large

SHAPE = (4, 20, 24)
STRIDES = (800_000_000, 24, 1)
BYTES = 2_500_000_000


def far_apart(values):
    """The values with these strides; the system gives memory only where something is written."""
    try:
        storage = torch.from_numpy(np.zeros(BYTES, np.uint8))
    except MemoryError:
        pytest.skip("the system does not promise memory that it may not have")
    view = storage.view(values.dtype).as_strided(SHAPE, STRIDES)
    view.copy_(values)
    return view


def volume(seed=0):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 5, (2, 5, 6))
    return torch.from_numpy(np.kron(blocks, np.ones((2, 4, 4), int))).to(torch.uint8)


@pytest.fixture(scope="module")
def labels():
    return volume()


@pytest.mark.parametrize("preset", ["unet2019", "unet2015", "deepflash2_offline"])
def test_strides(preset, labels, faster):
    if faster[1] != "cpu":
        pytest.skip("memory that is not touched is the CPU's")
    settings = dict(preset=preset, spatial_dims=3, bws=3, fds=3, spacing=(2.0, 1.0, 1.0))
    expected = fastlogconv.weight_map(labels, **settings)
    assert torch.equal(fastlogconv.weight_map(far_apart(labels), **settings), expected)


def test_strides_of_what_is_beside(labels):
    classes, ignore = volume(1), volume(2) == 1
    settings = dict(preset="unet2019", spatial_dims=3)
    expected = fastlogconv.weight_map(labels, classes=classes, ignore=ignore, **settings)
    found = fastlogconv.weight_map(labels, classes=far_apart(classes), ignore=far_apart(ignore), **settings)
    assert torch.equal(found, expected)


def test_strides_of_images(labels):
    """Slices as a batch: the kernels that go from instance to instance."""
    for settings in (dict(), dict(preset="unet2019")):
        expected = fastlogconv.weight_map(labels, **settings)
        assert torch.equal(fastlogconv.weight_map(far_apart(labels), **settings), expected)


def test_strides_of_exact_distances(labels):
    distances, ids = fastlogconv.nearest_instances(labels, spatial_dims=3)
    found = fastlogconv.nearest_instances(far_apart(labels), spatial_dims=3)
    assert torch.equal(found[0], distances) and torch.equal(found[1], ids)


def test_a_volume_of_more_than_31_bits_of_voxels():
    """By chunks: the last of 1300^3 voxels is weighed as in one piece with what is around it."""
    side, chunk = 1300, 100
    near_the_end = (
        np.random.default_rng(0).integers(0, 2, (5, 5, 5)).repeat(20, 0).repeat(20, 1).repeat(20, 2)
    )
    near_the_end[near_the_end > 0] = (np.indices((100,) * 3) // 20).sum(0)[near_the_end > 0] + 1

    def read(block_info=None):
        at = [start for start, _ in block_info[None]["array-location"]]
        out = np.zeros((chunk,) * 3, np.uint8)
        inner = [start - (side - 100) for start in at]
        if min(inner) >= 0:
            out[:] = near_the_end[tuple(slice(start, start + chunk) for start in inner)]
        return out

    chunks = ((chunk,) * (side // chunk),) * 3
    array = da.map_blocks(read, chunks=chunks, dtype=np.uint8, meta=np.zeros((0, 0, 0), np.uint8))
    assert array.size > 2**31
    settings = dict(preset="unet2019", bws=2, fds=2, spatial_dims=3)
    corner = large.weight_map(array, **settings)[-30:, -30:, -30:].compute()
    whole = fastlogconv.weight_map(torch.from_numpy(near_the_end.astype(np.uint8)), **settings).numpy()
    np.testing.assert_allclose(corner, whole[-30:, -30:, -30:], rtol=1e-5)
