"""Time, by turns in one process, and peak memory, each in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from . import cases, competitors, verify
from .cases import Case
from .competitors import Competitor


@dataclass
class Times:
    """What calls took."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third; of a single time that time."""
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return first, third


@dataclass
class Contestant:
    """One who takes part in `alternate`: `select` runs before each of its turns, untimed."""

    call: Callable[[], object]
    select: Callable[[], None] = lambda: None
    times: Times = field(default_factory=Times)


@dataclass(frozen=True)
class Effort:
    """How long to measure. A turn is one call, or as many as fit into `turn` seconds."""

    rounds: int = 15
    least_rounds: int = 3
    turn: float = 0.05
    budget: float = 5.0  # seconds for each contestant; none leaves before `least_rounds`
    untimed_below: float = 0.5  # seconds: each turn begins with an untimed call if it is shorter than that
    clock: Callable[[], float] = time.perf_counter  # process_time: of one thread, whoever else is busy


QUICK = Effort(rounds=2, least_rounds=1, turn=0.002, budget=0.2, untimed_below=0.01)


def seconds_of(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """What one call takes."""
    start = clock()
    call()
    return clock() - start


def alternate(contestants: list[Contestant], effort: Effort) -> None:
    """Fills in `times`: turn by turn, so that whatever disturbs the machine disturbs them all."""
    spent = [0.0] * len(contestants)
    gc.collect()
    gc.disable()
    try:
        for round in range(effort.rounds):
            for i, contestant in enumerate(contestants):
                if round >= effort.least_rounds and spent[i] > effort.budget:
                    continue
                start = time.perf_counter()
                contestant.select()
                seconds = contestant.times.seconds
                if not seconds or seconds[-1] < effort.untimed_below:
                    contestant.call()
                turn = time.perf_counter()
                while True:
                    seconds.append(seconds_of(contestant.call, effort.clock))
                    if time.perf_counter() - turn >= effort.turn:
                        break
                spent[i] += time.perf_counter() - start
    finally:
        gc.enable()


# -------------------------------------------------------------------------------------------------- memory


def _status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return 1024 * int(value.split()[0])
    raise KeyError(key)


def extra_bytes(call: Callable[[], object]) -> int:
    """By how much this process grows at most during `call`, its result included. Linux only.

    From the resident set before to its high-water mark, which is reset first: so it sees every allocator.
    Less the code that was read in meanwhile.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free must not hide what is taken
    Path("/proc/self/clear_refs").write_text("5")
    before, code_before = _status("VmRSS"), _status("RssFile")
    call()
    return _status("VmHWM") - before - max(0, _status("RssFile") - code_before)


def _measure(connection, computes: str, case: str, competitor: str, mask: Path | None, threads: int) -> None:
    torch.set_num_threads(threads)
    chosen = next(c for c in competitors.all_competitors(computes) if c.name == competitor)
    compute = chosen.prepare(threads)
    chosen.select()
    workload = cases.all_cases(mask)[case].workload()
    compute(verify.small(computes).workload.input)  # load, start and cache whatever is made once
    connection.send(extra_bytes(lambda: compute(workload.input)))


def can_measure_memory() -> bool:
    """Whether `extra_bytes` works here."""
    return sys.platform == "linux" and Path("/proc/self/clear_refs").exists()


def peak_extra_bytes(case: Case, competitor: Competitor, mask: Path | None, threads: int) -> int | str:
    """Peak extra memory of one call by a competitor on a case, in a fresh process; or why there is none."""
    if not can_measure_memory():
        return "not measured on this platform"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.competitors"])  # forks a process that has computed nothing yet
    ours, theirs = context.Pipe(duplex=False)
    what = (theirs, case.computes, case.name, competitor.name, mask, threads)
    process = context.Process(target=_measure, args=what)
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        process.join()
        return f"its process ended with {process.exitcode}"
    finally:
        process.join()
