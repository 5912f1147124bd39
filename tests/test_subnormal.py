"""Numbers so small that a GPU's fast instructions count them as 0: what the compiled kernels make of them."""

import gpu_on_cpu
import numpy as np
import pytest
import torch
from cases import BORDERS, DISTANCES, scattered, weight_error
from tolerances import WEIGHT

import fastlogconv

WHY_NOT = {"triton": gpu_on_cpu.why_no_triton(), "native": gpu_on_cpu.why_no_nvcc() or gpu_on_cpu.why_not()}
TINY = {torch.float16: 1e-6, torch.bfloat16: 1e-39, torch.float32: 1e-42, torch.float64: 1e-310}
# Of bfloat16, float32 and float64 these are subnormal; of float16 those below 6e-5, which float32 holds well.


def compiled_for(name, capability, *marks):
    reason = WHY_NOT[name]
    skipped = pytest.mark.skipif(reason is not None, reason=str(reason))
    return pytest.param((name, capability), marks=[skipped, *marks], id=f"{name}-sm_{capability}")


COMPILED = [
    compiled_for("triton", 80),
    compiled_for("native", 80),
    compiled_for("native", 90, pytest.mark.exhaustive),
]


@pytest.fixture(params=[*COMPILED, compiled_for("triton", 90)])
def compiled(request):
    """A backend's name; within the test its kernels run as compiled for a GPU."""
    yield from served(*request.param)


@pytest.fixture(params=COMPILED)
def compiled_convolution(request):
    """The same; for sm_90 Triton's convolution has wgmma, which the runner of PTX does not know."""
    yield from served(*request.param)


def served(name, capability):
    if name == "triton":
        from gpu_on_cpu.triton_kernels import Emulator
    else:
        from gpu_on_cpu.cuda_kernels import Emulator
    emulator = Emulator(capability=capability)
    with emulator.serving():
        yield name
    assert emulator.records and emulator.races == 0


def soft_masks(dtype):
    """Four regions: of subnormal values, of subnormal ones with normal ones among them, of normal ones."""
    labels = torch.from_numpy(scattered((33, 41), 4, 6, np.random.default_rng(32)))
    values = torch.tensor([0.3, 0.6, 0.9, 1.2], dtype=torch.float64) * TINY[dtype]
    values[3] = 0.5
    masks = torch.stack([(labels == i + 1) * values[i] for i in range(4)])
    masks[1, 10:20] *= 2.0**20
    return masks.to(dtype)


def settings_that_show(dtype):
    """With which a sum of such values makes weights well above fbr."""
    return dict(lmbda=0.01) if dtype == torch.float64 else dict(lmbda=0.35)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("dtype", TINY, ids=str)
def test_values_of_masks_are_not_zero(dtype, distance, border, compiled):
    masks = soft_masks(dtype)
    settings = dict(bws=40, fds=30, distance=distance, border=border, **settings_that_show(dtype))
    weights = fastlogconv.region_weight_map(masks, **settings, backend=compiled)
    expected = fastlogconv.region_weight_map(masks.double(), **settings, backend="reference")
    assert weight_error(weights, expected) <= WEIGHT[dtype]
    without = fastlogconv.region_weight_map(masks[3:].double(), **settings, backend="reference")
    assert weight_error(without, expected) > 0.1  # the others do show


@pytest.mark.parametrize("dtype", TINY, ids=str)
def test_foreground_of_masks(dtype, compiled):
    masks = torch.zeros(2, 5, 40, dtype=dtype)
    masks[0, 2, 3], masks[1, 1, 37] = TINY[dtype], TINY[dtype]
    weights = fastlogconv.region_weight_map(masks, fbr=0.5, bwf=0, backend=compiled)
    assert torch.equal(weights == 1, (masks > 0).any(0))


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("dtype", TINY, ids=str)
def test_distances(dtype, border, compiled):
    """Distances of next to nothing, above and below 0."""
    tiny = TINY[dtype]
    distance = torch.tensor([[tiny, -tiny, 0, 3, tiny], [tiny, -tiny, 5, tiny, -3]], dtype=torch.float64)
    distance = distance[:, None].to(dtype).contiguous()
    for settings in (dict(), dict(bws=1e-3, fds=1e-3), dict(bws=1e-20, fds=1e-20), dict(bws=1e20, fds=1e20)):
        weights = fastlogconv.distance_to_weight(distance, border=border, **settings, backend=compiled)
        expected = fastlogconv.distance_to_weight(
            distance.double(), border=border, **settings, backend="native"
        )
        assert weight_error(weights, expected) <= WEIGHT[dtype]


@pytest.mark.parametrize("fbr, bwf", [(1e-42, 10), (0.1, 1e-42), (1e-42, 1e-42)])
def test_factors(fbr, bwf, compiled):
    """Weights may be as small as the settings make them."""
    labels = torch.zeros(20, 300, dtype=torch.int32)
    labels[3:9, 4:9], labels[11:15, 5:9] = 1, 2
    masks = torch.stack([labels == 1, labels == 2]).float()
    distance = torch.full((2, 20, 300), torch.inf)
    for operator, input in (
        (fastlogconv.weight_map, labels),
        (fastlogconv.region_weight_map, masks),
        (fastlogconv.distance_to_weight, distance),
    ):
        weights = operator(input, fbr=fbr, bwf=bwf, fds=5, bws=5, backend=compiled)
        expected = operator(input.double(), fbr=fbr, bwf=bwf, fds=5, bws=5, backend="reference")
        assert weight_error(weights, expected) <= WEIGHT[torch.float32]
        assert (weights[..., -9:] == np.float32(fbr)).all()  # far from everything, to the bit


@pytest.mark.parametrize("sigma", [1e-30, 1e-4, 1e30])
@pytest.mark.parametrize("distance", DISTANCES)
def test_sigmas(sigma, distance, compiled):
    """Squares of sigmas and their inverses may be subnormal or infinite."""
    labels = torch.zeros(20, 70, dtype=torch.int32)
    labels[3:9, 4:9], labels[11:15, 5:9] = 1, 2
    settings = dict(fds=sigma, bws=sigma, distance=distance, lmbda=1e-6)
    weights = fastlogconv.weight_map(labels, **settings, backend=compiled)
    expected = fastlogconv.weight_map(labels.double(), **settings, backend="native")
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("dtype", TINY, ids=str)
def test_labels_below_one_are_background(dtype, compiled):
    """On the CPU an error; a GPU does not look at values, and takes the whole number towards 0."""
    labels = torch.zeros(20, 70, dtype=dtype)
    labels[3:9, 4:9], labels[11:15, 5:9] = 1, 2
    expected = fastlogconv.weight_map(labels, backend=compiled)
    labels[:2] = TINY[dtype]
    assert torch.equal(fastlogconv.weight_map(labels, backend=compiled), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_convolution(dtype, compiled_convolution):
    """float16's subnormal numbers are as good as others; in float64 subnormal ones are added up, too."""
    input = torch.randn(1, 40, 50, generator=torch.Generator().manual_seed(1)).double()
    input = (input * TINY[dtype]).to(dtype)
    result = fastlogconv.separable_conv2d(input, 0.35, 9, backend=compiled_convolution).double()
    scale = 2.0**900 if dtype == torch.float64 else 1.0  # normal again
    expected = fastlogconv.separable_conv2d(input.double() * scale, 0.35, 9, backend="native") / scale
    expected = expected.to(dtype).double()
    unit = 2.0**-24 if dtype == torch.float16 else 1e-12 * float(expected.abs().max())
    assert (result - expected).abs().max() <= unit
