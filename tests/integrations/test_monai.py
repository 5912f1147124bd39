import copy
import pickle

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, EnsureChannelFirstd, RandFlipd, RandRotate90d, SpatialPadd
from pages import run_page_of

from fastlogconv import separate_touching, weight_map
from fastlogconv.integrations.monai import WeightMap, WeightMapD, WeightMapd, WeightMapDict

SETTINGS = dict(border="farthest", bws=5, fds=4, bwf=3, fbr=0.2, lmbda=1.5, ks=21, backend="reference")
DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensor(dtype, labels):
    stacked = torch.stack([labels, labels.flip(0)]).to(dtype)
    result = WeightMap()(stacked)
    assert type(result) is torch.Tensor
    assert result.dtype == weight_map(stacked).dtype
    assert torch.equal(result, weight_map(stacked))


def test_settings(labels):
    assert torch.equal(WeightMap(**SETTINGS)(labels[None])[0], weight_map(labels, **SETTINGS))
    result = WeightMapd("label", **SETTINGS)({"label": labels[None]})
    assert torch.equal(result["weight"][0], weight_map(labels, **SETTINGS))


def test_array(labels, weights):
    result = WeightMap()(labels.numpy()[None, :, ::-1])
    assert type(result) is np.ndarray and result.dtype == np.float32
    assert np.array_equal(result[0], weight_map(labels.flip(1)).numpy())
    big_endian = labels.numpy()[None].astype(">u2")
    assert np.array_equal(WeightMap()(big_endian)[0], weights.numpy())


def test_metadata_is_kept(labels, weights):
    affine = torch.diag(torch.tensor([0.5, 0.25, 1, 1], dtype=torch.float64))
    image = MetaTensor(labels[None], affine=affine, meta={"filename_or_obj": "cells.tif"})
    result = WeightMap()(image)
    assert type(result) is MetaTensor
    assert result.dtype == torch.float32
    assert torch.equal(result.affine, affine)
    assert result.meta["filename_or_obj"] == "cells.tif"
    assert torch.equal(result.as_tensor()[0], weights)
    assert torch.equal(image.as_tensor()[0], labels)


def test_dictionary(labels, weights):
    image = torch.rand(3, *labels.shape)
    sample = {"image": image, "label": labels[None], "name": "a"}
    result = WeightMapd("label")(sample)
    assert list(sample) == ["image", "label", "name"]
    assert result["image"] is image and result["label"] is sample["label"] and result["name"] == "a"
    assert torch.equal(result["weight"][0], weights)
    assert WeightMapDict is WeightMapD is WeightMapd


def test_several_keys(labels, weights):
    transform = WeightMapd(("nuclei", "cells"), weight_key=("nuclei_weight", "cells_weight"))
    result = transform({"nuclei": labels[None], "cells": labels.flip(0)[None]})
    assert torch.equal(result["nuclei_weight"][0], weights)
    assert torch.equal(result["cells_weight"][0], weight_map(labels.flip(0)))
    with pytest.raises(ValueError, match="weight_key must hold a name for each"):
        WeightMapd(("nuclei", "cells"))


def test_missing_keys(labels):
    with pytest.raises(KeyError, match="label"):
        WeightMapd("label")({"image": labels})
    assert list(WeightMapd("label", allow_missing_keys=True)({"image": labels})) == ["image"]


def test_errors(labels):
    for wrong in (labels, labels[None, None], torch.zeros(1, 4, 5, 6)):
        with pytest.raises(ValueError, match=r"labels must have the shape \[C, H, W\]"):
            WeightMap()(wrong)
    with pytest.raises(ValueError, match="bws must be"):
        WeightMap(bws=0)
    with pytest.raises(TypeError, match="sigma"):
        WeightMapd("label", sigma=3)


def test_copies_compute_the_same(labels):
    for transform in (WeightMap(**SETTINGS), WeightMapd("label", **SETTINGS).weights):
        for copied in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
            assert torch.equal(copied(labels[None]), transform(labels[None]))


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_pipeline(workers, labels):
    samples = [{"image": torch.rand(*labels.shape), "label": labels.float()} for _ in range(4)]
    pipeline = Compose(
        [
            EnsureChannelFirstd(["image", "label"], channel_dim="no_channel"),
            RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
            RandRotate90d(["image", "label"], prob=0.5),
            SpatialPadd(["image", "label"], (64, 72)),
            WeightMapd("label"),
        ]
    )
    pipeline.set_random_state(0)
    for batch in DataLoader(Dataset(samples, pipeline), batch_size=2, num_workers=workers):
        assert type(batch["weight"]) is MetaTensor
        assert batch["weight"].shape == (2, 1, 64, 72)
        expected = weight_map(batch["label"].as_tensor()[:, 0])
        assert torch.equal(batch["weight"].as_tensor()[:, 0], expected)
        assert torch.equal(decollate_batch(batch)[1]["weight"].as_tensor()[0], expected[1])


@pytest.mark.parametrize(
    "kind", [torch.Tensor.numpy, MetaTensor, torch.clone], ids=["array", "meta", "tensor"]
)
def test_classes_and_ignore(kind, labels, beside):
    classes, ignore = beside
    expected = weight_map(labels, classes=classes, ignore=ignore)
    sample = {"label": kind(labels[None]), "c": kind(classes[None]), "i": kind(ignore[None].float())}
    result = WeightMapd("label", classes_key="c", ignore_key="i")(sample)
    assert type(result["weight"]) is type(sample["label"])
    assert torch.equal(torch.as_tensor(np.asarray(result["weight"][0])), expected)
    sample |= {"other": sample["label"].clip(0, 1)}
    two = WeightMapd(["label", "other"], ("a", "b"), classes_key="c", ignore_key=["i", "i"])(sample)
    assert torch.equal(torch.as_tensor(np.asarray(two["a"][0])), expected)
    with pytest.raises(KeyError, match="absent"):
        WeightMapd("label", classes_key="absent")(sample)


