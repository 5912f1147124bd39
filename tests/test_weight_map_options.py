"""weight_map and region_weight_map: exact distances, the unbounded window, classes, regions to ignore."""

import itertools

import numpy as np
import oracle
import pytest
import torch
from cases import (
    BORDERS,
    DISTANCES,
    RULES,
    SHAPE_SETTINGS,
    SHAPES,
    bwf_without_border,
    golden,
    in_turn,
    moved,
    scattered,
    settings_of,
    surrounded,
    two_cells,
    weight_error,
)
from tolerances import EUCLIDEAN, REFERENCE, WEIGHT

from fastlogconv import WeightTransform, region_weight_map, weight_map


def tensor(array, device):
    return None if array is None else torch.from_numpy(np.ascontiguousarray(array)).to(device)


def cells(seed, shape=(40, 50), count=14):
    """Labels without an absent id, some in three classes, and a region to ignore."""
    rng = np.random.default_rng(seed)
    _, labels = np.unique(np.append(0, scattered(shape, count, 7, rng)), return_inverse=True)
    labels = labels[1:].reshape(shape)
    classes = np.array([0, 1, 1, 3, 2**31 - 1, 3, *rng.integers(0, 4, count)])[labels]
    return labels, classes, scattered(shape, 3, 6, rng) > 0


def random_case(seed):
    """(labels, classes or None, ignore or None, settings), everything drawn at random."""
    rng = np.random.default_rng(3000 + seed)
    shape = tuple(rng.integers(1, 40, 2))
    labels = scattered(shape, rng.integers(0, 12), rng.integers(0, 9), rng)
    if rng.random() < 0.5:
        _, labels = np.unique(np.append(0, labels), return_inverse=True)  # none is absent
        labels = labels[1:].reshape(shape)
    classes = ignore = None
    if rng.random() < 0.6:
        classes = rng.integers(0, 4, 13)[labels]
        if rng.random() < 0.5:  # instances that lie in several classes
            classes = np.where(rng.random(shape) < 0.05, rng.integers(-1, 4, shape), classes)
    if rng.random() < 0.6:
        ignore = scattered(shape, 3, 8, rng) > 0 if rng.random() < 0.7 else rng.random(shape) < 0.1
    distance, border = in_turn(RULES, seed)
    settings = dict(
        distance=distance,
        border=border,
        lmbda=float(np.exp(rng.uniform(np.log(0.1), np.log(10)))),
        ks=int(rng.integers(1, 130)) if rng.random() < 0.7 else None,
        bws=float(rng.uniform(1, 40)),
        fds=float(rng.uniform(1, 40)),
        bwf=float(rng.uniform(0, 50)),
        fbr=float(rng.uniform(0, 1)),
    )
    return labels, classes, ignore, settings


@pytest.mark.parametrize("seed", range(60))
def test_random(seed, backend, device):
    labels, classes, ignore, settings = random_case(seed)
    expected = oracle.class_weight_map(labels, classes, ignore, **settings)
    inputs = dict(classes=tensor(classes, device), ignore=tensor(ignore, device))
    tolerance = REFERENCE if backend == "reference" else WEIGHT
    for dtype, input in (
        (torch.float32, tensor(labels, device)),
        (torch.float64, tensor(labels, device).double()),
    ):
        weights = weight_map(input, **inputs, **settings, backend=backend)
        assert weights.dtype == dtype
        assert weight_error(weights, expected) <= tolerance[dtype]


# --------------------------------------------------------------------------------------------- the distances


@pytest.mark.parametrize("name", SHAPES)
def test_euclidean_shapes(name, faster):
    backend, device = faster
    labels = SHAPES[name]()
    for border, setting in zip(BORDERS, itertools.cycle((0, 1 + list(SHAPES).index(name) % 3)), strict=False):
        settings = {**settings_of(**SHAPE_SETTINGS[setting]), "border": border, "distance": "euclidean"}
        expected = oracle.class_weight_map(labels, None, None, **settings)
        for dtype in EUCLIDEAN:
            input = tensor(labels, device).to(dtype)
            assert weight_error(weight_map(input, **settings, backend=backend), expected) <= EUCLIDEAN[dtype]


