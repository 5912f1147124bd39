"""docs/algorithm.md: its links lead somewhere, and its figures are what its script makes."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastlogconv import WeightSettings
from fastlogconv.numerics import numbers_for

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "algorithm.md").read_text()


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module


def test_figures(module, tmp_path):
    """The script makes every figure that the page shows, and no other lies beside them."""
    pictures = re.findall(r"^!\[.+\]\((.+)\)$", PAGE, flags=re.MULTILINE)
    written = module("make_algorithm_figures").make(tmp_path, dpi=20)
    assert [path.name for path in written] == [Path(picture).name for picture in pictures]
    assert sorted(DOCS / picture for picture in pictures) == sorted((DOCS / "algorithm").iterdir())
    assert sum((DOCS / picture).stat().st_size for picture in pictures) < 400_000
    for path in written:
        colours = np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0)
        assert len(colours) > 10  # a picture, not an empty canvas


def test_links():
    targets = set(re.findall(r"(?<!!)\[[^\]]*\]\(([^)#:]+)\)", PAGE))
    assert len(targets) > 20
    assert [target for target in sorted(targets) if not (DOCS / target).exists()] == []


@pytest.mark.parametrize("kernels, epsilon", [("cpu", 2.0**-60), ("gpu", 2.0**-36)])
@pytest.mark.parametrize("changes", [{}, dict(lmbda=3.0, ks=41), dict(fds=4.0, bws=2.0)])
def test_limits(module, kernels, epsilon, changes):
    """The limits in the figures are those of the package."""
    s = WeightSettings(**changes)
    numbers = numbers_for(s, 512, 512, kernels, False)
    limit = module("algorithm_numpy").limit_of(epsilon, s.lmbda, s.radius, s.fds, s.bws)
    assert limit == pytest.approx(numbers.limit, rel=1e-12)
