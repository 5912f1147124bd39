"""fastai: `WeightMap` for `batch_tfms`, and `TensorInstances`, labels that fastai augments with the image."""

from __future__ import annotations

from torch import Tensor

from ..arrays import check_no_trailing_channel
from . import missing

try:
    from fastai.torch_core import TensorBase, TensorMask

    from . import fasttransform
except ImportError as error:
    raise missing("fastai", "fastai") from error


class TensorInstances(TensorMask):
    """Instance labels [B, H, W] or [H, W]. fastai flips, crops and warps them as it does a TensorMask."""


class WeightMap(fasttransform.WeightMap):
    """Instance labels, in `TensorInstances` or a plain tensor, to loss weights, a `TensorBase`.

    `TensorImage` and `TensorMask` pass through, as in deepflash2. Settings, shapes and errors as for
    `fastlogconv.integrations.fasttransform.WeightMap`.
    """

    def encodes(self, labels: TensorInstances) -> TensorBase:
        check_no_trailing_channel(labels.shape, "labels", "[B, H, W]")
        return TensorBase(self.weights(labels.as_subclass(Tensor)))
