"""The Triton kernels of the two nearest instances, as compiled for a GPU and run on the CPU."""

import itertools

import gpu_on_cpu
import numpy as np
import pytest
import torch
from cases import golden, weight_error
from gpu_devices import StandIn
from test_cuda_nearest import options_of
from test_nearest_instances import PUBLISHED, blobs, check, params_of, random_volume
from test_terms import PUBLISHED as SETS
from test_terms import settings_of
from test_triton_compiled import margins
from tolerances import DISTANCE, EUCLIDEAN

from fastlogconv import nearest_instances, weight_map
from fastlogconv.backends import native, triton, triton_nearest
from fastlogconv.engines import choose
from fastlogconv.settings import WeightSettings

pytestmark = pytest.mark.skipif(
    gpu_on_cpu.why_no_triton() is not None, reason=str(gpu_on_cpu.why_no_triton())
)
UNET = dict(bws=6.0, bwf=50.0)


@pytest.fixture
def emulator(monkeypatch):
    """Serves backend "triton"; what it writes to is full of NaN before, between sentinels."""
    from gpu_on_cpu.triton_kernels import Emulator

    emulator = Emulator()
    with emulator.serving(), margins(monkeypatch):
        yield emulator
    assert emulator.records
    assert emulator.races == 0


def some(usual, all_of_them):
    """The usual ones, and all others marked as exhaustive."""
    return [
        pytest.param(one, marks=() if one in usual else pytest.mark.exhaustive, id=str(one))
        for one in all_of_them
    ]


# ------------------------------------------------------------------------------------- distances and ids


@pytest.mark.parametrize("seed", some(range(12), range(40)))
def test_as_scipy(seed, emulator):
    labels, spacing = random_volume(seed)
    for dtype in (torch.int64, torch.float64):
        if dtype == torch.float64 and labels.max() > 2**53:
            continue
        for k in (1, 2) if seed % 4 == 0 else (2,):
            result = nearest_instances(
                torch.from_numpy(labels).to(dtype), k, spacing, labels.ndim, backend="triton"
            )
            assert result[0].shape == (k, *labels.shape)
            check(labels, spacing, result, DISTANCE[result[0].dtype])


def corners():
    yield "none", np.zeros((9, 40), np.int64)
    yield "all of two", np.where(np.arange(33) < 11, 4, 2) * np.ones((20, 1), np.int64)
    yield "every pixel its own", np.arange(1, 31 * 37 + 1).reshape(31, 37)
    yield "far apart", np.eye(1, 9001, 5, dtype=np.int64) + 2 * np.eye(1, 9001, 8998, dtype=np.int64)
    yield "ties", np.pad(np.array([[0, 9, 0], [4, 0, 6], [0, 2, 0]]), 20)
    yield "a column", blobs((300, 1, 1), 20, np.random.default_rng(3))
    yield "thin", blobs((40, 1, 50), 20, np.random.default_rng(4))


@pytest.mark.parametrize("name, labels", [pytest.param(*pair, id=pair[0]) for pair in corners()])
def test_corners(name, labels, emulator):
    for spacing in ((1.0,) * labels.ndim, (8.0, 0.3, 1.7)[: labels.ndim]):
        tensor = torch.from_numpy(labels)
        result = nearest_instances(tensor, 2, spacing, labels.ndim, backend="triton")
        check(labels, spacing, result, DISTANCE[torch.float32])


def test_batches_views_and_ignored(emulator):
    rng = np.random.default_rng(6)
    labels = torch.from_numpy(np.stack([blobs((7, 12, 33), count, rng) for count in (0, 9, 30)]))
    ignore = torch.from_numpy(rng.random((3, 7, 12, 33)) < 0.2)
    expected = nearest_instances(labels, 2, (2, 1, 1), 3, ignore=ignore)
    labels[labels == 0] = -3
    view = labels.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    result = nearest_instances(view, 2, (2, 1, 1), 3, ignore=ignore, backend="triton")
    torch.testing.assert_close(result[0], expected[0], rtol=3e-7, atol=0)
    assert torch.equal(result[1], expected[1])


# ------------------------------------------------------------------------------------------------ weights


SERVED = [name for name in SETS if choose(WeightSettings(**settings_of(name))).name == "two nearest"]


def published():
    """All sets with their classes in images with spacing; those with gaps, or none, in the others, too."""
    for file, name, beside in itertools.product(PUBLISHED, SERVED, ("", "_classes_ignore")):
        usual = name == "unet2019" or not beside or (file == "2d_spacing" and name != "border_only")
        yield pytest.param(file, name, beside, marks=() if usual else pytest.mark.exhaustive)


@pytest.mark.parametrize("file, name, beside", list(published()))
def test_published_weights(file, name, beside, emulator):
    data, settings = golden(f"published_{file}"), settings_of(name)
    options = {key: torch.from_numpy(data[key]) for key in ("classes", "ignore") if beside}
    options |= dict(spacing=data["spacing"].tolist(), spatial_dims=data["labels"].ndim)
    labels = torch.from_numpy(data["labels"])
    points = data["points"] if "points" in data else slice(None)
    weights = weight_map(labels.to(torch.int32), **options, **settings, backend="triton")
    expected = data[f"w_{name}{beside}"].flatten()
    assert weight_error(weights.flatten()[points], expected) <= EUCLIDEAN[torch.float32]


def by_cpu(*arguments):
    return native.nearest_weight_map(*arguments, torch.float64)


