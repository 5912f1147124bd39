"""Cases with weights in closed form, and a climb to those among them on which a backend errs most.

An instance is a union of disjoint rectangles (a bar, a ring, a single pixel), each of one mask value. Over a
rectangle the LogConv kernel separates into a geometric sum along either axis, so S_i, d_i and the weights
have closed forms; the exact distance likewise. Nothing here is taken from the package, and no sum runs over
pixels, so thousands of cases can be tried.

    python tests/worst_cases.py --seconds 600 --dtype float64 --kind regions    # a longer climb, by hand
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time

import numpy as np
import torch
from tolerances import WEIGHT

import fastlogconv
from fastlogconv import WeightSettings
from fastlogconv.backends import native

# More digits than float64's on x86 and on aarch64 Linux: of distances that cancel the last ones are left.
Fine = np.longdouble
LARGEST_FLOAT = float(torch.finfo(torch.float32).max)


@dataclasses.dataclass(frozen=True)
class Rectangle:
    top: int
    bottom: int  # inclusive, as is `right`
    left: int
    right: int


Instance = tuple[float, list[Rectangle]]  # the value of its mask, and where it is


@dataclasses.dataclass(frozen=True)
class Case:
    kind: str  # "labels", "regions": masks that may be soft, or "distances": taken from `distances`
    height: int
    width: int
    instances: list[Instance]
    settings: WeightSettings
    distances: np.ndarray | None = None  # [N, H, W]


# ------------------------------------------------------------------------------------------- closed forms


def _log_geometric(first, last, lmbda):
    """ln(a^first + ... + a^last), elementwise; -inf where first > last."""
    count = np.maximum(last - first + 1, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.expm1(-count / lmbda) / np.expm1(-1 / lmbda)) - first / lmbda


def _log_sum_along(size, first, last, lmbda, radius):
    """ln of the kernel's sum over pixels first..last of an axis, seen from each of its `size` pixels."""
    x = np.arange(size)
    shown_first, shown_last = np.maximum(first, x - radius), np.minimum(last, x + radius)
    here = _log_geometric(np.maximum(x - last, 0), x - shown_first, lmbda)  # at x and before it
    beyond = _log_geometric(np.maximum(first - x, 1), shown_last - x, lmbda)
    return np.logaddexp(here, beyond)


def _distance(instance, case):
    """d_i [H, W] of an instance."""
    (value, rectangles), settings = instance, case.settings
    if settings.distance == "euclidean":
        y, x = np.arange(case.height, dtype=Fine)[:, None], np.arange(case.width, dtype=Fine)
        away = [
            np.hypot(
                np.maximum(np.maximum(r.top - y, y - r.bottom), 0),
                np.maximum(np.maximum(r.left - x, x - r.right), 0),
            )
            for r in rectangles
        ]
        return np.min(away, axis=0)
    radius = case.height + case.width if settings.ks is None else settings.ks // 2
    lmbda = Fine(settings.lmbda)
    parts = [
        _log_sum_along(case.height, r.top, r.bottom, lmbda, radius)[:, None]
        + _log_sum_along(case.width, r.left, r.right, lmbda, radius)
        for r in rectangles
    ]
    log_sum = parts[0] if len(parts) == 1 else np.logaddexp.reduce(parts)
    return -lmbda * (log_sum + np.log(Fine(value)))


def expected(case):
    """The weights [H, W], and the sum of the absolute values of the terms that add up to them."""
    settings = case.settings
    if case.distances is None:
        d = np.stack([_distance(instance, case) for instance in case.instances])
    else:
        d = case.distances
    d = np.sort(d, axis=0)
    with np.errstate(over="ignore"):
        gaussians = np.exp(-0.5 * (d / settings.fds) ** 2)
        fall = {"sum": gaussians.sum(axis=0), "nearest": gaussians[0], "none": 0.0}[settings.falloff]
        if settings.border == "farthest" or len(d) > 1:
            both = d[0] + d[-1 if settings.border == "farthest" else 1]
            border = settings.bwf * np.exp(-0.5 * (both / settings.bws) ** 2)
        else:
            border = 0.0
    weights = settings.fbr + (1 - settings.fbr) * fall + border
    added = settings.fbr + abs(1 - settings.fbr) * fall + border
    for _, rectangles in case.instances:
        for r in rectangles:
            inside = slice(r.top, r.bottom + 1), slice(r.left, r.right + 1)
            weights[inside] = added[inside] = 1
    return weights, added


def cancelling(lmbda, seed):
    """Region masks of about 1e33 and of as much less that their distances cancel, up to what bwf shows."""
    rng = np.random.default_rng(seed)
    first, second = [Rectangle(3, 6, 2, 5)], [Rectangle(12, 13, 30, 31)]
    value = float(np.float32(10 ** rng.uniform(30, 37)))
    settings = WeightSettings(bws=0.1, bwf=1e30, fbr=0.0, fds=1.0, lmbda=lmbda, ks=None)
    case = Case("regions", 16, 34, [(value, first), (1.0, second)], settings)
    both = sum(_distance(instance, case)[9, 14] for instance in case.instances)
    other = np.exp((both - rng.uniform(1, 1.17)) / lmbda)  # with which they add up to 1 .. 1.17 px there
    return dataclasses.replace(case, instances=[(value, first), (float(np.float32(other)), second)])


