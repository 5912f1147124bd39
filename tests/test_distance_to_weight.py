import numpy as np
import oracle
import pytest
import torch
from cases import BORDERS, moved, scattered, surrounded, weight_error
from tolerances import REFERENCE, WEIGHT

from fastlogconv import distance_to_weight, weight_map

FLOAT_DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def some_distances(rng, n, shape, out_of_reach=0.3):
    """Distances with a few negative ones, exact in every float type, some +inf."""
    d = rng.integers(-4, 120, (n, *shape)) / 2
    d[rng.random(d.shape) < out_of_reach] = np.inf
    return d


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("with_foreground", [False, True])
@pytest.mark.parametrize("dtype", [*FLOAT_DTYPES, torch.int16, torch.int64], ids=str)
def test_against_brute_force(dtype, with_foreground, n, border, backend, device):
    rng = np.random.default_rng(22 + n)
    d = some_distances(rng, n, (14, 19), 0.3 if dtype.is_floating_point else 0.0)
    d = d if dtype.is_floating_point else np.floor(d)
    foreground = rng.random((14, 19)) < (0.3 if with_foreground else 0.0)
    settings = dict(border=border, bws=7, fds=12, bwf=4, fbr=0.2)
    expected = oracle.weights(d, foreground, **settings)
    weights = distance_to_weight(
        torch.from_numpy(d).to(device, dtype),
        torch.from_numpy(foreground).to(device) if with_foreground else None,
        **settings,
        backend=backend,
    )
    assert weights.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert weights.is_contiguous()
    tolerance = REFERENCE if backend == "reference" and weights.dtype in REFERENCE else WEIGHT
    assert weight_error(weights, expected) <= tolerance[weights.dtype]


@pytest.mark.parametrize("sigma", [1, 10, 40])
@pytest.mark.parametrize("border", BORDERS)
def test_sigmas(border, sigma, backend, device):
    rng = np.random.default_rng(23)
    d = np.abs(rng.normal(0, 3 * sigma, (6, 50, 60)))
    settings = dict(border=border, bws=sigma, fds=sigma, bwf=50, fbr=0.05)
    for dtype in (torch.float32, torch.float64):
        distance = torch.from_numpy(d).to(dtype)
        expected = oracle.weights(distance.double().numpy(), False, **settings)
        weights = distance_to_weight(distance.to(device), **settings, backend=backend)
        assert weight_error(weights, expected) <= WEIGHT[dtype]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(
    "near, other",
    [(-1e30, 1e25), (-1e25, 1e30), (-3e38, 3e38), (-1e20, 1e20), (-1e6, 1e6 + 5), (-300, 312), (1e30, 3e38)]
    + [(-5e18, np.inf), (-1e-30, 1e-38)],
    ids=str,
)
def test_distances_that_cancel(near, other, border, backend, device):
    d = np.array([near, other], dtype=np.float32).reshape(2, 1, 1).astype(np.float64)
    settings = dict(border=border, bws=7, fds=12, bwf=4, fbr=0.2)
    expected = oracle.weights(d, False, **settings)
    for dtype in (torch.float32, torch.float64):
        weights = distance_to_weight(torch.from_numpy(d).to(device, dtype), **settings, backend=backend)
        assert weight_error(weights, expected) <= WEIGHT[dtype]


@pytest.mark.parametrize("bwf", [1e5, 1e12, 1e30])
def test_large_border_factors(bwf, backend, device):
    d = np.random.default_rng(26).uniform(0, 60, (2, 30, 40)).astype(np.float32).astype(np.float64)
    settings = dict(border="second_nearest", bws=7, fds=12, bwf=bwf, fbr=0.2)
    expected = oracle.weights(d, False, **settings)
    for dtype in (torch.float32, torch.float64):
        weights = distance_to_weight(torch.from_numpy(d).to(device, dtype), **settings, backend=backend)
        assert weight_error(weights, expected) <= WEIGHT[dtype]


def test_distances_of_pixels_give_the_weight_map(backend, device):
    labels = np.zeros((30, 40), dtype=np.int64)
    positions = [(3, 4), (10, 30), (25, 12), (11, 31)]
    for i, position in enumerate(positions, start=1):
        labels[position] = i
    y, x = np.indices(labels.shape)
    city_block = torch.from_numpy(np.stack([abs(y - py) + abs(x - px) for py, px in positions]))
    labels = torch.from_numpy(labels)
    weights = distance_to_weight(city_block.to(device), (labels > 0).to(device), backend=backend)
    expected = weight_map(labels.double(), ks=129, backend="reference")
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("border", BORDERS)
def test_out_of_reach_everywhere_gives_fbr(border, backend, device):
    distance = torch.full((3, 5, 6), torch.inf, device=device)
    weights = distance_to_weight(distance, border=border, backend=backend)
    assert torch.equal(weights, torch.full((5, 6), 0.1, device=device))


@pytest.mark.parametrize("shape", [(0, 5, 6), (0, 0, 0), (2, 0, 6), (2, 5, 0)], ids=str)
def test_empty(shape, backend, device):
    foreground = torch.zeros(shape[1:], dtype=torch.bool, device=device)
    foreground[:2] = True
    weights = distance_to_weight(torch.zeros(shape, device=device), foreground, fbr=0.3, backend=backend)
    expected = torch.full(shape[1:], 0.3, device=device)
    expected[:2] = 1
    assert torch.equal(weights, expected)


def test_views(backend, device):
    rng = np.random.default_rng(24)
    distance = torch.from_numpy(some_distances(rng, 4, (15, 21))).float()
    foreground = torch.from_numpy(scattered((15, 21), 3, 4, rng) > 0)
    expected = distance_to_weight(distance.to(device), foreground.to(device), backend=backend)
    for d, f in (
        (surrounded(distance, torch.nan), surrounded(foreground, True)),
        (distance.permute(1, 2, 0).contiguous().permute(2, 0, 1), foreground.T.contiguous().T),
    ):
        weights = distance_to_weight(moved(d, device), moved(f, device), backend=backend)
        assert weights.is_contiguous()
        assert torch.equal(weights, expected)


def test_bitwise_the_same_for_any_number_of_threads(same_for_any_number_of_threads, backend, device):
    distance = torch.from_numpy(some_distances(np.random.default_rng(25), 9, (203, 301))).float().to(device)
    assert same_for_any_number_of_threads(lambda: distance_to_weight(distance, backend=backend))
