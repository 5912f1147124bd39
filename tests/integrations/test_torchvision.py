from typing import NamedTuple

import PIL.Image
import pytest
import torch
from pages import run_page_of
from torchvision import tv_tensors
from torchvision.transforms import v2

from fastlogconv import separate_touching, weight_map
from fastlogconv.integrations.torchvision import WeightMap

SETTINGS = dict(border="farthest", bws=5, fds=4, bwf=3, fbr=0.2, lmbda=1.5, ks=21, backend="reference")
DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64]


@pytest.fixture
def image(labels):
    return tv_tensors.Image(torch.rand(3, *labels.shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_mask(dtype, labels):
    for shape in (labels, labels[None], torch.stack([labels, labels.flip(0)])[:, None]):
        shape = shape.to(dtype)
        result = WeightMap(**SETTINGS)(tv_tensors.Mask(shape))
        assert type(result) is torch.Tensor
        expected = weight_map(shape.reshape(-1, *labels.shape), **SETTINGS)
        assert result.dtype == expected.dtype
        assert torch.equal(result, expected.reshape(shape.shape))


@pytest.mark.parametrize("shape", [(0, 5, 7), (0, 0), (2, 3, 0, 4)])
def test_empty_masks(shape):
    result = WeightMap()(tv_tensors.Mask(torch.zeros(shape, dtype=torch.uint8)))
    assert result.shape == shape and result.dtype == torch.float32


def test_everything_else_passes_through(labels, weights, image):
    boxes = tv_tensors.BoundingBoxes([[0, 0, 3, 3]], format="XYXY", canvas_size=labels.shape)
    others = (image, PIL.Image.new("RGB", (4, 5)), boxes, torch.rand(3, 4, 5), "name", 3, None)
    result = WeightMap()(*others, tv_tensors.Mask(labels))
    assert isinstance(result, tuple) and len(result) == len(others) + 1
    assert all(given is returned for given, returned in zip(others, result, strict=False))
    assert torch.equal(result[-1], weights)


def test_dict(labels, weights, image):
    target = {"mask": tv_tensors.Mask(labels), "image_id": 7}
    returned, result = WeightMap(weight_key="w")(image, target)
    assert returned is image
    assert list(target) == ["mask", "image_id"]
    assert result["mask"] is target["mask"] and result["image_id"] == 7
    assert type(result["w"]) is torch.Tensor
    assert torch.equal(result["w"], weights)


def test_nested(labels, weights):
    class Sample(NamedTuple):
        mask: torch.Tensor
        name: str

    mask = tv_tensors.Mask(labels)
    result = WeightMap()([Sample(mask, "a"), {"views": [mask, {"mask": mask}]}])
    assert type(result[0]) is Sample and result[0].name == "a"
    assert torch.equal(result[0].mask, weights)
    assert torch.equal(result[1]["views"][0], weights)
    assert torch.equal(result[1]["views"][1]["weight"], weights)


def test_in_a_pipeline(labels):
    pipeline = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(90),
            v2.RandomCrop(20),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            WeightMap(),
        ]
    )
    torch.manual_seed(0)
    samples = [(tv_tensors.Image(torch.rand(3, *labels.shape)), {"mask": tv_tensors.Mask(labels)})] * 4
    dataset = [pipeline(*sample) for sample in samples]
    for image, target in torch.utils.data.DataLoader(dataset, batch_size=2):
        assert image.shape == (2, 3, 20, 20)
        assert torch.equal(target["weight"], weight_map(target["mask"]))


def test_errors(labels):
    with pytest.raises(ValueError, match="a sample must hold one mask"):
        WeightMap()({"a": tv_tensors.Mask(labels), "b": tv_tensors.Mask(labels)})
    with pytest.raises(ValueError, match="lmbda must be"):
        WeightMap(lmbda=0)
    with pytest.raises(TypeError, match="sigma"):
        WeightMap(sigma=3)


@pytest.mark.parametrize("batched", [False, True])
def test_classes_and_ignore(batched, labels, beside, image):
    masks = [tv_tensors.Mask(mask[None, None] if batched else mask) for mask in (labels, *beside)]
    target = dict(zip(("mask", "c", "i"), masks, strict=True))
    pipeline = v2.Compose([v2.RandomHorizontalFlip(1), WeightMap(classes_key="c", ignore_key="i")])
    _, result = pipeline(image, target)
    flipped, classes, ignore = (tensor.flip(1) for tensor in (labels, *beside))
    expected = weight_map(flipped, classes=classes, ignore=ignore)
    assert torch.equal(result["weight"], expected.reshape(masks[0].shape))
    assert type(result["c"]) is type(result["i"]) is tv_tensors.Mask
    with pytest.raises(KeyError, match="absent"):
        WeightMap(classes_key="absent")({"mask": masks[0]})
    with pytest.raises(ValueError, match=r"'c' must be a tv_tensors.Mask, got Tensor"):
        WeightMap(classes_key="c")({"mask": masks[0], "c": beside[0]})
    with pytest.raises(ValueError, match="need a mask in a dict"):
        WeightMap(ignore_key="i")(masks[0])


def test_several_labels_to_ignore(labels):
    marked = tv_tensors.Mask(labels.masked_fill(labels == 0, 255))
    assert torch.equal(WeightMap(ignore_index=[255, 1])(marked), (labels == 2).float())


def test_a_sample_without_a_mask_is_no_success(labels, image):
    transform = WeightMap()
    for sample in (
        (image, {"mask": labels}),
        {"image": image, "masks": PIL.Image.new("I", (4, 5))},
        (image, labels),
        image,
        [{"a": []}],
    ):
        with pytest.raises(ValueError, match=r"no tv_tensors.Mask in the sample.*tv_tensors.Mask\(labels\)"):
            transform(sample)
    with pytest.raises(ValueError, match=r"it holds \(Image, \{'mask': Tensor\}\)$"):
        transform(image, {"mask": labels})


def test_channel_last_is_told(labels):
    with pytest.raises(ValueError, match="whose images are one column wide"):
        WeightMap()(tv_tensors.Mask(labels[..., None]))


def test_gaps(image):
    labels = torch.zeros(2, *image.shape[-2:], dtype=torch.int32)
    labels[:, 3:9, 3:7], labels[:, 3:9, 7:12] = 1, 2
    classes = (labels > 1).int() + 1
    sample = {"mask": tv_tensors.Mask(labels), "classes": tv_tensors.Mask(classes)}
    for key in (None, "classes"):
        beside = None if key is None else classes
        result = WeightMap(classes_key=key, preset="unet2019")(sample if key else {"mask": sample["mask"]})
        assert isinstance(result["separated"], tv_tensors.Mask)
        assert torch.equal(result["separated"], separate_touching(labels, beside))
        assert torch.equal(result["weight"], weight_map(labels, classes=beside, preset="unet2019"))
    result = WeightMap(separated_key="target", gaps=True)({"mask": sample["mask"]})
    assert set(result) == {"mask", "weight", "target"}


def test_page():
    target = run_page_of("torchvision")["target"]
    assert target["weight"].shape == (224, 224)
    assert torch.equal(target["weight"], weight_map(target["mask"]))
