"""The two nearest instances along rows: the first of the passes that nearest.py tells about.

Looking to one side along a row, what is seen is the next instance, its place, and the place of the next other
one. What is seen from a voxel follows from what is seen from the voxels on the way, so that a scan finds it.
"""

import triton
import triton.language as tl

from .nearest import NO_CLASS, class_of_slot
from .stages import number


@triton.jit
def rows_of_program(program, rows, depth, height, ROWS: tl.constexpr):
    """Volume, plane and row of a program's rows, and their numbers [ROWS]: beyond the last row it is that."""
    row = tl.minimum(tl.full([], program, tl.int64) * ROWS + tl.arange(0, ROWS), rows - 1)
    plane = row // height
    return plane // depth, plane % depth, row % height, row


@triton.jit
def begin_of_rows(tensor_ptr, volume, z, y, volume_stride, plane_stride, row_stride):
    """Pointers [ROWS, 1] to where rows begin in a tensor."""
    offsets = volume * volume_stride + z * plane_stride + y * row_stride
    return tensor_ptr + offsets[:, None]


@triton.jit
def load_ids(
    labels, column_stride, classes, class_column_stride, ignore, ignore_column_stride, x, width, only_class,
    ID: tl.constexpr, HAS_CLASSES: tl.constexpr, HAS_IGNORE: tl.constexpr,
):  # fmt: skip
    """The ids at columns x [1, BLOCK] of rows, of one class where there are classes: 0 without an instance.

    And the lowest class above that one that has an instance, as find_class_kernel notes it; 0: there is none.
    """
    inside = x < width
    if HAS_IGNORE:
        inside &= tl.load(ignore + x * ignore_column_stride, mask=inside, other=1) == 0
    label = tl.load(labels + x * column_stride, mask=inside, other=0)
    ids = tl.maximum(tl.where(label > 0, label, 0).to(ID), 0)  # [ROWS, BLOCK]
    next_class = tl.full([], 0, tl.int64)
    if HAS_CLASSES:
        its_class = tl.load(classes + x * class_column_stride, mask=inside, other=0)
        higher = tl.where((ids > 0) & (its_class > only_class), NO_CLASS - its_class.to(tl.int64), 0)
        next_class = tl.max(tl.max(higher, 1), 0)
        ids = tl.where((its_class == only_class) & (its_class > 0), ids, 0)
    return ids, next_class


@triton.jit
def seen_beyond(id_behind, at_behind, other_behind, id, at, other):
    """What is seen of two parts of a row, the second in front: an id or 0, its place, that of another id.

    Places grow towards the viewer; where nothing is seen they are negative infinity.
    """
    hidden = (id == 0) | (id == id_behind)
    other = tl.maximum(other, tl.where(hidden, other_behind, at_behind))
    return tl.where(id == 0, id_behind, id), tl.maximum(at, at_behind), other


@triton.jit
def seen_in_block(id, at, TO_RIGHT: tl.constexpr):
    """What each voxel of a block [ROWS, BLOCK] of ids at places sees in it to one side, itself included."""
    nothing = tl.full(id.shape, -float("inf"), at.dtype)
    return tl.associative_scan((id, tl.where(id > 0, at, nothing), nothing), 1, seen_beyond, reverse=TO_RIGHT)


@triton.jit
def place_in_row(id_left, left, other_left, id_right, right, other_right, x, spacing):
    """The squares and the id that a voxel at x hands on, of what it sees to the left and to the right."""
    to_left, to_right = x - left, -x - right
    other = tl.minimum(x - other_left, -x - other_right)
    other = tl.where(id_left != id_right, tl.minimum(other, tl.maximum(to_left, to_right)), other)
    # The smaller id where both are equally near.
    is_left = (to_left < to_right) | ((to_left == to_right) & (id_left < id_right))
    near, second = tl.minimum(to_left, to_right) * spacing, other * spacing
    return near * near, second * second, tl.where(is_left, id_left, id_right)


