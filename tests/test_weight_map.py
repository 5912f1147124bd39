import statistics
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import oracle
import pytest
import torch
from cases import (
    BORDERS,
    GOLDEN_SETTINGS,
    SHAPE_SETTINGS,
    SHAPES,
    disk,
    golden,
    in_turn,
    moved,
    random_case,
    random_weights64,
    scattered,
    settings_of,
    shape_weights64,
    surrounded,
    two_cells,
    weight_error,
)
from tolerances import REFERENCE, WEIGHT, WEIGHT_MEDIAN

from fastlogconv import weight_map

INTEGER_DTYPES = [
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.uint32,
    torch.int32,
    torch.uint64,
    torch.int64,
]
FLOAT_DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
RANDOM_SEEDS = range(60)


# ------------------------------------------------------------------------ against deepflash2 and brute force


@pytest.mark.parametrize("name", GOLDEN_SETTINGS)
def test_as_deepflash2(name, backend, device):
    file = golden("weight_transform")
    settings = settings_of(**{"border": "farthest", "bwf": 1, **GOLDEN_SETTINGS[name]})
    labels = torch.from_numpy(file["labels"]).to(device)
    for dtype in (torch.int32, torch.float32, torch.float64):
        weights = weight_map(labels.to(dtype), **settings, backend=backend)
        tolerance = WEIGHT[torch.float64 if dtype == torch.float64 else torch.float32]
        assert weight_error(weights[:, file["rows"]], file[name]) <= tolerance


def small_case(seed):
    rng = np.random.default_rng(1000 + seed)
    shape = tuple(rng.integers(1, 22, 2))
    _, settings = random_case(seed)
    settings["ks"] = int(rng.choice([1, 2, 5, 8, 15, 129]))
    return scattered(shape, rng.integers(0, 7), rng.integers(0, 6), rng), settings


@pytest.mark.parametrize("seed", range(40))
def test_against_brute_force(seed, backend, device):
    labels, settings = small_case(seed)
    expected = oracle.weight_map(labels, **settings)
    labels = torch.from_numpy(labels).to(device)
    weights = weight_map(labels, **settings, backend=backend)
    weights64 = weight_map(labels.double(), **settings, backend=backend)
    tolerance = REFERENCE if backend == "reference" else WEIGHT
    assert weight_error(weights, expected) <= tolerance[torch.float32]
    assert weight_error(weights64, expected) <= tolerance[torch.float64]


# --------------------------------------------------------------------------------- against the reference


@pytest.mark.parametrize("setting", range(len(SHAPE_SETTINGS)))
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name, setting, faster):
    backend, device = faster
    border = in_turn(BORDERS, list(SHAPES).index(name) + setting)  # in turn: the reference takes its time
    labels = torch.from_numpy(SHAPES[name]()).to(device)
    expected = shape_weights64(name, setting, border)
    weights = weight_map(labels, border=border, **SHAPE_SETTINGS[setting], backend=backend)
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]
    weights = weight_map(labels.double(), border=border, **SHAPE_SETTINGS[setting], backend=backend)
    assert weight_error(weights, expected) <= WEIGHT[torch.float64]


def test_random(faster):
    backend, device = faster
    errors = {}
    for seed in RANDOM_SEEDS:
        labels, settings = random_case(seed)
        weights = weight_map(torch.from_numpy(labels).to(device), **settings, backend=backend)
        errors[seed] = weight_error(weights, random_weights64(seed))
    worst = max(errors, key=errors.get)
    assert errors[worst] <= WEIGHT[torch.float32], f"seed {worst}: {random_case(worst)[1]}"
    assert statistics.median(errors.values()) <= WEIGHT_MEDIAN


def test_random_float64(faster):
    backend, device = faster
    for seed in RANDOM_SEEDS:
        labels, settings = random_case(seed)
        weights = weight_map(torch.from_numpy(labels).double().to(device), **settings, backend=backend)
        error = weight_error(weights, random_weights64(seed))
        assert error <= WEIGHT[torch.float64], f"seed {seed}: {settings}"


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("sigma", [1e-9, 0.01, 0.05])
def test_small_sigmas_and_decay_lengths_stay_finite(sigma, border, backend, device):
    labels = torch.zeros(80, 90, dtype=torch.int32, device=device)
    labels[2:4, 2:4], labels[60:63, 75:78] = 1, 2  # out of each other's reach, and much out of both's
    weights = weight_map(labels, border=border, bws=sigma, fds=sigma, lmbda=sigma / 2, backend=backend)
    assert weights.isfinite().all()
    assert weights[40, 40] == torch.tensor(0.1)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("lmbda", [1e-3, 0.01, 100.0, 1e6])
