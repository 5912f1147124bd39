"""`region_weight_map` by what Triton compiles for a GPU, on the CPU."""

import gpu_on_cpu
import numpy as np
import pytest
import torch
from cases import BORDERS, DISTANCES, scattered, weight_error
from test_triton_compiled import margins
from tolerances import WEIGHT

import fastlogconv
from fastlogconv import WeightSettings

pytestmark = pytest.mark.skipif(
    gpu_on_cpu.why_no_triton() is not None, reason=str(gpu_on_cpu.why_no_triton())
)


@pytest.fixture
def emulator():
    from gpu_on_cpu.triton_kernels import Emulator

    return Emulator()


def test_regions(emulator, monkeypatch):
    labels = torch.from_numpy(scattered((53, 61), 5, 9, np.random.default_rng(32)))
    masks = torch.stack([(labels == i) * (0.2 * i) for i in range(6)]).float()  # the first is empty
    masks[2] = torch.maximum(masks[2], masks[3])
    with emulator.serving(), margins(monkeypatch):
        weights = fastlogconv.region_weight_map(masks, backend="triton")
    expected = fastlogconv.region_weight_map(masks.double(), backend="reference")
    assert emulator.races == 0
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30])
def test_scale_of_regions(scale, emulator):
    """Subnormal values are not 0."""
    labels = torch.from_numpy(scattered((33, 41), 3, 6, np.random.default_rng(32)))
    masks = torch.stack([(labels == i) * (0.2 * i * scale) for i in range(1, 4)]).float()
    settings = WeightSettings(bws=40, fds=30)
    with emulator.serving():
        weights = fastlogconv.region_weight_map(masks, settings=settings, backend="triton")
    expected = fastlogconv.region_weight_map(masks.double(), settings=settings, backend="reference")
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ks, lmbda", [(73, 0.35), (15, 2.0), (73, 0.1)], ids=str)
def test_regions_of_values_that_differ_much(ks, lmbda, dtype, emulator, monkeypatch):
    """In one chunk: from the least subnormal number on, so that each band of them shows somewhere."""
    rng = np.random.default_rng(38)
    shape = (4, 45, 70)
    masks = np.exp2(rng.uniform(-149, 2, shape)) * (rng.random(shape) < 0.03)
    masks[0] = np.exp2(rng.integers(-149, 3, shape[1:])) * (rng.random(shape[1:]) < 0.01)
    masks[1, 20:28, 30:62] = np.exp2(-np.linspace(0, 149, 256)).reshape(8, 32)
    masks = torch.from_numpy(masks).to(dtype)
    assert (masks.float() > 0).sum() > (masks.float() >= 2.0**-126).sum()  # some are subnormal
    settings = WeightSettings(bws=30, fds=25, lmbda=lmbda, ks=ks)
    with emulator.serving(), margins(monkeypatch):
        weights = fastlogconv.region_weight_map(masks, settings=settings, backend="triton")
    assert emulator.races == 0
    expected = fastlogconv.region_weight_map(masks.double(), settings=settings, backend="reference")
    assert weight_error(weights, expected) <= WEIGHT[dtype]


@pytest.mark.parametrize(
    "dtype, width",
    [(torch.bool, 48), (torch.bool, 34), (torch.float16, 40), (torch.float32, 36), (torch.float32, 1)]
    + [
        pytest.param(dtype, width, marks=pytest.mark.exhaustive)
        for dtype in (torch.uint8, torch.bfloat16, torch.float64)
        for width in (1, 30, 34, 36, 40, 48)
    ],
    ids=str,
)
def test_regions_by_words_of_any_size(dtype, width, emulator, monkeypatch):
    """As much of a row at once as alignment, strides and width allow; of views, too."""
    rng = np.random.default_rng(39)
    masks = torch.from_numpy(rng.random((3, 35, width)) < 0.02)
    ignore = torch.from_numpy(rng.random((35, width)) < 0.1)
    expected = fastlogconv.region_weight_map(masks.double(), ignore=ignore, backend="reference")
    wider, shifted = torch.zeros(2, 3, 35, width + 4, dtype=dtype)
    wider[..., :width], shifted[..., 1 : width + 1] = masks.to(dtype), masks.to(dtype)
    transposed = masks.to(dtype).mT.contiguous().mT
    for mask in (masks.to(dtype), wider[..., :width], shifted[..., 1 : width + 1], transposed):
        with emulator.serving(), margins(monkeypatch):
            weights = fastlogconv.region_weight_map(mask, ignore=ignore, backend="triton")
        assert weight_error(weights, expected) <= WEIGHT[weights.dtype]
    assert emulator.races == 0


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_options_of_regions(distance, border, emulator, monkeypatch):
    labels = torch.from_numpy(scattered((53, 61), 5, 9, np.random.default_rng(32)))
    masks = torch.stack([(labels == i) * (0.2 * i) for i in range(1, 5)]).float()
    ignore = torch.from_numpy(scattered((53, 61), 3, 6, np.random.default_rng(33)) > 0)
    masks[1] = torch.maximum(masks[1], masks[2])
    masks[0].masked_fill_(ignore, torch.nan)
    options = dict(settings=WeightSettings(distance=distance, border=border, bws=30), ignore=ignore)
    with emulator.serving(), margins(monkeypatch):
        weights = fastlogconv.region_weight_map(masks, **options, backend="triton")
    assert emulator.races == 0
    expected = fastlogconv.region_weight_map(masks.double(), **options, backend="reference")
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]
