import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from pages import run_page_of

from fastlogconv import separate_touching, weight_map
from fastlogconv.integrations.batchgeneratorsv2 import WeightMap

SETTINGS = dict(border="farthest", bws=5, fds=4, bwf=3, fbr=0.2, lmbda=1.5, ks=21, backend="reference")


def test_adds_the_weights(labels):
    image, segmentation = torch.rand(2, *labels.shape), torch.stack([labels > 0, labels]).to(torch.int16)
    result = WeightMap(channel=1, **SETTINGS)(image=image, segmentation=segmentation)
    assert sorted(result) == ["image", "segmentation", "weight"]
    assert result["image"] is image and result["segmentation"] is segmentation
    assert torch.equal(result["weight"], weight_map(labels, **SETTINGS)[None])


def test_array(labels):
    result = WeightMap()(segmentation=labels.numpy()[None, ::-1])
    assert type(result["weight"]) is np.ndarray and result["weight"].dtype == np.float32
    assert np.array_equal(result["weight"][0], weight_map(labels.flip(0)))


@pytest.mark.parametrize("as_given", [torch.Tensor.numpy, lambda tensor: tensor], ids=["array", "tensor"])
def test_appended_to_the_segmentation(as_given, labels, weights):
    result = WeightMap(weight_key=None)(segmentation=as_given(labels[None].to(torch.int16)))
    assert list(result) == ["segmentation"]
    segmentation = torch.as_tensor(result["segmentation"])
    assert segmentation.dtype == torch.float32
    assert torch.equal(segmentation, torch.stack([labels.float(), weights]))


def test_beyond_the_image_is_background(labels, weights):
    padded = labels.clone()
    padded[0] = -1
    assert (labels[0] == 0).all()
    assert torch.equal(WeightMap()(segmentation=padded[None])["weight"][0], weights)


