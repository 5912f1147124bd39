"""docs/recipes.md: its code run from top to bottom, and what it gives."""

import numpy as np
import pytest
import torch
from pages import ROOT, blocks, run
from scipy.ndimage import distance_transform_edt

import fastlogconv

PAGE = ROOT / "docs" / "recipes.md"
SOFTER = dict(preset="unet2019", bwf=10)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What is defined behind the last block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("recipes"))
        defined = run("\n".join(blocks(PAGE)), PAGE)
        defined["stored"] = defined["stored"][:]
    return defined


def test_step(names):
    assert names["loss"].requires_grad and names["loss"] > 0


def test_components(names):
    assert torch.equal(names["components"] > 0, names["ids"] > 0) and names["components"].max() == 1
    assert len(names["split"].unique()) == 3  # two cells and the background


def test_classes(names):
    assert torch.equal(names["target"], names["classes"].long())  # nothing of one class touches
    expected = fastlogconv.weight_map(names["ids"], classes=names["classes"], **SOFTER)
    assert torch.equal(names["weights_of_classes"], expected)


def test_objects(names):
    """Files and polygons give the ids that they were made of."""
    assert np.array_equal(names["of_files"], names["ids"][0])
    assert torch.equal(names["of_coco"], names["ids"][0])
    assert torch.equal(names["classes_of_coco"], names["classes"][0])
    expected = fastlogconv.weight_map(names["ids"][0], preset="deepflash2_offline")
    torch.testing.assert_close(names["weights_of_masks"], expected)


def test_unknown_pixels(names):
    weights = fastlogconv.weight_map(names["ids"], ignore=names["unknown"], **SOFTER)
    assert torch.equal(names["weights_of_marked"], weights) and (weights[..., 80:] == 0).all()
    target = fastlogconv.separate_touching(names["ids"]) > 0
    assert torch.equal(names["target_of_marked"], target.long())


def test_volume(names):
    gap = (names["volume"] > 0) & (names["target_of_volume"] == 0)
    assert gap.any() and (names["weights_of_volume"][gap] > 5).all()


def test_stored(names):
    expected = fastlogconv.weight_map(names["ids"][0].tile(3, 3), **SOFTER)
    torch.testing.assert_close(torch.from_numpy(names["stored"]), expected)


def scattered_volume():
    """[6, 40, 40], its last slice empty, one with a single instance, several with instances that touch."""
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, (5, 40, 40), (14, 3))
    grid = np.stack(np.indices((6, 40, 40)), -1)
    squared = (((grid[..., None, :] - seeds) / (1.2, 6, 6)) ** 2).sum(-1)
    labels = np.where(squared.min(-1) < 1, squared.argmin(-1) + 1, 0)
    labels[5] = 0
    labels[4] = np.where(labels[4] == labels[4].max(), labels[4].max(), 0)
    return labels


@pytest.mark.parametrize(("w0", "w1", "sigma"), [(10.0, 5.0, 5.0), (3.0, 8.0, 9.0)])
def test_weights_of_pytorch_connectomics(w0, w1, sigma, names):
    """Their formula, slice by slice, instance by instance."""
    labels = scattered_volume()
    assert len(np.unique(labels[1])) > 3 and len(np.unique(labels[4])) == 2
    expected = np.ones(labels.shape)
    for found, slice_ in zip(expected, labels, strict=True):
        distances = [distance_transform_edt(slice_ != i) for i in np.unique(slice_[slice_ > 0])]
        if len(distances) > 1:
            nearest, second = np.sort(distances, axis=0)[:2]
            found[:] = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
        found[slice_ > 0] = w1
    expected = np.clip(expected, 1, max(w0, w1))
    result = names["weight_unet3d"](torch.from_numpy(labels), w0, w1, sigma)
    np.testing.assert_allclose(result.numpy(), expected, rtol=0, atol=1e-5 * w0)


@pytest.mark.parametrize("max_distance", [None, 4.0])
@pytest.mark.parametrize("spacing", [None, (3.0, 1.0, 1.0)])
def test_distances_of_torch_em(spacing, max_distance, names):
    labels = scattered_volume()
    distance = distance_transform_edt(labels == 0, sampling=spacing)
    distance = np.clip(distance, 0, max_distance)
    result = names["distance_transform"](torch.from_numpy(labels), max_distance, spacing)
    np.testing.assert_allclose(result.numpy(), distance / (distance.max() + 1e-7), rtol=1e-5)


def test_label_transform_of_torch_em(names):
    labels = torch.from_numpy(scattered_volume())
    made = names["label_transform"](labels)
    assert made.shape == (2, *labels.shape)
    loss = names["loss_of_torch_em"](torch.randn(1, 2, *labels.shape), made[None])
    assert loss.dim() == 0 and loss.isfinite()
