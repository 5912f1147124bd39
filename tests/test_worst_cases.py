"""What is promised, held on the cases where a backend errs most: found by climbing, not drawn at random."""

import itertools

import gpu_on_cpu
import numpy as np
import oracle
import pytest
import torch
from cases import BORDERS
from tolerances import WEIGHT
from worst_cases import ONLY, Case, Climb, Rectangle, cancelling, error, expected

import fastlogconv
from fastlogconv import WeightSettings

DTYPES = (torch.float32, torch.float64)


@pytest.fixture(autouse=True)
def one_thread(with_threads):
    with_threads(1)


# ------------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_closed_forms_are_the_sums(kind):
    climb = Climb(kind, distance="logconv", falloff="sum", margin=1)
    for _ in range(20):
        parameters = climb.drawn() | dict(height=3, gap=4, thick1=3, thick2=2, ks=5)
        if kind == "regions":
            parameters |= dict(value1=0.3, value2=7.0)
        case = climb.case(parameters)
        masks = np.zeros((len(case.instances), case.height, case.width))
        for mask, (value, rectangles) in zip(masks, case.instances, strict=True):
            for r in rectangles:
                mask[r.top : r.bottom + 1, r.left : r.right + 1] = value
        names = ("border", "bws", "fds", "bwf", "fbr", "lmbda", "ks")
        settings = {name: getattr(case.settings, name) for name in names}
        weights, added = expected(case)
        assert (abs(weights - oracle.region_weight_map(masks, **settings)) <= 1e-12 * added).all()


# ------------------------------------------------------------------------------------------ two bars


# Where the border term reaches farther than the foreground term, and farther than its own Gaussian.
EDGES = (
    dict(lmbda=5.0, bws=1.0, fds=1.0, ks=129),  # 5.66 of 5.76 were lost
    dict(lmbda=1.1, bws=1.0, fds=1.0, ks=None),
    dict(lmbda=3.0, bws=1.0, fds=1.0, ks=74),
    dict(lmbda=20.0, bws=3.0, fds=2.0, ks=None),
    dict(bwf=1e20, bws=3.0, fds=1.0),
    dict(bwf=1e30, bws=2.0, fds=2.0, lmbda=2.0, ks=None),
    dict(fbr=1e30, bws=1.0, fds=3.0, lmbda=2.0),
    dict(fbr=1e6, fds=1000.0),
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_two_bars_at_every_gap(edge, dtype):
    for gap, border, kind in itertools.product(range(1, 140, 3), BORDERS, ("labels", "regions")):
        bars = [(1.0, [Rectangle(0, 8, 3, 22)]), (1.0, [Rectangle(0, 8, 23 + gap, 27 + gap)])]
        case = Case(kind, 9, gap + 30, bars, WeightSettings(border=border, **edge))
        assert error(case, dtype, "native") <= WEIGHT[dtype], case


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_bars_at_the_edge(dtype, backend, device):
    """For every backend, once."""
    bars = [(1.0, [Rectangle(0, 39, 0, 59)]), (1.0, [Rectangle(0, 39, 100, 159)])]
    for kind, border in itertools.product(("labels", "regions"), BORDERS):
        case = Case(kind, 40, 160, bars, WeightSettings(border=border, **EDGES[0]))
        assert error(case, dtype, backend, device) <= WEIGHT[dtype]


# ------------------------------------------------------------------------------- distances that cancel

# A ring and a pixel in it, found by climbing: sums were held by logarithms, which added up the same rounding
# error step by step, to 1.3 of what is promised.
RING = Case(
    "regions", 37, 171,
    [
        (1.9142502531253315e35, [Rectangle(0, 0, 31, 66), Rectangle(35, 35, 31, 66), Rectangle(1, 34, 31, 31),
                                 Rectangle(1, 34, 66, 66)]),
        (1.0, [Rectangle(1, 1, 44, 44)]),
    ],
    WeightSettings(border="farthest", bws=0.1, fds=0.43, bwf=2.192201983229392e29, fbr=0.0,
                   lmbda=3.104086753645176, ks=386),
)  # fmt: skip


def cancelling_cases(*decay_lengths):
    return [RING, *(cancelling(lmbda, seed) for lmbda in decay_lengths for seed in range(6))]


def test_masks_of_any_values(backend, device):
    """Where lmbda ln(value) is at most 10,000 bws."""
    for case in cancelling_cases(0.35, 3.1, 10.0):
        assert error(case, torch.float64, backend, device) <= WEIGHT[torch.float64], case


def test_masks_of_any_values_as_far_as_distances_in_double_tell(instruction_set):
    for case in cancelling_cases(0.35, 3.1, 10.0, 30.0):
        assert error(case, torch.float64, "native") <= 0.5 * WEIGHT[torch.float64], case


@pytest.mark.skipif(gpu_on_cpu.why_not() is not None, reason=str(gpu_on_cpu.why_not()))
def test_masks_of_any_values_by_cuda():
    from gpu_on_cpu.cuda_kernels import load_host_library, serving

    with serving(load_host_library()):
        for case in cancelling_cases(0.35, 3.1, 10.0):
            assert error(case, torch.float64, "native") <= WEIGHT[torch.float64], case


@pytest.mark.skipif(gpu_on_cpu.why_no_triton() is not None, reason=str(gpu_on_cpu.why_no_triton()))
def test_masks_of_any_values_by_triton():
    from gpu_on_cpu.triton_kernels import Emulator

    with Emulator().serving():
        for case in (cancelling(lmbda, seed) for lmbda in (3.1, 10.0) for seed in range(2)):
            assert error(case, torch.float64, "triton") <= WEIGHT[torch.float64], case


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_soft_masks_of_tiny_and_huge_values(dtype, instruction_set):
    """All arithmetic that soft masks are summed in, against sums over pixels."""
    rng = np.random.default_rng(5)
    for lmbda, ks, scale in itertools.product((0.02, 0.35, 40.0), (9, 31), (1e-42, 1e-20, 1.0, 1e12, 1e36)):
        masks = rng.random((3, 17, 21)) * scale * (rng.random((3, 17, 21)) < 0.2)
        masks = masks.astype(np.float32).astype(np.float64)
        masks[:, :4] = 0
        settings = dict(lmbda=lmbda, ks=ks, bws=3.0, fds=2.0, bwf=10.0, fbr=0.1, border="second_nearest")
        expected = oracle.region_weight_map(masks, **settings)
        given = torch.from_numpy(masks).to(dtype)
        result = fastlogconv.region_weight_map(given, **settings, backend="native").double().numpy()
        assert (abs(result - expected) <= WEIGHT[dtype] * np.maximum(expected, 1)).all(), (lmbda, ks, scale)


# -------------------------------------------------------------------------------------------- the climb


def climb(kind, dtype, seed, **limits):
    def score(case):
        found = error(case, dtype, "native") / WEIGHT[dtype]
        assert found <= 1, case
        return found

    worst, case = Climb(kind, seed).run(score, **limits)
    print(f"{kind}, {dtype}: {worst:.2g} of what is promised, by {case}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ONLY)
def test_the_worst_that_climbing_finds(kind, dtype):
    climb(kind, dtype, seed=0, tries=2000)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ONLY)
def test_the_worst_that_a_long_climb_finds(kind, dtype, instruction_set):
    seeds = {"baseline": 1, "avx2": 2, "avx512": 3, "neon": 4}
    climb(kind, dtype, seeds[instruction_set], tries=10_000)
