"""Volumes: weights against what one builds around a distance transform."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

import fastlogconv

from . import exact, report, timing
from .competitors import best_instruction_set
from .timing import Contestant, Effort
from .wanted import Figure, at_least, at_most

METHOD = """\
Preset "unet2019"; foreground and gaps are given, but for the second line. edt (seung-lab's) and SciPy
transform the volume once for each instance, whole or cropped to where float32 can see the instance, and the
two nearest are kept in place. Who is not within 1e-5 of SciPy in float64 on small volumes is not timed.
Times are of the processor, for one thread, medians by turns; who takes more than 5 s is called once. Memory
is the peak above what was there before, the result included."""
SLOW = 5.0  # seconds
SETTINGS = fastlogconv.WeightSettings.preset("unet2019")
TOLERANCE = 1e-5
# (labels, an id that is among them, spacing) -> squared distance to that instance
SquaredDistance = Callable[[np.ndarray, int, Sequence[float]], np.ndarray]
Compute = Callable[[Tensor, Tensor, Sequence[float]], Tensor]  # labels, foreground, spacing -> weights


# ---------------------------------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    """Labels int32 [D, H, W] from `make`, and the spacing of their voxels."""

    name: str
    about: str
    make: Callable[[], np.ndarray]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    whole: bool = True  # whether somebody transforms the whole volume once for each instance


def ellipsoids(
    shape: tuple[int, int, int], count: int, radius: float, spacing: Sequence[float], seed: int = 0
) -> np.ndarray:
    """Labels of `count` balls of a radius in the unit of the spacing; where they overlap the first one stays.

    None is lost, for each center was free.
    """
    rng, labels = np.random.default_rng(seed), np.zeros(shape, np.int32)
    for i in range(1, count + 1):
        center = rng.integers(0, shape)
        while labels[tuple(center)]:
            center = rng.integers(0, shape)
        reach = np.ceil(radius / np.array(spacing)).astype(int)
        window = tuple(map(slice, np.maximum(center - reach, 0), np.minimum(center + reach + 1, shape)))
        d2 = sum(((x - c) * s) ** 2 for x, c, s in zip(np.ogrid[window], center, spacing, strict=True))
        free = labels[window]
        free[(d2 < radius**2) & (free == 0)] = i
    return labels


def balls(side: int, count: int, radius: float) -> Callable[[], np.ndarray]:
    return lambda: ellipsoids((side,) * 3, count, radius, (1.0, 1.0, 1.0))


def all_cases(mask: Path | None, quick: bool) -> list[Case]:
    if quick:
        tiny = functools.partial(ellipsoids, (8, 24, 24), 12, 4.0, (4.0, 1.0, 1.0))
        return [
            Case("quick-balls", "12 balls of radius 4", balls(24, 12, 4.0)),
            Case("quick-slices", "slices 4 pixels apart", tiny, (4.0, 1.0, 1.0)),
        ]
    slices = functools.partial(ellipsoids, (48, 192, 192), 600, 12.0, (4.0, 1.0, 1.0))
    cases = [
        Case("128^3, 100", "100 balls of radius 10", balls(128, 100, 10.0)),
        Case("128^3, 2,000", "2,000 balls of radius 5", balls(128, 2000, 5.0), whole=False),
        Case(
            "48 x 192 x 192", "600 balls of radius 12, slices 4 apart", slices, (4.0, 1.0, 1.0), whole=False
        ),
        Case("256^3, 800", "800 balls of radius 10", balls(256, 800, 10.0), whole=False),
    ]
    if mask is not None:
        cases.append(Case("given", f"the volume {mask.name}", lambda: read_volume(mask)))
    return cases


def read_volume(path: Path) -> np.ndarray:
    from fastlogconv.cli.reading import read_labels  # it needs the extra [cli]

    labels = read_labels(path, spatial_dims=3).labels
    return np.ascontiguousarray(labels if labels.ndim == 3 else labels[0], dtype=np.int32)


# -------------------------------------------------------------------------------------------------- rivals


def one_by_one(squared_distance: SquaredDistance, crop: bool) -> Compute:
    """The weights from one transform for each instance, in float32."""
    margin = exact.reach(max(SETTINGS.fds, SETTINGS.bws))

    def compute(labels: Tensor, foreground: Tensor, spacing: Sequence[float]) -> Tensor:
        voxels = labels.numpy()
        near, second = (torch.full(labels.shape, math.inf) for _ in range(2))
        for i, box in enumerate(ndimage.find_objects(voxels), start=1):
            if box is None:
                continue
            window = tuple(
                slice(max(side.start - math.ceil(margin / length), 0), side.stop + math.ceil(margin / length))
                if crop
                else slice(None)
                for side, length in zip(box, spacing, strict=True)
            )
            d2 = torch.from_numpy(squared_distance(voxels[window], i, spacing))
            torch.minimum(second[window], torch.maximum(near[window], d2), out=second[window])
            torch.minimum(near[window], d2, out=near[window])
        return weights_of(near, second, foreground)

    return compute


def weights_of(near: Tensor, second: Tensor, foreground: Tensor) -> Tensor:
    """From squared distances, which are overwritten."""
    fall = (near * (-0.5 / SETTINGS.fds**2)).clamp_(min=exact.LEAST_EXPONENT).exp_()
    border = near.sqrt_().add_(second.sqrt_()).square_().mul_(-0.5 / SETTINGS.bws**2)
    border.clamp_(min=exact.LEAST_EXPONENT).exp_()
    weights = fall.mul_(1 - SETTINGS.fbr).add_(SETTINGS.fbr).add_(border, alpha=SETTINGS.bwf)
    return weights.masked_fill_(foreground, 1)


def by_edt(labels: np.ndarray, i: int, spacing: Sequence[float]) -> np.ndarray:
    from edt import edtsq

    return edtsq(labels != i, anisotropy=tuple(spacing), parallel=1)


def by_scipy(labels: np.ndarray, i: int, spacing: Sequence[float]) -> np.ndarray:
    distance = ndimage.distance_transform_edt(labels != i, sampling=spacing)
    return np.square(distance, dtype=np.float32)


def ours(labels: Tensor, foreground: Tensor, spacing: Sequence[float]) -> Tensor:
    settings = SETTINGS.replace(gaps=False, spacing=tuple(spacing))
    return fastlogconv.weight_map(labels, foreground=foreground, settings=settings, spatial_dims=3)


def ours_with_gaps(labels: Tensor, foreground: Tensor, spacing: Sequence[float]) -> Tensor:
    return fastlogconv.weight_map(labels, settings=SETTINGS.replace(spacing=tuple(spacing)), spatial_dims=3)


def rivals() -> dict[str, Compute]:
    """By name, the fastest first."""
    found: dict[str, Compute] = {"fastlogconv": ours, "the same, gaps found, too": ours_with_gaps}
    if importlib.util.find_spec("edt"):
        found["edt, cropped"] = one_by_one(by_edt, crop=True)
        found["edt, whole volume"] = one_by_one(by_edt, crop=False)
    found["SciPy, cropped"] = one_by_one(by_scipy, crop=True)
    found["SciPy, whole volume"] = one_by_one(by_scipy, crop=False)
    return found


# --------------------------------------------------------------------------------------------------- checks


def oracle(labels: np.ndarray, foreground: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Weights in float64, by SciPy and sorting."""
    ids = np.unique(labels[labels > 0])
    maps = [ndimage.distance_transform_edt(labels != i, sampling=spacing) for i in ids]
    near, second = np.sort(np.stack([*maps, np.full(labels.shape, np.inf)]), axis=0)[:2]
    fall, border = np.exp(-(near**2) / 200), np.exp(-((near + second) ** 2) / 72)
    return np.where(foreground, 1.0, 0.1 + 0.9 * fall + 50 * border)


def error_of(found: Tensor, expected: np.ndarray | Tensor) -> float:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    return ((found - expected).abs() / expected.clamp(min=1)).max().item()


def inputs(labels: np.ndarray) -> tuple[Tensor, Tensor]:
    tensor = torch.from_numpy(labels)
    return tensor, fastlogconv.separate_touching(tensor, spatial_dims=3) > 0


def right_ones(say: Callable[[str], None]) -> dict[str, Compute]:
    """The rivals that are right on small volumes.

    Raises:
        SystemExit: fastlogconv is not.
    """
    small = {
        (1.0, 1.0, 1.0): ellipsoids((24, 26, 28), 20, 5.0, (1.0, 1.0, 1.0)),
        (4.0, 1.0, 0.5): ellipsoids((8, 26, 40), 12, 6.0, (4.0, 1.0, 0.5)),
    }
    found = {}
    for name, compute in rivals().items():
        worst = 0.0
        for spacing, labels in small.items():
            tensor, foreground = inputs(labels)
            expected = oracle(labels, foreground.numpy(), spacing)
            worst = max(worst, error_of(compute(tensor, foreground, spacing), expected))
        if worst <= TOLERANCE:
            found[name] = compute
        elif compute in (ours, ours_with_gaps):
            raise SystemExit(f"fastlogconv's own results are wrong by {worst:.1e}: nothing is timed")
        else:
            say(f"{name} is not timed: wrong by {worst:.1e}")
    return found


# ---------------------------------------------------------------------------------------------------- times


def measure(mask: Path | None, quick: bool, say: Callable[[str], None]) -> list[dict[str, str]]:
    """Rows of the table: what each took, beside each other in one process."""
    rows = []
    effort = dataclasses.replace(timing.QUICK if quick else Effort(), clock=time.process_time)
    right = right_ones(say)
    for case in all_cases(mask, quick):
        labels, foreground = inputs(case.make())
        first = ours(labels, foreground, case.spacing)
        contestants, memory = {}, {}
        for name, compute in right.items():
            if "whole" in name and not case.whole:
                continue
            call = functools.partial(compute, labels, foreground, case.spacing)
            contestant = Contestant(call)
            error, seconds, memory[name] = first_call(call, first)
            if error > 2 * TOLERANCE:
                say(f"{name} is not timed on {case.name}: {error:.1e} away from fastlogconv")
                continue
            contestants[name] = contestant
            if seconds > SLOW:
                contestant.times.seconds.append(seconds)
        quick_ones = [contestant for contestant in contestants.values() if not contestant.times.seconds]
        timing.alternate(quick_ones, effort)
        best = contestants["fastlogconv"].times.median
        shape = " x ".join(map(str, labels.shape))
        for name, contestant in contestants.items():
            median = contestant.times.median
            row = {
                "volume": f"{shape}, {case.about}",
                "who": name,
                "time": report.duration(median),
                "times ours": report.factor(median / best),
                "peak memory": memory.get(name, ""),
            }
            rows.append(row)
            say(" | ".join(row.values()))
    return rows


def first_call(call: Callable[[], Tensor], expected: Tensor) -> tuple[float, float, str]:
    """(how far the result is from what is expected, seconds, peak memory) of one call."""
    found: list[Tensor] = []
    seconds: list[float] = []

    def timed() -> None:
        seconds.append(timing.seconds_of(lambda: found.append(call()), time.process_time))

    memory = report.size(timing.extra_bytes(timed)) if timing.can_measure_memory() else timed() or ""
    return error_of(found[0], expected), seconds[0], memory


def write(rows: list[dict[str, str]], threads: int, out: Path) -> Path:
    """OUT/volumes.md."""
    out.mkdir(parents=True, exist_ok=True)
    about = report.machine_line(report.machine(threads))
    table = report.table(rows[0], (row.values() for row in rows), left=2)
    path = out / "volumes.md"
    path.write_text(f"# Volumes\n\n{about}\n\n{METHOD}\n\n{table}\n", encoding="utf-8")
    return path


# -------------------------------------------------------------------------------------------------- figures


def figures(quick: bool, threads: int) -> list[Figure]:
    """What was wanted of volumes, on one thread but for one."""
    side, count, radius, more = (32, 8, 5.0, (40, 200)) if quick else (128, 100, 10.0, (2000, 20_000))
    effort = dataclasses.replace(timing.QUICK if quick else Effort(), clock=time.process_time)
    right = right_ones(lambda text: None)
    labels, foreground = inputs(balls(side, count, radius)())
    spacing = (1.0, 1.0, 1.0)
    contestants = {"ours": Contestant(functools.partial(ours_with_gaps, labels, foreground, spacing))}
    for k in more:
        many = inputs(balls(side, k, radius * (count / k) ** (1 / 3))())
        contestants[f"{k:,}"] = Contestant(functools.partial(ours_with_gaps, *many, spacing))
    timing.alternate(list(contestants.values()), effort)
    seconds = {name: contestant.times.median for name, contestant in contestants.items()}
    if "edt, whole volume" in right:
        edt = functools.partial(right["edt, whole volume"], labels, foreground, spacing)
        seconds["edt"] = timing.seconds_of(edt, time.process_time)
    if (os.cpu_count() or 1) >= 2:
        pair = {
            n: Contestant(contestants["ours"].call, functools.partial(torch.set_num_threads, n))
            for n in (1, 2)
        }
        timing.alternate(list(pair.values()), dataclasses.replace(effort, clock=time.perf_counter))
        torch.set_num_threads(threads)
        seconds["one thread"], seconds["two threads"] = (each.times.median for each in pair.values())
    best, what = seconds["ours"], f"volume {side}^3, {count} balls of radius {radius:g}, unet2019"

    isa = best_instruction_set()
    limit = 0.08 if isa == "avx512" else 0.15
    found = [Figure(what, f"at most {report.duration(limit)} ({isa})", report.duration(best), best <= limit)]
    over_edt, wanted = f"{what}: over edt once per instance", "at least 150 x"
    if "edt" in seconds:
        times = f"{report.duration(seconds['edt'])} / {report.duration(best)}"
        found.append(at_least(over_edt, wanted, 150, seconds["edt"] / best, times))
    else:
        found.append(Figure(over_edt, wanted, "not measured: edt is not installed", None))
    for k in more:
        times = f"{report.duration(seconds[f'{k:,}'])} / {report.duration(best)}"
        found.append(
            at_most(
                f"{what}: {k:,} balls over {count}", "at most 1.5 x", 1.5, seconds[f"{k:,}"] / best, times
            )
        )
    over_one, wanted = f"{what}: two threads over one", "at least 1.7 x"
    if "two threads" in seconds:
        one, two = seconds["one thread"], seconds["two threads"]
        times = f"{report.duration(one)} / {report.duration(two)}"
        found.append(at_least(over_one, wanted, 1.7, one / two, times))
    else:
        found.append(Figure(over_one, wanted, "not measured: one core", None))
    return found
