"""The passes of nearest.py along further axes, the last of which comes to weights or distances."""

import triton
import triton.language as tl

from .nearest import class_of_slot, search
from .stages import number


@triton.jit
def columns_of_program(program, groups, columns, inner, count, VOXELS: tl.constexpr, COLUMNS: tl.constexpr):
    """A program's columns: outer and inner number, whether they are there; where they begin, the first place.

    The columns are outer x `inner` ones. One program after the other takes the groups of voxels of a column.
    """
    program = tl.full([], program, tl.int64)
    column = program // groups * COLUMNS + tl.arange(0, COLUMNS)
    there = column < columns
    column = tl.minimum(column, columns - 1)
    outer = column // inner
    begin = (program % groups).to(tl.int32) * VOXELS
    return outer, column - outer * inner, there, outer * count * inner + column - outer * inner, begin


@triton.jit
def two_nearest(
    near_ptr, second_ptr, id_ptr, begins, begin, count, step, spacing, limit, second_limit,
    COMPUTE: tl.constexpr, ID: tl.constexpr, WITH_SECOND: tl.constexpr, SMALLER_ID: tl.constexpr,
    VOXELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Squares of the nearest instance and of the nearest other one below the limits, and the nearest's id."""
    there = (begin + tl.arange(0, VOXELS))[:, None] < count
    nothing = tl.zeros([VOXELS, COLUMNS], COMPUTE)
    near, id = search(
        nothing + tl.where(there, limit, 0.0), tl.zeros([VOXELS, COLUMNS], ID),
        near_ptr, second_ptr, id_ptr, begins, begin, count, step, spacing, False, SMALLER_ID, VOXELS,
    )  # fmt: skip
    second = nothing
    if WITH_SECOND:
        second, _ = search(
            nothing + tl.where(there, second_limit, 0.0), id,
            near_ptr, second_ptr, id_ptr, begins, begin, count, step, spacing, True, False, VOXELS,
        )  # fmt: skip
    return near, second, id


@triton.jit
def pass_along(
    near_ptr, second_ptr, id_ptr, near_out_ptr, second_out_ptr, id_out_ptr, program, groups, columns, inner,
    count, spacing, limit, second_limit, COMPUTE: tl.constexpr, ID: tl.constexpr, WITH_SECOND: tl.constexpr,
    SMALLER_ID: tl.constexpr, VOXELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One program of nearest_along_kernel."""
    _, _, there, begins, begin = columns_of_program(program, groups, columns, inner, count, VOXELS, COLUMNS)
    near, second, id = two_nearest(
        near_ptr, second_ptr, id_ptr, begins, begin, count, inner, number(spacing, COMPUTE),
        number(limit, COMPUTE), number(second_limit, COMPUTE), COMPUTE, ID, WITH_SECOND, SMALLER_ID,
        VOXELS, COLUMNS,
    )  # fmt: skip
    place = (begin + tl.arange(0, VOXELS))[:, None]
    out = begins[None, :] + place.to(tl.int64) * inner
    there = (place < count) & there[None, :]
    tl.store(near_out_ptr + out, near, mask=there)
    tl.store(id_out_ptr + out, id, mask=there)
    if WITH_SECOND:
        tl.store(second_out_ptr + out, second, mask=there)


@triton.jit(
    do_not_specialize=[
        "near_ptr", "second_ptr", "id_ptr", "near_out_ptr", "second_out_ptr", "id_out_ptr", "found_ptr",
        "slot", "groups", "columns", "inner", "count",
    ]
)  # fmt: skip
def nearest_along_kernel(
    near_ptr,  # [outer, count, inner], as are the next five
    second_ptr,
    id_ptr,
    near_out_ptr,
    second_out_ptr,  # untouched without WITH_SECOND
    id_out_ptr,
    found_ptr,  # by slot: see class_of_slot; unused without HAS_CLASSES
    slot,
    groups,  # of VOXELS along the axis
    columns,  # outer * inner
    inner,
    count,
    spacing: tl.float64,
    limit: tl.float64,  # squares: what is no smaller does not matter
    second_limit: tl.float64,
    COMPUTE: tl.constexpr,
    ID: tl.constexpr,
    HAS_CLASSES: tl.constexpr,
    WITH_SECOND: tl.constexpr,
    SMALLER_ID: tl.constexpr,
    VOXELS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    if HAS_CLASSES:
        _, idle = class_of_slot(found_ptr, slot)
        if idle:
            return
    pass_along(
        near_ptr, second_ptr, id_ptr, near_out_ptr, second_out_ptr, id_out_ptr, tl.program_id(0), groups,
        columns, inner, count, spacing, limit, second_limit, COMPUTE, ID, WITH_SECOND, SMALLER_ID, VOXELS,
        COLUMNS,
    )  # fmt: skip


# -------------------------------------------------------------------------------------------- distances


@triton.jit
def exact_root(x):
    """Rounded once, which of float32 tl.sqrt is not."""
    return tl.sqrt_rn(x) if x.dtype == tl.float32 else tl.sqrt(x)


@triton.jit(
    do_not_specialize=[
        "near_ptr", "second_ptr", "id_ptr", "distances_ptr", "ids_ptr", "voxels", "volume_stride",
        "place_stride", "row_stride", "column_stride", "width", "groups", "columns", "inner", "count",
    ]
)  # fmt: skip
def measure_nearest_kernel(
    near_ptr,  # [outer, count, inner], as are the next two
    second_ptr,
    id_ptr,
    distances_ptr,  # [1 or 2, B, ...]
    ids_ptr,  # [B, ...]: int64
    voxels,  # from the nearest to the second nearest distances
    volume_stride,  # of the two above
    place_stride,
    row_stride,
    column_stride,
    width,
    groups,
    columns,
    inner,
    count,
    spacing: tl.float64,
    unit: tl.float64,  # of lengths
    COMPUTE: tl.constexpr,
    ID: tl.constexpr,
    WITH_SECOND: tl.constexpr,
    VOXELS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    volume, within, there, begins, begin = columns_of_program(
        tl.program_id(0), groups, columns, inner, count, VOXELS, COLUMNS
    )
    infinity = tl.full([], float("inf"), COMPUTE)
    near, second, id = two_nearest(
        near_ptr, second_ptr, id_ptr, begins, begin, count, inner, number(spacing, COMPUTE), infinity,
        infinity, COMPUTE, ID, WITH_SECOND, True, VOXELS, COLUMNS,
    )  # fmt: skip
    place = (begin + tl.arange(0, VOXELS))[:, None]
    out = volume * volume_stride + within // width * row_stride + within % width * column_stride
    out = out[None, :] + place.to(tl.int64) * place_stride
    there = (place < count) & there[None, :]
    unit = number(unit, COMPUTE)
    dtype: tl.constexpr = distances_ptr.dtype.element_ty
    tl.store(ids_ptr + out, id.to(tl.int64), mask=there)
    tl.store(distances_ptr + out, (exact_root(near) * unit).to(dtype), mask=there)
    if WITH_SECOND:
        tl.store(distances_ptr + voxels + out, (exact_root(second) * unit).to(dtype), mask=there)


# ---------------------------------------------------------------------------------------------- weights


@triton.jit
def room_for_second(near, id, bordered, pair_limit):
    """The square below which a second instance adds something, given the nearest one."""
    distance = tl.sqrt(near)
    room = pair_limit - distance
    return tl.where(bordered & (id > 0) & (distance < room), room * room, 0.0)


@triton.jit
def weigh_places(
    near_ptr, second_ptr, id_ptr,
    foreground_ptr, foreground_volume_stride, foreground_place_stride, foreground_row_stride,
    foreground_column_stride,
    classes_ptr, class_volume_stride, class_place_stride, class_row_stride, class_column_stride,
    ignore_ptr, ignore_volume_stride, ignore_place_stride, ignore_row_stride, ignore_column_stride,
    out_ptr, volume_stride, place_stride, row_stride, column_stride, width, border_everywhere,
    program, groups, columns, inner, count, spacing, one, zero, fall, bwf, foreground_exponent,
    border_exponent, near_limit, fall_limit, pair_limit, on_top, COMPUTE: tl.constexpr, ID: tl.constexpr,
    HAS_FOREGROUND: tl.constexpr, HAS_CLASSES: tl.constexpr, HAS_IGNORE: tl.constexpr,
    WITH_SECOND: tl.constexpr, VOXELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One program of weigh_nearest_kernel, for one class: `on_top` of what others have added."""
    spacing, near_limit = number(spacing, COMPUTE), number(near_limit, COMPUTE)
    pair_limit = number(pair_limit, COMPUTE)
    volume, within, in_row, begins, begin = columns_of_program(
        program, groups, columns, inner, count, VOXELS, COLUMNS
    )
    y, x = within // width, within % width
    place = (begin + tl.arange(0, VOXELS))[:, None]
    there = (place < count) & in_row[None, :]
    place = place.to(tl.int64)
    near, id = search(
        tl.zeros([VOXELS, COLUMNS], COMPUTE) + tl.where(place < count, near_limit, 0.0),
        tl.zeros([VOXELS, COLUMNS], ID),
        near_ptr, second_ptr, id_ptr, begins, begin, count, inner, spacing, False, False, VOXELS,
    )  # fmt: skip
    inside = near == 0
    if HAS_FOREGROUND:
        offsets = volume * foreground_volume_stride + y * foreground_row_stride + x * foreground_column_stride
        offsets = offsets[None, :] + place * foreground_place_stride
        inside = tl.load(foreground_ptr + offsets, mask=there, other=0) > 0
    if HAS_CLASSES:
        offsets = volume * class_volume_stride + y * class_row_stride + x * class_column_stride
        offsets = offsets[None, :] + place * class_place_stride
        inside &= tl.load(classes_ptr + offsets, mask=there, other=0) > 0
    ignored = tl.zeros([VOXELS, COLUMNS], tl.int1)
    if HAS_IGNORE:
        offsets = volume * ignore_volume_stride + y * ignore_row_stride + x * ignore_column_stride
        offsets = offsets[None, :] + place * ignore_place_stride
        ignored = tl.load(ignore_ptr + offsets, mask=there, other=0) != 0
    out = (volume * volume_stride + y * row_stride + x * column_stride)[None, :] + place * place_stride
    weights = tl.where(inside, number(one, COMPUTE), number(zero, COMPUTE))
    weights = tl.where(ignored, 0.0, weights)
    if on_top:
        weights = tl.load(out_ptr + out, mask=there, other=0).to(COMPUTE)
    has_fall = (near < number(fall_limit, COMPUTE)) & ~(inside | ignored)
    falling = number(fall, COMPUTE) * tl.exp2(number(foreground_exponent, COMPUTE) * near)
    weights += tl.where(has_fall, falling, 0.0)
    if WITH_SECOND:
        bordered = ~ignored & there & (~inside | (border_everywhere != 0))
        limit = room_for_second(near, id, bordered, pair_limit)
        second, _ = search(
            limit, id, near_ptr, second_ptr, id_ptr, begins, begin, count, inner, spacing, True, False,
            VOXELS,
        )  # fmt: skip
        both = tl.sqrt(near) + tl.sqrt(second)
        border = number(bwf, COMPUTE) * tl.exp2(number(border_exponent, COMPUTE) * (both * both))
        weights += tl.where(second < limit, border, 0.0)
    tl.store(out_ptr + out, weights.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit(
    do_not_specialize=[
        "near_ptr", "second_ptr", "id_ptr", "foreground_ptr", "foreground_volume_stride",
        "foreground_place_stride", "foreground_row_stride", "foreground_column_stride", "classes_ptr",
        "class_volume_stride", "class_place_stride", "class_row_stride", "class_column_stride", "ignore_ptr",
        "ignore_volume_stride", "ignore_place_stride", "ignore_row_stride", "ignore_column_stride", "out_ptr",
        "volume_stride", "place_stride", "row_stride", "column_stride", "width", "border_everywhere",
        "found_ptr", "slot", "groups", "columns", "inner", "count",
    ]
)  # fmt: skip
def weigh_nearest_kernel(
    near_ptr,  # [outer, count, inner], as are the next two
    second_ptr,
    id_ptr,
    foreground_ptr,  # [B, ...], any strides: > 0 on the foreground; unused without HAS_FOREGROUND
    foreground_volume_stride,
    foreground_place_stride,
    foreground_row_stride,
    foreground_column_stride,
    classes_ptr,  # likewise: > 0 there, too; unused without CLASSES_DECIDE
    class_volume_stride,
    class_place_stride,
    class_row_stride,
    class_column_stride,
    ignore_ptr,  # likewise, of 0 and 1; unused without HAS_IGNORE
    ignore_volume_stride,
    ignore_place_stride,
    ignore_row_stride,
    ignore_column_stride,
    out_ptr,
    volume_stride,  # of the weights
    place_stride,
    row_stride,
    column_stride,
    width,
    border_everywhere,
    found_ptr,  # by slot: see class_of_slot; unused without HAS_CLASSES
    slot,
    groups,
    columns,
    inner,
    count,
    spacing: tl.float64,
    one: tl.float64,
    zero: tl.float64,
    fall: tl.float64,
    bwf: tl.float64,
    foreground_exponent: tl.float64,
    border_exponent: tl.float64,
    near_limit: tl.float64,  # a square, as is the next one
    fall_limit: tl.float64,
    pair_limit: tl.float64,
    COMPUTE: tl.constexpr,
    ID: tl.constexpr,
    HAS_FOREGROUND: tl.constexpr,
    CLASSES_DECIDE: tl.constexpr,
    HAS_CLASSES: tl.constexpr,
    HAS_IGNORE: tl.constexpr,
    WITH_SECOND: tl.constexpr,
    VOXELS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    if HAS_CLASSES:
        _, idle = class_of_slot(found_ptr, slot)
        if idle:
            return
    weigh_places(
        near_ptr, second_ptr, id_ptr, foreground_ptr, foreground_volume_stride, foreground_place_stride,
        foreground_row_stride, foreground_column_stride, classes_ptr, class_volume_stride, class_place_stride,
        class_row_stride, class_column_stride, ignore_ptr, ignore_volume_stride, ignore_place_stride,
        ignore_row_stride, ignore_column_stride, out_ptr, volume_stride, place_stride, row_stride,
        column_stride, width, border_everywhere, tl.program_id(0), groups, columns, inner, count, spacing,
        one, zero, fall, bwf, foreground_exponent, border_exponent, near_limit, fall_limit, pair_limit,
        slot > 0, COMPUTE, ID, HAS_FOREGROUND, CLASSES_DECIDE, HAS_IGNORE, WITH_SECOND, VOXELS, COLUMNS,
    )  # fmt: skip
