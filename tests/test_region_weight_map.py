import numpy as np
import oracle
import pytest
import torch
from cases import (
    BORDERS,
    GOLDEN_SETTINGS,
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
from tolerances import REFERENCE, WEIGHT

from fastlogconv import WeightTransformSingle, region_weight_map, weight_map
from fastlogconv.backends import native

FLOAT_DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def soft_masks(n, shape, rng):
    """Blobs with soft edges, overlapping; the values are exact in every float type."""
    masks = rng.integers(1, 257, (n, *shape)) / 256
    for mask in masks:
        mask[scattered(shape, 2, max(shape) // 2, rng) == 0] = 0
    return masks


@pytest.mark.parametrize("masks", ["soft", "overlapping"])
@pytest.mark.parametrize("name", GOLDEN_SETTINGS)
def test_as_deepflash2(name, masks, backend, device):
    file = golden("weight_transform_single")
    settings = settings_of(**{"border": "farthest", "bwf": 1, **GOLDEN_SETTINGS[name]})
    for dtype in (torch.float32, torch.float64):
        weights = region_weight_map(
            torch.from_numpy(file[masks]).to(device, dtype), **settings, backend=backend
        )
        assert weight_error(weights[file["rows"]], file[f"{masks}_{name}"]) <= WEIGHT[dtype]


@pytest.mark.parametrize("seed", range(40))
def test_against_brute_force(seed, backend, device):
    rng = np.random.default_rng(2000 + seed)
    masks = soft_masks(rng.integers(1, 6), tuple(rng.integers(1, 20, 2)), rng)
    settings = dict(
        border=in_turn(BORDERS, seed),
        lmbda=float(np.exp(rng.uniform(np.log(0.1), np.log(10)))),
        ks=int(rng.choice([1, 2, 5, 8, 15, 129])),
        bws=float(rng.uniform(1, 40)),
        fds=float(rng.uniform(1, 40)),
        bwf=float(rng.uniform(0, 50)),
        fbr=float(rng.uniform(0, 1)),
    )
    expected = oracle.region_weight_map(masks, **settings)
    tolerance = REFERENCE if backend == "reference" else WEIGHT
    for dtype in (torch.float32, torch.float64):
        weights = region_weight_map(torch.from_numpy(masks).to(device, dtype), **settings, backend=backend)
        assert weights.dtype == dtype
        assert weight_error(weights, expected) <= tolerance[dtype]


@pytest.mark.parametrize("seed", range(8))
def test_against_the_reference(seed, faster):
    backend, device = faster
    rng = np.random.default_rng(3000 + seed)
    masks = torch.from_numpy(soft_masks(5, tuple(rng.integers(80, 200, 2)), rng))
    settings = dict(
        border=in_turn(BORDERS, seed), lmbda=(0.1, 0.35, 2, 10)[seed // 2], ks=(129, 73, 31, 9)[seed % 4]
    )
    expected = region_weight_map(masks, fds=25, bws=20, **settings, backend="reference")
    for dtype in (torch.float32, torch.float64):
        weights = region_weight_map(masks.to(device, dtype), fds=25, bws=20, **settings, backend=backend)
        assert weight_error(weights, expected) <= WEIGHT[dtype]


@pytest.mark.parametrize("border", BORDERS)
def test_binary_masks_are_labels(border, backend, device):
    labels = scattered((60, 80), 10, 9, np.random.default_rng(17))
    _, labels = np.unique(labels, return_inverse=True)
    labels = torch.from_numpy(labels.reshape(60, 80)).to(device)
    masks = labels == torch.arange(1, int(labels.max()) + 1, device=device)[:, None, None]
    expected = weight_map(labels.double(), border=border, backend="reference").cpu()
    for dtype in (torch.bool, torch.uint8, torch.int64, *FLOAT_DTYPES):
        weights = region_weight_map(masks.to(dtype), border=border, backend=backend)
        assert weights.dtype == (dtype if dtype in FLOAT_DTYPES else torch.float32)
        assert weight_error(weights, expected) <= WEIGHT[weights.dtype]


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e30])
def test_scale_of_masks(scale, backend, device):
    masks = soft_masks(3, (16, 18), np.random.default_rng(18)) * scale
    settings = settings_of(border="farthest", bws=40, fds=30)
    weights = region_weight_map(
        torch.from_numpy(masks).to(device, torch.float32), **settings, backend=backend
    )
    expected = oracle.region_weight_map(masks.astype(np.float32).astype(np.float64), **settings)
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("value", [1e13, 1e30, 3e38])
@pytest.mark.parametrize("lmbda, sigma", [(0.1, 0.15), (0.35, 10), (3.5, 5)])
def test_masks_of_large_values(sigma, lmbda, value, backend, device):
    """A single pixel seen from everywhere: d = steps - lmbda ln(value), far below 0."""
    steps = np.add.outer(np.arange(40), np.arange(5))
    d = steps - lmbda * np.log(np.float32(value).astype(np.float64))
    expected = oracle.weights(
        np.stack([d, steps]), steps == 0, border="second_nearest", bws=sigma, fds=sigma, bwf=10, fbr=0.1
    )
    masks = torch.zeros(2, 40, 5, device=device)
    masks[0, 0, 0], masks[1, 0, 0] = value, 1
    weights = region_weight_map(masks, lmbda=lmbda, ks=None, fds=sigma, bws=sigma, backend=backend)
    if device == "cpu" or lmbda * np.log(value) <= 2 * sigma:  # as documented
        assert weight_error(weights, expected) <= WEIGHT[torch.float32]
    weights = region_weight_map(masks.double(), lmbda=lmbda, ks=None, fds=sigma, bws=sigma, backend=backend)
    assert weight_error(weights, expected) <= WEIGHT[torch.float64]


INTEGER_DTYPES = [torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32]


@pytest.mark.parametrize("dtype", [*INTEGER_DTYPES, torch.uint64, torch.int64], ids=str)
def test_integer_masks_say_where_not_how_much(dtype, backend, device):
    masks = torch.zeros(3, 20, 25, dtype=torch.int64)
    largest = -1 if dtype == torch.uint64 else torch.iinfo(dtype).max  # -1 becomes 2^64 - 1
    masks[0, 2:9, 3:8], masks[1, 5:7, 12:20], masks[2, 11, 6] = 1, 100, largest
    if dtype.is_signed:
        masks[1, 15:, 9:] = -1
    weights = region_weight_map(masks.to(dtype).to(device), backend=backend)
    where = masks != 0 if dtype == torch.uint64 else masks > 0
    assert torch.equal(weights, region_weight_map(where.to(device), backend=backend))


@pytest.mark.parametrize("border", BORDERS)
def test_an_empty_region_is_infinitely_far(border, backend, device):
    masks = torch.from_numpy(oracle.regions_of(two_cells())).to(device)
    with_empty = torch.cat([masks, torch.zeros_like(masks[:1])])
    weights = region_weight_map(with_empty, border=border, backend=backend)
    expected = region_weight_map(masks, border=border, bwf=bwf_without_border(border), backend=backend)
    assert torch.equal(weights, expected)


@pytest.mark.parametrize("shape", [(0, 5, 7), (0, 0, 0), (3, 0, 5), (2, 5, 0)], ids=str)
def test_empty(shape, backend, device):
    weights = region_weight_map(torch.zeros(shape, device=device), fbr=0.3, backend=backend)
    assert torch.equal(weights, torch.full(shape[1:], 0.3, device=device))


def test_zeros_give_fbr(backend, device):
    weights = region_weight_map(torch.zeros(3, 5, 7, device=device), border="farthest", backend=backend)
    assert torch.equal(weights, torch.full((5, 7), 0.1, device=device))


@pytest.mark.parametrize("ks", [9, 129])
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (3, 40), (17, 5)])
def test_sizes(shape, ks, backend, device):
    masks = soft_masks(3, shape, np.random.default_rng(19))
    settings = settings_of(ks=ks, border="farthest")
    weights = region_weight_map(torch.from_numpy(masks).float().to(device), **settings, backend=backend)
    assert weight_error(weights, oracle.region_weight_map(masks, **settings)) <= WEIGHT[torch.float32]


