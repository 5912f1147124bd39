"""The benchmark on a GPU, without one: what it leaves out, checks and says. No test looks at a time."""

import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason="the benchmark draws with it")
pytest.importorskip("bench", reason="it lies beside the package, where `python -m pytest` looks")
from bench import cases, gpu, gpu_timing, run

pytestmark = pytest.mark.usefixtures("process_of_a_benchmark")


@pytest.mark.parametrize("backend, convolution", [("triton", "convolve_axis"), ("cuda", "convolve_rows")])
def test_gpu_counts_as_json(backend, convolution, capsys):
    gpu_counts = pytest.importorskip("bench.gpu_counts")
    counter = pytest.importorskip("tests.gpu_on_cpu")
    reason = counter.why_no_triton() if backend == "triton" else counter.why_no_nvcc() or counter.why_not()
    if reason is not None:
        pytest.skip(reason)
    assert gpu_counts.main(["--json", "--targets", "80", "--size", "96", "--backend", backend]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"list_cells", "weigh_tiles", convolution, gpu_counts.WHOLE_PATH} <= {
        line["kernel"] for line in lines
    }
    for line in lines:
        assert line["target"] == "sm_80" and line["spills"] == 0
        assert line["registers"] > 0 and line["shared_bytes"] >= 0
    (whole,) = (line for line in lines if line["kernel"] == gpu_counts.WHOLE_PATH)
    assert whole["warp_instructions"] > 10_000
    assert whole["bytes_per_pixel"] >= 8  # labels in, weights out
    assert whole["races"] == 0
    assert whole["max_error"] <= 1e-5


def test_gpu_bounds_follow_from_the_counts():
    gpu_counts = pytest.importorskip("bench.gpu_counts")
    gpu = gpu_counts.GPU("any", processors=2, clock=1e9, bandwidth=1e9, products=1024)
    bounds = gpu.bounds(Counter(integer=6000, special_function=1000, mma=1000), sectors=1000)
    assert bounds == {
        "memory": 32e-6, "issue": 1e-6, "special functions": 1e-6, "tensor cores": 1e-6
    }  # fmt: skip


def test_gpu_counts_say_why_they_cannot(monkeypatch, capsys):
    gpu_counts = pytest.importorskip("bench.gpu_counts")
    monkeypatch.setitem(gpu_counts.BACKENDS, "triton", "tests.no_such_module")
    assert gpu_counts.main([]) == 1
    assert "cannot count the kernels of triton here: No module named" in capsys.readouterr().err


class StubStopwatch:
    """Every call takes as long as `seconds` says, by name of the way; nothing is called."""

    def __init__(self, seconds=1e-3):
        self.seconds = seconds

    def once(self, call):
        return self.seconds

    def times(self, call, in_graph):
        return gpu_timing.Times(self.seconds / 2 if in_graph else None, self.seconds, self.seconds / 4)


def gpu_lines(names, **options):
    """What is said of these cases on the CPU, and whether all of it was right."""
    said = []
    known = gpu.gpu_cases(None)
    chosen = [known[name] for name in names]
    options.setdefault("stopwatch", StubStopwatch())
    right = gpu.measure(chosen, torch.device("cpu"), said.append, **options)
    return [line for line in said if line.startswith("| ")], right


def test_gpu_times_every_operator_in_three_ways():
    lines, right = gpu_lines(gpu.QUICK)
    assert right
    for start in (
        "| fastlogconv native | logconv-second | 500 µs | 1.00 ms | 250 µs |",
        "| fastlogconv native | exact-second | 500 µs | 1.00 ms | 250 µs |",
        "| fastlogconv native | logconv-farthest | 500 µs | 1.00 ms | 250 µs |",
        "| fastlogconv native | convolution | 500 µs | 1.00 ms | 250 µs |",
        "| fastlogconv native | distances-second | 500 µs | 1.00 ms | 250 µs |",
        "| fastlogconv reference | logconv-second |  | 1.00 ms | 250 µs |",
        "| dense conv1d | logconv-farthest |  | 1.00 ms | 250 µs |",
        "| dense matmul | convolution |  | 1.00 ms | 250 µs |",
        "| cupy | exact-second | cupy is not installed | | |",
        "| fastlogconv triton | logconv-second | its kernels run on CUDA devices",
    ):
        assert any(line.startswith(start) for line in lines), (start, lines)
    regions = [line for line in lines if line.startswith("| fastlogconv native | logconv-second |")]
    assert len(regions) == 3  # two of labels, one of masks


