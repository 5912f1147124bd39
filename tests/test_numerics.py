"""The numbers that decide how far one looks and what counts as 0, against float64 at their edges."""

import dataclasses
import itertools
import math

import numpy as np
import oracle
import pytest
from cases import BORDERS, DISTANCES, disk

from fastlogconv import WeightSettings, numerics
from fastlogconv.numerics import ARITHMETICS, numbers_for
from fastlogconv.settings import LARGEST_FACTOR, LARGEST_KS, PRESETS

SIGMAS = (0.3, 1.0, 6.0, 10.0, 40.0, 300.0)
FACTORS = (0.0, 0.1, 1.0, 10.0, 49.0, 51.0, 1e5, LARGEST_FACTOR)
LENGTHS = (1e-3, 0.1, 0.35, 1.0, 5.0, 10.0, 60.0)
KERNELS = tuple(ARITHMETICS)  # ("cpu" or "gpu", whether results are float64)


def some_settings():
    """Settings over their ranges, each value of each with several of the others."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        yield WeightSettings(
            distance=str(rng.choice(DISTANCES)),
            border=str(rng.choice(BORDERS)),
            bws=float(rng.choice(SIGMAS)),
            fds=float(rng.choice(SIGMAS)),
            bwf=float(rng.choice(FACTORS)),
            fbr=float(rng.choice(FACTORS)),
            lmbda=float(rng.choice(LENGTHS)),
            ks=[None, 1, 8, 73, 129][rng.integers(5)],
        )


# ------------------------------------------------------------------------------------------- the formulas


@pytest.mark.parametrize("sigma", SIGMAS)
def test_gaussians(sigma):
    d = 1.7 * sigma
    exact = math.exp(-(d**2) / (2 * sigma**2))
    assert 2 ** (numerics.gaussian_exponent(sigma) * d**2) == pytest.approx(exact, rel=1e-14)
    for factor, epsilon in itertools.product(FACTORS, (1e-5, 2.0**-36, 2.0**-60)):
        reach = numerics.gaussian_reach(sigma, factor, epsilon)
        assert max(factor, 1) * math.exp(-(reach**2) / (2 * sigma**2)) == pytest.approx(epsilon, rel=1e-9)


@pytest.mark.parametrize("decay_length", [*LENGTHS, 1e6])
@pytest.mark.parametrize("count", [0, 1, 2, 36, 1000])
def test_geometric_sums(decay_length, count):
    exact = math.fsum(math.exp(-t / decay_length) for t in range(count + 1))
    assert numerics.geometric_sum(decay_length, count) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("sigma", [1.0, 10.0, 40.0])
@pytest.mark.parametrize("beyond", [2.0, 6.0])
def test_crowds(sigma, beyond):
    """One-pixel instances on all pixels farther away than some sigmas, on a large image."""
    limit = beyond * sigma
    y, x = np.indices((601, 601)) - 300
    square = y**2 + x**2
    terms = np.exp(-square[square >= limit**2] / (2 * sigma**2)).sum() / math.exp(-(beyond**2) / 2)
    assert terms <= 1.1 * numerics.crowd_beyond(sigma, 601, 601)
    assert numerics.crowd_beyond(sigma, 3, 5) <= 15


# --------------------------------------------------------------------------------------- how far one looks


def shapes():
    """Instances [H, W] of all kinds, among them those that fill every window."""
    rng = np.random.default_rng(1)
    full = np.zeros((17, 41), dtype=bool)
    full[:, :20] = True
    speckle = full & (rng.random(full.shape) < 0.4)
    one = np.zeros_like(full)
    one[8, 3] = True
    bar = np.zeros_like(full)
    bar[:, 5] = True
    return [full, speckle, one, bar, disk(full.shape, 8, 9, 7)]


@pytest.mark.parametrize("lmbda", [0.1, 0.35, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("ks", [3, 9, 31, 79])
def test_no_distance_is_below_its_steps_less_the_slack(lmbda, ks):
    """What `limit` is derived from; an instance that fills its windows comes near it."""
    numbers = numbers_for(WeightSettings(lmbda=lmbda, ks=ks), 17, 41, "cpu", True)
    slack = 2 * lmbda * math.log(numbers.largest_sum)
    least = math.inf
    for instance in shapes():
        d = oracle.distances(instance[None].astype(np.float64), lmbda, ks)[0]
        steps = 0  # to the bounding box
        for positions, of_instance in zip(np.indices(instance.shape), instance.nonzero(), strict=True):
            first, last = of_instance.min(), of_instance.max()
            steps = steps + np.maximum(np.maximum(first - positions, positions - last), 0)
        least = min(least, (d - steps)[np.isfinite(d)].min() + slack)
    assert least >= -1e-9
    assert least <= (1e-9 if ks <= 9 else slack)  # such a window is filled


@pytest.mark.parametrize("kernels, double", KERNELS)
def test_beyond_the_limit_nothing_is_added(kernels, double):
    """Either term is below epsilon from there on, and one of them is not a little before."""
    for settings in some_settings():
        if settings.distance != "logconv":
            continue
        numbers = numbers_for(settings, 3000, 2000, kernels, double)
        epsilon = ARITHMETICS[kernels, numbers.double_inside].negligible
        slack = 2 * numbers.decay_length * math.log(numbers.largest_sum)

        def terms(steps, settings=settings, slack=slack):
            nearest = max(steps - slack, 0)
            foreground = abs(1 - settings.fbr) * math.exp(-(nearest**2) / (2 * settings.fds**2))
            both = max(steps - 2 * slack, 0)
            factor = max(settings.bwf, numerics.USUAL_BORDER_FACTOR)
            return foreground, factor * math.exp(-(both**2) / (2 * settings.bws**2))

        assert max(terms(numbers.limit * (1 + 1e-12))) <= epsilon * (1 + 1e-6)
        assert max(terms(numbers.limit * 0.99, settings.replace(fbr=max(settings.fbr, 2.0)))) > epsilon


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kernels", ["cpu", "gpu"])
def test_beyond_the_limit_of_exact_distances(kernels, double):
    half_bit = {False: 2.0**-25, True: 2.0**-54}[double]
    for settings in some_settings():
        settings = settings.replace(distance="euclidean")
        numbers = numbers_for(settings, 3000, 2000, kernels, double)
        foreground = abs(1 - settings.fbr) * math.exp(-(numbers.limit**2) / (2 * settings.fds**2))
        border = settings.bwf * math.exp(-(numbers.limit**2) / (2 * settings.bws**2))
        crowd = numerics.crowd_beyond(settings.fds, 3000, 2000)
        assert max(foreground, border) <= half_bit
        assert foreground * crowd <= 2.0**-17


@pytest.mark.parametrize("kernels, double", KERNELS)
def test_reach_and_windows(kernels, double):
    for settings, (height, width) in itertools.product(some_settings(), [(1, 1), (3, 700), (512, 512)]):
        numbers = numbers_for(settings, height, width, kernels, double)
        longest = max(height, width)
        if settings.distance == "euclidean":
            assert 0 <= numbers.cut_radius <= longest - 1 or longest == 1
            assert numbers.radius == numbers.reach <= math.ceil(math.hypot(height, width))
            assert numbers.reach >= min(numbers.limit, math.hypot(height, width))
        else:
            assert numbers.radius == min(settings.radius, longest - 1)
            assert numbers.reach <= numbers.cut_radius <= numbers.radius
            assert numbers.reach >= min(numbers.limit, numbers.radius)


@pytest.mark.parametrize("lmbda", [0.1, 0.35, 1.0, 5.0])
@pytest.mark.parametrize("kernels, double", KERNELS)
def test_what_is_cut_off_a_window_does_not_show(kernels, double, lmbda):
    """Beside the nearest pixel of an instance at the limit: all beyond cut_radius along an axis."""
    settings = WeightSettings(lmbda=lmbda, ks=None, bws=2, fds=3)
    numbers = numbers_for(settings, 4000, 4000, kernels, double)
    assert numbers.cut_radius < numbers.radius
    one_axis = math.exp(-(numbers.cut_radius + 1) / lmbda) / -math.expm1(-1 / lmbda)
    beyond = 4 * one_axis * numbers.largest_sum
    nearest = math.exp(-numbers.limit / lmbda)
    tail = ARITHMETICS[kernels, numbers.double_inside].tail
    assert beyond / nearest <= 40 * math.exp(-tail)  # e^-20 is 2e-9


# ------------------------------------------------------------------------------------------------- scales


@pytest.mark.parametrize("lmbda", LENGTHS)
@pytest.mark.parametrize("ks", [None, 1, 9, 73, 129])
def test_scaled_sums_fit_a_float(lmbda, ks):
    for sigma in SIGMAS:
        settings = WeightSettings(lmbda=lmbda, ks=ks, bws=sigma, fds=sigma)
        numbers = numbers_for(settings, 512, 512, "gpu", False)
        largest = 2 * math.log2(numbers.largest_sum) + 2 * numbers.scale_exponent
        assert largest < 128
        lowest = min(2 * numbers.cut_radius * numbers.bits_per_step, numbers.bits_that_matter)
        more = 2 * (numbers.scale_exponent + 1) + math.ceil(2 * math.log2(numbers.largest_sum))
        assert 2 * numbers.scale_exponent - lowest >= -126 or more > numerics.BITS_ABOVE


@pytest.mark.parametrize("sigma", SIGMAS)
def test_scales_of_distances(sigma):
    settings = WeightSettings(fds=sigma, bws=3 * sigma)
    numbers = numbers_for(settings, 64, 64, "gpu", False)
    d, both = 0.8 * sigma, 2.1 * sigma
    foreground, border = math.exp(-(d**2) / (2 * sigma**2)), math.exp(-(both**2) / (2 * (3 * sigma) ** 2))
    assert 2 ** -((numbers.step_scale * d) ** 2) == pytest.approx(foreground, rel=1e-14)
    scaled = (numbers.step_scale * both) ** 2 * numbers.border_scale
    assert 2**-scaled == pytest.approx(border, rel=1e-14)
    assert numbers.bits_per_step == pytest.approx(1 / (settings.lmbda * math.log(2)), rel=1e-15)


def test_double_inside():
    for kernels, most in (("cpu", 1.0), ("gpu", 0.7)):
        for lmbda, sigma in itertools.product(LENGTHS, SIGMAS):
            settings = WeightSettings(lmbda=lmbda, bws=sigma, fds=2 * sigma)
            for chosen in (settings, settings.replace(bws=2 * sigma, fds=sigma)):
                assert numbers_for(chosen, 99, 99, kernels, False).double_inside == (lmbda > most * sigma)
                assert numbers_for(chosen, 99, 99, kernels, True).double_inside


def test_double_inside_for_large_border_factors():
    """What float32 loses of a border term of 1: by how much its distances and their squares err."""
    for kernels, most in (("cpu", 1.0), ("gpu", 0.7)):
        for distance, lmbda, bwf in itertools.product(
            DISTANCES, LENGTHS, np.geomspace(50, LARGEST_FACTOR, 40)
        ):
            settings = WeightSettings(distance, bws=10, fds=40, lmbda=lmbda, bwf=float(bwf))
            numbers = numbers_for(settings, 99, 99, kernels, False)
            in_lmbdas = 11 if kernels == "cpu" else 16 + 2 * math.log(2) * numbers.scale_exponent
            decay = 0 if distance == "euclidean" else lmbda / 10
            x = math.sqrt(2 * math.log(bwf))
            of_exponent = 1 if kernels == "cpu" else 2
            lost = 2**-22 * (in_lmbdas * decay * x + of_exponent * x**2)
            assert numbers.double_inside == (decay > most or lost > 1e-5)
            assert numbers_for(settings, 99, 99, kernels, True).double_inside


def test_double_inside_where_scales_cost_too_much():
    """On GPUs, with one sigma far larger than the other: sums far below 1 matter, so they are scaled much."""
    settings = WeightSettings(lmbda=0.41, bws=66, fds=0.72, bwf=1, ks=None)
    for chosen in (settings, settings.replace(bws=0.72, fds=66)):
        assert numbers_for(chosen, 99, 99, "gpu", False).double_inside
        assert not numbers_for(chosen, 99, 99, "cpu", False).double_inside
        assert not numbers_for(chosen.replace(bws=0.72, fds=0.72), 99, 99, "gpu", False).double_inside
    for usual in PRESETS:
        assert not numbers_for(WeightSettings.preset(usual), 512, 512, "gpu", False).double_inside


EXTREMES = dict(
    bws=(5e-324, 1e-160, 1e-3, 1e160, 1.7e308),
    fds=(5e-324, 1e-160, 1e-3, 1e160, 1.7e308),
    bwf=(0.0, 5e-324, LARGEST_FACTOR),
    fbr=(0.0, 5e-324, 1.0, LARGEST_FACTOR),
    lmbda=(5e-324, 1e-13, 1e-3, 1e160, 1.7e308),
    ks=(1, LARGEST_KS, None),
)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("size", [(0, 0), (1, 1), (7, 9), (2**30, 2**30)])
def test_whatever_is_allowed_gives_numbers(distance, size):
    pairs = itertools.combinations(EXTREMES, 2)
    for (one, ones), (other, others) in (((a, EXTREMES[a]), (b, EXTREMES[b])) for a, b in pairs):
        for a, b, (kernels, double) in itertools.product(ones, others, KERNELS):
            settings = WeightSettings(distance, **{one: a, other: b})
            numbers = numbers_for(settings, *size, kernels, double)
            values = dataclasses.asdict(numbers)
            assert all(math.isfinite(value) for value in values.values()), (settings, values)
            assert all(value >= 0 for name, value in values.items() if not name.endswith("exponent")), values
            assert 0 <= numbers.scale_exponent <= 63
            assert max(numbers.radius, numbers.reach, numbers.cut_radius) < 2**31
