"""Weights in the pipelines of other libraries: one module each, which imports the library that it is for.

Every `WeightMap` takes the settings of `WeightTransform` by keyword, with the defaults of `weight_map`: the
U-Net's border. It belongs behind whatever moves pixels, such as flips, crops and rotations. With `gaps=True`,
so with the preset "unet2019", it hands out beside the weights the labels with these gaps: the target of the
training.
"""

from __future__ import annotations

from typing import overload

import numpy as np
import torch
from torch import Tensor

from ..arrays import as_tensor
from ..labels import separate_touching
from ..settings import DEFAULT_PRESET, PRESET_OF_VOLUMES
from ..transforms import WeightTransform


def weight_transform(settings: dict) -> WeightTransform:
    """The `WeightTransform` of these settings, with the defaults of `weight_map`."""
    preset = PRESET_OF_VOLUMES if settings.get("spatial_dims") == 3 else DEFAULT_PRESET
    return WeightTransform(**{"preset": preset} | settings)


@overload
def weights_like(transform: WeightTransform, labels: Tensor, **beside) -> Tensor: ...
@overload
def weights_like(transform: WeightTransform, labels: np.ndarray, **beside) -> np.ndarray: ...
def weights_like(transform, labels, **beside):
    """The weights of labels as `transform` takes them, a tensor for a tensor, else a NumPy array.

    `beside`: `classes` and `ignore`, of the same kind.
    """
    if isinstance(labels, Tensor):
        return transform(labels, **beside)
    tensors = {name: as_tensor(array, name) for name, array in beside.items()}
    return transform(as_tensor(labels, "labels"), **tensors).numpy()


@overload
def separated_like(labels: Tensor, classes: Tensor | None = None, *, spatial_dims: int = 2) -> Tensor: ...
@overload
def separated_like(
    labels: np.ndarray, classes: np.ndarray | None = None, *, spatial_dims: int = 2
) -> np.ndarray: ...
def separated_like(labels, classes=None, *, spatial_dims=2):
    """`separate_touching` of labels, a tensor for a tensor, else a NumPy array."""
    if isinstance(labels, Tensor):
        return separate_touching(labels, classes, spatial_dims=spatial_dims)
    classes = None if classes is None else as_tensor(classes, "classes")
    return separate_touching(as_tensor(labels, "labels"), classes, spatial_dims=spatial_dims).numpy()


def as_ignore(mask: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """A mask as bool: True where it is > 0, for pipelines make numbers of masks."""
    return mask if mask.dtype in (torch.bool, np.bool_) else mask > 0


def missing(library: str, extra: str) -> ImportError:
    """The error for a library that is not installed or cannot be imported."""
    return ImportError(
        f'fastlogconv.integrations.{extra} needs {library}: pip install "fastlogconv[{extra}]"', name=library
    )
