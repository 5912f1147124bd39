"""The second launch from labels to weights: each program weighs one tile of the image.

It merges the sorted lists of the cells within reach, so that it meets each instance once, by ascending id. An
instance is read in chunks of ROWS x 32 pixels, laid from the corner of its bounding box, so that most take few.
"""

import triton
import triton.language as tl

from .cells import CELL, ROOM, last_key, load_keys
from .stages import (
    INSTANCE_SCALED,
    LOGARITHMIC,
    accumulate,
    add_chunk,
    add_logarithms,
    add_row_logarithms,
    beyond,
    compose,
    log2,
    log_sum,
    number,
    shift_exponent,
)


@triton.jit
def load_entries(entries_ptr, entry, present, KEY: tl.constexpr):
    """(keys, places) of entries; where there is none, the key is the last one."""
    pointers = entries_ptr + entry[:, None] * 2 + tl.arange(0, 2)[None, :]
    keys, places = tl.split(tl.load(pointers, mask=present[:, None], other=0))
    return tl.where(present, keys.to(KEY), last_key(KEY)), places


@triton.jit
def population(x):
    """The number of bits set in each int32."""
    x = x.to(tl.uint32, bitcast=True)
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def load_words(words_ptr, cell, row_sets, first_words, row):
    """The words of row 0..31 of entries, 0 where they have none: uint32."""
    word = first_words + population(row_sets & ((1 << row) - 1))
    present = ((row_sets >> row) & 1) != 0
    return tl.load(words_ptr + cell * ROOM + word, mask=present, other=0).to(tl.uint32, bitcast=True)