@pytest.mark.parametrize("name", ["thin ring of 60 px", "diagonals of 150 px", "interleaved"])
def test_unbounded_window_of_shapes(name, faster):
    backend, device = faster
    labels = tensor(SHAPES[name](), device)
    for setting, border in zip(SHAPE_SETTINGS, itertools.cycle(BORDERS), strict=False):
        settings = {**setting, "ks": None, "border": border}
        expected = weight_map(labels.double(), **settings, backend="reference").cpu()
        assert (
            weight_error(weight_map(labels, **settings, backend=backend), expected) <= WEIGHT[torch.float32]
        )
        weights = weight_map(labels.double(), **settings, backend=backend)
        assert weight_error(weights, expected) <= WEIGHT[torch.float64]


def test_euclidean_by_hand(backend, device):
    """3-4-5 triangles: 5 px to the first instance, 13 px to the second."""
    labels = torch.zeros(16, 10, dtype=torch.int32, device=device)
    labels[0, 0], labels[15, 9] = 5, 10**9
    weights = weight_map(labels, distance="euclidean", bwf=2, fbr=0.5, bws=6, fds=4, backend=backend)
    fd = np.exp(-(5**2) / 32) + np.exp(-(13**2) / 32)
    expected = 0.5 + 0.5 * fd + 2 * np.exp(-(18**2) / 72)
    assert abs(weights[3, 4].item() - expected) < 1e-6
    assert (weights[labels > 0] == 1).all()


def test_a_distance_beyond_the_window(backend, device):
    labels = torch.zeros(1, 80, dtype=torch.int32, device=device)
    labels[0, 0] = 1
    expected = 0.1 + 0.9 * np.exp(-(np.arange(1, 80) ** 2) / (2 * 40**2))
    for settings in (dict(ks=None, lmbda=0.1), dict(distance="euclidean")):
        weights = weight_map(labels, fds=40, **settings, backend=backend)
        assert weight_error(weights[:, 1:], expected[None]) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("name", ["inst", "p1", "both", "p2", "cls"])
def test_euclidean_is_calculate_weights_without_ridges(name, backend, device):
    from scipy import ndimage

    file = golden("masks")
    settings = {"p1": dict(bws=5, fds=3, bwf=4, fbr=0.25), "p2": dict(bws=20, fds=25, fbr=0.05)}.get(name, {})
    instances, classes = file["instances"].astype(np.int64), file["classes"]
    if name == "cls":  # the components of each class
        instances = np.zeros_like(instances)
        for c in np.unique(classes[classes > 0]):
            components, _ = ndimage.label(classes == c)
            instances[components > 0] = components[components > 0] + instances.max()
    classes = tensor(classes, device) if name in ("both", "p2", "cls") else None
    weights = weight_map(
        tensor(instances, device), classes=classes, distance="euclidean", **settings, backend=backend
    ).cpu()
    expected, drawn = file[f"cw_{name}_weights"], file[f"cw_{name}_labels"] > 0
    foreground = (instances > 0) & (True if classes is None else file["classes"] > 0)
    assert (weights[foreground] == 1).all() and (foreground & ~drawn).any() == (name != "cls")
    weights, expected = weights[file["rows"]], np.where(foreground[file["rows"]], 1, expected)
    assert weight_error(weights, expected) <= EUCLIDEAN[torch.float32]


@pytest.mark.parametrize("border", BORDERS)
def test_euclidean_does_not_ask_for_the_kernel(border, backend, device):
    labels = tensor(cells(0)[0], device)
    expected = weight_map(labels, distance="euclidean", border=border, backend=backend)
    for settings in (dict(ks=1), dict(ks=None), dict(lmbda=1e-3), dict(lmbda=1e9, ks=2**31 - 1)):
        weights = weight_map(labels, distance="euclidean", border=border, **settings, backend=backend)
        assert torch.equal(weights, expected)


