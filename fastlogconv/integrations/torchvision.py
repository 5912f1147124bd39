"""torchvision: a transform of `torchvision.transforms.v2`."""

from __future__ import annotations

from torch import Tensor

from . import missing, weight_transform

try:
    from torchvision import tv_tensors
    from torchvision.transforms import v2
except ImportError as error:
    raise missing("torchvision", "torchvision") from error


class WeightMap(v2.Transform):
    """Instance labels, a `tv_tensors.Mask`, to loss weights, a plain tensor. Everything else passes through.

    A dict that holds a mask keeps it and gets the weights beside it; any other mask becomes its weights. It
    comes last: torchvision's transforms do not move the plain tensors of a sample that has an image.

    Args:
        weight_key: where in a dict the weights go.
        settings: those of `fastlogconv.WeightTransform`, by keyword, with the defaults of
            `fastlogconv.weight_map`.

    Shape:
        any sample, nested or not, with masks [..., H, W] -> the sample with weights [..., H, W]; float32 for
        integer and bool masks, else the masks' dtype. Each [H, W] is a label image of its own: for one mask
        per object there is `fastlogconv.region_weight_map`.

    Raises:
        TypeError, ValueError: at construction for a setting that is unknown, of the wrong type or out of its
            range; when called as `weight_map`; ValueError also for a dict with more than one mask.
    """

    def __init__(self, weight_key: str = "weight", **settings) -> None:
        super().__init__()
        self.weight_key = weight_key
        self.weights = weight_transform(settings)

    def forward(self, *inputs):
        sample = inputs if len(inputs) > 1 else inputs[0]
        return self._transformed(sample)

    def _transformed(self, sample):
        if isinstance(sample, tv_tensors.Mask):
            return self._weights_of(sample)
        if isinstance(sample, dict):
            return self._with_weights(sample)
        if isinstance(sample, (list, tuple)):
            items = map(self._transformed, sample)
            return type(sample)(*items) if hasattr(sample, "_fields") else type(sample)(items)
        return sample

    def _with_weights(self, sample: dict) -> dict:
        masks = [key for key, value in sample.items() if isinstance(value, tv_tensors.Mask)]
        if len(masks) > 1:
            raise ValueError(f"a sample must hold one mask, got {masks}")
        result = {key: value if key in masks else self._transformed(value) for key, value in sample.items()}
        for key in masks:
            result[self.weight_key] = self._weights_of(sample[key])
        return result

    def _weights_of(self, mask: tv_tensors.Mask) -> Tensor:
        labels = mask.as_subclass(Tensor)
        batch = labels.flatten(0, -3) if labels.ndim > 3 else labels
        return self.weights(batch).reshape(labels.shape)
