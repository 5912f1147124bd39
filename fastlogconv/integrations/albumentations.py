"""Albumentations: a transform that adds the weights of a mask, NumPy in and out."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from . import as_ignore, missing, separated_like, weight_transform, weights_like

try:
    from albumentations import BasicTransform
except ImportError as error:
    raise missing("albumentations", "albumentations") from error


class WeightMap(BasicTransform):
    """Adds the loss weights of a mask of instance labels; everything else passes through.

    Which dtypes the transforms before it take is up to OpenCV; version 5 of it turns int64 into int32.

    Args:
        mask_key: where the labels are, "mask" or one of `additional_targets`.
        weight_key: where the weights go.
        p: the probability with which they are added.
        classes_key: where the class labels are, a mask as the labels are; None: one class.
        ignore_key: where the mask of pixels to ignore is, those where it is > 0; None: none is ignored.
        separated_key: where, with `gaps=True`, the labels with gaps go.
        settings: those of `fastlogconv.WeightTransform`, by keyword, with the defaults of
            `fastlogconv.weight_map`.

    Shape:
        labels [H, W] or [H, W, 1], a NumPy array or (behind ToTensorV2) a tensor -> weights of the same shape
        and kind; float32 for integer and bool labels, else the labels' dtype.

    Raises:
        TypeError, ValueError: at construction for a setting that is unknown, of the wrong type or out of its
            range; when called as `weight_map`, and for an array of several channels.
        KeyError: there is no `mask_key`, or one of the other keys.
    """

    targets = {}  # noqa: RUF012 - a property of the base class: what transforms which key

    def __init__(
        self,
        mask_key: str = "mask",
        weight_key: str = "weight",
        p: float = 1.0,
        *,
        classes_key: str | None = None,
        ignore_key: str | None = None,
        separated_key: str = "separated",
        **settings,
    ) -> None:
        super().__init__(p)
        self.mask_key, self.weight_key, self.settings = mask_key, weight_key, settings
        self.classes_key, self.ignore_key = classes_key, ignore_key
        self.separated_key = separated_key
        self.weights = weight_transform(settings)

    def apply_with_params(self, params: dict, *args, **data) -> dict:
        labels, one_channel = self._labels(data, "mask_key")
        beside = {}
        if self.classes_key is not None:
            beside["classes"] = self._labels(data, "classes_key")[0]
        if self.ignore_key is not None:
            beside["ignore"] = as_ignore(self._labels(data, "ignore_key")[0])
        weights = weights_like(self.weights, labels, **beside)
        result = {self.weight_key: weights}
        if self.weights.gaps:
            result[self.separated_key] = separated_like(labels, beside.get("classes"))
        return data | {key: value[..., None] if one_channel else value for key, value in result.items()}

    def _labels(self, data: dict, key_name: str) -> tuple[np.ndarray | Tensor, bool]:
        """The mask under the key of that name, and whether it had an axis of one channel behind it."""
        key = getattr(self, key_name)
        if key not in data:
            raise KeyError(f"there is no {key!r} to weigh: {key_name} must be one of {sorted(data)}")
        labels = data[key]
        if labels.ndim == 3 and labels.shape[-1] == 1:
            return labels[..., 0], True
        if labels.ndim == 3 and isinstance(labels, np.ndarray):  # a tensor may be channel first: [1, H, W]
            raise ValueError(f"{key} must be labels [H, W] or [H, W, 1], got the shape {labels.shape}")
        return labels, False

    def get_transform_init_args(self) -> dict:
        """What Albumentations prints and saves."""
        names = ("mask_key", "weight_key", "classes_key", "ignore_key", "separated_key")
        return {name: getattr(self, name) for name in names} | self.settings
