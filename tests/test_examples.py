"""The examples, run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fastlogconv
from fastlogconv.settings import PRESETS

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def train_cells(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import train_cells

    return train_cells


def test_train_cells_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "train_cells.py", "--quick", "--out", tmp_path / "figure.png"],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("no weights", "no weights, gaps", *PRESETS, "unet2019, bwf=10"):
        assert done.stdout.count(f"\n{name}  ") == 1
        assert f"{name}, seed 0" in done.stdout
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_train_cells_makes_cells_that_touch(train_cells):
    images, labels = train_cells.make_cells(np.random.default_rng(0), 4, 64)
    assert images.shape == labels.shape == (4, 64, 64)
    assert all(len(train_cells.touching_pairs(label)) >= 3 for label in labels.numpy())
    again, _ = train_cells.make_cells(np.random.default_rng(0), 4, 64)
    assert np.array_equal(images, again)


def test_train_cells_has_the_target_of_its_weights(train_cells):
    """Where weights have gaps between touching cells, the target has the same ones, and no other way does."""
    assert set(train_cells.PRESETS) == set(PRESETS)
    _, labels = train_cells.make_cells(np.random.default_rng(0), 2, 64)
    gaps = (labels > 0) & (fastlogconv.separate_touching(labels) == 0)
    assert gaps.sum() > 20
    for name, weights in train_cells.WEIGHTS.items():
        target, weight = train_cells.target_and_weight(name, labels)
        assert target.dtype == torch.int64
        assert target.shape == weight.shape == labels.shape
        with_gaps = name in train_cells.WITH_GAPS
        assert torch.equal(target, ((labels > 0) & ~gaps if with_gaps else labels > 0).long())
        if weights is None:
            assert (weight == 1).all()
        else:
            assert weights.settings.gaps == with_gaps
            preset, _, factor = name.partition(", bwf=")
            factor = float(factor) if factor else None
            assert torch.equal(weight, fastlogconv.weight_map(labels, preset=preset, bwf=factor))
    assert train_cells.target_and_weight("unet2019", labels)[1][gaps].min() > 40


def test_train_cells_scores(train_cells):
    """Two touching cells and one alone: found as they are, merged, found in part, not found."""
    labels = np.zeros((1, 12, 24), int)
    labels[0, 2:8, 2:8], labels[0, 2:8, 8:14], labels[0, 2:8, 17:23] = 5, 2, 7
    assert train_cells.score(labels, labels) == {"F1": 1, "merged pairs": 0}
    merged = np.where(labels == 5, 2, labels)
    assert train_cells.score(merged, labels) == {"F1": pytest.approx(2 / 5), "merged pairs": 1}
    without = np.where(labels == 5, 0, labels)
    assert train_cells.score(without, labels) == {"F1": pytest.approx(4 / 5), "merged pairs": 0}
    assert train_cells.score(np.zeros_like(labels), labels) == {"F1": 0, "merged pairs": 0}


@pytest.mark.parametrize("missing", ["matplotlib", "scipy"])
def test_train_cells_names_what_it_needs(missing):
    program = (
        f"import sys, runpy; sys.modules['{missing}'] = None; "
        f"runpy.run_path({str(EXAMPLES / 'train_cells.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"train_cells.py needs {missing}: pip install") and "[demo]" in line


def test_train_cells_tells_first_where_it_cannot_write(train_cells, monkeypatch, capsys):
    monkeypatch.setattr(train_cells, "make_cells", lambda *_: pytest.fail("it was started"))
    with pytest.raises(SystemExit) as stop:
        train_cells.main(["--quick", "--out", f"{__file__}/below/a/file.png"])
    assert stop.value.code == 2
    assert "cannot be written: Not a directory" in capsys.readouterr().err