@pytest.mark.parametrize("seed", some(range(1, 4), range(16)))
def test_as_the_cpu(seed, emulator):
    rng = np.random.default_rng(seed)
    shape = (2, *rng.integers(1, 40, 3)) if seed % 2 else (2, 1, *rng.integers(1, 80, 2))
    labels = np.stack([blobs(shape[1:], rng.integers(0, 40), rng, 2**62) for _ in range(2)])
    labels = torch.from_numpy(labels)
    beside = options_of(labels, 2, seed) if seed % 4 < 2 else (None,) * 3
    settings = dict(everywhere=bool(rng.integers(2)), falloff=str(rng.choice(["nearest", "none"])))
    params = params_of(rng.uniform(0.3, 8, 3), bws=rng.uniform(1, 9), bwf=rng.uniform(0, 60), **settings)
    expected = by_cpu(labels, *beside, params)
    for tensor in (labels, labels.transpose(1, 3).contiguous().transpose(1, 3)):
        weights = triton.nearest_weight_map(tensor, *beside, params)
        assert weight_error(weights, expected) <= EUCLIDEAN[torch.float32]


@pytest.mark.parametrize("shape", some([(2, 5, 12, 35)], [(2, 5, 12, 35), (2, 1, 40, 45)]))
def test_float64(shape, emulator):
    labels = torch.from_numpy(np.stack([blobs(shape[1:], 30, np.random.default_rng(i)) for i in range(2)]))
    beside, params = options_of(labels, 2), params_of((2, 1, 0.7), **UNET, half_bit=2.0**-54)
    weights = triton.nearest_weight_map(labels.double(), *beside, params, torch.float64)
    assert weight_error(weights, by_cpu(labels, *beside, params)) <= EUCLIDEAN[torch.float64]


@pytest.mark.parametrize("classes", [0, 3, 17, 40])
@pytest.mark.parametrize("shape", some([(2, 1, 40, 45)], [(2, 1, 40, 45), (2, 7, 12, 35), (1, 1, 20, 150)]))
def test_any_number_of_classes(shape, classes, emulator):
    """Launches serve 16 of them, one program for each volume the rest."""
    rng = np.random.default_rng(classes)
    labels = torch.from_numpy(np.stack([blobs(shape[1:], 40, rng) for _ in range(shape[0])]))
    of_class = rng.permutation(2**31 - 1 - np.arange(classes + 1))[rng.integers(0, classes + 1, shape)]
    of_class = torch.from_numpy(np.where(rng.random(shape) < 0.2, -3, of_class).astype(np.int32))
    of_class[-1] = of_class[-1].clamp(max=2**31 - 1 - classes // 2)
    if not classes:
        of_class.fill_(0)
    params = params_of((1, 1, 1))
    found = triton.nearest_weight_map(labels.int(), of_class, None, None, params)
    assert weight_error(found, by_cpu(labels, of_class, None, None, params)) <= EUCLIDEAN[torch.float32]


def test_scratch_is_as_small_as_was_said(emulator):
    labels = torch.from_numpy(blobs((24, 40, 64), 9, np.random.default_rng(1)))
    for dtype, most in ((torch.int32, 24), (torch.int64, 32)):
        emulator.launches.clear()
        weight_map(labels.to(dtype), preset="unet2019", gaps=False, spatial_dims=3, backend="triton")
        tensors = {
            tensor.data_ptr(): tensor.nbytes
            for launch in emulator.launches
            for tensor in launch.arguments
            if isinstance(tensor, torch.Tensor)
        }
        of_labels_and_weights = (dtype.itemsize + 4) * labels.numel()
        assert sum(tensors.values()) - of_labels_and_weights <= most * labels.numel()


def test_same_bits_in_any_order_of_programs(emulator):
    labels = torch.from_numpy(blobs((5, 12, 35), 20, np.random.default_rng(2))).int()
    results = []
    for emulator.threads in (1, 2):
        results.append(nearest_instances(labels, 2, None, 3, backend="triton"))
    assert all(map(torch.equal, *results))


def test_nothing_waits_for_a_gpu():
    labels = torch.from_numpy(blobs((2, 40, 45), 20, np.random.default_rng(2))).int()
    classes = labels % 3
    gpu = StandIn("triton")
    with gpu.ready(), gpu.nothing_waits():
        for settings in (dict(preset="unet2015"), dict(preset="unet2019", classes=classes)):
            weight_map(labels, **settings, backend="triton")
        nearest_instances(labels, backend="triton")


# ---------------------------------------------------------------------------------------------- resources


@pytest.mark.parametrize("capability", some((90,), (80, 90, 100, 120)))
def test_no_spills_and_enough_occupancy(capability):
    from gpu_on_cpu.triton_kernels import collected, resources

    labels = torch.zeros(1, 24, 40, 64, dtype=torch.int32)
    usual = dict(preset="unet2019", gaps=False, spatial_dims=3, backend="triton")
    with collected() as launches:
        weight_map(labels, **usual)
    with collected() as others:
        weight_map(labels.long(), classes=labels, ignore=labels > 0, **usual)
        weight_map(labels.double(), **usual)
        nearest_instances(labels, 2, (2, 1.5, 1), 3, backend="triton")
        nearest_instances(labels[:, 0].repeat(1, 1, 5), backend="triton")
    others = {(one.name, str(one.constants)): one for one in others}.values()
    for launch in launches:
        assert resources(launch, capability).occupancy >= 0.25, launch.name
    for launch in [*launches, *others]:
        used = resources(launch, capability)
        assert used.spills == 0, (launch.name, launch.constants, used)


def test_the_order_of_axes():
    """Axes of one voxel come first, and rows are long."""
    for shape, size in (
        ((3, 7, 9, 40), (7, 9, 40)),
        ((3, 300, 1, 1), (1, 1, 300)),
        ((3, 40, 1, 50), (1, 40, 50)),
        ((3, 60, 50, 4), (4, 50, 60)),
        ((3, 60, 4), (1, 4, 60)),
    ):
        assert triton_nearest.volumes_of(shape, (1.0, 1.0, 1.0)).size == size
