import importlib.util
import os
from pathlib import Path

# Threads of OpenMP that have nothing to do sleep: the processes of a test run share the cores. OpenMP reads
# it when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from extras import missing_extra

import fastlogconv
from fastlogconv import backends
from fastlogconv.backends import native

# What is not installed, only built in its folder, finds the Triton kernels in theirs.
if importlib.util.find_spec("fastlogconv.kernels") is None:
    fastlogconv.__path__.append(str(Path(__file__).parents[1]))

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def on_device(value, device, *, id=None):
    """A parameter of tests on `device`: those on CUDA tensors are marked `gpu`."""
    return pytest.param(value, id=id, marks=[pytest.mark.gpu] if device == "cuda" else [])


def _served(device):
    return [name for name, reason in backends.reasons(torch.device(device)).items() if reason is None]


SERVED = [(name, device) for device in DEVICES for name in _served(device)]

# The files that take longest come first, so that the two processes of `make test` end together.
LONGEST = (
    "test_cuda_compiled.py",
    "test_cuda_nearest.py",
    "test_triton_nearest.py",
    "test_nearest_instances.py",
    "test_dice.py",
    "test_cli.py",
    "test_pieces.py",
    "test_cuda_shared_tiles.py",
    "test_triton_interpreted.py",
    "test_bench_gpu.py",
    "test_packaging.py",
    "test_bench.py",
    "test_fuzz.py",
    "test_examples.py",
    "test_triton_regions.py",
    "test_triton_terms.py",
    "test_triton_versions.py",
    "test_losses_options.py",
    "test_worst_cases.py",
    "test_triton_compiled.py",
    "test_operators.py",
    "test_separable_conv2d.py",
    "test_without_extras.py",
    "test_subnormal.py",
    "test_large_store.py",
    "test_plotting.py",
    "test_gpu.py",
    "test_launches.py",
    "test_pipelines.py",
    "test_weight_map.py",
    "test_weight_map_options.py",
)


@pytest.hookimpl(tryfirst=True)  # before marks are chosen
def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))
    for item in items:
        if item.path.name.startswith(("test_cuda_", "test_triton_")):
            item.add_marker("compiled")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if report.failed and isinstance(collector, pytest.Module):
        reason = missing_extra(report.call.excinfo.value)
        if reason is not None:
            report.outcome, report.longrepr = "skipped", (str(collector.path), 1, f"Skipped: {reason}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from _skipped_where_an_extra_is_missing())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from _skipped_where_an_extra_is_missing())


def _skipped_where_an_extra_is_missing():
    try:
        return (yield)
    except ModuleNotFoundError as error:
        reason = missing_extra(error)
        if reason is None:
            raise
        pytest.skip(reason)


@pytest.fixture(params=[on_device(pair, pair[1], id="-".join(pair)) for pair in SERVED])
def served(request):
    """Every (backend, device) that can run here."""
    return request.param


@pytest.fixture
def backend(served):
    return served[0]


@pytest.fixture
def device(served):
    return served[1]


@pytest.fixture
def on_cpu(device):
    """For tests of values that are refused."""
    if device != "cpu":
        pytest.skip("values are looked at on the CPU only: nothing waits for a GPU")


@pytest.fixture(
    params=[on_device(pair, pair[1], id="-".join(pair)) for pair in SERVED if pair[0] != "reference"]
)
def faster(request):
    """Every (backend, device) that can run here and is to agree with the reference."""
    return request.param


@pytest.fixture
def with_threads():
    """A function that sets the number of threads; the test leaves it as it was."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def process_of_a_benchmark(with_threads, monkeypatch):
    """A benchmark sets threads, environment variables and the instruction set of its process."""
    from bench import competitors, run

    threads = torch.get_num_threads()
    for variable in run.THREAD_VARIABLES:
        monkeypatch.setenv(variable, str(threads))
    yield
    with_threads(threads)
    if competitors.native.why_not(torch.device("cpu")) is None:
        competitors.native.use_instruction_set(competitors.best_instruction_set())


@pytest.fixture
def same_for_any_number_of_threads(with_threads):
    """Whether a call's result is the same for several numbers of threads, to the bit: a function."""

    def same(call):
        results = []
        for threads in (1, 2, 3, 5):
            with_threads(threads)
            results.append(call())
        return all(torch.equal(result, results[0]) for result in results[1:])

    return same


@pytest.fixture(params=["baseline", "avx2", "avx512", "neon"])
def instruction_set(request):
    """Each that this CPU has; the test leaves the choice as it was."""
    before = native.describe()["instruction set"]
    try:
        native.use_instruction_set(request.param)
    except ValueError:
        pytest.skip(f"this CPU has no {request.param}")
    yield request.param
    native.use_instruction_set(before)
