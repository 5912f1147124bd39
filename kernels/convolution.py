"""The lambda kernel along one axis of an image: one launch for each axis.

What all windows of a tile of the result show, before and after it, is summed once; the rest of their pixels,
whose number does not grow with the windows, is multiplied by banded matrices of decay factors.
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
    line_ptr, stride, position, size, radius, first, last, PADDING: tl.constexpr, ROWS: tl.constexpr
):
    """Values [line, position] of the padded axis, as far as the windows of first..last show them.

    With ROWS neighbours along the axis lie side by side in a warp, else neighbouring lines.
    """
    lowest, highest = first - radius, last + radius
    if PADDING == ZEROS:
        lowest, highest = tl.maximum(lowest, 0), tl.minimum(highest, size - 1)
    there = (position >= lowest) & (position <= highest)
    offset = source(position, size, PADDING).to(tl.int64) * stride
    if ROWS:
        return tl.load(line_ptr[:, None] + offset[None, :], mask=there[None, :], other=0)
    return tl.trans(tl.load(line_ptr[None, :] + offset[:, None], mask=there[:, None], other=0))


@triton.jit
def chunks_shown(radius, ALONG: tl.constexpr, CHUNK: tl.constexpr):
    """How many chunks next to a tile, on each side, all of its windows show."""
    return tl.maximum(radius - (ALONG - 1), 0) // CHUNK


@triton.jit
def sum_of_chunk(x, CHUNK: tl.constexpr):
    """The sums [LINES] of [LINES, CHUNK], by neighbours: tl.sum adds up as threads hold them.

    How they do differs from version to version of Triton.
    """
    tl.static_assert(CHUNK == 16, "pairs are formed four times")
    for _ in tl.static_range(4):
        a, b = tl.split(tl.reshape(x, [x.shape[0], x.shape[1] // 2, 2]))
        x = a + b
    return tl.reshape(x, [x.shape[0]])


@triton.jit
def sum_shown(
    line_ptr, stride, size, radius, first, last, decay_, DIRECTION: tl.constexpr,
    COMPUTE: tl.constexpr, PADDING: tl.constexpr, ROWS: tl.constexpr,
    LINES: tl.constexpr, ALONG: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """What all windows of a tile show before (-1) or after (+1) it, as its edge there sees it: [LINES]."""
    shown = chunks_shown(radius, ALONG, CHUNK)
    total = tl.zeros([LINES], COMPUTE)
    if shown > 0:
        nearest = first if DIRECTION < 0 else first + (ALONG - 1)  # of the tile
        sums = tl.zeros([LINES, CHUNK], COMPUTE)
        for chunk in tl.range(0, shown, num_stages=1):
            steps = chunk * CHUNK + tl.arange(0, CHUNK) + 1
            at = nearest + DIRECTION * steps
            values = load_lines(line_ptr, stride, at, size, radius, first, last, PADDING, ROWS)
            sums += values.to(COMPUTE) * tl.exp2(steps.to(COMPUTE) * decay_)[None, :]
        total = sum_of_chunk(sums, CHUNK)
    return total


@triton.jit
def add_shown(total, sums, radius, decay_, DIRECTION: tl.constexpr, ALONG: tl.constexpr, CHUNK: tl.constexpr):
    """Adds to a tile [LINES, ALONG] what sum_shown found on one side of it."""
    if chunks_shown(radius, ALONG, CHUNK) > 0:
        offset = tl.arange(0, ALONG)
        steps = offset if DIRECTION < 0 else ALONG - 1 - offset
        total += sums[:, None] * tl.exp2(steps.to(total.dtype) * decay_)[None, :]
    return total


@triton.jit
def sum_by_products(
    line_ptr, stride, size, radius, first, last, decay_,
    PADDING: tl.constexpr, ROWS: tl.constexpr, LINES: tl.constexpr, ALONG: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """float32 sums [LINES, ALONG] over what not all windows of the tile show, and over the tile itself."""
    shown = chunks_shown(radius, ALONG, CHUNK)
    begin, chunks = -radius, (ALONG + 2 * radius + CHUNK - 1) // CHUNK
    if shown > 0:  # by whole chunks, so that those that all windows show can be passed over
        outer = (radius - shown * CHUNK + CHUNK - 1) // CHUNK
        begin, chunks = -outer * CHUNK, ALONG // CHUNK + 2 * outer
    total = tl.zeros([LINES, ALONG], tl.float32)
    for chunk in tl.range(0, chunks, num_stages=1):
        offset = begin + chunk * CHUNK
        passed = tl.where(offset < 0, -shown, tl.where(offset < ALONG, 0, shown)) * CHUNK
        offset += passed + tl.arange(0, CHUNK)
        values = load_lines(line_ptr, stride, first + offset, size, radius, first, last, PADDING, ROWS)
        steps = tl.abs(offset[:, None] - tl.arange(0, ALONG)[None, :])
        factors = tl.where(steps <= radius, tl.exp2(steps.to(tl.float32) * decay_), 0.0)  # [CHUNK, ALONG]
        total = add_products(total, *split(values.to(tl.float32)), *split(factors))
    return total


@triton.jit
def sum_by_steps(
    line_ptr, stride, size, radius, first, last, decay_, COMPUTE: tl.constexpr,
    PADDING: tl.constexpr, LINES: tl.constexpr, ALONG: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The same in any type, and without products, which spread a NaN to where no window shows it."""
    shown = chunks_shown(radius, ALONG, CHUNK) * CHUNK
    passed = tl.maximum(shown - ALONG + 1, 0)  # steps that lead from all results to what all windows show
    total = tl.zeros([LINES, ALONG], COMPUTE)
    for near in range(-radius + passed, radius - passed + 1):
        step = near + tl.where(near <= -ALONG, -passed, tl.where(near >= ALONG, passed, 0))
        offset = tl.arange(0, ALONG) + step
        values = load_lines(line_ptr, stride, first + offset, size, radius, first, last, PADDING, True)
        beside = tl.maximum(-offset, offset - (ALONG - 1))  # steps from the tile
        values = tl.where(((beside > 0) & (beside <= shown))[None, :], 0.0, values.to(COMPUTE))
        total += values * tl.exp2(tl.abs(number(step, COMPUTE)) * decay_)
    return total


