"""What Triton compiles for a GPU: run on the CPU against the reference, and its registers counted."""

import contextlib
import dataclasses
import itertools
import math

import gpu_on_cpu
import numpy as np
import oracle
import pytest
import torch
from cases import BORDERS, DISTANCES, disk, relative_error, scattered, two_cells, weight_error
from tolerances import CONVOLUTION, WEIGHT, WEIGHT_MEDIAN

import fastlogconv
from fastlogconv import WeightSettings, rules
from fastlogconv.codes import PADDING_MODES

pytestmark = pytest.mark.skipif(
    gpu_on_cpu.why_no_triton() is not None, reason=str(gpu_on_cpu.why_no_triton())
)
CAPABILITIES = (80, 90, *(pytest.param(newer, marks=pytest.mark.exhaustive) for newer in (100, 120)))


@pytest.fixture
def emulator():
    from gpu_on_cpu.triton_kernels import Emulator

    return Emulator()


@contextlib.contextmanager
def margins(monkeypatch):
    """New tensors are full of NaN, in the midst of sentinels that nothing may change."""
    buffers = []

    def empty(*shape, dtype=torch.float32, device=None):
        shape = torch.Size(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        filling = 77 if dtype.is_floating_point else 0x5A
        stored = torch.uint8 if dtype == torch.bool else dtype
        buffer = torch.full((shape.numel() + 256,), filling, dtype=stored)
        buffers.append(buffer)
        inside = buffer[128 : 128 + shape.numel()]
        inside.fill_(math.nan if dtype.is_floating_point else torch.iinfo(stored).max)
        return inside.view(shape).view(dtype)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty", empty)
        yield
    for buffer in buffers:
        filling = 77 if buffer.dtype.is_floating_point else 0x5A
        assert (buffer[:128] == filling).all() and (buffer[-128:] == filling).all()


def nuclei(shape, count, seed=0):
    """Disks of 4 to 12 px in radius, as in a microscopy image."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, dtype=np.int64)
    for i in range(1, count + 1):
        labels[disk(shape, rng.integers(0, shape[0]), rng.integers(0, shape[1]), rng.integers(4, 13))] = i
    return labels


def ring(shape):
    """A ring almost as large as the image, and a small instance inside and outside of it."""
    radius = min(shape) // 2 - 8
    center = (shape[0] // 2, shape[1] // 2)
    labels = np.zeros(shape, dtype=np.int64)
    labels[disk(shape, *center, radius) & ~disk(shape, *center, radius - 4)] = 1
    labels[disk(shape, *center, 7)] = 2
    labels[:4, :4] = 3
    return labels


def scattered_ids(shape):
    """Five instances, each of single pixels all over the image."""
    rng = np.random.default_rng(30)
    labels = np.zeros(shape, dtype=np.int64)
    for i in range(1, 6):
        labels[rng.integers(0, shape[0], 120), rng.integers(0, shape[1], 120)] = i
    return labels


def crowded(shape, density=0.15):
    """Instances of one to six pixels, with ids up to 2**62."""
    rng = np.random.default_rng(31)
    labels = np.zeros(shape, dtype=np.int64)
    count = int(density * shape[0] * shape[1])
    ids = rng.choice(2**62, count, replace=False) + 1
    for i in ids:
        y, x, n = rng.integers(0, shape[0]), rng.integers(0, shape[1]), rng.integers(1, 7)
        for k in range(n):
            labels[min(y + k // 3, shape[0] - 1), min(x + k % 3, shape[1] - 1)] = i
    return labels


# Labels, dtype, settings; primes, so that no size is a multiple of anything.
WEIGHT_CASES = {
    "nuclei, 512 x 512": (nuclei((512, 512), 125), torch.int32, dict()),
    "nuclei, int64": (nuclei((257, 263), 40), torch.int64, dict()),
    **{
        f"two cells, {border}": (two_cells((101, 103)), torch.int32, dict(border=border))
        for border in BORDERS
    },
    "one giant ring, fds=25": (ring((509, 503)), torch.int32, dict(fds=25)),
    "five scattered ids": (scattered_ids((127, 131)), torch.int32, dict()),
    "five scattered ids, fds=25": (scattered_ids((127, 131)), torch.int32, dict(fds=25)),
    "crowd, ids to 2**62": (crowded((61, 67)), torch.int64, dict()),
    "small window": (nuclei((127, 113), 20), torch.int32, dict(ks=8)),
    "lmbda=0.1": (
        scattered((67, 101), 14, 9, np.random.default_rng(2)),
        torch.int32,
        dict(lmbda=0.1, ks=129),
    ),
    "lmbda=1e-3": (scattered((37, 41), 6, 5, np.random.default_rng(2)), torch.int32, dict(lmbda=1e-3)),
    "lmbda=2": (nuclei((127, 113), 20), torch.int32, dict(lmbda=2)),
    "float64": (two_cells(), torch.float64, dict()),
}


def classes_and_ignored(labels):
    """Classes up to 2**31 - 1, some instances in several or in none, and a region to ignore."""
    rng = np.random.default_rng(35)
    classes = np.array([0, 1, 1, 3, 3, 2**31 - 1])[labels % 6]
    classes = np.where(rng.random(labels.shape) < 0.02, rng.integers(-1, 4, labels.shape), classes)
    return classes, scattered(labels.shape, 4, 9, rng) > 0


# Labels, whether with classes and pixels to ignore, dtype, settings.
OPTION_CASES = {
    "nuclei": (nuclei((257, 263), 40), False, torch.int32, dict(distance="euclidean")),
    "nuclei by class": (nuclei((127, 131), 25), True, torch.int32, dict(distance="euclidean")),
    **{
        f"two cells, {border}": (
            two_cells((101, 103)),
            False,
            torch.int32,
            dict(distance="euclidean", border=border),
        )
        for border in BORDERS
    },
    **{
        f"{distance}, {border} by class": (
            scattered((61, 67), 9, 9, np.random.default_rng(9)),
            True,
            torch.int32,
            dict(distance=distance, border=border, bws=30, ks=None),
        )
        for distance, border in itertools.product(DISTANCES, BORDERS)
    },
    "one giant ring, fds=25": (ring((257, 251)), False, torch.int32, dict(distance="euclidean", fds=25)),
    "five scattered ids": (scattered_ids((127, 131)), True, torch.int64, dict(distance="euclidean")),
    "crowd, ids to 2**62": (crowded((61, 67)), True, torch.int64, dict(distance="euclidean", bwf=50)),
    "float64": (nuclei((37, 41), 5), True, torch.float64, dict(distance="euclidean")),
    "sigmas far apart": (
        nuclei((131, 257), 20),
        False,
        torch.int32,
        dict(distance="euclidean", bws=3, fds=20, bwf=0),
    ),
    "logconv, nuclei by class": (nuclei((127, 131), 25), True, torch.int32, dict()),
}


def reference_of(labels, changes):
    """In float64, with ids that float64 can hold."""
    settings = WeightSettings(**changes)
    if not rules.BORDERS[settings.border].every_instance:
        _, few = np.unique(labels, return_inverse=True)
        labels = few.reshape(labels.shape)
    return fastlogconv.weight_map(torch.from_numpy(labels).double(), settings=settings, backend="native")


@pytest.mark.parametrize("name", WEIGHT_CASES)
def test_weights(name, emulator, monkeypatch):
    labels, dtype, changes = WEIGHT_CASES[name]
    settings = WeightSettings(**changes)
    with emulator.serving(), margins(monkeypatch):
        weights = fastlogconv.weight_map(
            torch.from_numpy(labels).to(dtype), settings=settings, backend="triton"
        )
    assert len(emulator.records) == 2
    assert emulator.races == 0
    assert weight_error(weights, reference_of(labels, changes)) <= WEIGHT[weights.dtype]
    scratch = sum(
        tensor.nbytes for tensor in emulator.launches[0].arguments[16:23] if isinstance(tensor, torch.Tensor)
    )
    h, w = labels.shape
    assert scratch <= 32 * h * w


def numbered(labels, classes, ignore):
    """The same instances, those to be ignored and those without a class left out, with ids 1, 2, ..."""
    if classes is not None:
        labels = np.where(ignore | (classes <= 0), 0, labels)
    _, ids = np.unique(np.append(0, labels), return_inverse=True)
    return ids[1:].reshape(labels.shape)


@pytest.mark.parametrize("name", OPTION_CASES)
def test_options(name, emulator, monkeypatch):
    labels, by_class, dtype, changes = OPTION_CASES[name]
    settings = WeightSettings(**changes)
    classes, ignore = classes_and_ignored(labels) if by_class else (None, None)
    ids = numbered(labels, classes, ignore)
    if rules.BORDERS[settings.border].every_instance:
        labels = ids
    options = dict(classes=classes, ignore=ignore) if by_class else {}
    options = {name: torch.from_numpy(array) for name, array in options.items()}
    options["settings"] = settings
    input = torch.from_numpy(labels).to(dtype)
    with emulator.serving(), margins(monkeypatch):
        weights = fastlogconv.weight_map(input, **options, backend="triton")
    assert len(emulator.records) == 2
    assert emulator.races == 0
    if rules.DISTANCES[settings.distance].windowed:
        expected = fastlogconv.weight_map(torch.from_numpy(ids).double(), **options, backend="native")
    else:
        expected = oracle.class_weight_map(ids, classes, ignore, **settings.as_dict())
    assert weight_error(weights, expected) <= WEIGHT[weights.dtype]


def test_errors_of_typical_images_are_far_below_the_limit(emulator):
    errors = []
    for seed in range(5):
        labels = nuclei((127, 113), 14, seed)
        with emulator.serving():
            weights = fastlogconv.weight_map(torch.from_numpy(labels).int(), backend="triton")
        errors.append(weight_error(weights, reference_of(labels, {})))
    assert np.median(errors) <= WEIGHT_MEDIAN


def test_same_bits_whatever_the_order_of_programs(emulator):
    labels = torch.from_numpy(nuclei((127, 113), 20)).int()
    results = []
    for emulator.threads in (1, 2):
        with emulator.serving():
            results.append(fastlogconv.weight_map(labels, backend="triton"))
    assert torch.equal(*results)


def test_batches_and_views(emulator):
    images = [nuclei((61, 67), count, seed) for seed, count in enumerate((0, 1, 9))]
    batch = torch.from_numpy(np.stack(images)).int()
    view = torch.stack([batch, -batch], -1).transpose(1, 2)[..., 0].transpose(1, 2)
    assert not view.is_contiguous()
    with emulator.serving():
        together = fastlogconv.weight_map(view, backend="triton")
        for image, weights in zip(batch, together, strict=True):
            assert torch.equal(fastlogconv.weight_map(image, backend="triton"), weights)
    assert emulator.races == 0


@pytest.mark.parametrize("border", BORDERS)
def test_distances(border, emulator, monkeypatch):
    rng = np.random.default_rng(33)
    distance = torch.from_numpy(rng.uniform(-4, 60, (5, 61, 67))).float()
    distance[distance > 50] = torch.inf
    foreground = torch.from_numpy(rng.random((61, 67)) < 0.2)
    with emulator.serving(), margins(monkeypatch):
        weights = fastlogconv.distance_to_weight(distance, foreground, border=border, backend="triton")
    expected = fastlogconv.distance_to_weight(
        distance.double(), foreground, border=border, backend="reference"
    )
    assert emulator.races == 0
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


def test_distances_that_cancel(emulator):
    pairs = [(-1e30, 1e25), (-3e38, 3e38), (-1e6, 1e6 + 5), (-300, 312), (-5e18, torch.inf)]
    distance = torch.tensor(pairs).T[:, None].contiguous()
    for bwf in (4, 1e30):
        with emulator.serving():
            weights = fastlogconv.distance_to_weight(distance, bws=7, bwf=bwf, backend="triton")
        expected = fastlogconv.distance_to_weight(distance.double(), bws=7, bwf=bwf, backend="reference")
        assert weight_error(weights, expected) <= WEIGHT[torch.float32]


def test_convolution(emulator, monkeypatch):
    input = torch.randn(2, 257, 131, generator=torch.Generator().manual_seed(34))
    for lmbda, ks in ((0.35, 73), (5.0, 31)):
        with emulator.serving(), margins(monkeypatch):
            result = fastlogconv.separable_conv2d(input, lmbda, ks, backend="triton")
        expected = fastlogconv.separable_conv2d(input.double(), lmbda, ks, backend="native")
        assert relative_error(result, expected) <= CONVOLUTION[torch.float32]
    assert emulator.races == 0


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_convolution_by_windows_longer_than_tiles(padding_mode, emulator, monkeypatch):
    input = torch.randn(1, 103, 134, generator=torch.Generator().manual_seed(35))
    for dtype in (torch.float32, torch.float64):
        with emulator.serving(), margins(monkeypatch):
            result = fastlogconv.separable_conv2d(input.to(dtype), 30.0, 203, padding_mode, backend="triton")
        expected = fastlogconv.separable_conv2d(input.double(), 30.0, 203, padding_mode, backend="reference")
        assert relative_error(result, expected) <= CONVOLUTION[dtype]
    assert emulator.races == 0


def test_convolution_keeps_nan_to_windows_longer_than_tiles(emulator):
    input = torch.ones(1, 40, 270)
    input[0, 5, 9] = torch.nan
    with emulator.serving():
        result = fastlogconv.separable_conv2d(input, 30.0, 203, backend="triton")
    expected = fastlogconv.separable_conv2d(input.double(), 30.0, 203, backend="reference")
    assert torch.equal(result.isnan(), expected.isnan())
    shown = expected.isfinite()
    assert relative_error(result[shown], expected[shown]) <= CONVOLUTION[torch.float32]


def test_convolution_keeps_nan_and_infinity_to_their_windows(emulator):
    input = torch.ones(1, 40, 60)
    input[0, 5, 9], input[0, 30, 40] = torch.nan, torch.inf
    with emulator.serving():
        result = fastlogconv.separable_conv2d(input, 0.35, 9, backend="triton")
    expected = fastlogconv.separable_conv2d(input.double(), 0.35, 9, backend="native")
    assert torch.equal(result.isnan(), expected.isnan()) and torch.equal(result.isinf(), expected.isinf())


def test_an_unknown_border_rule_does_not_compile():
    from gpu_on_cpu.triton_kernels import collected, compile_launch
    from triton.errors import TritonError

    with collected() as launches:
        fastlogconv.weight_map(torch.zeros(1, 40, 40), backend="triton")
        fastlogconv.region_weight_map(torch.zeros(2, 40, 40), backend="triton")
        fastlogconv.distance_to_weight(torch.zeros(2, 40, 40), backend="triton")
    refused = []
    for launch in launches:
        if "BORDER" in launch.constants:
            unknown = dataclasses.replace(launch, constants={**launch.constants, "BORDER": -1})
            with pytest.raises(TritonError) as raised:
                compile_launch(unknown, 80)
            assert "there is no such border rule" in str(raised.value.__cause__)
            refused.append(launch.name)
    assert refused == ["weigh_tiles", "weigh_regions", "weigh_distances"]


# --------------------------------------------------------------------------------------------- resources


def launches():
    """Every kernel with the settings that users leave as they are; by every rule; with other settings."""
    from gpu_on_cpu.triton_kernels import collected

    labels = torch.zeros(1, 512, 512, dtype=torch.int32)

    def weigh(labels, changes, **options):
        fastlogconv.weight_map(labels, settings=WeightSettings(**changes), **options, backend="triton")

    with collected() as usual:
        for distance in DISTANCES:
            weigh(labels, dict(distance=distance))
        fastlogconv.separable_conv2d(labels.float(), 0.35, backend="triton")
        fastlogconv.distance_to_weight(labels.float(), backend="triton")
        fastlogconv.region_weight_map(labels.float(), backend="triton")
    with collected() as by_rule:
        for border in BORDERS:
            weigh(labels.long(), dict(border=border))
    with collected() as others:
        for changes in (dict(fds=25), dict(lmbda=0.1)):
            weigh(labels, changes)
        weigh(labels.double(), {})
        for distance in DISTANCES:
            weigh(labels.long(), dict(distance=distance), classes=labels, ignore=labels > 0)
        masks = torch.zeros(2, 2048, 2048)
        for ks in (201, 401):  # 128 and 256 cells around a tile
            for lmbda, given, ignore in ((0.35, masks, masks[0] > 0), (0.1, masks.mT, None)):
                fastlogconv.region_weight_map(given, lmbda=lmbda, ks=ks, ignore=ignore, backend="triton")
        for given in (masks > 0, masks.mT, masks.half(), masks.double()):
            for distance in DISTANCES:
                fastlogconv.region_weight_map(given, distance=distance, ignore=masks[0] > 0, backend="triton")
    return usual, by_rule, [launch for launch in others if launch.name != "list_cells"]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_no_spills_and_enough_occupancy(capability):
    from gpu_on_cpu.triton_kernels import resources

    usual, by_rule, others = launches()
    for launch in usual:
        used = resources(launch, capability)
        assert used.spills == 0, (launch.name, launch.constants, used)
        assert used.occupancy >= 0.25, (launch.name, used)
    for launch in [*by_rule, *(others if capability == 90 else ())]:
        used = resources(launch, capability)
        assert used.spills == 0, (launch.name, launch.constants, used)
