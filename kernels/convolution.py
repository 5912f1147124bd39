"""The lambda kernel along one axis of an image: one launch for each axis.

A tile of the result is the pixels of its windows times a banded matrix of decay factors.
"""

import triton
import triton.language as tl

from ..codes import PADDING_MODES
from .cells import image_row_column
from .stages import add_products, number, split

ZEROS = tl.constexpr(PADDING_MODES.index("constant"))
REFLECT = tl.constexpr(PADDING_MODES.index("reflect"))
REPLICATE = tl.constexpr(PADDING_MODES.index("replicate"))
CIRCULAR = tl.constexpr(PADDING_MODES.index("circular"))


@triton.jit
def source(position, size, PADDING: tl.constexpr):
    """Where the value at `position` of the padded axis comes from."""
    if PADDING == REFLECT:
        position = (size - 1) - tl.abs((size - 1) - tl.abs(position))
    elif PADDING == REPLICATE:
        position = tl.minimum(tl.maximum(position, 0), size - 1)
    elif PADDING == CIRCULAR:
        position = tl.where(position < 0, position + size, position)
        position = tl.where(position >= size, position - size, position)
    else:
        tl.static_assert(PADDING == ZEROS, "there is no such padding")
    return position


@triton.jit
def load_lines(
    line_ptr, in_line, stride, position, size, radius, first, last, PADDING: tl.constexpr, ROWS: tl.constexpr
):
    """Values [line, position] of the padded axis, as far as the windows of first..last show them.

    With ROWS neighbours along the axis lie side by side in a warp, else neighbouring lines.
    """
    if ROWS:
        position, line_ptr, in_line = position[None, :], line_ptr[:, None], in_line[:, None]
    else:
        position, line_ptr, in_line = position[:, None], line_ptr[None, :], in_line[None, :]
    at = source(position, size, PADDING)
    there = (at >= 0) & (at < size) & (position >= first - radius) & (position <= last + radius)
    values = tl.load(line_ptr + at.to(tl.int64) * stride, mask=in_line & there, other=0)
    return values if ROWS else tl.trans(values)


@triton.jit(
    do_not_specialize=[
        "input_ptr", "image_stride", "along_stride", "across_stride", "out_ptr", "out_image_stride",
        "out_along_stride", "out_across_stride", "size", "lines", "tiles", "tiles_across", "radius",
    ]
)  # fmt: skip
def convolve_axis_kernel(
    input_ptr,  # [N, along, across], any strides
    image_stride,
    along_stride,
    across_stride,
    out_ptr,  # likewise
    out_image_stride,
    out_along_stride,
    out_across_stride,
    size,  # of the axis along which to convolve
    lines,  # size of the other axis
    tiles,  # number of tiles along
    tiles_across,
    radius,
    log2_decay: tl.float64,
    edge_weight: tl.float64,  # REPLICATE only: sum of the factors beyond radius, all on the edge value
    COMPUTE: tl.constexpr,  # float32 or float64
    PADDING: tl.constexpr,
    ALONG_ROWS: tl.constexpr,  # convolve along the last axis, the one that is contiguous as a rule
    ALONG: tl.constexpr,
    ACROSS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    image, tile_across, tile = image_row_column(tl.program_id(0), tiles_across, tiles)
    first = tile * ALONG
    position = first + tl.arange(0, ALONG)
    line = tile_across * ACROSS + tl.arange(0, ACROSS)
    in_line = line < lines
    line_ptr = input_ptr + image * image_stride + line.to(tl.int64) * across_stride  # [ACROSS]
    last = tl.minimum(first + ALONG, size) - 1
    decay_ = number(log2_decay, COMPUTE)

    total = tl.zeros([ACROSS, ALONG], COMPUTE)
    finite = COMPUTE == tl.float32
    if COMPUTE == tl.float32:
        begin = first - radius
        for chunk in tl.range(0, (last + radius - begin) // CHUNK + 1, num_stages=1):
            at = begin + chunk * CHUNK + tl.arange(0, CHUNK)
            values = load_lines(
                line_ptr, in_line, along_stride, at, size, radius, first, last, PADDING, ALONG_ROWS
            )  # [ACROSS, CHUNK]
            steps = tl.abs(at.to(tl.float32)[:, None] - position.to(tl.float32)[None, :])
            factors = tl.where(steps <= radius.to(tl.float32), tl.exp2(steps * decay_), 0.0)  # [CHUNK, ALONG]
            total = add_products(total, *split(values.to(tl.float32)), factors)
        # Products spread a NaN or an infinity to where no window shows it.
        largest = tl.max(tl.max(tl.where(tl.abs(total) < float("inf"), 0, 1), 1), 0)
        finite = largest == 0
    if not finite:
        total = tl.zeros([ACROSS, ALONG], COMPUTE)
        for step in range(-radius, radius + 1):
            values = load_lines(
                line_ptr, in_line, along_stride, position + step, size, radius, first, last, PADDING, True
            )
            total += values.to(COMPUTE) * tl.exp2(tl.abs(number(step, COMPUTE)) * decay_)
    if PADDING == REPLICATE:
        edges = tl.load(line_ptr, mask=in_line, other=0).to(COMPUTE)
        edges += tl.load(line_ptr + (size - 1).to(tl.int64) * along_stride, mask=in_line, other=0).to(COMPUTE)
        weight = number(edge_weight, COMPUTE)
        total += tl.where(weight != 0.0, edges * weight, 0.0)[:, None]

    out = total.to(out_ptr.dtype.element_ty)
    out_ptr += image * out_image_stride
    along_offset = position.to(tl.int64) * out_along_stride
    across_offset = line.to(tl.int64) * out_across_stride
    if ALONG_ROWS:
        offsets = across_offset[:, None] + along_offset[None, :]
        inside = in_line[:, None] & (position < size)[None, :]
    else:
        out = tl.trans(out)
        offsets = along_offset[:, None] + across_offset[None, :]
        inside = (position < size)[:, None] & in_line[None, :]
    tl.store(out_ptr + offsets, out, mask=inside)
