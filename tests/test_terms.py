"""The published terms of the weight: falloff, balance, border everywhere, gaps, a given foreground."""

import itertools
import json

import numpy as np
import oracle
import pytest
import torch
from cases import DATA, golden, scattered, weight_error
from tolerances import WEIGHT

from fastlogconv import WeightSettings, backends, ops, separate_touching, weight_map
from fastlogconv.backends import terms
from fastlogconv.rules import BALANCES, BORDERS, DISTANCES, FALLOFFS
from fastlogconv.settings import NAMES

PUBLISHED = json.loads((DATA / "published_params.json").read_text())


def settings_of(name):
    """The settings of a set of figures, whose own defaults are those of Falk et al."""
    given = dict(PUBLISHED[name])
    everywhere, gaps, balance = (given.pop(key, False) for key in ("everywhere", "gap", "balance"))
    return dict(distance="euclidean", bwf=50, bws=6) | given | dict(
        border_everywhere=everywhere, gaps=gaps, balance="frequency" if balance else "none"
    )  # fmt: skip


def lacking(backend, device, **call):
    """Whether the backend does not compute that yet."""
    settings = WeightSettings(**{name: call[name] for name in NAMES if name in call})
    foreground = True if settings.gaps else call.get("foreground")
    features = ops._features(settings, call.get("ignore"), call.get("classes"), foreground)
    return bool(backends.lacks(backends.BACKENDS[backend], torch.device(device)).intersection(features))


def weights_or_refusal(labels, backend, **call):
    """The weights; None where the backend refuses because it lacks something."""
    if not lacking(backend, labels.device, **call):
        return weight_map(labels, **call, backend=backend)
    with pytest.raises(RuntimeError, match=r"it does not compute .* yet"):
        weight_map(labels, **call, backend=backend)
    return None


