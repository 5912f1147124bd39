"""From the distances to N instances to weights: one launch, one pass over the distances."""

import triton
import triton.language as tl

from .rules import border_start
from .stages import accumulate, background_weights, border_term, number


@triton.jit(
    do_not_specialize=[
        "distance_ptr", "instances", "instance_stride", "row_stride", "column_stride", "foreground_ptr",
        "foreground_row_stride", "foreground_column_stride", "out_ptr", "height", "width",
    ]
)  # fmt: skip
def weigh_distances_kernel(
    distance_ptr,  # [N, H, W], any strides
    instances,  # N
    instance_stride,
    row_stride,
    column_stride,
    foreground_ptr,  # [H, W] of 0 and 1, any strides; unused without HAS_FOREGROUND
    foreground_row_stride,
    foreground_column_stride,
    out_ptr,  # [H, W], contiguous
    height,
    width,
    foreground_exponent: tl.float64,  # the foreground term is 2^(foreground_exponent d^2)
    border_exponent: tl.float64,  # the border term likewise, of the sum of two distances
    fbr: tl.float64,
    bwf: tl.float64,
    COMPUTE: tl.constexpr,
    BORDER: tl.constexpr,
    FEWEST_INSTANCES: tl.constexpr,
    HAS_FOREGROUND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height.to(tl.int64) * width
    y, x = pixel // width, pixel % width
    foreground_exponent = number(foreground_exponent, COMPUTE)
    fd = tl.zeros([BLOCK], COMPUTE)
    near = tl.full([BLOCK], float("inf"), COMPUTE)
    other = border_start(near, BORDER)
    pointers = distance_ptr + y * row_stride + x * column_stride
    for _ in range(0, instances):
        d = tl.load(pointers, mask=inside, other=0).to(COMPUTE)
        # Not scaled before they are added up: they may cancel.
        fd, near, other = accumulate(d, d * d * foreground_exponent, fd, near, other, BORDER)
        pointers += instance_stride
    foreground = tl.zeros([BLOCK], tl.int1)
    if HAS_FOREGROUND:
        pointers = foreground_ptr + y * foreground_row_stride + x * foreground_column_stride
        foreground = tl.load(pointers, mask=inside, other=0) != 0
    has_border = instances >= FEWEST_INSTANCES
    border = border_term(near, other, has_border, number(-border_exponent, COMPUTE), BORDER)
    background = background_weights(fd, border, number(fbr, COMPUTE), number(bwf, COMPUTE))
    weights = tl.where(foreground, 1.0, background)
    tl.store(out_ptr + pixel, weights.to(out_ptr.dtype.element_ty), mask=inside)
