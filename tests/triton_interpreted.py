"""The Triton kernels in Triton's interpreter, on tiny inputs: the whole way from the public functions on.

It has to be switched on before Triton is imported, so test_triton_interpreted.py runs these in a process of
their own: TRITON_INTERPRET=1 python -m pytest tests/triton_interpreted.py
"""

import itertools

import numpy as np
import pytest
import torch
from cases import BORDERS, DISTANCES, relative_error, scattered, two_cells, weight_error
from tolerances import CONVOLUTION, WEIGHT
from torch.library import opcheck
from worst_cases import Case, Rectangle, error

import fastlogconv
from fastlogconv import WeightSettings, backends, ops
from fastlogconv.codes import PADDING_MODES

# Where the border term reaches far, where float32 is not enough, and where terms cancel.
EDGES = (
    dict(lmbda=5.0, bws=1.0, fds=1.0, ks=129),
    dict(lmbda=0.5, bws=1.0, fds=1.0, bwf=1e30),
    dict(distance="euclidean", bws=2.0, bwf=1e30),
    dict(fbr=1e6, fds=1000.0),
)


def labels_of_four():
    return torch.from_numpy(scattered((23, 37), 4, 6, np.random.default_rng(40)))


def test_it_is_chosen_only_by_name():
    assert backends.triton.why_not(torch.device("cpu")) is None
    assert backends.first(torch.device("cpu")) != "triton"
    assert backends.triton.describe()["interpreter"] == "on"


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.int16, torch.int64, torch.uint64, torch.float16, torch.float64]
)
def test_weights_of_every_kind_of_labels(dtype):
    labels = labels_of_four()[None].to(dtype)
    weights = fastlogconv.weight_map(labels, backend="triton")
    expected = fastlogconv.weight_map(labels.double(), backend="reference")
    assert weights.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert weight_error(weights, expected) <= WEIGHT[weights.dtype]


@pytest.mark.parametrize(
    "changes",
    [
        *(dict(border=border, fds=25, ks=31) for border in BORDERS),
        dict(fds=25),
        dict(lmbda=0.1),
        dict(lmbda=20),
        dict(ks=1),
        dict(bwf=0),
    ],
    ids=str,
)
def test_weights_with_other_settings(changes):
    labels, settings = labels_of_four(), WeightSettings(**changes)
    weights = fastlogconv.weight_map(labels, settings=settings, backend="triton")
    expected = fastlogconv.weight_map(labels.double(), settings=settings, backend="reference")
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", EDGES, ids=str)
def test_two_bars_at_the_edge(settings, dtype):
    settings = WeightSettings(**settings)
    bars = [(1.0, [Rectangle(0, 4, 0, 29)]), (1.0, [Rectangle(0, 4, 50, 79)])]
    for kind in ("labels", "regions"):
        assert error(Case(kind, 5, 80, bars, settings), dtype, "triton") <= WEIGHT[dtype]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_weights_with_options(distance, border):
    labels = labels_of_four()
    rng = np.random.default_rng(44)
    classes = torch.from_numpy(np.where(rng.random(labels.shape) < 0.1, rng.integers(-1, 3, labels.shape), 1))
    ignore = torch.from_numpy(rng.random(labels.shape) < 0.1)
    settings = WeightSettings(distance=distance, border=border, bws=20)
    unknown = labels.float().masked_fill(ignore, torch.nan)
    for input, options in ((labels, dict(classes=classes)), (unknown, dict(ignore=ignore))):
        options["settings"] = settings
        weights = fastlogconv.weight_map(input, **options, backend="triton")
        expected = fastlogconv.weight_map(labels.double(), **options, backend="reference")
        assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("border", BORDERS)
def test_weights_by_the_nearest_with_a_foreground_of_its_own(border):
    labels = labels_of_four()
    rng = np.random.default_rng(45)
    foreground = torch.from_numpy(rng.random(labels.shape) < 0.2)
    for options in (dict(gaps=True), dict(foreground=foreground, classes=labels % 3)):
        options |= dict(border=border, falloff="nearest", bws=20)
        weights = fastlogconv.weight_map(labels, **options, backend="triton")
        expected = fastlogconv.weight_map(labels.double(), **options, backend="reference")
        assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.uint64]
    + [torch.float16, torch.bfloat16, torch.float32, torch.float64],
    ids=str,
)
def test_the_two_nearest_of_every_kind_of_labels(dtype):
    labels = labels_of_four()[:9, 3:20].contiguous()
    labels = labels > 2 if dtype == torch.bool else labels.to(dtype)
    distances, ids = fastlogconv.nearest_instances(labels, backend="triton")
    expected = fastlogconv.nearest_instances(labels.to(torch.int64), backend="reference")
    torch.testing.assert_close(distances.double(), expected[0].double(), rtol=2e-7, atol=0)
    assert torch.equal(ids, expected[1])