@pytest.mark.parametrize("beside", ["", "_classes_ignore"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_as_published(name, beside, backend, device):
    file = golden("published_2d")
    given = {key: torch.from_numpy(file[key]).to(device) for key in ("classes", "ignore") if beside}
    for dtype in (torch.int32, torch.float64):
        labels = torch.from_numpy(file["labels"]).to(device, dtype)
        weights = weights_or_refusal(labels, backend, **given, **settings_of(name))
        if weights is not None:
            assert weight_error(weights, file[f"w_{name}{beside}"]) <= WEIGHT[weights.dtype]


def test_presets_are_the_published_sets():
    for name in ("unet2019", "unet2015", "deepflash2_offline"):
        assert WeightSettings.preset(name) == WeightSettings(**settings_of(name))


COMBINATIONS = [
    dict(distance=d, border=b, falloff=f, balance=w, border_everywhere=e)
    for d, b, f, w, e in itertools.product(DISTANCES, BORDERS, FALLOFFS, BALANCES, (False, True))
    if (w == "none" or f == "none") and (not e or d == "euclidean")
]


def combination_id(terms):
    return "-".join(str(value) for value in terms.values())


@pytest.mark.parametrize("terms", COMBINATIONS, ids=combination_id)
@pytest.mark.parametrize("beside", ["alone", "classes and ignore", "foreground", "gaps"])
def test_every_combination(beside, terms, backend, device):
    rng = np.random.default_rng(COMBINATIONS.index(terms))
    shape = tuple(rng.integers(12, 26, 2))
    labels = scattered(shape, 7, 6, rng)
    classes = rng.integers(-1, 3, (2, 2)).repeat(13, 0).repeat(13, 1)[: shape[0], : shape[1]]
    ignore = rng.random(shape) < 0.1
    given = dict(bws=4, fds=3, bwf=7, fbr=0.2, lmbda=0.5, ks=None)
    call = dict(terms, **given)
    classes_, ignore_, foreground = np.ones_like(labels), np.zeros(shape, bool), None
    if beside == "classes and ignore":
        classes_, ignore_ = classes, ignore
        call |= dict(classes=torch.from_numpy(classes).to(device), ignore=torch.from_numpy(ignore).to(device))
    elif beside == "foreground":
        foreground = rng.random(shape) < 0.3
        call |= dict(foreground=torch.from_numpy(foreground).to(device))
    elif beside == "gaps":
        foreground = separate_touching(torch.from_numpy(labels)).numpy() > 0
        call |= dict(gaps=True)
    expected = oracle.terms_weight_map(labels, classes_, ignore_, foreground, **terms, **given)
    for dtype in (torch.int64, torch.float64, torch.float16):
        tensor = torch.from_numpy(labels).to(device, dtype)
        weights = weights_or_refusal(tensor, backend, **call)
        if weights is not None:
            assert weights.dtype == (dtype if dtype.is_floating_point else torch.float32)
            assert weight_error(weights, expected) <= WEIGHT[weights.dtype]


def test_batches_are_balanced_image_by_image(backend, device):
    rng = np.random.default_rng(2)
    labels = np.stack([scattered((20, 30), n, 5, rng) for n in (1, 5, 0, 9)])
    labels[3] = 1
    labels = torch.from_numpy(labels).to(device)
    classes = torch.from_numpy(rng.integers(0, 3, labels.shape)).to(device)
    ignore = torch.zeros_like(labels, dtype=torch.bool)
    ignore[1, :10], ignore[2] = True, True
    for beside in ({}, dict(classes=classes), dict(classes=classes, ignore=ignore), dict(ignore=ignore)):
        batch = weight_map(labels, preset="unet2015", **beside, backend=backend)
        for i, image in enumerate(labels):
            one = {name: tensor[i] for name, tensor in beside.items()}
            assert (
                weight_error(weight_map(image, preset="unet2015", **one, backend=backend), batch[i]) <= 1e-6
            )
        assert batch.isfinite().all()
    assert (weight_map(labels[:0], preset="unet2015", backend=backend)).shape == (0, 20, 30)
    whole = weight_map(labels[3], preset="unet2015", backend=backend)
    assert torch.equal(whole, torch.ones_like(whole))  # one kind alone


def test_each_kind_has_the_same_total():
    labels = torch.zeros(40, 50, dtype=torch.int32)
    labels[3:9, 4:9], labels[20:30, 30:45] = 1, 2
    classes = labels.clone()
    weights = weight_map(labels, classes=classes, preset="unet2015", bwf=0)
    totals = [weights[classes == kind].sum() for kind in range(3)]
    assert torch.allclose(torch.stack(totals), torch.tensor(40 * 50 / 3))
    assert torch.allclose(weights.mean(), torch.tensor(1.0))


@pytest.mark.parametrize("seed", range(6))
def test_counts_for_a_gpu(seed):
    """By sorting, as for devices that must not be waited for, and by histograms."""
    rng = np.random.default_rng(seed)
    kinds = torch.from_numpy(rng.integers(0, (2, 5, 40, 2**31, 2**62, 70000)[seed], (3, 200)))
    kinds[torch.from_numpy(rng.random(kinds.shape) < 0.2)] = torch.iinfo(torch.int64).max
    kinds[2] = torch.iinfo(torch.int64).max
    counts = [terms._counts_by_sorting(kinds), terms._counts_by_histogram(kinds)]
    for image, n, present in zip(kinds, *counts[0], strict=True):
        own = image[image < torch.iinfo(torch.int64).max]
        assert present == len(own.unique())
        for kind, count in zip(image.tolist(), n.tolist(), strict=True):
            assert kind == torch.iinfo(torch.int64).max or count == (own == kind).sum()
    counted = kinds < torch.iinfo(torch.int64).max
    assert torch.equal(counts[0][0][counted], counts[1][0][counted]) and torch.equal(
        counts[0][1], counts[1][1]
    )


def test_what_is_refused():
    labels = torch.ones(4, 5, dtype=torch.int32)
    for foreground, error, message in (
        (labels, TypeError, "foreground must be a bool tensor or None, got torch.int32: pass mask > 0"),
        (labels[:2] > 0, ValueError, r"foreground must have the shape \(4, 5\) of labels, got \(2, 5\)"),
    ):
        with pytest.raises(error, match=message):
            weight_map(labels, foreground=foreground)
    with pytest.raises(ValueError, match="give foreground or gaps=True, not both"):
        weight_map(labels, foreground=labels > 0, preset="unet2019")


def test_compiled():
    labels = torch.from_numpy(scattered((30, 40), 6, 5, np.random.default_rng(8)))
    for preset in ("unet2019", "unet2015"):

        def weigh(labels, preset=preset):
            return weight_map(labels, preset=preset, backend="reference")

        compiled = torch.compile(weigh, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(labels), weigh(labels))
