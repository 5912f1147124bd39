import math
import warnings

import numpy as np
import pytest
import torch
from cases import golden, moved, relative_error, surrounded
from tolerances import CONVOLUTION
from torch.utils._python_dispatch import TorchDispatchMode

from fastlogconv import ops, separable_conv2d
from fastlogconv.codes import PADDING_MODES
from fastlogconv.settings import LARGEST_KS

# The same rules at the edge under SciPy's names.
SCIPY_MODES = {"constant": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap"}


def by_scipy(input, lmbda, ks, padding_mode):
    from scipy.ndimage import correlate1d

    kernel = np.exp(-abs(np.arange(-(ks // 2), ks // 2 + 1)) / lmbda)
    for axis in (1, 2):
        input = correlate1d(input, kernel, axis=axis, mode=SCIPY_MODES[padding_mode])
    return input


GOLDEN_NAMES = [name for name in golden("separable_conv") if name not in ("input", "rows")]


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_as_deepflash2(name, backend, device):
    file = golden("separable_conv")
    padding_mode, lmbda, ks = name.split("_")
    for dtype in (torch.float32, torch.float64):
        input = torch.from_numpy(file["input"]).to(device, dtype)
        lmbda_, ks_ = float(lmbda.removeprefix("lmbda")), int(ks.removeprefix("ks"))
        result = separable_conv2d(input, lmbda_, ks_, padding_mode, backend=backend)
        assert relative_error(result[:, file["rows"]], file[name]) <= CONVOLUTION[dtype]


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("lmbda", [0.1, 0.35, 2, 10])
@pytest.mark.parametrize(
    "shape, ks",
    [
        ((1, 70, 90), 129),
        ((3, 37, 41), 73),
        ((2, 64, 33), 8),
        ((2, 65, 66), 129),
        ((4, 5, 300), 9),
        ((1, 130, 5), 3),
        ((1, 3, 4), 1),
        ((5, 37, 38), 74),
    ],
    ids=str,
)
def test_against_scipy(shape, ks, lmbda, padding_mode, backend, device):
    r = ks // 2
    if padding_mode == "reflect" and r >= min(shape[1:]):
        ks = 2 * min(shape[1:]) - 1  # the widest that there is
    if padding_mode == "circular" and r > min(shape[1:]):
        ks = 2 * min(shape[1:]) + 1
    input = np.random.default_rng(26).normal(size=shape)
    expected = by_scipy(input, lmbda, ks, padding_mode)
    for dtype in (torch.float32, torch.float64):
        result = separable_conv2d(
            torch.from_numpy(input).to(device, dtype), lmbda, ks, padding_mode, backend=backend
        )
        assert result.dtype == dtype and result.is_contiguous()
        assert relative_error(result, expected) <= CONVOLUTION[dtype]


@pytest.mark.parametrize("padding_mode", ["constant", "replicate"])
@pytest.mark.parametrize("lmbda", [0.05, 3.0, 1e4])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 40), (2, 40, 1), (1, 5, 7), (1, 6, 150)], ids=str)
def test_kernel_larger_than_the_image(shape, lmbda, padding_mode, backend, device):
    input = np.random.default_rng(27).normal(size=shape)
    for ks in (9, 15, 129, 2001):
        expected = by_scipy(input, lmbda, ks, padding_mode)
        for dtype in (torch.float32, torch.float64):
            given = torch.from_numpy(input).to(device, dtype)
            result = separable_conv2d(given, lmbda, ks, padding_mode, backend=backend)
            assert relative_error(result, expected) <= CONVOLUTION[dtype]


# Steps on each side. The GPU kernels go by strips of 8, 16 and 32 results, tiles with up to 119 steps around
# them in float32 and 56 in float64, and sums of strips beyond.
RADII = (0, 5, 7, 14, 15, 16, 30, 31, 32, 56, 57, 119, 120, 153, 190)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("radius", RADII)
def test_windows_of_any_length(radius, padding_mode, backend, device):
    input = np.random.default_rng(28).normal(size=(1, 191, 297))
    expected = by_scipy(input, 60.0, 2 * radius + 1, padding_mode)
    for dtype in (torch.float32, torch.float64):
        given = torch.from_numpy(input).to(device, dtype)
        result = separable_conv2d(given, 60.0, 2 * radius + 1, padding_mode, backend=backend)
        assert relative_error(result, expected) <= CONVOLUTION[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e37])
@pytest.mark.parametrize("radius", [3, 20, 36, 60, 130])
def test_no_trace_where_no_window_shows_it(radius, value, dtype, backend, device):
    y, x, shape = 77, 141, (1, 191, 297)
    input = torch.zeros(shape, dtype=dtype)
    input[0, y, x] = value
    result = separable_conv2d(input.to(device), 60.0, 2 * radius + 1, backend=backend).cpu()
    shown = torch.zeros(shape, dtype=torch.bool)
    shown[0, max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1] = True
    assert (result[~shown] == 0).all()
    assert ((result[shown] > 0) | result[shown].isnan()).all()
    assert (result.isfinite() == ~shown).all() or value == 1e37


def sum_of_factors(lmbda, ks):
    """a^0 + 2 (a^1 + ... + a^r)."""
    r = ks // 2
    return 1 + 2 * math.exp(-1 / lmbda) * math.expm1(-r / lmbda) / math.expm1(-1 / lmbda)


@pytest.mark.parametrize("lmbda", [0.35, 30.0, 1e6, 1e12])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 10, 10), (1, 1, 9000), (1, 9000, 1)], ids=str)
def test_largest_kernel(shape, lmbda, backend, device):
    """It would take minutes and gigabytes if what lies beyond the edge were looked at."""
    result = separable_conv2d(
        torch.full(shape, 2.0, device=device), lmbda, LARGEST_KS, "replicate", backend=backend
    )
    expected = torch.full(shape, 2 * sum_of_factors(lmbda, LARGEST_KS) ** 2, dtype=torch.float64)
    assert relative_error(result, expected) <= CONVOLUTION[torch.float32]
    one = torch.zeros(shape, dtype=torch.float64, device=device)
    one[0, -1, -1] = 1
    result = separable_conv2d(one, lmbda, LARGEST_KS, "constant", backend=backend)
    y, x = (torch.arange(n - 1, -1, -1, dtype=torch.float64) for n in shape[1:])
    expected = torch.exp(-(y[:, None] + x) / lmbda)[None]
    assert relative_error(result, expected) <= CONVOLUTION[torch.float64]


