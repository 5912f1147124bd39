import copy
import inspect
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import DEVICES

from fastlogconv import (
    WeightedDiceCELoss,
    WeightedDiceLoss,
    weight_map,
    weighted_cross_entropy,
    weighted_dice_loss,
)
from fastlogconv.loss_checks import ACTIVATIONS, REDUCTIONS

SPATIAL = [(), (7,), (4, 5), (3, 4, 5)]
CLASS_WEIGHT = torch.tensor([0.5, 2, 1], dtype=torch.float64)


@pytest.fixture(params=DEVICES)
def device(request):
    """A loss has no backend."""
    return request.param


def drawn(spatial=(4, 5), device="cpu", dtype=torch.float64, soft=False, channels=3):
    """logits [2, C, ...], target and weights; an eighth of the weights is 0."""
    generator = torch.Generator().manual_seed(len(spatial) + 11)
    logits = torch.randn(2, channels, *spatial, generator=generator, dtype=torch.float64).to(device, dtype)
    target = torch.randint(0, max(channels, 2), (2, *spatial), generator=generator).to(device)
    if soft:
        target = torch.rand(logits.shape, generator=generator, dtype=torch.float64).to(device, dtype)
    weights = torch.rand((2, *spatial), generator=generator, dtype=torch.float64) * 9
    weights *= torch.rand(weights.shape, generator=generator) > 0.125
    return logits, target, weights.to(device, dtype)


def by_loops(
    logits, target, weights, *, activation="softmax", include_background=True, squared_pred=False,
    smooth_nr=1e-5, smooth_dr=1e-5, batch=False, reduction="mean", class_weight=None, ignore_index=-100,
):  # fmt: skip
    """Pixel by pixel and class by class, in NumPy."""
    logits, target, weights = logits.cpu().numpy(), target.cpu().numpy(), weights.cpu().numpy()
    b, c, *spatial = logits.shape
    sums = np.zeros((b, c, 2))
    for place in np.ndindex(b, *spatial):
        image, at = place[0], place[1:]
        soft = target.ndim == logits.ndim
        if not soft and target[place] == ignore_index:
            continue
        scores = logits[(image, slice(None), *at)]
        if activation == "softmax":
            scores = np.exp(scores) / np.exp(scores).sum()
        elif activation == "sigmoid":
            scores = 1 / (1 + np.exp(-scores))
        for k, q in enumerate(scores):
            t = target[(image, k, *at)] if soft else float(target[place] == (k if c > 1 else 1))
            sums[image, k] += weights[place] * np.array([q * t, q**2 + t**2 if squared_pred else q + t])
    if not include_background and c > 1:
        sums = sums[:, 1:]
    if batch:
        sums = sums.sum(0)
    loss = 1 - (2 * sums[..., 0] + smooth_nr) / (sums[..., 1] + smooth_dr)
    loss = np.where(sums[..., 1] == 0, 0, loss)
    if class_weight is not None:
        loss = loss * class_weight.cpu().numpy()[c - loss.shape[-1] :]
    return {"none": loss, "sum": loss.sum(), "mean": loss.mean()}[reduction]


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])
@pytest.mark.parametrize("spatial", SPATIAL, ids=str)
def test_against_loops(spatial, soft, device):
    inputs = drawn(spatial, device, soft=soft)
    for activation, background, squared, batch, reduction, weight in itertools.product(
        ACTIVATIONS, *[(True, False)] * 3, REDUCTIONS, (None, CLASS_WEIGHT)
    ):
        settings = dict(
            activation=activation, include_background=background, squared_pred=squared, batch=batch,
            reduction=reduction, ignore_index=-100 if soft else 2, smooth_nr=0.25, smooth_dr=0.5,
            class_weight=None if weight is None else weight.to(device),
        )  # fmt: skip
        logits, target, weights = inputs
        if activation == "none":
            logits = logits.sigmoid()
        loss = weighted_dice_loss(logits, target, weights, **settings)
        expected = by_loops(logits, target, weights, **settings)
        assert loss.shape == expected.shape
        np.testing.assert_allclose(loss.cpu().numpy(), expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(WeightedDiceLoss(**settings).to(device)(logits, target, weights), loss)


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])
def test_one_channel_is_foreground(soft, device):
    logits, target, weights = drawn(device=device, soft=soft, channels=1)
    for background in (True, False):
        settings = dict(activation="sigmoid", include_background=background)
        loss = weighted_dice_loss(logits, target, weights, **settings)
        np.testing.assert_allclose(loss.item(), by_loops(logits, target, weights, **settings), rtol=1e-12)
    assert torch.equal(
        weighted_dice_loss(logits, target.reshape(2, 1, 4, 5), weights[:, None], **settings), loss
    )


