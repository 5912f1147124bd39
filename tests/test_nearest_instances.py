"""Exact distances to the nearest instances, of images and volumes with spacing, and weights by them."""

import ctypes
import json
import math

import numpy as np
import pytest
import torch
from cases import DATA, golden, scattered, surrounded, weight_error
from scipy.ndimage import distance_transform_edt
from tolerances import DISTANCE, EUCLIDEAN

import fastlogconv
from fastlogconv import backends, nearest_instances, signed_distance_map
from fastlogconv.backends import c_interface, native

BIG = 2**62
PUBLISHED = ("2d", "2d_spacing", "3d", "3d_spacing")
SETS = json.loads((DATA / "published_params.json").read_text())


FEATURES = ("nearest instances",)
ABLE = [
    (name, device)
    for device in (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    for name, reason in backends.reasons(torch.device(device), FEATURES).items()
    if reason is None
]


@pytest.fixture(params=ABLE, ids="-".join)
def served(request):
    """Every (backend, device) that does not name it in LACKS."""
    return request.param


def by_instance(labels, spacing):
    """(ids, distances [instances, ...]) by one transform of SciPy's per instance."""
    ids = np.unique(labels[labels > 0])
    return ids, np.array([distance_transform_edt(labels != i, sampling=spacing) for i in ids])


def check(labels, spacing, result, tolerance):
    """Holds distances and ids of one image or volume against SciPy's."""
    distances, near_ids = (part.cpu().numpy() for part in result)
    ids, each = by_instance(labels, spacing)
    missing = np.full((2, *labels.shape), np.inf)
    expected = np.sort(np.concatenate([each.reshape(-1, *labels.shape), missing]), axis=0)[: len(distances)]
    assert np.array_equal(np.isinf(distances), np.isinf(expected))
    finite = np.isfinite(expected)
    distances, expected = distances[finite], expected[finite]
    assert np.all(np.abs(distances - expected) <= tolerance * expected)
    if len(ids) == 0:
        assert not near_ids.any()
        return
    # Of those that are as near as the nearest, the smallest id.
    as_near = each <= each.min(axis=0) * (1 + 1e-13)
    smallest = ids[as_near.argmax(axis=0)]
    if len(set(spacing)) == 1:
        assert np.array_equal(near_ids, smallest)
    else:
        place = np.searchsorted(ids, near_ids)
        of_found = np.take_along_axis(each, place[None], axis=0)[0]
        assert np.all(of_found <= each.min(axis=0) * (1 + max(tolerance, 1e-13)))


def blobs(shape, count, rng, largest_id=1000):
    """Boxes of random ids, drawn over one another: holes, rests and instances of many pieces among them."""
    labels = np.zeros(shape, np.int64)
    ids = rng.integers(1, largest_id, max(1, count // 2), dtype=np.int64)
    for _ in range(count):
        low = [rng.integers(0, n) for n in shape]
        box = tuple(slice(a, a + rng.integers(1, 2 + n // 5)) for a, n in zip(low, shape, strict=True))
        labels[box] = rng.choice([*ids, 0])
    return labels


def random_volume(seed):
    rng = np.random.default_rng(seed)
    dims = 2 + seed % 2
    shape = tuple(rng.integers(1, 40 if dims == 2 else 22, dims))
    if seed % 5 == 0:
        shape = tuple(1 if i == seed % dims else n for i, n in enumerate(shape))
    labels = blobs(shape, rng.integers(0, 30), rng, BIG if seed % 3 == 0 else 90)
    spacing = (1.0,) * dims if seed % 4 == 0 else tuple(rng.uniform(0.3, 8, dims))
    return labels, spacing


# ------------------------------------------------------------------------------------- distances and ids


@pytest.mark.parametrize("seed", range(40))
def test_as_scipy(seed, backend, device):
    labels, spacing = random_volume(seed)
    for dtype in (torch.int64, torch.float64):
        if dtype == torch.float64 and labels.max() > 2**53:
            continue
        tensor = torch.from_numpy(labels).to(device, dtype)
        for k in (1, 2):
            result = nearest_instances(tensor, k, spacing, labels.ndim, backend=backend)
            assert result[0].shape == (k, *labels.shape)
            check(labels, spacing, result, DISTANCE[result[0].dtype])


@pytest.mark.parametrize("seed", range(12))
def test_instruction_sets(seed, instruction_set):
    labels, spacing = random_volume(100 + seed)
    for dtype in (torch.int64, torch.float64):
        if dtype == torch.float64 and labels.max() > 2**53:
            continue
        result = nearest_instances(torch.from_numpy(labels).to(dtype), 2, spacing, labels.ndim)
        check(labels, spacing, result, DISTANCE[result[0].dtype])


def shapes():
    rng = np.random.default_rng(3)
    board = np.indices((31, 37)).sum(0) % 2
    yield "none", np.zeros((9, 40), np.int64)
    yield "one pixel", np.pad(np.full((1, 1), 7), ((30, 2), (3, 50)))
    yield "all of one", np.full((20, 33), 5)
    yield "all of two", np.where(np.arange(33) < 11, 4, 2) * np.ones((20, 1), np.int64)
    yield "checkerboard with background", board * 3
    yield "checkerboard of two", board + 1
    yield "every pixel its own", np.arange(1, 31 * 37 + 1).reshape(31, 37)
    yield "far apart", np.eye(1, 20000, 5, dtype=np.int64) + 2 * np.eye(1, 20000, 19998, dtype=np.int64)
    yield (
        "far apart, in a column",
        np.eye(1, 9001, 0, dtype=np.int64).T + 2 * np.eye(1, 9001, 9000, dtype=int).T,
    )
    yield "ties", np.pad(np.array([[0, 9, 0], [4, 0, 6], [0, 2, 0]]), 20)
    yield "disks", scattered((70, 90), 30, 9, rng)
    yield "volume of two planes", blobs((2, 30, 17), 20, rng)
    yield "thin volume", blobs((40, 1, 50), 20, rng)
    yield "column of voxels", blobs((300, 1, 1), 20, rng)


@pytest.mark.parametrize("name, labels", [pytest.param(*pair, id=pair[0]) for pair in shapes()])
def test_shapes(name, labels):
    for spacing in ((1.0,) * labels.ndim, (0.3,) * labels.ndim, (8.0, 0.3, 1.7)[: labels.ndim]):
        for dtype in (torch.int32, torch.float64):
            tensor = torch.from_numpy(labels).to(dtype)
            result = nearest_instances(tensor, 2, spacing, labels.ndim)
            check(labels, spacing, result, DISTANCE[result[0].dtype])


def far_shapes():
    """Where the nearest instances are hundreds of pixels away, along the first axis or the second."""
    rng = np.random.default_rng(4)
    y, x = np.indices((330, 70))
    yield "lines at both ends", np.select([y == 0, (y == 329) & (x > 20)], [3, 1])
    yield "a line at one side", np.where(x == 0, 2, 0)
    yield "diagonals", np.select([y == 4 * x, y == 329 - 4 * x, y == 40 + x], [9, 4, 6])
    yield "an arc", np.where(abs(np.hypot(y - 165, x - 165) - 160) < 1, 1 + y % 2, 0)
    yield "ties", np.where((x % 9 == 0) & ((y == 5) | (y == 325)), 50 - x + y % 2, 0)
    for seed in range(6):
        shape = [(330, 70), (257, 33), (4, 290, 20), (290, 4, 20)][seed % 4]
        labels = np.zeros(shape, np.int64)
        for _ in range(2 + 3 * seed):
            labels[tuple(rng.integers(0, shape))] = rng.integers(1, 5)
        yield f"few pixels {seed}", labels


FAR_SHAPES = [pytest.param(labels, id=name) for name, labels in far_shapes()]


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("labels", FAR_SHAPES)
def test_far_instances(labels):
    for spacing in ((1.0,) * labels.ndim, (0.7, 1.9, 1.0)[: labels.ndim]):
        for dtype in (torch.int32, torch.float64):
            for k in (1, 2):
                result = nearest_instances(torch.from_numpy(labels).to(dtype), k, spacing, labels.ndim)
                check(labels, spacing, result, DISTANCE[result[0].dtype])


@pytest.mark.parametrize("labels", FAR_SHAPES)
def test_weights_of_far_instances(labels):
    settings = dict(preset="unet2019", spatial_dims=labels.ndim, bws=90, fds=150, backend="native")
    labels = torch.from_numpy(labels)
    expected = fastlogconv.weight_map(labels.double(), **(settings | dict(backend="reference")))
    for dtype in (torch.int32, torch.float64):
        weights = fastlogconv.weight_map(labels.to(dtype), **settings)
        assert weight_error(weights, expected) <= EUCLIDEAN[weights.dtype]


def test_large_squares_tell_ids_apart():
    """Squares of whole numbers above 2^24 that float32 takes for one."""
    labels = np.zeros((4100, 3), np.int64)
    labels[0, 0], labels[4099, 1] = 9, 3
    labels = np.pad(labels, ((0, 0), (0, 4100)))
    labels[0, 4099] = 5
    point = (4099, 4100)  # 4099^2 + 1, 4099^2, and a farther one
    distances, ids = nearest_instances(torch.from_numpy(labels))
    squares = {i: ((np.argwhere(labels == i)[0] - point) ** 2).sum() for i in (3, 5, 9)}
    nearest = min(squares, key=squares.get)
    assert ids[point] == nearest == 3
    assert distances[(0, *point)] == math.sqrt(squares[3])


@pytest.mark.parametrize("seed", range(4))
def test_as_the_reference(seed):
    """In the second axis of a batch, and with what is to be ignored."""
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(np.stack([blobs((9, 14, 20), 15, rng) for _ in range(3)]))
    ignore = torch.from_numpy(rng.random((9, 14, 20)) < 0.3)
    for dims, spacing in ((3, None), (3, (2, 1, 0.5)), (2, (3.0, 1.0))):
        tensor = labels if dims == 3 else labels[:, 4]
        here = ignore if dims == 3 else ignore[4]
        args = (tensor, 2, spacing, dims)
        distances, ids = nearest_instances(*args, ignore=here)
        expected, expected_ids = nearest_instances(*args, ignore=here, backend="reference")
        torch.testing.assert_close(distances, expected, rtol=3e-7, atol=0)
        assert torch.equal(ids, expected_ids)
        without = nearest_instances(tensor.masked_fill(here, 0), 2, spacing, dims)
        assert torch.equal(without[0], distances)
        assert torch.equal(without[1], ids)


INTEGERS = [
    torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64,
]  # fmt: skip
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", [torch.bool, *INTEGERS, *FLOATS], ids=str)
def test_dtypes_and_views(dtype, backend, device):
    labels = torch.from_numpy(scattered((20, 35), 12, 5, np.random.default_rng(5)))
    if dtype == torch.bool:
        labels = labels > 6
    expected = nearest_instances(labels.to(torch.int64), backend="reference")
    tensor = labels.to(dtype).to(device)
    for view in (
        tensor,
        surrounded(tensor.cpu(), 1).to(device),
        tensor.T.contiguous().T,
        tensor.flip(0).flip(0),
    ):
        distances, ids = nearest_instances(view, backend=backend)
        assert distances.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(distances.double().cpu(), expected[0].double(), rtol=2e-7, atol=0)
        assert torch.equal(ids.cpu(), expected[1])


def test_strided_volumes_and_negative_labels():
    rng = np.random.default_rng(6)
    labels = torch.from_numpy(blobs((8, 12, 33), 20, rng))
    labels[labels == 0] = -3
    expected = nearest_instances(labels.clamp(min=0), 2, (2, 1, 1), 3)
    permuted = labels.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for view in (permuted, surrounded(labels, 7), labels[None].expand(3, -1, -1, -1)):
        distances, ids = nearest_instances(view, 2, (2, 1, 1), 3)
        if view.dim() == 4:
            distances, ids = distances[:, 2], ids[2]
        assert torch.equal(distances, expected[0])
        assert torch.equal(ids, expected[1])


def test_threads(same_for_any_number_of_threads):
    rng = np.random.default_rng(7)
    for shape in ((1, 300, 280), (24, 60, 70), (3, 200, 150)):
        labels = torch.from_numpy(blobs(shape, 60, rng, BIG))
        classes = torch.from_numpy(blobs(shape, 9, rng, 3))
        params = params_of((2, 1, 1), bws=6.0, bwf=50.0)
        assert same_for_any_number_of_threads(lambda x=labels: nearest_instances(x, 2, (2, 1, 1), 3)[0])
        assert same_for_any_number_of_threads(lambda x=labels: nearest_instances(x, 2, (2, 1, 1), 3)[1])
        assert same_for_any_number_of_threads(
            lambda x=labels, c=classes, p=params: native.nearest_weight_map(x[None], c[None], None, None, p)
        )


def test_nothing_is_left_unwritten(monkeypatch, instruction_set):
    """Into outputs full of NaN, and with scratch memory that earlier calls left full of other numbers."""
    real = torch.empty

    def poisoned(*args, **kwargs):
        tensor = real(*args, **kwargs)
        return tensor.fill_(math.nan if tensor.is_floating_point() else -77)

    rng = np.random.default_rng(8)
    cases = [torch.from_numpy(blobs(shape, 12, rng)) for shape in ((5, 9, 33), (1, 40, 50), (7, 3, 2))]
    params = params_of((1, 1, 1), bws=4.0, bwf=20.0)
    expected = [nearest_instances(x, 2, None, 3, backend="reference") for x in cases]
    monkeypatch.setattr(torch, "empty", poisoned)
    for labels, (distances, ids) in zip(cases, expected, strict=True):
        nearest_instances(torch.full((20, 64, 64), 3), 2, None, 3)
        found = nearest_instances(labels, 2, None, 3)
        torch.testing.assert_close(found[0], distances, rtol=3e-7, atol=0)
        assert torch.equal(found[1], ids)
        assert native.nearest_weight_map(labels[None], None, None, None, params).isfinite().all()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 4, 5), (2, 0, 5)])
def test_empty(shape, backend, device):
    labels = torch.zeros(shape, dtype=torch.int32, device=device)
    distances, ids = nearest_instances(labels, backend=backend)
    assert distances.shape == (2, *shape)
    assert ids.shape == shape


LABELS = torch.ones(4, 5, dtype=torch.int32)


@pytest.mark.parametrize(
    "error, message, call",
    [
        (TypeError, "labels must be a torch.Tensor", lambda: nearest_instances(LABELS.numpy())),
        (
            ValueError,
            r"labels must have the shape \[H, W\] or \[B, H, W\]",
            lambda: nearest_instances(LABELS[0]),
        ),
        (ValueError, r"\[D, H, W\] or \[B, D, H, W\]", lambda: nearest_instances(LABELS, spatial_dims=3)),
        (ValueError, "spatial_dims must be 2", lambda: nearest_instances(LABELS, spatial_dims=4)),
        (ValueError, "k must be 1 or 2, got 3", lambda: nearest_instances(LABELS, 3)),
        (TypeError, "k must be the integer 1 or 2, got 1.0", lambda: nearest_instances(LABELS, 1.0)),
        (TypeError, "spacing must be a sequence of numbers", lambda: nearest_instances(LABELS, spacing=2.0)),
        (ValueError, "spacing must be 2 numbers", lambda: nearest_instances(LABELS, spacing=(1, 1, 1))),
        (
            TypeError,
            "spacing must be",
            lambda: nearest_instances(LABELS, spacing=("1", 1)),
        ),
        (ValueError, "spacing must be from 1e-30", lambda: nearest_instances(LABELS, spacing=(0, 1))),
        (ValueError, "spacing must be from 1e-30", lambda: nearest_instances(LABELS, spacing=(1, math.nan))),
        (TypeError, "ignore must be a bool", lambda: nearest_instances(LABELS, ignore=LABELS)),
        (ValueError, "ignore must have a shape", lambda: nearest_instances(LABELS, ignore=LABELS[:3] > 0)),
        (
            ValueError,
            "labels must not require grad",
            lambda: nearest_instances(LABELS.float().requires_grad_()),
        ),
        (ValueError, r"got 0\.5", lambda: nearest_instances(LABELS / 2)),
        (ValueError, "labels of float16", lambda: nearest_instances((LABELS * 3000).half())),
        (ValueError, "backend must be one of", lambda: nearest_instances(LABELS, backend="fast")),
        (ValueError, "spatial_dims must be 2", lambda: signed_distance_map(LABELS, spatial_dims=1)),
    ],
)
def test_errors_name_the_argument(error, message, call):
    with pytest.raises(error, match=message):
        call()


# --------------------------------------------------------------------------------------- signed distances


@pytest.mark.parametrize("seed", range(8))
def test_signed_distance_as_scipy(seed, backend, device):
    labels, spacing = random_volume(200 + seed)
    inside = labels > 0
    if inside.all() or not inside.any():
        return
    expected = distance_transform_edt(~inside, spacing) - distance_transform_edt(inside, spacing)
    tensor = torch.from_numpy(labels).to(device)
    signed = signed_distance_map(tensor, spacing, labels.ndim, backend=backend)
    torch.testing.assert_close(signed.cpu().double(), torch.from_numpy(expected), rtol=1e-6, atol=0)
    mask = torch.from_numpy(inside).to(device)
    assert torch.equal(signed_distance_map(mask, spacing, labels.ndim, backend=backend), signed)


def test_signed_distance_where_one_side_is_missing():
    assert (signed_distance_map(torch.zeros(3, 4, dtype=torch.uint16)) == math.inf).all()
    assert (signed_distance_map(torch.ones(3, 4, dtype=torch.uint16)) == -math.inf).all()
    ignore = torch.arange(12).reshape(3, 4) < 6
    signed = signed_distance_map(torch.ones(3, 4, dtype=torch.float64), ignore=ignore)
    assert signed.dtype == torch.float64
    assert (signed[ignore] == 0).all()
    assert (signed[~ignore] == -math.inf).all()


# ------------------------------------------------------------------------------------------------ weights


def params_of(
    spacing, bws=10.0, fds=10.0, bwf=10.0, fbr=0.1, falloff="nearest", one=1.0, zero=None, everywhere=False,
    half_bit=2.0**-25,
):  # fmt: skip
    """What the native function takes for settings."""

    def reach(sigma, factor):
        return sigma * math.sqrt(2 * math.log(max(factor, 1) / half_bit)) if factor else 0.0

    fall = 1 - fbr if falloff == "nearest" else 0.0
    exponents = (-0.5 / math.log(2) / sigma**2 for sigma in (fds, bws))
    return c_interface.NearestParams(
        (ctypes.c_double * 3)(*[1.0] * (3 - len(spacing)), *spacing),
        one, fbr if zero is None else zero, fall, bwf, *exponents, reach(fds, fall), reach(bws, bwf),
        everywhere,
    )  # fmt: skip


def balanced(foreground, classes, ignore):
    """(one by kind of pixel, zero) by frequency."""
    kinds = np.where(ignore, -1, np.where(foreground, classes, 0))
    present, counts = np.unique(kinds[kinds >= 0], return_counts=True)
    factors = counts.sum() / len(present) / counts
    return dict(zip(present.tolist(), factors.tolist(), strict=True))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("with_classes", [False, True])
@pytest.mark.parametrize("name", [name for name in SETS if SETS[name]["falloff"] != "sum"])
@pytest.mark.parametrize("file", PUBLISHED)
def test_published_weights(file, name, with_classes, double, instruction_set):
    data, settings = golden(f"published_{file}"), dict(SETS[name])
    gap, balance = settings.pop("gap", False), settings.pop("balance", False)
    if name == "unet2019":
        settings = dict(bws=6.0, bwf=50.0) | settings
    points = data["points"] if "points" in data else slice(None)
    labels, classes = data["labels"], data["classes"]
    ignore = data["ignore"] if with_classes else np.zeros(labels.shape, bool)
    shown = labels if not gap else data["separated_by_class" if with_classes else "separated"]
    foreground = (shown > 0) & ((classes > 0) | (not with_classes))
    if balance:
        factors = balanced(foreground, classes if with_classes else 1, ignore)
        settings |= dict(one=1.0, zero=factors[0])
    tensors = [
        None if array is None else torch.from_numpy(array)[None]
        for array in (labels, classes if with_classes else None, foreground, ignore if with_classes else None)
    ]
    params = params_of(data["spacing"], **settings, half_bit=2.0**-54 if double else 2.0**-25)
    if double:
        tensors[0] = tensors[0].double()
    dtype = torch.float64 if double else torch.float32
    weights = native.nearest_weight_map(*tensors, params, dtype)
    if balance:  # `one` is of each class: added where it is not 1
        inside = torch.from_numpy(foreground & ~ignore)
        kinds = np.where(foreground, classes if with_classes else 1, 0)
        ones = torch.from_numpy(np.vectorize(lambda kind: factors.get(kind, 0))(kinds))
        weights[0][inside] += ones.to(weights.dtype)[inside] - 1
    suffix = "_classes_ignore" if with_classes else ""
    expected = data[f"w_{name}{suffix}"].flatten()
    assert weight_error(weights.flatten()[points], expected) <= EUCLIDEAN[weights.dtype]
    distances = fastlogconv.nearest_instances(tensors[0], 2, data["spacing"].tolist(), labels.ndim)[0]
    for found, expected in zip(distances, (data["nearest"], data["second"]), strict=True):
        found, expected = found.flatten().double().numpy()[points], expected.flatten()
        assert np.all(np.abs(found - expected) <= DISTANCE[distances.dtype] * expected)


def test_weights_beyond_the_limits_are_those_of_the_background():
    labels = torch.zeros(1, 1, 90, dtype=torch.int32)
    labels[0, 0, 10], labels[0, 0, 20] = 1, 2
    params = params_of((1, 1), bws=3.0, fds=2.0, bwf=9.0)
    params.limit, params.pair_limit = 6.0, 10.5
    weights = native.nearest_weight_map(labels, None, None, None, params)[0, 0]
    x = np.arange(90)
    near, second = np.sort(np.abs(x - np.array([[10], [20]])), axis=0)
    fall = np.where(near < 6, np.exp(-0.5 * (near / 2) ** 2), 0)
    border = np.where(near + second < 10.5, np.exp(-0.5 * ((near + second) / 3) ** 2), 0)
    expected = np.where(near == 0, 1, 0.1 + 0.9 * fall + 9 * border)
    assert weight_error(weights, expected) <= 1e-6
    assert (weights[30:] == np.float32(0.1)).all()


def test_large_border_factors_keep_the_promise():
    labels = torch.from_numpy(scattered((60, 70), 20, 4, np.random.default_rng(9)))[None]
    for bwf in (1e5, 1e6, 1.1e6, 1e12, 1e30):
        params = params_of((1.7, 0.9), bws=5.0, bwf=bwf)
        exact = native.nearest_weight_map(labels, None, None, None, params, torch.float64)
        weights = native.nearest_weight_map(labels, None, None, None, params)
        assert weight_error(weights, exact) <= EUCLIDEAN[torch.float32]