@triton.jit(
    do_not_specialize=[
        "labels_ptr", "volume_stride", "plane_stride", "row_stride", "column_stride", "classes_ptr",
        "class_volume_stride", "class_plane_stride", "class_row_stride", "class_column_stride", "ignore_ptr",
        "ignore_volume_stride", "ignore_plane_stride", "ignore_row_stride", "ignore_column_stride",
        "found_ptr", "rows", "depth", "height", "width",
    ]
)  # fmt: skip
def find_class_kernel(
    labels_ptr,  # [B, D, H, W], any strides
    volume_stride,
    plane_stride,
    row_stride,
    column_stride,
    classes_ptr,  # likewise, int32
    class_volume_stride,
    class_plane_stride,
    class_row_stride,
    class_column_stride,
    ignore_ptr,  # likewise, of 0 and 1; unused without HAS_IGNORE
    ignore_volume_stride,
    ignore_plane_stride,
    ignore_row_stride,
    ignore_column_stride,
    found_ptr,  # the first is set: see class_of_slot
    rows,  # B * D * H
    depth,
    height,
    width,
    ID: tl.constexpr,
    HAS_IGNORE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    volume, z, y, _row = rows_of_program(tl.program_id(0), rows, depth, height, ROWS)
    labels = begin_of_rows(labels_ptr, volume, z, y, volume_stride, plane_stride, row_stride)
    classes = begin_of_rows(
        classes_ptr, volume, z, y, class_volume_stride, class_plane_stride, class_row_stride
    )
    ignore = begin_of_rows(
        ignore_ptr, volume, z, y, ignore_volume_stride, ignore_plane_stride, ignore_row_stride
    )
    lowest = tl.full([], 0, tl.int64)
    for begin in range(0, width, BLOCK):
        x = (begin + tl.arange(0, BLOCK)).to(tl.int64)[None, :]
        _ids, higher = load_ids(
            labels, column_stride, classes, class_column_stride, ignore, ignore_column_stride, x, width, 0,
            ID, True, HAS_IGNORE,
        )  # fmt: skip
        lowest = tl.maximum(lowest, higher)
    if lowest > 0:
        tl.atomic_max(found_ptr, lowest)


@triton.jit(
    do_not_specialize=[
        "labels_ptr", "volume_stride", "plane_stride", "row_stride", "column_stride", "classes_ptr",
        "class_volume_stride", "class_plane_stride", "class_row_stride", "class_column_stride", "ignore_ptr",
        "ignore_volume_stride", "ignore_plane_stride", "ignore_row_stride", "ignore_column_stride",
        "found_ptr", "slot", "near_ptr", "second_ptr", "id_ptr", "rows", "depth", "height", "width",
    ]
)  # fmt: skip
def nearest_in_rows_kernel(
    labels_ptr,  # [B, D, H, W], any strides
    volume_stride,
    plane_stride,
    row_stride,
    column_stride,
    classes_ptr,  # likewise, int32; unused without HAS_CLASSES
    class_volume_stride,
    class_plane_stride,
    class_row_stride,
    class_column_stride,
    ignore_ptr,  # likewise, of 0 and 1; unused without HAS_IGNORE
    ignore_volume_stride,
    ignore_plane_stride,
    ignore_row_stride,
    ignore_column_stride,
    found_ptr,  # by slot, see class_of_slot: that of the next slot is set; unused without HAS_CLASSES
    slot,
    near_ptr,  # [B, D, H, W], contiguous, as are the next two
    second_ptr,
    id_ptr,
    rows,  # B * D * H
    depth,
    height,
    width,
    spacing: tl.float64,
    COMPUTE: tl.constexpr,  # of squares: float32 or float64
    ID: tl.constexpr,  # int32 or int64
    HAS_CLASSES: tl.constexpr,
    HAS_IGNORE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    ONE_BLOCK: tl.constexpr,  # whether no row is longer than a block
):
    only_class = 0
    if HAS_CLASSES:
        only_class, idle = class_of_slot(found_ptr, slot)
        if idle:
            return
    next_class = scan_rows(
        labels_ptr, volume_stride, plane_stride, row_stride, column_stride,
        classes_ptr, class_volume_stride, class_plane_stride, class_row_stride, class_column_stride,
        ignore_ptr, ignore_volume_stride, ignore_plane_stride, ignore_row_stride, ignore_column_stride,
        near_ptr, second_ptr, id_ptr, rows, depth, height, width, spacing, tl.program_id(0), only_class,
        COMPUTE, ID, HAS_CLASSES, HAS_IGNORE, ROWS, BLOCK, ONE_BLOCK,
    )  # fmt: skip
    if HAS_CLASSES:
        tl.atomic_max(found_ptr + slot + 1, next_class, mask=next_class > 0)


@triton.jit
def scan_rows(
    labels_ptr, volume_stride, plane_stride, row_stride, column_stride,
    classes_ptr, class_volume_stride, class_plane_stride, class_row_stride, class_column_stride,
    ignore_ptr, ignore_volume_stride, ignore_plane_stride, ignore_row_stride, ignore_column_stride,
    near_ptr, second_ptr, id_ptr, rows, depth, height, width, spacing, program, only_class,
    COMPUTE: tl.constexpr, ID: tl.constexpr, HAS_CLASSES: tl.constexpr,
    HAS_IGNORE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, ONE_BLOCK: tl.constexpr,
):  # fmt: skip
    """One program of nearest_in_rows_kernel, for one class; returns the next higher one."""
    spacing = number(spacing, COMPUTE)
    volume, z, y, row = rows_of_program(program, rows, depth, height, ROWS)
    labels = begin_of_rows(labels_ptr, volume, z, y, volume_stride, plane_stride, row_stride)
    classes = labels
    ignore = labels
    if HAS_CLASSES:
        classes = begin_of_rows(
            classes_ptr, volume, z, y, class_volume_stride, class_plane_stride, class_row_stride
        )
    if HAS_IGNORE:
        ignore = begin_of_rows(
            ignore_ptr, volume, z, y, ignore_volume_stride, ignore_plane_stride, ignore_row_stride
        )
    out = (row * width)[:, None]
    next_class = tl.full([], 0, tl.int64)
    i = tl.arange(0, BLOCK)
    # Of what was passed, at first nothing: to the left, then to the right, where places are negative.
    id_passed = tl.full([ROWS, 1], 0, ID)
    passed = tl.full([ROWS, 1], -float("inf"), COMPUTE)
    other_passed = passed
    if not ONE_BLOCK:
        for begin in range(0, width, BLOCK):
            x = (begin + i).to(tl.int64)[None, :]
            ids, higher = load_ids(
                labels, column_stride, classes, class_column_stride, ignore, ignore_column_stride, x, width,
                only_class, ID, HAS_CLASSES, HAS_IGNORE,
            )  # fmt: skip
            id, at, other = seen_in_block(ids, x.to(COMPUTE), False)
            id, at, other = seen_beyond(id_passed, passed, other_passed, id, at, other)
            tl.store(id_ptr + out + x, id, mask=x < width)
            tl.store(near_ptr + out + x, at, mask=x < width)
            tl.store(second_ptr + out + x, other, mask=x < width)
            is_last = (i == BLOCK - 1)[None, :]
            id_passed = tl.sum(tl.where(is_last, id, 0), 1)[:, None].to(ID)
            passed = tl.max(at, 1)[:, None]
            other_passed = tl.max(other, 1)[:, None]
        tl.debug_barrier()
        id_passed = tl.full([ROWS, 1], 0, ID)
        passed = tl.full([ROWS, 1], -float("inf"), COMPUTE)
        other_passed = passed
    blocks = (width + (BLOCK - 1)) // BLOCK
    for block in range(0, 1 if ONE_BLOCK else blocks):
        begin = 0 if ONE_BLOCK else (blocks - 1 - block) * BLOCK
        x = (begin + i).to(tl.int64)[None, :]
        ids, higher = load_ids(
            labels, column_stride, classes, class_column_stride, ignore, ignore_column_stride, x, width,
            only_class, ID, HAS_CLASSES, HAS_IGNORE,
        )  # fmt: skip
        next_class = tl.maximum(next_class, higher)
        place = x.to(COMPUTE)
        id_right, right, other_right = seen_in_block(ids, -place, True)
        if ONE_BLOCK:
            id_left, left, other_left = seen_in_block(ids, place, False)
        else:
            id_right, right, other_right = seen_beyond(
                id_passed, passed, other_passed, id_right, right, other_right
            )
            is_first = (i == 0)[None, :]
            id_passed = tl.sum(tl.where(is_first, id_right, 0), 1)[:, None].to(ID)
            passed = tl.max(right, 1)[:, None]
            other_passed = tl.max(other_right, 1)[:, None]
            id_left = tl.load(id_ptr + out + x, mask=x < width, other=0)
            left = tl.load(near_ptr + out + x, mask=x < width, other=0)
            other_left = tl.load(second_ptr + out + x, mask=x < width, other=0)
            tl.debug_barrier()  # all have read what is overwritten now
        near, second, id = place_in_row(
            id_left, left, other_left, id_right, right, other_right, place, spacing
        )
        tl.store(id_ptr + out + x, id, mask=x < width)
        tl.store(near_ptr + out + x, near, mask=x < width)
        tl.store(second_ptr + out + x, second, mask=x < width)
    return next_class