def test_a_mask_for_all_channels(labels, beside):
    stacked = torch.stack([labels, labels.flip(0)])
    result = WeightMap()(stacked, ignore=beside[1][None])
    assert torch.equal(result, weight_map(stacked, ignore=beside[1]))


def test_several_labels_to_ignore(labels):
    marked = labels.masked_fill(labels == 0, 255)
    result = WeightMapd("label", ignore_index=[255, 1])({"label": marked[None]})["weight"][0]
    assert torch.equal(result, (labels == 2).float())


@pytest.mark.parametrize("dtype", ["Q", np.uint64])
def test_either_uint64_of_numpy(dtype, labels, weights):
    assert np.array_equal(WeightMap()(labels.numpy()[None].astype(dtype))[0], weights)


def test_channel_last_is_told(labels):
    with pytest.raises(ValueError, match=r"\[C, H, W\], got \(24, 30, 1\), whose images are one column wide"):
        WeightMap()(labels[..., None])


TOUCHING = torch.tensor([[0, 1, 1, 2, 2], [0, 1, 1, 2, 2], [3, 3, 0, 0, 0]], dtype=torch.int32)


@pytest.mark.parametrize("kind", [torch.Tensor, MetaTensor, np.ndarray])
def test_gaps(kind):
    labels, classes = TOUCHING[None], (TOUCHING[None] > 1).int() + 1
    as_kind = {torch.Tensor: lambda x: x, MetaTensor: MetaTensor, np.ndarray: lambda x: x.numpy()}[kind]
    data = {"label": as_kind(labels), "classes": as_kind(classes)}
    for beside, expected in (
        (None, separate_touching(labels)),
        ("classes", separate_touching(labels, classes)),
    ):
        result = WeightMapd("label", preset="unet2019", classes_key=beside)(data)
        assert type(result["separated"]) is kind and type(result["weight"]) is kind
        assert torch.equal(torch.as_tensor(result["separated"]).int(), expected)
        given = {} if beside is None else {"classes": classes}
        weights = weight_map(labels, preset="unet2019", **given)
        assert torch.equal(torch.as_tensor(result["weight"]), weights)
        assert result["label"] is data["label"]
    named = WeightMapd(["label", "classes"], ["w", "v"], separated_key=["a", "b"], gaps=True)(data)
    assert torch.equal(torch.as_tensor(named["a"]).int(), separate_touching(labels))
    assert torch.equal(torch.as_tensor(named["b"]).int(), separate_touching(classes))
    with pytest.raises(ValueError, match="separated_key must hold a name for each"):
        WeightMapd(["label", "classes"], ["w", "v"], gaps=True)
    assert "separated" not in WeightMapd("label")(data)


VOLUME = torch.zeros(2, 7, 9, 8, dtype=torch.int32)
VOLUME[:, 1:4, 2:5, 2:4], VOLUME[:, 1:4, 5:8, 2:4], VOLUME[1, 6] = 1, 2, 7


@pytest.mark.parametrize("preset", ["unet2019", "unet2015"])
def test_volumes(preset):
    spacing = (2.0, 0.5, 1.0)
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    labels = MetaTensor(VOLUME, affine=affine)
    expected = weight_map(VOLUME, preset=preset, spacing=spacing, spatial_dims=3)
    for given in (spacing, "affine"):
        result = WeightMapd("label", preset=preset, spacing=given, spatial_dims=3)({"label": labels})
        assert torch.equal(result["weight"].as_tensor(), expected)
        assert torch.equal(result["weight"].affine, labels.affine)
        if preset == "unet2019":
            assert torch.equal(result["separated"].as_tensor(), separate_touching(VOLUME, spatial_dims=3))
    plain = WeightMap(preset=preset, spatial_dims=3)(VOLUME.numpy())
    assert np.array_equal(plain, weight_map(VOLUME, preset=preset, spatial_dims=3).numpy())
    with pytest.raises(ValueError, match="spacing='affine' needs labels with an affine, a MetaTensor"):
        WeightMap(spacing="affine", spatial_dims=3)(VOLUME)
    with pytest.raises(ValueError, match=r"labels must have the shape \[C, H, W, D\]"):
        WeightMap(spatial_dims=3)(VOLUME[0])


def test_spacing_of_images():
    labels = MetaTensor(VOLUME[:, 2], affine=torch.diag(torch.tensor([1.0, 3.0, 1.0, 1.0])))
    weights = WeightMap(distance="euclidean", falloff="nearest", spacing="affine")(labels)
    expected = weight_map(VOLUME[:, 2], distance="euclidean", falloff="nearest", spacing=(1.0, 3.0))
    assert torch.equal(weights.as_tensor(), expected)


def test_page():
    sample = run_page_of("monai")["sample"]
    assert torch.equal(sample["weight"], weight_map(sample["label"]))


def test_example_of_volumes(examples):
    """Cached up to what is random, weighed behind it with the spacing of the metadata, and trained with."""
    import monai_volumes

    result = monai_volumes.main(["--quick"])
    assert 0 <= result["Dice"] <= 1 and result["cells"] > 20
    volume = monai_volumes.make_volume(np.random.default_rng(0))
    assert volume["label"].pixdim.tolist() == [0.5, 0.5, 1.5]
    separated = separate_touching(volume["label"].as_tensor(), spatial_dims=3)
    assert ((separated == 0) & (volume["label"].as_tensor() > 0)).sum() > 100
