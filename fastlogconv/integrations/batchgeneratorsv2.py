"""batchgeneratorsv2, the augmentation of nnU-Net: a transform of 2-D samples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..arrays import check_no_trailing_channel
from . import as_ignore, missing, weight_transform, weights_like

try:
    from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
except ImportError as error:
    raise missing("batchgeneratorsv2", "batchgeneratorsv2") from error


class WeightMap(BasicTransform):
    """Adds the loss weights of the instance labels in one channel of the segmentation.

    nnU-Net's data loader passes on nothing but image and segmentation. With `weight_key=None` the weights are
    therefore appended to the segmentation as its last channel, which makes it float32 (good for ids up to
    2**24). nnU-Net's label beyond the image, -1, is background.

    Behind nnU-Net's deep supervision, where the segmentation is a list of one per scale, each gets weights of
    its own; sigmas are pixels of that scale. Before it, weights are downsampled with the labels.

    Args:
        channel: that of the instance labels.
        weight_key: where the weights go; None appends them to the segmentation.
        classes_channel: that of the class labels; None: one class.
        ignore_channel: that of the mask of pixels to ignore, where it is > 0; None: none is ignored.
        settings: those of `fastlogconv.WeightTransform`, by keyword, with the defaults of
            `fastlogconv.weight_map`.

    Shape:
        segmentation [C, H, W], a tensor or NumPy array -> weights [1, H, W] of the same kind; float32 for
        integer labels, else the labels' dtype. A list of such segmentations -> a list of such weights.

    Raises:
        TypeError, ValueError: at construction for a setting that is unknown, of the wrong type or out of its
            range; when called for a segmentation that is not [C, H, W], and as `weight_map`.
    """

    def __init__(
        self,
        channel: int = 0,
        weight_key: str | None = "weight",
        *,
        classes_channel: int | None = None,
        ignore_channel: int | None = None,
        **settings,
    ) -> None:
        super().__init__()
        self.channel, self.weight_key = channel, weight_key
        self.classes_channel, self.ignore_channel = classes_channel, ignore_channel
        self.weights = weight_transform(settings)

    def apply(self, data_dict: dict, **params) -> dict:
        segmentation = data_dict["segmentation"]
        several = isinstance(segmentation, (list, tuple))
        scales = segmentation if several else [segmentation]
        weights = [self._weights_of(scale) for scale in scales]
        if self.weight_key is None:
            weights = [_appended(scale, each) for scale, each in zip(scales, weights, strict=True)]
        key = "segmentation" if self.weight_key is None else self.weight_key
        return data_dict | {key: weights if several else weights[0]}

    def _weights_of(self, segmentation: Tensor | np.ndarray) -> Tensor | np.ndarray:
        if segmentation.ndim != 3:
            raise ValueError(f"segmentation must have the shape [C, H, W], got {tuple(segmentation.shape)}")
        check_no_trailing_channel(segmentation.shape, "segmentation", "[C, H, W]")
        beside = {}
        if self.classes_channel is not None:
            beside["classes"] = segmentation[self.classes_channel][None]
        if self.ignore_channel is not None:
            beside["ignore"] = as_ignore(segmentation[self.ignore_channel][None])
        return weights_like(self.weights, segmentation[self.channel][None], **beside)


def _appended(segmentation: Tensor | np.ndarray, weights: Tensor | np.ndarray) -> Tensor | np.ndarray:
    if isinstance(segmentation, Tensor):
        return torch.cat([segmentation.float(), weights.float()])
    return np.concatenate([segmentation, weights], axis=0, dtype=np.float32, casting="unsafe")
