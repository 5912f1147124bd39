import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import DEVICES, on_device

from fastlogconv import WeightedCrossEntropyLoss, weight_map, weighted_cross_entropy
from fastlogconv.losses import NORMALIZATIONS


@pytest.fixture(params=[on_device(name, name) for name in DEVICES])
def device(request):
    """A loss has no backend."""
    return request.param


# Four pixels of two classes: the cross entropy of each is the logarithm of a whole number.
LOGITS = torch.tensor([[0, math.log(3), 0, math.log(7)], [0, 0, math.log(4), 0]]).reshape(1, 2, 2, 2)
TARGET = torch.tensor([[[0, 1], [0, 0]]])
LOGS = [math.log(2), math.log(4), math.log(5), math.log(8 / 7)]


def drawn(device="cpu", dtype=torch.float32):
    """logits [3, 4, 6, 7], target, weights, a mask of pixels that count."""
    generator = torch.Generator().manual_seed(19)
    logits = torch.randn(3, 4, 6, 7, generator=generator, dtype=torch.float64).to(device, dtype)
    target = torch.randint(0, 4, (3, 6, 7), generator=generator).to(device)
    weights = (torch.rand(3, 6, 7, generator=generator, dtype=torch.float64) * 9 + 0.1).to(device, dtype)
    return logits, target, weights, (torch.rand(3, 6, 7, generator=generator) < 0.6).to(device)


@pytest.mark.parametrize(
    "weights, normalize, expected",
    [
        ([1, 1, 1, 1], "mean", sum(LOGS) / 4),
        ([1, 1, 1, 1], "weight", sum(LOGS) / 4),
        ([2, 0.5, 0, 1], "mean", (2 * LOGS[0] + 0.5 * LOGS[1] + LOGS[3]) / 3),
        ([2, 0.5, 0, 1], "weight", (2 * LOGS[0] + 0.5 * LOGS[1] + LOGS[3]) / 3.5),
        ([0, 0, 10, 0], "mean", 10 * LOGS[2]),
        ([0, 0, 10, 0], "weight", LOGS[2]),
        ([0, 0, 0, 0], "mean", 0),
        ([0, 0, 0, 0], "weight", 0),
    ],
)
def test_by_hand(weights, normalize, expected, device):
    weights = torch.tensor(weights, dtype=torch.float32).reshape(1, 2, 2).to(device)
    inputs = LOGITS.to(device), TARGET.to(device), weights
    for loss in (weighted_cross_entropy(*inputs, normalize), WeightedCrossEntropyLoss(normalize)(*inputs)):
        assert loss.shape == () and loss.dtype == torch.float32
        assert abs(loss.item() - expected) <= 1e-6


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_weights_of_one_are_no_weights(dtype, normalize, device):
    logits, target, weights, counts = drawn(device, dtype)
    target = target.masked_fill(~counts, -100)
    loss = weighted_cross_entropy(logits, target, torch.ones_like(weights), normalize)
    torch.testing.assert_close(loss, F.cross_entropy(logits, target))