def test_crowds_far_away_add_up(faster):
    """Each pixel around an empty disc is an instance, too far away to be seen by itself."""
    backend, device = faster
    fds, radius, middle = 12.0, 72, 90
    y, x = np.indices((2 * middle + 1, 2 * middle + 1)) - middle
    instances = y**2 + x**2 > radius**2
    labels = np.where(instances, 1 + np.arange(instances.size).reshape(instances.shape), 0)
    weights = weight_map(tensor(labels, device), distance="euclidean", fds=fds, bwf=0, backend=backend)
    for at_y, at_x in ((0, 0), (10, -4), (-30, 20)):
        d2 = ((y - at_y) ** 2 + (x - at_x) ** 2)[instances]
        expected = 0.1 + 0.9 * np.exp(-d2 / (2 * fds**2)).sum()
        error = abs(weights[middle + at_y, middle + at_x].item() - expected)
        assert error <= EUCLIDEAN[torch.float32] * max(1, expected)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("sigma", [1e-300, 1e-3, 1e6, 1e300])
def test_euclidean_extremes_stay_finite(sigma, border, backend, device):
    labels, classes, ignore = (tensor(array, device) for array in cells(1))
    for dtype in (torch.int32, torch.float64):
        weights = weight_map(
            labels.to(dtype), classes=classes, ignore=ignore, distance="euclidean", border=border, bws=sigma,
            fds=sigma, bwf=1e30, backend=backend,
        )  # fmt: skip
        assert weights.isfinite().all()


# ------------------------------------------------------------------------------------- labels of every kind


@pytest.mark.parametrize("distance, border", RULES)
def test_large_and_sparse_ids(distance, border, backend, device):
    labels, classes, _ = cells(2)
    settings = dict(classes=tensor(classes, device), distance=distance, backend=backend)
    spread = np.where(labels > 0, labels * 10**12 // 7 + 5, -3)
    expected = weight_map(tensor(labels, device), border=border, **settings, bwf=bwf_without_border(border))
    weights = weight_map(tensor(spread, device), border=border, **settings)
    assert weight_error(weights, expected.cpu()) <= WEIGHT[torch.float32]


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64,
     torch.float16, torch.bfloat16, torch.float32, torch.float64],
    ids=str,
)  # fmt: skip
def test_every_dtype(dtype, backend, device):
    labels, classes, _ = cells(3)
    classes = np.minimum(classes, 7)
    labels, classes = tensor(labels, device), tensor(classes, device)
    for distance in DISTANCES:
        settings = dict(distance=distance, ignore_index=3, backend=backend)
        expected = weight_map(labels, classes=classes, **settings)
        assert torch.equal(weight_map(labels, classes=classes.to(dtype), **settings), expected)
        expected = weight_map(labels.double(), classes=classes, **{**settings, "backend": "reference"}).cpu()
        weights = weight_map(labels.to(dtype), classes=classes, **settings)
        assert weights.dtype == (dtype if dtype.is_floating_point else torch.float32)
        assert weight_error(weights, expected) <= WEIGHT[weights.dtype]


@pytest.mark.parametrize("distance, border", RULES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 2), (33, 17)])
def test_sizes(shape, distance, border, backend, device):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, shape) * (rng.random(shape) < 0.4)
    classes, ignore = rng.integers(0, 3, shape), rng.random(shape) < 0.2
    settings = dict(settings_of(border=border), distance=distance)
    weights = weight_map(
        tensor(labels, device), classes=tensor(classes, device), ignore=tensor(ignore, device), **settings,
        backend=backend,
    )  # fmt: skip
    expected = oracle.class_weight_map(labels, classes, ignore, **settings)
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 4, 5), (2, 0, 5), (2, 5, 0)])
def test_empty(shape, distance, backend, device):
    labels = torch.zeros(shape, dtype=torch.int32, device=device)
    weights = weight_map(labels, classes=labels, ignore=labels > 0, distance=distance, backend=backend)
    assert weights.shape == shape


