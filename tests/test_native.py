"""What the native backend alone has: instruction sets, and output written through a raw pointer."""

import numpy as np
import oracle
import pytest
import torch
from cases import (
    BORDERS,
    RULES,
    SHAPE_SETTINGS,
    SHAPES,
    in_turn,
    random_case,
    random_weights64,
    relative_error,
    scattered,
    weight_error,
)
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


def test_falloff_and_foreground(instruction_set):
    """Against the oracle, at random, with classes and pixels to ignore."""
    for seed in range(24):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(1, 44, 2))
        labels = scattered(shape, rng.integers(0, 12), rng.integers(0, 9), rng)
        classes = rng.integers(1, 4, 13)[labels] if seed % 3 else np.ones_like(labels)
        ignore = rng.random(shape) < 0.1 if seed % 2 else np.zeros(shape, dtype=bool)
        foreground = rng.random(shape) < 0.3 if seed % 4 else None
        distance, border = in_turn(RULES, seed)
        settings = dict(
            distance=distance, border=border, falloff=in_turn(("nearest", "sum", "none"), seed),
            lmbda=float(np.exp(rng.uniform(-2, 2))), ks=int(rng.integers(1, 60)) if seed % 5 else None,
            bws=float(rng.uniform(1, 20)), fds=float(rng.uniform(1, 40)), bwf=float(rng.uniform(0, 50)),
            fbr=float(rng.uniform(0, 1)),
        )  # fmt: skip
        expected = oracle.terms_weight_map(
            labels, classes, ignore, foreground, **settings, balance="none", border_everywhere=False
        )
        beside = dict(classes=torch.from_numpy(classes), ignore=torch.from_numpy(ignore))
        if foreground is not None:
            beside["foreground"] = torch.from_numpy(foreground)
        for dtype in (torch.int64, torch.float64):
            weights = weight_map(torch.from_numpy(labels).to(dtype), **beside, **settings, backend="native")
            assert weight_error(weights, expected) <= WEIGHT[weights.dtype], f"seed {seed}"


@pytest.mark.parametrize("name", SHAPES)
def test_falloff_and_foreground_of_shapes(name):
    """Instances in parts, large ones, specks; one instance, and ids that are absent."""
    labels = torch.from_numpy(SHAPES[name]())
    foreground = torch.zeros_like(labels, dtype=torch.bool)
    foreground[::3, ::5] = True
    number = list(SHAPES).index(name)
    for turn, (distance, border) in enumerate(RULES):
        call = dict(in_turn(SHAPE_SETTINGS, number + turn), distance=distance, border=border)
        call |= dict(falloff="nearest", foreground=foreground if turn % 2 or distance == "logconv" else None)
        expected = weight_map(labels.double(), **call, backend="reference")
        for dtype in (torch.float32, torch.float64):
            weights = weight_map(labels.to(dtype), **call, backend="native")
            assert weight_error(weights, expected) <= WEIGHT[dtype]


@pytest.mark.parametrize("border", BORDERS)
def test_nearest_falloff_where_no_border_term_is_alive(border):
    """And where nothing is within the window: the falloff is 0 there, however wide."""
    labels = torch.zeros(9, 60, dtype=torch.int32)
    labels[4, 0] = 2  # 1 is absent
    call = dict(border=border, falloff="nearest", fds=1e16, fbr=0.25, ks=41)
    weights = weight_map(labels, **call, backend="native")
    assert (weights[:, 21:] == 0.25).all() and (weights[:, :21] - 1).abs().max() < 1e-6
    assert (weight_map(labels * 0, **call, backend="native") == 0.25).all()
    exact = weight_map(labels, **call, distance="euclidean", backend="native")
    assert (exact - 1).abs().max() < 1e-6


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
