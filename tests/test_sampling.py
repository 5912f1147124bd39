import numpy as np
import pytest
import torch
import zarr
from cases import golden, scattered
from scipy import stats

from fastlogconv import create_pdf, random_center, random_centers

GOLDEN = dict(golden("masks"))
LABELS, IGNORE = GOLDEN["pre_instances"], GOLDEN["ignore"]
SHAPES = {  # (H, W), scale: resized or not, square or not
    "as it is": ((40, 40), None),
    "smaller than the scale": ((30, 50), 64),
    "as high as the scale": ((48, 20), 48),
    "resized": ((90, 90), 30),
    "resized, wide": ((70, 160), 32),
    "resized, high": ((160, 50), 33),
}


def density(shape, scale, fbr=0.1):
    """The probability of every cell of the grid that the pdf is held in, [h, w]."""
    rng = np.random.default_rng(5)
    labels = scattered(shape, 9, max(shape) // 8, rng)
    ignore = np.zeros(shape, dtype=bool)
    ignore[: shape[0] // 3, : shape[1] // 4] = True
    pdf = create_pdf(labels, ignore, fbr=fbr, scale=scale)
    grid = shape if scale is None or shape[0] <= scale else (scale, int(shape[1] / shape[0] * scale))
    return pdf, np.diff(pdf, prepend=0).reshape(grid)


@pytest.mark.parametrize("scale", [None, 32, 64])
@pytest.mark.parametrize("ignored", ["all", "ign"])
def test_pdf_as_deepflash2(scale, ignored):
    pdf = create_pdf(LABELS, IGNORE if ignored == "ign" else None, scale=scale)
    assert pdf.dtype == np.float64
    expected = GOLDEN[f"pdf_scale{scale}_{ignored}"]
    assert len(pdf) == (scale or 128) ** 2
    np.testing.assert_allclose(pdf[GOLDEN["points"][: len(expected)]], expected, rtol=0, atol=1e-6)


def test_pdf_by_hand():
    labels, ignore = [[0, 7, 0], [2, 0, 0]], [[False, False, True], [False, False, False]]
    p = np.array([0.5, 1, 0, 1, 0.5, 0.5])
    np.testing.assert_allclose(create_pdf(labels, ignore, fbr=0.5), np.cumsum(p) / 3.5, rtol=1e-15)


@pytest.mark.parametrize("scale", [0, None, 128, 512])
def test_pdf_is_resized_only_beyond_scale(scale):
    np.testing.assert_array_equal(create_pdf(LABELS, scale=scale), create_pdf(LABELS, scale=1000))


def test_pdf_of_a_very_narrow_image():
    assert create_pdf(np.ones((600, 1)), scale=512).shape == (512,)


def test_pdf_of_stored_and_torch_arrays(tmp_path):
    stored = zarr.open_array(str(tmp_path / "labels.zarr"), mode="w", shape=LABELS.shape, dtype="u1")
    stored[:] = LABELS
    for labels in (stored, torch.from_numpy(LABELS), LABELS.astype(">f8"), LABELS[:, ::-1][:, ::-1]):
        np.testing.assert_array_equal(create_pdf(labels), create_pdf(LABELS))


# ------------------------------------------------------------------------------------------------ drawing


@pytest.mark.parametrize("name", SHAPES)
def test_centers_follow_the_pdf(name):
    shape, scale = SHAPES[name]
    pdf, p = density(shape, scale)
    n = 200_000
    centers = random_centers(pdf, shape, n, scale=scale, rng=np.random.default_rng(6))
    assert centers.shape == (n, 2) and centers.dtype == np.int64
    assert (centers >= 0).all() and (centers < shape).all()
    # By bins of pixels, each with what lies in it: a pixel that straddles two cells of the grid has of both.
    expected = resampled(np.clip(p, 0, None), shape)
    counts = np.zeros(shape)
    np.add.at(counts, tuple(centers.T), 1)
    bins = (np.indices(shape) // 5 * np.array([1000, 1])[:, None, None]).sum(axis=0)
    _, bins = np.unique(bins, return_inverse=True)
    expected, counts = (np.bincount(bins.ravel(), values.ravel()) for values in (expected, counts))
    assert counts[expected == 0].sum() == 0
    counts, expected = counts[expected > 0], expected[expected > 0]
    assert len(counts) > 20
    assert stats.chisquare(counts, expected / expected.sum() * n).pvalue > 1e-3


def resampled(p, shape):
    """The probability of every pixel: each cell of the grid spreads its own over the pixels below it."""
    for axis, size in enumerate(shape):
        edges = np.linspace(0, size, p.shape[axis] + 1)
        pixels = np.arange(size)
        share = np.minimum(pixels[:, None] + 1, edges[1:]) - np.maximum(pixels[:, None], edges[:-1])
        share = np.clip(share, 0, None) / np.diff(edges)
        p = np.moveaxis(np.tensordot(share, p, axes=(1, axis)), 0, axis)
    return p


def test_the_chi_square_test_can_fail():
    """Drawn as if rows and columns were one another's, or from the resized pdf as if it were not."""
    shape = (30, 50)
    pdf, p = density(shape, 64)
    centers = random_centers(pdf, shape, 200_000, scale=64, rng=np.random.default_rng(6))
    counts = np.zeros(shape)
    np.add.at(counts, tuple((centers[:, ::-1] * np.array([30 / 50, 50 / 30])).astype(int).T), 1)
    possible = p > 0
    assert (
        stats.chisquare(counts[possible], p[possible] * counts[possible].sum() / p[possible].sum()).pvalue
        < 1e-9
    )


def test_nothing_ignored_is_drawn():
    shape = (60, 80)
    labels, ignore = np.zeros(shape), np.ones(shape, dtype=bool)
    ignore[20, 30] = ignore[59, 79] = ignore[0, 0] = False
    pdf = create_pdf(labels, ignore)
    drawn = random_centers(pdf, shape, 1000, rng=np.random.default_rng(0))
    assert set(map(tuple, drawn.tolist())) == {(20, 30), (59, 79), (0, 0)}


class Extreme(np.random.Generator):
    """Draws the largest number below 1, or 0."""

    def __new__(cls, value):
        self = super().__new__(cls, np.random.PCG64(0))
        self.value = value
        return self

    def __init__(self, value):
        super().__init__(np.random.PCG64(0))

    def random(self, n=None):
        return self.value if n is None else np.full(n, self.value)


@pytest.mark.parametrize("scale", [512, 16])
def test_the_extremes_of_the_random_numbers(scale):
    labels, ignore = np.zeros((40, 30)), np.zeros((40, 30), dtype=bool)
    ignore[0], ignore[-1] = True, True
    pdf = create_pdf(labels, ignore, scale=scale)
    first = random_center(pdf, (40, 30), scale, Extreme(0.0))
    last = random_center(pdf, (40, 30), scale, Extreme(np.nextafter(1.0, 0)))
    if scale == 512:
        assert (first, last) == ((1, 0), (38, 29))
    assert 0 <= first[0] < last[0] < 40 and 0 <= first[1] < last[1] < 30
    assert tuple(random_centers(pdf, (40, 30), 3, scale, Extreme(0.0))[2]) == first
    assert tuple(random_centers(pdf, (40, 30), 3, scale, Extreme(np.nextafter(1.0, 0)))[2]) == last


@pytest.mark.parametrize("shape", [(40, 30), (130, 90)])
def test_one_center_is_the_first_of_many(shape):
    pdf = create_pdf(np.eye(*shape), scale=64)
    one = random_center(pdf, shape, scale=64, rng=np.random.default_rng(3))
    assert [type(index) for index in one] == [int, int]
    assert one == tuple(random_centers(pdf, shape, 1, scale=64, rng=np.random.default_rng(3))[0])
    assert random_centers(pdf, shape, 0, scale=64).shape == (0, 2)


def test_randomness_is_numpys_unless_given():
    pdf = create_pdf(LABELS)
    draws = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        draws.append(random_centers(pdf, LABELS.shape, 20).tolist())
    assert draws[0] == draws[1] != draws[2]
    given = [random_centers(pdf, LABELS.shape, 20, rng=np.random.RandomState(1)).tolist() for _ in range(2)]
    assert given[0] == given[1] == draws[0]


# ------------------------------------------------------------------------------------------------ bad input

PDF = create_pdf(LABELS)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (dict(labels=LABELS, ignore=IGNORE.T[:5]), ValueError, "ignore"),
        (dict(labels=LABELS, ignore=LABELS), TypeError, "ignore must be bool"),
        (dict(labels=LABELS[None]), ValueError, r"\[H, W\]"),
        (dict(labels=LABELS.astype(str)), TypeError, "labels"),
        (dict(labels=LABELS, fbr=-1), ValueError, "fbr"),
        (dict(labels=LABELS, fbr=np.nan), ValueError, "fbr"),
        (dict(labels=LABELS, scale=-1), ValueError, "scale"),
        (dict(labels=LABELS, scale=1.5), ValueError, "scale"),
        (dict(labels=LABELS, ignore=np.ones_like(IGNORE)), ValueError, "every pixel is ignored"),
        (dict(labels=np.zeros((9, 9)), fbr=0), ValueError, "background with fbr = 0"),
        (dict(labels=np.zeros((0, 9))), ValueError, "no pixel"),
        (
            dict(labels=np.eye(1, 900).repeat(900, axis=0), fbr=0, scale=4),
            ValueError,
            r"resizing \[900, 900\]",
        ),
    ],
)
def test_bad_pdf(arguments, kind, message):
    with pytest.raises(kind, match=message):
        create_pdf(**arguments)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (dict(pdf=PDF, orig_shape=(128, 127)), ValueError, "16256"),
        (dict(pdf=PDF, orig_shape=(128, 128), scale=64), ValueError, "4096"),
        (dict(pdf=PDF.reshape(128, 128), orig_shape=(128, 128)), ValueError, r"got \[128, 128\]"),
        (dict(pdf=PDF, orig_shape=(1, 128, 128)), ValueError, "orig_shape"),
        (dict(pdf=PDF, orig_shape=(128.0, 128)), ValueError, "orig_shape"),
        (dict(pdf=PDF, orig_shape=(0, 128)), ValueError, "orig_shape"),
        (dict(pdf=PDF, orig_shape=(128, 128), rng=3), TypeError, "rng"),
        (dict(pdf=PDF * 0, orig_shape=(128, 128)), ValueError, "last number is 0"),
        (dict(pdf=PDF * np.nan, orig_shape=(128, 128)), ValueError, "last number is nan"),
    ],
)
def test_bad_center(arguments, kind, message):
    with pytest.raises(kind, match=message):
        random_center(**arguments)
    with pytest.raises(kind, match=message):
        random_centers(**arguments, n=4)


@pytest.mark.parametrize("n", [-1, 2.0, True])
def test_bad_number_of_centers(n):
    with pytest.raises(ValueError, match="n must be a whole number"):
        random_centers(PDF, (128, 128), n)