def test_views(backend, device):
    masks = torch.from_numpy(soft_masks(4, (23, 31), np.random.default_rng(20))).float()
    expected = region_weight_map(masks.to(device), backend=backend)
    for view in (
        surrounded(masks, torch.nan),
        masks.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        masks.transpose(1, 2).contiguous().transpose(1, 2),
    ):
        view = moved(view, device)
        assert not view.is_contiguous()
        weights = region_weight_map(view, backend=backend)
        assert weights.is_contiguous()
        assert torch.equal(weights, expected)


def test_bitwise_the_same_for_any_number_of_threads(same_for_any_number_of_threads, backend, device):
    masks = torch.from_numpy(soft_masks(6, (120, 150), np.random.default_rng(21))).float().to(device)
    assert same_for_any_number_of_threads(lambda: region_weight_map(masks, backend=backend))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("border", BORDERS)
def test_batch(dtype, border, backend, device):
    labels = torch.from_numpy(np.stack([two_cells(), two_cells()[::-1].copy()])).to(device)
    masks = torch.stack([labels == 1, labels == 2], dim=1).to(dtype)
    ignore = torch.zeros(2, 1, 30, dtype=torch.bool, device=device)
    ignore[1, :, 3:9] = True
    settings = dict(border=border, backend=backend)
    for given in (None, ignore, ignore[1]):
        batch = region_weight_map(masks, ignore=given, **settings)
        per_image = [None, None] if given is None else ignore if given is ignore else [ignore[1]] * 2
        single = [
            region_weight_map(image, ignore=here, **settings)
            for image, here in zip(masks, per_image, strict=True)
        ]
        assert torch.equal(batch, torch.stack(single))
    for shape, expected in (((0, 3, 4, 5), (0, 4, 5)), ((2, 0, 4, 5), (2, 4, 5)), ((2, 3, 0, 5), (2, 0, 5))):
        weights = region_weight_map(torch.zeros(shape, dtype=dtype, device=device), **settings)
        assert weights.shape == expected and weights.dtype == batch.dtype
        assert (weights == weights.new_tensor(0.1)).all()
    assert WeightTransformSingle(7)(masks).shape == labels.shape


@pytest.mark.filterwarnings("ignore:.*reference.*:RuntimeWarning")
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("spacing", [(4, 1), (4, 1, 0.5), None], ids=str)
def test_volumes_and_spacing_are_those_of_labels(spacing, border, device):
    shape = (6, 9, 12)[-len(spacing) :] if spacing else (6, 9, 12)
    labels = (
        torch.from_numpy(scattered(shape[-2:], 3, 3, np.random.default_rng(1))).expand(shape).contiguous()
    )
    labels, dims = labels.to(device), len(shape)
    masks = torch.stack([labels == i for i in range(1, int(labels.max()) + 1)])
    settings = dict(
        distance="euclidean", border=border, spacing=spacing, spatial_dims=dims, bws=3, bwf=5, fds=2
    )
    weights = region_weight_map(masks, **settings)
    assert weight_error(weights, weight_map(labels, **settings, backend="reference")) <= WEIGHT[torch.float32]
    if native.why_not(torch.device(device)) is None:
        with pytest.raises(RuntimeError, match=r"it does not compute (volumes|spacing)"):
            region_weight_map(masks, **settings, backend="native")
