"""Words of 32 bits, one for each pixel."""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") == "1")


@triton.jit
def bitwise_or(a, b):
    return a | b


@triton.jit
def population(x):
    """The number of bits set in each int32."""
    x = x.to(tl.uint32, bitcast=True)
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def reversed_bits(x):
    """uint32 with the order of the bits reversed."""
    x = ((x >> 1) & 0x55555555) | ((x & 0x55555555) << 1)
    x = ((x >> 2) & 0x33333333) | ((x & 0x33333333) << 2)
    x = ((x >> 4) & 0x0F0F0F0F) | ((x & 0x0F0F0F0F) << 4)
    x = ((x >> 8) & 0x00FF00FF) | ((x & 0x00FF00FF) << 8)
    return (x >> 16) | (x << 16)


@triton.jit
def leading_zeros(x):
    """The zeros above the highest bit set in each uint32; 32 where none is set."""
    if INTERPRETED:
        # Without the bit next to the highest, nothing rounds up.
        alone = (x - (x & (x >> 1))).to(tl.float32)
        return tl.where(x != 0, 158 - (alone.to(tl.int32, bitcast=True) >> 23), 32)
    else:
        return tl.inline_asm_elementwise("clz.b32 $0, $1;", "=r,r", [x], dtype=tl.int32, is_pure=True, pack=1)


@triton.jit
def first_and_last(x):
    """The numbers of the lowest and of the highest bit set in an int32 that is not 0."""
    x = x.to(tl.uint32, bitcast=True)
    return leading_zeros(reversed_bits(x)), 31 - leading_zeros(x)


@triton.jit
def steps_to_bits(words, position):
    """Steps from bit `position`, perhaps none of 0 to 31, to the nearest bit set in each of the uint32."""
    within = tl.minimum(tl.maximum(position, 0), 31)
    down = leading_zeros(words << (31 - within).to(tl.uint32))
    up = leading_zeros(reversed_bits(words) << within.to(tl.uint32))
    return tl.minimum(down, up) + tl.abs(position - within)