@pytest.mark.parametrize("distance, border", RULES)
def test_batch_is_its_images(distance, border, backend, device):
    images = [cells(seed, count=count) for seed, count in enumerate((14, 0, 1, 14, 5, 14))]
    labels, classes, ignore = (tensor(np.stack(arrays), device) for arrays in zip(*images, strict=True))
    classes[3], ignore[4] = 0, True
    settings = dict(distance=distance, border=border, backend=backend)
    weights = weight_map(labels, classes=classes, ignore=ignore, **settings)
    for label, c, i, expected in zip(labels, classes, ignore, weights, strict=True):
        assert torch.equal(weight_map(label, classes=c, ignore=i, **settings), expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_reads_only_its_pixels(distance, backend, device):
    images = [cells(seed) for seed in (5, 6)]
    labels, classes, ignore = (tensor(np.stack(arrays), "cpu") for arrays in zip(*images, strict=True))
    fillings = ((labels, 9), (classes, 8), (ignore, True))
    views = [moved(surrounded(t, filling), device) for t, filling in fillings]
    settings = dict(distance=distance, backend=backend)
    weights = weight_map(views[0], classes=views[1], ignore=views[2], **settings)
    expected = weight_map(labels.to(device), classes=classes.to(device), ignore=ignore.to(device), **settings)
    assert torch.equal(weights, expected)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("distance", DISTANCES)
def test_bitwise_the_same_for_any_number_of_threads(distance, images, with_threads, backend, device):
    shape = (40, 50) if backend == "reference" else (300, 310)
    inputs = [cells(seed, shape, 40) for seed in range(images)]
    labels, classes, ignore = (tensor(np.stack(arrays), device) for arrays in zip(*inputs, strict=True))
    results = []
    for threads in (1, 2, 3):
        with_threads(threads)
        results.append(weight_map(labels, classes=classes, ignore=ignore, distance=distance, backend=backend))
    assert all(torch.equal(result, results[0]) for result in results[1:])


# -------------------------------------------------------------------------------------------------- classes


@pytest.mark.parametrize("distance, border", RULES)
def test_one_class_is_no_classes(distance, border, backend, device):
    labels = tensor(cells(7)[0], device)
    settings = dict(distance=distance, border=border, bwf=5, backend=backend)
    expected = weight_map(labels, **settings).cpu()
    for classes in (torch.ones_like(labels), labels > 0, (labels > 0).float() * 77):
        assert (
            weight_error(weight_map(labels, classes=classes, **settings), expected) <= WEIGHT[torch.float32]
        )


@pytest.mark.parametrize("distance, border", RULES)
def test_no_border_between_classes(distance, border, backend, device):
    labels = tensor(two_cells(), device)
    settings = dict(distance=distance, border=border, backend=backend)
    one, two = (
        weight_map(torch.where(labels == i, 1, 0), **settings, bwf=10, fbr=0).cpu().double() for i in (1, 2)
    )
    weights = weight_map(labels, classes=labels, **settings, bwf=10, fbr=0)
    expected = torch.where(labels.cpu() > 0, 1, one + two)
    assert weight_error(weights, expected) <= 2 * WEIGHT[torch.float32]


@pytest.mark.parametrize("distance", DISTANCES)
def test_farthest_by_class_counts_ids_of_the_image(distance, backend, device):
    """The ids 1..max must be there in some class; a class then has its own farthest instance."""
    labels, classes, _ = (tensor(array, device) for array in cells(8))
    settings = dict(distance=distance, border="farthest", bwf=9, backend=backend)
    classes = classes.clamp(1, 2)
    complete = weight_map(labels, classes=classes, **settings)
    without_border = weight_map(labels, classes=classes, **{**settings, "bwf": 0})
    assert complete.max() > without_border.max() + 0.1
    absent = torch.where(labels == labels.max(), labels + 1, labels)
    assert torch.equal(weight_map(absent, classes=classes, **settings), without_border)


@pytest.mark.parametrize("distance", DISTANCES)
def test_without_a_class_there_is_no_instance(distance, backend, device):
    labels, classes, _ = (tensor(array, device) for array in cells(9))
    assert ((classes == 0) & (labels > 0)).any()
    settings = dict(distance=distance, border="farthest", backend=backend)
    expected = weight_map(torch.where(classes > 0, labels, 0), classes=classes, **settings)
    assert torch.equal(
        weight_map(labels, classes=torch.where(classes > 0, classes, -4), **settings), expected
    )
    assert torch.equal(
        weight_map(labels, classes=torch.zeros_like(labels), **settings), torch.full_like(expected, 0.1)
    )


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 0.5, 2.0**31, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.usefixtures("on_cpu")
def test_float_classes_must_be_classes(dtype, value, backend, device):
    labels = tensor(two_cells(), device)
    classes = labels.to(dtype)
    classes[2, 3] = value
    with pytest.raises(ValueError, match=r"^classes must be finite whole numbers"):
        weight_map(labels, classes=classes, backend=backend)


@pytest.mark.parametrize("dtype", [torch.uint32, torch.int64, torch.uint64], ids=str)
@pytest.mark.usefixtures("on_cpu")
def test_classes_are_limited(dtype, backend, device):
    labels = tensor(two_cells(), device)
    classes = torch.full_like(labels, 2**31).to(dtype)
    with pytest.raises(ValueError, match=r"^classes .* up to 2\*\*31 - 1 .*, got 2147483648$"):
        weight_map(labels, classes=classes, backend=backend)
    if dtype == torch.uint64:
        with pytest.raises(ValueError, match=r"^classes .*, got 18446744073709551615$"):
            weight_map(labels, classes=torch.full_like(labels, -1).to(dtype), backend=backend)
    if dtype == torch.int64:
        weights = weight_map(labels, classes=-classes * 2**20, backend=backend)
        assert torch.equal(weights, torch.full_like(weights, 0.1))


# --------------------------------------------------------------------------------------------------- ignore


@pytest.mark.parametrize("distance, border", RULES)
def test_ignored_pixels_belong_to_no_instance(distance, border, backend, device):
    labels, classes, ignore = (tensor(array, device) for array in cells(10))
    ignore |= labels == 2
    settings = dict(distance=distance, border=border, backend=backend)
    rest = torch.where(ignore, 0, labels)
    for c in (None, classes):
        expected = weight_map(rest, classes=c, **settings).masked_fill(ignore, 0)
        assert torch.equal(weight_map(labels, classes=c, ignore=ignore, **settings), expected)
        marked = torch.where(ignore, 255, labels)
        assert torch.equal(weight_map(marked, classes=c, ignore_index=255, **settings), expected)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    "shape", [(3, 40, 50), (1, 40, 50), (40, 50), (3, 1, 1), (1, 50), (40, 1), (50,), ()]
)
def test_ignore_broadcasts(shape, distance, backend, device):
    labels = tensor(np.stack([cells(seed)[0] for seed in range(3)]), device)
    ignore = tensor(np.random.default_rng(11).random(shape) < 0.3, device)
    settings = dict(distance=distance, backend=backend)
    expected = weight_map(labels, ignore=ignore.expand(3, 40, 50).clone(), **settings)
    assert torch.equal(weight_map(labels, ignore=ignore, **settings), expected)
    if len(shape) < 3:
        weights = weight_map(labels[0], ignore=ignore, **settings)
        assert torch.equal(weights, expected[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("value", [torch.nan, -torch.inf, 0.5])
def test_what_is_ignored_may_be_anything(value, dtype, backend, device):
    labels, _, ignore = (tensor(array, device) for array in cells(12))
    labels = labels.to(dtype)
    expected = weight_map(labels, ignore=ignore, backend=backend)
    assert torch.equal(
        weight_map(labels.masked_fill(ignore, value), ignore=ignore, backend=backend), expected
    )


def test_ignore_and_ignore_index_add_up(backend, device):
    labels, _, ignore = (tensor(array, device) for array in cells(13))
    expected = weight_map(labels, ignore=ignore | (labels == 2), backend=backend)
    assert torch.equal(weight_map(labels, ignore=ignore, ignore_index=2, backend=backend), expected)
    assert (expected[labels == 2] == 0).all()


@pytest.mark.parametrize(
    "dtype, index, found",
    [
        (torch.uint8, -1, False),  # not 255
        (torch.uint8, 255, True),
        (torch.uint16, 65535, True),
        (torch.uint32, 2**32 - 1, True),
        (torch.uint64, 2**63 - 1, True),
        (torch.int64, -(2**63), True),
        (torch.int8, -1, True),
        (torch.int16, -100, True),
        (torch.float32, -1, True),
        (torch.float16, 70000, False),
    ],
    ids=str,
)
def test_ignore_index_of_any_dtype(dtype, index, found, backend, device):
    labels = torch.zeros(8, 9, dtype=dtype, device=device)
    labels[2:4, 2:4] = 1
    labels[6:, 6:] = index if found else 255 if dtype == torch.uint8 else 3
    weights = weight_map(labels, ignore_index=index, backend=backend)
    assert (weights[6:, 6:] == (0 if found else 1)).all()
    assert (weights[:5] > 0).all()


@pytest.mark.parametrize(
    "dtype, label, index",
    [
        (torch.float16, 2048, 2049),
        (torch.bfloat16, 256, -257),
        (torch.bfloat16, 256, 257),
        (torch.float32, 2**24, 2**24 + 1),
        (torch.float64, 2**53, 2**53 + 1),
    ],
    ids=str,
)
def test_ignore_index_is_not_rounded(dtype, label, index, backend, device):
    labels = torch.zeros(8, 9, dtype=dtype, device=device)
    labels[6:, 6:] = label
    assert (weight_map(labels, ignore_index=index, backend=backend)[6:, 6:] == 1).all()
    assert (weight_map(labels, ignore_index=label, backend=backend)[6:, 6:] == 0).all()


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.uint64, torch.int64, torch.float32], ids=str
)
def test_several_labels_to_ignore(dtype, backend, device):
    labels = torch.zeros(8, 9, dtype=torch.int64, device=device)
    labels[2:4, 2:4], labels[6:, :2], labels[6:, 3:5], labels[6:, 6:] = 1, 255, 254, 253
    labels = labels.to(dtype)
    for given in ([255, -1, 253], (253, 255), {255, 253}, [np.int64(253), 255, 255], range(253, 257, 2)):
        weights = weight_map(labels, ignore_index=given, backend=backend)
        ignore = torch.from_numpy(np.isin(labels.cpu().double().numpy(), [253, 255])).to(device)
        assert torch.equal(weights, weight_map(labels, ignore=ignore, backend=backend))
        assert (weights[6:, 3:5] == 1).all()
    transform = WeightTransform(ignore_index=[253, 255], preset="deepflash2_logconv", backend=backend)
    assert torch.equal(transform(labels), weights)
    assert "ignore_index=(253, 255)" in repr(transform)
    nothing = weight_map(labels, ignore_index=[], backend=backend)
    assert torch.equal(nothing, weight_map(labels, backend=backend))


