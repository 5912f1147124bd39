"""What the CPU kernels treat apart: far pieces, scattered pixels, crowds of specks, no background."""

import functools

import numpy as np
import pytest
import torch
from cases import BORDERS, weight_error
from tolerances import EUCLIDEAN, WEIGHT

from fastlogconv import rules, weight_map

SHAPE = (210, 330)
SMALLER = (150, 230)  # of crowds, more than 1,024 instances, which the reference takes long for


def spread(density, ids=3, seed=0):
    """Pixels of a few ids, scattered alone."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, ids + 1, SHAPE) * (rng.random(SHAPE) < density)


def mosaic(pitch):
    """Tiles that are each numbered from 1: every id has a piece in each."""
    y, x = np.indices(SHAPE)
    tile_y, tile_x = y % pitch, x % pitch
    jitter = (y // pitch * 7 + x // pitch * 5) % 11
    labels = np.zeros(SHAPE, dtype=int)
    labels[(tile_y - 8 - jitter) ** 2 + (tile_x - 9) ** 2 <= 30] = 1
    labels[(abs(tile_y - 15) <= 3) & (abs(tile_x - 26 - jitter) <= 4)] = 2
    return labels


def checkerboard(background):
    y, x = np.indices(SHAPE)
    return (1 + (x + y) % 2) * (x % 3 > 0 if background else 1)


def lines():
    """Thin diagonals, a grid and a far speck."""
    y, x = np.indices(SHAPE)
    labels = np.where((x + y) % 90 == 0, 1, 0)
    labels[(y % 70 == 5) | (x % 110 == 7)] = 2
    labels[100, 200:203] = 3
    return labels


def far_pieces():
    """One id in all corners and another in the middle; a third in pieces just about two reaches apart."""
    labels = np.zeros(SHAPE, dtype=int)
    labels[:4, :5] = labels[-3:, -6:] = labels[:3, -2:] = labels[-5:, :3] = 1
    labels[100:112, 150:175] = 2
    for x in (10, 84, 159, 235, 312):
        labels[60 + x // 40, x : x + 2] = 3
    for x in (5, 136, 268):
        labels[160, x : x + 2] = 3
    return labels


def specks(largest, fill, seed=0):
    """A thousand instances of up to `largest` pixels a side, overwritten in part, and a large one."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SMALLER, dtype=int)
    for i in range(1250):
        height, width = rng.integers(1, largest + 1, 2)
        y, x = rng.integers(0, SMALLER[0] - height + 1), rng.integers(0, SMALLER[1] - width + 1)
        labels[y : y + height, x : x + width][rng.random((height, width)) < fill] = i + 1
    labels[40:65, 80:115] = 1251
    return np.unique(labels, return_inverse=True)[1].reshape(SMALLER)


def squares():
    """Squares of 3 px, a pixel apart, but in one corner."""
    y, x = np.indices(SMALLER)
    labels = (y // 4 * (SMALLER[1] // 4 + 1) + x // 4 + 1) * (np.maximum(y % 4, x % 4) < 3)
    labels[:70, :90] = 0
    return labels


LABELS = {
    "scattered": lambda: spread(0.01),
    "scattered densely": lambda: spread(0.2),
    "scattered thinly": lambda: spread(0.0006),
    "mosaic": lambda: mosaic(100),
    "mosaic of small tiles": lambda: mosaic(40),
    "checkerboard": lambda: checkerboard(background=False),
    "checkerboard with background": lambda: checkerboard(background=True),
    "no background": lambda: spread(1),
    "lines": lines,
    "far pieces": far_pieces,
    "an absent id": lambda: 2 * spread(0.01),
    "specks": lambda: specks(2, 1),
    "specks of many shapes": lambda: specks(4, 0.8),
    "squares": squares,
}
SETTINGS = {
    "logconv": dict(distance="logconv"),
    "a large lmbda": dict(distance="logconv", lmbda=4.0, fds=20.0),
    "no window": dict(distance="logconv", ks=None),
    "a small window": dict(distance="logconv", ks=9),
    "no neighbours": dict(distance="logconv", ks=1),
    "euclidean": dict(distance="euclidean"),
    "euclidean, near": dict(distance="euclidean", bws=3.0, fds=4.0),
}


def right(labels, **settings):
    return weight_map(labels.double(), **settings, backend="reference")


@functools.cache
def right_for(name, **settings):
    return right(torch.from_numpy(LABELS[name]()), **settings)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", LABELS)
def test_as_the_reference(name, settings, border):
    labels = torch.from_numpy(LABELS[name]())
    settings = dict(SETTINGS[settings], border=border)
    expected = right_for(name, **settings)
    tolerance = EUCLIDEAN if settings["distance"] == "euclidean" else WEIGHT
    for dtype in (torch.int32, torch.float64):
        weights = weight_map(labels.to(dtype), **settings, backend="native")
        assert weight_error(weights, expected) <= tolerance[weights.dtype]


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("distance", rules.DISTANCES)
@pytest.mark.parametrize("name", LABELS)
def test_every_instruction_set(name, distance):
    labels = torch.from_numpy(LABELS[name]())
    settings = dict(distance=distance, border="second_nearest")
    weights = weight_map(labels, **settings, backend="native")
    assert weight_error(weights, right_for(name, **settings)) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("distance", rules.DISTANCES)
def test_with_classes_and_ignored_pixels(distance, border):
    labels = torch.from_numpy(spread(0.02, ids=4))
    classes = 1 + labels % 2
    ignore = torch.zeros(SHAPE, dtype=torch.bool)
    ignore[50:90, 30:200] = True
    settings = dict(distance=distance, border=border, classes=classes, ignore=ignore)
    weights = weight_map(labels, **settings, backend="native")
    assert weight_error(weights, right(labels, **settings)) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("distance", rules.DISTANCES)
def test_no_background_with_classes_and_ignored_pixels(distance):
    labels = torch.from_numpy(spread(1))
    classes = 1 + labels % 2
    assert torch.equal(weight_map(labels, classes=classes, distance=distance), torch.ones(SHAPE))
    ignore = torch.zeros(SHAPE, dtype=torch.bool)
    ignore[50:90, 30:200] = True
    expected = (~ignore).float()
    assert torch.equal(weight_map(labels, ignore=ignore, distance=distance), expected)
    assert torch.equal(weight_map(labels, classes=classes, ignore=ignore, distance=distance), expected)


def test_no_background_but_a_label_that_is_no_id():
    labels = torch.ones(40, 50)
    labels[-1, -1] = 1.5
    with pytest.raises(ValueError, match=r"1\.5"):
        weight_map(labels, backend="native")


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("distance", rules.DISTANCES)
@pytest.mark.parametrize("name", LABELS)
def test_any_number_of_threads(name, distance, border, with_threads):
    labels = torch.from_numpy(LABELS[name]())
    results = []
    for threads in (1, 2, 3, 7):
        with_threads(threads)
        results.append(weight_map(labels, distance=distance, border=border, backend="native"))
    assert all(torch.equal(result, results[0]) for result in results)
