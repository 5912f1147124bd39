"""torchvision: a transform of `torchvision.transforms.v2`."""

from __future__ import annotations

from torch import Tensor

from ..arrays import check_no_trailing_channel
from ..labels import separate_touching
from . import as_ignore, missing, weight_transform

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
        classes_key: where in the dict of the mask the class labels are, a Mask of their own; None: one
            class.
        ignore_key: where in that dict the Mask of pixels to ignore is, those where it is > 0; None: none.
        separated_key: where in a dict, with `gaps=True`, the labels with gaps go, a Mask.
        settings: those of `fastlogconv.WeightTransform`, by keyword, with the defaults of
            `fastlogconv.weight_map`.

    Shape:
        any sample, nested or not, with masks [..., H, W] -> the sample with weights [..., H, W]; float32 for
        integer and bool masks, else the masks' dtype. Each [H, W] is a label image of its own: for one mask
        per object there is `fastlogconv.region_weight_map`.

    Raises:
        TypeError, ValueError: at construction for a setting that is unknown, of the wrong type or out of its
            range; when called as `weight_map`; ValueError also for a dict with more than one mask (beside
            those of the two keys), a mask outside of a dict where one of the keys is given, and a sample
            without any Mask, such as one whose labels are a plain tensor.
        KeyError: `classes_key` or `ignore_key` is not beside the mask.
    """

    def __init__(
        self,
        weight_key: str = "weight",
        *,
        classes_key: str | None = None,
        ignore_key: str | None = None,
        separated_key: str = "separated",
        **settings,
    ) -> None:
        super().__init__()
        self.weight_key, self.classes_key, self.ignore_key = weight_key, classes_key, ignore_key
        self.separated_key = separated_key
        self.weights = weight_transform(settings)

    def forward(self, *inputs):
        sample = inputs if len(inputs) > 1 else inputs[0]
        if not _holds_mask(sample):
            raise ValueError(
                "there is no tv_tensors.Mask in the sample, whose weights these would be: wrap its labels, "
                f"as in tv_tensors.Mask(labels), where the dataset makes them; it holds {_contents(sample)}"
            )
        return self._transformed(sample)

    def _transformed(self, sample):
        if isinstance(sample, tv_tensors.Mask):
            if self.classes_key is not None or self.ignore_key is not None:
                raise ValueError("classes_key and ignore_key need a mask in a dict, with theirs beside it")
            return self._of_images(self.weights, sample)
        if isinstance(sample, dict):
            return self._with_weights(sample)
        if isinstance(sample, (list, tuple)):
            items = map(self._transformed, sample)
            return type(sample)(*items) if hasattr(sample, "_fields") else type(sample)(items)
        return sample

    def _with_weights(self, sample: dict) -> dict:
        others = {"classes": self.classes_key, "ignore": self.ignore_key}
        others = {name: key for name, key in others.items() if key is not None}
        held = [key for key, value in sample.items() if isinstance(value, tv_tensors.Mask)]
        masks = [key for key in held if key not in others.values()]
        if len(masks) > 1:
            raise ValueError(f"a sample must hold one mask, got {masks}")
        kept = {*held, *others.values()} if masks else {*held}
        result = {key: value if key in kept else self._transformed(value) for key, value in sample.items()}
        for key in masks:
            beside = {name: _mask_at(other, sample) for name, other in others.items()}
            result[self.weight_key] = self._of_images(self.weights, sample[key], **beside)
            if self.weights.gaps:
                beside.pop("ignore", None)
                separated = self._of_images(separate_touching, sample[key], **beside)
                result[self.separated_key] = tv_tensors.wrap(separated, like=sample[key])
        return result

    @staticmethod
    def _of_images(function, mask: tv_tensors.Mask, **beside: Tensor) -> Tensor:
        """`function` of each [H, W] of a mask and what is beside it."""
        labels = mask.as_subclass(Tensor)
        check_no_trailing_channel(labels.shape, "a mask", "[..., H, W]")
        if "ignore" in beside:
            beside["ignore"] = as_ignore(beside["ignore"])
        beside = {name: tensor.expand(labels.shape) for name, tensor in beside.items()}
        if labels.ndim > 3:
            labels = labels.flatten(0, -3)
            beside = {name: tensor.flatten(0, -3) for name, tensor in beside.items()}
        return function(labels, **beside).reshape(mask.shape)


def _mask_at(key: str, sample: dict) -> Tensor:
    if not isinstance(sample[key], tv_tensors.Mask):
        raise ValueError(
            f"{key!r} must be a tv_tensors.Mask, got {type(sample[key]).__name__}: transforms move no other"
        )
    return sample[key].as_subclass(Tensor)


def _holds_mask(sample) -> bool:
    if isinstance(sample, dict):
        return any(map(_holds_mask, sample.values()))
    if isinstance(sample, (list, tuple)):
        return any(map(_holds_mask, sample))
    return isinstance(sample, tv_tensors.Mask)


def _contents(sample) -> str:
    if isinstance(sample, dict):
        return "{" + ", ".join(f"{key!r}: {_contents(value)}" for key, value in sample.items()) + "}"
    if isinstance(sample, (list, tuple)):
        return "(" + ", ".join(map(_contents, sample)) + ")"
    return type(sample).__name__
