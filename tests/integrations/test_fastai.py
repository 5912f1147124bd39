import pytest
import torch
from fastai.callback.progress import ProgressCallback
from fastai.data.block import DataBlock, TransformBlock
from fastai.data.core import Datasets
from fastai.learner import Learner
from fastai.torch_core import TensorBase, TensorImage, TensorMask
from fastai.vision.augment import aug_transforms
from pages import run_page_of

from fastlogconv import WeightTransform, weight_map
from fastlogconv.integrations.fastai import TensorInstances, WeightMap


def loaders(labels, transforms, instances=TensorInstances):
    """Batches of an image, a mask and instance labels."""
    getters = (
        lambda i: TensorImage(torch.rand(3, *labels.shape)),
        lambda i: TensorMask((labels > 0).long()),
        lambda i: instances(labels.long()),
    )
    block = DataBlock(blocks=[TransformBlock] * 3, getters=getters, n_inp=1, batch_tfms=transforms)
    return block.dataloaders(range(8), bs=2, num_workers=0, device="cpu")


def as_given(tensor):
    return tensor


@pytest.mark.parametrize("instances", [TensorInstances, as_given])
def test_batch(instances, labels, weights):
    image, mask, weight = loaders(labels, [WeightMap()], instances).one_batch()
    assert type(image) is TensorImage and type(mask) is TensorMask
    assert torch.equal(mask.as_subclass(torch.Tensor), (labels > 0).long().expand(2, -1, -1))
    assert not isinstance(weight, TensorMask)
    assert torch.equal(weight.as_subclass(torch.Tensor), weights.expand(2, -1, -1))


def test_weights_of_augmented_labels(labels):
    """Labels are flipped, rotated and warped with the mask; the weights are those of the result."""
    seen = []

    class See(WeightMap):
        def encodes(self, labels: TensorInstances) -> TensorBase:
            seen.append(labels.clone())
            return TensorBase(self.weights(labels.as_subclass(torch.Tensor)))

    torch.manual_seed(0)
    _, mask, weight = loaders(labels, [*aug_transforms(flip_vert=True, max_rotate=45), See()]).one_batch()
    (augmented,) = (tensor.as_subclass(torch.Tensor) for tensor in seen[-1:])
    assert not torch.equal(augmented, labels.long().expand(2, -1, -1))
    assert torch.equal(augmented > 0, mask.as_subclass(torch.Tensor) > 0)
    assert torch.equal(weight.as_subclass(torch.Tensor), weight_map(augmented))


def test_deepflash2s_transform_as_it_was_used(labels):
    image, mask, weight = loaders(labels, [WeightTransform()], as_given).one_batch()
    assert type(image) is TensorImage and type(mask) is TensorMask
    assert torch.equal(weight.as_subclass(torch.Tensor), WeightTransform()(labels[None].expand(2, -1, -1)))


def test_in_a_learner(labels):
    def loss(logits, mask, weight):
        mask, weight = mask.as_subclass(torch.Tensor), weight.as_subclass(torch.Tensor)
        logits = logits.as_subclass(torch.Tensor)[:, 0]
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, mask.float(), weight)

    learner = Learner(loaders(labels, [WeightMap()]), torch.nn.Conv2d(3, 1, 3, padding=1), loss_func=loss)
    with learner.removed_cbs(ProgressCallback), learner.no_logging():
        learner.fit(1, lr=0.1)
    assert learner.recorder.losses and all(torch.tensor(learner.recorder.losses).isfinite())


def test_datasets(labels, weights):
    items = [[lambda i: TensorImage(torch.rand(3, *labels.shape))], [lambda i: TensorInstances(labels)]]
    loader = Datasets(range(4), items, n_inp=1).dataloaders(bs=2, after_batch=[WeightMap()], device="cpu")
    assert torch.equal(loader.one_batch()[1].as_subclass(torch.Tensor), weights.expand(2, -1, -1))


def test_page():
    names = run_page_of("fastai")
    mask, weight = (names[name].as_subclass(torch.Tensor) for name in ("mask", "weight"))
    assert names["image"].shape == (2, 3, 224, 224)
    assert mask.shape == weight.shape == (2, 224, 224)
    assert (weight[mask > 0] == 1).all()
