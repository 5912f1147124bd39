"""The command line: outputs that are there and are damaged, or no images at all."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from cli_files import STACK, cells, load, run, save


@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_what_is_no_image_is_not_taken_for_one(name, tmp_path, capsys):
    """Whose it is nobody knows: it stays, but is no success."""
    mask, target = save(tmp_path / name, cells()), tmp_path / "out" / name
    target.parent.mkdir()
    target.write_bytes(b"mine")
    assert run(mask, "--out", target.parent) == 1
    assert target.read_bytes() == b"mine"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{mask}: {target} is there, is no whole image")
    target.unlink()
    os.mkfifo(target)
    for more in ([], ["--overwrite"]):
        assert run(mask, "--out", target.parent, *more) == 1
        assert f"{target} is there and is no file" in capsys.readouterr().err


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1000])


def zeros_at_the_end(path):
    path.write_bytes(path.read_bytes()[:-1000] + bytes(1000))


@pytest.mark.parametrize("damage", [cut_short, zeros_at_the_end])
@pytest.mark.parametrize("name", ["a.npy", "a.tif", "stack.tif"])
def test_damaged_weights_are_written_again(name, damage, tmp_path, capsys):
    if name == "stack.tif":
        mask, given = tmp_path / name, ["--spatial-dims", "2"]
        tifffile.imwrite(mask, STACK.astype(np.uint8), imagej=True, metadata={"axes": "ZYX"})
    else:
        mask, given = save(tmp_path / name, cells()), []
    target = tmp_path / "out" / name
    assert run(mask, "--out", target.parent, *given) == 0
    expected = load(target)
    damage(target)
    capsys.readouterr()
    assert run(mask, "--out", target.parent, *given) == 0
    assert capsys.readouterr().out == (
        f"written {target} (what was there is damaged)\n1 written, 0 kept, 0 failed\n"
    )
    np.testing.assert_array_equal(load(target), expected)
    damage(target)
    done = subprocess.run(  # nor does tifffile say anything of its own, which pytest would keep from us
        [sys.executable, "-m", "fastlogconv", "weights", mask, "--out", target.parent, *given],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    damage(target)  # and made from something else: that comes first
    assert run(mask, "--out", target.parent, *given, "--bwf", "3") == 1
