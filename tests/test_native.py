"""What the native backend alone has: instruction sets, and output written through a raw pointer."""

import numpy as np
import pytest
import torch
from cases import BORDERS, random_case, random_weights64, relative_error, scattered, weight_error
from tolerances import CONVOLUTION, WEIGHT

from fastlogconv import distance_to_weight, region_weight_map, separable_conv2d, weight_map
from fastlogconv.backends import c_interface, native
from fastlogconv.codes import PADDING_MODES


def test_info_names_the_instruction_set(instruction_set):
    assert native.describe()["instruction set"] == instruction_set


def test_unknown_instruction_set():
    with pytest.raises(ValueError, match="no instruction set 'mmx'"):
        native.use_instruction_set("mmx")


def test_weights(instruction_set):
    for seed in range(24):
        labels, settings = random_case(seed)
        for dtype in (torch.float32, torch.float64):
            weights = weight_map(torch.from_numpy(labels).to(dtype), **settings, backend="native")
            assert weight_error(weights, random_weights64(seed)) <= WEIGHT[dtype], f"seed {seed}"


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_convolution(padding_mode, instruction_set):
    generator = torch.Generator().manual_seed(10)
    for shape, lmbda, ks in (((2, 45, 67), 0.35, 73), ((1, 70, 80), 10, 129), ((3, 33, 19), 2, 8)):
        input = torch.randn(shape, dtype=torch.float64, generator=generator)
        expected = separable_conv2d(input, lmbda, ks, padding_mode, backend="reference")
        for dtype in (torch.float32, torch.float64):
            result = separable_conv2d(input.to(dtype), lmbda, ks, padding_mode, backend="native")
            assert relative_error(result, expected) <= CONVOLUTION[dtype]


@pytest.fixture
def guarded_outputs(monkeypatch):
    """Every output lies inside a larger buffer, NaN inside, a mark around; returns the marks."""
    margins = []

    def output(like, shape):
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        n, margin = int(np.prod(shape)), 4099
        buffer = torch.full((n + 2 * margin,), -12345.0, dtype=dtype)
        buffer[margin : margin + n] = torch.nan
        margins.extend((buffer[:margin], buffer[margin + n :]))
        return buffer[margin : margin + n].view(shape)

    monkeypatch.setattr(c_interface, "output", output)
    return margins


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (37, 1), (5, 7), (64, 64), (67, 129), (3, 513)], ids=str)
def test_writes_its_output_and_nothing_else(shape, guarded_outputs, with_threads):
    rng = np.random.default_rng(29)
    labels = torch.from_numpy(np.stack([scattered(shape, 6, 9, rng) for _ in range(3)]))
    masks = (labels == torch.tensor([1, 2, 3])[:, None, None]).double()
    results = []
    for threads in (1, 3):
        with_threads(threads)
        for dtype in (torch.float32, torch.float64):
            for border in BORDERS:
                results.append(weight_map(labels.to(dtype), border=border, backend="native"))
                results.append(region_weight_map(masks.to(dtype), border=border, backend="native"))
                results.append(distance_to_weight(masks.to(dtype), border=border, backend="native"))
            for padding_mode in ("constant", "replicate"):
                results.append(separable_conv2d(masks.to(dtype), 1.0, 73, padding_mode, backend="native"))
    assert len(guarded_outputs) == 2 * len(results)
    assert all((margin == -12345.0).all() for margin in guarded_outputs)
    assert all(result.isfinite().all() for result in results)
