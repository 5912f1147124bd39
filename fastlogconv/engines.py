"""Ways to distances, and which one serves which settings: one place for the choice and its reason.

instances     one instance after the other, each in its neighbourhood: every distance, border and falloff
two nearest   for each pixel the two nearest instances, exactly, whatever their number: enough where no more
              than these two have a say
"""

from __future__ import annotations

from typing import NamedTuple

from .settings import WeightSettings


class Engine(NamedTuple):
    name: str
    reason: str


def choose(settings: WeightSettings) -> Engine:
    """The engine for weights of these settings, where a backend has both."""
    if settings.distance != "euclidean":
        return Engine("instances", "LogConv distances are sums over an instance's pixels")
    if settings.falloff == "sum":
        return Engine("instances", "falloff='sum' adds a term for every instance")
    if settings.border != "second_nearest":
        return Engine("instances", f"border={settings.border!r} takes more than the two nearest instances")
    return Engine("two nearest", "no more than the two nearest instances have a say")
