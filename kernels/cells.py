"""The first launch from labels to weights: which instances lie in each cell of 32 x 32 pixels, and where.

A cell's instances are listed by ascending class, then id, none left out: a cell has room for one entry per
pixel. An instance's key is its id - 1; classes have keys likewise. Its entry is its place and the key of the
next one, so that one load of 16 bytes tells all that is to be known when it is met; the class of the next one
is in a list of its own. The place: top | bottom << 5 | left << 10 | right << 15 of its bounding box,
| first word << 20, | set of rows << 32. Each row in the set has one word, whose bit x is the pixel of column
x. The words of a cell lie one after another; there are at most as many as pixels.

Labels, classes, pixels to ignore and a foreground of its own are read here alone. A cell's marks tell the
second launch what is foreground and what is ignored.
"""

import triton
import triton.language as tl

from .. import codes
from .bits import bitwise_or, first_and_last, population

CELL = tl.constexpr(codes.CELL)  # pixels on a side: a row is one 32-bit word


@triton.jit
def image_row_column(program, rows, columns):
    """What a program is for, of a grid of rows x columns in each image."""
    column, row = program % columns, program // columns % rows
    return (program // columns // rows).to(tl.int64), row, column


@triton.jit
def room_of_cell(cell_y, cell_x, height, width):
    """Where the room of a cell begins in its image's: it has as many entries, and words, as pixels."""
    above = (cell_y * CELL).to(tl.int64) * width
    return above + cell_x * CELL * tl.minimum(height - cell_y * CELL, CELL)


@triton.jit
def cells_around(tile_y, tile_x, radius, height, width, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """The first and the last row and column of the cells within `radius` of a tile: y0, x0, y1, x1."""
    y1, x1 = tl.minimum(tile_y + TILE_H - 1 + radius, height - 1), tile_x + TILE_W - 1 + radius
    y0, x0 = tl.maximum(tile_y - radius, 0), tl.maximum(tile_x - radius, 0)
    return y0 // CELL, x0 // CELL, y1 // CELL, tl.minimum(x1, width - 1) // CELL


@triton.jit
def row_by_row(first_y, first_x, last_x, LISTS: tl.constexpr):
    """The cells from first_y and within first_x..last_x on, one row after another: y, x [LISTS]."""
    list_, columns = tl.arange(0, LISTS), last_x - first_x + 1
    return first_y + list_ // columns, first_x + list_ % columns


@triton.jit
def packed_box(top, bottom, left, right):
    """A box within a cell as one number: top | bottom << 5 | left << 10 | right << 15."""
    return top | (bottom << 5) | (left << 10) | (right << 15)


@triton.jit
def bounding_box(boxes, there, cell_y, cell_x):
    """top, bottom, left, right of all boxes that are `there`, one in each cell; empty without any."""
    top = tl.min(tl.where(there, cell_y * CELL + (boxes & 31), 1 << 30), 0)
    bottom = tl.max(tl.where(there, cell_y * CELL + ((boxes >> 5) & 31), -1), 0)
    left = tl.min(tl.where(there, cell_x * CELL + ((boxes >> 10) & 31), 1 << 30), 0)
    right = tl.max(tl.where(there, cell_x * CELL + ((boxes >> 15) & 31), -1), 0)
    return top, bottom, left, right


@triton.jit
def clipped(first, last, tile, radius, SIZE: tl.constexpr):
    """What windows of the SIZE pixels from `tile` on show of first..last along an axis."""
    return tl.maximum(first, tile - radius), tl.minimum(last, tile + SIZE - 1 + radius)


@triton.jit
def last_key(KEY: tl.constexpr):
    """Greater than every key: no instance, the end of a list."""
    return tl.full([], 0x7FFFFFFF if KEY == tl.int32 else 0x7FFFFFFFFFFFFFFF, KEY)


@triton.jit
def pixel_pointers(image_ptr, y, x, row_stride, column_stride):
    """Pointers [len(y), len(x)] to the pixels of an image."""
    return image_ptr + y[:, None].to(tl.int64) * row_stride + x[None, :].to(tl.int64) * column_stride


@triton.jit
def load_keys(pointers, visible, KEY: tl.constexpr):
    """Keys of ids or classes: one less than these, and for the background the largest number."""
    labels = tl.load(pointers, mask=visible, other=0).to(KEY)
    return tl.where(labels > 0, labels - 1, last_key(KEY))


@triton.jit
def smallest(keys):
    return tl.min(tl.min(keys, 1), 0)


@triton.jit
def row_words(pixels):
    """One word for each row of bool [CELL, CELL]: int32."""
    return tl.sum(tl.where(pixels, (1 << tl.arange(0, CELL))[None, :], 0), 1)


@triton.jit(
    do_not_specialize=[
        "labels_ptr", "batch_stride", "row_stride", "column_stride", "classes_ptr", "class_batch_stride",
        "class_row_stride", "class_column_stride", "ignore_ptr", "ignore_batch_stride", "ignore_row_stride",
        "ignore_column_stride", "foreground_ptr", "foreground_batch_stride", "foreground_row_stride",
        "foreground_column_stride", "first_keys_ptr", "first_classes_ptr", "next_classes_ptr", "words_ptr",
        "marks_ptr", "largest_ptr", "height", "width", "cells_y", "cells_x",
    ]
)  # fmt: skip
def list_cells_kernel(
    labels_ptr,  # [B, H, W], any strides
    batch_stride,
    row_stride,
    column_stride,
    classes_ptr,  # [B, H, W], any strides; unused without HAS_CLASSES
    class_batch_stride,
    class_row_stride,
    class_column_stride,
    ignore_ptr,  # [B, H, W] of 0 and 1, any strides; unused without HAS_IGNORE
    ignore_batch_stride,
    ignore_row_stride,
    ignore_column_stride,
    foreground_ptr,  # [B, H, W] of 0 and 1, any strides; unused without HAS_FOREGROUND: where instances are
    foreground_batch_stride,
    foreground_row_stride,
    foreground_column_stride,
    first_keys_ptr,  # [B, cells_y, cells_x]
    first_classes_ptr,  # [B, cells_y, cells_x]; unused without HAS_CLASSES
    entries_ptr,  # [B, H * W, 2]: place, next key; see room_of_cell
    next_classes_ptr,  # [B, H * W]; unused without HAS_CLASSES
    words_ptr,  # [B, H * W]: bit x of a word is the pixel of column x
    marks_ptr,  # [B, cells_y, cells_x, CELL]: a word of foreground | a word of pixels to ignore << 32
    largest_ptr,  # [B]: the largest id, to be zero before; unused without FIND_LARGEST
    height,
    width,
    cells_y,
    cells_x,
    KEY: tl.constexpr,  # int32 or int64
    HAS_CLASSES: tl.constexpr,
    HAS_IGNORE: tl.constexpr,
    HAS_FOREGROUND: tl.constexpr,
    FIND_LARGEST: tl.constexpr,
):
    cell = tl.program_id(0)
    image, cell_y, cell_x = image_row_column(cell, cells_y, cells_x)
    room = image * height * width + room_of_cell(cell_y, cell_x, height, width)
    i, two = tl.arange(0, CELL), tl.arange(0, 2)
    y, x = cell_y * CELL + i, cell_x * CELL + i
    nothing, no_class = last_key(KEY), last_key(tl.int32)

    visible = (y[:, None] < height) & (x[None, :] < width)  # [CELL, CELL]
    if HAS_IGNORE:
        ignore_ptr += image * ignore_batch_stride
        pointers = pixel_pointers(ignore_ptr, y, x, ignore_row_stride, ignore_column_stride)
        ignored = tl.load(pointers, mask=visible, other=0) != 0
        visible &= ~ignored
    shown = visible  # the foreground may be where there is no class
    if HAS_CLASSES:
        classes_ptr += image * class_batch_stride
        pointers = pixel_pointers(classes_ptr, y, x, class_row_stride, class_column_stride)
        class_keys = load_keys(pointers, visible, tl.int32)
        visible &= class_keys < no_class
    pointers = pixel_pointers(labels_ptr + image * batch_stride, y, x, row_stride, column_stride)
    keys = load_keys(pointers, visible, KEY)
    if HAS_FOREGROUND:
        foreground_ptr += image * foreground_batch_stride
        pointers = pixel_pointers(foreground_ptr, y, x, foreground_row_stride, foreground_column_stride)
        foreground = tl.load(pointers, mask=shown, other=0) != 0
    else:
        foreground = keys < nothing
    marks = row_words(foreground).to(tl.uint32, bitcast=True).to(tl.int64)
    if HAS_IGNORE:
        marks |= row_words(ignored).to(tl.int64) << 32
    tl.store(marks_ptr + cell.to(tl.int64) * CELL + i, marks)

    count = 0
    word_count = 0
    largest = nothing - nothing
    if HAS_CLASSES:
        class_keys = tl.where(keys < nothing, class_keys, no_class)
        class_key = smallest(class_keys)
        key = smallest(tl.where(class_keys == class_key, keys, nothing))
        tl.store(first_classes_ptr + cell, class_key)
    else:
        key = smallest(keys)
    tl.store(first_keys_ptr + cell, key.to(tl.int64))
    while key < nothing:
        own = keys == key
        if HAS_CLASSES:
            own &= class_keys == class_key
        words = row_words(own)  # [CELL]
        has_word = words != 0
        columns = tl.reduce(words, 0, bitwise_or)
        row_set = tl.reduce(tl.where(has_word, 1 << i, 0), 0, bitwise_or)
        top, bottom = first_and_last(row_set)
        left, right = first_and_last(columns)
        word = word_count + population(row_set & ((1 << i) - 1))
        tl.store(words_ptr + room + word, words, mask=has_word)
        box = packed_box(top, bottom, left, right) | (word_count << 20)
        place = (row_set.to(tl.int64) << 32) | box
        word_count += population(row_set)
        largest = key + 1
        keys = tl.where(own, nothing, keys)
        if HAS_CLASSES:
            class_keys = tl.where(own, no_class, class_keys)
            class_key = smallest(class_keys)
            key = smallest(tl.where(class_keys == class_key, keys, nothing))
            tl.store(next_classes_ptr + room + count, class_key)
        else:
            key = smallest(keys)
        tl.store(entries_ptr + (room + count) * 2 + two, tl.where(two == 0, place, key.to(tl.int64)))
        count += 1
    if FIND_LARGEST:
        tl.atomic_max(largest_ptr + image, largest.to(tl.int64))