def test_means(device):
    logits, target, weights, counts = drawn(device, torch.float64)
    each = F.cross_entropy(logits, target, reduction="none")
    loss = weighted_cross_entropy(logits, target, weights * counts)
    torch.testing.assert_close(loss, (weights * each)[counts].mean())
    loss = weighted_cross_entropy(logits, target, weights * counts, "weight")
    torch.testing.assert_close(loss, (weights * each)[counts].sum() / weights[counts].sum())


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_what_does_not_count_does_not_matter(normalize, device):
    """By weight or by target, whatever the logits, the target and the weight are there."""
    logits, target, weights, counts = drawn(device)
    expected = weighted_cross_entropy(logits, target, weights * counts, normalize)
    other = torch.where(counts[:, None], logits, 50 * logits.roll(1, dims=1))
    for wrong in (-100, 255, -1):
        there = target.masked_fill(~counts, wrong)
        assert torch.equal(weighted_cross_entropy(other, there, weights * counts, normalize), expected)
        loss = weighted_cross_entropy(other, there, weights, normalize, ignore_index=wrong)
        assert torch.equal(loss, expected)
        loss = WeightedCrossEntropyLoss(normalize, ignore_index=wrong)(other, there, weights)
        assert torch.equal(loss, expected)
    other[:, 0] = torch.where(
        counts, other[:, 0], torch.tensor([math.nan, math.inf] * 3 + [-1e38], device=device)
    )
    assert torch.equal(weighted_cross_entropy(other, target, weights * counts, normalize), expected)
    leaf = other.clone().requires_grad_()
    weighted_cross_entropy(leaf, target, weights * counts, normalize).backward()
    assert (leaf.grad.movedim(1, -1)[~counts] == 0).all() and (leaf.grad.movedim(1, -1)[counts] != 0).any()


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_nothing_counts(normalize, device):
    logits, target, weights, _ = drawn(device)
    for t, w in ((target, torch.zeros_like(weights)), (torch.full_like(target, -100), weights)):
        leaf = logits.clone().requires_grad_()
        loss = weighted_cross_entropy(leaf, t, w, normalize)
        loss.backward()
        assert loss == 0 and (leaf.grad == 0).all()
    empty = weighted_cross_entropy(logits[:0], target[:0], weights[:0], normalize)
    assert empty == 0


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_gradients(normalize, device):
    logits, target, weights, _ = drawn(device, torch.float64)
    logits, target, weights = logits[:2, :3, :3, :4], target[:2, :3, :4].clamp(max=2), weights[:2, :3, :4]
    target[0, 0, 1] = -100
    inputs = logits.clone().requires_grad_(), weights.clone().requires_grad_()
    torch.autograd.gradcheck(lambda x, w: weighted_cross_entropy(x, target, w, normalize), inputs)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_are_summed_in_float32(dtype, normalize, device):
    """1e6 pixels times a weight of 50: 65504 and eight bits are not enough for the sum, nor for the count."""
    logits = torch.zeros(1, 2, 1000, 1000, dtype=dtype, device=device)
    target = torch.zeros(1, 1000, 1000, dtype=torch.uint8, device=device)
    weights = torch.full((1, 1000, 1000), 50, dtype=dtype, device=device)
    loss = weighted_cross_entropy(logits, target, weights, normalize)
    assert loss.dtype == torch.float32
    assert abs(loss.item() / math.log(2) - (50 if normalize == "mean" else 1)) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast(dtype, device):
    logits, target, weights, _ = drawn(device)
    layer = torch.nn.Conv2d(4, 4, 1, device=device)
    with torch.autocast(device, dtype=dtype):
        scores = layer(logits)
        loss = weighted_cross_entropy(scores, target, weights)
    assert scores.dtype == dtype and loss.dtype == torch.float32
    torch.testing.assert_close(loss, weighted_cross_entropy(scores.float(), target, weights))
    loss.backward()
    assert layer.weight.grad.isfinite().all()


def test_with_the_weights(device):
    labels = torch.zeros(2, 16, 16, dtype=torch.int32, device=device)
    labels[:, 3:6, 2:7], labels[:, 9:14, 8:15], labels[:, :2] = 1, 2, 255
    weights = weight_map(labels, ignore_index=255)
    logits = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(20)).to(device)
    loss = weighted_cross_entropy(logits, (labels > 0).long(), weights)
    expected = weighted_cross_entropy(logits[:, :, 2:], (labels[:, 2:] > 0).long(), weights[:, 2:])
    torch.testing.assert_close(loss, expected)


def test_compile(device):
    logits, target, weights, counts = drawn(device)
    module = WeightedCrossEntropyLoss("weight", ignore_index=3)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    inputs = logits, target, weights * counts
    torch.testing.assert_close(compiled(*inputs), module(*inputs))


def test_vmap(device):
    logits, target, weights, _ = (tensor[:, None] for tensor in drawn(device))
    losses = torch.func.vmap(weighted_cross_entropy)(logits, target, weights)
    expected = [weighted_cross_entropy(*each) for each in zip(logits, target, weights, strict=True)]
    torch.testing.assert_close(losses, torch.stack(expected))


def test_negative_weights():
    logits, target, weights, _ = drawn()
    weights[1, 2, 3] = -0.25
    for normalize in NORMALIZATIONS:
        with pytest.raises(ValueError, match=r"^weights must be >= 0, got -0\.25$"):
            weighted_cross_entropy(logits, target, weights.requires_grad_(), normalize)


def test_weights_that_are_no_numbers():
    """They show, as NaN among the logits does."""
    logits, target, weights = torch.randn(1, 2, 3, 4), torch.zeros(1, 3, 4).long(), torch.ones(1, 3, 4)
    weights[0, 1, 2] = torch.nan
    for normalize in ("mean", "weight"):
        assert weighted_cross_entropy(logits, target, weights, normalize).isnan()
    each = weighted_cross_entropy(logits, target, weights, reduction="none")
    assert torch.equal(each.isnan(), weights.isnan())


def test_targets_that_are_no_class():
    with pytest.raises(IndexError):
        weighted_cross_entropy(torch.zeros(1, 2, 3, 4), torch.full((1, 3, 4), 2), torch.ones(1, 3, 4))


def test_integers_of_numpy():
    assert type(WeightedCrossEntropyLoss(ignore_index=np.int64(255)).ignore_index) is int


def test_module():
    module = WeightedCrossEntropyLoss("weight", ignore_index=255)
    assert repr(module) == (
        "WeightedCrossEntropyLoss(normalize='weight', reduction='mean', label_smoothing=0.0, "
        "ignore_index=255)"
    )
    assert not module.state_dict() and repr(copy.deepcopy(module)) == repr(module)


