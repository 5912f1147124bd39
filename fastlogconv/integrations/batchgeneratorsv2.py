"""batchgeneratorsv2, the augmentation of nnU-Net: a transform of 2-D and 3-D samples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..arrays import check_no_trailing_channel
from . import as_ignore, missing, separated_like, weight_transform, weights_like

try:
    from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
except ImportError as error:
    raise missing("batchgeneratorsv2", "batchgeneratorsv2") from error


class WeightMap(BasicTransform):
    """Adds the loss weights of the instance labels in one channel of the segmentation.

    nnU-Net's data loader passes on nothing but image and segmentation. With `weight_key=None` the weights are
    therefore appended to the segmentation as its last channel, which makes it float32 (good for ids up to
    2**24); with `gaps=True` the labels with gaps are the channel before it. nnU-Net's label beyond the image,
    -1, is background.

    Behind nnU-Net's deep supervision, where the segmentation is a list of one per scale, each gets weights of
    its own; sigmas are pixels of that scale. Before it, weights are downsampled with the labels.

    Args:
        channel: that of the instance labels.
        weight_key: where the weights go; None appends them to the segmentation.
        classes_channel: that of the class labels; None: one class.
        ignore_channel: that of the mask of pixels to ignore, where it is > 0; None: none is ignored.
        separated_key: where, with `gaps=True` and a `weight_key`, the labels with gaps go.
        settings: those of `fastlogconv.WeightTransform`, by keyword, with the defaults of
            `fastlogconv.weight_map`.

    Shape:
        segmentation [C, H, W], with `spatial_dims=3` [C, D, H, W], a tensor or NumPy array -> weights
        [1, H, W] or [1, D, H, W] of the same kind; float32 for integer labels, else the labels' dtype. A list
        of such segmentations -> a list of such weights.

    Raises:
        TypeError, ValueError: at construction for a setting that is unknown, of the wrong type or out of its
            range; when called for a segmentation of another rank, and as `weight_map`.
    """

    def __init__(
        self,
        channel: int = 0,
        weight_key: str | None = "weight",
        *,
        classes_channel: int | None = None,
        ignore_channel: int | None = None,
        separated_key: str = "separated",
        **settings,
    ) -> None:
        super().__init__()
        self.channel, self.weight_key = channel, weight_key
        self.classes_channel, self.ignore_channel = classes_channel, ignore_channel
        self.separated_key = separated_key
        self.weights = weight_transform(settings)

    def apply(self, data_dict: dict, **params) -> dict:
        segmentation = data_dict["segmentation"]
        several = isinstance(segmentation, (list, tuple))
        scales = segmentation if several else [segmentation]
        made = {"weights": [self._weights_of(scale) for scale in scales]}
        if self.weights.gaps:
            made = {"separated": [self._separated_of(scale) for scale in scales]} | made
        if self.weight_key is None:
            keys = ["segmentation"]
            parts = zip(scales, *made.values(), strict=True)
            values = [[_together(first, *others) for first, *others in parts]]
        else:
            names = {"weights": self.weight_key, "separated": self.separated_key}
            keys, values = [names[name] for name in made], list(made.values())
        return data_dict | {
            key: value if several else value[0] for key, value in zip(keys, values, strict=True)
        }

    def _separated_of(self, segmentation: Tensor | np.ndarray) -> Tensor | np.ndarray:
        labels, beside = segmentation[self.channel][None], {}
        if self.classes_channel is not None:
            beside["classes"] = segmentation[self.classes_channel][None]
        return separated_like(labels, **beside, spatial_dims=self.weights.spatial_dims)

    def _weights_of(self, segmentation: Tensor | np.ndarray) -> Tensor | np.ndarray:
        dims = self.weights.spatial_dims
        shape = "[C, H, W]" if dims == 2 else "[C, D, H, W]"
        if segmentation.ndim != dims + 1:
            raise ValueError(f"segmentation must have the shape {shape}, got {tuple(segmentation.shape)}")
        if dims == 2:
            check_no_trailing_channel(segmentation.shape, "segmentation", shape)
        beside = {}
        if self.classes_channel is not None:
            beside["classes"] = segmentation[self.classes_channel][None]
        if self.ignore_channel is not None:
            beside["ignore"] = as_ignore(segmentation[self.ignore_channel][None])
        return weights_like(self.weights, segmentation[self.channel][None], **beside)


def _together(segmentation: Tensor | np.ndarray, *others: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """One float32 segmentation of all channels."""
    if isinstance(segmentation, Tensor):
        return torch.cat([part.float() for part in (segmentation, *others)])
    return np.concatenate([segmentation, *others], axis=0, dtype=np.float32, casting="unsafe")
