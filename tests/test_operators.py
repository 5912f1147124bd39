"""The operators under PyTorch's own machinery: opcheck, fake tensors, torch.compile."""

import pytest
import torch
from cases import BORDERS, two_cells
from torch.library import opcheck

import fastlogconv
from fastlogconv import WeightSettings, backends, ops
from fastlogconv.codes import PADDING_MODES


def values(distance="logconv", border="second_nearest"):
    """What an operator takes of the settings."""
    return WeightSettings(distance, border, bws=5.0, fds=4.0, bwf=3.0, fbr=0.2, ks=31).values


DTYPES = [torch.bool, torch.int32, torch.uint64, torch.float16, torch.float32, torch.float64]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


def cells(device="cpu"):
    return torch.from_numpy(two_cells()).to(device)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck_weight_map(dtype, border, backend, device):
    labels = torch.stack([cells(device), cells(device).flip(1)]).to(dtype)
    logconv, exact = values("logconv", border), values("euclidean", border)
    opcheck(ops.weight_map, (labels, None, None, None, *logconv, backend))
    opcheck(ops.weight_map, (labels.transpose(1, 2), None, None, None, *exact, "auto"))
    classes, ignore = labels.int() + 1, torch.zeros_like(labels[:1, :1], dtype=torch.bool)
    opcheck(ops.weight_map, (labels, classes, ignore.expand(labels.shape), None, *logconv, backend))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float16, torch.float32, torch.float64], ids=str)
def test_opcheck_region_weight_map(dtype, backend, device):
    masks = torch.stack([cells(device) == 1, cells(device) == 2]).to(dtype)
    ignore = cells(device).T == 2
    for border in BORDERS:
        opcheck(ops.region_weight_map, (masks, None, *values("logconv", border), backend))
        opcheck(ops.region_weight_map, (masks[:0], None, *values("euclidean", border), backend))
        opcheck(ops.region_weight_map, (masks.transpose(1, 2), ignore, *values("euclidean", border), backend))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_opcheck_distance_to_weight(dtype, backend, device):
    distance = torch.arange(120, device=device, dtype=dtype).reshape(3, 5, 8)
    foreground = distance[0] > 20
    for border in BORDERS:
        chosen = (*values(border=border), backend)
        opcheck(ops.distance_to_weight, (distance, foreground, *chosen))
        opcheck(ops.distance_to_weight, (distance, None, *chosen))
        opcheck(ops.distance_to_weight, (distance.transpose(1, 2), foreground.T, *chosen))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["native", "reference"])
def test_opcheck_nearest_instances(name, dtype):
    labels = torch.stack([cells(), cells().flip(1)]).to(dtype)
    opcheck(ops.nearest_instances, (labels, None, 2, [1.0, 2.0], name))
    opcheck(ops.nearest_instances, (labels.transpose(1, 2), None, 1, [1.0, 1.0], name))
    opcheck(ops.nearest_instances, (labels[None], (labels[None] == 1), 2, [4.0, 1.0, 1.0], name))


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_separable_conv2d(requires_grad, padding_mode, backend, device):
    input = torch.randn(2, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(7)).to(device)
    opcheck(ops.separable_conv2d, (input.requires_grad_(requires_grad), 1.5, 5, padding_mode, backend))
    opcheck(ops.separable_conv2d, (input.transpose(1, 2), 1.5, 5, padding_mode, backend))


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("settings", [dict(), dict(border="farthest", bws=5.0, lmbda=1.0, ks=31)], ids=str)
def test_compile_weight_map(settings, dynamic, backend, device):
    compiled = torch.compile(fastlogconv.weight_map, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    labels = torch.stack([cells(device), cells(device).flip(1)])
    for input in (labels, labels[:1, :20, :21], labels[:, 1:, 1:], labels[0], labels.double(), labels > 0):
        expected = fastlogconv.weight_map(input, **settings, backend=backend)
        assert torch.equal(compiled(input, **settings, backend=backend), expected)


def test_compile_with_integer_settings(backend, device):
    compiled = torch.compile(fastlogconv.weight_map, fullgraph=True, backend="aot_eager")
    for settings in (dict(bws=5, fds=4, lmbda=1), dict(bws=6, fds=4, lmbda=2), dict(bws=7, bwf=0)):
        expected = fastlogconv.weight_map(cells(device), **settings, backend=backend)
        assert torch.equal(compiled(cells(device), **settings, backend=backend), expected)


@pytest.mark.parametrize("dynamic", [None, True])
def test_compile_modules(dynamic, backend, device):
    labels = cells(device)
    masks = torch.stack([labels == 1, labels == 2])
    for module, inputs in (
        (fastlogconv.WeightTransform(backend=backend), (labels, labels[None], labels[2:, 3:])),
        (fastlogconv.WeightTransformSingle(16, backend=backend), (masks, masks.float()[:, 2:], masks[:0])),
        (fastlogconv.SeparableConv2D(2.0, ks=9, backend=backend), (masks.float(), masks.int()[:, :, 1:])),
    ):
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        for input in inputs:
            assert torch.equal(compiled(input), module(input))


@pytest.mark.parametrize("dynamic", [None, True])
def test_compile_distances(dynamic):
    labels = torch.stack([cells(), cells().flip(1)])
    for function in (fastlogconv.nearest_instances, fastlogconv.signed_distance_map):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        for input, chosen in (
            (labels, {}),
            (labels[0, :20], dict(spacing=(2, 0.5))),
            (labels.double(), dict(ignore=labels == 1)),
            (labels > 0, dict(spacing=(1.5, 1))),
            (labels, dict(spacing=(4, 1, 1), spatial_dims=3)),
        ):
            expected = function(input, **chosen)
            torch.testing.assert_close(compiled(input, **chosen), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dynamic", [None, True])
def test_compile_distance_to_weight(dynamic, backend, device):
    compiled = torch.compile(
        fastlogconv.distance_to_weight, fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    distance = torch.arange(480.0, device=device).reshape(3, 10, 16) % 37
    for d, foreground in ((distance, None), (distance, distance[0] > 9), (distance[:2, 1:], None)):
        expected = fastlogconv.distance_to_weight(d, foreground, backend=backend)
        assert torch.equal(compiled(d, foreground, backend=backend), expected)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("dynamic", [None, True])
def test_compile_gradient(dynamic, padding_mode, backend, device):
    module = fastlogconv.SeparableConv2D(2.0, ks=9, padding_mode=padding_mode, backend=backend)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for shape in ((2, 11, 13), (1, 9, 20)):
        input = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(8)).to(device)
        gradients = []
        for function in (compiled, module):
            leaf = input.clone().requires_grad_()
            function(leaf).square().sum().backward()
            gradients.append(leaf.grad)
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_compile_transforms_of_the_convolution(padding_mode, backend, device):
    def convolve(input):
        return fastlogconv.separable_conv2d(input, 2.0, 5, padding_mode, backend=backend)

    def loss(input):
        return (convolve(input) ** 3).sum()

    input = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(12)).to(device)
    for function in (
        torch.func.grad(loss),
        torch.func.vmap(lambda row: convolve(row[None])),
        lambda input: torch.func.jvp(convolve, (input,), (input.flip(1),))[1],
        lambda input: torch.func.jvp(torch.func.grad(loss), (input,), (input.flip(1),))[1],
    ):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(input), function(input), rtol=1e-12, atol=1e-12)


