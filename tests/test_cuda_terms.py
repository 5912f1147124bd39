"""The published terms by the CUDA kernels without a GPU: see test_cuda_compiled.py."""

import gpu_on_cpu
import numpy as np
import pytest
import torch
from cases import golden, scattered, weight_error
from test_cuda_compiled import in_classes, needs_nvcc
from test_nearest_instances import PUBLISHED, SETS
from test_terms import settings_of
from tolerances import WEIGHT

from fastlogconv import WeightSettings, engines, weight_map
from fastlogconv.rules import BORDERS, DISTANCES

pytestmark = pytest.mark.skipif(gpu_on_cpu.why_not() is not None, reason=str(gpu_on_cpu.why_not()))
TERMS = [
    dict(distance=distance, border=border, falloff=falloff)
    for distance in DISTANCES
    for border in BORDERS
    for falloff in ("sum", "nearest")
]


def scene(shape):
    """Labels 1, 2, ... (see "farthest"), classes, pixels to ignore, and a foreground that is neither the
    labels nor within them."""
    labels = scattered(shape, 40, 9, np.random.default_rng(64))
    labels = np.unique(labels, return_inverse=True)[1].reshape(shape)
    foreground = np.random.default_rng(65).random(shape) < 0.3
    return [torch.from_numpy(array) for array in (*in_classes(labels), foreground)]


@pytest.mark.parametrize("terms", TERMS, ids=lambda terms: "-".join(terms.values()))
def test_foreground_over_several_tiles(terms):
    from gpu_on_cpu.cuda_kernels import load_host_library, serving

    labels, classes, ignore, foreground = scene((131, 127))
    for given in ({}, dict(classes=classes, ignore=ignore)):
        call = dict(terms, foreground=foreground, fds=6, bws=5, **given)
        expected = weight_map(labels.double(), **call, backend="reference")
        for dtype in (torch.int32, torch.float64):
            with serving(load_host_library()):
                weights = weight_map(labels.to(dtype), **call, backend="native")
            assert weight_error(weights, expected) <= WEIGHT[weights.dtype]


# By every instance CUDA computes images of square pixels alone.
BY_PTX = [
    pytest.param(file, name, marks=[] if name == "wide" else pytest.mark.exhaustive)
    for file in PUBLISHED
    for name in SETS
    if file == "2d" or engines.choose(WeightSettings(**settings_of(name))).name == "two nearest"
]


@needs_nvcc
@pytest.mark.parametrize("file, name", BY_PTX)
def test_published_by_ptx(file, name):
    from gpu_on_cpu.cuda_kernels import Emulator

    data = golden(f"published_{file}")
    labels = torch.from_numpy(data["labels"])
    call = dict(settings_of(name), spatial_dims=labels.dim())
    if len(set(data["spacing"])) > 1:
        call["spacing"] = tuple(data["spacing"])
    points = data["points"] if "points" in data else slice(None)
    emulator = Emulator()
    for given in ((), ("classes", "ignore")):
        with emulator.serving():
            beside = {key: torch.from_numpy(data[key]) for key in given}
            weights = weight_map(labels, **beside, **call, backend="native")
        expected = data["_".join((f"w_{name}", *given))].flatten()
        assert weight_error(weights.flatten()[points], expected) <= WEIGHT[weights.dtype]
    assert emulator.races == 0


@needs_nvcc
def test_terms_by_ptx():
    from gpu_on_cpu.cuda_kernels import Emulator, load_host_library, serving

    labels, classes, ignore, foreground = scene((53, 61))
    emulator = Emulator()
    for call in (
        dict(falloff="nearest", foreground=foreground),
        dict(falloff="nearest", gaps=True, border="farthest", distance="euclidean"),
        dict(falloff="nearest", foreground=foreground, classes=classes, ignore=ignore),
    ):
        with serving(load_host_library()):
            expected = weight_map(labels, **call, backend="native")
        with emulator.serving():
            weights = weight_map(labels, **call, backend="native")
        assert weight_error(weights, expected) <= 2e-6  # one code, two compilers
    assert emulator.races == 0
