"""The first launch from labels to weights: which instances lie in each cell of 32 x 32 pixels, and where.

A cell's instances are listed by ascending id, none left out: a cell has room for one entry per pixel. An
instance's key is its id - 1. Its entry is its place and the key of the next one, so that one load of 16 bytes
tells all that is to be known when it is met. The place: top | bottom << 5 | left << 10 | right << 15 of its
bounding box, | first word << 20, | set of rows << 32. Each row in the set has one word, whose bit x is the
pixel of column x. The words of a cell lie one after another; there are at most as many as pixels.
"""

import triton
import triton.language as tl

CELL = tl.constexpr(32)  # pixels on a side: a row is one 32-bit word


@triton.jit
def bitwise_or(a, b):
    return a | b


@triton.jit
def room_of_cell(cell_y, cell_x, height, width):
    """Where the room of a cell begins in its image's: it has as many entries, and words, as pixels."""
    above = (cell_y * CELL).to(tl.int64) * width
    return above + cell_x * CELL * tl.minimum(height - cell_y * CELL, CELL)


@triton.jit
def last_key(KEY: tl.constexpr):
    """Greater than every key: no instance, the end of a list."""
    return tl.full([], 0x7FFFFFFF if KEY == tl.int32 else 0x7FFFFFFFFFFFFFFF, KEY)


@triton.jit
def load_keys(pointers, inside, KEY: tl.constexpr):
    """Instance keys: id - 1, and for the background the largest number."""
    labels = tl.load(pointers, mask=inside, other=0).to(KEY)
    return tl.where(labels > 0, labels - 1, last_key(KEY))


@triton.jit(
    do_not_specialize=[
        "labels_ptr", "batch_stride", "row_stride", "column_stride", "first_keys_ptr", "words_ptr",
        "largest_ptr", "height", "width", "cells_y", "cells_x",
    ]
)  # fmt: skip
def list_cells_kernel(
    labels_ptr,  # [B, H, W], any strides
    batch_stride,
    row_stride,
    column_stride,
    first_keys_ptr,  # [B, cells_y, cells_x]
    entries_ptr,  # [B, H * W, 2]: place, next key; see room_of_cell
    words_ptr,  # [B, H * W]: bit x of a word is the pixel of column x
    largest_ptr,  # [B]: the largest id, to be zero before; unused without FIND_LARGEST
    height,
    width,
    cells_y,
    cells_x,
    KEY: tl.constexpr,  # int32 or int64
    FIND_LARGEST: tl.constexpr,
):
    cell = tl.program_id(0)
    cell_x, cell_y, image = cell % cells_x, cell // cells_x % cells_y, cell // cells_x // cells_y
    room = image.to(tl.int64) * height * width + room_of_cell(cell_y, cell_x, height, width)
    i, two = tl.arange(0, CELL), tl.arange(0, 2)
    y = (cell_y * CELL + i).to(tl.int64)
    x = (cell_x * CELL + i).to(tl.int64)
    pointers = labels_ptr + image.to(tl.int64) * batch_stride
    pointers = pointers + y[:, None] * row_stride + x[None, :] * column_stride  # [CELL, CELL]
    keys = load_keys(pointers, (y[:, None] < height) & (x[None, :] < width), KEY)
    nothing = last_key(KEY)

    count = 0
    word_count = 0
    largest = nothing - nothing
    key = tl.min(tl.min(keys, 1), 0)
    tl.store(first_keys_ptr + cell, key.to(tl.int64))
    while key < nothing:
        own = keys == key
        words = tl.sum(tl.where(own, (1 << i)[None, :], 0), 1)  # [CELL], by row
        has_word = words != 0
        columns = tl.reduce(words, 0, bitwise_or)
        has_column = ((columns >> i) & 1) != 0
        top = tl.min(tl.where(has_word, i, CELL), 0)
        bottom = tl.max(tl.where(has_word, i, 0), 0)
        left = tl.min(tl.where(has_column, i, CELL), 0)
        right = tl.max(tl.where(has_column, i, 0), 0)
        word = word_count + tl.cumsum(has_word.to(tl.int32), 0) - 1
        tl.store(words_ptr + room + word, words, mask=has_word)
        box = top | (bottom << 5) | (left << 10) | (right << 15) | (word_count << 20)
        row_set = tl.reduce(tl.where(has_word, 1 << i, 0), 0, bitwise_or)
        place = (row_set.to(tl.int64) << 32) | box
        word_count += tl.sum(has_word.to(tl.int32), 0)
        largest = key + 1
        keys = tl.where(own, nothing, keys)
        key = tl.min(tl.min(keys, 1), 0)
        tl.store(entries_ptr + (room + count) * 2 + two, tl.where(two == 0, place, key.to(tl.int64)))
        count += 1
    if FIND_LARGEST:
        tl.atomic_max(largest_ptr + image, largest.to(tl.int64))
