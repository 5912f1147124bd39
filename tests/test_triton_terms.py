"""The published terms by what Triton compiles for a GPU, on the CPU: against the oracle and golden files."""

import itertools

import gpu_on_cpu
import numpy as np
import oracle
import pytest
import torch
from cases import golden, scattered, weight_error
from test_terms import PUBLISHED, combination_id, lacking, settings_of
from tolerances import WEIGHT

from fastlogconv import WeightSettings, region_weight_map, rules, separate_touching, weight_map
from fastlogconv.backends.triton import LACKS

pytestmark = pytest.mark.skipif(
    gpu_on_cpu.why_no_triton() is not None, reason=str(gpu_on_cpu.why_no_triton())
)

LOGCONV, FARTHEST = dict(distance="logconv"), dict(border="farthest")
EXACT, NEAREST = dict(distance="euclidean"), dict(falloff="nearest")
# What is beside the labels, and the settings that are not as users leave them.
CASES = [
    ("classes and ignore", LOGCONV | NEAREST),
    ("gaps", LOGCONV | NEAREST | dict(lmbda=0.1)),
    ("foreground and classes", LOGCONV | NEAREST | FARTHEST),
    ("gaps", LOGCONV),
    ("gaps, classes and ignore", EXACT | NEAREST | FARTHEST),
    ("foreground, classes and ignore", EXACT),
]
MORE_CASES = [
    (beside, dict(distance=d, border=b, falloff=f, border_everywhere=everywhere))
    for beside in ("alone", "classes and ignore", "foreground", "gaps")
    for d, b, f in itertools.product(rules.DISTANCES, rules.BORDERS, rules.FALLOFFS)
    for everywhere in ([False, True] if d == "euclidean" else [False])
]


@pytest.fixture
def emulator():
    from gpu_on_cpu.triton_kernels import Emulator

    emulator = Emulator()
    with emulator.serving():
        yield emulator


def weigh(emulator, labels, **call):
    weights = weight_map(labels, **call, backend="triton")
    assert emulator.records and emulator.races == 0
    return weights


def case_id(value):
    return value if isinstance(value, str) else combination_id(value)


@pytest.mark.parametrize(
    "beside, changes",
    [*CASES, *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in MORE_CASES)],
    ids=case_id,
)
def test_terms(beside, changes, emulator):
    settings = WeightSettings(**dict(bws=4, fds=3, bwf=7, fbr=0.2, lmbda=0.5, ks=None) | changes)
    rng = np.random.default_rng(len(beside))
    shape = (47, 61)
    labels = scattered(shape, 9, 8, rng)
    classes, ignore, foreground = np.ones_like(labels), np.zeros(shape, bool), None
    call = dict(settings=settings)
    if "classes" in beside:
        classes = rng.integers(-1, 3, (2, 2)).repeat(31, 0).repeat(31, 1)[: shape[0], : shape[1]]
        call["classes"] = torch.from_numpy(classes)
    if "ignore" in beside:
        ignore = rng.random(shape) < 0.1
        call["ignore"] = torch.from_numpy(ignore)
    if "foreground" in beside:
        foreground = rng.random(shape) < 0.3
        call["foreground"] = torch.from_numpy(foreground)
    elif "gaps" in beside:
        call["settings"] = settings.replace(gaps=True)
        of_class = None if "classes" not in beside else torch.from_numpy(classes)
        separated = separate_touching(torch.from_numpy(labels), of_class).numpy()
        foreground = (separated > 0) & (classes > 0)
        assert foreground.sum() < ((labels > 0) & (classes > 0)).sum()
    if lacking_terms(**call):
        pytest.skip("it computes them by the two nearest instances alone")
    terms = settings.as_dict()
    terms = {name: terms[name] for name in terms if name not in ("gaps", "spacing")}
    expected = oracle.terms_weight_map(labels, classes, ignore, foreground, **terms)
    weights = weigh(emulator, torch.from_numpy(labels).int(), **call)
    assert weight_error(weights, expected) <= WEIGHT[weights.dtype]


def lacking_terms(settings, **call):
    return lacking("triton", "cpu", **settings.as_dict(), **call)


