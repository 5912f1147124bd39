"""The second launch from labels to weights: each program weighs one tile of the image.

It merges the sorted lists of the cells around, so that it meets each instance once, by ascending class and
id. An instance is read in chunks 32 pixels wide, from the corner of its bounding box on: most take few.
"""

import triton
import triton.language as tl

from .bits import bitwise_or, population, steps_to_bits
from .cells import (
    CELL,
    bounding_box,
    cells_around,
    clipped,
    image_row_column,
    last_key,
    room_of_cell,
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
    EUCLIDEAN,
    LOGARITHMIC,
    SCALED,
    accumulate,
    add_logarithms,
    add_products,
    add_products_with_bits,
    add_row_logarithms,
    background_weights,
    beyond,
    border_of,
    decay,
    distance_and_exponent,
    enough,
    full_tile,
    log2,
    log_sum,
    near_enough,
    nearest_term,
    number,
    shift_towards,
    split,
)


@triton.jit
def load_words(words_ptr, room, entries, listed, row):
    """Words of rows 0..31 of `entries` in cells, 0 where there is none: uint64."""
    first_words, row_sets = entries.to(tl.int32) >> 20, (entries >> 32).to(tl.int32)
    word = first_words + population(row_sets & ((1 << row) - 1))
    present = listed & (((row_sets >> row) & 1) != 0)
    words = tl.load(words_ptr + room + word, mask=present != 0, other=0)
    return words.to(tl.uint32, bitcast=True).to(tl.uint64)


@triton.jit
def load_chunk(words_ptr, entries, cell_y0, cell_x0, cell_x1, height, width, y, last_y, x):
    """Rows `y` of an instance from column x on, as words: uint32.

    Each is put together from the words of two cells. `entries` are those of the cells around the tile, 0
    where the instance is not in a cell.
    """
    LISTS: tl.constexpr = entries.shape[0]
    cell_y, cell_x = y // CELL, x // CELL
    visible = y <= last_y
    list_ = tl.where(visible, (cell_y - cell_y0) * (cell_x1 - cell_x0 + 1) + cell_x - cell_x0, 0)
    room = room_of_cell(cell_y, cell_x, height, width)
    words = load_words(words_ptr, room, tl.gather(entries, list_, 0), visible, y % CELL)
    next_entries = tl.gather(entries, tl.minimum(list_ + 1, LISTS - 1), 0)
    room = room_of_cell(cell_y, cell_x + 1, height, width)
    words |= load_words(words_ptr, room, next_entries, visible & (cell_x < cell_x1), y % CELL) << 32
    return (words >> (x - cell_x * CELL)).to(tl.uint32)