def test_in_the_pipeline_of_nnunet(labels):
    """Augmented, weighed, then halved for deep supervision, weights with labels."""
    pipeline = ComposeTransforms(
        [MirrorTransform((0, 1)), WeightMap(weight_key=None), DownsampleSegForDSTransform((1, 0.5))]
    )
    torch.manual_seed(0)
    for _ in range(4):
        sample = pipeline(image=torch.rand(1, *labels.shape), segmentation=labels[None].to(torch.int16))
        full, half = sample["segmentation"]
        assert torch.equal(full[1], weight_map(full[0]))
        assert half.shape == (2, labels.shape[0] // 2, labels.shape[1] // 2)
        positions = torch.stack(torch.meshgrid(*map(torch.arange, labels.shape), indexing="ij")).short()
        rows, columns = DownsampleSegForDSTransform([0.5])(segmentation=positions)["segmentation"][0].long()
        assert torch.equal(half, full[:, rows, columns])


def test_errors(labels):
    for wrong in (labels, labels[None, None]):
        with pytest.raises(ValueError, match=r"segmentation must have the shape \[C, H, W\]"):
            WeightMap()(segmentation=wrong)
    with pytest.raises(ValueError, match="ks must be"):
        WeightMap(ks=0)
    with pytest.raises(TypeError, match="sigma"):
        WeightMap(sigma=3)


@pytest.mark.parametrize("as_given", [torch.Tensor.numpy, lambda tensor: tensor], ids=["array", "tensor"])
def test_classes_and_ignore(as_given, labels, beside):
    segmentation = torch.stack([beside[0], labels, beside[1].int()]).to(torch.int16)
    result = WeightMap(1, classes_channel=0, ignore_channel=2)(segmentation=as_given(segmentation))
    expected = weight_map(labels, classes=beside[0], ignore=beside[1])
    assert torch.equal(torch.as_tensor(result["weight"][0]), expected)


def test_several_labels_to_ignore(labels):
    marked = labels.masked_fill(labels == 0, -1)
    assert torch.equal(
        WeightMap(ignore_index=[-1, 1])(segmentation=marked[None])["weight"][0], (labels == 2).float()
    )


@pytest.mark.parametrize("weight_key", ["weight", None])
def test_behind_deep_supervision(weight_key, labels):
    """Where the segmentation is a list, so are the weights."""
    pipeline = ComposeTransforms(
        [DownsampleSegForDSTransform((1, 0.5, 0.25)), WeightMap(weight_key=weight_key)]
    )
    sample = pipeline(image=torch.rand(1, *labels.shape), segmentation=labels[None].to(torch.int16))
    scales = sample["segmentation"]
    assert [tuple(scale.shape[1:]) for scale in scales] == [(24, 30), (12, 15), (6, 8)]
    weights = sample["weight"] if weight_key else [scale[1:] for scale in scales]
    assert len(weights) == 3
    for scale, weight in zip(scales, weights, strict=True):
        assert torch.equal(weight[0], weight_map(scale[0].int()))


def test_channel_last_is_told(labels):
    with pytest.raises(ValueError, match=r"whose images are one column wide: .*segmentation\[..., 0\]"):
        WeightMap()(segmentation=labels[..., None])


@pytest.mark.parametrize("weight_key", ["weight", None])
@pytest.mark.parametrize("as_given", [torch.Tensor, np.ndarray])
def test_gaps(as_given, weight_key):
    labels = torch.zeros(1, 14, 16, dtype=torch.int16)
    labels[0, 3:9, 3:7], labels[0, 3:9, 7:12] = 1, 2
    segmentation = torch.cat([labels, (labels > 1).to(torch.int16) + 1])
    for channel in (None, 1):
        classes = None if channel is None else segmentation[channel][None]
        expected = separate_touching(labels, classes)
        weights = weight_map(labels, classes=classes, preset="unet2019")
        given = segmentation if as_given is torch.Tensor else segmentation.numpy()
        transform = WeightMap(0, weight_key, classes_channel=channel, preset="unet2019")
        for scales in (given, [given, given[:, ::2, ::2]]):
            result = transform(segmentation=scales)
            if weight_key is None:
                first = result["segmentation"] if scales is given else result["segmentation"][0]
                assert type(first) is as_given and first.shape == (4, 14, 16)
                found, weighed = torch.as_tensor(first[2:3]), torch.as_tensor(first[3:])
            else:
                found, weighed = result["separated"], result["weight"]
                if scales is not given:
                    assert len(found) == len(weighed) == 2
                    found, weighed = found[0], weighed[0]
                assert type(found) is as_given
                found, weighed = torch.as_tensor(found), torch.as_tensor(weighed)
            assert torch.equal(found.to(torch.int16), expected)
            assert torch.equal(weighed, weights)


@pytest.mark.parametrize("weight_key", ["weight", None])
def test_volumes(weight_key):
    labels = torch.zeros(1, 5, 9, 8, dtype=torch.int16)
    labels[0, 1:4, 2:5, 2:4], labels[0, 1:4, 5:8, 2:4] = 1, 2
    settings = dict(preset="unet2019", spacing=(3.0, 1.0, 1.0), spatial_dims=3)
    result = WeightMap(weight_key=weight_key, **settings)(segmentation=labels)
    expected = separate_touching(labels, spatial_dims=3), weight_map(labels, **settings)
    if weight_key is None:
        assert torch.equal(
            result["segmentation"], torch.cat([labels.float(), expected[0].float(), expected[1]])
        )
    else:
        assert torch.equal(result["separated"], expected[0]) and torch.equal(result["weight"], expected[1])
    with pytest.raises(ValueError, match=r"segmentation must have the shape \[C, D, H, W\]"):
        WeightMap(spatial_dims=3)(segmentation=labels[0])


def test_page():
    names = run_page_of("batchgeneratorsv2")
    assert torch.equal(names["weight"], weight_map(names["ids"]))
