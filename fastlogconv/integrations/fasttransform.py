"""fasttransform, fastai's pipelines: a `Transform` for batches."""

from __future__ import annotations

from torch import Tensor

from ..arrays import check_no_trailing_channel
from ..transforms import is_fastai_image
from . import missing, weight_transform

try:
    from fasttransform import Transform
except ImportError as error:
    raise missing("fasttransform", "fasttransform") from error


class WeightMap(Transform):
    """Instance labels in a plain tensor to loss weights; fastai's `TensorImage` and `TensorMask` pass.

    Pixels to ignore are told by their labels, `ignore_index`: fasttransform calls it with one part of the
    batch at a time, so that `classes` and an `ignore` mask in other parts do not reach it; with these, call
    `fastlogconv.weight_map` in the training step. With `gaps=True` give the target the same gaps there, by
    `fastlogconv.separate_touching(labels)`.

    Args:
        settings: those of `fastlogconv.WeightTransform`, by keyword, with the defaults of
            `fastlogconv.weight_map`.

    Shape:
        labels [B, H, W] or [H, W] -> weights of the same shape; float32 for integer and bool labels, else the
        labels' dtype.

    Raises:
        TypeError, ValueError: at construction for a setting that is unknown, of the wrong type or out of its
            range; when called as `weight_map`.
    """

    order = 100  # behind all of fastai's, of which Normalize is the last, at 99

    def __init__(self, **settings) -> None:
        super().__init__()
        self.weights = weight_transform(settings)

    def encodes(self, labels: Tensor):
        if is_fastai_image(labels):
            return labels
        check_no_trailing_channel(labels.shape, "labels", "[B, H, W]")
        return self.weights(labels.as_subclass(Tensor))
