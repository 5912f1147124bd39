"""The three stages that the kernels share: distance to an instance, accumulation over instances, the weight.

docs/algorithm.md tells why, with a figure for each stage.

LogConv distances: with a = exp(-1 / lmbda), S_i(p) is the sum of a^|q - p| over the pixels q of instance i in
the window around p, rows first, then columns. It spans far more than a float32, so it is held in one of three
ways:

- SCALED: times a power of 2, the same for all pixels. Sums over rows and columns are matrix
  products. For settings that need no more than the range of a float32.
- CHUNK_SCALED: so for each chunk of the instance, but with a power of 2 that grows with the way from the
  pixel to the chunk; the chunks are added up by their logarithms.
- LOGARITHMIC: as log2 S_i(p) from the beginning. For any settings, and the only one in float64.

EUCLIDEAN distances are held as their squares, which are whole numbers: in each row of the instance the pixel
nearest in x, then the nearest row.

For LogConv, tiles are [column, row]: so an instance's rows, one word each, lie side by side in a warp; for
EUCLIDEAN, [row, column]: so a thread has pixels of one column. LogConv distances are in units of
fds sqrt(2 ln 2) pixels, which makes the foreground term 2^-(d^2).
"""

import triton
import triton.language as tl

from ..codes import WAYS
from .bits import INTERPRETED
from .rules import border_rank, border_squared

SCALED = tl.constexpr(WAYS.index("scaled"))
CHUNK_SCALED = tl.constexpr(WAYS.index("chunk_scaled"))
LOGARITHMIC = tl.constexpr(WAYS.index("logarithmic"))
EUCLIDEAN = tl.constexpr(WAYS.index("euclidean"))


@triton.jit
def number(x, COMPUTE: tl.constexpr):
    """A kernel's float argument in the type of the computation; in the interpreter it is a plain float."""
    return tl.full([], x, COMPUTE)


