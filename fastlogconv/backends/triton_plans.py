"""How the Triton kernels weigh images of a size: in which way, in which tiles, with how many registers.

Sizes were found best by counting (see bench/NOTES.md); numbers come from `numerics`.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from ..codes import BAND_BITS, CELL
from ..numerics import (
    LN2,
    SMALLEST_DECAY_LENGTH,
    Numbers,
    geometric_sum,
    numbers_for,
    scale_exponent,
    scaled_float_suffices,
)
from ..settings import WeightSettings


@dataclasses.dataclass(frozen=True)
class Tile:
    """The pixels that a program weighs."""

    height: int
    width: int
    warps: int
    rows: int  # of an instance that are taken together


TILES = {"logconv": Tile(32, 16, warps=1, rows=8), "euclidean": Tile(16, 32, warps=1, rows=2)}  # of labels
TILES_OF_REGIONS = {
    "chunk_scaled": Tile(16, 16, warps=1, rows=8),
    "logarithmic": Tile(32, 16, warps=2, rows=1),
    "euclidean": Tile(32, 16, warps=2, rows=1),
}
SPLIT_BITS = 12  # what is split in two to be multiplied has a second part so much smaller
MOST_LISTS = 4096  # cells around a tile: beyond, the reference computes
LISTS_WITHOUT_SPILLS = 256  # beyond, kernels spill, and are compiled for a minute
REGISTERS, MORE_REGISTERS, MOST_REGISTERS = 128, 168, 255  # 16, 12 and 8 warps on an SM


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to weigh the tiles of images of a size."""

    numbers: Numbers
    way: str  # one of codes.WAYS
    scale_exponent: int
    tile: Tile
    lists: int  # cells around a tile, at most, rounded up to a power of 2 (and no less than a warp)
    warps: int

    @property
    def feasible(self) -> bool:
        return self.lists <= MOST_LISTS

    @property
    def spills(self) -> bool:
        return self.lists > LISTS_WITHOUT_SPILLS

    def registers(self, long_keys: bool, has_classes: bool, padded: bool) -> int:
        """The most that a thread of weigh_tiles_kernel may use: as few as it takes without spills.

        `padded`: whether operands of products are, because Triton takes no smaller ones.
        """
        few = self._registers(long_keys, has_classes)
        if padded and self.way in ("scaled", "chunk_scaled"):
            return MORE_REGISTERS if few == REGISTERS else MOST_REGISTERS
        return few

    def _registers(self, long_keys: bool, has_classes: bool) -> int:
        if self.numbers.double_inside or self.lists > 64:
            return MOST_REGISTERS
        if self.way == "euclidean":
            return (REGISTERS, MORE_REGISTERS, MOST_REGISTERS)[long_keys + has_classes]
        much = self.way != "scaled" or self.lists > 32
        if much and has_classes:
            return MOST_REGISTERS
        return MORE_REGISTERS if much or has_classes or long_keys else REGISTERS

    def registers_of_regions(self, has_ignore: bool, padded: bool) -> int:
        """As `registers`, of weigh_regions_kernel."""
        scaled, many_lists = self.way == "chunk_scaled", self.lists > 64
        if self.numbers.double_inside or (scaled and (many_lists or padded)):
            return MOST_REGISTERS
        much = many_lists or (scaled and has_ignore)
        return MORE_REGISTERS if much else REGISTERS


@functools.lru_cache(256)
def plan_labels(settings: WeightSettings, height: int, width: int, double: bool) -> Plan:
    """For weigh_tiles_kernel; results are float64 if `double`, else float32."""
    numbers = numbers_for(settings, height, width, "gpu", double)
    tile = TILES[settings.distance]
    way, exponent = _way(settings, numbers, tile)
    lists = _lists(tile, height, width, numbers.cut_radius)
    return Plan(numbers, way, exponent, tile, lists, tile.warps * (2 if numbers.double_inside else 1))


@functools.lru_cache(256)
def plan_regions(settings: WeightSettings, height: int, width: int, double: bool) -> Plan:
    """For weigh_regions_kernel. A mask may hold any values, so no part of the window can be left out."""
    numbers = numbers_for(settings, height, width, "gpu", double)
    way, exponent = _way_of_regions(settings, numbers)
    tile = TILES_OF_REGIONS[way]
    lists = _lists(tile, height, width, numbers.radius)
    return Plan(numbers, way, exponent, tile, lists, tile.warps * (2 if numbers.double_inside else 1))


