"""A user's code, for the type checker: `make lint` runs mypy on it, `test_typed_use` runs it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import fastlogconv
from fastlogconv import WeightSettings, WeightTransform, WeightTransformSingle


def use_everything() -> None:
    labels = torch.zeros(2, 12, 14, dtype=torch.int32)
    labels[:, 2:5, 3:6], labels[:, 8:10, 9:12] = 1, 2
    masks = (labels[0] == torch.tensor([1, 2])[:, None, None]).float()

    settings = WeightSettings.preset("deepflash2_offline", bws=5)
    assert_type(settings, WeightSettings)
    assert_type(settings.replace(ks=None).ks, "int | None")
    assert_type(settings.bws, float)

    assert_type(fastlogconv.weight_map(labels, settings=settings), Tensor)
    assert_type(fastlogconv.weight_map(labels, distance="euclidean", ignore_index=255, fbr=0.2), Tensor)
    assert_type(fastlogconv.region_weight_map(masks, border="farthest"), Tensor)
    assert_type(fastlogconv.weight_map(labels, preset="unet2015", bwf=5, ignore_index=[-1, 255]), Tensor)
    assert_type(fastlogconv.UNetWeights(ignore_index={255}).distance, Literal["logconv", "euclidean"])
    try:
        fastlogconv.weight_map(labels, preset="unet2018")  # type: ignore[arg-type]
        WeightTransform(border="nearest")  # type: ignore[arg-type]
    except ValueError:
        pass
    assert_type(fastlogconv.distance_to_weight(9 * masks, masks[0] > 0), Tensor)
    assert_type(fastlogconv.separable_conv2d(masks, 0.35, 9), Tensor)

    transform = WeightTransform(preset="deepflash2_logconv", ks=None)
    transform.bws = 4.5
    assert_type(transform.bws, float)
    modules: list[nn.Module] = [transform, WeightTransformSingle(12)]
    weights: Tensor = modules[0](labels)

    loss = fastlogconv.WeightedCrossEntropyLoss()
    logits = torch.zeros(2, 3, 12, 14, requires_grad=True)
    value: Tensor = loss(logits, labels.long(), weights)
    value.backward()
    assert_type(fastlogconv.weighted_cross_entropy(logits, labels, weights, reduction="none"), Tensor)
    assert_type(fastlogconv.weighted_dice_loss(logits, labels, weights, class_weight=torch.ones(3)), Tensor)
    both = fastlogconv.WeightedDiceCELoss("weight", class_weight=[1, 2, 0.5], lambda_ce=2)
    for scaled, scaled_weights in zip(
        fastlogconv.resize_nearest(labels, [logits, logits]),
        fastlogconv.resize_nearest(weights, [logits.shape[2:], (12, 14)]),
        strict=True,
    ):
        both(logits, scaled, scaled_weights)

    ridged, exact, density = fastlogconv.calculate_weights(instlabels=labels[0].numpy())
    assert_type(exact, np.ndarray[tuple[Any, ...], np.dtype[Any]])
    assert ridged.shape == density.shape
