"""`region_weight_map` by class: a border term for each class of regions, added up."""

import numpy as np
import oracle
import pytest
import torch
from cases import BORDERS, in_turn, scattered, weight_error
from tolerances import WEIGHT

from fastlogconv import WeightTransformSingle, region_weight_map, weight_map


def soft_regions(seed):
    """Five overlapping regions, their classes (-1 and 0 are none), and what is to be ignored."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(6, 20, 2))
    masks = rng.integers(1, 257, (5, *shape)) / 256
    for mask in masks:
        mask[scattered(shape, 2, 6, rng) == 0] = 0
    ignore = rng.random(shape) < 0.1
    return masks, rng.permutation([3, 7, 3, (0, -1, 7)[seed % 3], 7]).tolist(), ignore


def expected_weights(masks, classes, ignore, *, lmbda, ks, border, bws, fds, bwf, fbr):
    masks, classes = np.where(ignore, 0, masks)[np.array(classes) > 0], [c for c in classes if c > 0]
    d = oracle.distances(masks, lmbda, ks)
    weight = fbr + (1 - fbr) * np.exp(-(d**2) / (2 * fds**2)).sum(axis=0)
    for of_class in set(classes):
        both = oracle.BOTH[border](np.sort(d[np.array(classes) == of_class], axis=0))
        weight = weight + bwf * np.exp(-(both**2) / (2 * bws**2))
    return np.where(ignore, 0, np.where((masks > 0).any(axis=0), 1, weight))


@pytest.mark.parametrize("seed", range(12))
def test_against_brute_force(seed, backend, device):
    masks, classes, ignore = soft_regions(4000 + seed)
    settings = dict(
        border=in_turn(BORDERS, seed), lmbda=0.5, ks=(9, 31)[seed % 2], bws=4, fds=3, bwf=7, fbr=0.2
    )
    expected = expected_weights(masks, classes, ignore, **settings)
    given = dict(ignore=torch.from_numpy(ignore).to(device), **settings, backend=backend)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        on_device = torch.from_numpy(masks).to(device, dtype)
        weights = region_weight_map(on_device, classes=classes, **given)
        assert weights.dtype == dtype and weights.is_contiguous()
        assert weight_error(weights, expected) <= WEIGHT[dtype]  # terms are added after rounding


@pytest.mark.parametrize("distance", ["logconv", "euclidean"])
def test_as_labels_by_class(distance, backend, device):
    labels = torch.from_numpy(scattered((40, 50), 6, 5, np.random.default_rng(9))).to(device)
    ids = labels[labels > 0].unique()
    classes = [1 + i % 2 for i in range(len(ids))]
    class_of_pixel = sum((labels == i).int() * c for i, c in zip(ids, classes, strict=True))
    settings = dict(distance=distance, backend=backend)
    expected = weight_map(labels, classes=class_of_pixel, **settings)
    masks = labels == ids[:, None, None]
    for given in (classes, tuple(classes), torch.tensor(classes), np.array(classes, np.uint8)):
        assert weight_error(region_weight_map(masks, classes=given, **settings), expected) <= 1e-5
    transform = WeightTransformSingle(distance=distance, border="second_nearest", bwf=10, backend=backend)
    assert weight_error(transform(masks, classes), expected) <= 1e-5


def test_batch(backend, device):
    masks, classes, ignore = soft_regions(4100)
    masks = torch.from_numpy(np.stack([masks, masks[:, ::-1], masks * 0])).float().to(device)
    ignore = torch.from_numpy(ignore).to(device)
    given = dict(classes=classes, ignore=ignore, backend=backend)
    single = [region_weight_map(image, **given) for image in masks]
    assert torch.equal(region_weight_map(masks, **given), torch.stack(single))


def test_one_class_is_none(backend, device):
    masks, _, ignore = soft_regions(4101)
    masks, ignore = torch.from_numpy(masks).to(device), torch.from_numpy(ignore).to(device)
    expected = region_weight_map(masks, ignore=ignore, backend=backend)
    weights = region_weight_map(masks, classes=[5] * 5, ignore=ignore, backend=backend)
    assert weight_error(weights, expected) <= 1e-12


@pytest.mark.parametrize("classes", [[0, 0], [-3, 0], []])
def test_without_a_region(classes, backend, device):
    masks = torch.ones(len(classes), 3, 4, device=device)
    weights = region_weight_map(masks, classes=classes, backend=backend)
    assert torch.equal(weights, torch.full((3, 4), 0.1, device=device))


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        ([1], ValueError, "classes must be one for each of 2 regions, got 1"),
        ([1, 2.5], TypeError, "classes must be integers, one for each region, got 2.5"),
        ([1, True], TypeError, "classes must be integers, one for each region, got True"),
        (torch.ones(2), TypeError, "classes must be integers, one for each region, got 1.0"),
        (torch.ones(2, 2, dtype=torch.int64), TypeError, r"one for each region, got \[1, 1\]"),
        (torch.tensor(1), TypeError, "classes must be a list, tuple or tensor of 2 integers, got Tensor"),
        ("12", TypeError, "classes must be a list, tuple or tensor of 2 integers, got str"),
        (1, TypeError, "classes must be a list, tuple or tensor of 2 integers, got int"),
    ],
)
def test_what_is_refused(classes, error, message):
    with pytest.raises(error, match=message):
        region_weight_map(torch.ones(2, 3, 4), classes=classes)
