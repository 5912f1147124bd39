"""Weights of the terms that kernels do not know, put together from what they do compute.

Kernels compute 1 on the foreground and fbr + (1 - fbr) fall + bwf border elsewhere. With fbr = 1 that is
1 + bwf border: so the border term can be had alone, and, with a foreground that is nowhere, on the
foreground, too. Adding 1 and taking it away again moves a weight by its last bit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import positive
from ..numerics import nearest_numbers
from ..settings import WeightSettings
from .c_interface import nearest_params_for
from .reference import result_dtype

_LARGEST_BINS = 2**16  # of a histogram of classes: more are sorted


def weight_map(
    kernels: Callable[..., Tensor],
    labels: Tensor,
    classes: Tensor | None,
    ignore: Tensor | None,
    foreground: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    """Weights [B, ...] of `settings.composed`, by what a backend computes itself. See the reference."""
    dtype = result_dtype(labels)
    exact = labels.to(torch.promote_types(dtype, torch.float32)) if labels.is_floating_point() else labels
    inside = foreground_of(labels, classes, ignore, foreground)
    plain = settings.replace(balance="none", border_everywhere=False)
    if settings.falloff == "none":
        plain = plain.replace(falloff="sum")
    where = torch.zeros_like(inside) if settings.border_everywhere else foreground
    border = kernels(exact, classes, ignore, where, plain.replace(fbr=1.0, falloff="sum")) - 1
    if settings.falloff == "none":
        if settings.balance == "frequency":
            weights = frequency_balance(inside, classes, ignore).to(border.dtype)
        else:
            weights = torch.full_like(border, settings.fbr).masked_fill_(inside, 1)
        weights += border if settings.border_everywhere else border.masked_fill_(inside, 0)
    else:
        weights = kernels(exact, classes, ignore, foreground, plain)
        weights = torch.where(inside, 1 + border, weights)
    if ignore is not None:
        weights.masked_fill_(ignore, 0)
    return weights.to(dtype)


def by_two_nearest(
    nearest_weight_map: Callable[..., Tensor],
    kernels: str,
    labels: Tensor,
    classes: Tensor | None,
    ignore: Tensor | None,
    foreground: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    """Weights [B, ...] by the two nearest instances: by the function of that name of a backend.

    `kernels` are those for the "cpu" or the "gpu", as for `numerics.nearest_numbers`.
    """
    double = nearest_numbers(settings, labels.dtype == torch.float64, kernels).double_inside
    dtype = torch.float64 if double else torch.float32
    if settings.balance == "none":
        params = nearest_params_for(settings, double, 1.0, settings.fbr, kernels)
        weights = nearest_weight_map(labels, classes, foreground, ignore, params, dtype)
    elif classes is None and kernels == "cpu":
        params = nearest_params_for(settings, double, 0.0, 0.0, kernels)
        weights = nearest_weight_map(labels, None, foreground, ignore, params, dtype, True)
    else:
        inside = foreground_of(labels, classes, ignore, foreground)
        params = nearest_params_for(settings, double, 0.0, 0.0, kernels)
        weights = nearest_weight_map(labels, classes, inside, ignore, params, dtype)
        balance = frequency_balance(inside, classes, ignore)
        weights += balance if ignore is None else balance.masked_fill_(ignore, 0)
    return weights.to(result_dtype(labels))


def foreground_of(
    labels: Tensor, classes: Tensor | None, ignore: Tensor | None, foreground: Tensor | None
) -> Tensor:
    """Where the foreground is: bool, of the shape of `labels`."""
    if foreground is None:
        foreground = positive(labels)
        if classes is not None:
            foreground &= classes > 0
    return foreground if ignore is None else foreground & ~ignore


def frequency_balance(foreground: Tensor, classes: Tensor | None, ignore: Tensor | None) -> Tensor:
    """N / (K n) of each pixel's kind, float64: see reference.py. Nothing waits for a GPU."""
    if classes is None:
        ones, zeros = frequency_factors(foreground, ignore)
        one_each = (-1, *[1] * (foreground.dim() - 1))
        return torch.where(foreground, ones.view(one_each), zeros.view(one_each))
    counted = None if ignore is None else ~ignore
    kinds = torch.where(foreground, classes.clamp(min=0).to(torch.int64) + 1, 0)
    if counted is not None:
        kinds = torch.where(counted, kinds, torch.iinfo(torch.int64).max)
    count = _counts_by_histogram if kinds.device.type == "cpu" else _counts_by_sorting
    n, present = count(kinds.flatten(1))
    total = (kinds < torch.iinfo(torch.int64).max).flatten(1).sum(1, keepdim=True)
    return (total / (present * n).to(torch.float64)).view(foreground.shape)


def frequency_factors(foreground: Tensor, ignore: Tensor | None) -> tuple[Tensor, Tensor]:
    """N / (K n) of the foreground and of the background of each image: [B], float64, 0 where there is none.

    What is ignored is not in `foreground`.
    """
    pixels = foreground[0].numel() if len(foreground) else 0
    inside = foreground.flatten(1).sum(1).to(torch.float64)
    total = inside.new_full(inside.shape, pixels) if ignore is None else pixels - ignore.flatten(1).sum(1)
    outside = total - inside
    kinds = (inside > 0).to(torch.float64) + (outside > 0)
    ones, zeros = (
        torch.where(count > 0, total / (kinds * count).clamp(min=1), 0) for count in (inside, outside)
    )
    return ones, zeros


def _counts_by_sorting(kinds: Tensor) -> tuple[Tensor, Tensor]:
    """How many are like each of `kinds` [B, N], and how many kinds there are [B, 1]; not that of 2^63 - 1."""
    ordered = kinds.sort(dim=1).values
    n = torch.searchsorted(ordered, kinds, right=True) - torch.searchsorted(ordered, kinds)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    is_first &= ordered < torch.iinfo(torch.int64).max
    return n, is_first.sum(1, keepdim=True)


def _counts_by_histogram(kinds: Tensor) -> tuple[Tensor, Tensor]:
    """The same, for a device that need not be waited for."""
    if kinds.numel() == 0:
        return _counts_by_sorting(kinds)
    kinds = torch.where(kinds == torch.iinfo(torch.int64).max, kinds.new_tensor(-1), kinds) + 1
    bins = int(kinds.max()) + 1
    if bins > _LARGEST_BINS:
        return _counts_by_sorting(torch.where(kinds == 0, torch.iinfo(torch.int64).max, kinds))
    counts = torch.stack([image.bincount(minlength=bins) for image in kinds])
    return counts.gather(1, kinds), (counts[:, 1:] > 0).sum(1, keepdim=True)
