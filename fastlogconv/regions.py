"""Region masks: image by image, and class by class."""

from __future__ import annotations

import torch
from torch import Tensor

from . import ops
from .backends import reference
from .settings import NAMES


def weights(masks: Tensor, ignore: Tensor | None, values: tuple, spatial_dims: int, backend: str) -> Tensor:
    """`region_weight_map` of arguments that were checked, without classes."""
    if masks.dim() == spatial_dims + 1:
        return ops.region_weight_map(masks, ignore, *values, backend)
    ignored = [None] * len(masks) if ignore is None else ignore
    images = [
        ops.region_weight_map(image, here, *values, backend)
        for image, here in zip(masks, ignored, strict=True)
    ]
    dtype = reference.result_dtype(masks)
    return torch.stack(images) if images else masks.new_empty((0, *masks.shape[2:]), dtype=dtype)


def weights_by_class(
    masks: Tensor,
    classes: list[int],
    ignore: Tensor | None,
    values: tuple,
    spatial_dims: int,
    backend: str,
) -> Tensor:
    """The terms one by one, from weights in which the others are 0: fd of all, then each class's border."""
    dtype = reference.result_dtype(masks)
    if masks.is_floating_point():  # the terms are added in float32 or better, as everywhere
        masks = masks.to(torch.promote_types(dtype, torch.float32))
    batched, axis = masks.dim() > spatial_dims + 1, -spatial_dims - 1
    counted = [i for i, of_class in enumerate(classes) if of_class > 0]
    settings = dict(zip(NAMES, values, strict=True))

    def term(regions: list[int], **changes) -> Tensor:
        chosen = masks if len(regions) == len(classes) else masks[:, regions] if batched else masks[regions]
        changed = tuple({**settings, **changes}.values())
        return weights(chosen, ignore, changed, spatial_dims, backend)

    result = term(counted, bwf=0.0)  # fbr + (1 - fbr) fd; 1 on the foreground, 0 on what is ignored
    background = ~((masks[:, counted] if batched else masks[counted]) > 0).any(axis)
    if ignore is not None:
        background &= ~ignore
    for of_class in sorted({classes[i] for i in counted}):
        border = term([i for i in counted if classes[i] == of_class], fbr=1.0) - 1  # 1 + bwf border
        result += torch.where(background, border, 0)
    return result.to(dtype)
