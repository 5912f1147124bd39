"""The mask tools in volumes, and for pixels that are not square, against SciPy."""

import mask_oracle
import numpy as np
import pytest
import torch
from scipy import ndimage
from tolerances import EUCLIDEAN

from fastlogconv import calculate_weights, preprocess_mask, separate_touching


def touching_cells(shape, count, rng):
    """The nearest of `count` points, within 6 pixels: [*shape]."""
    points = rng.integers(0, shape, (count, len(shape)))
    d = np.linalg.norm(np.stack(np.indices(shape), -1)[..., None, :] - points, axis=-1)
    return np.where(d.min(-1) < 6, d.argmin(-1) + 1, 0)


def random_labels(seed, dims):
    """(clabels or None, instlabels or None), from one pixel on, from cells to noise; sparse ids."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 18 if seed % 4 else 4, dims))
    if seed % 3:
        instances = touching_cells(shape, rng.integers(1, 20), rng)
    else:
        instances = rng.integers(0, rng.integers(2, 9), shape) * (rng.random(shape) < rng.random())
    instances = rng.permutation(2 * instances.max() + 2)[instances] * (instances > 0)
    classes = touching_cells(shape, 4, rng) // 2 + rng.integers(0, 2)
    return [(None, instances), (classes, None), (classes, instances)][seed % 5 % 3]


@pytest.mark.parametrize("seed", range(60))
def test_ridges_in_volumes(seed):
    given = random_labels(seed, 3)
    labels = preprocess_mask(*given, spatial_dims=3)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, mask_oracle.preprocess_mask(*given))


def test_random_volumes_have_ridges():
    given = [random_labels(seed, 3) for seed in range(60)]
    cut = sum(
        (preprocess_mask(*each, spatial_dims=3) != preprocess_mask(*each, None, False, 3)).any()
        for each in given
    )
    assert cut > 30


@pytest.mark.parametrize("seed", range(40))
def test_a_volume_of_depth_one_is_the_image(seed):
    given = random_labels(100 + seed, 2)
    deep = [each if each is None else each[None] for each in given]
    flat = calculate_weights(*given, bws=4, fds=3)
    for volume, image in zip(calculate_weights(*deep, bws=4, fds=3, n_dims=3), flat, strict=True):
        assert volume.dtype == image.dtype
        np.testing.assert_allclose(volume[0], image, rtol=2e-6)
    np.testing.assert_array_equal(preprocess_mask(*deep, n_dims=3)[0], flat[0])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(24))
def test_weights_against_oracle(seed, dims):
    rng = np.random.default_rng(500 + seed)
    given = random_labels(seed, dims)
    shape = next(each.shape for each in given if each is not None)
    settings = dict(
        bws=float(np.exp(rng.uniform(-2, 3))),
        fds=float(np.exp(rng.uniform(-2, 3))),
        bwf=float(rng.uniform(0, 50)),
        fbr=float(rng.choice([0, 1, rng.uniform(0, 3)])),
        spacing=None if dims == 3 and seed % 3 == 0 else tuple(np.exp(rng.uniform(-1.2, 2, dims)).tolist()),
    )
    ignore = rng.random(shape) < 0.2 if seed % 2 else None
    expected = mask_oracle.calculate_weights(*given, ignore, **settings)
    labels, weights, pdf = calculate_weights(*given, ignore, spatial_dims=dims, **settings)
    assert (labels.dtype, weights.dtype, pdf.dtype) == (np.int32, np.float32, np.float32)
    np.testing.assert_array_equal(labels, expected[0])
    error = abs(weights - expected[1]) / np.maximum(1, abs(expected[1]))
    assert error.max(initial=0) <= EUCLIDEAN[torch.float32]
    np.testing.assert_allclose(pdf, expected[2], rtol=1e-6)


@pytest.mark.parametrize("kind", ["u1", "u2", "u8", "i8", "f2", "f8", ">i4", "strided", "read-only"])
def test_arrays_of_any_kind(kind):
    labels = touching_cells((6, 9, 11), 6, np.random.default_rng(0))
    if kind == "strided":
        given = np.repeat(labels, 2, axis=2)[:, :, ::2][::-1][::-1]
    else:
        given = labels.astype("i4" if kind == "read-only" else kind)
        given.setflags(write=kind != "read-only")
    for found, expected in zip(
        calculate_weights(instlabels=given, spatial_dims=3),
        calculate_weights(instlabels=labels, spatial_dims=3),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


def test_large_ids_and_none():
    labels = touching_cells((6, 9, 11), 6, np.random.default_rng(0))
    expected = preprocess_mask(instlabels=labels, spatial_dims=3)
    large = np.where(labels > 0, labels + 2**62, -5)
    np.testing.assert_array_equal(preprocess_mask(instlabels=large, spatial_dims=3), expected)
    nothing = np.zeros((2, 3, 4), int)
    assert not preprocess_mask(instlabels=nothing, spatial_dims=3).any()
    assert preprocess_mask(instlabels=np.zeros((0, 3, 4), int), spatial_dims=3).shape == (0, 3, 4)


def test_equal_spacing_is_another_unit():
    labels = touching_cells((20, 30), 6, np.random.default_rng(0))
    expected = calculate_weights(instlabels=labels, bws=4, fds=6)[1]
    found = calculate_weights(instlabels=labels, bws=2, fds=3, spacing=(0.5, 0.5))[1]
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_ridges_leave_pairs_joined_that_gaps_part():
    """As in images: what is for training has gaps."""
    labels = np.zeros((8, 8, 12), int)
    labels[2:6, 2:6, 2:6], labels[2:6, 2:6, 6:10] = 1, 2  # a flat contact
    assert ndimage.label(preprocess_mask(instlabels=labels, spatial_dims=3))[1] == 1
    separated = separate_touching(torch.from_numpy(labels), spatial_dims=3)
    assert ndimage.label(separated.numpy() > 0)[1] == 2


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, "a", 1), 3])
def test_bad_spacing(spacing):
    with pytest.raises((TypeError, ValueError), match="spacing must be"):
        calculate_weights(instlabels=np.zeros((3, 3, 3), int), spatial_dims=3, spacing=spacing)
