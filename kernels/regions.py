"""From one mask per region, overlapping and soft as it may be, to weights: two launches.

The first notes the bounding box of each region in each cell of 32 x 32 pixels, so that the second reads no
more of the masks than its windows show. Sums are held as logarithms, for a mask may hold any values.
"""

import triton
import triton.language as tl

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
from .rules import border_start
from .stages import (
    EUCLIDEAN,
    accumulate,
    add_row_logarithms,
    background_weights,
    beyond,
    border_of,
    distance_and_exponent,
    enough,
    log2,
    log_sum,
    number,
)

EMPTY = tl.constexpr(-1)  # in place of a box where there is nothing in the cell
PART = tl.constexpr(8)  # rows of a cell that are read together


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
):
    program = tl.program_id(0)
    region, cell_y, cell_x = image_row_column(program, cells_y, cells_x)
    row, column = tl.arange(0, PART), tl.arange(0, CELL)
    y, x = cell_y * CELL + row, cell_x * CELL + column
    pointers = pixel_pointers(masks_ptr + region * region_stride, y, x, row_stride, column_stride)
    ignore_pointers = pixel_pointers(ignore_ptr, y, x, ignore_row_stride, ignore_column_stride)
    rows, columns = tl.minimum(height - cell_y * CELL, CELL), tl.minimum(width - cell_x * CELL, CELL)
    row_sets = tl.zeros([CELL], tl.int32)  # of each column: bit y is its pixel in row y
    for first in tl.range(0, rows, PART, num_stages=1):
        inside = (first + row < rows)[:, None] & (column < columns)[None, :]
        values = load_visible(pointers, ignore_pointers, inside, HAS_IGNORE)  # [PART, CELL]
        own = tl.reduce(tl.where(values > 0, (1 << row)[:, None], 0), 0, bitwise_or)
        row_sets |= own << first
        pointers += PART * row_stride.to(tl.int64)
        ignore_pointers += PART * ignore_row_stride.to(tl.int64)
    row_set = tl.reduce(row_sets, 0, bitwise_or)
    column_set = tl.reduce(tl.where(row_sets != 0, 1 << column, 0), 0, bitwise_or)
    top, bottom = first_and_last(row_set)
    left, right = first_and_last(column_set)
    box = packed_box(top, bottom, left, right)
    tl.store(boxes_ptr + program, tl.where(row_set != 0, box, EMPTY))


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
    column_stride,
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
    step_scale: tl.float64,
    log_scale: tl.float64,
    foreground_exponent: tl.float64,
    fbr: tl.float64,
    bwf: tl.float64,
    border_scale: tl.float64,
    COMPUTE: tl.constexpr,
    WAY: tl.constexpr,  # LOGARITHMIC or EUCLIDEAN
    BORDER: tl.constexpr,
    EVERY_INSTANCE: tl.constexpr,
    FEWEST_INSTANCES: tl.constexpr,
    HAS_IGNORE: tl.constexpr,
    LISTS: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
):
    program = tl.program_id(0)
    tile_y, tile_x = program // tiles_x * TILE_H, program % tiles_x * TILE_W
    y, x = tile_y + tl.arange(0, TILE_H), tile_x + tl.arange(0, TILE_W)
    infinity: tl.constexpr = float("inf")
    log2_decay, log_scale = number(log2_decay, COMPUTE), number(log_scale, COMPUTE)
    step_scale, border_scale = number(step_scale, COMPUTE), number(border_scale, COMPUTE)
    foreground_exponent = number(foreground_exponent, COMPUTE)
    window = radius.to(COMPUTE)

    # The cells within the windows of this tile, row by row.
    cell_y0, cell_x0, cell_y1, cell_x1 = cells_around(tile_y, tile_x, radius, height, width, TILE_H, TILE_W)
    list_y, list_x = row_by_row(cell_y0, cell_x0, cell_x1, LISTS)

    # [TILE_W, TILE_H]
    pixels = y[None, :].to(tl.int64) * row_stride + x[:, None].to(tl.int64) * column_stride
    inside = (y[None, :] < height) & (x[:, None] < width)
    ignored = tl.zeros([TILE_W, TILE_H], tl.int1)
    if HAS_IGNORE:
        offsets = y[None, :].to(tl.int64) * ignore_row_stride + x[:, None].to(tl.int64) * ignore_column_stride
        ignored = tl.load(ignore_ptr + offsets, mask=inside, other=0) != 0
    visible = inside & ~ignored
    foreground = tl.zeros([TILE_W, TILE_H], tl.int1)
    fd = tl.zeros([TILE_W, TILE_H], COMPUTE)
    near = tl.full([TILE_W, TILE_H], infinity, COMPUTE)
    other = border_start(near, BORDER)
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
                foreground |= tl.load(masks_ptr + pixels, mask=visible, other=0) > 0
            # The smallest squares, or log2 S.
            found = tl.full([TILE_W, TILE_H], infinity if WAY == EUCLIDEAN else -infinity, COMPUTE)
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
            d, exponents = distance_and_exponent(found, log_scale, foreground_exponent, WAY)
            fd, near, other = accumulate(d, exponents, fd, near, other, BORDER)
        boxes += cells_y * cells_x
        masks_ptr += region_stride

    has_border = enough(seen, regions, EVERY_INSTANCE, FEWEST_INSTANCES)
    border = border_of(near, other, has_border, step_scale, border_scale, WAY, BORDER)
    background = background_weights(fd, border, number(fbr, COMPUTE), number(bwf, COMPUTE))
    weights = tl.where(ignored, 0.0, tl.where(foreground, 1.0, background))
    out = out_ptr + y[:, None].to(tl.int64) * width + x[None, :]
    inside = (y[:, None] < height) & (x[None, :] < width)
    tl.store(out, tl.trans(weights).to(out_ptr.dtype.element_ty), mask=inside)
