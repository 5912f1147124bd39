"""The loss that the weights are for; those with a Dice coefficient are in dice.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_ignore_index
from .loss_checks import (
    NO_INDEX,
    NORMALIZATIONS,
    REDUCTIONS,
    Pixels,
    as_class_weight,
    check_choice,
    check_class_weight,
    check_label_smoothing,
    check_several_classes,
    pixels,
    settings_of,
)

_ONE_CLASS = (
    "with one class the cross entropy is 0 everywhere. For a binary problem give background a channel, too, "
    "logits = torch.cat([torch.zeros_like(logits), logits], dim=1), or take "
    "weights * torch.nn.functional.binary_cross_entropy_with_logits(logits, target.float(), "
    'reduction="none"), all of them [B, 1, ...]'
)


def weighted_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weights: Tensor,
    normalize: str = "mean",
    *,
    reduction: str = "mean",
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = NO_INDEX,
) -> Tensor:
    """The cross entropy of every pixel times its weight, over the pixels that count.

    A pixel counts where its weight is not 0 and its target is not `ignore_index`. With w(p) the weight and
    c(p) the cross entropy of pixel p, as `torch.nn.functional.cross_entropy` defines it with class weights
    and label smoothing, v(p) the class weight of its target (1 without class weights, and for a soft target),
    all sums over the pixels that count:

        normalize="mean":    sum of w(p) c(p) / sum of v(p)       heavier weights, heavier loss
        normalize="weight":  sum of w(p) c(p) / sum of w(p) v(p)  a mean of the cross entropy

    Without class weights the sum of v(p) is the number of pixels that count. With weights of 1 both are what
    PyTorch returns. Where a pixel does not count, its logits do not matter, not even if they are infinite or
    NaN. The loss is 0, with a gradient of 0, where no pixel counts. Half types are computed and summed in
    float32, under autocast, too.

    Args:
        logits: unnormalised scores [B, C, ...] of C >= 2 classes, floating point; any number of spatial axes.
        target: class of each pixel [B, ...] or [B, 1, ...], integers in 0..C - 1, or `ignore_index`; or soft:
            probabilities of the classes [B, C, ...], floating point.
        weights: of pixels, >= 0, [B, ...] or [B, 1, ...], floating point, such as `weight_map` returns.
            A NaN among them makes the loss NaN, as one among the logits of pixels that count does.
        normalize: "mean" or "weight".
        reduction: "mean"; "sum": of w(p) c(p); "none": w(p) c(p) of each pixel, 0 where it does not count.
            `normalize` matters for "mean" alone.
        class_weight: of classes, >= 0, [C], floating point: PyTorch's `weight`.
        label_smoothing: from 0 to 1, the share of a target that is spread over all classes.
        ignore_index: the target of pixels that do not count; it may lie outside of 0..C - 1. Not for a soft
            target: there a weight of 0 leaves a pixel out.

    Returns:
        A number, or for `reduction="none"` [B, ...]: float32, or float64 for logits of float64.
        Differentiable in `logits`, `weights` and a soft `target`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: shapes or devices that do not fit, fewer than two classes, another `normalize` or
            `reduction`, an `ignore_index` beyond 64 bits or beside a soft target; on the CPU, and not in
            compiled code, a negative weight.
        IndexError: a target outside of 0..C - 1 (on CUDA an assertion of the device, as of F.cross_entropy).

    Source: the pixel-weighted cross entropy of Ronneberger et al., "U-Net: convolutional networks for
    biomedical image segmentation", 2015.
    """
    check_choice("normalize", normalize, NORMALIZATIONS)
    check_choice("reduction", reduction, REDUCTIONS)
    label_smoothing = check_label_smoothing(label_smoothing)
    ignore_index = check_ignore_index(ignore_index)
    check_several_classes(logits, _ONE_CLASS)
    checked = pixels(logits, target, weights, ignore_index)
    check_class_weight(class_weight, logits.shape[1], logits.device)
    return cross_entropy_of(checked, normalize, reduction, class_weight, label_smoothing, ignore_index)


def cross_entropy_of(
    checked: Pixels,
    normalize: str,
    reduction: str,
    class_weight: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
) -> Tensor:
    """`weighted_cross_entropy` behind its checks."""
    logits, target, weights, counts = checked
    if class_weight is not None:
        class_weight = class_weight.to(logits.dtype)
    weighted = weights * F.cross_entropy(
        logits,
        target,
        class_weight,
        ignore_index=ignore_index,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    share = counts if normalize == "mean" else weights
    if class_weight is not None and not target.is_floating_point():
        share = share * class_weight[target]
    total = share.sum()
    return weighted.sum() / torch.where(total > 0, total, 1)


class WeightedCrossEntropyLoss(nn.Module):
    """`weighted_cross_entropy` as a module.

    Args:
        normalize: "mean" or "weight".
        reduction: "mean", "sum" or "none".
        class_weight: of classes, C numbers >= 0 or a tensor [C]; a buffer, as in `torch.nn.CrossEntropyLoss`.
        label_smoothing: from 0 to 1.
        ignore_index: the target of pixels that do not count.

    Shape:
        logits [B, C, ...], target [B, ...] or [B, 1, ...] or, soft, [B, C, ...], weights [B, ...] or
        [B, 1, ...] -> a number, or [B, ...] for `reduction="none"`.

    Raises:
        TypeError, ValueError: at construction for a setting of the wrong type or another value; when called,
            as for `weighted_cross_entropy`.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        normalize: str = "mean",
        *,
        reduction: str = "mean",
        class_weight: Tensor | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = NO_INDEX,
    ) -> None:
        super().__init__()
        self.normalize = check_choice("normalize", normalize, NORMALIZATIONS)
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)
        self.register_buffer("class_weight", as_class_weight(class_weight))
        self.label_smoothing = check_label_smoothing(label_smoothing)
        self.ignore_index = check_ignore_index(ignore_index)

    def forward(self, logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        return weighted_cross_entropy(
            logits,
            target,
            weights,
            self.normalize,
            reduction=self.reduction,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
        )

    def extra_repr(self) -> str:
        return settings_of(self, "normalize", "reduction", "label_smoothing", "ignore_index")
