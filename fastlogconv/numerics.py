"""How far one has to look, what counts as 0, and the scales of sums: derived here, for all fast backends.

Notation: a = exp(-1 / lmbda); G(r) = 1 + a + ... + a^r, so that the sum along one axis is at most
W = 2 G(r) - 1, and S(p) at most W^2. A Gaussian exp(-x^2 / (2 sigma^2)) times a factor f is below epsilon
from

    reach(sigma, f, epsilon) = sigma sqrt(2 ln(f / epsilon))

on. *What an instance may still add*: at a pixel p whose way to the instance's bounding box is `steps` pixels
(dx + dy), its LogConv distance is at least steps - slack, with slack = 2 lmbda ln W. For with c the pixel of
the box that is nearest to p, every q in the box has |q - p|_1 = steps + |q - c|_1, so S(p) <= a^steps W^2.
(Counted to the nearest pixel of the instance this would be wrong: around p many may be equally near.) No
distance is below -slack. So

    its foreground term,  |1 - fbr| exp(-d^2 / (2 fds^2)),  is below epsilon where
        steps - slack >= reach(fds, |1 - fbr|, epsilon)
    a border term that it has a part in,  bwf exp(-(near + d)^2 / (2 bws^2)),  is below epsilon where
        near + d >= -slack + (steps - slack) >= reach(bws, bwf, epsilon)

whatever else is near. So an instance adds nothing beyond `limit` steps, the larger of reach(fds, ..) + slack
and reach(bws, ..) + 2 slack. Exact distances have no slack, but may have a crowd: instances of one pixel that
fill all beyond a distance add up to crowd times the foreground term there.

*When float32 suffices.* In float32 a distance errs by about 11 2^-23 lmbda (its logarithm, and the sum in it)
and the exponent of a border term by 2^-22 of itself (rounding), so that the term bwf exp(-x^2 / 2),
x = (near + other) / bws, errs by the fraction

    2^-22 (11 x lmbda / bws + x^2)

of itself. On GPUs it is

    2^-22 ((16 + ln 4^e) x lmbda / bws + 2 x^2)

with 4^e the factor of scaled sums: its logarithm is taken away again, from numbers of its size. That counts
where the term is at least 1, so for x^2 <= 2 ln bwf, and has to stay below 1e-5; where it would not, float64
is used inside. Of foreground terms up to some tens are added up (as if bwf were 50), each with one distance:
half of the first term, of lmbda / fds. (The numbers were found by climbing.) With exact distances lmbda
counts as 0.

tests/test_numerics.py compares each number with float64 at its edges; tests/test_worst_cases.py looks for the
settings and instances on which results err most.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

from .rules import DISTANCES
from .settings import WeightSettings

LN2 = math.log(2)
SMALLEST_DECAY_LENGTH = 1e-12  # no smaller one makes a difference, and its inverse is finite
SMALLEST_SCALE, LARGEST_SCALE = 1e-30, 1e30  # products with squares of distances stay finite in float32
LARGEST_REACH = 2**29  # pixels; no reach is larger

# A border factor below this counts as this: switching the border term off changes no other bit.
USUAL_BORDER_FACTOR = 50.0

# What counts for exact distances: half of the last bit of a weight of 1, and for a crowd 2^-17 (2^-46)
# together. A sum of LogConv that errs by this much moves no weight by more than half the promise of 1e-5.
CROWD = 2.0**-17
NEGLIGIBLE_IN_SCALED_SUMS = 5e-7

# What may be lost in float32, and how: see above.
PROMISE = 1e-5
ROUNDING = 2.0**-22

# What a float32 scaled by a power of 2 can hold: down to 2^-125 it is normal with a bit to spare, and what
# all windows add up to has to stay below 2^127.
BITS_BELOW, BITS_ABOVE = 125, 127


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """What a family of kernels computes with."""

    negligible: float  # LogConv: terms below this are left out
    half_bit: float  # of a result of 1: what is negligible by exact distances
    largest_decay: float  # lmbda in sigmas beyond which float32 would lose too much; float64 is used inside
    tail: float  # e^-tail shows no more in a sum
    lost_by_logarithm: float = 0  # by how much two distances err, in lmbda times ROUNDING
    lost_by_rounding: float = 0  # by how much the exponent of a border term does, in itself times ROUNDING
    scales: bool = False  # sums carry powers of 2, which logarithms include for a while


# By kernels and by whether results are float64. The CPU's form sums in float64 where float32 does not
# suffice; the GPU's take exponentials and logarithms that err by 2^-22, so a distance by lmbda times that.
ARITHMETICS = {
    ("cpu", False): Arithmetic(2.0**-60, 2.0**-25, 1.0, 20, lost_by_logarithm=11, lost_by_rounding=1),
    ("cpu", True): Arithmetic(2.0**-60, 2.0**-54, 0.0, 40),
    ("gpu", False): Arithmetic(
        2.0**-36, 2.0**-25, 0.7, 20, lost_by_logarithm=16, lost_by_rounding=2, scales=True
    ),
    ("gpu", True): Arithmetic(2.0**-60, 2.0**-54, 0.0, 40),
}


def gaussian_exponent(sigma: float) -> float:
    """exp(-d^2 / (2 sigma^2)) = 2^(exponent d^2)."""
    square = _square(sigma)
    return -_clamp(0.5 / LN2 / square if square > 0 else math.inf)


def gaussian_reach(sigma: float, factor: float, epsilon: float) -> float:
    """The distance at which factor exp(-d^2 / (2 sigma^2)) is epsilon; factors below 1 count as 1."""
    return sigma * math.sqrt(2 * math.log(max(factor, 1.0) / epsilon))


def geometric_sum(decay_length: float, count: float) -> float:
    """1 + a + ... + a^count with a = exp(-1 / decay_length)."""
    return math.expm1(-(count + 1) / decay_length) / math.expm1(-1 / decay_length)


def scale_exponent(bits: float, largest_sum: float, bits_along: float = 0.0) -> tuple[int, bool]:
    """The exponent e where the factors along both axes carry 2^e each, and whether it suffices.

    It is the least with which sums down to 2^-bits, and those along one axis down to 2^-bits_along, are
    floats: what is added to a logarithm is taken away again, at the cost of precision. Nor may the largest
    sum overflow.
    """
    most = (BITS_ABOVE - math.ceil(2 * math.log2(largest_sum))) // 2
    needed = max(math.ceil((bits - BITS_BELOW) / 2), math.ceil(bits_along - BITS_BELOW), 0)
    return max(0, min(needed, most)), needed <= most


def crowd_beyond(sigma: float, height: int, width: int) -> float:
    """Instances of one pixel that fill all beyond a distance have about this many times the term there.

    2 pi sigma^2 is the integral; the sum over pixels is up to a tenth larger.
    """
    return max(1.0, min(8 + 2 * 3.1416 * _square(sigma), float(height * width)))


def _square(x: float) -> float:
    return x * x  # x**2 is an error where it overflows


def _clamp(x: float) -> float:
    return min(max(x, SMALLEST_SCALE), LARGEST_SCALE)


@dataclasses.dataclass(frozen=True)
class Numbers:
    """What kernels compute with beside the settings; fields of flc_weight_params in csrc/fastlogconv.h."""

    decay_length: float  # pixels; lmbda, no smaller than makes a difference
    bits_per_step: float  # -log2 a
    foreground_exponent: float  # the foreground term is 2^(exponent d^2), d in pixels
    border_exponent: float  # the border term likewise, of the sum of two distances
    step_scale: float  # one pixel in units of fds sqrt(2 ln 2), in which the foreground term is 2^-(d^2)
    border_scale: float  # the border term is 2^-(scale d^2) in these units
    limit: float  # pixels (LogConv: steps): an instance farther away adds nothing
    bits_that_matter: float  # a sum smaller by this than 1 need not be told from 0
    largest_sum: float  # W, along one axis
    radius: int  # of the window, at most the image's longer side - 1
    reach: int  # along an axis an instance farther away adds nothing; at most radius
    cut_radius: int  # of the window without what never shows beside an instance within the limit
    scale_exponent: int  # the factors along both axes carry 2^exponent each where sums are scaled
    double_inside: bool  # whether float32 does not suffice


@functools.lru_cache(1024)
def numbers_for(settings: WeightSettings, height: int, width: int, kernels: str, double: bool) -> Numbers:
    """The numbers for images of height x width.

    `kernels` are those for the "cpu" or the "gpu"; results are float64 if `double`, else float32.
    """
    find = _logconv_numbers if DISTANCES[settings.distance].windowed else _euclidean_numbers
    return find(settings, height, width, kernels, double)


class NearestNumbers(NamedTuple):
    """How far weights by the two nearest instances look, in the unit of the sigmas, and how exactly."""

    limit: float  # a nearest instance beyond it adds less than half of the last bit
    pair_limit: float  # so do two, near + second beyond it
    double_inside: bool


@functools.lru_cache(1024)
def nearest_numbers(settings: WeightSettings, double: bool, kernels: str) -> NearestNumbers:
    """The numbers for exact distances to the two nearest instances; arguments as for `numbers_for`."""
    arithmetic = ARITHMETICS[kernels, double]
    double_inside = double or not _float_suffices(settings, arithmetic, 0)
    epsilon = ARITHMETICS[kernels, double_inside].half_bit
    falloff = 0.0 if settings.falloff == "none" else abs(1 - settings.fbr)
    return NearestNumbers(
        gaussian_reach(settings.fds, falloff, epsilon) if falloff else 0.0,
        gaussian_reach(settings.bws, settings.bwf, epsilon) if settings.bwf else 0.0,
        double_inside,
    )


@functools.lru_cache(1024)
def exact_limit(settings: WeightSettings, most_instances: int) -> float:
    """The exact distance, in units of the sigmas, beyond which so many instances together change no bit."""
    epsilon = ARITHMETICS["cpu", True].half_bit / most_instances
    return max(
        gaussian_reach(settings.fds, abs(1 - settings.fbr), epsilon),
        gaussian_reach(settings.bws, settings.bwf, epsilon),
    )


def _scales(settings: WeightSettings) -> dict[str, float]:
    return dict(
        foreground_exponent=gaussian_exponent(settings.fds),
        border_exponent=gaussian_exponent(settings.bws),
        step_scale=_clamp(math.sqrt(0.5 / LN2) / settings.fds),
        border_scale=_clamp(_square(settings.fds / settings.bws)),
    )


def _limit(settings: WeightSettings, slack: float, epsilon: float) -> float:
    """The steps from which on an instance adds less than epsilon to either term; see above."""
    foreground = gaussian_reach(settings.fds, abs(1 - settings.fbr), epsilon)
    border = gaussian_reach(settings.bws, max(settings.bwf, USUAL_BORDER_FACTOR), epsilon)
    return max(foreground + slack, border + 2 * slack)


def _float_suffices(settings: WeightSettings, arithmetic: Arithmetic, lost_of_distances: float) -> bool:
    """Whether both terms keep the promise where two distances err by ROUNDING times so many pixels."""
    x = math.sqrt(2 * math.log(max(settings.bwf, USUAL_BORDER_FACTOR)))
    of_border = lost_of_distances * x / settings.bws + arithmetic.lost_by_rounding * x**2
    x = math.sqrt(2 * math.log(USUAL_BORDER_FACTOR))
    of_foreground = lost_of_distances / 2 * x / settings.fds + arithmetic.lost_by_rounding * x**2
    return ROUNDING * max(of_border, of_foreground) <= PROMISE


def scaled_float_suffices(settings: WeightSettings, numbers: Numbers, exponent: int) -> bool:
    """Whether float32 does on GPUs where the factors of LogConv's sums carry 2^exponent each."""
    arithmetic = ARITHMETICS["gpu", False]
    lost_in_lmbdas = arithmetic.lost_by_logarithm + exponent * 2 * LN2
    return _float_suffices(settings, arithmetic, lost_in_lmbdas * numbers.decay_length)


