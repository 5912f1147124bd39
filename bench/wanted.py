"""A figure to reach: what was wanted, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from . import report


@dataclass(frozen=True)
class Figure:
    """One line; `reached` is None where it could not be measured, and `measured` says why."""

    what: str
    wanted: str
    measured: str
    reached: bool | None


def at_least(what: str, wanted: str, limit: float, ratio: float, times: str) -> Figure:
    return Figure(what, wanted, f"{report.factor(ratio)} ({times})", ratio >= limit)


def at_most(what: str, wanted: str, limit: float, ratio: float, times: str) -> Figure:
    return Figure(what, wanted, f"{report.factor(ratio)} ({times})", ratio <= limit)
