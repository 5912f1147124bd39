"""The two nearest instances of every voxel, exactly, whatever their number: what passes along axes share.

Of each voxel a pass hands on the square of the distance to the nearest instance, the square of that to the
nearest other one, and the id of the nearest; 0 where there is none within the limits. The id of the other is
not needed: whoever looks from farther away, along another axis, takes the nearest, or where that is the
nearest already, the other. csrc/cpu/nearest_instances.cpp tells why two a row suffice.

Lengths are in units of the smallest spacing. A program of the passes along further axes is for some VOXELS of
each of its COLUMNS, one thread for each column. First it looks for the nearest instance, as far as that is
away, then for the nearest other one. A line of another place along the axis is put to use for all of its
voxels at once, unless none of them can gain by it.
"""

import triton
import triton.language as tl

from .stages import number

NO_CLASS = tl.constexpr(1 << 32)  # what stands for class c is less by c; 0: there is none


@triton.jit
def any_of(conditions):
    """Whether one of a vector of conditions holds."""
    return tl.max(conditions.to(tl.int32), 0) > 0


@triton.jit
def class_of_slot(found_ptr, slot):
    """The class that this launch is for, 0 without any, and whether there is nothing to be done.

    Where the first slot has no class, its passes run all the same: somebody has to write weights.
    """
    found = tl.load(found_ptr + slot)
    return tl.where(found > 0, NO_CLASS - found, 0).to(tl.int32), (slot > 0) & (found == 0)


@triton.jit
def matters(square, found, SMALLER_ID: tl.constexpr):
    """Whether what is so far away changes something where another was found."""
    if SMALLER_ID:
        return square <= found
    else:
        return square < found


@triton.jit
def offer(near_ptr, second_ptr, id_ptr, line, nearest, SECOND: tl.constexpr):
    """The squares that lines [COLUMNS] offer to voxels of which `nearest` are the nearest instances."""
    near = tl.load(near_ptr + line)
    if SECOND:
        near = tl.where(tl.load(id_ptr + line) == nearest, tl.load(second_ptr + line), near)
    return near


@triton.jit
def take(
    best,
    id,
    near_ptr,
    second_ptr,
    id_ptr,
    line,
    steps,
    spacing,
    SECOND: tl.constexpr,
    SMALLER_ID: tl.constexpr,
):
    """Takes lines [COLUMNS] into account, `steps` [VOXELS, 1] away: the best squares, and ids of the nearest."""
    along = steps * spacing
    line_near, line_id = tl.load(near_ptr + line)[None, :], tl.load(id_ptr + line)[None, :]
    if SECOND:
        offered = tl.where(line_id == id, tl.load(second_ptr + line)[None, :], line_near)
        best = tl.minimum(best, offered + along * along)
    else:
        found = line_near + along * along
        nearer = found < best
        if SMALLER_ID:
            nearer |= (found == best) & (line_id < id)
        id = tl.where(nearer, line_id, id)
        best = tl.minimum(best, found)
    return best, id


@triton.jit
def line_at(columns, place, last, step):
    """Where lines at a place along the axis begin. Beyond an end it is the last one there.

    Taken for farther away than it is, that offers no more than it has offered before.
    """
    return columns + tl.minimum(tl.maximum(place, 0), last).to(tl.int64) * step


@triton.jit
def search(
    best,  # [VOXELS, COLUMNS]: squares; what is no smaller does not matter. 0 beyond the end of the axis
    id,  # [VOXELS, COLUMNS]: of the nearest; 0 where this is to be found
    near_ptr,
    second_ptr,
    id_ptr,
    columns,  # [COLUMNS]: where they begin
    begin,  # the first voxel's place
    count,  # places along the axis
    step,  # from one to the next
    spacing,
    SECOND: tl.constexpr,  # whether it looks for the nearest other one
    SMALLER_ID: tl.constexpr,  # whether of two that are equally near the nearest is that of the smaller id
    VOXELS: tl.constexpr,
):
    """The squares below `best` of the nearest instance, and its id; if SECOND, those of the nearest other one."""
    last = count - 1
    voxel = tl.arange(0, VOXELS)[:, None]
    if SECOND:  # the nearest of all of a column's voxels, or -1
        common = tl.max(id, 0)
        common = tl.where(tl.min(id, 0) == common, common, -1)
    else:
        common = columns  # not used
    for j in tl.static_range(VOXELS):
        line = line_at(columns, begin + j, last, step)
        steps = (voxel - j).to(spacing.dtype)
        best, id = take(best, id, near_ptr, second_ptr, id_ptr, line, steps, spacing, SECOND, SMALLER_ID)
    before, after = begin, last - begin - (VOXELS - 1)
    most = tl.maximum(before, after)
    down_from = begin + (VOXELS - 1)
    to_first, to_last = voxel.to(spacing.dtype), (VOXELS - 1 - voxel).to(spacing.dtype)
    worst = tl.max(best, 0)
    farthest = tl.max(worst, 0)
    k = 1
    along = spacing
    while (k <= most) & matters(along * along, farthest, SMALLER_ID):
        away = k.to(spacing.dtype)
        next_along = along + spacing
        square, next_square = along * along, next_along * next_along
        up, next_up = line_at(columns, begin - k, last, step), line_at(columns, begin - k - 1, last, step)
        down = line_at(columns, down_from + k, last, step)
        next_down = line_at(columns, down_from + k + 1, last, step)
        above = tl.minimum(
            offer(near_ptr, second_ptr, id_ptr, up, common, SECOND) + square,
            offer(near_ptr, second_ptr, id_ptr, next_up, common, SECOND) + next_square,
        )
        below = tl.minimum(
            offer(near_ptr, second_ptr, id_ptr, down, common, SECOND) + square,
            offer(near_ptr, second_ptr, id_ptr, next_down, common, SECOND) + next_square,
        )
        least = tl.minimum(above, below)
        if any_of(matters(least, worst, SMALLER_ID) & (least < float("inf"))):
            best, id = take(
                best, id, near_ptr, second_ptr, id_ptr, up, away + to_first, spacing, SECOND, SMALLER_ID
            )
            best, id = take(
                best,
                id,
                near_ptr,
                second_ptr,
                id_ptr,
                next_up,
                away + 1 + to_first,
                spacing,
                SECOND,
                SMALLER_ID,
            )
            best, id = take(
                best, id, near_ptr, second_ptr, id_ptr, down, away + to_last, spacing, SECOND, SMALLER_ID
            )
            best, id = take(
                best,
                id,
                near_ptr,
                second_ptr,
                id_ptr,
                next_down,
                away + 1 + to_last,
                spacing,
                SECOND,
                SMALLER_ID,
            )
            worst = tl.max(best, 0)
            farthest = tl.max(worst, 0)
        k += 2
        along = k.to(spacing.dtype) * spacing
    return best, id
