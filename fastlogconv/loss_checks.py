"""What the losses take, with any number of spatial axes: errors that name the argument and its value."""

from __future__ import annotations

import numbers
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .checks import nested_error, values_are_looked_at
from .settings import choice_error

NORMALIZATIONS = ("mean", "weight")
REDUCTIONS = ("mean", "sum", "none")
ACTIVATIONS = ("softmax", "sigmoid", "none")
NO_INDEX = -100  # what torch.nn.functional.cross_entropy ignores unless told otherwise

_INDICES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Pixels(NamedTuple):
    """What a loss sums over. Where a pixel does not count, everything is 0."""

    logits: Tensor  # [B, C, ...], float32 or float64
    target: Tensor  # [B, ...] int64, or soft: as the logits
    weights: Tensor  # [B, ...], dtype of the logits
    counts: Tensor  # [B, ...] bool


def pixels(logits: Tensor, target: Tensor, weights: Tensor, ignore_index: int) -> Pixels:
    """The tensors of a loss, checked, without an axis of one channel, and with 0 where nothing counts.

    Raises:
        TypeError, ValueError: as the losses say.
    """
    soft = _check_tensors(logits, target, weights)
    if soft and ignore_index != NO_INDEX:
        raise ValueError(
            f"ignore_index={ignore_index} means nothing for a soft target, {target.dtype}: give pixels that "
            "do not count a weight of 0, and pass class indices as target.long()"
        )
    if weights.dim() == logits.dim():
        weights = weights.squeeze(1)
    check_no_negative("weights", weights)
    compute = torch.promote_types(logits.dtype, torch.float32)
    counts = weights != 0
    if soft:
        target = target.to(compute).masked_fill(~counts[:, None], 0)
    else:
        target = (target.squeeze(1) if target.dim() == logits.dim() else target).to(torch.int64)
        counts = counts & (target != ignore_index)
        target = target.masked_fill(~counts, 0)
    # Else 0 times NaN would come back in the gradient.
    logits = logits.to(compute).masked_fill(~counts[:, None], 0)
    return Pixels(logits, target, weights.to(compute).where(counts, 0), counts)


def _check_tensors(logits, target, weights) -> bool:
    """Whether the target is soft."""
    for name, tensor, wanted in (
        ("logits", logits, "[B, C, ...]"),
        ("target", target, "[B, ...]"),
        ("weights", weights, "[B, ...]"),
    ):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor {wanted}, got {type(tensor).__name__}")
        if tensor.is_nested:
            raise nested_error(name)
        if name != "target" and not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {tensor.dtype}")
    if logits.dim() < 2:
        raise ValueError(f"logits must have the shape [B, C, ...], got {tuple(logits.shape)}")
    if weights.device != logits.device or target.device != logits.device:
        raise ValueError(
            f"target and weights must be on the device of logits, {logits.device}, got {target.device} and "
            f"{weights.device}"
        )
    b, _, *spatial = logits.shape
    shape, channel = (b, *spatial), (b, 1, *spatial)
    soft = target.is_floating_point() and target.shape == logits.shape
    if not soft and target.dtype not in _INDICES:
        raise TypeError(
            f"target must hold integers (class indices), or probabilities of the shape {tuple(logits.shape)} "
            f"of the logits, got {target.dtype} {tuple(target.shape)}: pass target.long()"
        )
    for name, tensor in (("weights", weights),) if soft else (("target", target), ("weights", weights)):
        if tensor.shape != shape and tensor.shape != channel:  # `in` fails where sizes are symbols
            hint = ""
            if name == "target" and tensor.shape == logits.shape:
                hint = ": masks of classes are a soft target, pass target.float()"
            raise ValueError(
                f"{name} must have the shape {shape} or {channel} that go with logits "
                f"{tuple(logits.shape)}, got {tuple(tensor.shape)}{hint}"
            )
    return soft


def check_several_classes(logits, one_channel: str) -> None:
    """`one_channel`: what to do with a single one."""
    if not isinstance(logits, Tensor) or logits.is_nested or logits.dim() < 2:
        return  # `pixels` says so
    if logits.shape[1] < 2:
        raise ValueError(
            f"logits must have a channel for each of at least 2 classes, got C = {logits.shape[1]}: "
            f"{one_channel}"
        )


def check_class_weight(class_weight, classes: int, device: torch.device) -> None:
    if class_weight is None:
        return
    if not isinstance(class_weight, Tensor) or not class_weight.is_floating_point():
        kind = class_weight.dtype if isinstance(class_weight, Tensor) else type(class_weight).__name__
        raise TypeError(f"class_weight must be a floating point torch.Tensor [C] or None, got {kind}")
    if class_weight.shape != (classes,) or class_weight.device != device:
        raise ValueError(
            f"class_weight must have the shape ({classes},), one for each class, and be on {device}, got "
            f"{tuple(class_weight.shape)} on {class_weight.device}"
        )
    check_no_negative("class_weight", class_weight)


def check_no_negative(name: str, weights: Tensor) -> None:
    if not values_are_looked_at(weights):
        return
    negative = weights.detach() < 0
    try:
        found = bool(negative.any())
    except RuntimeError:  # under vmap, where values cannot be looked at either
        return
    if found:
        raise ValueError(f"{name} must be >= 0, got {weights[negative][0].item():g}")


def check_indices(target: Tensor, classes: int) -> None:
    """Raises IndexError for a class that there is not."""
    if not values_are_looked_at(target) or target.numel() == 0:
        return
    try:
        lowest, highest = (extreme.item() for extreme in target.aminmax())
    except RuntimeError:  # under vmap
        return
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        raise IndexError(f"target must be a class in 0..{classes - 1}, or ignore_index, got {wrong}")


def check_choice(name: str, value, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise choice_error(name, value, allowed)
    return value


def check_label_smoothing(value: float) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"label_smoothing must be a number, got {value!r} of type {type(value).__name__}")
    if not 0 <= value <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, got {value}")
    return float(value)


def as_class_weight(value) -> Tensor | None:
    """A module's `class_weight`: a tensor, or numbers.

    Raises:
        TypeError, ValueError: it is no sequence of numbers >= 0.
    """
    if value is None:
        return None
    try:
        weight = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"class_weight must be numbers, one for each class, got {value!r}") from None
    weight = weight if weight.is_floating_point() else weight.float()
    if weight.dim() != 1:
        raise ValueError(f"class_weight must have the shape [C], got {tuple(weight.shape)}")
    check_no_negative("class_weight", weight)
    return weight


def settings_of(module: nn.Module, *names: str) -> str:
    """Settings as a module's `extra_repr` shows them."""
    return ", ".join(f"{name}={getattr(module, name)!r}" for name in names)