def _logconv_numbers(
    settings: WeightSettings, height: int, width: int, kernels: str, double: bool
) -> Numbers:
    decay_length = max(settings.lmbda, SMALLEST_DECAY_LENGTH)
    bits_per_step = 1 / (decay_length * LN2)
    radius = min(settings.radius, max(height, width, 1) - 1)
    largest_sum = 2 * geometric_sum(decay_length, radius) - 1
    slack = decay_length * (2 * math.log(largest_sum))

    # What is below this need not be told from 0; windows that are cut below show no less.
    bits_that_matter = _limit(settings, slack, NEGLIGIBLE_IN_SCALED_SUMS) * bits_per_step
    exponent, _ = scale_exponent(min(2 * radius * bits_per_step, bits_that_matter), largest_sum)

    arithmetic = ARITHMETICS[kernels, double]
    lost_in_lmbdas = arithmetic.lost_by_logarithm + arithmetic.scales * exponent * 2 * LN2
    double_inside = (
        double
        or decay_length > arithmetic.largest_decay * min(settings.fds, settings.bws)
        or not _float_suffices(settings, arithmetic, lost_in_lmbdas * decay_length)
    )
    arithmetic = ARITHMETICS[kernels, double_inside]
    limit = min(_limit(settings, slack, arithmetic.negligible), LARGEST_REACH)
    # Pixels of an instance within the limit that lie farther away than this do not even show in its sum.
    tail = decay_length * (arithmetic.tail + 3 * math.log1p(decay_length))

    cut_radius = min(radius, math.ceil(min(limit + tail, LARGEST_REACH)) + 1)
    return Numbers(
        decay_length=decay_length,
        bits_per_step=bits_per_step,
        limit=limit,
        bits_that_matter=min(bits_that_matter, LARGEST_SCALE),
        largest_sum=largest_sum,
        radius=radius,
        reach=min(radius, math.ceil(limit) + 1),
        cut_radius=cut_radius,
        scale_exponent=exponent,
        double_inside=double_inside,
        **_scales(settings),
    )


def _euclidean_numbers(
    settings: WeightSettings, height: int, width: int, kernels: str, double: bool
) -> Numbers:
    arithmetic = ARITHMETICS[kernels, double]
    half_bit = arithmetic.half_bit
    in_crowd = CROWD / crowd_beyond(settings.fds, height, width)
    foreground = gaussian_reach(settings.fds, abs(1 - settings.fbr), min(half_bit, in_crowd))
    border = gaussian_reach(settings.bws, settings.bwf, half_bit) if settings.bwf > 0 else 0.0
    limit = math.ceil(min(max(foreground, border), LARGEST_REACH))
    reach = min(limit, math.ceil(math.hypot(height, width)), LARGEST_REACH)
    return Numbers(
        decay_length=1.0,
        bits_per_step=1.0,
        limit=float(limit),
        bits_that_matter=0.0,
        largest_sum=1.0,
        radius=reach,
        reach=reach,
        cut_radius=min(reach, max(height, width, 1) - 1),
        scale_exponent=0,
        double_inside=double or not _float_suffices(settings, arithmetic, 0.0),
        **_scales(settings),
    )
