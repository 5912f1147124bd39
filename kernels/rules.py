"""The border rules: what the border term adds to the distance of the nearest instance.

A kernel is compiled for one rule: BORDER is its code in the table BORDERS of fastlogconv/rules.py. A rule is
one branch in each of the three functions here, also where branches agree. Where not every instance has a say,
one that is out of reach may be left out: ranking +inf changes nothing, and without the fewest instances the
term is 0. csrc/rules.h has the same for the other kernels.
"""

import triton
import triton.language as tl

from ..rules import BORDERS

SECOND_NEAREST = tl.constexpr(BORDERS["second_nearest"].code)
FARTHEST = tl.constexpr(BORDERS["farthest"].code)


@triton.jit
def border_start(infinite, BORDER: tl.constexpr):
    """The other distance before the first instance, of the shape and type of `infinite`, which is +inf."""
    if BORDER == SECOND_NEAREST:
        other = infinite
    elif BORDER == FARTHEST:
        other = -infinite
    else:
        tl.static_assert(False, "there is no such border rule")
    return other


@triton.jit
def border_rank(other, near, d, BORDER: tl.constexpr):
    """The other distance with one more instance, at d; `near` is the nearest one without it."""
    if BORDER == SECOND_NEAREST:
        other = tl.minimum(other, tl.maximum(near, d))
    elif BORDER == FARTHEST:
        other = tl.maximum(other, d)
    else:
        tl.static_assert(False, "there is no such border rule")
    return other


@triton.jit
def border_squared(near, other, BORDER: tl.constexpr):
    """What the exponent of the border term squares."""
    if BORDER == SECOND_NEAREST:  # noqa: SIM114
        squared = near + other
    elif BORDER == FARTHEST:
        squared = near + other
    else:
        tl.static_assert(False, "there is no such border rule")
    return squared
