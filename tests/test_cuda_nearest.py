"""The CUDA kernels of the two nearest instances without a GPU: see test_cuda_compiled.py."""

import os
import re
import subprocess
import sys
from pathlib import Path

import gpu_on_cpu
import numpy as np
import pytest
import torch
from cases import weight_error
from test_cuda_compiled import ORDERS, needs_nvcc
from test_nearest_instances import blobs, check, params_of
from tolerances import DISTANCE, EUCLIDEAN

from fastlogconv import nearest_instances
from fastlogconv.backends import native, native_cuda
from fastlogconv.backends.c_interface import DTYPES, OK, UNSUPPORTED, view, view_of_volumes

pytestmark = pytest.mark.skipif(gpu_on_cpu.why_not() is not None, reason=str(gpu_on_cpu.why_not()))
UNET = dict(bws=6.0, bwf=50.0)


@pytest.fixture(scope="module")
def library():
    from gpu_on_cpu.cuda_kernels import load_host_library

    return load_host_library()


@pytest.fixture
def served(library):
    from gpu_on_cpu.cuda_kernels import serving

    with serving(library):
        yield


def volume(shape, count, seed, largest_id=1000):
    return torch.from_numpy(blobs(shape, count, np.random.default_rng(seed), largest_id))


def options_of(labels, classes, seed=3):
    """(classes, foreground, ignore) beside labels."""
    rng = np.random.default_rng(seed)
    classes = torch.from_numpy(rng.integers(0, classes + 1, labels.shape, dtype=np.int32))
    holes = torch.from_numpy(rng.random(labels.shape) < 0.2)
    return classes, (labels > 0) & ~holes, torch.from_numpy(rng.random(labels.shape) < 0.1)


# ------------------------------------------------------------------------------------- built for the CPU

# Of the CPU alone, and slow; values that other backends refuse go unnoticed on a GPU.
LEFT_OUT = "threads or avx or errors_name or reference-cpu"
LARGE = "large_squares"  # 17 million pixels


@pytest.mark.parametrize(
    "left_out", [f"{LEFT_OUT} or {LARGE}", pytest.param(LEFT_OUT, marks=pytest.mark.exhaustive)]
)
def test_all_that_is_promised(left_out):
    """Runs the tests of the nearest instances with backend "native" served by the CUDA kernels."""
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "gpu_on_cpu.cuda_plugin",
        "-k", f"not ({left_out})", str(here / "test_nearest_instances.py"),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=environment, cwd=here.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 100


@pytest.mark.parametrize("shape", [(9, 21, 70), (1, 53, 61), (40, 1, 33), (1, 1, 300)], ids=str)
def test_same_in_all_orders(shape, library):
    from gpu_on_cpu.cuda_kernels import serving

    labels = volume(shape, 25, 1, 2**62)
    classes, foreground, ignore = options_of(labels, 3)
    beside = [tensor[None] for tensor in (classes, foreground, ignore)]
    params = params_of((2, 1, 1), **UNET)
    results = []
    for order in ORDERS.values():
        with serving(library, order=order):
            weights = native.nearest_weight_map(labels[None], *beside, params)
            results.append((weights, *nearest_instances(labels, 2, (2, 1, 1), 3, ignore=ignore)))
    check(labels.masked_fill(ignore, 0).numpy(), (2, 1, 1), results[0][1:], DISTANCE[torch.float32])
    expected = native.nearest_weight_map(labels[None], *beside, params, torch.float64)
    assert weight_error(results[0][0], expected) <= EUCLIDEAN[torch.float32]
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


