"""The command line: info, demo, weights, their outputs and manners."""

import io
import itertools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from cli_files import cells, load, run, save, weigh
from PIL import Image

import fastlogconv
from fastlogconv.__main__ import main
from fastlogconv.backends import BACKENDS
from fastlogconv.cli import demo
from fastlogconv.settings import PRESETS

# -------------------------------------------------------------------------------------------- info, demo


def test_info_names_every_backend_and_the_versions(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    for word in (torch.__version__, fastlogconv.__version__, *BACKENDS):
        assert word in printed


def test_demo_prints_a_table_and_writes_the_figure(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "new" / "folder")]) == 0
    printed = capsys.readouterr().out
    figure = tmp_path / "new" / "folder" / "coins.png"
    assert "303 x 384 pixels, 24 instances" in printed
    assert str(figure) in printed

    able = [name for name, module in BACKENDS.items() if module.why_not(torch.device("cpu")) is None]
    rows = re.findall(r"^(\w+) +cpu +(\w+) +(\S+) +<= (\S+)$", printed, re.MULTILINE)
    assert [row[:2] for row in rows] == list(itertools.product(able, demo.CAPTIONS))
    assert all(float(error) <= 1e-5 for *_, error in rows)
    assert set(demo.CAPTIONS) == set(PRESETS)

    with Image.open(figure) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 1000
        colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
        assert len(colours) > 500  # a picture, not an empty canvas
    assert figure.stat().st_size < 600 * 1024


def test_demo_says_what_a_backend_does_not_compute(monkeypatch, capsys):
    monkeypatch.setattr(BACKENDS["native"], "LACKS", {"cpu": frozenset({"nearest falloff"})}, raising=False)
    demo.compare(torch.eye(8, dtype=torch.int32))
    lines = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    by_preset = {preset: rest for backend, _, preset, rest in lines[1:] if backend == "native"}
    assert by_preset.pop("unet2019") == "it does not compute nearest falloff yet"
    assert set(by_preset) == set(PRESETS) - {"unet2019"}
    assert all("<=" in rest for rest in by_preset.values())


def test_demo_segments_the_coins():
    labels = demo.segment(demo.data.coins())
    areas = np.bincount(labels.ravel())[1:]
    assert len(areas) == 24
    assert areas.min() > 1000
    assert areas.max() < 3300  # none merged with its neighbour


# ------------------------------------------------------------------------------------------------- outputs


