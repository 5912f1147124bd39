"""The terms of the weight by name: a row for each choice, from which everything else takes names and numbers.

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


@dataclasses.dataclass(frozen=True)
class Falloff:
    """What the background weight takes from how near the foreground is."""

    name: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Balance:
    """The weights of classes and background without any instance near."""

    name: str
    meaning: str


Rule = TypeVar("Rule", Distance, Border, Falloff, Balance)


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
FALLOFFS = _table(
    Falloff("sum", "a Gaussian of the distance to each instance, added up, as in deepflash2"),
    Falloff("nearest", "of the distance to the nearest instance, as in Falk et al. 2019"),
    Falloff("none", "nothing, as in Ronneberger et al. 2015"),
)
BALANCES = _table(
    Balance("none", "1 on the foreground, fbr on the background"),
    Balance("frequency", "each class and the background the same in total; with falloff none"),
)

# For editors and type checkers, which cannot read the tables; a test compares them.
DistanceName = Literal["logconv", "euclidean"]
BorderName = Literal["second_nearest", "farthest"]
FalloffName = Literal["sum", "nearest", "none"]
BalanceName = Literal["none", "frequency"]
