"""From one mask per region, overlapping and soft as it may be, to weights: two launches.

The first notes the bounding box of each region in each cell of 32 x 32 pixels, so that the second reads no
more of the masks than its windows show. A mask may hold any values, so each chunk of it has a scale of its
own, and what is far below its largest value another one. Where settings allow no such scale, sums are held as
logarithms from the beginning.
"""

import triton
import triton.language as tl

from .. import codes
from .bits import INTERPRETED, bitwise_or, first_and_last
from .cells import (
    CELL,
    bounding_box,
    cells_around,
    clipped,
    image_row_column,
    packed_box,
    pixel_pointers,
    row_by_row,
)
from .products import (
    LEAST,
    as_left,
    as_right,
    kth,
    left_row_column,
    product_as_left,
    right_row_column,
    zeros_at,
)
from .rules import border_start
from .stages import (
    CHUNK_SCALED,
    EUCLIDEAN,
    accumulate,
    add_logarithms,
    add_products,
    add_row_logarithms,
    background_weights,
    beyond,
    border_of,
    decay,
    distance_and_exponent,
    enough,
    log2,
    log_sum,
    number,
    shift_towards,
    split,
)

EMPTY = tl.constexpr(-1)  # in place of a box where there is nothing in the cell
BAND = tl.constexpr(codes.BAND_BITS)  # values of a chunk as far apart as 2^BAND are summed together
SMALL_BITS = tl.constexpr((127 - 60) << 23)  # of 2^-60


@triton.jit
def log2_of_values(values):
    """log2 of a mask's values, which may be subnormal."""
    logs = log2(values)
    if values.dtype == tl.float32 and not INTERPRETED:
        logs = tl.where(values < 2.0**-100, log2(values * 2.0**64) - 64, logs)
    return logs


@triton.jit
def load_visible(pointers, ignore_pointers, inside, HAS_IGNORE: tl.constexpr):
    """Values of a mask, 0 where they are outside or to be ignored."""
    if HAS_IGNORE:
        inside &= tl.load(ignore_pointers, mask=inside, other=1) == 0
    return tl.load(pointers, mask=inside, other=0)


@triton.jit
def load_pixels(
    masks_ptr, row_stride, column_stride, ignore_ptr, ignore_row_stride, ignore_column_stride, y, x,
    x_register, bottom, right, HAS_IGNORE: tl.constexpr,
):  # fmt: skip
    """Values of a mask at rows and columns that broadcast; 0 beyond bottom and right.

    Of a column, x_register is what is constant in a register.
    """
    pointers = masks_ptr + (y.to(tl.int64) * row_stride + x.to(tl.int64) * column_stride)
    pointers += x_register.to(tl.int64) * column_stride
    ignore_pointers = ignore_ptr
    if HAS_IGNORE:
        ignore_pointers += y.to(tl.int64) * ignore_row_stride + x.to(tl.int64) * ignore_column_stride
        ignore_pointers += x_register.to(tl.int64) * ignore_column_stride
    return load_visible(pointers, ignore_pointers, (y <= bottom) & (x_register <= right - x), HAS_IGNORE)


@triton.jit
def as_integers(values):
    """The bits of numbers that are 0 or not."""
    if values.dtype == tl.float64:
        return values.to(tl.int64, bitcast=True)
    elif values.dtype == tl.float32:
        return values.to(tl.int32, bitcast=True)
    elif values.dtype == tl.uint8:
        return values
    else:
        return values.to(tl.int16, bitcast=True)


