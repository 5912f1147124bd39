import pytest
import torch
from cases import tensor_type
from fasttransform import Pipeline, Transform

from fastlogconv import WeightTransform, weight_map
from fastlogconv.integrations.fasttransform import WeightMap

SETTINGS = dict(border="farthest", bws=5, fds=4, bwf=3, fbr=0.2, lmbda=1.5, ks=21, backend="reference")


def image_and_mask(labels):
    """What fastai passes on beside the labels."""
    base = tensor_type("TensorBase", "fastai.torch_core")
    image = torch.rand(2, 3, *labels.shape).as_subclass(tensor_type("TensorImage", "fastai.torch_core", base))
    mask = (labels > 0).long().as_subclass(tensor_type("TensorMask", "fastai.torch_core", base))
    return image, mask


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32, torch.float64], ids=str)
def test_batch(dtype, labels):
    batch = torch.stack([labels, labels.flip(0)]).to(dtype)
    image, mask = image_and_mask(labels)
    result = Pipeline([WeightMap(**SETTINGS)])((image, mask, batch))
    assert result[0] is image and result[1] is mask
    assert torch.equal(result[2], weight_map(batch, **SETTINGS))
    assert result[2].dtype == weight_map(batch).dtype


def test_defaults_and_order(labels):
    class Flip(Transform):
        order = 99

        def encodes(self, x: torch.Tensor):
            return x.flip(0)

    assert torch.equal(Pipeline([WeightMap(), Flip()])(labels), weight_map(labels.flip(0)))


def test_deepflash2s_transform_as_it_was_used(labels):
    """In a list of transforms, beside images and masks."""
    image, mask = image_and_mask(labels)
    result = Pipeline([WeightTransform()])((image, mask, labels[None]))
    assert result[0] is image and result[1] is mask
    assert torch.equal(result[2], WeightTransform()(labels[None]))


def test_several_labels_to_ignore(labels):
    marked = labels.masked_fill(labels == 0, 255)
    result = Pipeline([WeightMap(ignore_index=[255, 1])])(marked[None])
    assert torch.equal(result[0], (labels == 2).float())


def test_channel_last_is_told(labels):
    with pytest.raises(ValueError, match="whose images are one column wide"):
        WeightMap()(labels[..., None])


def test_errors():
    with pytest.raises(ValueError, match="bwf must be"):
        WeightMap(bwf=-1)
    with pytest.raises(TypeError, match="sigma"):
        WeightMap(sigma=3)