def test_existing_outputs_stay_unless_overwrite(tmp_path, capsys):
    """Those of which nobody knows what they were made from are no success."""
    masks = [save(tmp_path / name, cells()) for name in ("a.npy", "b.npy", "c.npy")]
    out = tmp_path / "out"
    assert run(masks[2], "--out", out) == 0
    capsys.readouterr()
    np.save(out / "a.npy", np.float32(mine := 7.5))
    assert run(*masks, "--out", out) == 1
    assert load(out / "a.npy") == mine
    printed = capsys.readouterr()
    reason = f"{out / 'a.npy'} is there, and what it was made from is not known: --overwrite replaces it"
    assert printed.err == f"{masks[0]}: {reason}\n"
    assert "1 written, 1 kept, 1 failed" in printed.out

    masks.pop()
    assert run(*masks, "--out", out, "--overwrite") == 0
    np.testing.assert_array_equal(load(out / "a.npy"), weigh(cells()))
    assert "2 written, 0 kept, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize("damaged", [None, "", "{", "[1]", "{}", '"a"'])
def test_without_a_record_nothing_is_kept_silently(damaged, tmp_path, capsys):
    mask, out = save(tmp_path / "a.npy", cells()), tmp_path / "out"
    assert run(mask, "--out", out) == 0
    if damaged is None:
        (out / "a.npy.json").unlink()
    else:
        (out / "a.npy.json").write_text(damaged)
    capsys.readouterr()
    assert run(mask, "--out", out, "--bwf", "5") == 1
    assert "what it was made from is not known: --overwrite replaces it" in capsys.readouterr().err
    np.testing.assert_array_equal(load(out / "a.npy"), weigh(cells()))
    assert run(mask, "--out", out, "--bwf", "5", "--overwrite") == 0
    assert run(mask, "--out", out, "--bwf", "5") == 0


@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_weights_made_from_something_else_are_no_success(suffix, tmp_path, capsys):
    mask, out = save(tmp_path / "a.npy", cells()), tmp_path / "out"
    given = ["--out", out, "--format", suffix]
    target = out / f"a.{suffix}"
    assert run(mask, *given, "--ignore-index", "3", "255") == 0
    for same in (["3", "255"], ["255", "3", "3"]):
        assert run(mask, *given, "--ignore-index", *same, "--bwf", "10.0", "--backend", "reference") == 0
        assert f"kept {target} (--overwrite replaces it)" in capsys.readouterr().out
    changes = {
        "bwf was 10.0, now 4.5": ["--ignore-index", "3", "255", "--bwf", "4.5"],
        "distance was logconv, now euclidean": [
            "--ignore-index",
            "3",
            "255",
            "--preset",
            "deepflash2_offline",
        ],
        "ignore_index was [3, 255], now []": [],
        "colour_ids was False, now True": ["--ignore-index", "3", "255", "--colour-ids"],
    }
    before = target.read_bytes()
    for why, changed in changes.items():
        assert run(mask, *given, *changed) == 1
        printed = capsys.readouterr()
        assert f"{mask}: {target} is there, made from something else ({why}): --overwrite" in printed.err
        assert "0 written, 0 kept, 1 failed" in printed.out
    assert target.read_bytes() == before
    save(mask, cells(ids=(1, 2, 3)))
    assert run(mask, *given, "--ignore-index", "3", "255") == 1
    assert "the mask was another one" in capsys.readouterr().err

    assert run(mask, *given, "--bwf", "4.5", "--overwrite") == 0
    np.testing.assert_array_equal(load(target), weigh(cells(ids=(1, 2, 3)), bwf=4.5))
    assert run(mask, *given, "--bwf", "4.5") == 0
    assert "1 kept" in capsys.readouterr().out


def test_a_record_is_never_that_of_other_weights(tmp_path, monkeypatch):
    """Interrupted between weights and record, weights are without one."""
    mask, out = save(tmp_path / "a.npy", cells()), tmp_path / "out"
    assert run(mask, "--out", out) == 0
    monkeypatch.setattr(json, "dumps", lambda *_, **__: interrupt())
    assert run(mask, "--out", out, "--overwrite", "--bwf", "3") == 130
    assert [path.name for path in out.iterdir()] == ["a.npy"]
    np.testing.assert_array_equal(load(out / "a.npy"), weigh(cells(), bwf=3))


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_a_full_disk_is_told_in_words(name, tmp_path):
    """A limit to the size of files, which cuts writes short as a full disk does."""
    mask = save(tmp_path / name, np.kron(cells(), np.ones((20, 20), int)).astype(np.uint8))
    program = (
        "import resource, sys; from fastlogconv.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "weights", mask, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{mask}: ") and re.search("is the disk full|File too large", line)
    assert list((tmp_path / "out").iterdir()) == []


def test_two_masks_of_one_name_are_both_refused(tmp_path, capsys):
    for folder in "xy":
        (tmp_path / folder).mkdir()
    one, two, other = tmp_path / "x" / "a.tif", tmp_path / "y" / "a.png", tmp_path / "y" / "b.png"
    for path in (one, two, other):
        save(path, cells().astype(np.uint8))
    photograph = tmp_path / "b.jpg"  # which cannot be read: no rival of b.png
    assert run(one, two, other, photograph, "--out", tmp_path / "out") == 1
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{one}: ") and str(two) in first
    assert second.startswith(f"{two}: ") and str(one) in second
    assert third.startswith(f"{photograph}: ")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.tif"]


def test_a_mask_named_twice_is_one_mask(tmp_path, capsys, monkeypatch):
    save(tmp_path / "a.npy", cells())
    monkeypatch.chdir(tmp_path)
    assert run("a.npy", "./a.npy", tmp_path / "a.npy", "--out", "out") == 0
    assert "1 written, 0 kept, 0 failed" in capsys.readouterr().out


def test_a_mask_is_never_overwritten(tmp_path, capsys):
    mask = save(tmp_path / "a.tif", cells().astype(np.uint8))
    content = mask.read_bytes()
    assert run(mask, "--out", tmp_path, "--overwrite") == 1
    assert mask.read_bytes() == content
    assert "would overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_output_and_no_other(
    tmp_path, monkeypatch, name, problem, capsys
):
    def half(file, *_, **__):
        file.write(b"half a file")
        raise problem

    mask = save(tmp_path / name, cells())
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"old")
    monkeypatch.setattr(np, "save", half)
    monkeypatch.setattr(tifffile, "imwrite", half)
    status = run(mask, "--out", out, "--overwrite")
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_bytes() == b"old"
    if isinstance(problem, KeyboardInterrupt):
        assert status == 130
    else:
        assert status == 1
        assert "No space left on device" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- usage and manners


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--bws", "0"], "bws"),
        (["--fds", "nan"], "fds"),
        (["--lmbda", "-1"], "lmbda"),
        (["--ks", "0"], "ks"),
        (["--ks", "7.5"], "ks"),
        (["--ks", "None"], "ks"),
        (["--ignore-index", "a"], "ignore-index"),
        (["--ignore-index", "3", "b.tif"], "'b.tif' is no whole number: labels are; name the masks before"),
        (["--ignore-index", str(2**63)], "2**63"),
        (["--distance", "no-distance-at-all"], "distance"),
        (["--preset", "best"], "preset"),
        (["--preset", "unet"], "preset 'unet' is now 'deepflash2_offline'"),
        (["--border", "no-rule-at-all"], "second_nearest"),
        (["--backend", "abacus"], "reference"),
        (["--format", "png"], "npy"),
        (["--spatial-dims", "4"], "spatial-dims"),
        (["--spacing", "4", "1", "1"], "--spacing along 3 axes is for volumes: add --spatial-dims 3"),
        (["--spacing", "4", "1", "--spatial-dims", "3"], "spacing must be 3 numbers"),
        (["--spacing", "2", "1"], "LogConv distances count steps of pixels"),
        (["--spacing", "file", "1", "1", "--spatial-dims", "3"], "spacing must be a number, got 'file'"),
        (["--spacing", "1", "1", "b.tif"], "'b.tif' is neither a number nor file; name the masks before"),
        (["--spatial-dims", "3", "--distance", "logconv"], "volumes have exact distances alone"),
        (["--out", __file__], "not a folder"),
        (["--out", f"{__file__}/below/a/file"], "cannot be written: Not a directory"),
        (["--out", "/proc/no/such/folder"], "cannot be written: "),
    ],
)
def test_wrong_usage_is_told_before_anything_is_read(tmp_path, capsys, arguments, why):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "missing.tif", "--out", tmp_path / "out", *arguments)
    assert stop.value.code == 2
    assert why in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [[], ["weights"], ["weights", "a.tif"], ["wieghts", "a.tif"]])