def test_extreme_decay_lengths_stay_finite(lmbda, border, backend, device):
    labels = torch.from_numpy(two_cells()).to(device)
    settings = settings_of(lmbda=lmbda, border=border, ks=31)
    weights = weight_map(labels, **settings, backend=backend)
    assert weight_error(weights, oracle.weight_map(two_cells(), **settings)) <= WEIGHT[torch.float32]


# --------------------------------------------------------------------------------------- what the rules say


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("fbr", [0.0, 0.1, 1.0])
def test_no_instance_gives_fbr(border, fbr, backend, device):
    labels = torch.zeros(2, 9, 11, dtype=torch.int32, device=device)
    weights = weight_map(labels, border=border, fbr=fbr, backend=backend)
    assert torch.equal(weights, torch.full((2, 9, 11), fbr, device=device))


@pytest.mark.parametrize("border", BORDERS)
def test_all_foreground_gives_one(border, backend, device):
    labels = torch.ones(13, 7, dtype=torch.int32, device=device)
    labels[:, 3:] = 2
    assert torch.equal(weight_map(labels, border=border, backend=backend), torch.ones(13, 7, device=device))


def test_second_nearest_needs_two_instances(backend, device):
    labels = torch.from_numpy(two_cells()).clamp(max=1).to(device)
    labels[12:] = 0
    with_border = weight_map(labels, bwf=10, backend=backend)
    assert torch.equal(with_border, weight_map(labels, bwf=0, backend=backend))


def test_farthest_of_one_instance_is_the_nearest(backend, device):
    labels = torch.zeros(1, 40, dtype=torch.int32, device=device)
    labels[0, 0] = 1
    x = np.arange(40)
    expected = 0.1 + 0.9 * np.exp(-(x**2) / 200) + 10 * np.exp(-((2 * x) ** 2) / 200)
    expected[0] = 1
    expected[37:] = 0.1  # beyond the window
    weights = weight_map(labels, border="farthest", backend=backend)
    assert weight_error(weights, expected[None]) <= WEIGHT[torch.float32]


def test_farthest_counts_absent_ids(backend, device):
    labels = torch.from_numpy(two_cells()).to(device)
    complete = weight_map(labels, border="farthest", backend=backend)
    without_border = weight_map(labels, border="farthest", bwf=0, backend=backend)
    assert complete.max() > without_border.max() + 0.1
    assert torch.equal(
        weight_map(torch.where(labels == 2, 3, labels), border="farthest", backend=backend), without_border
    )
    assert torch.equal(
        weight_map(torch.where(labels == 1, 0, labels), border="farthest", backend=backend),
        weight_map((labels == 2).int(), border="farthest", bwf=0, backend=backend),
    )


def test_farthest_counts_ids_per_image(backend, device):
    both = torch.from_numpy(two_cells()).to(device)
    first = torch.where(both == 2, 0, both)
    weights = weight_map(torch.stack([both, first]), border="farthest", backend=backend)
    assert torch.equal(weights[1], weight_map(first, border="farthest", backend=backend))
    assert (weights[1] > weight_map(first, border="farthest", bwf=0, backend=backend)).any()


@pytest.mark.parametrize("border", BORDERS)
def test_touching_and_nested_instances(border, backend, device):
    labels = np.zeros((20, 24), dtype=np.int64)
    labels[3:9, 3:9], labels[3:9, 9:14] = 1, 2
    labels[11:19, 2:22], labels[13:17, 5:18], labels[14:16, 8:12] = 3, 0, 4
    settings = settings_of(border=border)
    weights = weight_map(torch.from_numpy(labels).to(device), **settings, backend=backend)
    assert weight_error(weights, oracle.weight_map(labels, **settings)) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("ks", [73, 129])
def test_many_one_pixel_instances(ks, backend, device):
    labels = np.zeros((60, 70), dtype=np.int64)
    labels[::3, ::4] = np.arange(1, 361).reshape(20, 18)
    settings = dict(border="second_nearest", bws=20, fds=25, bwf=10, fbr=0.1, ks=ks)
    weights = weight_map(torch.from_numpy(labels).to(device), **settings, lmbda=0.1, backend=backend)
    assert weight_error(weights, oracle.one_pixel_weights(labels, **settings)) <= WEIGHT[torch.float32]


def test_40000_instances(backend, device):
    rng = np.random.default_rng(3)
    labels = np.zeros(512 * 512, dtype=np.int64)
    labels[rng.choice(512 * 512, 40_000, replace=False)] = np.arange(1, 40_001)
    labels = labels.reshape(512, 512)
    ks = 7 if backend == "reference" else 73  # the reference visits them one by one
    settings = dict(border="second_nearest", bws=5, fds=5, bwf=10, fbr=0.1, ks=ks)
    weights = weight_map(torch.from_numpy(labels).to(device), **settings, backend=backend)
    assert weight_error(weights, oracle.one_pixel_weights(labels, **settings)) <= WEIGHT[torch.float32]