# ------------------------------------------------------------------------------------------------- errors


def computed(case, dtype, backend, device="cpu"):
    """The weights [H, W] by a backend."""
    if case.kind == "distances":
        distance = torch.from_numpy(case.distances).to(device, dtype)
        names = ("border", "bws", "fds", "bwf", "fbr")
        settings = {name: getattr(case.settings, name) for name in names}
        return fastlogconv.distance_to_weight(distance, **settings, backend=backend)
    regions = case.kind == "regions"
    images = torch.zeros(len(case.instances) if regions else 1, case.height, case.width, dtype=dtype)
    for i, (value, rectangles) in enumerate(case.instances):
        for r in rectangles:
            image = images[i if regions else 0]
            image[r.top : r.bottom + 1, r.left : r.right + 1] = value if regions else i + 1
    images = images.to(device)
    if regions:
        return fastlogconv.region_weight_map(images, settings=case.settings, backend=backend)
    return fastlogconv.weight_map(images[0], settings=case.settings, backend=backend)


def error(case, dtype, backend, device="cpu"):
    """max |w - w64| / max(1, sum of |terms|): where fbr <= 1 that sum is w itself."""
    weights, added = expected(case)
    result = computed(case, dtype, backend, device).double().cpu().numpy()
    return float(np.nan_to_num(np.abs(result - weights) / np.maximum(added, 1), nan=np.inf).max())


# ------------------------------------------------------------------------------------------------ the climb

# Real parameters: from, to, by their logarithm. Whole ones likewise, in pixels.
REALS = {
    "lmbda": (0.01, 300.0), "bws": (0.1, 1000.0), "fds": (0.1, 1000.0),
    "bwf": (1e-2, 1e30), "fbr": (1e-3, 1e30),
    "value1": (1e-40, LARGEST_FLOAT), "value2": (1e-40, LARGEST_FLOAT),
    "distance1": (1e-3, 1e30), "distance2": (1e-3, 1e30),
}  # fmt: skip
USUAL = {"bwf": (0.0, 1.0, 10.0, 50.0), "fbr": (0.0, 0.1, 1.0), "value1": (1.0,), "value2": (1.0,)}
PIXELS = {"height": 20, "gap": 120, "thick1": 50, "thick2": 50, "margin": 20}
CHOICES = {
    "shape": ("bars", "corners", "ring", "pixels", "nested"),
    "border": ("second_nearest", "farthest"),
    "distance": (*("logconv",) * 9, "euclidean"),
    "falloff": ("sum", "nearest", "none"),
    "sign": (-1, 1),
}
PARAMETERS = (*REALS, *PIXELS, *CHOICES, "ks")
ONLY = {
    "labels": {"value1": 1.0, "value2": 1.0, "distance1": 1.0, "distance2": 1.0, "sign": 1},
    "regions": {"distance1": 1.0, "distance2": 1.0, "sign": 1, "falloff": "sum"},
    "distances": {"value1": 1.0, "value2": 1.0, "lmbda": 1.0, "ks": 1, "shape": "bars", "margin": 0}
    | dict(distance="euclidean", falloff="sum", thick1=1, thick2=1),
}
USUAL_RATE, NEW_RATE = 0.5, 0.25


