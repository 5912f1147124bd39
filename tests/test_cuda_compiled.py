"""The CUDA kernels without a GPU: built for the CPU, run as nvcc compiles them, their registers counted."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import gpu_on_cpu
import numpy as np
import oracle
import pytest
import test_weight_map_options as options
import torch
from cases import (
    SHAPE_SETTINGS,
    SHAPES,
    disk,
    random_case,
    random_weights64,
    relative_error,
    scattered,
    two_cells,
    weight_error,
)
from test_triton_compiled import WEIGHT_CASES, crowded, margins, nuclei, reference_of, ring
from tolerances import CONVOLUTION, EUCLIDEAN, WEIGHT, WEIGHT_MEDIAN

import fastlogconv
from bench.cases import all_cases
from fastlogconv import WeightSettings, codes, numerics
from fastlogconv.backends import native_cuda
from fastlogconv.backends.c_interface import DTYPES, OK, UNSUPPORTED, params_for, view
from fastlogconv.rules import BORDERS, DISTANCES

pytestmark = pytest.mark.skipif(gpu_on_cpu.why_not() is not None, reason=str(gpu_on_cpu.why_not()))
needs_nvcc = pytest.mark.skipif(gpu_on_cpu.why_no_nvcc() is not None, reason=str(gpu_on_cpu.why_no_nvcc()))
needs_triton = pytest.mark.skipif(
    gpu_on_cpu.why_no_triton() is not None, reason=str(gpu_on_cpu.why_no_triton())
)
ORDERS = {"ascending": 0, "descending": 1, "random": 7}  # of the threads of a block
ROOT = Path(__file__).parents[1]
AGREEMENT = 2e-6  # of CUDA and Triton
AGREEMENT_CASES = {
    "nuclei": (nuclei((257, 263), 40), dict()),
    "random": (scattered((131, 127), 60, 9, np.random.default_rng(40)), dict()),
    "two cells, farthest": (two_cells((101, 103)), dict(border="farthest")),
    "rings": (ring((127, 113)), dict()),
    "crowd": (SHAPES["crowd"](), dict()),
    "interleaved": (SHAPES["interleaved"](), dict()),
}


@pytest.fixture(scope="module")
def library():
    from gpu_on_cpu.cuda_kernels import load_host_library

    return load_host_library()


@pytest.fixture
def served(library):
    from gpu_on_cpu.cuda_kernels import serving

    with serving(library):
        yield


# ------------------------------------------------------------------------------------- built for the CPU


@pytest.mark.parametrize("name", WEIGHT_CASES)
def test_same_weights_in_all_orders(name, library, monkeypatch):
    from gpu_on_cpu.cuda_kernels import serving

    labels, dtype, settings = WEIGHT_CASES[name]
    results = []
    for order in ORDERS.values():
        with serving(library, order=order), margins(monkeypatch):
            weights = fastlogconv.weight_map(torch.from_numpy(labels).to(dtype), **settings, backend="native")
        results.append(weights)
    assert weight_error(results[0], reference_of(labels, settings)) <= WEIGHT[weights.dtype]
    for weights in results[1:]:
        assert torch.equal(weights, results[0])


@pytest.mark.parametrize("seed", range(24))
def test_random_cases(seed, served):
    labels, settings = random_case(seed)
    for dtype in (torch.float32, torch.float64):
        weights = fastlogconv.weight_map(torch.from_numpy(labels).to(dtype), **settings, backend="native")
        assert weight_error(weights, random_weights64(seed)) <= WEIGHT[dtype]


def test_errors_of_typical_images_are_far_below_the_limit(served):
    errors = []
    for seed in range(5):
        labels = nuclei((127, 113), 14, seed)
        weights = fastlogconv.weight_map(torch.from_numpy(labels).int(), backend="native")
        errors.append(weight_error(weights, reference_of(labels, {})))
    assert np.median(errors) <= WEIGHT_MEDIAN


def inputs_of(labels, classes, ignore, dtype):
    optional = dict(classes=classes, ignore=ignore)
    return torch.from_numpy(labels).to(dtype), {
        name: torch.from_numpy(array) for name, array in optional.items() if array is not None
    }


@pytest.mark.parametrize("seed", range(60))
def test_random_options(seed, served):
    labels, classes, ignore, settings = options.random_case(seed)
    expected = oracle.class_weight_map(labels, classes, ignore, **settings)
    for dtype in (torch.float32, torch.float64):
        labels_of_dtype, optional = inputs_of(labels, classes, ignore, dtype)
        weights = fastlogconv.weight_map(labels_of_dtype, **optional, **settings, backend="native")
        assert weight_error(weights, expected) <= WEIGHT[dtype]


def pairs(shape):
    """Three pairs of cells, far from one another; the last two are of one class."""
    labels = np.zeros(shape, dtype=np.int64)
    corners = ((20, 30), (20, shape[1] - 30), (shape[0] - 20, 40))
    for i, (y, x) in enumerate(corners):
        labels[disk(shape, y, x - 8, 7)], labels[disk(shape, y, x + 8, 6)] = 2 * i + 1, 2 * i + 2
    return labels, np.where(labels > 2, 7, np.sign(labels)), None


def in_pieces(shape):
    """30 instances of single pixels, each in most cells: more lists and entries than lie at hand."""
    rng = np.random.default_rng(62)
    return rng.integers(1, 31, shape) * (rng.random(shape) < 0.02)


def in_classes(labels, seed=60):
    """Ids by class, some in two, and pixels to ignore."""
    rng = np.random.default_rng(seed)
    classes = labels % 3 + (rng.random(labels.shape) < 0.02)
    return labels, classes, scattered(labels.shape, 9, 12, rng) > 0


OPTION_CASES = {
    "nuclei": (nuclei((257, 263), 40), None, None, dict(distance="euclidean")),
    "nuclei in classes": (*in_classes(nuclei((257, 263), 40)), dict(distance="euclidean")),
    "nuclei in classes, LogConv": (*in_classes(nuclei((257, 263), 40)), dict()),
    "pairs, farthest": (*pairs((157, 263)), dict(distance="euclidean", border="farthest", fds=5, bws=5)),
    "pairs, farthest, LogConv": (*pairs((157, 263)), dict(border="farthest")),
    "crowd": (crowded((61, 67)), None, None, dict(distance="euclidean")),
    "crowd in classes": (*in_classes(crowded((61, 67))), dict(distance="euclidean")),
    "crowd in classes, LogConv": (*in_classes(crowded((61, 67))), dict(lmbda=2)),
    "in pieces": (in_pieces((301, 293)), None, None, dict(lmbda=2, ks=129)),
    "in pieces, farthest": (in_pieces((157, 163)), None, None, dict(lmbda=2, ks=255, border="farthest")),
    "in pieces, in classes, farthest": (*in_classes(in_pieces((157, 163))), dict(ks=255, border="farthest")),
    "3 x 2000, fds=90": (
        scattered((3, 2000), 40, 3, np.random.default_rng(61)), None, None, dict(distance="euclidean", fds=90)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTION_CASES)
def test_options_in_all_orders(name, library, monkeypatch):
    from gpu_on_cpu.cuda_kernels import serving

    *arrays, settings = OPTION_CASES[name]
    labels, optional = inputs_of(*arrays, torch.int64)
    results = []
    for order in ORDERS.values():
        with serving(library, order=order), margins(monkeypatch):
            weights = fastlogconv.weight_map(labels, **optional, **settings, backend="native")
        results.append(weights)
    _, few = np.unique(labels, return_inverse=True)  # ids that float64 holds
    labels = torch.from_numpy(few.reshape(labels.shape)).double()
    expected = fastlogconv.weight_map(labels, **optional, **settings, backend="native")
    assert weight_error(results[0], expected) <= WEIGHT[torch.float32]
    for weights in results[1:]:
        assert torch.equal(weights, results[0])


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("name", ["rings of 300 px", "C shapes of 200 px", "square of 300 px"])
def test_euclidean_shapes(name, border, library):
    from gpu_on_cpu.cuda_kernels import serving

    labels = torch.from_numpy(SHAPES[name]())
    settings = dict(SHAPE_SETTINGS[1], distance="euclidean", border=border)
    expected = fastlogconv.weight_map(labels.double(), **settings, backend="native")
    with serving(library):
        for dtype in (torch.float32, torch.float64):
            weights = fastlogconv.weight_map(labels.to(dtype), **settings, backend="native")
            assert weight_error(weights, expected) <= EUCLIDEAN[dtype]


@pytest.mark.parametrize("distance", DISTANCES)
def test_windows_of_more_than_256_cells(distance, library):
    from gpu_on_cpu.cuda_kernels import serving

    labels = np.zeros((3, 9000), dtype=np.int64)
    for i, x in enumerate((100, 4000, 8500, 8700, 8950)):
        labels[1, x : x + 9] = i + 1
    labels = torch.from_numpy(labels)
    settings = dict(distance=distance, ks=18001, fds=3000, bws=3000)
    expected = fastlogconv.weight_map(labels.double(), **settings, backend="native")
    with serving(library):
        weights = fastlogconv.weight_map(labels.float(), **settings, backend="native")
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
def test_tiles_that_no_instance_reaches(distance, by_class, border, library):
    from gpu_on_cpu.cuda_kernels import serving

    labels = torch.from_numpy(two_cells((101, 203)))
    settings = dict(distance=distance, border=border, fds=2, bws=2, lmbda=0.1)
    optional = dict(classes=labels.sign()) if by_class else {}
    expected = fastlogconv.weight_map(labels.double(), **optional, **settings, backend="native")
    with serving(library):
        for dtype in (torch.float32, torch.float64):
            weights = fastlogconv.weight_map(labels.to(dtype), **optional, **settings, backend="native")
            assert weight_error(weights, expected) <= WEIGHT[dtype]


# Values that other backends refuse go unnoticed on a GPU; the rest takes too long.
LEFT_OUT = "refused or must_be_ids or limited or 40000 or shapes or against_the_reference or random"
PUBLIC = ("weight_map", "region_weight_map", "distance_to_weight", "separable_conv2d")


def test_all_that_is_promised_of_the_operators():
    """Runs the tests of the public functions with backend "native" served by the CUDA kernels."""
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    files = [str(here / f"test_{name}.py") for name in (*PUBLIC, "weight_map_options", "terms")]
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "gpu_on_cpu.cuda_plugin",
        "-k",
        f"native-cpu and not ({LEFT_OUT})",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        env=environment, cwd=here.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 500


# ------------------------------------------------------------------------------------------- bad launches


def test_an_error_of_cuda_is_raised_with_the_kernel_and_the_shape(served, monkeypatch):
    monkeypatch.setattr(native_cuda, "_on_device", lambda tensor: contextlib.nullcontext((5, None)))
    message = r"flc_cuda_weight_map on torch.int32 \(1, 24, 30\) failed: invalid device ordinal"
    with pytest.raises(RuntimeError, match=message):
        fastlogconv.weight_map(torch.from_numpy(two_cells()).int(), backend="native")


def call_directly(
    library, operator, tensor, params=None, out_dtype=torch.float32, padding=0, optional=None, foreground=None
):
    """The status of flc_cuda_OPERATOR for a `view`, without memory to write to."""
    if params is None:
        params = params_for(WeightSettings(ks=3), tensor.size[1], tensor.size[2], "gpu", False)
    scratch, out, queue = None, (None, DTYPES[out_dtype]), (0, None)
    arguments = {
        "weight_map": (None, foreground, optional, params, *out, scratch),
        "region_weight_map": (optional, params, *out, scratch),
        "distance_to_weight": (optional, params, *out),
        "separable_conv2d": (1.0, 1, padding, *out, scratch),
    }
    return getattr(library, f"flc_cuda_{operator}")(tensor, *arguments[operator], *queue)


@pytest.mark.parametrize("operator", PUBLIC)
def test_more_blocks_than_a_grid_can_have_are_an_error(operator, library):
    status = call_directly(library, operator, view(torch.zeros(1).expand(1, 2**29, 2**29)))
    assert b"invalid configuration" in library.flc_cuda_error_text(-status)


def test_offsets_beyond_32_bits(served):
    labels = torch.from_numpy(two_cells((66, 60)))[None]
    far_apart = torch.empty(66 * 2**25, dtype=torch.float16)  # takes the memory of what is written only
    spread = far_apart.as_strided(labels.shape, (0, 2**25, 1)).copy_(labels)
    for operator in PUBLIC:
        settings = dict(lmbda=0.35) if operator == "separable_conv2d" else {}
        results = [
            getattr(fastlogconv, operator)(v, **settings, backend="native") for v in (spread, labels.half())
        ]
        assert torch.equal(*results)


@pytest.mark.parametrize("operator", PUBLIC)
@pytest.mark.parametrize("shape", [(1, 2**30 + 1, 1), (1, 1, 2**31)])
def test_sides_beyond_what_an_int_holds_are_unsupported(shape, operator, library):
    assert call_directly(library, operator, view(torch.zeros(1).expand(shape))) == UNSUPPORTED


@pytest.mark.parametrize("operator", PUBLIC)
def test_what_the_kernels_do_not_know_is_unsupported(operator, library):
    empty = torch.zeros(1, 0, 8)  # nothing is launched
    assert call_directly(library, operator, view(empty)) == OK
    another_rank, another_dtype, of_bool = view(torch.zeros(1, 1, 8, 8)), view(empty), view(empty.bool())
    another_dtype.dtype = len(codes.DTYPES)
    wrong = [dict(tensor=tensor) for tensor in (another_rank, another_dtype)]
    wrong.append(dict(out_dtype=torch.float16))
    if operator == "separable_conv2d":
        wrong += [dict(padding=code) for code in (-1, len(codes.PADDING_MODES))]
    else:
        assert call_directly(library, operator, view(empty), optional=of_bool) == OK
        wrong += [dict(optional=view(tensor)) for tensor in (empty, empty.bool()[None])]
        for name, table in (("distance", DISTANCES), ("border", BORDERS)):
            codes_known = [rule.code for rule in table.values()]
            for code in (-1, max(codes_known) + 1, 2**31 - 1):
                wrong.append(dict(params=with_code(name, code)))
    if operator == "weight_map":
        assert call_directly(library, operator, view(empty), foreground=of_bool) == OK
        wrong.append(dict(foreground=view(empty)))
    if operator != "distance_to_weight":
        beside = {"weight_map": (None, None), "separable_conv2d": (1.0, 1, 0, DTYPES[torch.float32])}
        scratch_bytes = getattr(library, f"flc_cuda_{operator}_scratch_bytes")
        assert scratch_bytes(another_rank, *beside.get(operator, ())) == 0
    for arguments in wrong:
        assert call_directly(library, operator, **({"tensor": view(empty)} | arguments)) == UNSUPPORTED


def with_code(name, code):
    params = type(valid := params_for(WeightSettings(), 8, 8, "gpu", False)).from_buffer_copy(valid)
    setattr(params, name, code)
    return params


def test_constants_are_those_of_python():
    """What the headers of the CUDA kernels say again."""
    texts = {path.name: path.read_text() for path in (ROOT / "csrc/cuda").iterdir()}
    assert f"constexpr int CELL = {codes.CELL};" in texts["cells.h"]
    assert f"constexpr double BITS_BELOW = {numerics.BITS_BELOW};" in texts["numbers.cpp"]
    ways = re.search(r"enum Way {(.*?)};", texts["tile_block.h"])[1].lower().split(", ")
    assert set(map(str.strip, ways)) == set(codes.WAYS) - {"chunk_scaled"}


def test_scratch_is_at_most_32_bytes_a_pixel(library):
    tensor = view(torch.zeros(1).expand(3, 512, 512))
    for optional in ((None, None), (tensor, tensor)):
        assert library.flc_cuda_weight_map_scratch_bytes(tensor, *optional) <= 32 * 3 * 512 * 512


# --------------------------------------------------------------------------------------- AddressSanitizer

UNDER_SANITIZER = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import torch, fastlogconv
from gpu_on_cpu.cuda_kernels import load_host_library, serving
from test_triton_compiled import crowded, nuclei, ring
with serving(load_host_library({flags!r}), threads=1):
    for labels, fds in ((nuclei((101, 103), 9), 10), (ring((131, 127)), 25), (crowded((41, 67)), 10)):
        labels = torch.from_numpy(labels)
        fastlogconv.weight_map(labels, fds=fds, backend="native")
        fastlogconv.weight_map(labels.double(), fds=fds, border="farthest", backend="native")
        classes, ignore = labels % 4, labels % 5 == 1
        for distance in ("logconv", "euclidean"):
            options = dict(classes=classes, ignore=ignore, distance=distance, fds=fds, backend="native")
            fastlogconv.weight_map(labels, **options)
            fastlogconv.weight_map(labels.double(), border="farthest", **options)
        fastlogconv.weight_map(labels, distance="euclidean", fds=fds, backend="native")
    masks = torch.rand(3, 45, 67)
    fastlogconv.region_weight_map(masks, backend="native")
    fastlogconv.region_weight_map(masks, ignore=masks[0] > 0.5, distance="euclidean", backend="native")
    fastlogconv.distance_to_weight(masks, masks[0] > 0.5, backend="native")
    for lmbda, ks in ((0.35, 73), (60.0, 75)):
        fastlogconv.separable_conv2d(masks, lmbda, ks, backend="native")
        fastlogconv.separable_conv2d(masks.double(), lmbda, ks, "replicate", backend="native")
print("no complaints")
"""


