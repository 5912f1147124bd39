"""fasttransform, fastai's pipelines: a `Transform` for batches."""

from __future__ import annotations

from torch import Tensor

from ..transforms import is_fastai_image
from . import missing, weight_transform

try:
    from fasttransform import Transform
except ImportError as error:
    raise missing("fasttransform", "fasttransform") from error


class WeightMap(Transform):
    """Instance labels in a plain tensor to loss weights; fastai's `TensorImage` and `TensorMask` pass.

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
        return labels if is_fastai_image(labels) else self.weights(labels.as_subclass(Tensor))