@triton.jit(
    do_not_specialize=[
        "masks_ptr", "region_stride", "row_stride", "column_stride", "ignore_ptr", "ignore_row_stride",
        "ignore_column_stride", "boxes_ptr", "height", "width", "cells_y", "cells_x",
    ]
)  # fmt: skip
def box_regions_kernel(
    masks_ptr,  # [N, H, W], any strides
    region_stride,
    row_stride,
    column_stride,
    ignore_ptr,  # [H, W] of 0 and 1, any strides; unused without HAS_IGNORE
    ignore_row_stride,
    ignore_column_stride,
    boxes_ptr,  # [N, cells_y, cells_x]
    height,
    width,
    cells_y,
    cells_x,
    HAS_IGNORE: tl.constexpr,
    TOGETHER: tl.constexpr,  # values of a row that lie side by side, and at a multiple of their size
):
    program = tl.program_id(0)
    region, cell_y, cell_x = image_row_column(program, cells_y, cells_x)
    row, column = tl.arange(0, CELL), tl.arange(0, CELL)
    rows, columns = tl.minimum(height - cell_y * CELL, CELL), tl.minimum(width - cell_x * CELL, CELL)
    # What would be beyond the edge is read within it once more: so no load needs a mask.
    y = cell_y * CELL + tl.minimum(row, rows - 1)
    x = cell_x * CELL + tl.minimum(column // TOGETHER, columns // TOGETHER - 1) * TOGETHER + column % TOGETHER
    masks_ptr += region * region_stride
    if TOGETHER > 1:  # Triton would not know
        masks_ptr = tl.multiple_of(masks_ptr, TOGETHER * (masks_ptr.dtype.element_ty.primitive_bitwidth // 8))
        row_stride, column_stride = row_stride // TOGETHER * TOGETHER, 1
    values = tl.load(pixel_pointers(masks_ptr, y, x, row_stride, column_stride))  # [CELL, CELL]
    box = EMPTY
    if tl.reduce(as_integers(values), None, bitwise_or) != 0:  # else most of it can be left out
        own = (values > 0) & (row < rows)[:, None] & (column < columns)[None, :]
        if HAS_IGNORE:
            pointers = pixel_pointers(ignore_ptr, y, x, ignore_row_stride, ignore_column_stride)
            own &= tl.load(pointers) == 0
        row_set = tl.reduce(tl.where(own, (1 << row)[:, None], 0), None, bitwise_or)
        column_set = tl.reduce(tl.where(own, (1 << column)[None, :], 0), None, bitwise_or)
        top, bottom = first_and_last(row_set)
        left, right = first_and_last(column_set)
        box = tl.where(row_set != 0, packed_box(top, bottom, left, right), EMPTY)
    tl.store(boxes_ptr + program, box)


@triton.jit
def by_rows(
    masks_ptr, row_stride, column_stride, ignore_ptr, ignore_row_stride, ignore_column_stride, top, bottom,
    left, right, y, x, window, log2_decay, COMPUTE: tl.constexpr, WAY: tl.constexpr, HAS_IGNORE: tl.constexpr,
):  # fmt: skip
    """The smallest squares, or log2 S, of a region's rows top..bottom and columns left..right, row by row."""
    infinity: tl.constexpr = float("inf")
    found = tl.full([x.shape[0], y.shape[0]], infinity if WAY == EUCLIDEAN else -infinity, COMPUTE)
    for chunk_x in range(left, right + 1, CELL):
        column = chunk_x + tl.arange(0, CELL)
        steps = tl.abs(column[None, :] - x[:, None]).to(COMPUTE)  # [TILE_W, CELL]
        if WAY == EUCLIDEAN:
            squares = steps * steps
        else:
            factors = tl.where(steps <= window, steps * log2_decay, -infinity)
        pointers = masks_ptr + top.to(tl.int64) * row_stride + column.to(tl.int64) * column_stride
        ignore_pointers = ignore_ptr + top.to(tl.int64) * ignore_row_stride
        ignore_pointers += column.to(tl.int64) * ignore_column_stride
        for row in range(top, bottom + 1):
            values = load_visible(pointers, ignore_pointers, column <= right, HAS_IGNORE).to(COMPUTE)
            if tl.max(values, 0) > 0:
                if WAY == EUCLIDEAN:
                    nearest = tl.min(tl.where(values[None, :] > 0, squares, infinity), 1)
                    steps_y = (row - y).to(COMPUTE)
                    found = tl.minimum(found, nearest[:, None] + (steps_y * steps_y)[None, :])
                else:
                    row_sums = log_sum(log2_of_values(values)[None, :] + factors)
                    found = add_row_logarithms(found, row_sums, row - y, window, log2_decay)
            pointers += row_stride
            ignore_pointers += ignore_row_stride
    return found


@triton.jit
def power_of_2(exponent):
    """2^exponent as float32, for exponents from -126 to 127."""
    return ((127 + exponent) << 23).to(tl.float32, bitcast=True)


@triton.jit
def largest_of(values):
    """The bits of the largest of float32 values, which are in the order of positive numbers."""
    return tl.maximum(tl.max(tl.max(values.to(tl.int32, bitcast=True), 0), 0), 0)


@triton.jit
def log2_sums_of_values(
    masks_ptr, row_stride, column_stride, ignore_ptr, ignore_row_stride, ignore_column_stride, top, bottom,
    left, right, tile_y, tile_x, zeros, radius, log2_decay, exponent, HAS_IGNORE: tl.constexpr,
    ROWS: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    """log2 S of a region, of which rows top..bottom and columns left..right count: [TILE_W, TILE_H].

    As log2_sums of weights.py finds them of bits, by matrix products for each chunk of the mask, in a band of
    values at a time: those down to 2^-BAND of the largest that is left. Most masks have a single one.
    """
    y, x = tile_y + tl.arange(0, TILE_H), tile_x + tl.arange(0, TILE_W)
    window, window_of_lane = radius.to(tl.float32), (radius + zeros).to(tl.float32)[None, :]
    x_register, x_lane, column, column_lane = left_row_column(zeros, TILE_W, CELL)
    value_column, value_column_lane, value_row, value_row_lane = right_row_column(zeros, CELL, ROWS)
    chunk_row, chunk_row_lane, y_register, y_lane = right_row_column(zeros, ROWS, TILE_H)
    chunk_row, chunk_row_lane = kth(chunk_row), kth(chunk_row_lane)
    infinity: tl.constexpr = float("inf")
    sums = tl.full([TILE_W, TILE_H], -infinity, tl.float32)
    for chunk_x in tl.range(left, right + 1, CELL, num_stages=1):
        steps_x = (chunk_x - tile_x + column_lane - x_lane).to(tl.float32)
        steps_x = tl.abs(steps_x + (column - x_register).to(tl.float32))
        x_of_operand = tile_x + x_lane + x_register
        shift_x = shift_towards(x_of_operand, chunk_x, CELL, log2_decay, exponent, CHUNK_SCALED, tl.float32)
        high, low = split(decay(steps_x, window, log2_decay, shift_x))
        high, low = as_left(high, TILE_W, CELL), as_left(low, TILE_W, CELL)
        chunk_y, below = top, infinity
        while chunk_y <= bottom:
            values = load_pixels(
                masks_ptr, row_stride, column_stride, ignore_ptr, ignore_row_stride, ignore_column_stride,
                chunk_y + value_row_lane + value_row, chunk_x + value_column_lane, value_column, bottom,
                right, HAS_IGNORE,
            ).to(tl.float32)  # fmt: skip
            values = tl.where(values < below, values, 0.0)  # without the bands before
            largest = largest_of(values)
            chunk = chunk_y
            chunk_y, below = chunk + ROWS, infinity
            if largest > 0:
                small = 0
                if largest < SMALL_BITS:  # subnormal numbers have no exponent
                    values, small = values * 2.0**64, 64
                    largest = largest_of(values)
                least = (((largest >> 23) - BAND) << 23).to(tl.float32, bitcast=True)
                in_band = values >= least
                if largest_of(tl.where(in_band, 0.0, values)) > 0:  # once more
                    chunk_y, below = chunk, least * power_of_2(-small)
                to_4 = 128 - (largest >> 23)  # takes the largest to 2..4
                values = tl.where(in_band, values * power_of_2(to_4), 0.0)
                value_high, value_low = split(values)
                value_high, value_low = as_right(value_high, CELL, ROWS), as_right(value_low, CELL, ROWS)
                row_sums = tl.zeros([TILE_W, ROWS if ROWS > LEAST else LEAST], tl.float32)
                row_sums = product_as_left(add_products(row_sums, high, low, value_high, value_low))
                steps_y = (chunk - tile_y + chunk_row_lane - y_lane).to(tl.float32)
                steps_y = tl.abs(steps_y + (chunk_row - y_register).to(tl.float32))
                y_of_operand = tile_y + y_lane + y_register
                shift_y = shift_towards(
                    y_of_operand, chunk, ROWS, log2_decay, exponent, CHUNK_SCALED, tl.float32
                )
                high_y, low_y = split(decay(steps_y, window_of_lane, log2_decay, shift_y))
                high_y, low_y = as_right(high_y, ROWS, TILE_H), as_right(low_y, ROWS, TILE_H)
                chunk_sums = tl.zeros([TILE_W, TILE_H], tl.float32)
                chunk_sums = log2(add_products(chunk_sums, *split(row_sums), high_y, low_y))
                of_x = shift_towards(x, chunk_x, CELL, log2_decay, exponent, CHUNK_SCALED, tl.float32)
                of_y = shift_towards(y, chunk, ROWS, log2_decay, exponent, CHUNK_SCALED, tl.float32)
                chunk_sums -= (of_x + (to_4 + small).to(tl.float32))[:, None]
                sums = add_logarithms(sums, chunk_sums - of_y[None, :])
    return sums


@triton.jit(
    do_not_specialize=[
        "masks_ptr", "regions", "region_stride", "row_stride", "column_stride", "ignore_ptr",
        "ignore_row_stride", "ignore_column_stride", "boxes_ptr", "out_ptr", "height", "width", "cells_y",
        "cells_x", "tiles_x", "radius",
    ]
)  # fmt: skip
def weigh_regions_kernel(
    masks_ptr,  # [N, H, W], any strides
    regions,  # N
    region_stride,
    row_stride,
    column_stride,  # 1 with ADJACENT
    ignore_ptr,  # [H, W] of 0 and 1, any strides; unused without HAS_IGNORE
    ignore_row_stride,
    ignore_column_stride,
    boxes_ptr,  # as box_regions_kernel left them
    out_ptr,  # [H, W], contiguous
    height,
    width,
    cells_y,
    cells_x,
    tiles_x,
    radius,
    log2_decay: tl.float64,  # these as for weigh_tiles_kernel
    exponent: tl.float64,
    step_scale: tl.float64,
    log_scale: tl.float64,
    foreground_exponent: tl.float64,
    fbr: tl.float64,
    bwf: tl.float64,
    border_scale: tl.float64,
    COMPUTE: tl.constexpr,
    WAY: tl.constexpr,  # CHUNK_SCALED (float32 alone), LOGARITHMIC or EUCLIDEAN
    BORDER: tl.constexpr,
    EVERY_INSTANCE: tl.constexpr,
    FEWEST_INSTANCES: tl.constexpr,
    HAS_IGNORE: tl.constexpr,
    ADJACENT: tl.constexpr,
    LISTS: tl.constexpr,
    ROWS: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
):
    program = tl.program_id(0)
    tile_y, tile_x = program // tiles_x * TILE_H, program % tiles_x * TILE_W
    y, x = tile_y + tl.arange(0, TILE_H), tile_x + tl.arange(0, TILE_W)
    infinity: tl.constexpr = float("inf")
    log2_decay, log_scale = number(log2_decay, COMPUTE), number(log_scale, COMPUTE)
    step_scale, border_scale = number(step_scale, COMPUTE), number(border_scale, COMPUTE)
    foreground_exponent, exponent = number(foreground_exponent, COMPUTE), number(exponent, COMPUTE)
    window = radius.to(COMPUTE)
    if ADJACENT:
        column_stride = 1

    # The cells within the windows of this tile, row by row.
    cell_y0, cell_x0, cell_y1, cell_x1 = cells_around(tile_y, tile_x, radius, height, width, TILE_H, TILE_W)
    list_y, list_x = row_by_row(cell_y0, cell_x0, cell_x1, LISTS)

    fd = tl.zeros([TILE_W, TILE_H], COMPUTE)  # infinite on the foreground
    near = tl.full([TILE_W, TILE_H], infinity, COMPUTE)
    other = border_start(near, BORDER)
    zeros = zeros_at(boxes_ptr)
    seen = 0
    boxes = boxes_ptr + list_y * cells_x + list_x
    for _ in range(0, regions):
        box = tl.load(boxes, mask=list_y <= cell_y1, other=EMPTY)
        top, bottom, left, right = bounding_box(box, box != EMPTY, list_y, list_x)
        top, bottom = clipped(top, bottom, tile_y, radius, TILE_H)
        left, right = clipped(left, right, tile_x, radius, TILE_W)
        if (top <= bottom) & (left <= right):
            seen += 1
            if beyond(tile_y, top - (TILE_H - 1), bottom) + beyond(tile_x, left - (TILE_W - 1), right) == 0:
                # Shifts by 0 keep addresses from being formed once for all regions, and held.
                pixels = load_pixels(
                    masks_ptr, row_stride, column_stride, ignore_ptr, ignore_row_stride, ignore_column_stride,
                    y[None, :] + (top >> 30), x[:, None] + (left >> 30),
                    tl.zeros([1, 1], tl.int32), height - 1, width - 1, HAS_IGNORE,
                )  # fmt: skip
                fd = tl.where(pixels > 0, infinity, fd)
            if WAY == CHUNK_SCALED:
                found = log2_sums_of_values(
                    masks_ptr, row_stride, column_stride, ignore_ptr, ignore_row_stride, ignore_column_stride,
                    top, bottom, left, right, tile_y, tile_x, zeros, radius, log2_decay, exponent, HAS_IGNORE,
                    ROWS, TILE_H, TILE_W,
                )  # fmt: skip
            else:
                found = by_rows(
                    masks_ptr, row_stride, column_stride, ignore_ptr, ignore_row_stride, ignore_column_stride,
                    top, bottom, left, right, y, x, window, log2_decay, COMPUTE, WAY, HAS_IGNORE
                )  # fmt: skip
            d, exponents = distance_and_exponent(found, log_scale, foreground_exponent, WAY)
            fd, near, other = accumulate(d, exponents, fd, near, other, BORDER)
        boxes += cells_y * cells_x
        masks_ptr += region_stride

    has_border = enough(seen, regions, EVERY_INSTANCE, FEWEST_INSTANCES)
    border = border_of(near, other, has_border, step_scale, border_scale, WAY, BORDER)
    background = background_weights(fd, border, number(fbr, COMPUTE), number(bwf, COMPUTE))
    weights = tl.trans(tl.where(fd < infinity, background, 1.0))
    inside = (y[:, None] < height) & (x[None, :] < width)
    if HAS_IGNORE:
        pointers = pixel_pointers(ignore_ptr, y, x, ignore_row_stride, ignore_column_stride)
        weights = tl.where(tl.load(pointers, mask=inside, other=0) != 0, 0.0, weights)
    out = out_ptr + y[:, None].to(tl.int64) * width + x[None, :]
    tl.store(out, weights.to(out_ptr.dtype.element_ty), mask=inside)