@triton.jit
def bits_of_words(words, zeros, ROWS: tl.constexpr, COMPUTE: tl.constexpr):
    """Words of ROWS rows, each four times, as the right operand [CELL, ROWS] of 0.0 and 1.0."""
    bit, bit_of_lane, _, _ = right_row_column(zeros, CELL, ROWS)  # [CELL * ROWS / 32, 1], [1, 32]
    words = tl.reshape(words, [ROWS // 8, 32]) >> bit_of_lane.to(tl.uint32)
    words = tl.broadcast_to(words[None, :, :], [8, ROWS // 8, 32])
    words = tl.reshape(words, [ROWS, 32]) >> bit.to(tl.uint32)
    return as_right((words & 1).to(COMPUTE), CELL, ROWS)


@triton.jit
def log2_sums(
    words_ptr, entries, cell_y0, cell_x0, cell_x1, height, width, top, bottom, left, right, tile_y, tile_x,
    zeros, radius, log2_decay, exponent, WAY: tl.constexpr, COMPUTE: tl.constexpr, ROWS: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    """log2 S of an instance, of which rows top..bottom and columns left..right count: [TILE_W, TILE_H]."""
    y, x = tile_y + tl.arange(0, TILE_H), tile_x + tl.arange(0, TILE_W)
    window, window_of_lane = radius.to(COMPUTE), (radius + zeros).to(COMPUTE)[None, :]
    # Where in tile and chunk the numbers of operands are: what their register says, and their lane.
    if WAY == LOGARITHMIC:  # no operands, but [TILE_W, CELL]
        x_register, x_lane = tl.zeros([1, 1], tl.int32), tl.arange(0, TILE_W)[:, None]
        column, column_lane = x_register, tl.arange(0, CELL)[None, :]
    else:
        x_register, x_lane, column, column_lane = left_row_column(zeros, TILE_W, CELL)
        chunk_row, chunk_row_lane, y_register, y_lane = right_row_column(zeros, ROWS, TILE_H)
        chunk_row, chunk_row_lane = kth(chunk_row), kth(chunk_row_lane)
    infinity: tl.constexpr = float("inf")
    sums = tl.full([TILE_W, TILE_H], 0.0 if WAY == SCALED else -infinity, COMPUTE)
    for chunk_x in tl.range(left, right + 1, CELL, num_stages=1):
        # What is constant in a register is added last.
        steps_x = (chunk_x - tile_x + column_lane - x_lane).to(COMPUTE)
        steps_x = tl.abs(steps_x + (column - x_register).to(COMPUTE))
        if WAY != LOGARITHMIC:
            x_of_operand = tile_x + x_lane + x_register
            shift_x = shift_towards(x_of_operand, chunk_x, CELL, log2_decay, exponent, WAY, COMPUTE)
            high, low = split(decay(steps_x, window, log2_decay, shift_x))
            high, low = as_left(high, TILE_W, CELL), as_left(low, TILE_W, CELL)
        for chunk_y in tl.range(top, bottom + 1, ROWS, num_stages=1):
            row_y = chunk_y + tl.arange(0, 4 * ROWS) // 4  # four lanes for each
            words = load_chunk(
                words_ptr, entries, cell_y0, cell_x0, cell_x1, height, width, row_y, bottom, chunk_x
            )
            if WAY == LOGARITHMIC:
                terms = tl.where(steps_x <= window, steps_x * log2_decay, -infinity)
                for row in range(0, ROWS):
                    word = tl.max(tl.where(row_y == chunk_y + row, words, 0), 0)
                    if word != 0:
                        own = ((word >> tl.arange(0, CELL)) & 1) != 0
                        row_sums = log_sum(tl.where(own[None, :], terms, -infinity))  # [TILE_W]
                        sums = add_row_logarithms(sums, row_sums, chunk_y + row - y, window, log2_decay)
            else:
                row_sums = tl.zeros([TILE_W, ROWS if ROWS > LEAST else LEAST], COMPUTE)
                bits = bits_of_words(words, zeros, ROWS, COMPUTE)
                row_sums = product_as_left(add_products_with_bits(row_sums, high, low, bits))
                steps_y = (chunk_y - tile_y + chunk_row_lane - y_lane).to(COMPUTE)
                steps_y = tl.abs(steps_y + (chunk_row - y_register).to(COMPUTE))
                y_of_operand = tile_y + y_lane + y_register
                shift_y = shift_towards(y_of_operand, chunk_y, ROWS, log2_decay, exponent, WAY, COMPUTE)
                high_y, low_y = split(decay(steps_y, window_of_lane, log2_decay, shift_y))
                high_y, low_y = as_right(high_y, ROWS, TILE_H), as_right(low_y, ROWS, TILE_H)
                if WAY == SCALED:
                    sums = add_products(sums, *split(row_sums), high_y, low_y)
                else:
                    chunk_sums = tl.zeros([TILE_W, TILE_H], COMPUTE)
                    chunk_sums = log2(add_products(chunk_sums, *split(row_sums), high_y, low_y))
                    chunk_sums -= shift_towards(x, chunk_x, CELL, log2_decay, exponent, WAY, COMPUTE)[:, None]
                    chunk_sums -= shift_towards(y, chunk_y, ROWS, log2_decay, exponent, WAY, COMPUTE)[None, :]
                    sums = add_logarithms(sums, chunk_sums)
    if WAY == SCALED:
        sums = log2(sums) - 2 * exponent
    return sums


@triton.jit
def squared_distances(
    words_ptr, entries, cell_y0, cell_x0, cell_x1, height, width, top, bottom, left, right, tile_y, tile_x,
    COMPUTE: tl.constexpr, ROWS: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    """The squared distance to the instance's pixels in rows top..bottom and columns left..right.

    [TILE_H, TILE_W]; a thread holds pixels of one column, which share what is found for an instance's row.
    """
    infinity: tl.constexpr = float("inf")
    row, x = tl.arange(0, ROWS), tl.arange(0, TILE_W)
    y = tl.arange(0, TILE_H).to(COMPUTE)
    # Seen from a tile above or below, a pixel hides those behind it in its column.
    is_below = tile_y > bottom
    is_beside = is_below | (tile_y + TILE_H <= top)
    squares = tl.full([TILE_H, TILE_W], infinity, COMPUTE)
    last_chunk = (bottom - top) // CELL
    for chunk_x in tl.range(left, right + 1, CELL, num_stages=1):
        position = tile_x - chunk_x + x
        visible = tl.full([], 0xFFFFFFFF, tl.uint32)  # columns
        for chunk in tl.range(0, last_chunk + 1, num_stages=1):
            chunk_y = top + CELL * tl.where(is_below, last_chunk - chunk, chunk)
            words_of_chunk = load_chunk(
                words_ptr, entries, cell_y0, cell_x0, cell_x1, height, width, chunk_y + tl.arange(0, CELL),
                bottom, chunk_x,
            )  # fmt: skip
            last_part = tl.minimum(bottom - chunk_y, CELL - 1) // ROWS
            for part in tl.range(0, last_part + 1, num_stages=1):
                first_row = ROWS * tl.where(is_below, last_part - part, part)
                words = tl.gather(words_of_chunk, first_row + row, 0) & visible
                columns = tl.reduce(words, 0, bitwise_or)
                if columns != 0:
                    visible = tl.where(is_beside, visible ^ columns, visible)
                    # (y - row)^2 is y^2 - 2 y row + row^2, the first of which can wait.
                    row_y = (chunk_y - tile_y + first_row + row).to(COMPUTE)
                    square_y = tl.where(words != 0, row_y * row_y, infinity)
                    steps_x = steps_to_bits(words[:, None], position[None, :]).to(COMPUTE)
                    base = steps_x * steps_x + square_y[:, None]  # [ROWS, TILE_W]
                    of_rows = base[:, None, :] - (2 * row_y)[:, None, None] * y[None, :, None]
                    squares = tl.minimum(squares, tl.min(of_rows, 0))
    return squares + (y * y)[:, None]


@triton.jit
def first_by_class(heads, head_classes, KEY: tl.constexpr):
    """The class that comes first among the heads of lists, and the first key of that class."""
    class_key = tl.min(head_classes, 0)
    return class_key, tl.min(tl.where(head_classes == class_key, heads, last_key(KEY)), 0)


@triton.jit
def store_tile(
    out_ptr, background, marks_ptr, image, cells_y, cells_x, height, width, tile_y, tile_x,
    HAS_IGNORE: tl.constexpr,
):  # fmt: skip
    """Stores a tile's weights: `background` [TILE_H, TILE_W], but 1 on the foreground, 0 where ignored."""
    y, x = tile_y + tl.arange(0, background.shape[0]), tile_x + tl.arange(0, background.shape[1])
    cell = (image * cells_y + y // CELL) * cells_x + tile_x // CELL
    marks = tl.load(marks_ptr + cell * CELL + y % CELL, mask=y < height, other=0)[:, None]
    column = (x % CELL)[None, :]
    foreground = (marks.to(tl.int32) >> column) & 1
    weights = tl.where(foreground != 0, 1.0, background)
    if HAS_IGNORE:
        ignored = ((marks >> 32).to(tl.int32) >> column) & 1
        weights = tl.where(ignored != 0, 0.0, weights)
    inside = (y[:, None] < height) & (x[None, :] < width)
    out = out_ptr + (image * height + y[:, None]) * width + x[None, :]
    tl.store(out, weights.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(
    do_not_specialize=[
        "first_keys_ptr", "first_classes_ptr", "next_classes_ptr", "words_ptr", "marks_ptr", "instances_ptr",
        "out_ptr", "height", "width", "cells_y", "cells_x", "tiles_y", "tiles_x", "radius", "cut_radius",
        "limit",
    ]
)  # fmt: skip
def weigh_tiles_kernel(
    first_keys_ptr,  # these as list_cells_kernel left them
    first_classes_ptr,
    entries_ptr,
    next_classes_ptr,
    words_ptr,
    marks_ptr,
    instances_ptr,  # with EVERY_INSTANCE [B]: how many there should be; HAS_CLASSES: [B, 1 + H * W], by class
    out_ptr,  # [B, H, W], contiguous
    height,
    width,
    cells_y,
    cells_x,
    tiles_y,
    tiles_x,
    radius,  # of the window
    cut_radius,  # what is farther away along an axis never shows; at most radius
    limit,  # an instance farther away than this many steps adds nothing
    log2_decay: tl.float64,  # of one step
    exponent: tl.float64,  # both factors of a scaled sum carry 2^exponent
    step_scale: tl.float64,  # the distance of one step
    log_scale: tl.float64,  # the distance of a factor of 1/2 in a sum
    foreground_exponent: tl.float64,  # the exponent of the foreground term for a squared distance of 1
    fbr: tl.float64,
    bwf: tl.float64,
    border_scale: tl.float64,
    KEY: tl.constexpr,  # int32 or int64
    COMPUTE: tl.constexpr,  # float32 or float64
    WAY: tl.constexpr,  # how distances are found, see stages.py
    BORDER: tl.constexpr,  # see rules.py
    EVERY_INSTANCE: tl.constexpr,
    FEWEST_INSTANCES: tl.constexpr,
    NEAREST_FALLOFF: tl.constexpr,  # not the sum over instances, but the nearest one's term of each class
    HAS_CLASSES: tl.constexpr,
    HAS_IGNORE: tl.constexpr,
    LISTS: tl.constexpr,  # a power of 2, at least the number of cells around a tile
    ROWS: tl.constexpr,  # of an instance that are taken together
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,  # divides CELL
):
    image, tile_row, tile_column = image_row_column(tl.program_id(0), tiles_y, tiles_x)
    tile_y, tile_x = tile_row * TILE_H, tile_column * TILE_W
    infinity: tl.constexpr = float("inf")
    # Scalars go to the type of the computation once.
    log2_decay, exponent = number(log2_decay, COMPUTE), number(exponent, COMPUTE)
    step_scale, log_scale = number(step_scale, COMPUTE), number(log_scale, COMPUTE)
    foreground_exponent = number(foreground_exponent, COMPUTE)
    border_scale = number(border_scale, COMPUTE)

    # The lists of the cells around, row by row.
    cell_y0, cell_x0, cell_y1, cell_x1 = cells_around(
        tile_y, tile_x, cut_radius, height, width, TILE_H, TILE_W
    )
    list_y, list_x = row_by_row(cell_y0, cell_x0, cell_x1, LISTS)
    cell = (image * cells_y + list_y) * cells_x + list_x  # [LISTS]
    first_room = image * height * width
    room = first_room + room_of_cell(list_y, list_x, height, width)
    cursor = entries_ptr + room * 2
    words_ptr += first_room
    cursor = cursor[:, None] + tl.arange(0, 2)[None, :]  # [LISTS, 2]
    nothing = last_key(KEY)
    listed = list_y <= cell_y1
    head = tl.load(first_keys_ptr + cell, mask=listed, other=0).to(KEY)
    head = tl.where(listed, head, nothing)
    if HAS_CLASSES:
        no_class = last_key(tl.int32)
        class_cursor = next_classes_ptr + room
        head_class = tl.load(first_classes_ptr + cell, mask=listed, other=0)
        head_class = tl.where(listed, head_class, no_class)
        class_key, key = first_by_class(head, head_class, KEY)
        instances_ptr += image * (height.to(tl.int64) * width + 1) + 1
    else:
        key = tl.min(head, 0)
        instances_ptr += image

    fd = full_tile(0.0, COMPUTE, WAY, TILE_H, TILE_W)
    border = full_tile(0.0, COMPUTE, WAY, TILE_H, TILE_W)  # of the classes before
    near = full_tile(infinity, COMPUTE, WAY, TILE_H, TILE_W)
    other = border_start(near, BORDER)
    own_cell = (image * cells_y + tile_y // CELL) * cells_x + tile_x // CELL
    zeros = zeros_at(marks_ptr + own_cell * CELL)
    seen = 0
    while key < nothing:
        hit = head == key  # [LISTS]
        if HAS_CLASSES:
            hit &= head_class == class_key
        entries, next_head = tl.split(tl.load(cursor, mask=hit[:, None], other=0))
        top, bottom, left, right = bounding_box(entries.to(tl.int32), hit, list_y, list_x)
        cursor += 2 * hit.to(tl.int32)[:, None]
        head = tl.where(hit, next_head.to(KEY), head)
        if HAS_CLASSES:
            head_class = tl.where(hit, tl.load(class_cursor, mask=hit, other=0), head_class)
            class_cursor += hit.to(tl.int32)
            next_class, key = first_by_class(head, head_class, KEY)
        else:
            key = tl.min(head, 0)

        # What the windows of this tile can show of it.
        top, bottom = clipped(top, bottom, tile_y, radius, TILE_H)
        left, right = clipped(left, right, tile_x, radius, TILE_W)
        away_y = beyond(tile_y, top - (TILE_H - 1), bottom)
        away_x = beyond(tile_x, left - (TILE_W - 1), right)
        if (top <= bottom) & (left <= right) & near_enough(away_y, away_x, limit, WAY):
            seen += 1
            if WAY == EUCLIDEAN:
                found = squared_distances(
                    words_ptr, entries, cell_y0, cell_x0, cell_x1, height, width, top, bottom, left, right,
                    tile_y, tile_x, COMPUTE, ROWS, TILE_H, TILE_W,
                )  # fmt: skip
            else:
                found = log2_sums(
                    words_ptr, entries, cell_y0, cell_x0, cell_x1, height, width, top, bottom, left, right,
                    tile_y, tile_x, zeros, radius, log2_decay, exponent, WAY, COMPUTE, ROWS, TILE_H, TILE_W,
                )  # fmt: skip
            d, exponents = distance_and_exponent(found, log_scale, foreground_exponent, WAY)
            fd, near, other = accumulate(d, exponents, fd, near, other, BORDER, NEAREST_FALLOFF)
        if HAS_CLASSES:
            if next_class != class_key:
                instances = tl.load(instances_ptr + class_key) if EVERY_INSTANCE else 0
                has_border = enough(seen, instances, EVERY_INSTANCE, FEWEST_INSTANCES)
                border += border_of(near, other, has_border, step_scale, border_scale, WAY, BORDER)
                if NEAREST_FALLOFF:
                    fd += nearest_term(near, foreground_exponent, WAY)
                near = full_tile(infinity, COMPUTE, WAY, TILE_H, TILE_W)
                other = border_start(near, BORDER)
                seen = 0
            class_key = next_class

    if not HAS_CLASSES:
        instances = tl.load(instances_ptr) if EVERY_INSTANCE else 0
        has_border = enough(seen, instances, EVERY_INSTANCE, FEWEST_INSTANCES)
        border = border_of(near, other, has_border, step_scale, border_scale, WAY, BORDER)
        if NEAREST_FALLOFF:
            fd = nearest_term(near, foreground_exponent, WAY)
    background = background_weights(fd, border, number(fbr, COMPUTE), number(bwf, COMPUTE))
    if WAY != EUCLIDEAN:
        background = tl.trans(background)
    store_tile(
        out_ptr, background, marks_ptr, image, cells_y, cells_x, height, width, tile_y, tile_x, HAS_IGNORE
    )