@triton.jit
def full_tile(value, COMPUTE: tl.constexpr, WAY: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """`value` at each pixel of a tile, whose axes are as distances found in this way want them."""
    if WAY == EUCLIDEAN:
        return tl.full([TILE_H, TILE_W], value, COMPUTE)
    else:
        return tl.full([TILE_W, TILE_H], value, COMPUTE)


# ------------------------------------------------------------------------------------------ both distances


@triton.jit
def beyond(position, first, last):
    """How far `position` lies outside of first..last: 0 within."""
    return tl.maximum(tl.maximum(first - position, position - last), 0)


@triton.jit
def near_enough(steps_y, steps_x, limit, WAY: tl.constexpr):
    """Whether the distance over so many steps is at most `limit` steps."""
    if WAY == EUCLIDEAN:
        y, x, limit = steps_y.to(tl.float32), steps_x.to(tl.float32), limit.to(tl.float32)
        return y * y + x * x <= limit * limit
    else:
        return steps_y + steps_x <= limit


# --------------------------------------------------------------------------------------- LogConv distances


@triton.jit
def log2(x):
    """log2 of x >= 0: of float32 by the hardware's instruction, for which subnormal numbers are 0."""
    if x.dtype == tl.float32 and not INTERPRETED:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.log2(x)


@triton.jit
def shift(out, log2_decay, exponent, WAY: tl.constexpr):
    """The exponent that the factors towards a chunk carry, `out` steps away along their axis."""
    if WAY == CHUNK_SCALED:
        exponent -= out * log2_decay
    elif WAY == SCALED:
        exponent += tl.zeros_like(out)
    else:
        tl.static_assert(False, "there is no such way")
    return exponent


@triton.jit
def shift_towards(
    position, first, SIZE: tl.constexpr, log2_decay, exponent, WAY: tl.constexpr, COMPUTE: tl.constexpr
):
    """The exponent that factors from a position of the tile to SIZE of a chunk from `first` on carry."""
    return shift(beyond(position, first, first + SIZE - 1).to(COMPUTE), log2_decay, exponent, WAY)


@triton.jit
def decay(steps, window, log2_decay, exponent):
    """a^steps 2^exponent within the window, else 0."""
    # The exponents are added up, for a^steps alone may be too small for a float.
    return tl.where(steps <= window, tl.exp2(steps * log2_decay + exponent), 0.0)


@triton.jit
def split(x):
    """float32 x as a sum of two that tensor cores take as TF32; the second loses what is below 2^-21 x."""
    high = (x.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def add_products(total, a_high, a_low, b_high, b_low):
    """total + a @ b of float32, as `split` returned them, on tensor cores: with an error of 2^-20."""
    total = tl.dot(a_high, b_high, total, input_precision="tf32")
    total = tl.dot(a_low, b_high, total, input_precision="tf32")
    return tl.dot(a_high, b_low, total, input_precision="tf32")


@triton.jit
def add_products_with_bits(total, a_high, a_low, bits):
    """total + a @ bits, where `bits` are 0.0 and 1.0."""
    total = tl.dot(a_high, bits, total, input_precision="tf32")
    return tl.dot(a_low, bits, total, input_precision="tf32")


@triton.jit
def add_logarithms(a, b):
    """log2(2^a + 2^b); either may be -inf."""
    larger, smaller = tl.maximum(a, b), tl.minimum(a, b)
    difference = tl.where(smaller > -float("inf"), smaller - larger, -float("inf"))
    return larger + log2(1.0 + tl.exp2(difference))


@triton.jit
def log_sum(terms):
    """log2 of the sums of 2^terms along axis 1."""
    largest = tl.max(terms, 1)
    largest = tl.where(largest > -float("inf"), largest, 0.0)
    return largest + log2(tl.sum(tl.exp2(terms - largest[:, None]), 1))


@triton.jit
def add_row_logarithms(sums, row_sums, steps, window, log2_decay):
    """The logarithms `sums` [TILE_W, TILE_H] with those of one row [TILE_W], |steps| [TILE_H] away, added."""
    steps = tl.abs(steps).to(sums.dtype)
    factors = tl.where(steps <= window, steps * log2_decay, -float("inf"))
    return add_logarithms(sums, row_sums[:, None] + factors[None, :])


# -------------------------------------------------------------------------------------------- accumulate


@triton.jit
def distance_and_exponent(found, log_scale, foreground_exponent, WAY: tl.constexpr):
    """From log2 S, or squares: a measure of distance to compare, and the foreground term's exponent."""
    if WAY == EUCLIDEAN:
        return found, found * foreground_exponent
    else:
        d = -log_scale * found
        return d, -d * d


@triton.jit
def accumulate(d, exponent, fd, near, other, BORDER: tl.constexpr, NEAREST_FALLOFF: tl.constexpr = False):
    """One more instance: fd with its term 2^exponent, the nearest d, and the other one of the border rule.

    d may be any measure that grows with the distance. With NEAREST_FALLOFF fd stays what it is: it takes a
    term once all instances of a class are known.
    """
    if not NEAREST_FALLOFF:
        fd += tl.exp2(exponent)
    return fd, tl.minimum(near, d), border_rank(other, near, d, BORDER)


@triton.jit
def nearest_term(near, foreground_exponent, WAY: tl.constexpr):
    """The foreground term of the nearest instance, of what was accumulated of distances found in some way."""
    if WAY == EUCLIDEAN:
        return tl.exp2(near * foreground_exponent)
    else:
        return tl.exp2(-near * near)


# ----------------------------------------------------------------------------------------------- compose


@triton.jit
def enough(seen, instances, EVERY_INSTANCE: tl.constexpr, FEWEST_INSTANCES: tl.constexpr):
    """Whether there are instances enough for a border term, where `seen` were within reach."""
    if EVERY_INSTANCE:
        return (seen == instances) & (seen >= FEWEST_INSTANCES)
    else:
        return seen >= FEWEST_INSTANCES


@triton.jit
def border_term(near, other, has_border, border_scale, BORDER: tl.constexpr):
    """2^-(x^2 border_scale), with what the border rule makes of the two distances for x; else 0."""
    x = border_squared(near, other, BORDER)
    return tl.where(has_border, tl.exp2(-x * x * border_scale), 0.0)


@triton.jit
def border_of(near, other, has_border, step_scale, border_scale, WAY: tl.constexpr, BORDER: tl.constexpr):
    """The border term of what was accumulated of distances found in some way."""
    if WAY == EUCLIDEAN:
        near, other = step_scale * tl.sqrt(near), step_scale * tl.sqrt(other)
    return border_term(near, other, has_border, border_scale, BORDER)


@triton.jit
def background_weights(fd, border, fbr, bwf):
    """The weight off the foreground."""
    return fbr + (1.0 - fbr) * fd + bwf * border
