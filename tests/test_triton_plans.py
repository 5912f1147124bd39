"""In which way and in which tiles the Triton kernels weigh: no GPU and no Triton is needed to say so."""

import itertools
import math

import numpy as np
import pytest
from cases import DISTANCES

from fastlogconv import WeightSettings
from fastlogconv.backends.triton_plans import TILES, blocks, plan_labels, plan_regions
from fastlogconv.codes import BAND_BITS, CELL, WAYS
from fastlogconv.numerics import scaled_float_suffices


@pytest.mark.parametrize(
    "changes, double, way, of_regions",
    [
        (dict(), False, "scaled", "chunk_scaled"),
        (dict(fds=25), False, "chunk_scaled", "chunk_scaled"),
        (dict(lmbda=0.27), False, "chunk_scaled", "logarithmic"),  # with values 2^24 apart, too
        (dict(lmbda=0.1), False, "logarithmic", "logarithmic"),  # terms of one chunk span more than a float
        (dict(lmbda=8), False, "logarithmic", "logarithmic"),  # float32 would lose too much: 8 > 0.7 fds
        (dict(), True, "logarithmic", "logarithmic"),
        (dict(distance="euclidean"), False, "euclidean", "euclidean"),
        (dict(distance="euclidean"), True, "euclidean", "euclidean"),
    ],
)
def test_the_way(changes, double, way, of_regions):
    settings = WeightSettings(**changes)
    assert plan_labels(settings, 512, 512, double).way == way
    assert plan_regions(settings, 512, 512, double).way == of_regions  # masks may hold any values
    assert {way, of_regions} <= set(WAYS)


def plans(plan_of, least_lmbda, seed):
    """Random settings, and the plan of an image of random size."""
    rng = np.random.default_rng(seed)
    for _ in range(300):
        lmbda, bws, fds = np.exp(rng.uniform(np.log((least_lmbda, 1, 1)), np.log((5, 40, 40))))
        settings = WeightSettings(lmbda=lmbda, bws=bws, fds=fds, ks=int(rng.integers(1, 300)))
        yield settings, plan_of(settings, *(int(n) for n in rng.integers(1, 600, 2)), False)


def test_scaled_sums_of_regions_are_floats():
    """Of values from 2^-BAND_BITS to 4 in a chunk, and so are the second parts of what is multiplied."""
    chosen = set()
    for settings, plan in plans(plan_regions, least_lmbda=0.1, seed=71):
        chosen.add(plan.way)
        if plan.way == "logarithmic":
            continue
        numbers, exponent = plan.numbers, plan.scale_exponent
        rows, columns = min(numbers.radius, plan.tile.rows - 1), min(numbers.radius, CELL - 1)
        apart = BAND_BITS + 11  # TF32 has eleven bits
        assert 2 * exponent - (rows + columns) * numbers.bits_per_step - apart >= -126
        assert exponent - columns * numbers.bits_per_step - apart >= -126
        assert 2 * exponent + 2 * math.log2(numbers.largest_sum) + 2 < 128
        assert scaled_float_suffices(settings, numbers, exponent)
    assert chosen == {"chunk_scaled", "logarithmic"}


def test_scaled_sums_are_floats():
    chosen = set()
    for _, plan in plans(plan_labels, least_lmbda=0.02, seed=70):
        chosen.add(plan.way)
        numbers, exponent = plan.numbers, plan.scale_exponent
        if plan.way == "logarithmic":
            assert exponent == 0
            continue
        steps_y, steps_x = numbers.cut_radius, numbers.cut_radius
        if plan.way == "chunk_scaled":  # beyond a chunk, the shift makes up for all steps
            steps_y, steps_x = min(numbers.radius, plan.tile.rows - 1), min(numbers.radius, CELL - 1)
        smallest = min((steps_y + steps_x) * numbers.bits_per_step, numbers.bits_that_matter)
        smallest_along = min(max(steps_y, steps_x) * numbers.bits_per_step, numbers.bits_that_matter)
        assert 2 * exponent - smallest >= -126
        assert exponent - smallest_along >= -126
        assert 2 * exponent + 2 * math.log2(numbers.largest_sum) < 128
    assert chosen == {"scaled", "chunk_scaled", "logarithmic"}


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("shape", [(1, 1), (33, 700), (512, 512)], ids=str)
def test_there_are_lists_enough(distance, shape):
    """For every tile, counted one by one."""
    settings, tile = WeightSettings(distance=distance), TILES[distance]
    plan = plan_labels(settings, *shape, False)

    def most_cells(size, side):
        radius, most = plan.numbers.cut_radius, 0
        for first in range(0, blocks(size, side) * side, side):
            above, below = max(first - radius, 0), min(first + side - 1 + radius, size - 1)
            most = max(most, below // CELL - above // CELL + 1)
        return most

    needed = most_cells(shape[0], tile.height) * most_cells(shape[1], tile.width)
    assert plan.feasible and needed <= plan.lists <= max(32, 4 * needed)


def test_a_reach_too_large_is_left_to_the_reference():
    for planned, (height, width) in itertools.product((plan_labels, plan_regions), ((5000, 5000), (64, 64))):
        plan = planned(WeightSettings(fds=1e4, ks=None), height, width, False)
        assert plan.feasible == (height == 64)
