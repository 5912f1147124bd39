"""Distances and border rules: a row each, from which everything else takes names and numbers.

What a rule computes is written once in each language: backends/reference.py, kernels/rules.py, csrc/rules.h.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeVar


@dataclasses.dataclass(frozen=True)
class Distance:
    """A way to measure how far a pixel is from an instance."""

    name: str
    code: int  # enum flc_distance of csrc/fastlogconv.h
    meaning: str
    windowed: bool  # by `lmbda` and `ks`, which have no effect otherwise


@dataclasses.dataclass(frozen=True)
class Border:
    """What the border term adds to the distance of the nearest instance."""

    name: str
    code: int  # enum flc_border of csrc/fastlogconv.h
    meaning: str
    fewest_instances: int  # with fewer the term is 0
    every_instance: bool  # each of 1..max has a say: one that is absent or out of reach makes the term 0


Rule = TypeVar("Rule", Distance, Border)


def _table(*rules: Rule) -> dict[str, Rule]:
    return {rule.name: rule for rule in rules}


DISTANCES = _table(
    Distance("logconv", 0, "about the city-block distance, by convolution; faster", windowed=True),
    Distance("euclidean", 1, "the exact Euclidean distance", windowed=False),
)
BORDERS = _table(
    Border("second_nearest", 1, "the second nearest instance, as published for the U-Net", 2, False),
    Border("farthest", 0, "the farthest instance, as in deepflash2's real-time transform", 1, True),
)

# For editors and type checkers, which cannot read the tables; a test compares them.
DistanceName = Literal["logconv", "euclidean"]
BorderName = Literal["second_nearest", "farthest"]
