"""bench/training.py: it runs, and counts what it says."""

from pathlib import Path

import numpy as np
import pytest

from bench import training


@pytest.fixture
def folder(tmp_path):
    """What the package stardist ships, in small."""
    import tifffile

    rng = np.random.default_rng(0)
    for kind, shape in (("2d", (64, 64)), ("3d", (30, 32, 32))):
        labels = np.zeros(shape, np.uint16)
        labels[..., 4:28, 4:16], labels[..., 4:28, 16:28] = 1, 2
        tifffile.imwrite(tmp_path / f"mask{kind}.tif", labels)
        tifffile.imwrite(
            tmp_path / f"img{kind}.tif", (100 * (labels > 0) + rng.integers(0, 9, shape)).astype("u2")
        )
    return tmp_path


def test_quick(folder, with_threads, capsys):
    with_threads(1)
    training.main(["--quick", "--stardist", str(folder)])
    lines = capsys.readouterr().out.splitlines()
    costs = [line for line in lines if line.startswith("cost, ")]
    assert [line.split(":")[0] for line in costs] == [
        "cost, coins",
        "cost, StarDist 2-D",
        "cost, StarDist 3-D",
    ]
    assert "1 x 32 x 32 x 32, 2 instances: step" in costs[2]
    effects = [line for line in lines if line.startswith("effect, ")]
    assert len(effects) == 2 * len(training.WAYS)
    assert (
        effects[0].startswith("effect, StarDist 2-D, no weights, gaps: F1 ") and "1 near pairs" in effects[0]
    )


def test_merged_pairs(monkeypatch):
    """Near cells in one object, those apart, and those that are not found."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    labels = np.zeros((12, 40), int)
    labels[2:9, 2:8], labels[2:9, 10:16], labels[2:9, 17:23], labels[2:9, 30:36] = 1, 2, 3, 4
    assert training._merged(labels, labels) == (0, 2)
    assert training._merged(np.where(labels == 2, 1, labels), labels) == (1, 2)
    assert training._merged((labels > 0).astype(int), labels) == (2, 2)
    assert training._merged(np.zeros_like(labels), labels) == (0, 2)
