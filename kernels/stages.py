"""The three stages that the kernels share: distance to an instance, accumulation over instances, the weight.

With a = exp(-1 / lmbda), S_i(p) is the sum of a^|q - p| over the pixels q of instance i in the window around p,
rows first, then columns. It spans far more than a float32, so it is held in one of three ways:

- INSTANCE_SCALED: as S_i(p) a^-out(p), with out(p) the steps from p to the bounding box of the instance. Sums
  over rows and columns are matrix products. For instances so small, or settings so mild, that this suffices.
- CHUNK_SCALED: so for each chunk of the instance, the chunks added up by their logarithms.
- LOGARITHMIC: as log2 S_i(p) from the beginning. For any settings, and the only one in float64.

Tiles are [column, row]: so an instance's rows, one word each, lie side by side in a warp. Distances are in units
of fds sqrt(2 ln 2) pixels, which makes the foreground term 2^-(d^2).
"""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") == "1")

INSTANCE_SCALED = tl.constexpr(0)
CHUNK_SCALED = tl.constexpr(1)
LOGARITHMIC = tl.constexpr(2)


@triton.jit
def number(x, COMPUTE: tl.constexpr):
    """A kernel's float argument in the type of the computation; in the interpreter it is a plain float."""
    return tl.full([], x, COMPUTE)


# ---------------------------------------------------------------------------------------------- distance


@triton.jit
def beyond(position, first, last):
    """How far `position` lies outside of first..last: 0 within."""
    return tl.maximum(tl.maximum(first - position, position - last), 0)


@triton.jit
def log2(x):
    """log2 of x >= 0. Of float32 by the hardware's instruction, within 2^-22; subnormal numbers count as 0."""
    if x.dtype == tl.float32 and not INTERPRETED:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.log2(x)


@triton.jit
def shift_exponent(out, log2_decay, exponent):
    """The exponent of a^-out 2^exponent."""
    return exponent - out * log2_decay


@triton.jit
def decay(steps, shifted, window, log2_decay, exponent):
    """a^steps 2^shifted within the window, else 0.

    Exponents are added up first: a^steps alone may be too small for a float. Steps shorter than the way to the
    box lead to no pixel of the instance; what they give is kept finite, for it is multiplied by 0.
    """
    factor = tl.exp2(tl.minimum(steps * log2_decay + shifted, exponent))
    return tl.where(steps <= window, factor, 0.0)


@triton.jit
def add_products_with_exact(total, a, b, PRECISE: tl.constexpr):
    """total + a @ b on tensor cores, `a` float32 as a sum of two or three bfloat16, `b` bfloat16 as it is."""
    if INTERPRETED:  # it cannot multiply bfloat16
        return tl.dot(a, b, total, input_precision="ieee")
    b = b.to(tl.bfloat16)
    high = a.to(tl.bfloat16)
    rest = a - high.to(tl.float32)
    middle = rest.to(tl.bfloat16)
    total = tl.dot(high, b, total)
    total = tl.dot(middle, b, total)
    if PRECISE:
        total = tl.dot((rest - middle.to(tl.float32)).to(tl.bfloat16), b, total)
    return total


@triton.jit
def add_products(total, a, b, PRECISE: tl.constexpr):
    """total + a @ b on tensor cores, each float32 as a sum of two bfloat16 (error 2^-17), or three (2^-23)."""
    if INTERPRETED:
        return tl.dot(a, b, total, input_precision="ieee")
    a_high, b_high = a.to(tl.bfloat16), b.to(tl.bfloat16)
    a_rest, b_rest = a - a_high.to(tl.float32), b - b_high.to(tl.float32)
    a_middle, b_middle = a_rest.to(tl.bfloat16), b_rest.to(tl.bfloat16)
    total = tl.dot(a_high, b_high, total)
    total = tl.dot(a_middle, b_high, total)
    total = tl.dot(a_high, b_middle, total)
    if PRECISE:
        a_low = (a_rest - a_middle.to(tl.float32)).to(tl.bfloat16)
        b_low = (b_rest - b_middle.to(tl.float32)).to(tl.bfloat16)
        total = tl.dot(a_middle, b_middle, total)
        total = tl.dot(a_low, b_high, total)
        total = tl.dot(a_high, b_low, total)
    return total