def test_impulse_by_hand(backend, device):
    input = torch.zeros(1, 5, 5, device=device)
    input[0, 1, 2] = 2
    result = separable_conv2d(input, 1 / np.log(2), 3, backend=backend).cpu()  # a = 1/2
    expected = torch.zeros(1, 5, 5)
    expected[0, :3, 1:4] = torch.tensor([[0.5, 1, 0.5], [1, 2, 1], [0.5, 1, 0.5]])
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(dtype, padding_mode, backend, device):
    input = torch.randn(2, 20, 30, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = by_scipy(input.double().numpy(), 2.0, 21, padding_mode)
    result = separable_conv2d(input.to(device), 2.0, 21, padding_mode, backend=backend)
    assert result.dtype == dtype
    assert relative_error(result, expected) <= CONVOLUTION[dtype]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64], ids=str)
def test_integers_are_taken_as_float32(dtype, backend, device):
    input = torch.arange(48, device=device).reshape(2, 4, 6).to(dtype)
    result = separable_conv2d(input, 2.0, 5, backend=backend)
    assert result.dtype == torch.float32
    assert torch.equal(result, separable_conv2d(input.float(), 2.0, 5, backend=backend))


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 5, 0), (0, 0, 0)], ids=str)
def test_empty(shape, padding_mode, backend, device):
    result = separable_conv2d(torch.zeros(shape, device=device), 1.0, 5, padding_mode, backend=backend)
    assert result.shape == shape and result.dtype == torch.float32


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("view", ["surrounded", "transposed", "batch last", "flipped", "expanded"])
def test_views(view, padding_mode, backend, device):
    input = torch.randn(3, 19, 26, generator=torch.Generator().manual_seed(1))
    if view == "surrounded":
        seen = surrounded(input, torch.nan)
    elif view == "transposed":
        seen = input.transpose(1, 2).contiguous().transpose(1, 2)
    elif view == "batch last":
        seen = input.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    elif view == "flipped":
        seen, input = input.flip(2)[:, ::3], input.flip(2)[:, ::3].clone()
    else:
        seen, input = input[:1].expand(3, -1, -1), input[:1].repeat(3, 1, 1)
    seen, input = moved(seen, device), input.contiguous().to(device)
    ks = 13 if input.shape[1] > 6 else 9
    result = separable_conv2d(seen, 1.5, ks, padding_mode, backend=backend)
    assert result.is_contiguous()
    assert torch.equal(result, separable_conv2d(input, 1.5, ks, padding_mode, backend=backend))


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_bitwise_the_same_for_any_number_of_threads(padding_mode, with_threads, backend, device):
    input = torch.randn(3, 203, 171, generator=torch.Generator().manual_seed(2)).to(device)
    results = []
    for threads in (1, 2, 3, 5):
        with_threads(threads)
        results.append(separable_conv2d(input, 0.35, 73, padding_mode, backend=backend))
    assert all(torch.equal(result, results[0]) for result in results[1:])


# ---------------------------------------------------------------------------------------------- gradients


