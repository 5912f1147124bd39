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


@pytest.mark.parametrize(
    ("name", "module", "install"),
    [
        ("train_cells", "scipy", '".[demo]"'),
        ("smp_cells", "segmentation_models_pytorch", '".[demo]" segmentation-models-pytorch'),
        ("lightning_cells", "lightning", '".[demo]" lightning'),
        ("monai_volumes", "monai", '".[monai]" scipy'),
    ],
)
def test_what_is_missing_is_told_with_how_to_install_it(name, module, install):
    program = (
        "import runpy, sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: raise ModuleNotFoundError(name=name)\n"
        f"sys.meta_path.insert(0, Gone()); sys.path.insert(0, {str(EXAMPLES)!r})\n"
        f"runpy.run_path({str(EXAMPLES / name)!r} + '.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"the example needs {module}: pip install {install} in the source tree, or ")


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
@pytest.mark.parametrize("example", ["train_cells", "train_volumes"])
def test_what_an_example_needs_is_named(example, missing):
    program = (
        f"import sys, runpy; sys.modules['{missing}'] = None; sys.path.insert(0, {str(EXAMPLES)!r}); "
        f"runpy.run_path({str(EXAMPLES / example)!r} + '.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"the example needs {missing}: pip install") and "[demo]" in line


def test_train_cells_tells_first_where_it_cannot_write(train_cells, monkeypatch, capsys):
    monkeypatch.setattr(train_cells, "make_cells", lambda *_: pytest.fail("it was started"))
    with pytest.raises(SystemExit) as stop:
        train_cells.main(["--quick", "--out", f"{__file__}/below/a/file.png"])
    assert stop.value.code == 2
    assert "cannot be written: Not a directory" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ volumes


@pytest.fixture
def train_volumes(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import train_volumes

    return train_volumes


def test_train_volumes_runs(train_volumes, with_threads, capsys):
    with_threads(1)
    scores = train_volumes.main(["--quick"])
    printed = capsys.readouterr().out
    assert list(scores) == list(train_volumes.WEIGHTS)
    for name, of_way in scores.items():
        assert f"{name}, seed 0" in printed
        assert all(0 <= each["F1"] <= 1 and 0 <= each["merged pairs"] <= 1 for each in of_way)


def test_train_volumes_makes_cells_that_touch(train_volumes):
    from train_cells import score, touching_pairs

    volumes, labels = train_volumes.make_volumes(np.random.default_rng(0), 3, (12, 48, 48))
    assert volumes.shape == labels.shape == (3, 12, 48, 48)
    assert all(len(touching_pairs(label)) >= 5 for label in labels.numpy())
    again, _ = train_volumes.make_volumes(np.random.default_rng(0), 3, (12, 48, 48))
    assert np.array_equal(volumes, again)
    assert score(labels.numpy(), labels.numpy()) == {"F1": 1, "merged pairs": 0}


def test_train_volumes_has_the_target_of_its_weights(train_volumes):
    _, labels = train_volumes.make_volumes(np.random.default_rng(0), 2, (12, 48, 48))
    gaps = (labels > 0) & (fastlogconv.separate_touching(labels, spatial_dims=3) == 0)
    assert gaps.sum() > 100
    for name, weights in train_volumes.WEIGHTS.items():
        target, weight = train_volumes.target_and_weight(name, labels)
        assert target.dtype == torch.int64 and target.shape == weight.shape == labels.shape
        with_gaps = name not in train_volumes.WITHOUT_GAPS
        assert torch.equal(target, ((labels > 0) & ~gaps if with_gaps else labels > 0).long())
        if weights is not None:
            bwf = float(name.rpartition("=")[2])
            settings = dict(preset="unet2019", bwf=bwf, spatial_dims=3, spacing=(4, 1, 1))
            assert torch.equal(weight, fastlogconv.weight_map(labels, **settings))
            assert weight[gaps].min() > 0.75 * bwf  # a corner of a voxel away: exp(-(16 + 2) / 72)


def test_train_volumes_grows_objects_into_gaps(train_volumes):
    """By one voxel, corners included; each voxel goes to the nearest object."""
    found = np.zeros((1, 5, 9, 12), np.int32)
    found[0, 2, 3:6, 2:5], found[0, 2, 3:6, 6:9] = 1, 2
    grown = train_volumes.grown(found)
    assert (grown[0, 1:4, 2:7, 1:6] == 1).all()
    assert (grown[0, 1:4, 2:7, 6:10] == 2).all()
    assert (grown > 0).sum() == 3 * 5 * 9
