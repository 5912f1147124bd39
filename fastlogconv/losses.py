"""The loss that the weights are for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_ignore_index, nested_error

NORMALIZATIONS = ("mean", "weight")

_INDICES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def weighted_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor, normalize: str = "mean", *, ignore_index: int = -100
) -> Tensor:
    """The cross entropy of every pixel times its weight, over the pixels that count.

    A pixel counts where its weight is not 0 and its target is not `ignore_index`. With w(p) the weight and
    c(p) the cross entropy of pixel p, n the number of pixels that count, all sums over these:

        normalize="mean":    sum of w(p) c(p) / n            heavier weights, heavier loss
        normalize="weight":  sum of w(p) c(p) / sum of w(p)  a mean of the cross entropy

    Where a pixel does not count, its logits do not matter, not even if they are infinite or NaN. The loss is
    0, with a gradient of 0, where no pixel counts. Half types are computed and summed in float32, under
    autocast, too.

    Args:
        logits: unnormalised scores [B, C, H, W] of C >= 2 classes, floating point.
        target: class of each pixel [B, H, W], integers in 0..C - 1, or `ignore_index`.
        weights: >= 0, [B, H, W], floating point, such as `weight_map` returns.
        normalize: "mean" or "weight".
        ignore_index: the target of pixels that do not count; it may lie outside of 0..C - 1.

    Returns:
        A number: float32, or float64 for logits of float64. Differentiable in `logits` and `weights`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: shapes that do not fit, fewer than two classes, another `normalize`, an `ignore_index`
            beyond 64 bits; on the CPU, and not in compiled code, a negative weight.
        IndexError: a target outside of 0..C - 1 (on CUDA an assertion of the device, as of F.cross_entropy).

    Source: the pixel-weighted cross entropy of Ronneberger et al., "U-Net: convolutional networks for
    biomedical image segmentation", 2015.
    """
    _check_normalize(normalize)
    ignore_index = check_ignore_index(ignore_index)
    _check_tensors(logits, target, weights)
    _check_no_negative(weights)
    compute = torch.promote_types(logits.dtype, torch.float32)
    target = target.to(torch.int64)
    counts = (weights != 0) & (target != ignore_index)
    target = target.masked_fill(~counts, ignore_index)
    # Else 0 times NaN would come back in the gradient.
    logits = logits.to(compute).masked_fill(~counts[:, None], 0)
    cross_entropy = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    weights = weights.to(compute).where(counts, 0)
    total = counts.sum() if normalize == "mean" else weights.sum()
    return (weights * cross_entropy).sum() / torch.where(total > 0, total, 1)


class WeightedCrossEntropyLoss(nn.Module):
    """`weighted_cross_entropy` as a module.

    Args:
        normalize: "mean" or "weight".
        ignore_index: the target of pixels that do not count.

    Shape:
        logits [B, C, H, W], target [B, H, W], weights [B, H, W] -> a number.

    Raises:
        TypeError, ValueError: at construction for a setting of the wrong type or another value; when called,
            as for `weighted_cross_entropy`.
    """

    def __init__(self, normalize: str = "mean", *, ignore_index: int = -100) -> None:
        super().__init__()
        _check_normalize(normalize)
        self.normalize = normalize
        self.ignore_index = check_ignore_index(ignore_index)

    def forward(self, logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        return weighted_cross_entropy(logits, target, weights, self.normalize, ignore_index=self.ignore_index)

    def extra_repr(self) -> str:
        return f"normalize={self.normalize!r}, ignore_index={self.ignore_index}"


def _check_normalize(normalize) -> None:
    if normalize not in NORMALIZATIONS:
        allowed = ", ".join(map(repr, NORMALIZATIONS))
        raise ValueError(f"normalize must be one of {allowed}, got {normalize!r}")


def _check_no_negative(weights: Tensor) -> None:
    """Values are looked at on the CPU only, and not in compiled code: nothing waits for a GPU."""
    if weights.device.type != "cpu" or torch.compiler.is_compiling():
        return
    negative = weights.detach() < 0
    try:
        found = bool(negative.any())
    except RuntimeError:  # under vmap, where values cannot be looked at either
        return
    if found:
        raise ValueError(f"weights must be >= 0, got {weights[negative][0].item():g}")


def _check_tensors(logits, target, weights) -> None:
    for name, tensor, shape in (
        ("logits", logits, "[B, C, H, W]"),
        ("target", target, "[B, H, W]"),
        ("weights", weights, "[B, H, W]"),
    ):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor {shape}, got {type(tensor).__name__}")
        if tensor.is_nested:
            raise nested_error(name)
        if name == "target" and tensor.dtype not in _INDICES:
            raise TypeError(f"target must hold integers (class indices), got {tensor.dtype}")
        if name != "target" and not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {tensor.dtype}")
        if tensor.dim() != shape.count(",") + 1:
            raise ValueError(f"{name} must have the shape {shape}, got {tuple(tensor.shape)}")
    if logits.shape[1] < 2:
        raise ValueError(
            f"logits must have a channel for each of at least 2 classes, got C = {logits.shape[1]}: with one "
            "class the cross entropy is 0 everywhere. Give background a channel, too, or take "
            "torch.nn.functional.binary_cross_entropy_with_logits with these weights"
        )
    expected = (logits.shape[0], *logits.shape[2:])
    for name, tensor in (("target", target), ("weights", weights)):
        if tensor.shape != expected:
            raise ValueError(
                f"{name} must have the shape {tuple(expected)} that goes with logits "
                f"{tuple(logits.shape)}, got {tuple(tensor.shape)}"
            )
