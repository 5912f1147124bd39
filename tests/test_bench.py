"""The benchmark does its work: checks, refuses, skips with a reason, reports. No test looks at a time."""

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib", reason="the benchmark draws with it")
pytest.importorskip("bench", reason="it lies beside the package, where `python -m pytest` looks")
from bench import cases, competitors, oracles, report, run, suite, timing, verify, volumes

ROOT = Path(__file__).resolve().parents[1]
QUICK = timing.QUICK


pytestmark = pytest.mark.usefixtures("process_of_a_benchmark")


def quick_suite(kinds=(cases.WEIGHTS,), names=None, seconds=10.0):
    return suite.Suite(list(kinds), names, 1, suite.Limits(seconds), say=lambda text: None)


def run_case(name, made, **options):
    return made.run(cases.all_cases()[name], QUICK, None, **{"memory": False, **options})


def by_name(rows):
    return {row.competitor.name: row for row in rows}


def test_quick_run_reports_every_competitor(tmp_path):
    command = [sys.executable, "-m", "bench.run", "--quick", "--no-memory", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    for name in cases.QUICK:
        kind = cases.all_cases()[name].computes
        wanted = [competitor.name for competitor in competitors.all_competitors(kind)]
        assert [line["competitor"] for line in lines if line["case"] == name] == wanted
    for line in lines:
        if line["status"] == "timed":
            assert float(line["quartile1_s"]) <= float(line["median_s"]) <= float(line["quartile3_s"])
            assert float(line["error"]) <= 2e-2
        else:
            assert line["reason"], line
    timed = {line["competitor"] for line in lines if line["status"] == "timed"}
    assert {"dense", "native", "reference", "scipy", "scipy-crop", "copy"} <= timed
    text = (tmp_path / "results.md").read_text()
    for competitor in competitors.all_competitors(cases.WEIGHTS):
        assert f"| {competitor.label} | {competitor.result} |" in text
    for plot in ("time-pixels.png", "time-instances.png"):
        assert plot in text
        assert 0 < (tmp_path / plot).stat().st_size < 150_000


def test_figures_name_what_was_wanted_and_what_was_measured(tmp_path, capsys):
    assert run.main(["--figures", "--quick", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "figures.md").read_text()
    assert text in capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    for figure in (
        "WeightTransform over dense",
        "exact over LogConv",
        "32 x 32 tile",
        "volume 32^3, 8 balls of radius 5, unet2019: over edt once per instance",
        "time per pixel",
        "two threads",
        "float64",
        "on a GPU, CUDA C++: the host",
        "on a GPU, Triton: the host",
    ):
        assert any(figure in line for line in lines)
    assert "not measured: no mask given: --mask FILE" in text


def test_volumes(tmp_path, capsys):
    assert run.main(["--volumes", "--quick", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "volumes.md").read_text()
    for who in volumes.rivals():
        assert text.count(f" | {who} | ") == 2
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'volumes.md'}\n")


def test_a_volume_that_is_given(tmp_path):
    import numpy as np

    np.save(tmp_path / "mask.npy", volumes.balls(20, 5, 4.0)())
    *_, given = volumes.all_cases(tmp_path / "mask.npy", quick=False)
    assert given.make().shape == (20, 20, 20)


def test_rivals_of_volumes_that_are_wrong_are_not_timed(monkeypatch):
    right = volumes.rivals()
    said = []
    off = {"wrong": lambda *given: right["SciPy, cropped"](*given) + 1e-3}
    monkeypatch.setattr(volumes, "rivals", lambda: right | off)
    assert list(volumes.right_ones(said.append)) == list(right)
    assert len(said) == 1 and said[0].startswith("wrong is not timed: wrong by ")
    monkeypatch.setattr(volumes, "ours", lambda *given: right["fastlogconv"](*given) + 1e-3)
    monkeypatch.setattr(volumes, "rivals", lambda: {"fastlogconv": volumes.ours})
    with pytest.raises(SystemExit, match="nothing is timed"):
        volumes.right_ones(said.append)


def test_wrong_competitor_is_refused(monkeypatch):
    right = next(c for c in competitors.all_competitors(cases.WEIGHTS) if c.name == "scipy")
    compute = right.prepare(1)
    wrong = dataclasses.replace(right, name="wrong", prepare=lambda threads: lambda x: compute(x) + 1e-4)
    monkeypatch.setattr(competitors, "all_competitors", lambda computes: [right, wrong])
    made = quick_suite()
    assert [check.competitor.name for check in made.wrong] == ["wrong"]
    rows = by_name(run_case("quick-few", made))
    assert rows["scipy"].status == suite.TIMED
    assert rows["wrong"].status == suite.WRONG
    assert rows["wrong"].median is None
    assert "wrong: error 1.0e-04, allowed 1e-05" in report.case_table(list(rows.values()))


def test_competitor_that_is_wrong_on_the_case_only_is_refused(monkeypatch):
    right = next(c for c in competitors.all_competitors(cases.WEIGHTS) if c.name == "scipy")
    compute = right.prepare(1)
    small = verify.small(cases.WEIGHTS).workload.input.shape
    late = dataclasses.replace(
        right, name="late", prepare=lambda threads: lambda x: compute(x) * (1 if x.shape == small else 2)
    )
    monkeypatch.setattr(competitors, "all_competitors", lambda computes: [late])
    (row,) = run_case("quick-few", quick_suite())
    assert row.status == suite.WRONG
    assert row.median is None


def test_nothing_is_timed_where_ours_is_wrong(monkeypatch, tmp_path):
    ours = next(c for c in competitors.all_competitors(cases.WEIGHTS) if c.name == "reference")
    wrong = dataclasses.replace(ours, prepare=lambda threads: torch.zeros_like)
    monkeypatch.setattr(competitors, "all_competitors", lambda computes: [wrong])
    with pytest.raises(SystemExit, match="nothing is timed"):
        run.main(["--cases", "quick-few", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_competitor_that_fails_is_reported(monkeypatch):
    def prepare(threads):
        raise MemoryError("no room")

    right = next(c for c in competitors.all_competitors(cases.WEIGHTS) if c.name == "scipy")
    failing = dataclasses.replace(right, prepare=prepare)
    monkeypatch.setattr(competitors, "all_competitors", lambda computes: [failing])
    (row,) = run_case("quick-few", quick_suite())
    assert (row.status, row.reason) == (suite.WRONG, "failed: MemoryError: no room")


def test_skips_carry_their_reason(monkeypatch):
    monkeypatch.setattr(competitors, "_missing", lambda package: f"{package} is not installed")
    made = quick_suite(names=["dense", "opencv", "native"], seconds=1e-9)
    rows = by_name(run_case("quick-few", made))
    assert rows["opencv"].status == suite.MISSING
    assert rows["opencv"].reason == "cv2 is not installed"
    assert rows["dense"].status == suite.SKIPPED
    assert "estimated for a call" in rows["dense"].reason
    table = report.case_table(list(rows.values()))
    assert all(row.reason in table for row in rows.values())


def test_mask_that_was_not_given_is_skipped():
    rows = run_case("dsb", quick_suite(names=["native"]))
    assert [(row.status, row.reason) for row in rows] == [(suite.SKIPPED, "no mask given: --mask FILE")]
    assert "no mask given" in report.markdown(rows, [], report.machine(1), [])


def test_mask_is_read(tmp_path):
    pytest.importorskip("tifffile")
    import numpy as np

    np.save(tmp_path / "mask.npy", cases.tissue((40, 50), 3, 12))
    workload = cases.all_cases(tmp_path / "mask.npy")["dsb"].workload()
    assert workload.input.shape == (1, 40, 50)
    assert workload.input.dtype == torch.float32
    assert workload.instances == 3


needs_memory = pytest.mark.skipif(
    not timing.can_measure_memory(), reason="reads the high-water mark of Linux"
)
MIB = 2**20


@needs_memory
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "temporary"])
def test_memory_is_the_peak_of_the_call_beyond_what_was_there(kept):
    there_before = torch.ones(256 * MIB, dtype=torch.uint8)

    def call():
        made = torch.ones(256 * MIB, dtype=torch.uint8)
        return made if kept else None

    # The system counts pages for each core and adds them up now and then.
    assert 192 * MIB < timing.extra_bytes(call) < 320 * MIB
    assert there_before.all()


@needs_memory
def test_memory_of_a_competitor():
    (row,) = run_case("quick-tissue", quick_suite(names=["dense"]), memory=True)
    one_hot = 8 * 96 * 80 * 4  # bytes
    # Beside its arrays, the libraries' own buffers; PyTorch itself would be hundreds of MiB.
    assert one_hot < row.extra_bytes < 64 * MIB


@pytest.mark.parametrize(
    "arguments",
    [["--cases", "none"], ["--competitors", "none"], ["--threads", "0"], ["--mask", "none"]],
    ids=" ".join,
)
def test_bad_options(arguments):
    with pytest.raises(SystemExit) as exit:
        run.main(arguments)
    assert exit.value.code == 2


def test_cases_hold_what_they_say():
    known = cases.all_cases()
    for size in (256, 512):
        workload = known[f"tissue-{size}"].workload()
        assert workload.input.shape == (1, size, size)
        assert workload.instances == round(125 / 512**2 * size**2)
    for count in (1, 64, 1024):
        assert known[f"instances-{count}"].workload().instances == count
    tiny = known["tiny-40000"].workload()
    assert tiny.instances == 40_000
    sizes = tiny.input.flatten().long().bincount()[1:]
    assert (sizes.min(), sizes.max()) == (1, 6)
    assert known["giant-ring"].workload().instances == known["giant-blob"].workload().instances == 1
    assert known["batch-16x512"].workload().input.shape == (16, 512, 512)
    assert known["regions-125"].workload().input.shape == (125, 512, 512)
    assert torch.equal(known["tissue-512"].make(), known["tissue-512"].make())


def test_window_of_the_oracle_is_the_whole_oracle():
    """What lies beyond the margin of a window does not count."""
    labels = torch.from_numpy(cases.tissue((300, 310), 40, 20))[None].float()
    workload = cases.Case("large", cases.WEIGHTS, "", lambda: labels).workload()
    (everything,) = verify.whole(workload)
    for name in ("logconv-farthest", "logconv-second", "exact-second"):
        result = verify.RESULT_CLASSES[name]
        whole = verify.expected(result, workload, everything)
        for window in verify.some(workload):
            part = verify.expected(result, workload, window)
            assert abs(part - whole[window.rows, window.columns]).max() < 1e-6


def test_oracle_by_hand():
    """Two one-pixel instances on a line: distances by counting."""
    image = torch.zeros(1, 9)
    image[0, 2], image[0, 7] = 1, 2
    regions = oracles.regions_of(image.numpy())
    settings = dict(border="second_nearest", bws=2.0, fds=3.0, bwf=5.0, fbr=0.1)
    weights = oracles.weights(map(oracles.logconv, regions), (image > 0).numpy(), False, **settings)
    near, second = torch.tensor(2.0), torch.tensor(3.0)  # at column 4
    fd = torch.exp(-(near**2) / 18) + torch.exp(-(second**2) / 18)
    expected = 0.1 + 0.9 * fd + 5 * torch.exp(-((near + second) ** 2) / 8)
    assert weights[0, 4] == pytest.approx(expected.item(), rel=1e-6)
    assert weights[0, 2] == 1