def test_background_may_be_ignored(backend, device):
    labels = tensor(two_cells(), device)
    expected = weight_map(labels, backend=backend).masked_fill(labels == 0, 0)
    assert torch.equal(weight_map(labels, ignore_index=0, backend=backend), expected)


# -------------------------------------------------------------------------------------------------- regions


def regions(seed, shape=(30, 41)):
    """Soft masks that overlap, and a region to ignore that covers one of them."""
    rng = np.random.default_rng(seed)
    masks = np.stack([scattered(shape, 3, 7, rng) for _ in range(4)]) * 0.25
    ignore = scattered(shape, 3, 6, rng) > 0
    masks[2] *= ignore
    return masks, ignore


@pytest.mark.parametrize("distance, border", RULES)
@pytest.mark.parametrize("ks", [31, None])
def test_regions(ks, distance, border, backend, device):
    from scipy import ndimage

    masks, ignore = regions(14)
    settings = settings_of(border=border)
    without = {name: value for name, value in settings.items() if name not in ("ks", "lmbda")}
    for visible in (None, ~ignore):
        seen = masks if visible is None else masks * visible
        if distance == "euclidean":
            d = np.array([
                ndimage.distance_transform_edt(mask == 0) if mask.any() else np.full(mask.shape, np.inf)
                for mask in seen
            ])  # fmt: skip
        else:
            d = oracle.distances(seen, settings["lmbda"], 200 if ks is None else ks)
        expected = oracle.weights(d, (seen > 0).any(axis=0), **without) * (1 if visible is None else visible)
        for dtype in (torch.float32, torch.float64):
            weights = region_weight_map(
                tensor(masks, device).to(dtype), ignore=None if visible is None else tensor(ignore, device),
                **{**settings, "ks": ks}, distance=distance, backend=backend,
            )  # fmt: skip
            assert weight_error(weights, expected) <= WEIGHT[dtype]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64], ids=str
)
def test_regions_of_every_dtype(dtype, distance, backend, device):
    masks, ignore = (tensor(array, device) for array in regions(15))
    masks = (masks > 0).to(dtype)
    settings = dict(distance=distance, backend=backend)
    expected = region_weight_map(masks.double(), ignore=ignore, distance=distance, backend="reference").cpu()
    weights = region_weight_map(masks, ignore=ignore, **settings)
    assert weight_error(weights, expected) <= WEIGHT[weights.dtype]
    masks = masks.clone()
    if dtype.is_floating_point:
        masks[1] = masks[1].masked_fill(ignore, torch.nan)
        masks[3] = masks[3].masked_fill(ignore, -1)
    assert torch.equal(region_weight_map(masks, ignore=ignore, **settings), weights)


