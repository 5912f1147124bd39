"""The second launch from labels to weights: each program weighs one tile of the image.

It merges the sorted lists of the cells within reach, so that it meets each instance once, by ascending id. The
instance's sums S_i over rows and over columns are products of its 0/1 pixels with matrices of decay factors.
"""

import triton
import triton.language as tl

from .cells import CELL, ROOM, last_key, load_keys
from .stages import (
    accumulate,
    add_exact_products,
    add_logarithms,
    add_products,
    beyond,
    compose,
    decay,
    log_sum,
)


@triton.jit
def population(x):
    """The number of bits set in each int32."""
    x = x.to(tl.uint32, bitcast=True)
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def load_words(words_ptr, cells, row_sets, first_words, row):
    """The words of row 0..31 of entries, 0 where they have none: uint32."""
    word = first_words + population(row_sets & ((1 << row) - 1))
    present = ((row_sets >> row) & 1) != 0
    return tl.load(words_ptr + cells * ROOM + word, mask=present, other=0).to(tl.uint32, bitcast=True)


@triton.jit(
    do_not_specialize=[
        "labels_ptr", "batch_stride", "row_stride", "column_stride", "counts_ptr", "keys_ptr", "boxes_ptr",
        "row_sets_ptr", "words_ptr", "largest_ptr", "out_ptr", "height", "width", "cells_y", "cells_x", "radius",
        "reach",
    ]
)  # fmt: skip
def weigh_tiles_kernel(
    labels_ptr,  # [B, H, W], any strides
    batch_stride,
    row_stride,
    column_stride,
    counts_ptr,  # as list_cells_kernel left them
    keys_ptr,
    boxes_ptr,
    row_sets_ptr,
    words_ptr,
    largest_ptr,  # [B]; unused unless FARTHEST
    out_ptr,  # [B, H, W], contiguous
    height,
    width,
    cells_y,
    cells_x,
    radius,  # of the window
    reach,  # an instance farther away than this along an axis adds nothing; at most radius
    limit: tl.float64,  # an instance farther away than this many steps adds nothing
    safe_steps: tl.float64,  # steps from the box to the nearest pixel for which tensor products do not flush
    safe_steps_along: tl.float64,  # likewise, steps along one axis
    log2_decay: tl.float64,
    exponent: tl.float64,  # both factors of a sum carry 2^exponent
    step_scale: tl.float64,  # distance of one step
    log_scale: tl.float64,  # distance of one power of 2 in a sum
    fbr: tl.float64,
    bwf: tl.float64,
    border_scale: tl.float64,
    KEY: tl.constexpr,  # as for list_cells_kernel
    COMPUTE: tl.constexpr,  # float32 or float64
    FARTHEST: tl.constexpr,
    TENSOR_SUMS: tl.constexpr,  # sums as tensor products, where safe_steps allow
    LOG_SUMS: tl.constexpr,  # sums by their logarithms, elsewhere
    LISTS: tl.constexpr,  # a power of 2, at least the number of cells within reach of a tile
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
):
    image = tl.program_id(2)
    tile_y, tile_x = tl.program_id(1) * TILE_H, tl.program_id(0) * TILE_W
    y, x = tile_y + tl.arange(0, TILE_H), tile_x + tl.arange(0, TILE_W)
    i = tl.arange(0, CELL)
    infinity: tl.constexpr = float("inf")
    # Scalars go to the type of the computation once.
    log2_decay, exponent = log2_decay.to(COMPUTE), exponent.to(COMPUTE)
    step_scale, log_scale = step_scale.to(COMPUTE), log_scale.to(COMPUTE)
    radius_ = radius.to(COMPUTE)
    offset = 2 * exponent * log_scale

    # The lists of the cells within reach, row by row.
    cell_y0, cell_x0 = tl.maximum(tile_y - reach, 0) // CELL, tl.maximum(tile_x - reach, 0) // CELL
    cell_y1 = tl.minimum(tile_y + TILE_H - 1 + reach, height - 1) // CELL
    cell_x1 = tl.minimum(tile_x + TILE_W - 1 + reach, width - 1) // CELL
    columns = cell_x1 - cell_x0 + 1
    list_ = tl.arange(0, LISTS)
    list_y, list_x = cell_y0 + list_ // columns, cell_x0 + list_ % columns
    in_reach = list_y <= cell_y1
    first_cell = image.to(tl.int64) * cells_y * cells_x
    cell = first_cell + list_y * cells_x + list_x  # [LISTS]
    cursor = cell * ROOM
    end = cursor + tl.load(counts_ptr + cell, mask=in_reach, other=0)
    nothing = last_key(KEY)
    head = tl.load(keys_ptr + cursor, mask=cursor < end, other=nothing)

    fd = tl.zeros([TILE_H, TILE_W], COMPUTE)
    near = tl.full([TILE_H, TILE_W], infinity, COMPUTE)
    other = tl.full([TILE_H, TILE_W], -infinity if FARTHEST else infinity, COMPUTE)
    seen = 0
    key = tl.min(head, 0)
    while key < nothing:
        hit = head == key  # [LISTS]
        box = tl.load(boxes_ptr + cursor, mask=hit, other=0)
        row_sets = tl.load(row_sets_ptr + cursor, mask=hit, other=0)
        first_words = box >> 20
        top = tl.min(tl.where(hit, list_y * CELL + (box & 31), 1 << 30), 0)
        bottom = tl.max(tl.where(hit, list_y * CELL + ((box >> 5) & 31), -1), 0)
        left = tl.min(tl.where(hit, list_x * CELL + ((box >> 10) & 31), 1 << 30), 0)
        right = tl.max(tl.where(hit, list_x * CELL + ((box >> 15) & 31), -1), 0)
        cursor += hit.to(tl.int64)
        head = tl.where(hit, tl.load(keys_ptr + cursor, mask=hit & (cursor < end), other=nothing), head)
        key = tl.min(head, 0)
        # What the windows of this tile can show of it.
        top, bottom = tl.maximum(top, tile_y - radius), tl.minimum(bottom, tile_y + TILE_H - 1 + radius)
        left, right = tl.maximum(left, tile_x - radius), tl.minimum(right, tile_x + TILE_W - 1 + radius)
        away = beyond(tile_y, top - (TILE_H - 1), bottom) + beyond(tile_x, left - (TILE_W - 1), right)
        if (top <= bottom) & (left <= right) & (away.to(tl.float64) <= limit):
            seen += 1
            out_y = beyond(y, top, bottom).to(COMPUTE)
            out_x = beyond(x, left, right).to(COMPUTE)
            chunks_x = (right - left) // CELL + 1
            chunks = chunks_x * ((bottom - top) // CELL + 1)
            use_tensor_sums = TENSOR_SUMS
            if TENSOR_SUMS and LOG_SUMS:
                h, w = bottom - top, right - left
                use_tensor_sums = (tl.minimum(h + w, 2 * radius).to(tl.float64) <= safe_steps) & (
                    tl.minimum(tl.maximum(h, w), radius).to(tl.float64) <= safe_steps_along
                )
            # S_i a^-(out_y + out_x) 2^(2 exponent), or the logarithm of S_i
            if use_tensor_sums:
                sums = tl.zeros([TILE_H, TILE_W], COMPUTE)
            else:
                sums = tl.full([TILE_H, TILE_W], -infinity, COMPUTE)
            for chunk in range(0, chunks):
                # 32 rows of 32 columns from (chunk_y, chunk_x): two cells wide
                chunk_y, chunk_x = top + chunk // chunks_x * CELL, left + chunk % chunks_x * CELL
                row_y, column_x = chunk_y + i, chunk_x + i
                cell_row, cell_column, shift = row_y // CELL, chunk_x // CELL, chunk_x % CELL
                visible = row_y <= bottom
                index = (cell_row - cell_y0) * columns + cell_column - cell_x0
                index = tl.where(visible, index, 0)
                next_index = tl.minimum(index + 1, LISTS - 1)
                has_next = visible & (cell_column < cell_x1)
                at = first_cell + cell_row * cells_x + cell_column
                low = load_words(
                    words_ptr,
                    at,
                    tl.where(visible, tl.gather(row_sets, index, 0), 0),
                    tl.gather(first_words, index, 0),
                    row_y % CELL,
                )
                high = load_words(
                    words_ptr,
                    at + 1,
                    tl.where(has_next, tl.gather(row_sets, next_index, 0), 0),
                    tl.gather(first_words, next_index, 0),
                    row_y % CELL,
                )
                words = (((high.to(tl.uint64) << 32) | low.to(tl.uint64)) >> shift).to(tl.uint32)
                if use_tensor_sums:
                    pixels = ((words[:, None] >> i[None, :]) & 1).to(COMPUTE)  # [row, column]
                    steps_x = tl.abs(column_x[:, None] - x[None, :]).to(COMPUTE)
                    steps_y = tl.abs(row_y[None, :] - y[:, None]).to(COMPUTE)
                    factors = decay(steps_x, out_x[None, :], radius_, log2_decay, exponent)
                    row_sums = tl.zeros([CELL, TILE_W], COMPUTE)
                    row_sums = add_exact_products(row_sums, pixels, factors)
                    factors = decay(steps_y, out_y[:, None], radius_, log2_decay, exponent)
                    sums = add_products(sums, factors, row_sums)
                else:
                    steps_x = tl.abs(column_x[:, None] - x[None, :]).to(COMPUTE)
                    terms = tl.where(steps_x <= radius_, steps_x * log2_decay, -infinity)
                    for row in range(0, CELL):
                        word = tl.max(tl.where(i == row, words, 0), 0)
                        if word != 0:
                            own = ((word >> i) & 1) != 0
                            row_sums = log_sum(tl.where(own[:, None], terms, -infinity))
                            steps_y = tl.abs(chunk_y + row - y).to(COMPUTE)
                            factors = tl.where(steps_y <= radius_, steps_y * log2_decay, -infinity)
                            sums = add_logarithms(sums, factors[:, None] + row_sums[None, :])
            if use_tensor_sums:
                box_distance = (out_y * step_scale + offset)[:, None] + (out_x * step_scale)[None, :]
                d = box_distance - log_scale * tl.log2(sums)
            else:
                d = -log_scale * sums
            fd, near, other = accumulate(d, fd, near, other, FARTHEST)

    offsets = y[:, None].to(tl.int64) * row_stride + x[None, :].to(tl.int64) * column_stride
    inside = (y[:, None] < height) & (x[None, :] < width)
    keys = load_keys(labels_ptr + image.to(tl.int64) * batch_stride + offsets, inside, KEY)
    with_border = seen > 0
    if FARTHEST:  # of all ids from 1 to the largest
        with_border &= seen == tl.load(largest_ptr + image)
    weights = compose(
        fd, near, other, with_border, keys < nothing, fbr.to(COMPUTE), bwf.to(COMPUTE), border_scale.to(COMPUTE)
    )
    out = out_ptr + (image.to(tl.int64) * height + y[:, None]) * width + x[None, :]
    tl.store(out, weights.to(out_ptr.dtype.element_ty), mask=inside)