# --------------------------------------------------------------------------------------------- the labels


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("dtype", INTEGER_DTYPES, ids=str)
def test_integer_labels(dtype, border, backend, device):
    labels = torch.from_numpy(scattered((30, 40), 9, 6, np.random.default_rng(4))).to(device)
    expected = weight_map(labels, border=border, backend=backend)
    weights = weight_map(labels.to(dtype), border=border, backend=backend)
    assert weights.dtype == torch.float32
    assert torch.equal(weights, expected)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_float_labels(dtype, backend, device):
    labels = torch.from_numpy(scattered((30, 40), 9, 6, np.random.default_rng(4))).to(device)
    expected = oracle.weight_map(labels.cpu().numpy(), **settings_of())
    weights = weight_map(labels.to(dtype), backend=backend)
    assert weights.dtype == dtype
    assert weight_error(weights, expected) <= WEIGHT[dtype]


def test_bool_labels_are_one_instance(backend, device):
    labels = torch.from_numpy(two_cells()).to(device) > 0
    weights = weight_map(labels, backend=backend)
    assert weights.dtype == torch.float32
    assert torch.equal(weights, weight_map(labels.int(), backend=backend))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, *FLOAT_DTYPES], ids=str)
def test_negative_labels_are_background(dtype, backend, device):
    labels = torch.from_numpy(two_cells()).to(device, dtype)
    expected = weight_map(labels, border="farthest", backend=backend)
    labels[labels == 0] = -3
    labels[0, 0] = -100
    assert torch.equal(weight_map(labels, border="farthest", backend=backend), expected)


@pytest.mark.parametrize(
    "dtype, ids",
    [
        (torch.int64, (2**63 - 1, 2**63 - 2)),
        (torch.int64, (2**32 + 1, 1)),  # equal in 32 bits
        (torch.int64, (2**31, 2**32 + 2**31)),
        (torch.uint64, (2**63 - 1, 10**8)),
        (torch.uint32, (2**32 - 1, 2**31)),
        (torch.int32, (2**31 - 1, 10**8)),
        (torch.uint16, (2**16 - 1, 2**15)),
        (torch.uint8, (255, 128)),
        (torch.float64, (2.0**53 - 1, 2.0**53)),
        (torch.float64, (2.0**62, 1e8)),
        (torch.float32, (1e8, 2.0**24)),
        (torch.float16, (2048.0, 2047.0)),
    ],
    ids=str,
)
def test_large_and_sparse_ids(dtype, ids, backend, device):
    cells = two_cells()
    labels = torch.from_numpy(np.select([cells == 1, cells == 2], [ids[0], ids[1]], 0)).to(device, dtype)
    assert len(labels.cpu().to(torch.float64 if labels.is_floating_point() else torch.int64).unique()) == 3
    few = torch.from_numpy(cells).to(device)
    few = few.to(dtype) if labels.is_floating_point() else few
    assert torch.equal(weight_map(labels, backend=backend), weight_map(few, backend=backend))
    assert torch.equal(
        weight_map(labels, border="farthest", backend=backend),
        weight_map(few, border="farthest", bwf=0, backend=backend),
    )


def test_ids_in_any_order(backend, device):
    labels = scattered((50, 60), 20, 6, np.random.default_rng(5))
    shuffled = np.random.default_rng(6).permutation(21)
    shuffled[shuffled == 0], shuffled[0] = shuffled[0], 0
    expected = weight_map(torch.from_numpy(labels).to(device), backend=backend)
    weights = weight_map(torch.from_numpy(shuffled[labels]).to(device), backend=backend)
    assert weight_error(weights, expected.cpu()) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("ks", [9, 73])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (1, 50), (50, 1), (2, 2), (3, 100), (100, 3), (5, 7), (32, 32), (33, 17)]
)
def test_sizes(shape, ks, border, backend, device):
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 3, shape) * (rng.random(shape) < 0.3)
    settings = settings_of(ks=ks, border=border)
    expected = oracle.weight_map(labels, **settings)
    weights = weight_map(torch.from_numpy(labels).to(device), **settings, backend=backend)
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("label, weight", [(0, 0.1), (1, 1.0), (5, 1.0), (-1, 0.1)])
def test_one_pixel_image(label, weight, backend, device):
    labels = torch.tensor([[label]], device=device)
    assert torch.equal(weight_map(labels, backend=backend), torch.tensor([[weight]], device=device))