def test_compile_by_inductor(backend, device):
    compiled = torch.compile(fastlogconv.weight_map, fullgraph=True)
    labels = torch.stack([cells(device), cells(device).flip(0)])
    assert torch.equal(compiled(labels, backend=backend), fastlogconv.weight_map(labels, backend=backend))


def test_compile_a_loss(backend, device):
    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(logits, labels):
        weights = fastlogconv.weight_map(labels, backend=backend)
        return (weights * logits.sigmoid()).mean()

    logits = torch.randn(2, 24, 30, generator=torch.Generator().manual_seed(9)).to(device).requires_grad_()
    labels = torch.stack([cells(device), cells(device).flip(0)])
    result = loss(logits, labels)
    result.backward()
    weights = fastlogconv.weight_map(labels, backend=backend)
    probability = logits.detach().sigmoid()
    torch.testing.assert_close(result.detach(), (weights * probability).mean())
    expected = weights * probability * (1 - probability) / weights.numel()
    torch.testing.assert_close(logits.grad, expected)


@pytest.mark.usefixtures("on_cpu")
def test_errors_reach_the_caller_of_compiled_code(backend, device):
    compiled = torch.compile(fastlogconv.weight_map, backend="aot_eager")
    labels = cells(device).float()
    labels[0, 0] = torch.nan
    with pytest.raises(ValueError, match="labels must be finite whole numbers"):
        compiled(labels, backend=backend)
    with pytest.raises(ValueError, match="lmbda must be a finite number > 0"):
        compiled(labels, lmbda=-1.0, backend=backend)


def test_compiled_code_follows_use_backend(monkeypatch):
    served = []
    for name, module in backends.BACKENDS.items():
        monkeypatch.setattr(
            module,
            "weight_map",
            lambda *tensors, original=module.weight_map, name=name, **settings: (
                served.append(name),
                original(*tensors, **settings),
            )[1],
        )
    compiled = torch.compile(fastlogconv.weight_map, fullgraph=True, backend="aot_eager")
    compiled(cells())
    able = [name for name, reason in backends.reasons(torch.device("cpu")).items() if reason is None]
    for name in able:
        with fastlogconv.use_backend(name):
            compiled(cells())
    assert served[1:] == able


def test_lazily_negated_input(backend, device):
    """A view whose minus sign is not in memory yet."""
    negated = torch.complex(torch.zeros(2, 8, 9), torch.ones(2, 8, 9)).to(device).conj().imag
    assert negated.is_neg()
    result = fastlogconv.separable_conv2d(negated, 1.0, 5, backend=backend)
    assert torch.equal(result, fastlogconv.separable_conv2d(negated.clone(), 1.0, 5, backend=backend))
    assert (result < 0).all()