def test_gpu_times_are_taken_of_right_results_only(monkeypatch):
    monkeypatch.setattr(gpu.fastlogconv, "weight_map", lambda labels, **settings: labels.float() * 0)
    lines, right = gpu_lines(["quick-few"])
    assert not right
    assert any("| fastlogconv native | logconv-second | wrong | | |" in line for line in lines)
    assert any(line.startswith("| dense conv1d | logconv-second |  | 1.00 ms") for line in lines)


def test_gpu_distances_are_checked(monkeypatch):
    assert gpu_lines(["quick-distances"])[1]
    wrong = lambda distance, backend: distance.new_full(distance.shape[1:], torch.nan)  # noqa: E731
    monkeypatch.setattr(gpu.fastlogconv, "distance_to_weight", wrong)
    assert not gpu_lines(["quick-distances"])[1]


def test_gpu_leaves_out_who_is_estimated_to_take_long():
    """By what they took before: 8 cells on 96 x 80 are ten times 2 cells on 48 x 64 for the dense way."""
    limits = gpu.Limits(call=6e-3)
    lines, _ = gpu_lines(["quick-few", "quick-tissue"], limits=limits)
    start = "| dense conv1d | logconv-second | left out: estimated to take 10.0 ms | | |"
    assert any(line.startswith(start) for line in lines), lines
    assert sum(line.startswith("| fastlogconv native | logconv-second | 500 µs") for line in lines) == 2
    lines, _ = gpu_lines(["quick-few"], limits=gpu.Limits(call=1e-4))
    assert any(line.startswith("| dense conv1d | logconv-second |  | 1.00 ms |  |") for line in lines)


def test_gpu_leaves_out_what_does_not_fit_its_memory():
    lines, _ = gpu_lines(["quick-few"], limits=gpu.Limits(memory=1000))
    assert any(
        line.startswith("| dense matmul | logconv-second | left out: 0 GB of memory") for line in lines
    )


def test_gpu_ends_in_time():
    """However slow everything is: nothing begins after the limit, nothing that would end long after it."""
    now = itertools.count(step=10).__next__
    lines, right = gpu_lines(gpu.QUICK, clock=lambda: float(now()))
    assert right
    late = [line for line in lines if "left out: the time is up" in line]
    assert late and lines[-1] == late[-1]
    assert any(" | 1.00 ms | " in line for line in lines)
    limits = gpu.Limits(call=100, total=50, calls=12)
    lines, _ = gpu_lines(["quick-few"] * 2, limits=limits, stopwatch=StubStopwatch(10))
    assert any("| left out: no time for 12 times 10.0 s |" in line for line in lines)


@pytest.mark.parametrize("mask", [None, "mask.npy"])
def test_gpu_default_cases_are_known(mask, tmp_path):
    path = None if mask is None else tmp_path / mask
    known = gpu.gpu_cases(path)
    names = gpu.default_cases(path)
    assert set(names) <= set(known)
    assert {known[name].computes for name in names} == {
        cases.WEIGHTS, cases.REGION_WEIGHTS, cases.CONVOLUTION, gpu.DISTANCES
    }  # fmt: skip
    base = "dsb" if mask else "tissue-512"
    if mask:
        np.save(path, np.eye(9, dtype=np.int32))
    assert [len(known[base + times].workload().input) for times in ("", "-x16", "-x64")] == [1, 16, 64]


def test_gpu_table_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(gpu, "measure", lambda chosen, device, say: say(f"{len(chosen)} on {device}") or True)
    assert run.main(["--gpu", "--quick", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "gpu.md").read_text() == "5 on cuda:0\n"
    assert "5 on cuda:0" in capsys.readouterr().out


def test_host_cost_of_calls(capsys):
    from bench import host_cost

    counter = pytest.importorskip("tests.gpu_on_cpu")
    if reason := counter.why_no_triton():
        pytest.skip(reason)
    assert host_cost.main(["--calls", "20"]) == 0
    said = capsys.readouterr().out
    for name in host_cost.calls():
        assert len(re.findall(rf"^\| {name} \| \d+\.\d us \| \d+\.\d us \|$", said, re.M)) == 2


def test_gpu_needs_a_gpu(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit):
        run.main(["--gpu"])
    assert "PyTorch finds no CUDA device" in capsys.readouterr().err
