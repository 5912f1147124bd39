"""Losses of the soft Dice coefficient where pixels have weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .checks import check_ignore_index
from .loss_checks import (
    ACTIVATIONS,
    NO_INDEX,
    NORMALIZATIONS,
    REDUCTIONS,
    Pixels,
    as_class_weight,
    check_choice,
    check_class_weight,
    check_indices,
    check_label_smoothing,
    check_several_classes,
    pixels,
    settings_of,
)
from .losses import cross_entropy_of
from .settings import check_factor

_ONE_CHANNEL = 'the softmax of one channel is 1 everywhere, pass activation="sigmoid"'


def weighted_dice_loss(
    logits: Tensor,
    target: Tensor,
    weights: Tensor,
    *,
    activation: str = "softmax",
    include_background: bool = True,
    squared_pred: bool = False,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    batch: bool = False,
    reduction: str = "mean",
    class_weight: Tensor | None = None,
    ignore_index: int = NO_INDEX,
) -> Tensor:
    """1 minus the soft Dice coefficient of each class, where each pixel counts as much as its weight.

    With w(p) the weight of pixel p, q(p) the probability of a class there and t(p) its target, all sums over
    the pixels that count (as for `weighted_cross_entropy`) of an image, or with `batch` of all images:

        1 - (2 sum of w(p) q(p) t(p) + smooth_nr) / (sum of w(p) (q(p) + t(p)) + smooth_dr)

    With `squared_pred` the denominator holds the squares of q(p) and t(p). A factor common to all weights
    changes nothing but what the two smoothing terms do. With weights of 1 it is MONAI's `DiceLoss`.

    A class that is absent from the target counts, and presses its probabilities to 0. Where a class has
    neither target nor probability in any pixel that counts, its loss is 0, with a gradient of 0.

    Args:
        logits: scores [B, C, ...], as for `weighted_cross_entropy`; probabilities for `activation="none"`.
        target: as for `weighted_cross_entropy`. C = 1: 1 is foreground.
        weights: of pixels, as for `weighted_cross_entropy`.
        activation: what makes probabilities of logits: "softmax", "sigmoid" (C = 1, or classes that may
            overlap), "none".
        include_background: whether channel 0 counts as a class; where there is but one it always does.
        squared_pred, smooth_nr, smooth_dr, batch: see above.
        reduction: "mean" over images (one with `batch`) and classes, "sum", or "none".
        class_weight: >= 0, [C], floating point: factors of the classes' losses, before the reduction.
        ignore_index: as for `weighted_cross_entropy`.

    Returns:
        A number, or for `reduction="none"` [B, classes], with `batch` [classes]; dtype and derivatives as for
        `weighted_cross_entropy`.

    Raises:
        TypeError, ValueError, IndexError: as `weighted_cross_entropy`, but that one class will do for
            "sigmoid" and "none".

    Source: soft Dice with squares is that of Milletari et al., "V-Net: fully convolutional neural networks
    for volumetric medical image segmentation", 2016. Pixel weights stand in all of its sums as they do in
    the weighted IoU of Wei et al., "F3Net: fusion, feedback and focus for salient object detection", 2020.
    """
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("reduction", reduction, REDUCTIONS)
    smooth = check_factor("smooth_nr", smooth_nr), check_factor("smooth_dr", smooth_dr)
    ignore_index = check_ignore_index(ignore_index)
    if activation == "softmax":
        check_several_classes(logits, _ONE_CHANNEL)
    checked = pixels(logits, target, weights, ignore_index)
    check_class_weight(class_weight, logits.shape[1], logits.device)
    return _dice_loss(
        checked, activation, include_background, squared_pred, smooth, batch, reduction, class_weight
    )


def _dice_loss(
    checked: Pixels,
    activation: str,
    include_background: bool,
    squared_pred: bool,
    smooth: tuple[float, float],
    batch: bool,
    reduction: str,
    class_weight: Tensor | None,
) -> Tensor:
    logits, target, weights, _ = checked
    channels = logits.shape[1]
    if activation == "softmax":
        probability = logits.softmax(1)
    else:
        probability = logits.sigmoid() if activation == "sigmoid" else logits
    if not target.is_floating_point():
        target = _one_hot(target, channels, logits.dtype)
    if not include_background and channels > 1:
        probability, target = probability[:, 1:], target[:, 1:]
        class_weight = None if class_weight is None else class_weight[1:]
    weights = weights[:, None]
    axes = (0, 2) if batch else (2,)

    def total(values: Tensor) -> Tensor:
        return (weights * values)[..., None].flatten(2).sum(axes)  # [B, C], of a batch [C]

    overlap = total(probability * target)
    both = total(probability**2 + target**2 if squared_pred else probability + target)
    nothing = both == 0
    dice = (2 * overlap + smooth[0]) / torch.where(nothing, 1, both + smooth[1])
    loss = torch.where(nothing, 0, 1 - dice)
    if class_weight is not None:
        loss = loss * class_weight.to(loss.dtype)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / max(loss.numel(), 1)


def _one_hot(target: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """[B, ...] -> [B, C, ...]. A class that there is not fails on every device, unlike in a comparison."""
    classes = max(channels, 2)  # of one channel: background, too
    check_indices(target, classes)
    zeros = torch.zeros((target.shape[0], classes, *target.shape[1:]), dtype=dtype, device=target.device)
    return zeros.scatter(1, target[:, None], 1)[:, classes - channels :]


class WeightedDiceLoss(nn.Module):
    """`weighted_dice_loss` as a module.

    Args:
        settings: those of `weighted_dice_loss`, by keyword; `class_weight`, a buffer, may be C numbers, too.

    Shape:
        logits [B, C, ...], target [B, ...] or [B, 1, ...] or, soft, [B, C, ...], weights [B, ...] or
        [B, 1, ...] -> a number, or [B, classes] for `reduction="none"`, with `batch` [classes].

    Raises:
        TypeError, ValueError: at construction for a setting of the wrong type or another value; when called,
            as for `weighted_dice_loss`.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        *,
        activation: str = "softmax",
        include_background: bool = True,
        squared_pred: bool = False,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        reduction: str = "mean",
        class_weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = NO_INDEX,
    ) -> None:
        super().__init__()
        self.activation = check_choice("activation", activation, ACTIVATIONS)
        self.include_background, self.squared_pred, self.batch = include_background, squared_pred, batch
        self.smooth_nr = check_factor("smooth_nr", smooth_nr)
        self.smooth_dr = check_factor("smooth_dr", smooth_dr)
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)
        self.register_buffer("class_weight", as_class_weight(class_weight))
        self.ignore_index = check_ignore_index(ignore_index)

    def forward(self, logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        return weighted_dice_loss(
            logits,
            target,
            weights,
            activation=self.activation,
            include_background=self.include_background,
            squared_pred=self.squared_pred,
            smooth_nr=self.smooth_nr,
            smooth_dr=self.smooth_dr,
            batch=self.batch,
            reduction=self.reduction,
            class_weight=self.class_weight,
            ignore_index=self.ignore_index,
        )

    def extra_repr(self) -> str:
        return settings_of(
            self,
            *("activation", "include_background", "squared_pred", "smooth_nr", "smooth_dr", "batch"),
            *("reduction", "ignore_index"),
        )


class WeightedDiceCELoss(nn.Module):
    """`lambda_dice` times `weighted_dice_loss` plus `lambda_ce` times `weighted_cross_entropy`.

    Both have the pixel weights and count the same pixels. With weights of 1 it is MONAI's
    `DiceCELoss(to_onehot_y=True, softmax=True)`.

    C = 1 is a binary problem, sigmoid and binary cross entropy: the same as the two channels 0 and the logits
    with `include_background=False`.

    Args:
        normalize, label_smoothing: of the cross entropy.
        include_background, squared_pred, smooth_nr, smooth_dr, batch: of the Dice coefficient.
        lambda_dice, lambda_ce: factors >= 0.
        class_weight: in both; for C = 1 of background and foreground, [2]. A buffer.
        ignore_index: the target of pixels that do not count.

    Shape:
        logits [B, C, ...], target [B, ...] or [B, 1, ...] or, soft, [B, C, ...], weights [B, ...] or
        [B, 1, ...] -> a number.

    Raises:
        TypeError, ValueError: at construction for a setting of the wrong type or another value; when called,
            as for the two losses.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        normalize: str = "mean",
        *,
        include_background: bool = True,
        squared_pred: bool = False,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        class_weight: Tensor | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = NO_INDEX,
    ) -> None:
        super().__init__()
        self.normalize = check_choice("normalize", normalize, NORMALIZATIONS)
        self.include_background, self.squared_pred, self.batch = include_background, squared_pred, batch
        self.smooth_nr = check_factor("smooth_nr", smooth_nr)
        self.smooth_dr = check_factor("smooth_dr", smooth_dr)
        self.lambda_dice = check_factor("lambda_dice", lambda_dice)
        self.lambda_ce = check_factor("lambda_ce", lambda_ce)
        self.register_buffer("class_weight", as_class_weight(class_weight))
        self.label_smoothing = check_label_smoothing(label_smoothing)
        self.ignore_index = check_ignore_index(ignore_index)

    def forward(self, logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        checked = pixels(logits, target, weights, self.ignore_index)
        background = self.include_background
        if logits.shape[1] == 1:
            checked, background = _two_channels(checked), False
        check_class_weight(self.class_weight, checked.logits.shape[1], logits.device)
        smooth = self.smooth_nr, self.smooth_dr
        dice = _dice_loss(
            *(checked, "softmax", background, self.squared_pred, smooth, self.batch, "mean"),
            self.class_weight,
        )
        cross_entropy = cross_entropy_of(
            *(checked, self.normalize, "mean", self.class_weight, self.label_smoothing, self.ignore_index)
        )
        return self.lambda_dice * dice + self.lambda_ce * cross_entropy

    def extra_repr(self) -> str:
        return settings_of(
            self,
            *("normalize", "include_background", "squared_pred", "smooth_nr", "smooth_dr", "batch"),
            *("lambda_dice", "lambda_ce", "label_smoothing", "ignore_index"),
        )


def _two_channels(checked: Pixels) -> Pixels:
    """Background and foreground of a single channel: the softmax of (0, x) is its sigmoid."""
    logits, target, weights, counts = checked
    if target.is_floating_point():
        target = torch.cat([1 - target, target], dim=1)
    return Pixels(torch.cat([torch.zeros_like(logits), logits], dim=1), target, weights, counts)
