import numpy as np
import pytest
import torch
from cases import golden, relative_error, surrounded
from scipy.ndimage import correlate1d
from tolerances import CONVOLUTION

from fastlogconv import separable_conv2d
from fastlogconv.codes import PADDING_MODES

# The same rules at the edge under SciPy's names.
SCIPY_MODES = {"constant": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap"}


def by_scipy(input, lmbda, ks, padding_mode):
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
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 40), (2, 40, 1), (1, 5, 7)], ids=str)
def test_kernel_larger_than_the_image(shape, padding_mode, backend, device):
    input = np.random.default_rng(27).normal(size=shape)
    expected = by_scipy(input, 3.0, 129, padding_mode)
    result = separable_conv2d(torch.from_numpy(input).to(device), 3.0, 129, padding_mode, backend=backend)
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
    seen, input = seen.to(device), input.contiguous().to(device)
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


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(
    "shape, ks", [((1, 4, 5), 5), ((1, 3, 3), 5), ((2, 2, 4), 2), ((2, 3, 2), 1)], ids=str
)
def test_gradients(shape, ks, padding_mode, backend, device):
    input = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).to(device)
    input.requires_grad_()

    def convolve(input):
        return separable_conv2d(input, 1.3, ks, padding_mode, backend=backend)

    if padding_mode == "reflect" and ks // 2 >= min(shape[1:]):
        ks = 2 * min(shape[1:]) - 1
    assert torch.autograd.gradcheck(convolve, (input,))
    assert torch.autograd.gradgradcheck(convolve, (input,))


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
        separable_conv2d(leaf, 2.0, 7, padding_mode, backend=backend).sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0].dtype == dtype
    assert relative_error(gradients[0], gradients[1].cpu()) <= 4 * CONVOLUTION[dtype]


def test_no_gradient_asked_no_graph(backend, device):
    input = torch.zeros(1, 5, 5, device=device)
    assert not separable_conv2d(input, 1.0, 3, backend=backend).requires_grad
    with torch.no_grad():
        assert not separable_conv2d(input.requires_grad_(), 1.0, 3, backend=backend).requires_grad
    assert separable_conv2d(input, 1.0, 3, backend=backend).requires_grad