def test_weights_by_the_two_nearest_in_a_volume():
    labels = torch.stack([labels_of_four()[:9, 3:20]] * 2)
    rng = np.random.default_rng(46)
    classes = torch.from_numpy(rng.integers(0, 3, labels.shape))
    ignore = torch.from_numpy(rng.random(labels.shape) < 0.1)
    options = dict(spatial_dims=3, spacing=(2, 1, 1), preset="unet2019")
    for beside in ({}, dict(classes=classes, ignore=ignore)):
        weights = fastlogconv.weight_map(labels, **options, **beside, backend="triton")
        expected = fastlogconv.weight_map(labels.double(), **options, **beside, backend="reference")
        assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 2), (0, 5), (5, 0)], ids=str)
def test_weights_of_odd_shapes(shape, border):
    labels = torch.arange(shape[0] * shape[1]).reshape(shape) % 3
    for image in (labels, torch.zeros_like(labels), torch.ones_like(labels)):
        weights = fastlogconv.weight_map(image, border=border, backend="triton")
        expected = fastlogconv.weight_map(image.double(), border=border, backend="reference")
        assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_regions(distance, border, dtype):
    labels = labels_of_four()
    masks = torch.stack([labels == 1, labels > 1, labels > 2]).to(dtype)
    if dtype.is_floating_point:
        masks *= torch.tensor([1, 0.3, 1])[:, None, None]
    settings = WeightSettings(distance=distance, border=border, bws=20)
    some = torch.arange(37) % 9 == 2
    for chosen, ignore in itertools.product((masks, masks[:0], masks * 0), (None, some)):
        options = dict(settings=settings, ignore=ignore)
        weights = fastlogconv.region_weight_map(chosen, **options, backend="triton")
        expected = fastlogconv.region_weight_map(chosen.double(), **options, backend="reference")
        assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("border", BORDERS)
def test_distances(border):
    distance = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(41)) * 30
    distance[1, 2:5] = torch.inf
    foreground = distance[0] < 3
    for chosen in (distance, distance[:0]):
        weights = fastlogconv.distance_to_weight(chosen, foreground, border=border, backend="triton")
        expected = fastlogconv.distance_to_weight(
            chosen.double(), foreground, border=border, backend="reference"
        )
        assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_convolution(padding_mode, dtype):
    input = torch.randn(2, 19, 37, dtype=dtype, generator=torch.Generator().manual_seed(42))
    for lmbda, ks in ((0.35, 21), (4.0, 6)):
        result = fastlogconv.separable_conv2d(input, lmbda, ks, padding_mode, backend="triton")
        expected = fastlogconv.separable_conv2d(input.double(), lmbda, ks, padding_mode, backend="reference")
        assert relative_error(result, expected) <= CONVOLUTION[dtype]


def test_gradient_of_the_convolution():
    generator = torch.Generator().manual_seed(43)
    input, upstream = torch.randn(2, 1, 6, 7, dtype=torch.float64, generator=generator)
    for padding_mode in ("constant", "reflect"):
        grads = []
        for backend in ("triton", "reference"):
            leaf = input.clone().requires_grad_()
            fastlogconv.separable_conv2d(leaf, 2.0, 5, padding_mode, backend=backend).backward(upstream)
            grads.append(leaf.grad)
        torch.testing.assert_close(*grads)


def test_operators_under_pytorchs_machinery():
    labels = torch.from_numpy(two_cells())[None]
    opcheck(ops.weight_map, (labels, None, None, None, *WeightSettings(ks=31).values, "triton"))
    opcheck(ops.separable_conv2d, (labels.float().requires_grad_(), 0.35, 31, "constant", "triton"))
    compiled = torch.compile(fastlogconv.weight_map, fullgraph=True, backend="aot_eager")
    expected = fastlogconv.weight_map(labels, backend="triton")
    assert torch.equal(compiled(labels, backend="triton"), expected)