def test_incomplete_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: fastlogconv" in capsys.readouterr().err


def test_quiet_prints_errors_only(tmp_path, capsys):
    mask = save(tmp_path / "a.npy", cells())
    for _ in range(2):  # written, then kept
        assert run(mask, "--out", tmp_path / "out", "--quiet") == 0
    assert run(tmp_path / "b.npy", "--out", tmp_path / "out", "--quiet") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"{tmp_path / 'b.npy'}: No such file or directory\n"


@pytest.mark.parametrize(
    ("tty", "arguments", "bar"), [(True, [], True), (True, ["--quiet"], False), (False, [], False)]
)
def test_progress_bar_is_for_terminals(tmp_path, monkeypatch, tty, arguments, bar):
    stderr = io.StringIO()
    stderr.isatty = lambda: tty
    monkeypatch.setattr(sys, "stderr", stderr)
    assert run(save(tmp_path / "a.npy", cells()), "--out", tmp_path / "out", *arguments) == 0
    assert ("1/1" in stderr.getvalue()) == bar


@pytest.mark.parametrize(
    ("command", "module"), [("demo", "matplotlib"), ("demo", "skimage"), ("weights", "tifffile")]
)
def test_missing_extra_is_one_clear_line(tmp_path, monkeypatch, capsys, command, module):
    for name in list(sys.modules):
        if name.split(".")[0] == module or name.startswith("fastlogconv.cli"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(fastlogconv, "cli", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    masks = {"demo": [], "weights": ["a.tif"]}
    assert main([command, *masks[command], "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert module in line
    assert f'pip install "fastlogconv[{dict(demo="demo", weights="cli")[command]}]"' in line
    assert not (tmp_path / "out").exists()


def test_demo_tells_first_where_it_cannot_write(monkeypatch, capsys):
    monkeypatch.setattr(demo, "run", lambda out: pytest.fail("it was run"))
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--out", "/proc/no/such/folder"])
    assert stop.value.code == 2
    assert "usage: fastlogconv demo" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"fastlogconv {fastlogconv.__version__}\n"


def test_a_pipe_that_is_closed_ends_it_silently(tmp_path):
    save(tmp_path / "a.npy", cells())
    for arguments in (["info"], ["weights", tmp_path / "a.npy", "--out", tmp_path / "out"]):
        command = [sys.executable, "-m", "fastlogconv", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() == 141


@pytest.mark.parametrize("arguments", [["info"], ["weights", "a.npy", "--out", "out"]])
def test_a_full_disk_behind_the_output_is_told_in_words(arguments, tmp_path):
    save(tmp_path / "a.npy", cells())
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fastlogconv", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path,
            env=os.environ | {"PYTHONUNBUFFERED": ""},
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "fastlogconv: No space left on device\n"


def test_warnings_name_their_file(tmp_path, capsys, recwarn):
    """Each file that looks like a binary mask, and what libraries say of one."""
    masks = [save(tmp_path / f"{name}.npy", cells(ids=(255,) * 3).astype(np.uint8)) for name in "ab"]
    masks += [save(tmp_path / "c.npy", cells()), save(tmp_path / "d.npy", cells() > 0)]
    assert run(*masks, "--out", tmp_path / "out") == 0
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{masks[0]}: its values are 0 and 255 alone, so one instance")
    assert second.startswith(f"{masks[1]}: its values are 0 and 255 alone, so one instance")
    assert third.startswith(f"{masks[3]}: its values are bool, so one instance")
    assert len(recwarn) == 0


def test_arrays_need_no_other_library(tmp_path):
    mask = save(tmp_path / "a.npy", cells())
    program = (
        "import sys\n"
        "for name in ('matplotlib', 'skimage', 'scipy', 'PIL', 'tifffile', 'imagecodecs', 'tqdm'):\n"
        "    sys.modules[name] = None\n"
        "from fastlogconv.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    for expected in ("1 written, 0 kept", "0 written, 1 kept"):
        command = [sys.executable, "-c", program, "weights", mask, "--out", tmp_path / "out"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert expected in done.stdout
    np.testing.assert_array_equal(load(tmp_path / "out" / "a.npy"), weigh(cells()))


def test_python_m(tmp_path):
    mask = save(tmp_path / "a.png", cells().astype(np.uint8))
    command = [
        sys.executable,
        "-m",
        "fastlogconv",
        "weights",
        mask,
        tmp_path / "b.png",
        "--out",
        tmp_path / "out",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "1 written, 0 kept, 1 failed\n"
    assert done.stderr == f"{tmp_path / 'b.png'}: No such file or directory\n"
    np.testing.assert_array_equal(load(tmp_path / "out" / "a.tif"), weigh(cells()))
