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

NO_CLASS = tl.constexpr(1 << 32)  # what stands for class c is less by c; 0: there is none


@triton.jit
def any_of(conditions):
    """Whether one of a vector of conditions holds."""
    return tl.max(conditions.to(tl.int32), 0) > 0


@triton.jit
def largest_square(squares):
    """The largest of a vector of squares: one instruction for float32, whose bits are ordered alike."""
    if squares.dtype == tl.float32:
        return tl.max(squares.to(tl.int32, bitcast=True), 0).to(tl.float32, bitcast=True)
    else:
        return tl.max(squares, 0)


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
def offer(nears, seconds, ids, line, nearest, SECOND: tl.constexpr):
    """The squares that a line offers to voxels [COLUMNS] of which `nearest` are the nearest instances.

    The pointers [COLUMNS] are where the columns begin; a line is so far away from there.
    """
    near = tl.load(nears + line)
    if SECOND:
        near = tl.where(tl.load(ids + line) == nearest, tl.load(seconds + line), near)
    return near


@triton.jit
def take(
    best, id, nears, seconds, ids, line, lengths, SECOND: tl.constexpr, SMALLER_ID: tl.constexpr
):  # fmt: skip
    """Takes a line into account, `lengths` [VOXELS, 1] away: the best squares, and ids of the nearest."""
    line_near, line_id = tl.load(nears + line)[None, :], tl.load(ids + line)[None, :]
    if SECOND:
        offered = tl.where(line_id == id, tl.load(seconds + line)[None, :], line_near)
        best = tl.minimum(best, offered + lengths * lengths)
    else:
        found = line_near + lengths * lengths
        nearer = found < best
        if SMALLER_ID:
            nearer |= (found == best) & (line_id < id)
        id = tl.where(nearer, line_id, id)
        best = tl.minimum(best, found)
    return best, id


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
    """The squares below `best` of the nearest instance, and its id; if SECOND, of the nearest other one.

    Beyond an end of the axis a line is the last one there. Taken for farther away than it is, that offers no
    more than it has offered before.
    """
    nears, seconds, ids = near_ptr + columns, second_ptr + columns, id_ptr + columns
    last_place = count - 1
    last = last_place.to(tl.int64) * step
    up = begin.to(tl.int64) * step
    down = tl.minimum(up + (VOXELS - 1) * step, last)
    voxel = tl.arange(0, VOXELS)[:, None]
    if SECOND:  # the nearest of all of a column's voxels, or -1
        common = tl.max(id, 0)
        common = tl.where(tl.min(id, 0) == common, common, -1)
    else:
        common = columns  # not used
    line = up
    for j in tl.static_range(VOXELS):
        lengths = tl.abs(voxel - j).to(spacing.dtype) * spacing
        best, id = take(best, id, nears, seconds, ids, line, lengths, SECOND, SMALLER_ID)
        line = tl.minimum(line + step, last)
    beyond_first = voxel.to(spacing.dtype) * spacing
    beyond_last = (VOXELS - 1 - voxel).to(spacing.dtype) * spacing
    most = tl.maximum(begin, last_place - begin - (VOXELS - 1))
    worst = tl.max(best, 0)
    farthest = largest_square(worst)
    k = 1
    length = spacing
    while (k <= most) & matters(length * length, farthest, SMALLER_ID):
        next_length = (k + 1).to(spacing.dtype) * spacing
        square, next_square = length * length, next_length * next_length
        next_up, next_down = tl.maximum(up - step, 0), tl.minimum(down + step, last)
        up, down = tl.maximum(next_up - step, 0), tl.minimum(next_down + step, last)
        above = tl.minimum(
            offer(nears, seconds, ids, next_up, common, SECOND) + square,
            offer(nears, seconds, ids, up, common, SECOND) + next_square,
        )
        below = tl.minimum(
            offer(nears, seconds, ids, next_down, common, SECOND) + square,
            offer(nears, seconds, ids, down, common, SECOND) + next_square,
        )
        if gains(tl.minimum(above, below), worst, SMALLER_ID):
            if gains(above, worst, SMALLER_ID):
                lengths = length + beyond_first
                best, id = take(best, id, nears, seconds, ids, next_up, lengths, SECOND, SMALLER_ID)
                lengths = next_length + beyond_first
                best, id = take(best, id, nears, seconds, ids, up, lengths, SECOND, SMALLER_ID)
            if gains(below, worst, SMALLER_ID):
                lengths = length + beyond_last
                best, id = take(best, id, nears, seconds, ids, next_down, lengths, SECOND, SMALLER_ID)
                lengths = next_length + beyond_last
                best, id = take(best, id, nears, seconds, ids, down, lengths, SECOND, SMALLER_ID)
            worst = tl.max(best, 0)
            farthest = largest_square(worst)
        k += 2
        length = k.to(spacing.dtype) * spacing
    return best, id


@triton.jit
def gains(offered, worst, SMALLER_ID: tl.constexpr):
    """Whether one of a vector of voxels gains by what is offered where `worst` was found."""
    if SMALLER_ID:  # where nothing is offered, none
        return any_of((offered <= worst) & (offered < float("inf")))
    else:
        return any_of(offered < worst)
