"""The definition of every result, in plain PyTorch and float64: the other backends must agree with this one.

Three stages: the distance to each instance, its accumulation over the instances, the weight. With pixels p
and q, instance i, window radius r = ks // 2 and a = exp(-1 / lmbda):

    S_i(p) = sum over q in i, |q - p|_inf <= r, of a^(|q - p|_1)
    d_i(p) = -lmbda ln S_i(p)                       (+inf where the window holds no pixel of i)
    near, second, far = the smallest, second smallest and largest d_i(p)
    fd     = sum over i of exp(-d_i(p)^2 / (2 fds^2))
    border = exp(-(near + X)^2 / (2 bws^2))         (X = far or second)
    w      = 1 on the foreground, elsewhere fbr + (1 - fbr) fd + bwf border

With distance="euclidean", d_i(p) is the smallest |p - q|_2 over q in i instead. With classes, an instance is
where an id and a class meet, and border is the sum over classes of what each class's instances give by
themselves. Pixels to ignore belong to no instance, and their weight is 0.

The distance is that of Karam, Sugimoto and Hirakawa, "Fast convolutional distance transform" (IEEE Signal
Processing Letters 26(6), 2019); the weight is the one of deepflash2 (Griebel et al.), after Falk et al.
(2019) and Ronneberger et al. (2015). S spans a^(2 r), far beyond float64's range, so it is kept as its
logarithm. Memory is O(H W): instances are visited one after another, each in its bounding box dilated by r.

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

Window = tuple[slice, slice]  # rows and columns of an image
EVERYWHERE: Window = (slice(None), slice(None))


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
    region: Tensor, top: int, left: int, shape: torch.Size, settings: WeightSettings
) -> tuple[Tensor, Window]:
    """d_i of the instance in the bounding box `region` [h, w] (1 and 0, or soft weights), and where it holds.

    Returns d_i in the dilated box and that box, as slices of the image of `shape`; elsewhere d_i is +inf.
    """
    (h, w), (height, width) = region.shape, shape
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
    region: Tensor, top: int, left: int, shape: torch.Size, settings: WeightSettings
) -> tuple[Tensor, Window]:
    """d_i in the whole image: in each column the distance to its nearest pixel, then the nearest column."""
    h, w = region.shape
    inside = region.new_zeros((shape[0], w), dtype=torch.bool)
    inside[top : top + h] = region > 0
    y = torch.arange(shape[0], dtype=torch.float64, device=region.device)[:, None]
    above = torch.where(inside, y, -math.inf).cummax(dim=0).values
    below = torch.where(inside, y, math.inf).flip(0).cummin(dim=0).values.flip(0)
    along = torch.minimum(y - above, below - y) ** 2  # [H, w]
    x = torch.arange(shape[1], dtype=torch.float64, device=region.device)
    squares = torch.full(shape, math.inf, dtype=torch.float64, device=region.device)
    reached = torch.empty_like(squares)
    for column in range(w):
        torch.add(along[:, column, None], (x - (left + column)) ** 2, out=reached)
        torch.minimum(squares, reached, out=squares)
    return squares.sqrt(), EVERYWHERE


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
    fd: Tensor, border: Tensor, foreground: Tensor, ignore: Tensor | None, settings: WeightSettings
) -> Tensor:
    background = settings.fbr + (1 - settings.fbr) * fd + settings.bwf * border
    weights = torch.where(foreground, 1.0, background)
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


def _instances(ids: Tensor) -> Iterator[tuple[Tensor, int, int]]:
    """(bounding box [h, w] bool, top, left) of every instance of `ids` [H, W], by ascending id."""
    rows, columns = ids.nonzero(as_tuple=True)
    present, index = ids[rows, columns].unique(return_inverse=True)

    def extreme(positions: Tensor, reduce: str) -> list[int]:
        start = torch.zeros(len(present), dtype=torch.int64, device=ids.device)
        return start.scatter_reduce(0, index, positions, reduce, include_self=False).tolist()

    tops, bottoms = extreme(rows, "amin"), extreme(rows, "amax")
    lefts, rights = extreme(columns, "amin"), extreme(columns, "amax")
    for i, y0, y1, x0, x1 in zip(present.tolist(), tops, bottoms, lefts, rights, strict=True):
        yield ids[y0 : y1 + 1, x0 : x1 + 1] == i, y0, x0


# ----------------------------------------------------------------------------------------- the operators


def weight_map(
    labels: Tensor,
    classes: Tensor | None,
    ignore: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    """Weights [B, H, W] of instance labels [B, H, W], by class (int32) and without what is to be ignored."""
    out = torch.empty(labels.shape, dtype=result_dtype(labels), device=labels.device)
    ids = _instance_ids(labels, classes, ignore)
    find_distance, every_instance = _DISTANCES[settings.distance], BORDERS[settings.border].every_instance
    for b, image in enumerate(ids):
        present = image[image > 0].unique()
        # Where every instance has a say they are 1..max: an absent one is infinitely far away.
        complete = not every_instance or (len(present) > 0 and len(present) == present[-1])
        fd = torch.zeros(image.shape, dtype=torch.float64, device=image.device)
        border_term = torch.zeros_like(fd)
        for of_class in _by_class(image, None if classes is None else classes[b]):
            sums = _Accumulated(image.shape, settings, image.device)
            for region, top, left in _instances(of_class):
                sums.add(*find_distance(region, top, left, image.shape, settings))
            fd += sums.fd
            if complete:
                border_term += sums.border()
        out[b] = _compose(fd, border_term, image > 0, None if ignore is None else ignore[b], settings)
    return out


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
        for instance in image[image > 0].unique():  # ascending
            reached = _squares_to(image == instance, [length / unit for length in spacing])
            torch.minimum(second, torch.maximum(near, reached), out=second)
            nearest[b][reached < near] = instance
            torch.minimum(near, reached, out=near)
    return (squares[:k].sqrt() * unit).to(dtype), nearest


def _squares_to(inside: Tensor, spacing: Sequence[float]) -> Tensor:
    """The square of the distance to the nearest pixel `inside`, axis by axis."""
    squares = torch.where(inside, 0.0, math.inf).to(torch.float64)
    for axis, length in enumerate(spacing):
        n = inside.shape[axis]
        shape = [n if i == axis else 1 for i in range(inside.dim())]
        positions = torch.arange(n, dtype=torch.float64, device=inside.device).reshape(shape)
        reached = torch.full_like(squares, math.inf)
        for q in range(n):
            torch.minimum(reached, squares.narrow(axis, q, 1) + (length * (positions - q)) ** 2, out=reached)
        squares = reached
    return squares


def region_weight_map(
    masks: Tensor,
    ignore: Tensor | None,
    settings: WeightSettings,
) -> Tensor:
    """Weights [H, W] of one mask >= 0 per region, [N, H, W]: they may overlap and may be soft."""
    if ignore is not None:
        masks = masks.masked_fill(ignore, 0)
    wrong = ~(masks.isfinite() & (masks >= 0))
    if wrong.any():
        raise mask_error(masks[wrong][0].item())
    shape = masks.shape[1:]
    sums = _Accumulated(shape, settings, masks.device)
    for mask in masks:
        rows, columns = mask.nonzero(as_tuple=True)
        if len(rows) == 0:
            continue  # an empty region is infinitely far away
        top, left = int(rows.min()), int(columns.min())
        region = mask[top : int(rows.max()) + 1, left : int(columns.max()) + 1]
        sums.add(*_DISTANCES[settings.distance](region, top, left, shape, settings))
    complete = not BORDERS[settings.border].every_instance or sums.instances == len(masks)
    border_term = sums.border() if complete else torch.zeros_like(sums.fd)
    weights = _compose(sums.fd, border_term, (masks > 0).any(dim=0), ignore, settings)
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
    weights = _compose(sums.fd, sums.border(), foreground, None, settings)
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
