"""From one mask per region, overlapping and soft as it may be, to weights: two launches.

The first notes the bounding box of each region in each cell of 32 x 32 pixels, so that the second reads no
more of the masks than lies within the window. Sums are held as logarithms, for a mask may hold any values.
"""

import triton
import triton.language as tl

from .cells import CELL
from .stages import (
    accumulate,
    add_row_logarithms,
    background_weights,
    beyond,
    farthest_of_all,
    log2,
    log_sum,
    number,
)

# A box within a cell: top | bottom << 5 | left << 10 | right << 15; where there is nothing in the cell:
EMPTY = tl.constexpr(-1)


@triton.jit(
    do_not_specialize=[
        "masks_ptr", "region_stride", "row_stride", "column_stride", "boxes_ptr", "height", "width",
        "cells_y", "cells_x",
    ]
)  # fmt: skip
def box_regions_kernel(
    masks_ptr,  # [N, H, W], any strides
    region_stride,
    row_stride,
    column_stride,
    boxes_ptr,  # [N, cells_y, cells_x]
    height,
    width,
    cells_y,
    cells_x,
):
    program = tl.program_id(0)
    cell_x, cell_y = program % cells_x, program // cells_x % cells_y
    region = (program // cells_x // cells_y).to(tl.int64)
    i = tl.arange(0, CELL)
    y, x = (cell_y * CELL + i).to(tl.int64), (cell_x * CELL + i).to(tl.int64)
    pointers = masks_ptr + region * region_stride + y[:, None] * row_stride + x[None, :] * column_stride
    inside = (y[:, None] < height) & (x[None, :] < width)
    own = (tl.load(pointers, mask=inside, other=0) > 0).to(tl.int32)  # [CELL, CELL]
    rows, columns = tl.max(own, 1), tl.max(own, 0)
    top, bottom = tl.min(tl.where(rows > 0, i, CELL), 0), tl.max(tl.where(rows > 0, i, -1), 0)
    left, right = tl.min(tl.where(columns > 0, i, CELL), 0), tl.max(tl.where(columns > 0, i, -1), 0)
    box = top | (bottom << 5) | (left << 10) | (right << 15)
    tl.store(boxes_ptr + program, tl.where(bottom >= 0, box, EMPTY))


@triton.jit(
    do_not_specialize=[
        "masks_ptr", "regions", "region_stride", "row_stride", "column_stride", "boxes_ptr", "out_ptr",
        "height", "width", "cells_y", "cells_x", "tiles_x", "radius",
    ]
)  # fmt: skip
def weigh_regions_kernel(
    masks_ptr,  # [N, H, W], any strides
    regions,  # N
    region_stride,
    row_stride,
    column_stride,
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
    fbr: tl.float64,
    bwf: tl.float64,
    border_scale: tl.float64,
    COMPUTE: tl.constexpr,
    FARTHEST: tl.constexpr,
    LISTS: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
):
    program = tl.program_id(0)
    tile_y, tile_x = program // tiles_x * TILE_H, program % tiles_x * TILE_W
    y, x = tile_y + tl.arange(0, TILE_H), tile_x + tl.arange(0, TILE_W)
    infinity: tl.constexpr = float("inf")
    log2_decay, log_scale = number(log2_decay, COMPUTE), number(log_scale, COMPUTE)
    window = radius.to(COMPUTE)

    # The cells within the windows of this tile, row by row.
    cell_y0, cell_x0 = tl.maximum(tile_y - radius, 0) // CELL, tl.maximum(tile_x - radius, 0) // CELL
    cell_y1 = tl.minimum(tile_y + TILE_H - 1 + radius, height - 1) // CELL
    cell_x1 = tl.minimum(tile_x + TILE_W - 1 + radius, width - 1) // CELL
    columns = cell_x1 - cell_x0 + 1
    list_ = tl.arange(0, LISTS)
    list_y, list_x = cell_y0 + list_ // columns, cell_x0 + list_ % columns

    pixels = (
        y[None, :].to(tl.int64) * row_stride + x[:, None].to(tl.int64) * column_stride
    )  # [TILE_W, TILE_H]
    inside = (y[None, :] < height) & (x[:, None] < width)
    foreground = tl.zeros([TILE_W, TILE_H], tl.int1)
    fd = tl.zeros([TILE_W, TILE_H], COMPUTE)
    near = tl.full([TILE_W, TILE_H], infinity, COMPUTE)
    other = tl.full([TILE_W, TILE_H], -infinity if FARTHEST else infinity, COMPUTE)
    seen = 0
    boxes = boxes_ptr + list_y * cells_x + list_x
    for _ in range(0, regions):
        box = tl.load(boxes, mask=list_y <= cell_y1, other=EMPTY)
        there = box != EMPTY
        top = tl.min(tl.where(there, list_y * CELL + (box & 31), 1 << 30), 0)
        bottom = tl.max(tl.where(there, list_y * CELL + ((box >> 5) & 31), -1), 0)
        left = tl.min(tl.where(there, list_x * CELL + ((box >> 10) & 31), 1 << 30), 0)
        right = tl.max(tl.where(there, list_x * CELL + ((box >> 15) & 31), -1), 0)
        top, bottom = tl.maximum(top, tile_y - radius), tl.minimum(bottom, tile_y + TILE_H - 1 + radius)
        left, right = tl.maximum(left, tile_x - radius), tl.minimum(right, tile_x + TILE_W - 1 + radius)
        if (top <= bottom) & (left <= right):
            seen += 1
            if beyond(tile_y, top - (TILE_H - 1), bottom) + beyond(tile_x, left - (TILE_W - 1), right) == 0:
                foreground |= tl.load(masks_ptr + pixels, mask=inside, other=0) > 0
            sums = tl.full([TILE_W, TILE_H], -infinity, COMPUTE)  # log2 S
            for chunk_x in range(left, right + 1, CELL):
                column = chunk_x + tl.arange(0, CELL)
                steps = tl.abs(column[None, :] - x[:, None]).to(COMPUTE)
                factors = tl.where(steps <= window, steps * log2_decay, -infinity)  # [TILE_W, CELL]
                pointers = masks_ptr + top.to(tl.int64) * row_stride + column.to(tl.int64) * column_stride
                for row in range(top, bottom + 1):
                    values = tl.load(pointers, mask=column <= right, other=0).to(COMPUTE)
                    if tl.max(values, 0) > 0:
                        row_sums = log_sum(log2(values)[None, :] + factors)
                        sums = add_row_logarithms(sums, row_sums, row - y, window, log2_decay)
                    pointers += row_stride
            fd, near, other = accumulate(-log_scale * sums, fd, near, other, FARTHEST)
        boxes += cells_y * cells_x
        masks_ptr += region_stride

    if FARTHEST:
        other = farthest_of_all(other, seen, regions)
    background = background_weights(
        fd, near, other, number(fbr, COMPUTE), number(bwf, COMPUTE), number(border_scale, COMPUTE)
    )
    weights = tl.where(foreground, 1.0, background)
    out = out_ptr + y[:, None].to(tl.int64) * width + x[None, :]
    inside = (y[:, None] < height) & (x[None, :] < width)
    tl.store(out, tl.trans(weights).to(out_ptr.dtype.element_ty), mask=inside)
