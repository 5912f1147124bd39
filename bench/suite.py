"""Runs competitors on cases: right first, then affordable, then timed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from . import cases, competitors, timing, verify
from .cases import CONVOLUTION, REGION_WEIGHTS, WEIGHTS, Case, Workload
from .competitors import Competitor
from .timing import Contestant, Effort, Times

TIMED, SKIPPED, WRONG, MISSING = "timed", "skipped", "wrong", "not available"


@dataclass
class Row:
    """One line of the table: a competitor on a case. What was not measured is None."""

    case: Case
    competitor: Competitor
    status: str = SKIPPED
    reason: str = ""
    shape: tuple[int, ...] = ()  # with the next two: nothing where the input cannot be had
    pixels: int = 0
    instances: int = 0
    error: float | None = None  # in windows of the result on this very case
    times: Times | None = None
    over: Times | None = None  # of the dense way with the same border
    extra_bytes: int | None = None

    @property
    def median(self) -> float | None:
        return None if self.times is None else self.times.median

    @property
    def speedup(self) -> float | None:
        """Over the dense way with the same border."""
        return None if self.times is None or self.over is None else self.over.median / self.times.median

    def measure_memory(self, mask: Path | None, threads: int) -> None:
        """Sets `extra_bytes`, or the reason why there is none."""
        found = timing.peak_extra_bytes(self.case, self.competitor, mask, threads)
        if isinstance(found, int):
            self.extra_bytes = found
        else:
            self.reason = f"memory: {found}"


@dataclass
class Checked:
    """What the check before all timing found for one competitor on the small input."""

    competitor: Competitor
    reason: str = ""  # why it does not take part; empty if it does
    error: float | None = None
    wrong: bool = False


class Limits:
    """What a single call may take."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.bytes = 0.6 * _available_bytes()