@triton.jit
def add_chunk(
    sums,  # [TILE_W, TILE_H], scaled
    words,  # [ROWS]: bit c of word r is the pixel (chunk_y + r, chunk_x + c)
    chunk_y,
    chunk_x,
    y,  # [TILE_H]
    x,  # [TILE_W]
    shifted_y,  # [TILE_H], shift_exponent of the way to the box along y
    shifted_x,  # [TILE_W]
    window,
    log2_decay,
    exponent,
    PRECISE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CELL: tl.constexpr,
):
    """sums + what a chunk of 0/1 pixels adds: factors along x times pixels times factors along y."""
    row_sums = tl.zeros([x.shape[0], ROWS], tl.float32)
    for part in tl.static_range(0, CELL // COLUMNS):
        column = part * COLUMNS + tl.arange(0, COLUMNS)
        own = ((words[None, :] >> column[:, None]) & 1) != 0
        pixels = tl.where(own, 1.0, 0.0)  # [COLUMNS, ROWS]
        steps = tl.abs((chunk_x + column).to(tl.float32)[None, :] - x.to(tl.float32)[:, None])
        factors = decay(steps, shifted_x[:, None], window, log2_decay, exponent)  # [TILE_W, COLUMNS]
        row_sums = add_products_with_exact(row_sums, factors, pixels, PRECISE)
    row_y = (chunk_y + tl.arange(0, ROWS)).to(tl.float32)
    steps = tl.abs(row_y[:, None] - y.to(tl.float32)[None, :])
    factors = decay(steps, shifted_y[None, :], window, log2_decay, exponent)  # [ROWS, TILE_H]
    return add_products(sums, row_sums, factors, PRECISE)


@triton.jit
def add_logarithms(a, b):
    """log2(2^a + 2^b); either may be -inf."""
    larger, smaller = tl.maximum(a, b), tl.minimum(a, b)
    difference = tl.where(smaller > -float("inf"), smaller - larger, -float("inf"))
    return larger + log2(1.0 + tl.exp2(difference))


@triton.jit
def log_sum(terms):
    """log2 of the sums of 2^terms along axis 0."""
    largest = tl.max(terms, 0)
    shift = tl.where(largest > -float("inf"), largest, 0.0)
    return shift + log2(tl.sum(tl.exp2(terms - shift[None, :]), 0))


@triton.jit
def add_row_logarithms(sums, row_sums, steps, window, log2_decay):
    """The logarithms `sums` [TILE_W, TILE_H] with those of one row [TILE_W], |steps| [TILE_H] away, added."""
    steps = tl.abs(steps).to(sums.dtype)
    factors = tl.where(steps <= window, steps * log2_decay, -float("inf"))
    return add_logarithms(sums, row_sums[:, None] + factors[None, :])


# -------------------------------------------------------------------------------------------- accumulate


@triton.jit
def accumulate(d, fd, near, other, FARTHEST: tl.constexpr):
    """One more instance: fd, the nearest, and the farthest or second nearest distance."""
    fd += tl.exp2(-d * d)
    if FARTHEST:
        other = tl.maximum(other, d)
    else:
        other = tl.minimum(other, tl.maximum(near, d))
    return fd, tl.minimum(near, d), other


# ----------------------------------------------------------------------------------------------- compose


@triton.jit
def compose(fd, near, other, with_border, foreground, fbr, bwf, border_scale):
    """The weight; the border term, where `with_border`, is bwf 2^-((near + other)^2 border_scale)."""
    both = tl.where(with_border, near + other, float("inf"))
    background = fbr + (1.0 - fbr) * fd + bwf * tl.exp2(-both * both * border_scale)
    return tl.where(foreground, 1.0, background)