class Climb:
    """Climbs on all parameters of cases of a kind, one or two at a time, from the best of a few at random."""

    def __init__(self, kind, seed=0, **fixed):
        self.kind, self.fixed = kind, ONLY[kind] | fixed
        self.rng = np.random.default_rng(seed)

    def run(self, score, seconds=math.inf, tries=math.inf, restart_after=150):
        """The highest score of a case and that case, over so many tries or seconds."""
        end, best, left = time.monotonic() + seconds, (-math.inf, None), tries

        def scored(parameters):
            nonlocal best, left
            left -= 1
            case = self.case(parameters)
            found = score(case)
            if found > best[0]:
                best = found, case
            return found, parameters

        while left > 0 and time.monotonic() < end:
            here = max((scored(self.drawn()) for _ in range(20)), key=lambda pair: pair[0])
            stale = 0
            while stale < restart_after and left > 0 and time.monotonic() < end:
                there = scored(self.moved(here[1]))
                stale = stale + 1 if there[0] <= here[0] else 0
                here = max(here, there, key=lambda pair: pair[0])
        return best

    def drawn(self):
        return {name: self._draw(name) for name in PARAMETERS} | self.fixed

    def moved(self, parameters):
        free = [name for name in PARAMETERS if name not in self.fixed]
        names = self.rng.choice(free, self.rng.choice([1, 2], p=[0.7, 0.3]))
        return parameters | {str(name): self._move(str(name), parameters[name]) for name in names}

    def _draw(self, name):
        rng = self.rng
        if name in USUAL and rng.random() < USUAL_RATE:
            return float(rng.choice(USUAL[name]))
        if name in REALS:
            return float(np.exp(rng.uniform(*np.log(REALS[name]))))
        if name in PIXELS:
            return int(np.exp(rng.uniform(0, np.log(PIXELS[name]))))
        if name == "ks":
            return None if rng.random() < 0.3 else int(rng.integers(1, 260))
        return CHOICES[name][rng.integers(len(CHOICES[name]))]

    def _move(self, name, value):
        rng = self.rng
        if name in CHOICES or value is None or rng.random() < NEW_RATE:
            return self._draw(name)
        if name in REALS:
            low, high = REALS[name]
            moved = value * math.exp(rng.normal() * rng.choice([0.01, 0.1, 0.5, 2]))
            return min(max(moved, low), high) if value > 0 else 0.0
        moved = round(value * math.exp(0.3 * rng.normal())) + int(rng.choice([-1, 0, 1]))
        return min(max(moved, 1), 2 * PIXELS.get(name, 200))

    def case(self, parameters):
        p = argparse.Namespace(**parameters)
        names = ("distance", "border", "falloff", "bws", "fds", "bwf", "fbr", "lmbda", "ks")
        settings = WeightSettings(**{name: parameters[name] for name in names})
        if self.kind == "distances":
            near = np.float32(p.distance1 * p.sign) * np.ones((1, p.height, p.gap), np.float32)
            # The other one cancels it to about distance2, the worst that can be.
            y, x = np.indices((p.height, p.gap))
            other = -near[0].astype(np.float64) + p.distance2 * np.cos(y * p.gap + x)
            d = np.stack([near[0], other.astype(np.float32)]).astype(np.float64)
            return Case(self.kind, p.height, p.gap, [], settings, d)
        height, width, first, second = SHAPES[p.shape](p)
        # In numbers that every type holds.
        values = [float(np.float32(value)) for value in (p.value1, p.value2)]
        return Case(self.kind, height, width, [(values[0], first), (values[1], second)], settings)


def _bars(p):
    """Two bars over the image's whole height."""
    start = p.margin + p.thick1 + p.gap
    first = [Rectangle(0, p.height - 1, p.margin, p.margin + p.thick1 - 1)]
    second = [Rectangle(0, p.height - 1, start, start + p.thick2 - 1)]
    return p.height, start + p.thick2 + p.margin, first, second


def _corners(p):
    """Two squares, diagonally."""
    top, left = p.thick1 + p.height, p.thick1 + p.gap
    first = [Rectangle(0, p.thick1 - 1, 0, p.thick1 - 1)]
    second = [Rectangle(top, top + p.thick2 - 1, left, left + p.thick2 - 1)]
    return top + p.thick2, left + p.thick2 + p.margin, first, second


def _ring(p):
    """A frame of one pixel around a pixel, with room at its right."""
    n = min(p.thick1 + p.height, 60) + 3
    first = [Rectangle(row, row, p.margin, p.margin + n - 1) for row in (0, n - 1)]
    first += [Rectangle(1, n - 2, p.margin + column, p.margin + column) for column in (0, n - 1)]
    y, x = min(p.height, n - 2), p.margin + min(p.thick2, n - 2)
    return n + 1, p.margin + n + p.gap, first, [Rectangle(y, y, x, x)]


def _pixels(p):
    """Two pixels, in opposite corners but for a margin."""
    first, second = [Rectangle(0, 0, 0, 0)], [Rectangle(p.height, p.height, p.gap, p.gap)]
    return p.height + 1, p.gap + 1 + p.margin, first, second


def _nested(p):
    """A bar in two pieces, and beside it one that begins lower."""
    half, left = p.height + 1, p.margin + p.thick1 + p.gap
    height = 2 * half + p.thick2
    first = [
        Rectangle(0, half - 1, p.margin, p.margin + p.thick1 - 1),
        Rectangle(half + 1, height - 1, p.margin, p.margin + p.thick1 - 1),
    ]
    return height, left + p.thick2, first, [Rectangle(2 * half, height - 1, left, left + p.thick2 - 1)]


SHAPES = {"bars": _bars, "corners": _corners, "ring": _ring, "pixels": _pixels, "nested": _nested}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend", default="native")
    parser.add_argument("--kind", choices=ONLY, default="labels")
    parser.add_argument("--instruction-set")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.instruction_set:
        native.use_instruction_set(arguments.instruction_set)
    dtype = getattr(torch, arguments.dtype)
    tries = 0

    def score(case):
        nonlocal tries
        tries += 1
        return error(case, dtype, arguments.backend) / WEIGHT[dtype]

    worst, case = Climb(arguments.kind, arguments.seed).run(score, seconds=arguments.seconds)
    print(f"{worst:.3g} of what is promised, the worst of {tries}: {case}")


if __name__ == "__main__":
    main()