def widest(shape, ks, padding_mode):
    """The largest kernel up to `ks` that `padding_mode` allows."""
    limit = {"reflect": 2 * min(shape[1:]) - 1, "circular": 2 * min(shape[1:]) + 1}
    return min(ks, limit.get(padding_mode, ks))


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(
    "shape, ks",
    [
        ((1, 4, 5), 5),
        ((1, 3, 3), 7),
        ((2, 2, 4), 2),
        ((2, 3, 2), 1),
        ((1, 1, 4), 3),
        ((1, 3, 1), 9),
        ((1, 3, 4), 1001),
    ],
    ids=str,
)
def test_gradients(shape, ks, padding_mode, backend, device):
    input = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).to(device)
    ks = widest(shape, ks, padding_mode)

    def convolve(input):
        return separable_conv2d(input, 1.3, ks, padding_mode, backend=backend)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of gradcheck's own vmap, and before torch 2.5 of ours
        checks = dict(check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
        assert torch.autograd.gradcheck(convolve, (input.requires_grad_(),), **checks)
        turned = input.detach().transpose(1, 2).requires_grad_()
        assert torch.autograd.gradcheck(convolve, (turned,), check_forward_ad=True)
        checks = dict(check_fwd_over_rev=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(convolve, (input,), **checks)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_gradient_is_the_adjoint(padding_mode, backend, device):
    """<C x, y> = <x, C* y>, at a size that gradcheck cannot afford."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, 90, 75, dtype=torch.float64, generator=generator).to(device).requires_grad_()
    y = torch.randn(2, 90, 75, dtype=torch.float64, generator=generator).to(device)
    forward = (separable_conv2d(x, 4.0, 73, padding_mode, backend=backend) * y).sum()
    (gradient,) = torch.autograd.grad(forward, x)
    torch.testing.assert_close((gradient * x).sum(), forward, rtol=1e-11, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_gradient_dtype(padding_mode, dtype, backend, device):
    input = torch.randn(1, 9, 11, generator=torch.Generator().manual_seed(5)).to(device)
    gradients = []
    for leaf in (input.to(dtype), input.double()):
        leaf.requires_grad_()
        result = separable_conv2d(leaf, 2.0, 7, padding_mode, backend=backend)
        result.backward(torch.ones_like(result))
        gradients.append(leaf.grad)
    assert gradients[0].dtype == dtype
    assert relative_error(gradients[0], gradients[1].cpu()) <= 4 * CONVOLUTION[dtype]


def test_no_gradient_asked_no_graph(backend, device):
    input = torch.zeros(1, 5, 5, device=device)
    assert not separable_conv2d(input, 1.0, 3, backend=backend).requires_grad
    with torch.no_grad():
        assert not separable_conv2d(input.requires_grad_(), 1.0, 3, backend=backend).requires_grad
    assert separable_conv2d(input, 1.0, 3, backend=backend).requires_grad
    with torch.inference_mode():
        assert not separable_conv2d(
            torch.zeros(1, 5, 5, device=device), 1.0, 3, backend=backend
        ).requires_grad


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
def test_gradients_show_where_windows_do(padding_mode, backend, device):
    """An infinite or huge gradient leaves no trace elsewhere, and does not overflow on the way."""
    leaf = torch.zeros(1, 12, 13, device=device, requires_grad=True)
    result = separable_conv2d(leaf, 2.0, 5, padding_mode, backend=backend)
    for value in (torch.inf, torch.nan):
        outer = torch.zeros_like(result)
        outer[0, 6, 7] = value
        (gradient,) = torch.autograd.grad(result, leaf, outer, retain_graph=True)
        assert (~gradient[0, 4:9, 5:10].isfinite()).all() and (~gradient.isfinite()).sum() == 25
    half = torch.zeros(1, 12, 13, dtype=torch.float16, device=device, requires_grad=True)
    result = separable_conv2d(half, 2.0, 5, padding_mode, backend=backend)
    outer = torch.zeros_like(result)
    outer[0, 0, 0] = 5000
    (gradient,) = torch.autograd.grad(result, half, outer)
    assert gradient.isfinite().all() and gradient[0, 0, 0] >= 5000


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operator returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("shape", [(2, 10, 10), (1, 60, 6), (3, 7, 50)], ids=str)
def test_gradient_in_memory_of_the_inputs_size(shape, padding_mode, backend, device):
    for ks in (5, 2001, LARGEST_KS):
        ks = widest(shape, ks, padding_mode)
        gradient = torch.ones(shape, dtype=torch.float64, device=device)
        with Largest() as largest:
            adjoint = ops._adjoint(gradient, 3.0, ks, padding_mode, backend)
        assert largest.elements == gradient.numel()
        # <C x, y> = <x, C* y>
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6)).to(device)
        result = separable_conv2d(x, 3.0, ks, padding_mode, backend=backend)
        torch.testing.assert_close(
            (adjoint * x).sum(), result.sum(), rtol=1e-11, atol=1e-11 * result.abs().sum()
        )
