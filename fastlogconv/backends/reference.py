"""The definition of every result, in plain PyTorch and float64: the other backends must agree with this one.

Three stages: the distance to each instance, its accumulation over the instances, the weight. With pixels p
and q, instance i, window radius r = ks // 2 and a = exp(-1 / lmbda):

    S_i(p) = sum over q in i, |q - p|_inf <= r, of a^(|q - p|_1)
    d_i(p) = -lmbda ln S_i(p)                       (+inf where the window holds no pixel of i)
    near, second, far = the smallest, second smallest and largest d_i(p)
    fall   = sum over i of exp(-d_i(p)^2 / (2 fds^2))   (falloff="sum"; "nearest": of near alone; "none": 0)
    border = exp(-(near + X)^2 / (2 bws^2))         (X = far or second)
    w      = one on the foreground, elsewhere zero + (1 - fbr) fall + bwf border

with one = 1 and zero = fbr, or, with balance="frequency", one and zero = N / (K n) for the n pixels of a
class or of the background, of K kinds present and N pixels together. With border_everywhere the border term
is added on the foreground, too.

With distance="euclidean", d_i(p) is the smallest |p - q|_2 over q in i instead, each axis multiplied by its
`spacing`; and images may be volumes. With classes, an instance is
where an id and a class meet, and border, and fall by the nearest instance, are the sums over classes of what
each class's instances give by themselves. Pixels to ignore belong to no instance, and their weight is 0. The
foreground is where instances are, unless it is given.

The distance is that of Karam, Sugimoto and Hirakawa, "Fast convolutional distance transform" (IEEE Signal
Processing Letters 26(6), 2019); the weight is the one of deepflash2 (Griebel et al.), after Falk et al.
(2019) and Ronneberger et al. (2015), who published the other terms. S spans a^(2 r), far beyond float64's
range, so it is kept as its logarithm. Memory is O(H W): instances are visited one after another, each in its
bounding box dilated by r.

docs/algorithm.md leads from these formulas to the kernels, with a figure for each stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import LARGEST_ID, distance_error, label_error, mask_error
from ..rules import BORDERS
from ..settings import WeightSettings

_LARGEST = torch.finfo(torch.float64).max

Window = tuple[slice, ...]  # rows and columns of an image, or a part of a volume
EVERYWHERE: Window = (...,)  # type: ignore[assignment]


# Of a region, in its bounding box that begins at a corner of the image of a shape: d_i where it holds.
FindDistance = Callable[[Tensor, tuple[int, ...], torch.Size, WeightSettings], tuple[Tensor, Window]]


def why_not(device: torch.device) -> str | None:
    """Why this backend cannot serve `device`; None where it can."""
    if device.type in ("cpu", "cuda"):
        return None
    return f"it computes in float64 on cpu and cuda, not on {device.type}"


def describe() -> dict[str, str]:
    """What to print about this backend."""
    return {"implementation": "plain PyTorch", "precision": "float64"}


def result_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of a result computed from `tensor`: its own, or float32 for integers and bool."""
    return tensor.dtype if tensor.is_floating_point() else torch.float32


# ---------------------------------------------------------------------------------------------- distance


def lambda_kernel(ks: int, lmbda: float, device: torch.device | None = None) -> Tensor:
    """exp(-|x| / lmbda) at `ks` points one pixel apart around 0: float64 [ks]."""
    x = torch.arange(ks, dtype=torch.float64, device=device) - ks // 2
    if ks % 2 == 0:
        x = x + 0.5
    return torch.exp(-x.abs() / lmbda)


def _log_convolve(log_s: Tensor, r: int, lmbda: float, dim: int) -> Tensor:
    """The lambda kernel along `dim`, on logarithms: `dim` grows by r on both sides."""
    n = log_s.shape[dim]
    shape = list(log_s.shape)
    shape[dim] = n + 2 * r
    out = log_s.new_full(shape, -math.inf)
    for k in range(2 * r + 1):
        part = out.narrow(dim, k, n)
        torch.logaddexp(part, log_s - abs(k - r) / lmbda, out=part)
    return out