@pytest.mark.parametrize("dtype", [torch.int32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "shape", [(0, 0), (0, 5), (5, 0), (0, 4, 5), (2, 0, 5), (2, 5, 0), (0, 0, 0)], ids=str
)
def test_empty(shape, dtype, backend, device):
    weights = weight_map(torch.zeros(shape, dtype=dtype, device=device), backend=backend)
    assert weights.shape == shape
    assert weights.dtype == (torch.float32 if dtype == torch.int32 else dtype)


def test_batch_is_its_images(backend, device):
    rng = np.random.default_rng(8)
    images = [scattered((40, 50), count, 7, rng) for count in (0, 1, 2, 30, 5, 0, 12)]
    batch = torch.from_numpy(np.stack(images)).to(device)
    weights = weight_map(batch, backend=backend)
    assert weights.shape == batch.shape
    for image, expected in zip(batch, weights, strict=True):
        assert torch.equal(weight_map(image, backend=backend), expected)


# ----------------------------------------------------------------------------------------------- memory


VIEWS = {
    "transposed": lambda labels: labels.transpose(1, 2).contiguous().transpose(1, 2),
    "every other": lambda labels: labels.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, ::2, ::2],
    "batch last": lambda labels: labels.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "a channel of four": lambda labels: torch.stack([labels, labels + 1, labels - 1, -labels], -1)[..., 0],
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.float32], ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_views(view, dtype, backend, device):
    images = [scattered((31, 45), 8, 7, np.random.default_rng(seed)) for seed in (9, 10, 11)]
    labels = torch.from_numpy(np.stack(images)).to(device, dtype)
    seen = VIEWS[view](labels)
    assert torch.equal(seen, labels) and seen.stride() != labels.stride()
    weights = weight_map(seen, backend=backend)
    assert weights.is_contiguous()
    assert torch.equal(weights, weight_map(labels, backend=backend))


def test_broadcast_batch(backend, device):
    labels = torch.from_numpy(two_cells()).to(device)
    weights = weight_map(labels.expand(3, -1, -1), backend=backend)
    assert weights.is_contiguous()
    assert torch.equal(weights, weight_map(labels, backend=backend).repeat(3, 1, 1))


@pytest.mark.parametrize(
    "dtype, filling", [(torch.int32, 7), (torch.int64, 2**40), (torch.float32, torch.nan), (torch.bool, True)]
)
def test_reads_only_its_pixels(dtype, filling, backend, device):
    images = [scattered((29, 37), 6, 8, np.random.default_rng(seed)) for seed in (12, 13)]
    labels = torch.from_numpy(np.stack(images)).to(dtype)
    view = moved(surrounded(labels, filling), device)
    around = view._base
    before = around.clone()
    weights = weight_map(view, backend=backend)
    assert torch.equal(weights, weight_map(labels.to(device), backend=backend))
    torch.testing.assert_close(around, before, rtol=0, atol=0, equal_nan=True)  # and writes none of them


def test_flips_and_turns(backend, device):
    labels = torch.from_numpy(scattered((40, 56), 10, 8, np.random.default_rng(14))).to(device)
    expected = weight_map(labels, backend=backend).cpu()
    for turn, back in [
        (lambda t: t.flip(0), lambda t: t.flip(0)),
        (lambda t: t.flip(1), lambda t: t.flip(1)),
        (lambda t: t.T, lambda t: t.T),
    ]:
        weights = back(weight_map(turn(labels), backend=backend))
        assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("images", [1, 7])
def test_bitwise_the_same_for_any_number_of_threads(images, same_for_any_number_of_threads, backend, device):
    rng = np.random.default_rng(15)
    labels = np.stack([scattered((150, 170), 25, 20, rng) for _ in range(images)])
    labels[0][disk((150, 170), 75, 80, 70)] = 26
    labels = torch.from_numpy(labels).to(device)
    assert same_for_any_number_of_threads(lambda: weight_map(labels, backend=backend))


def test_calls_from_many_threads_at_once(backend, device):
    rng = np.random.default_rng(16)
    batches = [torch.from_numpy(scattered((60, 60), 10, 9, rng)).to(device) for _ in range(8)]
    expected = [weight_map(labels, backend=backend) for labels in batches]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda labels: weight_map(labels, backend=backend), batches))
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


# ----------------------------------------------------------------------------------------- labels refused


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 0.5, -0.5, 1.25, 1e-42, 2.0**63, 1e19])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.usefixtures("on_cpu")
def test_float_labels_must_be_ids(dtype, value, backend, device):
    labels = torch.from_numpy(two_cells()).to(device, dtype)
    labels[5, 6] = value
    with pytest.raises(ValueError, match="labels must be finite whole numbers"):
        weight_map(labels, backend=backend)


@pytest.mark.parametrize("value", [2**63, 2**64 - 1])
@pytest.mark.usefixtures("on_cpu")
def test_uint64_ids_are_limited(value, backend, device):
    labels = torch.from_numpy(np.array([[0, 1], [value, 0]], dtype=np.uint64)).to(device)
    with pytest.raises(ValueError, match=r"up to 2\*\*63 - 1"):
        weight_map(labels, backend=backend)
