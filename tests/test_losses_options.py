"""What `weighted_cross_entropy` takes beside the weights, against PyTorch's function and a loop in NumPy."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import DEVICES

from fastlogconv import WeightedCrossEntropyLoss, weighted_cross_entropy
from fastlogconv.loss_checks import NORMALIZATIONS, REDUCTIONS

SPATIAL = [(), (7,), (4, 5), (3, 4, 5), (2, 3, 2, 3)]
OPTIONS = [
    dict(class_weight=class_weight, label_smoothing=smoothing)
    for class_weight in (None, torch.tensor([0.5, 2, 1, 0], dtype=torch.float64))
    for smoothing in (0.0, 0.2)
]


@pytest.fixture(params=DEVICES)
def device(request):
    """A loss has no backend."""
    return request.param


def drawn(spatial, device="cpu", dtype=torch.float64, soft=False):
    """logits [3, 4, ...], target and weights of three images; an eighth of the weights is 0."""
    generator = torch.Generator().manual_seed(len(spatial) + 7)
    logits = torch.randn(3, 4, *spatial, generator=generator, dtype=torch.float64).to(device, dtype)
    target = torch.randint(0, 4, (3, *spatial), generator=generator).to(device)
    if soft:
        target = (3 * torch.randn(logits.shape, generator=generator, dtype=torch.float64)).softmax(1)
        target = target.to(device, dtype)
    weights = torch.rand((3, *spatial), generator=generator, dtype=torch.float64) * 9
    weights *= torch.rand(weights.shape, generator=generator) > 0.125
    return logits, target, weights.to(device, dtype)


def on(device, options):
    weight = options["class_weight"]
    return options | dict(class_weight=None if weight is None else weight.to(device))


def torchs(options):
    return dict(weight=options["class_weight"], label_smoothing=options["label_smoothing"])


def by_loops(logits, target, weights, normalize, reduction, class_weight, label_smoothing, ignore_index):
    """Pixel by pixel and class by class, in NumPy."""
    logits, target, weights = logits.cpu().numpy(), target.cpu().numpy(), weights.cpu().numpy()
    b, c, *spatial = logits.shape
    of_class = np.ones(c) if class_weight is None else class_weight.cpu().numpy()
    each, total = np.zeros((b, *spatial)), 0.0
    for place in np.ndindex(b, *spatial):
        image, at = place[0], place[1:]
        scores = logits[(image, slice(None), *at)]
        if target.ndim == logits.ndim:
            wanted, share = target[(image, slice(None), *at)], 1.0
        elif target[place] == ignore_index:
            continue
        else:
            wanted, share = np.eye(c)[target[place]], of_class[target[place]]
        if weights[place] == 0:
            continue
        wanted = (1 - label_smoothing) * wanted + label_smoothing / c
        log_probability = scores - np.log(np.exp(scores).sum())
        each[place] = -weights[place] * (of_class * wanted * log_probability).sum()
        total += share * (1 if normalize == "mean" else weights[place])
    return {"none": each, "sum": each.sum(), "mean": each.sum() / total}[reduction]


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])
@pytest.mark.parametrize("spatial", SPATIAL, ids=str)
def test_weights_of_one_are_no_weights(spatial, soft, device):
    for dtype in (torch.float32, torch.float64):
        logits, target, weights = drawn(spatial, device, dtype, soft)
        if not soft:
            target[1] = -100
        for options, normalize, reduction in itertools.product(OPTIONS, NORMALIZATIONS, REDUCTIONS):
            options = on(device, options)
            other = torchs(options)
            if other["weight"] is not None:
                other["weight"] = other["weight"].to(dtype)
            expected = F.cross_entropy(logits, target, reduction=reduction, **other)
            ones = torch.ones_like(weights)
            loss = weighted_cross_entropy(logits, target, ones, normalize, reduction=reduction, **options)
            torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])
@pytest.mark.parametrize("spatial", SPATIAL, ids=str)
def test_weights_against_loops(spatial, soft, device):
    logits, target, weights = drawn(spatial, device, soft=soft)
    ignore_index = -100 if soft else 3
    for options, normalize, reduction in itertools.product(OPTIONS, NORMALIZATIONS, REDUCTIONS):
        options = on(device, options) | dict(reduction=reduction, ignore_index=ignore_index)
        loss = weighted_cross_entropy(logits, target, weights, normalize, **options)
        expected = by_loops(logits, target, weights, normalize, **options)
        assert loss.shape == expected.shape
        np.testing.assert_allclose(loss.cpu().numpy(), expected, rtol=1e-12, atol=1e-14)
        module = WeightedCrossEntropyLoss(normalize, **options).to(device)
        assert torch.equal(module(logits, target, weights), loss)


@pytest.mark.parametrize("spatial", SPATIAL, ids=str)
def test_an_axis_of_one_channel(spatial, device):
    logits, target, weights = drawn(spatial, device)
    for reduction in REDUCTIONS:
        expected = weighted_cross_entropy(logits, target, weights, reduction=reduction)
        for t, w in (
            (target[:, None], weights),
            (target, weights[:, None]),
            (target[:, None], weights[:, None]),
        ):
            assert torch.equal(weighted_cross_entropy(logits, t, w, reduction=reduction), expected)


def test_what_the_error_for_one_class_advises():
    logits, target, weights = drawn((4, 5), dtype=torch.float32)
    logits, target, weights = logits[:, :1], (target > 1).long()[:, None], weights[:, None]
    with pytest.raises(ValueError, match="at least 2 classes") as raised:
        weighted_cross_entropy(logits, target, weights)
    message = str(raised.value)
    names = dict(torch=torch, logits=logits, target=target, weights=weights)
    two = eval(message[message.index("torch.cat") : message.index(", or take")], names)
    each = eval(message[message.index("weights * ") : message.index(", all of them")], names)
    loss = weighted_cross_entropy(two, target, weights, reduction="none")
    torch.testing.assert_close(loss, each.squeeze(1))


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_what_does_not_count_does_not_matter_in_a_soft_target(normalize, device):
    logits, target, weights = drawn((4, 5), device, soft=True)
    options = on(device, OPTIONS[-1])
    expected = weighted_cross_entropy(logits, target, weights, normalize, **options)
    gone = (weights == 0)[:, None]
    leaf = logits.masked_fill(gone, float("nan")).requires_grad_()
    loss = weighted_cross_entropy(leaf, target.masked_fill(gone, float("nan")), weights, normalize, **options)
    loss.backward()
    assert torch.equal(loss, expected) and leaf.grad.isfinite().all()
    assert (leaf.grad.movedim(1, -1)[weights == 0] == 0).all()


def test_a_class_weight_of_zero_alone(device):
    """Nothing is left to divide by: 0, where PyTorch returns NaN."""
    logits, target, weights = drawn((4, 5), device, torch.float32)
    none = torch.tensor([1.0, 0, 1, 1], device=device)
    for normalize in NORMALIZATIONS:
        loss = weighted_cross_entropy(logits, torch.ones_like(target), weights, normalize, class_weight=none)
        assert loss == 0


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients(reduction, soft, device):
    logits, target, weights = drawn((2, 3), device, soft=soft)
    inputs = [logits.requires_grad_(), weights.clamp(min=0.1).requires_grad_()]
    if soft:
        inputs.append(target.requires_grad_())
    for options, normalize in itertools.product(OPTIONS, NORMALIZATIONS):
        options = on(device, options) | dict(reduction=reduction, ignore_index=-100 if soft else 2)

        def loss(x, w, t=target, normalize=normalize, options=options):
            return weighted_cross_entropy(x, t, w, normalize, **options)

        torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(dtype, device):
    for soft, reduction in itertools.product((False, True), REDUCTIONS):
        inputs = drawn((4, 5), device, dtype, soft)
        options = on(device, OPTIONS[-1]) | dict(reduction=reduction)
        single = [tensor.float() if tensor.is_floating_point() else tensor for tensor in inputs]
        expected = weighted_cross_entropy(*single, **options)
        assert expected.dtype == torch.float32
        assert torch.equal(weighted_cross_entropy(*inputs, **options), expected)
        with torch.autocast(device, dtype=dtype):
            assert torch.equal(weighted_cross_entropy(*inputs, **options), expected)


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])
def test_compile(soft, device):
    inputs = drawn((4, 5), device, torch.float32, soft)
    settings = dict(class_weight=[1, 2, 0.5, 1], label_smoothing=0.1)
    for reduction in REDUCTIONS:
        module = WeightedCrossEntropyLoss("weight", reduction=reduction, **settings).to(device)
        torch.compiler.reset()  # there is a limit to how often one function is compiled
        compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
        for columns in (5, 3):
            smaller = [tensor[..., :columns].contiguous() for tensor in inputs]
            torch.testing.assert_close(compiled(*smaller), module(*smaller))


def test_vmap(device):
    inputs = [tensor[:, None] for tensor in drawn((4, 5), device)]

    def loss(x, t, w):
        return weighted_cross_entropy(x, t, w, class_weight=weight, label_smoothing=0.1)

    weight = OPTIONS[-1]["class_weight"].to(device)
    expected = [loss(*each) for each in zip(*inputs, strict=True)]
    torch.testing.assert_close(torch.func.vmap(loss)(*inputs), torch.stack(expected))


def test_a_module_with_class_weights_moves(device):
    module = WeightedCrossEntropyLoss(class_weight=[1, 2, 3, 4])
    assert module.class_weight.dtype == torch.float32 and list(module.state_dict()) == ["class_weight"]
    logits, target, weights = drawn((4, 5), device, torch.float32)
    loss = module.to(device)(logits, target, weights)
    assert loss == weighted_cross_entropy(logits, target, weights, class_weight=module.class_weight)
    assert module.half()(logits, target, weights) == loss
