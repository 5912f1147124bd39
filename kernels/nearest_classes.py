"""Weights by the two nearest instances of the classes that have no launches of their own."""

import triton
import triton.language as tl

from .nearest import NO_CLASS
from .nearest_passes import pass_along, weigh_places
from .nearest_rows import scan_rows


@triton.jit(
    do_not_specialize=[
        "labels_ptr", "label_volume_stride", "label_plane_stride", "label_row_stride", "label_column_stride",
        "classes_ptr", "class_volume_stride", "class_plane_stride", "class_row_stride", "class_column_stride",
        "ignore_ptr", "ignore_volume_stride", "ignore_plane_stride", "ignore_row_stride",
        "ignore_column_stride", "foreground_ptr", "foreground_volume_stride", "foreground_plane_stride",
        "foreground_row_stride", "foreground_column_stride", "near_ptr", "second_ptr", "id_ptr",
        "near_between_ptr", "second_between_ptr", "id_between_ptr", "out_ptr", "volume_stride",
        "plane_stride", "row_stride", "column_stride", "border_everywhere", "found_ptr", "slot", "depth",
        "height", "width",
    ]
)  # fmt: skip
def weigh_further_classes_kernel(
    labels_ptr,  # [B, D, H, W], any strides, as are the next three
    label_volume_stride,
    label_plane_stride,
    label_row_stride,
    label_column_stride,
    classes_ptr,
    class_volume_stride,
    class_plane_stride,
    class_row_stride,
    class_column_stride,
    ignore_ptr,  # unused without HAS_IGNORE
    ignore_volume_stride,
    ignore_plane_stride,
    ignore_row_stride,
    ignore_column_stride,
    foreground_ptr,  # > 0 on the foreground
    foreground_volume_stride,
    foreground_plane_stride,
    foreground_row_stride,
    foreground_column_stride,
    near_ptr,  # [B, D, H, W], contiguous, as are the next five, of which the last three are for D > 1
    second_ptr,
    id_ptr,
    near_between_ptr,
    second_between_ptr,
    id_between_ptr,
    out_ptr,
    volume_stride,  # of the weights
    plane_stride,
    row_stride,
    column_stride,
    border_everywhere,
    found_ptr,  # by slot: see class_of_slot
    slot,  # of the first class that is left
    depth,
    height,
    width,
    spacing_d: tl.float64,
    spacing_h: tl.float64,
    spacing_w: tl.float64,
    fall: tl.float64,  # these as for weigh_nearest_kernel
    bwf: tl.float64,
    foreground_exponent: tl.float64,
    border_exponent: tl.float64,
    limit: tl.float64,
    second_limit: tl.float64,
    near_limit: tl.float64,
    fall_limit: tl.float64,
    pair_limit: tl.float64,
    COMPUTE: tl.constexpr,
    ID: tl.constexpr,
    CLASSES_DECIDE: tl.constexpr,
    HAS_IGNORE: tl.constexpr,
    WITH_SECOND: tl.constexpr,
    DEEP: tl.constexpr,  # whether D > 1
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    VOXELS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """All passes of a volume, for one class after the other: right for any number of them, and slow."""
    found = tl.load(found_ptr + slot)
    volume = tl.program_id(0).to(tl.int64)
    rows = depth * height
    voxels = rows.to(tl.int64) * width
    labels_ptr += volume * label_volume_stride
    classes_ptr += volume * class_volume_stride
    ignore_ptr += volume * ignore_volume_stride
    foreground_ptr += volume * foreground_volume_stride
    out_ptr += volume * volume_stride
    near_ptr += volume * voxels
    second_ptr += volume * voxels
    id_ptr += volume * voxels
    near_between_ptr += volume * voxels
    second_between_ptr += volume * voxels
    id_between_ptr += volume * voxels
    while found > 0:
        only_class = (NO_CLASS - found).to(tl.int32)
        found = tl.full([], 0, tl.int64)
        for program in range(0, (rows + (ROWS - 1)) // ROWS):
            next_class = scan_rows(
                labels_ptr, label_volume_stride, label_plane_stride, label_row_stride, label_column_stride,
                classes_ptr, class_volume_stride, class_plane_stride, class_row_stride, class_column_stride,
                ignore_ptr, ignore_volume_stride, ignore_plane_stride, ignore_row_stride,
                ignore_column_stride, near_ptr, second_ptr, id_ptr, rows, depth, height, width, spacing_w,
                program, only_class,
                COMPUTE, ID, True, HAS_IGNORE, ROWS, BLOCK, ONE_BLOCK,
            )  # fmt: skip
            found = tl.maximum(found, next_class)
        tl.debug_barrier()
        if DEEP:
            groups, columns = (height + (VOXELS - 1)) // VOXELS, depth * width
            for program in range(0, groups * ((columns + (COLUMNS - 1)) // COLUMNS)):
                pass_along(
                    near_ptr, second_ptr, id_ptr, near_between_ptr, second_between_ptr, id_between_ptr,
                    program, groups, columns, width, height, spacing_h, limit, second_limit, COMPUTE, ID,
                    WITH_SECOND, False, VOXELS, COLUMNS,
                )  # fmt: skip
            tl.debug_barrier()
            groups, columns = (depth + (VOXELS - 1)) // VOXELS, height * width
            for program in range(0, groups * ((columns + (COLUMNS - 1)) // COLUMNS)):
                weigh_places(
                    near_between_ptr, second_between_ptr, id_between_ptr, foreground_ptr,
                    foreground_volume_stride, foreground_plane_stride, foreground_row_stride,
                    foreground_column_stride, classes_ptr, class_volume_stride, class_plane_stride,
                    class_row_stride, class_column_stride, ignore_ptr, ignore_volume_stride,
                    ignore_plane_stride, ignore_row_stride, ignore_column_stride, out_ptr, volume_stride,
                    plane_stride, row_stride, column_stride, width, border_everywhere, program, groups,
                    columns, height * width, depth, spacing_d, 0.0, 0.0, fall, bwf, foreground_exponent,
                    border_exponent, near_limit, fall_limit, pair_limit, True, COMPUTE, ID, True,
                    CLASSES_DECIDE, HAS_IGNORE, WITH_SECOND, VOXELS, COLUMNS,
                )  # fmt: skip
        else:
            groups = (height + (VOXELS - 1)) // VOXELS
            for program in range(0, groups * ((width + (COLUMNS - 1)) // COLUMNS)):
                weigh_places(
                    near_ptr, second_ptr, id_ptr, foreground_ptr, foreground_volume_stride,
                    foreground_row_stride, 0, foreground_column_stride, classes_ptr, class_volume_stride,
                    class_row_stride, 0, class_column_stride, ignore_ptr, ignore_volume_stride,
                    ignore_row_stride, 0, ignore_column_stride, out_ptr, volume_stride, row_stride, 0,
                    column_stride, width, border_everywhere, program, groups, width, width, height, spacing_h,
                    0.0, 0.0, fall, bwf, foreground_exponent, border_exponent, near_limit, fall_limit,
                    pair_limit, True, COMPUTE, ID, True, CLASSES_DECIDE, HAS_IGNORE, WITH_SECOND, VOXELS,
                    COLUMNS,
                )  # fmt: skip
        tl.debug_barrier()
