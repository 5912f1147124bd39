"""Matrix products on tensor cores, of operands that are formed where the products take them.

A warp holds an operand in an order of its own: that of mma.m16n8k8, which is Triton's, too. So operands are
formed as [registers, lanes] in that order and only then seen as matrices, and nothing has to be moved by way
of shared memory. No result depends on it: were the order another one, they would be moved.
"""

import triton
import triton.language as tl

LANES = tl.constexpr(32)
# Before 3.8, Triton multiplies no matrices with fewer rows or columns than 16: zeros make up for the rest.
LEAST = tl.constexpr(8 if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 8) else 16)


@triton.jit
def zeros_at(pointer):
    """A zero in each lane, by reading 32 integers at `pointer`.

    An operand that depends on memory by two of its terms is formed once. One of numbers alone would be formed
    in the order of another use, and then moved.
    """
    return ((tl.load(pointer + tl.arange(0, LANES)) & 1) >> 1).to(tl.int32)


@triton.jit
def left_row_column(zeros, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Which row and column each number of a left operand is of: int32, to be added up as [registers, lanes].

    Of rows and of columns first what the register says, then what the lane says.
    """
    i, lane = tl.arange(0, ROWS * COLUMNS // LANES)[:, None], (tl.arange(0, LANES) + zeros)[None, :]
    BLOCKS: tl.constexpr = COLUMNS // 8
    row = i // (4 * BLOCKS) * 16 + i % 2 * 8
    column = i // 4 % BLOCKS * 8 + i // 2 % 2 * 4
    return row, lane // 4, column, lane % 4


@triton.jit
def as_left(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The left operand [ROWS, COLUMNS] of [registers, lanes]."""
    x = tl.reshape(x, [ROWS // 16, COLUMNS // 8, 2, 2, 8, 4])
    return tl.reshape(tl.permute(x, [0, 3, 4, 1, 2, 5]), [ROWS, COLUMNS])


@triton.jit
def right_row_column(zeros, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """As left_row_column, of a right operand."""
    i, lane = tl.arange(0, ROWS * COLUMNS // LANES)[:, None], (tl.arange(0, LANES) + zeros)[None, :]
    BLOCKS: tl.constexpr = COLUMNS // 8
    return i // BLOCKS * 4, lane % 4, i % BLOCKS * 8, lane // 4


@triton.jit
def as_right(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The right operand [ROWS, COLUMNS], perhaps with zeros up to LEAST, of [registers, lanes]."""
    M: tl.constexpr = ROWS if ROWS > LEAST else LEAST
    N: tl.constexpr = COLUMNS if COLUMNS > LEAST else LEAST
    if N > COLUMNS:
        is_first = tl.arange(0, N // COLUMNS)[None, :, None, None] == 0
        x = tl.where(is_first, tl.reshape(x, [ROWS // 4, 1, COLUMNS // 8, LANES]), 0.0)
        x = tl.reshape(x, [ROWS * N // LANES, LANES])
    if M > ROWS:
        is_first = tl.arange(0, M // ROWS)[:, None, None] == 0
        x = tl.where(is_first, tl.reshape(x, [1, ROWS * N // LANES, LANES]), 0.0)
    x = tl.reshape(x, [M // 8, 2, N // 8, 8, 4])
    return tl.reshape(tl.permute(x, [0, 1, 4, 2, 3]), [M, N])


@triton.jit
def product_as_left(x):
    """A product as the left operand of another one, its columns in another order: column k is `kth(k)`."""
    ROWS: tl.constexpr = x.shape[0]
    COLUMNS: tl.constexpr = x.shape[1]
    x = tl.reshape(x, [ROWS, COLUMNS // 8, 4, 2])
    return tl.reshape(tl.permute(x, [0, 1, 3, 2]), [ROWS, COLUMNS])


@triton.jit
def kth(k):
    """Which column of x is column k of product_as_left(x)."""
    return k // 8 * 8 + k % 4 * 2 + k // 4 % 2
