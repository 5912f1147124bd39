"""Albumentations: a transform that adds the weights of a mask, NumPy in and out."""

from __future__ import annotations

import numpy as np

from . import missing, weight_transform, weights_like

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
        settings: those of `fastlogconv.WeightTransform`, by keyword, with the defaults of
            `fastlogconv.weight_map`.

    Shape:
        labels [H, W] or [H, W, 1], a NumPy array or (behind ToTensorV2) a tensor -> weights of the same shape
        and kind; float32 for integer and bool labels, else the labels' dtype.

    Raises:
        TypeError, ValueError: at construction for a setting that is unknown, of the wrong type or out of its
            range; when called as `weight_map`, and for an array of several channels.
        KeyError: there is no `mask_key`.
    """

    targets = {}  # noqa: RUF012 - a property of the base class: what transforms which key

    def __init__(
        self, mask_key: str = "mask", weight_key: str = "weight", p: float = 1.0, **settings
    ) -> None:
        super().__init__(p)
        self.mask_key, self.weight_key, self.settings = mask_key, weight_key, settings
        self.weights = weight_transform(settings)

    def apply_with_params(self, params: dict, *args, **data) -> dict:
        if self.mask_key not in data:
            raise KeyError(f"there is no {self.mask_key!r} to weigh: mask_key must be one of {sorted(data)}")
        labels = data[self.mask_key]
        if labels.ndim == 3 and labels.shape[-1] == 1:
            return data | {self.weight_key: weights_like(self.weights, labels[..., 0])[..., None]}
        if labels.ndim == 3 and isinstance(labels, np.ndarray):  # a tensor may be channel first: [1, H, W]
            raise ValueError(
                f"{self.mask_key} must be labels [H, W] or [H, W, 1], got the shape {labels.shape}"
            )
        return data | {self.weight_key: weights_like(self.weights, labels)}

    def get_transform_init_args(self) -> dict:
        """What Albumentations prints and saves."""
        return {"mask_key": self.mask_key, "weight_key": self.weight_key} | self.settings