@pytest.mark.parametrize("classes", [0, 1, 16, 17, 40])
def test_any_number_of_classes(classes, served):
    """Launches serve 16 of them, one block for each volume the rest."""
    rng = np.random.default_rng(classes)
    for shape in ((2, 1, 40, 45), (2, 7, 12, 35)):
        labels = torch.from_numpy(np.stack([blobs(shape[1:], 40, rng) for _ in range(2)]))
        of_class = rng.permutation(2**31 - 1 - np.arange(classes + 1))[rng.integers(0, classes + 1, shape)]
        of_class = torch.from_numpy(np.where(rng.random(shape) < 0.2, -3, of_class).astype(np.int32))
        of_class[1] = of_class[1].clamp(max=2**31 - 1 - classes // 2)
        if not classes:
            of_class.fill_(0)
        for dtype in (torch.float32, torch.float64):
            found = native_cuda.nearest_weight_map(labels, of_class, None, None, params_of((1, 1, 1)), dtype)
            expected = by_cpu(labels, of_class, None, None, params_of((1, 1, 1)))
            assert weight_error(found, expected) <= EUCLIDEAN[dtype]


def by_cpu(*arguments):
    return native.nearest_weight_map.__wrapped__(*arguments, torch.float64)


@pytest.mark.parametrize("seed", range(12))
def test_as_the_cpu(seed, served):
    rng = np.random.default_rng(seed)
    shape = (2, *rng.integers(1, 40, 3)) if seed % 3 else (2, 1, *rng.integers(1, 80, 2))
    labels = torch.from_numpy(np.stack([blobs(shape[1:], rng.integers(0, 40), rng) for _ in range(2)]))
    beside = options_of(labels, 2, seed)
    beside = [tensor if rng.random() < 0.5 else None for tensor in beside]
    settings = dict(everywhere=bool(rng.integers(2)), falloff=str(rng.choice(["nearest", "none"])))
    params = params_of(rng.uniform(0.3, 8, 3), bws=rng.uniform(1, 9), bwf=rng.uniform(0, 60), **settings)
    expected = by_cpu(labels, *beside, params)
    for tensor in (labels, labels.int(), labels.transpose(1, 3).contiguous().transpose(1, 3)):
        for dtype in (torch.float32, torch.float64):
            weights = native_cuda.nearest_weight_map(tensor, *beside, params, dtype)
            assert weight_error(weights, expected) <= EUCLIDEAN[dtype]


# ------------------------------------------------------------------------------------------- bad launches


def call_directly(library, labels, ignore=None, classes=None, out_dtype=torch.float32, spacing=(1, 1, 1)):
    """The statuses of both functions for a `view_of_volumes`, without memory to write to."""
    params = params_of(spacing)
    result = (None, DTYPES[out_dtype])
    return {
        library.flc_cuda_nearest_instances(labels, ignore, params.spacing, 2, *result, None, None, 0, None),
        library.flc_cuda_nearest_weight_map(labels, classes, None, ignore, params, *result, None, 0, None),
    }


def test_what_the_kernels_do_not_know_is_unsupported(library):
    empty = torch.zeros(1, 2, 0, 8)  # nothing is launched
    labels, flags = view_of_volumes(empty), view_of_volumes(empty.bool())
    assert call_directly(library, labels, flags) == {OK}
    wrong = [dict(labels=view(torch.zeros(1, 0, 8))), dict(ignore=labels), dict(out_dtype=torch.float16)]
    wrong += [dict(spacing=(1, 0, 1)), dict(spacing=(1, 1e31, 1)), dict(spacing=(1, float("nan"), 1))]
    wrong.append(dict(labels=view_of_volumes(torch.zeros(1).expand(1, 1, 2**30 + 1, 1))))
    for arguments in wrong:
        assert call_directly(library, **(dict(labels=labels) | arguments)) == {UNSUPPORTED}
    params = params_of((1, 1, 1))
    arguments = (labels, flags, None, None, params, None, DTYPES[torch.float32], None, 0, None)
    assert library.flc_cuda_nearest_weight_map(*arguments) == UNSUPPORTED  # classes that are no int32


def test_more_blocks_than_a_grid_can_have_are_an_error(library):
    for status in call_directly(library, view_of_volumes(torch.zeros(1).expand(1, 2**20, 2**20, 33))):
        assert b"invalid configuration" in library.flc_cuda_error_text(-status)


def test_offsets_beyond_32_bits(served):
    labels = volume((3, 20, 40), 15, 5).half()
    far_apart = torch.empty(3 * 2**31, dtype=torch.float16)  # takes the memory of what is written only
    spread = far_apart.as_strided(labels.shape, (2**31, 2**25, 1)).copy_(labels)
    results = [nearest_instances(tensor, 2, None, 3) for tensor in (spread, labels)]
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)


def test_scratch_is_as_small_as_was_said(library):
    params = params_of((1, 1, 1))
    for dtype in (torch.int32, torch.int64):
        labels = view_of_volumes(torch.zeros(1, dtype=dtype).expand(3, 64, 128, 128))
        for out_dtype, most in ((torch.float32, 24 if dtype == torch.int32 else 32), (torch.float64, 36)):
            used = (
                library.flc_cuda_nearest_instances_scratch_bytes(
                    labels, params.spacing, DTYPES[out_dtype], True
                ),
                library.flc_cuda_nearest_weight_map_scratch_bytes(labels, params, DTYPES[out_dtype]),
            )
            assert max(used) <= (most + 1.1) * 3 * 64 * 128 * 128


# ---------------------------------------------------------------------------------- as nvcc compiles them


@needs_nvcc
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float64], ids=str)
def test_by_ptx(dtype, library):
    """Every access is checked; no two warps of a block touch the same without a barrier."""
    from gpu_on_cpu.cuda_kernels import Emulator, serving

    result_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    labels = torch.stack([volume((9, 13, 37), 20, seed) for seed in (7, 8)]).to(dtype)
    classes, foreground, ignore = options_of(labels, 18)
    params = params_of((2, 1, 1), **UNET)
    calls = [
        lambda: native.nearest_weight_map(labels, None, None, None, params, result_dtype),
        lambda: native.nearest_weight_map(labels, classes, foreground, ignore, params, result_dtype),
        lambda: native.nearest_weight_map(labels[:, 3], classes[:, 3], None, None, params, result_dtype),
        lambda: nearest_instances(labels, 2, (2, 1, 1), 3, ignore=ignore),
        lambda: nearest_instances(labels[:, 4], 1),
    ]
    emulator = Emulator()
    for call in calls:
        with serving(library):
            expected = call()
        with emulator.serving():
            result = call()
        for one, other in zip(
            *((x if isinstance(x, tuple) else (x,)) for x in (result, expected)), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=2e-6, atol=1e-6)  # one code, two compilers
    assert emulator.races == 0


@needs_nvcc
@pytest.mark.parametrize(
    "capability",
    [80, *(pytest.param(other, marks=pytest.mark.exhaustive) for other in (75, 90, 100, 120))],
)
def test_no_spills(capability):
    from gpu_on_cpu.cuda_kernels import resource_usage

    reports = [usage for usage in resource_usage(capability) if "nearest" in usage or "Nearest" in usage]
    assert reports
    for usage in reports:
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in usage, usage