@pytest.mark.parametrize("beside", ["", "_classes_ignore"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_as_published(name, beside, emulator):
    settings = settings_of(name)
    file = golden("published_2d")
    given = {key: torch.from_numpy(file[key]) for key in ("classes", "ignore") if beside}
    if lacking("triton", "cpu", **given, **settings):
        pytest.skip("it computes them by the two nearest instances alone")
    for dtype in (torch.int32, torch.float64):
        weights = weigh(emulator, torch.from_numpy(file["labels"]).to(dtype), **given, **settings)
        assert weight_error(weights, file[f"w_{name}{beside}"]) <= WEIGHT[weights.dtype]


def test_images_of_a_batch_have_a_foreground_each(emulator):
    """Views of any strides."""
    rng = np.random.default_rng(3)
    labels = torch.from_numpy(np.stack([scattered((40, 50), n, 6, rng) for n in (6, 0, 3)]))
    foreground = torch.from_numpy(rng.random((50, 3, 40, 2)) < 0.4)[..., 1].permute(1, 2, 0)
    weights = weigh(emulator, labels, foreground=foreground, falloff="nearest")
    for image, inside, one in zip(labels, foreground, weights, strict=True):
        assert torch.equal(weigh(emulator, image, foreground=inside, falloff="nearest"), one)
        assert torch.equal(one == 1, inside)


def test_only_what_two_nearest_instances_are_for_is_lacking():
    assert LACKS["cuda"] <= {
        "nearest falloff", "foreground", "nearest instances", "volumes", "volumes by every instance",
        "spacing", "spacing by every instance",
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes", [LOGCONV | NEAREST, EXACT | NEAREST | FARTHEST], ids=lambda changes: changes["distance"]
)
def test_no_spills(changes):
    from gpu_on_cpu.triton_kernels import collected, resources

    labels = torch.zeros(1, 512, 512, dtype=torch.int32)
    beside = dict(classes=labels, ignore=labels > 0, foreground=labels > 0)
    with collected() as launches:
        weight_map(labels, **beside, settings=WeightSettings(**changes), backend="triton")
    assert [launch.name for launch in launches] == ["list_cells", "weigh_tiles"]
    for launch in launches:
        used = resources(launch, 80)
        assert used.spills == 0, (launch.name, used)


@pytest.mark.parametrize("there", [True, False], ids=["with CUDA C++", "without"])
def test_a_reach_that_spills_is_left_to_cuda_cpp(there, monkeypatch):
    """Whatever the terms: CUDA C++ is given all that these kernels would have been."""
    from gpu_on_cpu.triton_kernels import collected

    from fastlogconv.backends import native, triton

    labels = torch.ones(1, 640, 640, dtype=torch.int32)
    inside = labels > 1
    asked = []
    monkeypatch.setattr(triton, "_has_cuda_cpp", lambda device: there)
    for name in ("weight_map", "region_weight_map"):
        monkeypatch.setattr(native, name, lambda *call: asked.append(call) or labels.float())
    with collected() as launches:
        for near in (dict(ks=441), NEAREST | dict(ks=441), EXACT | dict(fds=17)):
            weight_map(labels, **near, backend="triton")
        region_weight_map(labels, ks=441, backend="triton")
        assert len(launches) == 8 and not asked
        for far in (dict(ks=None, fds=80), EXACT | dict(fds=80)):
            weight_map(labels, **far, backend="triton")
            weight_map(labels, foreground=inside, **far | NEAREST | FARTHEST, backend="triton")
            region_weight_map(labels, **far, backend="triton")
        weight_map(labels, classes=labels, **EXACT, fds=80, border_everywhere=True, backend="triton")
    if there:
        assert len(launches) == 8
        of_labels = [call for call in asked if len(call) == 5]
        assert len(of_labels) == 6 and len(asked) == 8
        assert [call[3] is inside for call in of_labels[1:4:2]] == [True, True]
        assert [call[4].falloff for call in of_labels[:4]] == 2 * ["sum", "nearest"]
        assert all(call[1] is not None for call in of_labels[4:])
    else:
        assert len(launches) == 24 and not asked
    assert "CUDA C++" in triton.describe()["beyond 220 px"]