def monai(name):
    losses = pytest.importorskip("monai.losses", reason="compared with MONAI where it is installed")
    return getattr(losses, name)


@pytest.mark.parametrize("spatial", SPATIAL[1:], ids=str)
def test_weights_of_one_are_monais(spatial, device):
    logits, target, weights = drawn(spatial, device)
    ones, column = torch.ones_like(weights), target[:, None]
    for background, squared, batch, weight in itertools.product(*[(True, False)] * 3, (None, CLASS_WEIGHT)):
        shared = dict(include_background=background, squared_pred=squared, batch=batch, smooth_nr=1e-3)
        weight = None if weight is None else weight.to(device)
        for reduction in REDUCTIONS:
            for activation in ("softmax", "sigmoid"):
                of_dice = weight if weight is None or background else weight[1:]
                other = monai("DiceLoss")(
                    to_onehot_y=True, reduction=reduction, weight=of_dice, **{activation: True}, **shared
                )
                settings = dict(activation=activation, reduction=reduction, class_weight=weight, **shared)
                loss = weighted_dice_loss(logits, target, ones, **settings)
                expected = other(logits, column).reshape(loss.shape)
                torch.testing.assert_close(loss, expected)
        both = dict(lambda_dice=0.5, lambda_ce=2.0, label_smoothing=0.1, **shared)
        other = monai("DiceCELoss")(to_onehot_y=True, softmax=True, weight=weight, **both).to(device)
        mine = WeightedDiceCELoss(class_weight=weight, **both).to(device)
        torch.testing.assert_close(mine(logits, target, ones), other(logits, column))


def test_weights_of_one_are_monais_for_one_channel(device):
    logits, target, weights = drawn(device=device, channels=1)
    other = monai("DiceCELoss")(sigmoid=True, lambda_ce=0.5)
    for t in (target, target[:, None], target[:, None].double()):
        loss = WeightedDiceCELoss(lambda_ce=0.5)(logits, t, torch.ones_like(weights))
        torch.testing.assert_close(loss, other(logits, target[:, None]))


def test_weights_of_zero_and_one_are_monais_mask(device):
    logits, target, weights = drawn(device=device)
    mask = (weights > 4).double()
    one_hot = F.one_hot(target, 3).movedim(-1, 1)  # of indices, MONAI makes background where they are masked
    # Of probabilities: of logits, MONAI before 1.6 puts the mask before its softmax.
    expected = monai("MaskedDiceLoss")()(logits.softmax(dim=1), one_hot, mask[:, None])
    torch.testing.assert_close(weighted_dice_loss(logits, target, mask), expected)


def test_ignored_is_monais(device):
    logits, target, weights = drawn(device=device)
    if "ignore_index" not in inspect.signature(monai("DiceLoss")).parameters:
        pytest.skip("MONAI's DiceLoss has no ignore_index before 1.6")
    other = monai("DiceLoss")(to_onehot_y=True, softmax=True, ignore_index=2)
    loss = weighted_dice_loss(logits, target, torch.ones_like(weights), ignore_index=2)
    torch.testing.assert_close(loss, other(logits, target[:, None]))


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])
def test_both_losses_together(soft, device):
    logits, target, weights = drawn(device=device, soft=soft)
    if not soft:
        target[0, 1] = -100
    shared = dict(class_weight=CLASS_WEIGHT.to(device))
    dice = weighted_dice_loss(logits, target, weights, batch=True, smooth_nr=0.5, **shared)
    entropy = weighted_cross_entropy(logits, target, weights, "weight", label_smoothing=0.1, **shared)
    module = WeightedDiceCELoss(
        *("weight",), batch=True, smooth_nr=0.5, lambda_dice=3, lambda_ce=0.5, label_smoothing=0.1, **shared
    ).to(device)
    torch.testing.assert_close(module(logits, target, weights), 3 * dice + 0.5 * entropy)