def _log_convolve_whole(log_s: Tensor, lmbda: float, dim: int) -> Tensor:
    """The same with an unbounded window, `dim` as it is: a recursive filter from either end."""
    before, after = [], []
    s = torch.full_like(log_s.select(dim, 0), -math.inf)
    for x in log_s.unbind(dim):
        s = torch.logaddexp(s - 1 / lmbda, x)
        before.append(s)
    s = torch.full_like(s, -math.inf)
    for x in reversed(log_s.unbind(dim)):
        after.append(s)
        s = torch.logaddexp(s, x) - 1 / lmbda
    return torch.logaddexp(torch.stack(before, dim), torch.stack(after[::-1], dim))


def _logconv_distance(
    region: Tensor, corner: tuple[int, ...], shape: torch.Size, settings: WeightSettings
) -> tuple[Tensor, Window]:
    """d_i of the instance in the bounding box `region` [h, w] (1 and 0, or soft weights), and where it holds.

    Returns d_i in the dilated box and that box, as slices of the image of `shape`; elsewhere d_i is +inf.
    """
    (h, w), (height, width), (top, left) = region.shape, shape, corner
    lmbda, r = settings.lmbda, settings.radius
    log_s = region.to(torch.float64).log()
    if r >= max(height, width) - 1:  # every pixel sees the whole instance
        in_box = _log_convolve_whole(_log_convolve_whole(log_s, lmbda, dim=1), lmbda, dim=0)
        y, to_y = _clamped(height, top, h, region.device)
        x, to_x = _clamped(width, left, w, region.device)
        log_s = in_box[y][:, x] - (to_y[:, None] + to_x) / lmbda
        return (-lmbda * log_s).clamp(min=-_LARGEST), EVERYWHERE
    ry, rx = min(r, height - 1), min(r, width - 1)  # farther is outside the image
    log_s = _log_convolve(_log_convolve(log_s, rx, lmbda, dim=1), ry, lmbda, dim=0)
    rows = slice(max(top - ry, 0), min(top + h + ry, height))
    columns = slice(max(left - rx, 0), min(left + w + rx, width))
    y0, x0 = top - ry, left - rx  # where the dilated box begins, perhaps outside of the image
    log_s = log_s[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]
    return (-lmbda * log_s).clamp(min=-_LARGEST), (rows, columns)