@pytest.mark.exhaustive  # the kernels' every access is checked where their PTX is run
def test_under_address_sanitizer():
    from gpu_on_cpu.cuda_kernels import host_library

    flags = "-fsanitize=address -g1 -O1 -march=x86-64-v2"
    host_library(flags)
    runtime = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    here = Path(__file__).parent
    code = UNDER_SANITIZER.format(tests=str(here), root=str(here.parent), flags=flags)
    environment = os.environ | {"LD_PRELOAD": runtime.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "no complaints", done.stderr[-3000:]


# ---------------------------------------------------------------------------------- as nvcc compiles them


@pytest.fixture
def emulator():
    from gpu_on_cpu.cuda_kernels import Emulator

    return Emulator()


@needs_nvcc
def test_weights_by_ptx(emulator, monkeypatch):
    labels = all_cases()["tissue-512"].make().int()
    with margins(monkeypatch), emulator.serving():
        weights = fastlogconv.weight_map(labels, backend="native")
    assert [record.kernel for record in emulator.records] == ["list_cells", "weigh_tiles"]
    assert emulator.races == 0
    expected = fastlogconv.weight_map(labels.double(), backend="native")
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@needs_nvcc
def test_other_kernels_by_ptx(emulator, library, monkeypatch):
    from gpu_on_cpu.cuda_kernels import serving

    labels = torch.from_numpy(scattered((53, 61), 5, 9, np.random.default_rng(32)))
    masks = torch.stack([(labels == i) * (0.2 * i) for i in range(6)]).float()
    classes, ignore, exact = labels % 3, masks[1] > 0, dict(distance="euclidean", backend="native")
    calls = [
        lambda: fastlogconv.weight_map(labels, fds=25, backend="native"),
        lambda: fastlogconv.weight_map(labels, **exact),
        lambda: fastlogconv.weight_map(
            labels, classes=1 + classes, ignore=ignore, border="farthest", **exact
        ),
        lambda: fastlogconv.region_weight_map(masks, backend="native"),
        lambda: fastlogconv.region_weight_map(masks, ignore=ignore, **exact),
        lambda: fastlogconv.distance_to_weight(masks * 60, labels > 0, backend="native"),
        lambda: fastlogconv.separable_conv2d(masks, 0.35, backend="native"),
    ]
    for call in calls:
        with serving(library):
            expected = call()
        with margins(monkeypatch), emulator.serving():
            result = call()
        assert weight_error(result, expected) <= 2e-6  # one code, two compilers
    assert emulator.races == 0


@needs_nvcc
def test_convolution_by_any_window_in_about_as_many_instructions():
    """As compiled for sm_80: tiles, and beyond them strips."""
    from gpu_on_cpu.cuda_kernels import run

    input = torch.randn(1, 420, 96, generator=torch.Generator().manual_seed(63))
    counts = []
    for ks in (73, 301, 801):
        result, records = run(fastlogconv.separable_conv2d, input, lmbda=20.0, ks=ks)
        assert sum(record.races for record in records) == 0
        expected = fastlogconv.separable_conv2d(input.double(), 20.0, ks, backend="native")
        assert relative_error(result, expected) <= CONVOLUTION[torch.float32]
        counts.append(sum(record.profile.warp_instructions for record in records))
    assert counts[1] <= 3 * counts[0] and counts[2] <= 1.25 * counts[1]


@needs_nvcc
@needs_triton
@pytest.mark.parametrize("name", AGREEMENT_CASES)
def test_agrees_with_triton(name, emulator):
    """Both as compiled for sm_80."""
    from gpu_on_cpu.triton_kernels import Emulator

    labels, settings = AGREEMENT_CASES[name]
    labels = torch.from_numpy(labels).int()
    with Emulator().serving():
        by_triton = fastlogconv.weight_map(labels, **settings, backend="triton")
    with emulator.serving():
        by_cuda = fastlogconv.weight_map(labels, **settings, backend="native")
    assert weight_error(by_cuda, by_triton.double()) <= AGREEMENT


@needs_nvcc
@pytest.mark.parametrize(
    "capability",
    [80, *(pytest.param(other, marks=pytest.mark.exhaustive) for other in (75, 90, 100, 120))],
)
def test_no_spills_and_enough_occupancy(capability):
    from gpu_on_cpu.cuda_kernels import resource_usage, resources_by_kernel

    for usage in resource_usage(capability):
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in usage, usage
    if capability in (80, 90):
        assert resources_by_kernel(torch.zeros(1, 8, 8), capability)["weigh_tiles"].occupancy >= 0.5