def test_both_losses_together_for_one_channel(device):
    logits, target, weights = drawn(device=device, channels=1)
    target[0, 1] = 255
    each = F.binary_cross_entropy_with_logits(logits[:, 0], (target == 1).double(), reduction="none")
    each = (weights * each)[target != 255]
    dice = weighted_dice_loss(logits, target, weights, activation="sigmoid", ignore_index=255)
    counts = (target != 255) & (weights != 0)
    module = WeightedDiceCELoss(ignore_index=255)
    torch.testing.assert_close(module(logits, target, weights), dice + each.sum() / counts.sum())


@pytest.mark.parametrize("scale", [1e-3, 1, 1e4])
def test_a_factor_of_all_weights_changes_nothing(scale, device):
    inputs = logits, target, weights = drawn(device=device)
    plain = weighted_dice_loss(*inputs, smooth_nr=0, smooth_dr=0)
    loss = weighted_dice_loss(logits, target, scale * weights, smooth_nr=0, smooth_dr=0)
    torch.testing.assert_close(loss, plain)


@pytest.mark.parametrize("smooth", [0, 1e-5])
def test_absent_classes(smooth, device):
    """Class 1 is in no target, class 2 has neither target nor probability: 1 and 0."""
    target = torch.tensor([[0, 0, 0]], device=device)
    logits = torch.tensor([[[0.75, 0.5, 1], [0.25, 0.5, 0], [0, 0, 0]]], device=device, requires_grad=True)
    loss = weighted_dice_loss(
        *(logits, target, torch.ones(1, 3, device=device)),
        activation="none", smooth_nr=smooth, smooth_dr=smooth, reduction="none",
    )  # fmt: skip
    expected = torch.tensor([[1 - 2 * 2.25 / 5.25, 1, 0]], device=device)
    torch.testing.assert_close(loss, expected, atol=2e-5, rtol=0)
    loss.sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    "settings", [{}, dict(batch=True), dict(smooth_nr=0, smooth_dr=0), dict(smooth_nr=0)]
)
def test_nothing_counts(settings, device):
    logits, target, weights = drawn(device=device)
    for loss in (WeightedDiceLoss(**settings), WeightedDiceCELoss(**settings)):
        for t, w in ((target, torch.zeros_like(weights)), (torch.full_like(target, -100), weights)):
            leaf = logits.clone().requires_grad_()
            value = loss(leaf, t, w)
            value.backward()
            assert value == 0 and (leaf.grad == 0).all()
        assert loss(logits[:0], target[:0], weights[:0]) == 0


def test_what_does_not_count_does_not_matter(device):
    logits, target, weights = drawn(device=device)
    counts = weights != 0
    other = logits.masked_fill(~counts[:, None], math.nan)
    for loss in (
        WeightedDiceLoss(),
        WeightedDiceLoss(activation="sigmoid", batch=True),
        WeightedDiceCELoss(),
    ):
        expected = loss(logits, target, weights)
        for wrong in (-100, 255, -1):
            there = target.masked_fill(~counts, wrong)
            leaf = other.clone().requires_grad_()
            value = loss(leaf, there, weights)
            value.backward()
            assert torch.equal(value, expected)
            assert (leaf.grad.movedim(1, -1)[~counts] == 0).all() and leaf.grad.isfinite().all()
            module = copy.deepcopy(loss)
            module.ignore_index = wrong
            assert torch.equal(module(other, there, weights.masked_fill(~counts, 5)), expected)


