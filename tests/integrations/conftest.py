"""Only libraries that are installed are tested: `make test` and `make test-integrations` have them all."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from cases import two_cells

from fastlogconv import weight_map

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # which it would ask the network for

LIBRARIES = (
    "albumentations", "batchgeneratorsv2", "fastai", "fasttransform", "lightning", "monai", "nnunetv2",
    "segmentation_models_pytorch", "torchvision",
)  # fmt: skip
ABSENT = [library for library in LIBRARIES if find_spec(library) is None]
collect_ignore_glob = [f"test_{library}*.py" for library in ABSENT]


def pytest_report_header():
    return f"integrations not tested here, not installed: {', '.join(ABSENT)}" if ABSENT else None


@pytest.fixture
def labels():
    """Two cells, int32 [H, W]."""
    return torch.from_numpy(two_cells()).to(torch.int32)


@pytest.fixture
def weights(labels):
    """What every integration is to give for them by default."""
    return weight_map(labels)


@pytest.fixture
def beside(labels):
    """Classes, and pixels to ignore, of the shape of the labels."""
    ignore = torch.zeros(labels.shape, dtype=torch.bool)
    ignore[:5, :9], ignore[15] = True, True
    return torch.where(labels > 0, 3 - labels, 0), ignore


@pytest.fixture
def examples(monkeypatch):
    """What is in examples/ can be imported."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "examples")