@triton.jit
def add_edges(total, line_ptr, stride, size, edge_weight, COMPUTE: tl.constexpr):
    """Adds what lies so far out that it weighs `edge_weight` in all: the edges' values."""
    weight = number(edge_weight, COMPUTE)
    edges = tl.load(line_ptr).to(COMPUTE) + tl.load(line_ptr + (size - 1).to(tl.int64) * stride).to(COMPUTE)
    return total + tl.where(weight != 0.0, edges * weight, 0.0)[:, None]


@triton.jit
def store_lines(out_ptr, total, position, along_stride, size, line, across_stride, lines, ROWS: tl.constexpr):
    """Stores results [line, position], side by side as `load_lines` says."""
    out = total.to(out_ptr.dtype.element_ty)
    along, across = position.to(tl.int64) * along_stride, line.to(tl.int64) * across_stride
    if ROWS:
        inside = (line < lines)[:, None] & (position < size)[None, :]
        tl.store(out_ptr + across[:, None] + along[None, :], out, mask=inside)
    else:
        inside = (position < size)[:, None] & (line < lines)[None, :]
        tl.store(out_ptr + along[:, None] + across[None, :], tl.trans(out), mask=inside)


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
    CHUNK: tl.constexpr,  # pixels along the axis that are taken at a time
    FEW: tl.constexpr,  # lines that are taken at a time where sums go step by step
):
    image, tile_across, tile = image_row_column(tl.program_id(0), tiles_across, tiles)
    first = tile * ALONG
    last = tl.minimum(first + ALONG, size) - 1
    position = first + tl.arange(0, ALONG)
    input_ptr += image * image_stride
    out_ptr += image * out_image_stride
    decay_ = number(log2_decay, COMPUTE)

    finite = COMPUTE == tl.float32
    if COMPUTE == tl.float32:
        line = tile_across * ACROSS + tl.arange(0, ACROSS)
        # Lines beyond the last are taken from there, without a mask.
        line_ptr = input_ptr + tl.minimum(line, lines - 1).to(tl.int64) * across_stride
        before = sum_shown(
            line_ptr, along_stride, size, radius, first, last, decay_,
            -1, COMPUTE, PADDING, ALONG_ROWS, ACROSS, ALONG, CHUNK,
        )  # fmt: skip
        after = sum_shown(
            line_ptr, along_stride, size, radius, first, last, decay_,
            1, COMPUTE, PADDING, ALONG_ROWS, ACROSS, ALONG, CHUNK,
        )  # fmt: skip
        total = sum_by_products(
            line_ptr, along_stride, size, radius, first, last, decay_,
            PADDING, ALONG_ROWS, ACROSS, ALONG, CHUNK,
        )  # fmt: skip
        not_finite = tl.max(tl.where(tl.abs(total) < float("inf"), 0, 1))
        finite = not_finite == 0
        if finite:
            total = add_shown(total, before, radius, decay_, -1, ALONG, CHUNK)
            total = add_shown(total, after, radius, decay_, 1, ALONG, CHUNK)
            if PADDING == REPLICATE:
                total = add_edges(total, line_ptr, along_stride, size, edge_weight, COMPUTE)
            store_lines(
                out_ptr, total, position, out_along_stride, size, line, out_across_stride, lines, ALONG_ROWS
            )
    if not finite:
        for few in tl.range(0, ACROSS // FEW, num_stages=1):
            few_lines = tile_across * ACROSS + few * FEW + tl.arange(0, FEW)
            few_ptr = input_ptr + tl.minimum(few_lines, lines - 1).to(tl.int64) * across_stride
            sums = sum_by_steps(
                few_ptr, along_stride, size, radius, first, last, decay_,
                COMPUTE, PADDING, FEW, ALONG, CHUNK,
            )  # fmt: skip
            for side in tl.static_range(2):
                shown = sum_shown(
                    few_ptr, along_stride, size, radius, first, last, decay_,
                    2 * side - 1, COMPUTE, PADDING, ALONG_ROWS, FEW, ALONG, CHUNK,
                )  # fmt: skip
                sums = add_shown(sums, shown, radius, decay_, 2 * side - 1, ALONG, CHUNK)
            if PADDING == REPLICATE:
                sums = add_edges(sums, few_ptr, along_stride, size, edge_weight, COMPUTE)
            store_lines(
                out_ptr,
                sums,
                position,
                out_along_stride,
                size,
                few_lines,
                out_across_stride,
                lines,
                ALONG_ROWS,
            )