@triton.jit(
    do_not_specialize=[
        "labels_ptr", "batch_stride", "row_stride", "column_stride", "counts_ptr", "words_ptr", "largest_ptr",
        "out_ptr", "height", "width", "cells_y", "cells_x", "tiles_y", "tiles_x", "radius", "reach",
    ]
)  # fmt: skip
def weigh_tiles_kernel(
    labels_ptr,  # [B, H, W], any strides
    batch_stride,
    row_stride,
    column_stride,
    counts_ptr,  # these four as list_cells_kernel left them
    entries_ptr,
    words_ptr,
    largest_ptr,
    out_ptr,  # [B, H, W], contiguous
    height,
    width,
    cells_y,
    cells_x,
    tiles_y,
    tiles_x,
    radius,  # of the window
    reach,  # what is farther away along an axis adds nothing; at most radius
    limit: tl.float64,  # an instance farther away than this many steps adds nothing
    log2_decay: tl.float64,  # of one step
    exponent: tl.float64,  # both factors of a scaled sum carry 2^exponent
    step_scale: tl.float64,  # the distance of one step
    log_scale: tl.float64,  # the distance of a factor of 1/2 in a sum
    fbr: tl.float64,
    bwf: tl.float64,
    border_scale: tl.float64,
    KEY: tl.constexpr,  # int32 or int64
    COMPUTE: tl.constexpr,  # float32 or float64
    SUMS: tl.constexpr,  # how sums are held, see stages.py
    PRECISE: tl.constexpr,  # scaled sums by three pieces in place of two
    FARTHEST: tl.constexpr,
    LISTS: tl.constexpr,  # a power of 2, at least the number of cells within reach of a tile
    ROWS: tl.constexpr,  # of a chunk
    COLUMNS: tl.constexpr,  # of a chunk that are multiplied at a time
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
):
    program = tl.program_id(0)
    image = (program // tiles_x // tiles_y).to(tl.int64)
    tile_y, tile_x = program // tiles_x % tiles_y * TILE_H, program % tiles_x * TILE_W
    y, x = tile_y + tl.arange(0, TILE_H), tile_x + tl.arange(0, TILE_W)
    infinity: tl.constexpr = float("inf")
    # Scalars go to the type of the computation once.
    log2_decay, exponent = number(log2_decay, COMPUTE), number(exponent, COMPUTE)
    step_scale, log_scale = number(step_scale, COMPUTE), number(log_scale, COMPUTE)
    window = radius.to(COMPUTE)

    # The lists of the cells within reach, row by row.
    cell_y0, cell_x0 = tl.maximum(tile_y - reach, 0) // CELL, tl.maximum(tile_x - reach, 0) // CELL
    cell_y1 = tl.minimum(tile_y + TILE_H - 1 + reach, height - 1) // CELL
    cell_x1 = tl.minimum(tile_x + TILE_W - 1 + reach, width - 1) // CELL
    columns = cell_x1 - cell_x0 + 1
    list_ = tl.arange(0, LISTS)
    list_y, list_x = cell_y0 + list_ // columns, cell_x0 + list_ % columns
    first_cell = image * cells_y * cells_x
    cell = first_cell + list_y * cells_x + list_x  # [LISTS]
    count = tl.load(counts_ptr + cell, mask=list_y <= cell_y1, other=0)
    cursor = tl.zeros([LISTS], tl.int32)
    nothing = last_key(KEY)
    head, place = load_entries(entries_ptr, cell * ROOM, count > 0, KEY)

    fd = tl.zeros([TILE_W, TILE_H], COMPUTE)
    near = tl.full([TILE_W, TILE_H], infinity, COMPUTE)
    other = tl.full([TILE_W, TILE_H], -infinity if FARTHEST else infinity, COMPUTE)
    seen = 0
    key = tl.min(head, 0)
    while key < nothing:
        hit = head == key  # [LISTS]
        box, row_sets = place.to(tl.int32), tl.where(hit, (place >> 32).to(tl.int32), 0)
        first_words = box >> 20
        top = tl.min(tl.where(hit, list_y * CELL + (box & 31), 1 << 30), 0)
        bottom = tl.max(tl.where(hit, list_y * CELL + ((box >> 5) & 31), -1), 0)
        left = tl.min(tl.where(hit, list_x * CELL + ((box >> 10) & 31), 1 << 30), 0)
        right = tl.max(tl.where(hit, list_x * CELL + ((box >> 15) & 31), -1), 0)
        cursor += hit.to(tl.int32)
        next_head, next_place = load_entries(
            entries_ptr, cell * ROOM + cursor, hit & (cursor < count), KEY
        )
        head, place = tl.where(hit, next_head, head), tl.where(hit, next_place, place)
        key = tl.min(head, 0)

        # What the windows of this tile can show of it.
        top, bottom = tl.maximum(top, tile_y - radius), tl.minimum(bottom, tile_y + TILE_H - 1 + radius)
        left, right = tl.maximum(left, tile_x - radius), tl.minimum(right, tile_x + TILE_W - 1 + radius)
        away = beyond(tile_y, top - (TILE_H - 1), bottom) + beyond(tile_x, left - (TILE_W - 1), right)
        if (top <= bottom) & (left <= right) & (away <= number(limit, tl.float64)):
            seen += 1
            out_y = beyond(y, top, bottom).to(COMPUTE)
            out_x = beyond(x, left, right).to(COMPUTE)
            shifted_y = shift_exponent(out_y, log2_decay, exponent)
            shifted_x = shift_exponent(out_x, log2_decay, exponent)
            sums = tl.full([TILE_W, TILE_H], 0.0 if SUMS == INSTANCE_SCALED else -infinity, COMPUTE)
            chunks_x = (right - left) // CELL + 1
            chunks = chunks_x * ((bottom - top) // ROWS + 1)
            for chunk in tl.range(0, chunks, num_stages=1):
                chunk_y, chunk_x = top + chunk // chunks_x * ROWS, left + chunk % chunks_x * CELL
                # Its words, each put together from those of two neighbouring cells.
                row_y = chunk_y + tl.arange(0, ROWS)
                cell_row, cell_column, shift = row_y // CELL, chunk_x // CELL, chunk_x % CELL
                visible = row_y <= bottom
                index = tl.where(visible, (cell_row - cell_y0) * columns + cell_column - cell_x0, 0)
                row_set = tl.where(visible, tl.gather(row_sets, index, 0), 0)
                at = first_cell + cell_row * cells_x + cell_column
                words = load_words(
                    words_ptr, at, row_set, tl.gather(first_words, index, 0), row_y % CELL
                ).to(tl.uint64)
                index = tl.minimum(index + 1, LISTS - 1)
                has_next = visible & (cell_column < cell_x1)
                row_set = tl.where(has_next, tl.gather(row_sets, index, 0), 0)
                words |= (
                    load_words(
                        words_ptr, at + 1, row_set, tl.gather(first_words, index, 0), row_y % CELL
                    ).to(tl.uint64)
                    << 32
                )
                words = (words >> shift).to(tl.uint32)  # [ROWS]
                if SUMS == LOGARITHMIC:
                    steps = tl.abs(chunk_x + tl.arange(0, CELL)[:, None] - x[None, :]).to(COMPUTE)
                    terms = tl.where(steps <= window, steps * log2_decay, -infinity)
                    for row in range(0, ROWS):
                        word = tl.max(tl.where(row_y == chunk_y + row, words, 0), 0)
                        if word != 0:
                            own = ((word >> tl.arange(0, CELL)) & 1) != 0
                            row_sums = log_sum(tl.where(own[:, None], terms, -infinity))  # [TILE_W]
                            sums = add_row_logarithms(sums, row_sums, chunk_y + row - y, window, log2_decay)
                elif SUMS == INSTANCE_SCALED:
                    sums = add_chunk(
                        sums, words, chunk_y, chunk_x, y, x, shifted_y, shifted_x, window, log2_decay, exponent,
                        PRECISE, ROWS, COLUMNS, CELL,
                    )  # fmt: skip
                else:  # CHUNK_SCALED
                    chunk_out_y = beyond(y, chunk_y, tl.minimum(chunk_y + ROWS - 1, bottom)).to(COMPUTE)
                    chunk_out_x = beyond(x, chunk_x, tl.minimum(chunk_x + CELL - 1, right)).to(COMPUTE)
                    chunk_sums = add_chunk(
                        tl.zeros([TILE_W, TILE_H], COMPUTE), words, chunk_y, chunk_x, y, x,
                        shift_exponent(chunk_out_y, log2_decay, exponent),
                        shift_exponent(chunk_out_x, log2_decay, exponent),
                        window, log2_decay, exponent, PRECISE, ROWS, COLUMNS, CELL,
                    )  # fmt: skip
                    steps = chunk_out_x[:, None] + chunk_out_y[None, :]
                    sums = add_logarithms(sums, log2(chunk_sums) - 2 * exponent + steps * log2_decay)
            if SUMS == INSTANCE_SCALED:
                steps = (out_x * step_scale + 2 * exponent * log_scale)[:, None] + (out_y * step_scale)[None, :]
                d = steps - log_scale * log2(sums)
            else:
                d = -log_scale * sums
            fd, near, other = accumulate(d, fd, near, other, FARTHEST)

    offsets = y[:, None].to(tl.int64) * row_stride + x[None, :].to(tl.int64) * column_stride
    inside = (y[:, None] < height) & (x[None, :] < width)
    keys = load_keys(labels_ptr + image * batch_stride + offsets, inside, KEY)
    with_border = seen > 0
    if FARTHEST:  # of all ids from 1 to the largest
        with_border &= seen == tl.load(largest_ptr + image)
    weights = compose(
        tl.trans(fd),
        tl.trans(near),
        tl.trans(other),
        with_border,
        keys < nothing,
        number(fbr, COMPUTE),
        number(bwf, COMPUTE),
        number(border_scale, COMPUTE),
    )
    out = out_ptr + (image * height + y[:, None]) * width + x[None, :]
    tl.store(out, weights.to(out_ptr.dtype.element_ty), mask=inside)
