import albumentations as A
import numpy as np
import pytest
import torch
from pages import run_page_of

from fastlogconv import separate_touching, weight_map
from fastlogconv.integrations.albumentations import WeightMap

SETTINGS = dict(border="farthest", bws=5, fds=4, bwf=3, fbr=0.2, lmbda=1.5, ks=21, backend="reference")


@pytest.fixture
def image(labels):
    return np.random.default_rng(0).integers(0, 255, (*labels.shape, 3), dtype=np.uint8)


def test_adds_the_weights(labels, weights, image):
    result = WeightMap()(image=image, mask=labels.numpy())
    assert sorted(result) == ["image", "mask", "weight"]
    assert result["image"] is image
    assert np.array_equal(result["mask"], labels)
    assert result["weight"].dtype == np.float32
    assert np.array_equal(result["weight"], weights)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float32", "float64", ">i4"])
def test_dtypes(dtype, labels, image):
    array = labels.numpy().astype(dtype)
    result = WeightMap(**SETTINGS)(image=image, mask=array)["weight"]
    native = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    assert np.array_equal(result, weight_map(native, **SETTINGS))


def test_masks_that_are_refused(labels, image):
    with pytest.raises(ValueError, match=r"mask must be labels \[H, W\] or \[H, W, 1\], got the shape"):
        WeightMap()(image=image, mask=np.stack([labels, labels], -1))
    with pytest.raises(KeyError, match=r"no 'mask' to weigh"):
        WeightMap()(image=image)


def test_in_a_pipeline(labels, image):
    pipeline = A.Compose([A.HorizontalFlip(p=1), A.Transpose(p=1), WeightMap()], strict=True)
    result = pipeline(image=image, mask=labels.numpy())
    assert np.array_equal(result["weight"], weight_map(labels.flip(1).T))
    assert np.array_equal(result["image"], image[:, ::-1].transpose(1, 0, 2))


def test_weights_follow_random_transforms(labels, image):
    pipeline = A.Compose(
        [A.RandomCrop(20, 24), A.Affine(rotate=(-90, 90), scale=(0.8, 1.2), p=1), WeightMap()], seed=3
    )
    for _ in range(5):
        result = pipeline(image=image, mask=labels.numpy().astype(np.float32))
        assert np.array_equal(result["weight"], weight_map(torch.from_numpy(result["mask"])))
        assert result["weight"].shape == result["image"].shape[:2]


def test_other_keys(labels, image):
    pipeline = A.Compose(
        [A.VerticalFlip(p=1), WeightMap("instances", weight_key="w")],
        additional_targets={"instances": "mask"},
    )
    classes = np.zeros_like(labels)
    result = pipeline(image=image, mask=classes, instances=labels.numpy())
    assert np.array_equal(result["w"], weight_map(labels.flip(0)))
    assert np.array_equal(result["mask"], classes)
    with pytest.raises(KeyError, match="instances"):
        pipeline(image=image, mask=classes)


def test_behind_to_tensor(labels, weights, image):
    pipeline = A.Compose([A.ToTensorV2(), WeightMap()])
    result = pipeline(image=image, mask=labels.numpy())
    assert type(result["weight"]) is torch.Tensor
    assert torch.equal(result["weight"], weights)


def test_mask_with_a_channel(labels, weights, image):
    result = WeightMap()(image=image, mask=labels.numpy()[..., None])
    assert np.array_equal(result["weight"], weights[..., None])


def test_probability(labels, image):
    assert "weight" not in WeightMap(p=0)(image=image, mask=labels.numpy())


def test_errors(labels, image):
    with pytest.raises(ValueError, match="fds must be"):
        WeightMap(fds=-1)
    with pytest.raises(TypeError, match="sigma"):
        WeightMap(sigma=3)
    with pytest.raises(ValueError, match="whole numbers"):
        WeightMap()(image=image, mask=labels.numpy() + 0.5)


def test_is_saved_with_its_settings(labels, image):
    pipeline = A.Compose([WeightMap(weight_key="w", **SETTINGS)])
    restored = A.from_dict(A.to_dict(pipeline))
    result = restored(image=image, mask=labels.numpy())["w"]
    assert np.array_equal(result, weight_map(labels, **SETTINGS))
    assert "bws=5" in repr(pipeline)


@pytest.mark.parametrize("channel", [False, True])
def test_classes_and_ignore(channel, labels, beside, image):
    arrays = [array.numpy().astype(np.int32) for array in (labels, *beside)]
    masks = dict(zip(("mask", "c", "i"), [a[..., None] if channel else a for a in arrays], strict=True))
    pipeline = A.Compose(
        [A.HorizontalFlip(p=1), WeightMap(classes_key="c", ignore_key="i")],
        additional_targets={"c": "mask", "i": "mask"},
    )
    result = pipeline(image=image, **masks)["weight"]
    flipped, classes, ignore = (tensor.flip(1) for tensor in (labels, *beside))
    expected = weight_map(flipped, classes=classes, ignore=ignore)
    assert np.array_equal(result, expected[..., None] if channel else expected)
    restored = A.from_dict(A.to_dict(pipeline))
    assert np.array_equal(restored(image=image, **masks)["weight"], result)
    with pytest.raises(KeyError, match=r"no 'x' to weigh: ignore_key must be one of"):
        WeightMap(ignore_key="x")(image=image, **masks)


def test_several_labels_to_ignore(labels, image):
    marked = np.where(labels == 0, 255, labels)
    result = WeightMap(ignore_index=[255, 1])(image=image, mask=marked)["weight"]
    assert np.array_equal(result, labels == 2)


def test_arrays_as_files_have_them(labels, weights, image):
    for array in (labels.numpy().astype("Q"), labels.numpy()[::-1].copy()[::-1]):
        assert np.array_equal(WeightMap()(image=image, mask=array)["weight"], weights)
    with pytest.raises(TypeError, match=r"labels must not be a masked array, .*: pass labels.filled\(0\)"):
        WeightMap()(image=image, mask=np.ma.masked_array(labels.numpy()))


@pytest.mark.parametrize("one_channel", [False, True])
def test_gaps(one_channel, image):
    labels = np.zeros(image.shape[:2], np.int32)
    labels[3:9, 3:7], labels[3:9, 7:12] = 1, 2
    classes = np.where(labels > 1, 2, 1).astype(np.int32)
    given = labels[..., None] if one_channel else labels
    for beside in ({}, {"classes_key": "classes"}):
        classes_tensor = torch.from_numpy(classes) if beside else None
        expected = separate_touching(torch.from_numpy(labels), classes_tensor).numpy()
        for key in ("separated", "target"):
            pipeline = WeightMap(separated_key=key, preset="unet2019", **beside)
            result = pipeline(image=image, mask=given, classes=classes)
            assert result[key].shape == given.shape and np.array_equal(result[key].squeeze(), expected)
            weights = weight_map(torch.from_numpy(labels), classes=classes_tensor, preset="unet2019")
            assert np.array_equal(result["weight"].squeeze(), weights.numpy())


def test_page():
    sample = run_page_of("albumentations")["sample"]
    assert sample["weight"].shape == (224, 224)
    assert np.array_equal(sample["weight"], weight_map(torch.from_numpy(sample["mask"])))