@pytest.mark.parametrize(
    "changed, error, message",
    [
        (dict(logits=[1.0]), TypeError, r"logits must be a torch.Tensor \[B, C, ...\], got list"),
        (
            dict(logits=torch.zeros(1, 2, 3, 4).int()),
            TypeError,
            "logits must be floating point, got torch.int32",
        ),
        (dict(logits=torch.zeros(2)), ValueError, r"logits must have the shape \[B, C, ...\], got \(2,\)"),
        (
            dict(target=torch.zeros(1, 3, 4)),
            TypeError,
            r"target must hold integers .*, got torch.float32 .*target.long",
        ),
        (
            dict(target=torch.zeros(1, 4, 3).long()),
            ValueError,
            r"target must have the shape \(1, 3, 4\) or \(1, 1, 3, 4\) that go with logits \(1, 2, 3, 4\)",
        ),
        (
            dict(target=torch.zeros(1, 2, 3, 4).long()),
            ValueError,
            r"target must have the shape .* got \(1, 2, 3, 4\): masks of classes are a soft target, pass",
        ),
        (
            dict(target=torch.zeros(1, 2, 3, 4), ignore_index=1),
            ValueError,
            "ignore_index=1 means nothing for a soft target, torch.float32",
        ),
        (
            dict(weights=torch.zeros(1, 3, 4).long()),
            TypeError,
            "weights must be floating point, got torch.int64",
        ),
        (
            dict(weights=torch.zeros(1, 2, 3, 4)),
            ValueError,
            r"weights must have the shape \(1, 3, 4\) or \(1, 1, 3, 4\) that go with .*, got \(1, 2, 3, 4\)",
        ),
        (
            dict(weights=torch.zeros(2, 3, 4)),
            ValueError,
            r"weights must have the shape \(1, 3, 4\) or \(1, 1, 3, 4\) that go with",
        ),
        (
            dict(weights=torch.zeros(1, 3, 4, device="meta")),
            ValueError,
            "target and weights must be on the device of logits, cpu, got cpu and meta",
        ),
        (dict(reduction="max"), ValueError, "reduction must be one of 'mean', 'sum', 'none', got 'max'"),
        (dict(label_smoothing=1.5), ValueError, "label_smoothing must be from 0 to 1, got 1.5"),
        (dict(label_smoothing="a"), TypeError, "label_smoothing must be a number, got 'a'"),
        (dict(class_weight=torch.tensor([1, -0.5])), ValueError, "class_weight must be >= 0, got -0.5"),
        *[
            (
                dict(logits=torch.zeros(1, c, 3, 4)),
                ValueError,
                f"logits must have a channel for each of at least 2 classes, got C = {c}: .*binary_cross",
            )
            for c in (0, 1)
        ],
        (
            dict(weights=torch.nested.nested_tensor([torch.ones(3, 4)])),
            TypeError,
            "weights must be a tensor of one shape, got a nested tensor",
        ),
        (dict(normalize="sum"), ValueError, "normalize must be one of 'mean', 'weight', got 'sum'"),
        (dict(ignore_index=None), TypeError, "ignore_index must be an integer, got None"),
        (dict(ignore_index=True), TypeError, "ignore_index must be an integer, got True"),
        (dict(ignore_index=2**63), ValueError, "ignore_index must be from"),
    ],
)
def test_arguments(changed, error, message):
    arguments = dict(
        logits=torch.zeros(1, 2, 3, 4), target=torch.zeros(1, 3, 4).long(), weights=torch.zeros(1, 3, 4)
    )
    with pytest.raises(error, match=f"^{message}"):
        weighted_cross_entropy(**{**arguments, **changed})
    if changed.keys() <= {"normalize", "reduction", "class_weight", "label_smoothing", "ignore_index"}:
        with pytest.raises(error, match=f"^{message}"):
            WeightedCrossEntropyLoss(**changed)


@pytest.mark.parametrize(
    "class_weight, error, message",
    [
        (
            [1.0, 2.0],
            TypeError,
            r"class_weight must be a floating point torch.Tensor \[C\] or None, got list",
        ),
        (torch.ones(2).long(), TypeError, "class_weight must be .* got torch.int64"),
        (torch.ones(3), ValueError, r"class_weight must have the shape \(2,\), .* got \(3,\) on cpu"),
        (torch.ones(2, device="meta"), ValueError, r"class_weight must .* be on cpu, got \(2,\) on meta"),
    ],
)
def test_class_weights_that_do_not_fit(class_weight, error, message):
    with pytest.raises(error, match=f"^{message}"):
        weighted_cross_entropy(LOGITS, TARGET, torch.ones(1, 2, 2), class_weight=class_weight)


@pytest.mark.parametrize("value", ["ab", [[1.0], [2.0, 3.0]], [None]])
def test_class_weights_of_a_module_that_are_no_numbers(value):
    with pytest.raises(TypeError, match="class_weight must be numbers, one for each class, got"):
        WeightedCrossEntropyLoss(class_weight=value)