def _clamped(n: int, start: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each of n positions: the nearest of start..start + size - 1, counted from start, and how far."""
    position = torch.arange(n, dtype=torch.float64, device=device) - start
    nearest = position.clamp(0, size - 1)
    return nearest.to(torch.int64), (position - nearest).abs()


def _euclidean_distance(
    region: Tensor, corner: tuple[int, ...], shape: torch.Size, settings: WeightSettings
) -> tuple[Tensor, Window]:
    """d_i in the whole image or volume."""
    spacing = settings.spacing or (1.0,) * len(shape)
    return _squares_to(region, corner, shape, spacing).sqrt(), EVERYWHERE


def _squares_to(
    region: Tensor, corner: tuple[int, ...], shape: torch.Size, spacing: Sequence[float]
) -> Tensor:
    """The squares of these distances.

    First in each line along the first axis the distance to its nearest pixel, then along one axis more at a
    time: the squares of the distances to the lines are added.
    """
    n, first = region.shape[0], corner[0]
    inside = region.new_zeros((shape[0], *region.shape[1:]), dtype=torch.bool)
    inside[first : first + n] = region > 0
    y = torch.arange(shape[0], dtype=torch.float64, device=region.device).view(-1, *[1] * (len(shape) - 1))
    before = torch.where(inside, y, -math.inf).cummax(dim=0).values
    behind = torch.where(inside, y, math.inf).flip(0).cummin(dim=0).values.flip(0)
    squares = (spacing[0] * torch.minimum(y - before, behind - y)) ** 2
    for axis in range(1, len(shape)):
        lines = squares.movedim(axis, -1)  # [..., extent of the instance]
        x = torch.arange(shape[axis], dtype=torch.float64, device=region.device)
        out = lines.new_full((*lines.shape[:-1], shape[axis]), math.inf)
        reached = torch.empty_like(out)
        for line in range(region.shape[axis]):
            steps = spacing[axis] * (x - (corner[axis] + line))
            torch.add(lines[..., line, None], steps**2, out=reached)
            torch.minimum(out, reached, out=out)
        squares = out.movedim(-1, axis)
    return squares


_DISTANCES = {"logconv": _logconv_distance, "euclidean": _euclidean_distance}


# -------------------------------------------------------------------------------------------- accumulate


class _BorderRule(NamedTuple):
    """What the border term adds to the nearest distance: how that other distance comes about."""

    start: float  # without an instance
    rank: Callable[[Tensor, Tensor, Tensor], Tensor]  # (other, near, d) -> other, with one more instance
    squared: Callable[[Tensor, Tensor], Tensor]  # (near, other) -> what the exponent squares


_BORDER_RULES = {
    "second_nearest": _BorderRule(
        math.inf, lambda other, near, d: torch.minimum(other, torch.maximum(near, d)), torch.add
    ),
    "farthest": _BorderRule(-math.inf, lambda other, near, d: torch.maximum(other, d), torch.add),
}


class _Accumulated:
    """fd and what the border term takes [H, W], over the instances added so far."""

    def __init__(self, shape: torch.Size, settings: WeightSettings, device: torch.device) -> None:
        self.settings = settings
        self.rule = _BORDER_RULES[settings.border]
        self.near = torch.full(shape, math.inf, dtype=torch.float64, device=device)
        self.other = torch.full_like(self.near, self.rule.start)
        self.fd = torch.zeros_like(self.near)
        self.reached_by = torch.zeros(shape, dtype=torch.int64, device=device)
        self.instances = 0

    def add(self, d: Tensor, window: Window) -> None:
        """One more instance: its distance in `window`, +inf outside."""
        self.instances += 1
        self.other[window] = self.rule.rank(self.other[window], self.near[window], d)
        self.near[window] = torch.minimum(self.near[window], d)
        self.reached_by[window] += 1
        self.fd[window] += torch.exp(-0.5 * (d / self.settings.fds) ** 2)

    def fall(self) -> Tensor:
        """What nearness to the foreground adds."""
        if self.settings.falloff == "nearest":
            return torch.exp(-0.5 * (self.near / self.settings.fds) ** 2)
        return self.fd if self.settings.falloff == "sum" else torch.zeros_like(self.fd)

    def border(self) -> Tensor:
        """The border term."""
        requires = BORDERS[self.settings.border]
        if self.instances < requires.fewest_instances:
            return torch.zeros_like(self.near)
        other = self.other
        if requires.every_instance:  # +inf where one of them does not reach
            other = torch.where(self.reached_by == self.instances, other, math.inf)
        return torch.exp(-0.5 * (self.rule.squared(self.near, other) / self.settings.bws) ** 2)


# ----------------------------------------------------------------------------------------------- compose


def _compose(
    fall: Tensor,
    border: Tensor,
    foreground: Tensor,
    ignore: Tensor | None,
    settings: WeightSettings,
    balance: Tensor | None = None,
) -> Tensor:
    one, zero = (1.0, settings.fbr) if balance is None else (balance, balance)
    background = zero + (1 - settings.fbr) * fall + settings.bwf * border
    if settings.border_everywhere:
        one = one + settings.bwf * border
    weights = torch.where(foreground, one, background)
    return (weights if ignore is None else weights.masked_fill(ignore, 0)).contiguous()


# ------------------------------------------------------------------------------------ labels and regions


def _instance_ids(labels: Tensor, classes: Tensor | None, ignore: Tensor | None) -> Tensor:
    """`labels` as int64, 0 on the background, where there is no class, and on what is to be ignored."""
    exact = labels.to(torch.float64 if labels.is_floating_point() else torch.int64)
    if ignore is not None:
        exact = exact.masked_fill(ignore, 0)
    if labels.is_floating_point():
        wrong = ~exact.isfinite() | (exact != exact.floor()) | (exact >= LARGEST_ID)
        if wrong.any():
            raise label_error(exact[wrong][0].item())
    elif labels.dtype == torch.uint64 and (exact < 0).any():
        raise label_error(exact[exact < 0][0].item() + 2**64)
    ids = exact.clamp(min=0).to(torch.int64)
    return ids if classes is None else torch.where(classes > 0, ids, 0)


def _instances(ids: Tensor) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """(bounding box, bool, and its first corner) of every instance of `ids` [H, W] or [D, H, W], by id."""
    positions_of_axes = ids.nonzero(as_tuple=True)
    present, index = ids[positions_of_axes].unique(return_inverse=True)

    def extreme(positions: Tensor, reduce: str) -> list[int]:
        start = torch.zeros(len(present), dtype=torch.int64, device=ids.device)
        return start.scatter_reduce(0, index, positions, reduce, include_self=False).tolist()

    firsts = zip(*(extreme(positions, "amin") for positions in positions_of_axes), strict=True)
    lasts = zip(*(extreme(positions, "amax") for positions in positions_of_axes), strict=True)
    for i, first, last in zip(present.tolist(), firsts, lasts, strict=True):
        box = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))
        yield ids[box] == i, first


# ----------------------------------------------------------------------------------------- the operators


def weight_map(
    labels: Tensor,
    classes: Tensor | None,
    ignore: Tensor | None,
    foreground: Tensor | None,
    settings: WeightSettings,
    find_distance: FindDistance | None = None,
) -> Tensor:
    """Weights of instance labels, by class (int32) and without what is to be ignored; all [B, H, W].

    Or [B, D, H, W]: volumes are one axis more, with exact distances.

    `foreground` is a bool tensor of that shape, or None. Gaps are in it: `functional` has put them there.
    `find_distance` takes the place of the distance's own function.
    """
    out = torch.empty(labels.shape, dtype=result_dtype(labels), device=labels.device)
    ids = _instance_ids(labels, classes, ignore)
    find_distance = find_distance or _DISTANCES[settings.distance]
    every_instance = BORDERS[settings.border].every_instance
    for b, image in enumerate(ids):
        present = image[image > 0].unique()
        # Where every instance has a say they are 1..max: an absent one is infinitely far away.
        complete = not every_instance or (len(present) > 0 and len(present) == present[-1])
        fall = torch.zeros(image.shape, dtype=torch.float64, device=image.device)
        border_term = torch.zeros_like(fall)
        for of_class in _by_class(image, None if classes is None else classes[b]):
            sums = _Accumulated(image.shape, settings, image.device)
            for region, corner in _instances(of_class):
                sums.add(*find_distance(region, corner, image.shape, settings))
            fall += sums.fall()
            if complete:
                border_term += sums.border()
        ignored = None if ignore is None else ignore[b]
        inside = image > 0 if foreground is None else foreground[b]
        balance = None
        if settings.balance == "frequency":
            balance = _frequency_balance(inside, None if classes is None else classes[b], ignored)
        out[b] = _compose(fall, border_term, inside, ignored, settings, balance)
    return out


def _frequency_balance(foreground: Tensor, classes: Tensor | None, ignore: Tensor | None) -> Tensor:
    """N / (K n) of each pixel's kind, which is the background or a class: Ronneberger et al.'s w_c."""
    kinds = torch.where(foreground, 1 if classes is None else classes.clamp(min=0).to(torch.int64) + 1, 0)
    counted = torch.ones_like(foreground) if ignore is None else ~ignore
    balance = torch.zeros(kinds.shape, dtype=torch.float64, device=kinds.device)
    present, counts = kinds[counted].unique(return_counts=True)
    for kind, count in zip(present, counts, strict=True):
        balance[kinds == kind] = counts.sum().to(torch.float64) / (len(present) * count)
    return balance


def _by_class(ids: Tensor, classes: Tensor | None) -> Iterator[Tensor]:
    """The instance ids [H, W] of each class, 0 elsewhere."""
    if classes is None:
        yield ids
    else:
        for class_label in classes[ids > 0].unique():
            yield torch.where(classes == class_label, ids, 0)


def nearest_instances(
    labels: Tensor, ignore: Tensor | None, k: int, spacing: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Distances [k, B, H, W] or [k, B, D, H, W] to the k nearest instances, and the ids of the nearest.

    Lengths are in units of the smallest spacing: equal distances have equal squares where these are whole
    numbers. Of instances that are equally near, the one with the smallest id is the nearest.
    """
    dtype = torch.float64 if labels.dtype == torch.float64 else torch.float32
    squares = torch.full((2, *labels.shape), math.inf, dtype=torch.float64, device=labels.device)
    nearest = torch.zeros(labels.shape, dtype=torch.int64, device=labels.device)
    unit = min(spacing)
    for b, image in enumerate(_instance_ids(labels, None, ignore)):
        near, second = squares[0, b], squares[1, b]
        present = image[image > 0].unique()  # ascending, as the instances come
        for instance, (region, corner) in zip(present, _instances(image), strict=True):
            reached = _squares_to(region, corner, image.shape, [length / unit for length in spacing])
            torch.minimum(second, torch.maximum(near, reached), out=second)
            nearest[b][reached < near] = instance
            torch.minimum(near, reached, out=near)
    return (squares[:k].sqrt() * unit).to(dtype), nearest


def region_weight_map(
    masks: Tensor,
    ignore: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    """Weights [H, W] of one mask >= 0 per region, [N, H, W]: they may overlap and may be soft.

    Or [D, H, W] of [N, D, H, W], with exact distances.
    """
    if ignore is not None:
        masks = masks.masked_fill(ignore, 0)
    wrong = ~(masks.isfinite() & (masks >= 0))
    if wrong.any():
        raise mask_error(masks[wrong][0].item())
    shape = masks.shape[1:]
    sums = _Accumulated(shape, settings, masks.device)
    for mask in masks:
        positions = mask.nonzero()
        if len(positions) == 0:
            continue  # an empty region is infinitely far away
        first, last = tuple(positions.amin(0).tolist()), positions.amax(0).tolist()
        region = mask[tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))]
        sums.add(*_DISTANCES[settings.distance](region, first, shape, settings))
    complete = not BORDERS[settings.border].every_instance or sums.instances == len(masks)
    border_term = sums.border() if complete else torch.zeros_like(sums.fd)
    weights = _compose(sums.fall(), border_term, (masks > 0).any(dim=0), ignore, settings)
    return weights.to(result_dtype(masks))