def test_labels_to_loss(device):
    labels = torch.zeros(2, 16, 16, dtype=torch.int32, device=device)
    labels[:, 3:6, 2:7], labels[:, 9:14, 8:15], labels[:, :2] = 1, 2, 255
    weights = weight_map(labels, ignore_index=255)
    logits = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(20)).to(device)
    loss = WeightedDiceCELoss()(logits, (labels > 0).long(), weights)
    expected = WeightedDiceCELoss()(logits[:, :, 2:], (labels[:, 2:] > 0).long(), weights[:, 2:])
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients(channels, soft, device):
    logits, target, weights = drawn((2, 3), device, soft=soft, channels=channels)
    inputs = [logits.requires_grad_(), weights.clamp(min=0.1).requires_grad_()]
    if soft:
        inputs.append(target.requires_grad_())
    losses = [WeightedDiceCELoss("weight", label_smoothing=0.1)]
    for activation in ACTIVATIONS[channels == 1 :]:
        losses += [
            WeightedDiceLoss(activation=activation, squared_pred=squared, batch=batch)
            for squared in (False, True)
            for batch in (False, True)
        ]
    if not soft:
        losses += [WeightedDiceLoss(activation="sigmoid", ignore_index=1, reduction="none")]
    for loss in losses:
        torch.autograd.gradcheck(lambda x, w, t=target, loss=loss: loss(x, t, w), inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_are_summed_in_float32(dtype, device):
    """1e6 pixels times a weight of 50: 65504 and eight bits are not enough for the sums."""
    logits = torch.zeros(1, 2, 1000, 1000, dtype=dtype, device=device)
    target = torch.zeros(1, 1000, 1000, dtype=torch.uint8, device=device)
    target[:, :250] = 1
    weights = torch.full((1, 1000, 1000), 50, dtype=dtype, device=device)
    expected = torch.tensor([[1 - 0.75 / 1.25, 1 - 0.25 / 0.75]], device=device)
    with torch.autocast(device, dtype=dtype):
        losses = [weighted_dice_loss(logits, target, weights, reduction="none")]
    losses.append(weighted_dice_loss(logits, target, weights, reduction="none"))
    for loss in losses:
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast(dtype, device):
    logits, target, weights = drawn(device=device, dtype=torch.float32)
    for loss in (WeightedDiceLoss(squared_pred=True), WeightedDiceCELoss()):
        layer = torch.nn.Conv2d(3, 3, 1, device=device)
        with torch.autocast(device, dtype=dtype):
            scores = layer(logits)
            value = loss(scores, target, weights)
        assert scores.dtype == dtype and value.dtype == torch.float32
        torch.testing.assert_close(value, loss(scores.float(), target, weights))
        value.backward()
        assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    "channels, soft",
    [
        (1, True),
        (3, False),
        pytest.param(1, False, marks=pytest.mark.exhaustive),
        pytest.param(3, True, marks=pytest.mark.exhaustive),
    ],
)
def test_compile(channels, soft, device):
    inputs = drawn(device=device, dtype=torch.float32, soft=soft, channels=channels)
    for module in (
        WeightedDiceLoss(activation="sigmoid", batch=True),
        WeightedDiceCELoss(label_smoothing=0.1),
    ):
        torch.compiler.reset()  # there is a limit to how often one function is compiled
        compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
        for columns in (5, 3):
            smaller = [tensor[..., :columns].contiguous() for tensor in inputs]
            torch.testing.assert_close(compiled(*smaller), module(*smaller))


def test_vmap(device):
    inputs = [tensor[:, None] for tensor in drawn(device=device)]
    for loss in (WeightedDiceLoss(), WeightedDiceCELoss()):
        expected = [loss(*each) for each in zip(*inputs, strict=True)]
        torch.testing.assert_close(torch.func.vmap(loss)(*inputs), torch.stack(expected))


