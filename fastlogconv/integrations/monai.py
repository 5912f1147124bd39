"""MONAI: `WeightMap` for arrays and `WeightMapd` for dictionaries, channel first."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping

import numpy as np
from torch import Tensor

from ..arrays import check_no_trailing_channel
from ..transforms import WeightTransform
from . import as_ignore, missing, separated_like, weight_transform, weights_like

try:
    from monai.config import KeysCollection
    from monai.data import MetaTensor
    from monai.transforms import MapTransform, Transform
    from monai.utils import TransformBackends, convert_to_dst_type, ensure_tuple_rep
except ImportError as error:
    raise missing("monai", "monai") from error


class WeightMap(Transform):
    """Instance labels to loss weights, each channel by itself.

    Args:
        settings: those of `fastlogconv.WeightTransform`, by keyword, with the defaults of
            `fastlogconv.weight_map`. `spacing="affine"` takes the lengths of a pixel from the affine of the
            labels, a MetaTensor, when called.

    Shape:
        labels [C, H, W], with `spatial_dims=3` [C, H, W, D], a tensor, MetaTensor or NumPy array of any dtype
        that `weight_map` takes -> weights of the same shape and type and on the same device, metadata
        included; float32 for integer labels, else the labels' dtype. When called, it takes `classes` of their
        shape and `ignore` (of their shape, or with C = 1; where it is > 0), too.

    Raises:
        TypeError, ValueError: at construction for a setting that is unknown, of the wrong type or out of its
            range; when called for labels of another rank, labels without an affine where that gives the
            spacing, and as `weight_map`.
    """

    backend = (TransformBackends.TORCH,)

    def __init__(self, **settings) -> None:
        self.from_affine = isinstance(settings.get("spacing"), str) and settings["spacing"] == "affine"
        if self.from_affine:
            settings = {name: value for name, value in settings.items() if name != "spacing"}
        self.weights = weight_transform(settings)

    def __call__(
        self,
        labels: Tensor | np.ndarray,
        classes: Tensor | np.ndarray | None = None,
        ignore: Tensor | np.ndarray | None = None,
    ) -> Tensor | np.ndarray:
        plain, beside = self._plain(labels, classes, ignore)
        transform = self._with_spacing_of(labels) if self.from_affine else self.weights
        weights = weights_like(transform, plain, **beside)
        return convert_to_dst_type(weights, dst=labels, dtype=weights.dtype)[0]

    def separated(
        self, labels: Tensor | np.ndarray, classes: Tensor | np.ndarray | None = None
    ) -> Tensor | np.ndarray:
        """The labels with gaps where instances touch, as `fastlogconv.separate_touching` makes them."""
        plain, beside = self._plain(labels, classes)
        separated = separated_like(plain, **beside, spatial_dims=self.weights.spatial_dims)
        return convert_to_dst_type(separated, dst=labels, dtype=labels.dtype)[0]

    def _with_spacing_of(self, labels: Tensor | np.ndarray) -> WeightTransform:
        if not isinstance(labels, MetaTensor):
            raise ValueError(
                f"spacing='affine' needs labels with an affine, a MetaTensor, got {type(labels).__name__}"
            )
        dims = self.weights.spatial_dims
        lengths = [float(f"{length:.6g}") for length in labels.pixdim.tolist()[:dims]]  # 1 and not 0.99999994
        transform = copy.copy(self.weights)
        transform.settings = self.weights.settings.replace(spacing=tuple(lengths))
        return transform

    def _plain(self, labels, classes=None, ignore=None) -> tuple[Tensor | np.ndarray, dict]:
        """The labels without metadata, and what is beside them as they are."""
        shape = "[C, H, W]" if self.weights.spatial_dims == 2 else "[C, H, W, D]"
        if labels.ndim != self.weights.spatial_dims + 1:
            raise ValueError(f"labels must have the shape {shape}, got {tuple(labels.shape)}")
        if self.weights.spatial_dims == 2:
            check_no_trailing_channel(labels.shape, "labels", shape)
        plain = _plain(labels)
        beside = {}
        if classes is not None:
            beside["classes"] = convert_to_dst_type(_plain(classes), dst=plain, dtype=classes.dtype)[0]
        if ignore is not None:
            ignore = as_ignore(_plain(ignore))
            beside["ignore"] = convert_to_dst_type(ignore, dst=plain, dtype=ignore.dtype)[0]
        return plain, beside


def _plain(array: Tensor | np.ndarray) -> Tensor | np.ndarray:
    return array.as_tensor() if isinstance(array, MetaTensor) else array


class WeightMapd(MapTransform):
    """`WeightMap` for dictionaries: adds the weights of the labels, which stay as they are.

    Args:
        keys: where the labels are.
        weight_key: where the weights go, one for each of `keys`.
        allow_missing_keys: True passes over a key that is not there.
        classes_key: where the class labels are, one for each of `keys` or one for all; None: one class.
        ignore_key: where the masks of pixels to ignore are, likewise; None: none is ignored.
        separated_key: where, with `gaps=True`, the labels with gaps go, one for each of `keys`.
        settings: as for `WeightMap`.

    Raises:
        TypeError, ValueError: as `WeightMap`; ValueError also if there is not one `weight_key` (with
            `gaps=True`: and one `separated_key`) for each of `keys`, or one twice.
        KeyError: a key is not there.
    """

    backend = WeightMap.backend

    def __init__(
        self,
        keys: KeysCollection,
        weight_key: KeysCollection = "weight",
        allow_missing_keys: bool = False,
        *,
        classes_key: KeysCollection | None = None,
        ignore_key: KeysCollection | None = None,
        separated_key: KeysCollection = "separated",
        **settings,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.weights = WeightMap(**settings)
        self.weight_keys = self._one_each("weight_key", weight_key)
        self.separated_keys: tuple = (None,) * len(self.keys)
        if self.weights.weights.gaps:
            self.separated_keys = self._one_each("separated_key", separated_key)
        self.classes_keys = ensure_tuple_rep(classes_key, len(self.keys))
        self.ignore_keys = ensure_tuple_rep(ignore_key, len(self.keys))

    def _one_each(self, name: str, given: KeysCollection) -> tuple:
        keys = ensure_tuple_rep(given, len(self.keys))
        if len(set(keys)) < len(self.keys):
            raise ValueError(f"{name} must hold a name for each of {self.keys}, got {given!r}")
        return keys

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        result = dict(data)
        beside = self.classes_keys, self.ignore_keys
        keys = self.weight_keys, self.separated_keys, *beside
        for key, weight_key, separated_key, *others in self.key_iterator(result, *keys):
            classes, ignore = (None if other is None else data[other] for other in others)
            result[weight_key] = self.weights(data[key], classes, ignore)
            if separated_key is not None:
                result[separated_key] = self.weights.separated(data[key], classes)
        return result


WeightMapD = WeightMapDict = WeightMapd
