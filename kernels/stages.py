"""The three stages that the kernels share: distance to an instance, accumulation over instances, the weight.

Distances are kept in units of fds sqrt(2 ln 2) px, so that the foreground term is 2^-(d^2).
"""

import triton
import triton.language as tl

# ---------------------------------------------------------------------------------------------- distance


@triton.jit
def beyond(position, first, last):
    """How far `position` lies outside of first..last: 0 within."""
    return tl.maximum(tl.maximum(first - position, position - last), 0)


@triton.jit
def decay(steps, out_of_box, radius, log2_decay, exponent):
    """a^(steps - out_of_box) 2^exponent within the window, else 0.

    The exponents are added up first: a^steps alone may be too small for a float. Steps shorter than the way
    to the box lead to no pixel of the instance; they are held at 0 so that they cannot become infinite.
    """
    factor = tl.exp2(tl.maximum(steps - out_of_box, 0.0) * log2_decay + exponent)
    return tl.where(steps <= radius, factor, 0.0)


@triton.jit
def leading_bits(x):
    """The part of a float32 that TF32 holds exactly."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def add_products(total, a, b):
    """total + a @ b in three TF32 products: all but 2^-22 of each."""
    a_leading, b_leading = leading_bits(a), leading_bits(b)
    total = tl.dot(a_leading, b_leading, total, input_precision="tf32")
    total = tl.dot(a - a_leading, b_leading, total, input_precision="tf32")
    return tl.dot(a_leading, b - b_leading, total, input_precision="tf32")


@triton.jit
def add_exact_products(total, a, b):
    """total + a @ b in two TF32 products, where TF32 holds `a` exactly."""
    b_leading = leading_bits(b)
    total = tl.dot(a, b_leading, total, input_precision="tf32")
    return tl.dot(a, b - b_leading, total, input_precision="tf32")


@triton.jit
def add_logarithms(a, b):
    """log2(2^a + 2^b); either may be -inf."""
    larger, smaller = tl.maximum(a, b), tl.minimum(a, b)
    difference = tl.where(smaller > -float("inf"), smaller - larger, -float("inf"))
    return larger + tl.log2(1.0 + tl.exp2(difference))


@triton.jit
def log_sum(terms):
    """log2 of the sums of 2^terms along axis 0."""
    largest = tl.max(terms, 0)
    shift = tl.where(largest > -float("inf"), largest, 0.0)
    return shift + tl.log2(tl.sum(tl.exp2(terms - shift[None, :]), 0))


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