def test_ignore_broadcasts_for_regions(backend, device):
    masks, ignore = (tensor(array, device) for array in regions(18))
    row = ignore[int(ignore.sum(dim=1).argmax())]
    assert row.any()
    expected = region_weight_map(masks, ignore=row.expand_as(ignore).clone(), backend=backend)
    assert torch.equal(region_weight_map(masks, ignore=row, backend=backend), expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_zero_regions(distance, backend, device):
    ignore = torch.eye(5, 7, dtype=torch.bool, device=device)
    weights = region_weight_map(
        torch.zeros(0, 5, 7, device=device), ignore=ignore, distance=distance, backend=backend
    )
    assert torch.equal(weights, torch.full((5, 7), 0.1, device=device).masked_fill(ignore, 0))


# -------------------------------------------------------------------------------------------------- compile


@pytest.mark.parametrize("dynamic", [None, True])
def test_compile(dynamic, backend, device):
    torch.compiler.reset()
    compiled = torch.compile(weight_map, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    labels, classes, ignore = (tensor(array, device) for array in cells(16))
    batch = labels.expand(2, -1, -1)
    for input, settings in (
        (labels, dict(distance="euclidean")),
        (labels, dict(ks=None, classes=classes)),
        (batch, dict(distance="euclidean", ignore=ignore)),
        (batch[:, 3:], dict(ignore=ignore[3:], ignore_index=2)),
    ):
        expected = weight_map(input, **settings, backend=backend)
        assert torch.equal(compiled(input, **settings, backend=backend), expected)


def test_compile_regions(backend, device):
    compiled = torch.compile(region_weight_map, fullgraph=True, backend="aot_eager")
    masks, ignore = (tensor(array, device) for array in regions(17))
    settings = dict(distance="euclidean", ignore=ignore, ks=None, backend=backend)
    assert torch.equal(compiled(masks, **settings), region_weight_map(masks, **settings))
