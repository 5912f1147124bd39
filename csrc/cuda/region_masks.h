// Region masks: what the windows of a tile show of them, and the sums along their rows.
#pragma once

#include "cuda/numbers.h"
#include "cuda/read.h"
#include "cuda/tile.h"

namespace flc::cuda {

constexpr uint32_t NO_BOX = ~0u;  // of a region in a cell, else packed_box

// Masks as they count: 0 where they are to be ignored.
struct Masks {
  flc_tensor masks, ignore;  // bool, or without data

  FLC_DEVICE bool ignored(int64_t y, int64_t x) const {
    return ignore.data &&
           static_cast<const uint8_t*>(ignore.data)[y * ignore.stride[1] + x * ignore.stride[2]];
  }

  template <class T>
  FLC_DEVICE T value(int64_t region, int64_t y, int64_t x) const {
    if (ignored(y, x)) return 0;
    return value_at<T>(masks, region * masks.stride[0] + y * masks.stride[1] + x * masks.stride[2]);
  }
};

// The bounding box of a region, as far as the windows of the tile's pixels show it.
FLC_DEVICE Box region_box(const uint32_t* boxes, int columns, const Tile& tile, int radius, int lane) {
  Box box = Box::nothing();
  for (int list = lane; list < tile.lists; list += WARP) {
    const int row = tile.row_of(list), column = tile.column_of(list);
    const uint32_t bits = boxes[int64_t(row) * columns + column];
    if (bits != NO_BOX) {
      box = united(box, unpacked_box(bits, row * CELL - tile.y, column * CELL - tile.x));
    }
  }
  return shown_part(united_over_lanes(box), radius);
}

// A row of a mask, by columns of the tile.
struct MaskRow {
  const Masks& masks;
  int64_t region, y, tile_x;
  const Box& box;
  int lane;

  // The value in the column of each lane; `column` is that of lane 0.
  template <class T>
  FLC_DEVICE T value(int column) const {
    const int own = column + lane;
    return own >= box.left && own <= box.right ? masks.value<T>(region, y, tile_x + own) : T(0);
  }

  // Where columns column..column + 31 are positive.
  FLC_DEVICE uint32_t from(int column) const { return __ballot_sync(ALL_LANES, value<double>(column) > 0); }
};

// log2 of the sums along a row of a mask, each lane at its own column.
template <class T>
FLC_DEVICE T log_row_sum(const Numbers<T>& numbers, const MaskRow& row) {
  T largest = LOWEST<T>, sum = 0;
  for (int first = row.box.left; first <= row.box.right; first += WARP) {
    const T log_value = T(log2(row.value<T>(first)));
    for (unsigned rest = __ballot_sync(ALL_LANES, log_value > -INFINITE<T>); rest != 0; rest &= rest - 1) {
      const int i = __ffs(rest) - 1, steps = abs(row.lane - first - i);
      const T log_other = __shfl_sync(ALL_LANES, log_value, i);
      const T term = steps <= numbers.radius ? log_other - T(steps) * numbers.bits_per_step : -INFINITE<T>;
      const T ratio = exp2_of(smaller(term, largest) - larger(term, largest));
      sum = term > largest ? sum * ratio + 1 : sum + ratio;
      largest = larger(term, largest);
    }
  }
  return sum > 0 ? largest + log2_of(sum) : -INFINITE<T>;
}

}  // namespace flc::cuda