def _way_of_regions(settings: WeightSettings, numbers: Numbers) -> tuple[str, int]:
    """As _way, of masks, whose values in a chunk are BAND_BITS apart beside what the way to them tells.

    Nothing is known of a chunk's largest value, so however far away it is, it matters.
    """
    if settings.distance == "euclidean":
        return "euclidean", 0
    if not numbers.double_inside:
        tile = TILES_OF_REGIONS["chunk_scaled"]
        steps, steps_along = _steps_of_chunk(numbers, tile.rows)
        apart = BAND_BITS + SPLIT_BITS
        exponent, suffices = scale_exponent(
            steps * numbers.bits_per_step + apart,
            2 * numbers.largest_sum,  # the largest value is scaled to 2..4
            steps_along * numbers.bits_per_step + apart,
        )
        if suffices and scaled_float_suffices(settings, numbers, exponent):
            return "chunk_scaled", exponent
    return "logarithmic", 0


def _steps_of_chunk(numbers: Numbers, rows: int) -> tuple[int, int]:
    """How much farther than the nearest pixel of a chunk the farthest may be; and along x alone."""
    return min(2 * numbers.radius, rows + CELL - 2), min(numbers.radius, CELL - 1)


def _way(settings: WeightSettings, numbers: Numbers, tile: Tile) -> tuple[str, int]:
    """The fastest way that suffices, and the exponent that its factors carry."""
    if settings.distance == "euclidean":
        return "euclidean", 0
    if not numbers.double_inside:
        for way, (steps, steps_along) in (
            ("scaled", (2 * numbers.cut_radius, numbers.cut_radius)),
            ("chunk_scaled", _steps_of_chunk(numbers, tile.rows)),
        ):
            bits, bits_along = (
                min(s * numbers.bits_per_step, numbers.bits_that_matter) for s in (steps, steps_along)
            )
            exponent, suffices = scale_exponent(bits, numbers.largest_sum, bits_along)
            if suffices:
                return way, exponent
    return "logarithmic", 0


def next_power_of_2(n: int) -> int:
    """The smallest that is no less."""
    return 1 << max(n - 1, 0).bit_length()


def blocks(size: int, block: int) -> int:
    """How many blocks cover a size."""
    return -(-size // block)


def _lists(tile: Tile, height: int, width: int, radius: int) -> int:
    rows = min(blocks(tile.height - 1 + 2 * radius, CELL) + 1, blocks(height, CELL))
    columns = min(blocks(tile.width - 1 + 2 * radius, CELL) + 1, blocks(width, CELL))
    return max(32, next_power_of_2(rows * columns))


# ---------------------------------------------------------------------------------------------- convolution


@dataclasses.dataclass(frozen=True)
class ConvolutionPlan:
    """How to convolve along one axis."""

    radius: int  # steps to sum over on each side
    edge_weight: float  # what all further steps weigh that show the edge value
    log2_decay: float  # of one step
    along: int  # pixels of a tile
    across: int
    few: int  # lines that are taken at a time where sums go step by step
    warps: int = 8
    registers: int = REGISTERS


def plan_convolution(
    lmbda: float, radius: int, size: int, padding_mode: str, double: bool
) -> ConvolutionPlan:
    """For convolve_axis_kernel. Zeros beyond the edge and factors that are 0 in its type are left out."""
    lmbda = max(lmbda, SMALLEST_DECAY_LENGTH)
    steps_to_zero = (750 if double else 105) * lmbda  # e^-750 and e^-105 are 0
    wanted, edge_weight = min(radius, math.ceil(min(steps_to_zero, 2.0**31)) + 1), 0.0
    if padding_mode == "constant":
        wanted = min(wanted, size - 1)
    elif padding_mode == "replicate" and wanted > size:
        # a^(size + 1) + ... + a^radius
        edge_weight = math.exp(-(size + 1) / lmbda) * geometric_sum(lmbda, radius - size - 1)
        wanted = size
    tile = (32, 32, 32) if double else (64, 128, 16)
    return ConvolutionPlan(wanted, edge_weight, -1 / (lmbda * LN2), *tile)