def _available_bytes() -> float:
    try:
        with open("/proc/meminfo") as lines:
            return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0.5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Suite:
    """The competitors, those that were found right, and what a call of them costs."""

    def __init__(
        self,
        kinds: list[str],
        names: list[str] | None,
        threads: int,
        limits: Limits,
        say: Callable[[str], None] = print,
    ) -> None:
        """Checks all competitors for these kinds of cases, or those of them that are named."""
        torch.set_num_threads(threads)
        self.threads = threads
        self.limits = limits
        self.say = say
        self.competitors = [
            competitor
            for kind in kinds
            for competitor in competitors.all_competitors(kind)
            if not names or competitor.name in names
        ]
        self.checks: dict[tuple[str, str], Checked] = {}
        self._compute: dict[tuple[str, str], competitors.Compute] = {}
        self._rate: dict[tuple[str, str], float] = {}
        for competitor in self.competitors:
            key = competitor.computes, competitor.name
            check = self.checks[key] = self._check(competitor)
            if not check.reason:
                self._rate[key] = self._seconds_per_work(competitor)

    def _check(self, competitor: Competitor) -> Checked:
        check = Checked(competitor, competitor.why_not() or "")
        if check.reason:
            return check
        small = verify.small(competitor.computes)
        try:
            compute = self._compute[competitor.computes, competitor.name] = competitor.prepare(self.threads)
            competitor.select()
            check.error = small.error(competitor.result, compute(small.workload.input))
        except Exception as problem:  # whatever is wrong with one, the others are compared
            check.wrong, check.reason = True, f"failed: {type(problem).__name__}: {problem}"
            return check
        check.reason = _too_wrong(competitor, check.error)
        check.wrong = bool(check.reason)
        return check

    def _seconds_per_work(self, competitor: Competitor) -> float:
        """From one input of moderate size."""
        workload = _moderate(competitor.computes)
        contestant = self.contestant(competitor, workload)
        timing.alternate([contestant], Effort(rounds=5, least_rounds=1, turn=0.0, budget=0.3))
        return min(contestant.times.seconds) / competitor.work(workload)

    @property
    def wrong(self) -> list[Checked]:
        """Those whose result was wrong."""
        return [check for check in self.checks.values() if check.wrong]

    def find(self, computes: str, name: str) -> Competitor | None:
        """A competitor that can run and was found right."""
        check = self.checks.get((computes, name))
        return None if check is None or check.reason else check.competitor

    def compute(self, competitor: Competitor, workload: Workload) -> Tensor:
        """Its result."""
        competitor.select()
        return self._compute[competitor.computes, competitor.name](workload.input)

    def contestant(self, competitor: Competitor, workload: Workload) -> Contestant:
        """The competitor, to be timed on the workload."""
        compute = self._compute[competitor.computes, competitor.name]
        return Contestant(lambda: compute(workload.input), competitor.select)

    def run(self, case: Case, effort: Effort, mask: Path | None, memory: bool) -> list[Row]:
        """One row for every competitor that computes this kind of case."""
        rows = [Row(case, c) for c in self.competitors if c.computes == case.computes]
        try:
            workload = case.workload()
        except cases.Unavailable as missing:
            self.say(f"{case.name}: {missing}")
            for row in rows:
                row.reason = str(missing)
            return rows
        self.say(f"{case.name}: {list(workload.input.shape)}, {workload.instances} instances")
        expected = verify.Expected(workload, verify.some(workload))
        contestants = []
        for row in rows:
            row.shape, row.pixels = tuple(workload.input.shape), workload.pixels
            row.instances = workload.instances
            self._admit(row, workload, expected)
            if row.status == TIMED:
                contestants.append(self.contestant(row.competitor, workload))
                row.times = contestants[-1].times
        timing.alternate(contestants, effort)
        for row in rows:
            if memory and row.status == TIMED:
                row.measure_memory(mask, self.threads)
            row.over = _dense_way(row, rows)
        return rows

    def _admit(self, row: Row, workload: Workload, expected: verify.Expected) -> None:
        """Sets the row's status, reason and error: TIMED if it may be timed."""
        competitor = row.competitor
        check = self.checks[competitor.computes, competitor.name]
        if check.reason:
            row.status, row.reason = WRONG if check.wrong else MISSING, check.reason
            return
        row.reason = self._too_costly(competitor, workload)
        if row.reason:
            return
        try:
            row.error = expected.error(competitor.result, self.compute(competitor, workload))
        except Exception as problem:
            row.status, row.reason = WRONG, f"failed: {type(problem).__name__}: {problem}"
            return
        row.reason = _too_wrong(competitor, row.error)
        row.status = WRONG if row.reason else TIMED

    def _too_costly(self, competitor: Competitor, workload: Workload) -> str:
        seconds = self._rate[competitor.computes, competitor.name] * competitor.work(workload)
        size = competitor.memory(workload)
        if seconds <= self.limits.seconds and size <= self.limits.bytes:
            return ""
        return f"skipped: ~{seconds:,.0f} s / {size / 1e9:,.1f} GB estimated for a call"


def _too_wrong(competitor: Competitor, error: float) -> str:
    if error <= competitor.tolerance:
        return ""
    return f"wrong: error {error:.1e}, allowed {competitor.tolerance:.0e}"


def _dense_way(row: Row, rows: list[Row]) -> Times | None:
    """What a row's speed-up is over: the dense way with the same border."""
    nearest = row.competitor.result in ("logconv-second", "exact-second", "cascade-second")
    name = "dense-second" if nearest else "dense"
    return next((other.times for other in rows if other.competitor.name == name), None)


def _moderate(computes: str) -> Workload:
    labels = cases.tissue((192, 192), 17, cases.DIAMETER)
    make = {
        WEIGHTS: lambda: torch.from_numpy(labels)[None].float(),
        REGION_WEIGHTS: lambda: cases.one_hot(labels),
        CONVOLUTION: lambda: cases.one_hot(labels),
    }
    return Case("calibration", computes, "", make[computes]).workload()