def distance_to_weight(
    distance: Tensor,
    foreground: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    """Weights [H, W] of the distances [N, H, W] to N instances; `foreground` [H, W] is bool or None."""
    wrong = distance.isnan() | (distance == -math.inf)
    if wrong.any():
        raise distance_error(distance[wrong][0].item())
    sums = _Accumulated(distance.shape[1:], settings, distance.device)
    for d in distance:
        sums.add(d.to(torch.float64), EVERYWHERE)
    if foreground is None:
        foreground = torch.zeros_like(sums.near, dtype=torch.bool)
    weights = _compose(sums.fall(), sums.border(), foreground, None, settings)
    return weights.to(result_dtype(distance))


def separable_conv2d(input: Tensor, lmbda: float, ks: int, padding_mode: str) -> Tensor:
    """The lambda kernel (an even `ks` is taken one larger) along W, then along H, of [N, H, W]."""
    out = input.to(torch.float64)
    if out.numel() > 0:
        for _ in ("W", "H"):
            out = _convolve(out, ks // 2, lmbda, padding_mode).transpose(1, 2)
    return out.to(result_dtype(input), memory_format=torch.contiguous_format, copy=True)


def _convolve(input: Tensor, r: int, lmbda: float, padding_mode: str) -> Tensor:
    """The lambda kernel along the last dim."""
    n, steps = input.shape[-1], r
    if padding_mode in ("constant", "replicate"):
        steps = min(r, n - 1)  # farther is beyond the edge, from everywhere
    padded = F.pad(input, (steps, steps), mode=padding_mode)
    out = torch.zeros_like(input)
    for k, weight in enumerate(lambda_kernel(2 * steps + 1, lmbda).tolist()):
        out.add_(padded.narrow(-1, k, n), alpha=weight)
    if padding_mode == "replicate" and steps < r:
        # a^(steps + 1) + ... + a^r, each with the first value on one side and the last one on the other
        weight = math.exp(-(steps + 1) / lmbda) * math.expm1(-(r - steps) / lmbda) / math.expm1(-1 / lmbda)
        if weight > 0:
            out.add_(input[..., :1] + input[..., -1:], alpha=weight)
    return out
