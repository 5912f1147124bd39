"""How far tiles may be from the whole image: the worst case is looked for."""

import numpy as np
import pytest
import torch
from cases import scattered
from tiles import error, whole
from tolerances import WEIGHT

import fastlogconv
from fastlogconv import large
from fastlogconv.backends import native
from fastlogconv.rules import DISTANCES

PROMISED = {"int32": WEIGHT[torch.float32], "float64": WEIGHT[torch.float64]}


def _tile_and_whole(labels, corner, size, settings):
    """The same pixels computed as `large` does, from a tile with its surroundings, and in one piece."""
    (top, left), (bottom, right) = corner, np.minimum(np.add(corner, size), labels.shape)
    expected = whole(labels, **settings)
    rows, columns = large._reach(fastlogconv.WeightSettings(**settings), expected.dtype, labels.shape)
    above, before = max(top - rows, 0), max(left - columns, 0)
    tile = whole(np.ascontiguousarray(labels[above : bottom + rows, before : right + columns]), **settings)
    region = np.s_[top - above : bottom - above, left - before : right - before]
    return tile[region], expected[top:bottom, left:right]


def _crowd(shape, seed, density):
    """Instances of one pixel, all over."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, 2**15, shape) * (rng.random(shape) < density)


def _start(rng):
    """A scene, a tile of it, and settings."""
    return dict(
        shape=rng.integers(40, 120, 2), seed=rng.integers(2**31), count=rng.integers(2, 60),
        radius=rng.integers(1, 15), crowded=rng.random() < 0.3, corner=rng.integers(0, 80, 2),
        size=rng.integers(1, 80, 2), ks=rng.integers(1, 130), fbr=rng.random(),
        **{name: float(np.exp(rng.uniform(*np.log(limits)))) for name, limits in RANGES.items()},
    )  # fmt: skip


RANGES = dict(lmbda=(0.1, 10), bws=(1, 40), fds=(1, 40), bwf=(0.1, 50))  # those of docs/backends.md
LARGEST = dict(ks=129, count=60, radius=15)


def _neighbour(start, rng):
    """With one to three of its numbers changed, mostly a little."""
    changed = dict(start)
    for name in rng.choice(list(start), rng.integers(1, 4), replace=False):
        value = start[name]
        if name in RANGES:
            changed[name] = float(np.clip(value * np.exp(0.2 * rng.normal()), *RANGES[name]))
        elif name in LARGEST:
            changed[name] = np.clip(value + rng.integers(-4, 5), 1, LARGEST[name])
        elif name in ("shape", "corner", "size"):
            changed[name] = np.clip(value + rng.integers(-6, 7, 2), 40 if name == "shape" else 1, 120)
        else:
            changed[name] = _start(rng)[name]
    return changed


def _difference(case, distance, dtype):
    shape, seed = case["shape"], case["seed"]
    if case["crowded"]:
        labels = _crowd(shape, seed, case["count"] / 600)
    else:
        labels = scattered(shape, case["count"], case["radius"], np.random.default_rng(seed))
    settings = {name: case[name] for name in (*RANGES, "fbr")} | {"ks": int(case["ks"]), "distance": distance}
    corner = np.minimum(case["corner"], shape - 1)
    with native.one_thread():
        return error(*_tile_and_whole(labels.astype(dtype), corner, case["size"], settings))


def climb(distance, dtype, evaluations, seed):
    """The largest difference between tile and whole that is found: from the best of 20, uphill."""
    rng = np.random.default_rng(seed)
    worst = 0.0
    while evaluations > 0:
        found, case = max(
            ((_difference(case, distance, dtype), case) for case in (_start(rng) for _ in range(20))),
            key=lambda pair: pair[0],
        )
        evaluations, failures = evaluations - 20, 0
        while failures < 40 and evaluations > 0:
            neighbour = _neighbour(case, rng)
            difference = _difference(neighbour, distance, dtype)
            found, case, failures = (
                (difference, neighbour, 0) if difference > found else (found, case, failures + 1)
            )
            evaluations -= 1
        worst = max(worst, found)
    return worst


@pytest.mark.parametrize("evaluations", [150, pytest.param(3_000, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("dtype", ["int32", "float64"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_worst_difference(distance, dtype, evaluations):
    """Two results, each as near to the exact weights as is promised, may be twice as far from each other."""
    assert 0 < climb(distance, dtype, evaluations, seed=0) <= 2 * PROMISED[dtype]


@pytest.mark.parametrize(("fds", "bws", "fbr"), [(30, 1, 0.0), (3, 2, 50.0), (1, 20, 0.1)])
@pytest.mark.parametrize("dtype", ["int32", "float64"])
def test_a_crowd_beyond_the_tile(dtype, fds, bws, fbr):
    """What an instance of one pixel beyond the surroundings adds is little; here are as many as there can be.

    fbr above 1 counts as a term that was added.
    """
    labels = np.zeros((30, 600), np.int64)
    labels[:, 40:] = np.arange(1, 30 * 560 + 1).reshape(30, 560)
    settings = dict(distance="euclidean", fds=fds, bws=bws, fbr=fbr)
    tile, expected = _tile_and_whole(labels.astype(dtype), (0, 0), (30, 20), settings)
    assert (np.abs(tile - expected) <= 2 * PROMISED[dtype] * np.maximum(max(1, fbr), np.abs(expected))).all()
