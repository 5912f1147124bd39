"""batchgeneratorsv2, the augmentation of nnU-Net: a transform of 2-D samples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import missing, weight_transform, weights_like

try:
    from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
except ImportError as error:
    raise missing("batchgeneratorsv2", "batchgeneratorsv2") from error


class WeightMap(BasicTransform):
    """Adds the loss weights of the instance labels in one channel of the segmentation.

    nnU-Net's data loader passes on nothing but image and segmentation. With `weight_key=None` the weights are
    therefore appended to the segmentation as its last channel, which makes it float32 (good for ids up to
    2**24). nnU-Net's label beyond the image, -1, is background.

    Args:
        channel: that of the instance labels.
        weight_key: where the weights go; None appends them to the segmentation.
        settings: those of `fastlogconv.WeightTransform`, by keyword, with the defaults of
            `fastlogconv.weight_map`.

    Shape:
        segmentation [C, H, W], a tensor or NumPy array -> weights [1, H, W] of the same kind; float32 for
        integer labels, else the labels' dtype.

    Raises:
        TypeError, ValueError: at construction for a setting that is unknown, of the wrong type or out of its
            range; when called for a segmentation that is not [C, H, W], and as `weight_map`.
    """

    def __init__(self, channel: int = 0, weight_key: str | None = "weight", **settings) -> None:
        super().__init__()
        self.channel, self.weight_key = channel, weight_key
        self.weights = weight_transform(settings)

    def apply(self, data_dict: dict, **params) -> dict:
        segmentation = data_dict["segmentation"]
        if segmentation.ndim != 3:
            raise ValueError(f"segmentation must have the shape [C, H, W], got {tuple(segmentation.shape)}")
        weights = weights_like(self.weights, segmentation[self.channel][None])
        if self.weight_key is None:
            return data_dict | {"segmentation": _appended(segmentation, weights)}
        return data_dict | {self.weight_key: weights}


def _appended(segmentation: Tensor | np.ndarray, weights: Tensor | np.ndarray) -> Tensor | np.ndarray:
    if isinstance(segmentation, Tensor):
        return torch.cat([segmentation.float(), weights.float()])
    return np.concatenate([segmentation, weights], axis=0, dtype=np.float32, casting="unsafe")
