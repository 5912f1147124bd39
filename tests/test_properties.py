"""What must not change a weight, and what must move it along, on random label images with random settings."""

import numpy as np
import pytest
import torch
from cases import BORDERS, DISTANCES, weight_error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tolerances import WEIGHT

import fastlogconv

# Both sides of a comparison may be off by the promise.
TOLERANCE = {dtype: 2 * error for dtype, error in WEIGHT.items()}

examples = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
sigmas = st.floats(0.5, 40)


@st.composite
def weight_settings(draw, borders=BORDERS):
    return dict(
        distance=draw(st.sampled_from(DISTANCES)),
        border=draw(st.sampled_from(borders)),
        bws=draw(sigmas),
        fds=draw(sigmas),
        bwf=draw(st.floats(0, 50)),
        fbr=draw(st.floats(0, 1)),
        lmbda=draw(st.floats(0.1, 10)),
        ks=draw(st.none() | st.integers(1, 80)),
    )


@st.composite
def label_images(draw, images=1, largest_id=6):
    """[images, H, W] of 1 to 40 pixels a side: the blocks of a coarse random image, cut and speckled."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    block = draw(st.integers(1, 12))
    coarse = rng.integers(0, largest_id + 1, (images, height // block + 1, width // block + 1))
    coarse *= rng.random(coarse.shape) < draw(st.floats(0, 1))
    labels = coarse.repeat(block, 1).repeat(block, 2)[:, :height, :width]
    speckled = rng.random(labels.shape) < draw(st.sampled_from([0, 0.05]))
    labels = np.where(speckled, rng.integers(0, largest_id + 1, labels.shape), labels)
    return torch.from_numpy(labels).to(draw(st.sampled_from([torch.int32, torch.float32, torch.float64])))


@pytest.fixture
def weights(backend, device):
    """The function under test on one backend and device; its result on the CPU."""
    return lambda labels, **chosen: fastlogconv.weight_map(labels.to(device), **chosen, backend=backend).cpu()


def assert_same(result, expected):
    assert weight_error(result, expected) <= TOLERANCE[result.dtype]


def present(labels):
    """The ids without gaps, so that "farthest" finds each of 1..max."""
    ids, numbered = torch.unique(labels, return_inverse=True)
    return (numbered + (0 if ids[0] == 0 else 1)).to(labels.dtype)


@examples
@given(labels=label_images(), chosen=weight_settings(), seed=st.integers(0, 2**32 - 1))
def test_ids_may_be_permuted(weights, labels, chosen, seed):
    labels = present(labels)
    n = int(labels.max())
    order = torch.cat(
        [
            torch.zeros(1, dtype=torch.int64),
            1 + torch.randperm(n, generator=torch.Generator().manual_seed(seed)),
        ]
    )
    assert_same(weights(order[labels.long()].to(labels.dtype), **chosen), weights(labels, **chosen))


@examples
@given(
    labels=label_images(),
    chosen=weight_settings(borders=["second_nearest"]),
    ids=st.lists(st.integers(1, 2**63 - 1), min_size=6, max_size=6, unique=True),
    below=st.integers(-(2**63), 0),
)
def test_ids_may_be_any_and_background_anything_below(weights, labels, chosen, ids, below):
    table = torch.tensor([below, *ids])
    assert_same(weights(table[labels.long()], **chosen), weights(labels, **chosen).float())


@examples
@given(labels=label_images(images=2), chosen=weight_settings())
def test_flips_and_transposition(weights, labels, chosen):
    expected = weights(labels, **chosen)
    for moved in (
        lambda x: x.flip(1),
        lambda x: x.flip(2),
        lambda x: x.transpose(1, 2),
        lambda x: x.rot90(1, (1, 2)),
    ):
        assert_same(weights(moved(labels), **chosen), moved(expected))


@examples
@given(
    labels=label_images(),
    chosen=weight_settings(),
    margins=st.tuples(*[st.integers(0, 30)] * 4),
    others=st.tuples(*[st.integers(0, 30)] * 4),
)
def test_background_around_and_translation(weights, labels, chosen, margins, others):
    """More background around the image, here or there, changes nothing in it."""
    _, height, width = labels.shape
    expected = weights(labels, **chosen)
    for left, right, top, bottom in (margins, others):
        padded = weights(torch.nn.functional.pad(labels, (left, right, top, bottom)), **chosen)
        assert_same(padded[:, top : top + height, left : left + width], expected)


@examples
@given(labels=label_images(images=4), chosen=weight_settings(), first=st.integers(0, 4))
def test_images_of_a_batch_do_not_know_each_other(weights, labels, chosen, first):
    together = weights(labels, **chosen)
    apart = [weights(part, **chosen) for part in (labels[:first], labels[first:])]
    assert torch.equal(torch.cat(apart), together)
    assert torch.equal(weights(labels[0], **chosen), together[0])


@examples
@given(labels=label_images(), chosen=weight_settings())
def test_range(weights, labels, chosen):
    result = weights(labels, **chosen)
    assert (result[labels > 0] == 1).all()
    background, tolerance = result[labels <= 0].double(), TOLERANCE[result.dtype]
    instances = len(labels[labels > 0].unique())
    largest = chosen["fbr"] + (1 - chosen["fbr"]) * instances + chosen["bwf"]
    assert (background >= chosen["fbr"] - tolerance).all()
    assert (background <= largest + tolerance * max(1, largest)).all()


@examples
@given(labels=label_images(), chosen=weight_settings(), bwf=st.floats(0, 50))
def test_the_border_is_added_as_often_as_bwf_says(weights, labels, chosen, bwf):
    labels = labels.double()
    without, once, often = (weights(labels, **chosen | dict(bwf=factor)) for factor in (0.0, 1.0, bwf))
    assert_same(often, without + bwf * (once - without))


@examples
@given(labels=label_images(), chosen=weight_settings(), seed=st.integers(0, 2**32 - 1))
def test_what_is_ignored_does_not_matter(weights, labels, chosen, seed, device):
    generator = torch.Generator().manual_seed(seed)
    ignore = torch.rand(labels.shape, generator=generator) < 0.2
    other = torch.randint(0, 7, labels.shape, generator=generator).to(labels.dtype)
    chosen = chosen | dict(border="second_nearest")
    result = weights(labels, ignore=ignore.to(device), **chosen)
    assert torch.equal(
        weights(torch.where(ignore, other, labels), ignore=ignore.to(device), **chosen), result
    )
    assert (result[ignore] == 0).all()
    assert_same(result[~ignore], weights(torch.where(ignore, 0, labels), **chosen)[~ignore])


@examples
@given(labels=label_images(), chosen=weight_settings(), seed=st.integers(0, 2**32 - 1))
def test_classes_may_be_renamed_and_one_class_is_none(weights, labels, chosen, seed, device):
    foreground = (labels > 0).long()
    assert_same(weights(labels, classes=foreground.to(device), **chosen), weights(labels, **chosen))
    classes = foreground * torch.randint(1, 4, labels.shape, generator=torch.Generator().manual_seed(seed))
    renamed = torch.tensor([0, 30, 7, 2**31 - 1])[classes]
    expected = weights(labels, classes=classes.to(device), **chosen)
    assert_same(weights(labels, classes=renamed.to(device), **chosen), expected)


@examples
@given(labels=label_images(), chosen=weight_settings(), seed=st.integers(0, 2**32 - 1))
def test_order_of_regions_and_labels_as_regions(labels, chosen, seed, backend, device):
    labels = present(labels)[0]
    masks = (labels == torch.arange(1, int(labels.max()) + 1)[:, None, None]).to(labels.dtype)
    order = torch.randperm(len(masks), generator=torch.Generator().manual_seed(seed))
    by_region, reordered = (
        fastlogconv.region_weight_map(part.to(device), **chosen, backend=backend).cpu()
        for part in (masks, masks[order])
    )
    assert_same(reordered, by_region)
    expected = fastlogconv.weight_map(labels.to(device), **chosen, backend=backend).cpu()
    assert_same(by_region, expected)


@examples
@given(
    seed=st.integers(0, 2**32 - 1),
    lmbda=st.floats(0.1, 10),
    ks=st.integers(1, 30),
    factor=st.floats(-10, 10),
    padding_mode=st.sampled_from(["constant", "replicate"]),
)
def test_the_convolution_is_linear_and_symmetric(seed, lmbda, ks, factor, padding_mode, backend, device):
    a, b = torch.randn(2, 2, 17, 23, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def convolved(x):
        return fastlogconv.separable_conv2d(x.to(device), lmbda, ks, padding_mode, backend=backend).cpu()

    result = convolved(a)
    scale = convolved(a.abs() + (factor * b).abs()).max()
    assert (convolved(a + factor * b) - (result + factor * convolved(b))).abs().max() <= 1e-12 * scale
    for moved in (lambda x: x.flip(1), lambda x: x.flip(2), lambda x: x.transpose(1, 2)):
        assert (convolved(moved(a)) - moved(result)).abs().max() <= 1e-12 * scale