def test_values_that_are_refused():
    logits, target, weights = drawn()
    for loss in (WeightedDiceLoss(), WeightedDiceLoss(activation="sigmoid"), WeightedDiceCELoss()):
        with pytest.raises(ValueError, match=r"^weights must be >= 0, got -0\.25$"):
            loss(logits, target, weights.index_fill(1, torch.tensor([2]), -0.25))
        for wrong in (-1, 3):
            with pytest.raises(
                IndexError, match=f"target must be a class in 0..2, or ignore_index, got {wrong}"
            ):
                loss(logits, target.index_fill(1, torch.tensor([2]), wrong), weights + 1)
    with pytest.raises(IndexError, match=r"target must be a class in 0..1, .*, got 255"):
        WeightedDiceLoss(activation="sigmoid")(logits[:, :1], 255 * target.clamp(max=1), weights + 1)


@pytest.mark.parametrize(
    "settings, error, message",
    [
        (dict(activation="relu"), ValueError, "activation must be one of 'softmax', 'sigmoid', 'none', got"),
        (dict(activation=True), ValueError, "activation must be one of"),
        (dict(reduction="max"), ValueError, "reduction must be one of 'mean', 'sum', 'none', got 'max'"),
        (dict(smooth_nr=-1), ValueError, "smooth_nr must be a finite number >= 0"),
        (dict(smooth_dr=math.nan), ValueError, "smooth_dr must be a finite number >= 0"),
        (dict(smooth_dr="1"), TypeError, "smooth_dr must be a number, got '1'"),
        (dict(ignore_index=None), TypeError, "ignore_index must be an integer, got None"),
        (dict(class_weight=torch.tensor([1, 1, -2.0])), ValueError, "class_weight must be >= 0, got -2"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(settings, error, message):
    with pytest.raises(error, match=f"^{message}"):
        weighted_dice_loss(*drawn(), **settings)
    with pytest.raises(error, match=f"^{message}"):
        WeightedDiceLoss(**settings)


@pytest.mark.parametrize("name", ["lambda_dice", "lambda_ce", "smooth_nr", "smooth_dr", "label_smoothing"])
def test_settings_of_both_that_are_refused(name):
    allowed = "from 0 to 1" if name == "label_smoothing" else "a finite number >= 0"
    with pytest.raises(ValueError, match=rf"^{name} must be {allowed}.*, got -1"):
        WeightedDiceCELoss(**{name: -1})
    with pytest.raises(ValueError, match=r"^normalize must be one of 'mean', 'weight', got 'sum'"):
        WeightedDiceCELoss("sum")


def test_shapes_that_are_refused():
    logits, target, weights = drawn()
    with pytest.raises(ValueError, match=r'got C = 1: the softmax of one channel .*activation="sigmoid"'):
        weighted_dice_loss(logits[:, :1], target, weights)
    with pytest.raises(ValueError, match=r"^class_weight must have the shape \(2,\).* got \(3,\)"):
        WeightedDiceCELoss(class_weight=[1, 2, 3])(logits[:, :1], target.clamp(max=1), weights)
    for loss in (weighted_dice_loss, WeightedDiceCELoss()):
        with pytest.raises(ValueError, match=r"^weights must have the shape \(2, 4, 5\) or \(2, 1, 4, 5\)"):
            loss(logits, target, weights[:, 1:])
        with pytest.raises(ValueError, match=r"^target must have the shape \(2, 4, 5\) or"):
            loss(logits, target[:, 1:], weights)


def test_modules():
    assert repr(WeightedDiceLoss(batch=True)) == (
        "WeightedDiceLoss(activation='softmax', include_background=True, squared_pred=False, "
        "smooth_nr=1e-05, smooth_dr=1e-05, batch=True, reduction='mean', ignore_index=-100)"
    )
    module = WeightedDiceCELoss("weight", class_weight=[1, 2], lambda_ce=0.5)
    assert repr(module) == (
        "WeightedDiceCELoss(normalize='weight', include_background=True, squared_pred=False, "
        "smooth_nr=1e-05, smooth_dr=1e-05, batch=False, lambda_dice=1.0, lambda_ce=0.5, label_smoothing=0.0, "
        "ignore_index=-100)"
    )
    assert list(module.state_dict()) == ["class_weight"] and repr(copy.deepcopy(module)) == repr(module)
    assert not WeightedDiceLoss().state_dict()
