// A tile of the result, and the instances within reach of it.
#pragma once

#include "cuda/cells.h"

namespace flc::cuda {

constexpr int TILE_W = CELL, TILE_H = 64;
constexpr int STRIP_H = 8;  // rows of a tile that a warp weighs, one column in each lane
constexpr int WARPS = TILE_H / STRIP_H;
constexpr int CANDIDATES = 32;  // entries that are looked at in one go, WARPS at a time

// In coordinates of the tile: y and x of its first pixel are 0. Inclusive; empty where bottom < top.
struct Box {
  int top, bottom, left, right;

  __device__ bool empty() const { return bottom < top || right < left; }
  __device__ int height() const { return bottom - top + 1; }
  __device__ int width() const { return right - left + 1; }
};

// How far `position` lies outside of first..last: 0 within.
__device__ inline int beyond(int position, int first, int last) {
  return larger(larger(first - position, position - last), 0);
}

struct Instance {
  int64_t id;
  Box box;        // of what the windows of the tile show of it, or larger
  int first_row;  // of the table of row sums
};

struct Tile {
  int64_t image;
  int y, x;
  // The cells that the windows of the tile's pixels meet, row by row: `list` 0..lists - 1.
  int cell_row, cell_column, cell_columns, lists;

  __device__ Tile(int64_t number, const Cells& cells, int height, int width, int radius) {
    const int tiles_x = divide_up(width, TILE_W), tiles_y = divide_up(height, TILE_H);
    const int64_t line = number / tiles_x;
    image = line / tiles_y;
    y = int(line % tiles_y) * TILE_H;
    x = int(number % tiles_x) * TILE_W;
    cell_row = larger(y - radius, 0) / CELL;
    cell_column = larger(x - radius, 0) / CELL;
    cell_columns = smaller(x + TILE_W - 1 + radius, width - 1) / CELL - cell_column + 1;
    lists = (smaller(y + TILE_H - 1 + radius, height - 1) / CELL - cell_row + 1) * cell_columns;
  }
};

// The lists of 32 cells in reach of a tile, one in each lane.
class CellLists {
 public:
  __device__ CellLists(const Cells& cells, const Tile& tile, int lane) : cells_(cells), tile_(tile), lane_(lane) {}

  // Takes lists first..first + 31.
  __device__ void load(int first) {
    if (first == first_) return;
    first_ = first;
    const int list = first + lane_, row = tile_.cell_row + list / tile_.cell_columns;
    const int column = tile_.cell_column + list % tile_.cell_columns;
    cell_ = cells_.index(tile_.image, row, column);
    count_ = list < tile_.lists ? cells_.counts[cell_] : 0;
    y_ = row * CELL - tile_.y;
    x_ = column * CELL - tile_.x;
  }

  __device__ int count() const { return count_; }

  // The id of entry `place` of the list in lane `of`.
  __device__ int64_t id(int of, int place) const {
    return cells_.entries[__shfl_sync(ALL_LANES, cell_, of) * ROOM + place].id;
  }

  // The bounding box of `id` in these lists; `lanes`: those that have it.
  __device__ Box box_of(int64_t id, unsigned& lanes) const {
    const int place = find_entry(cells_, cell_, count_, id);
    lanes = __ballot_sync(ALL_LANES, place >= 0);
    constexpr int far = 1 << 30;
    Box box = {far, -far, far, -far};
    if (place >= 0) {
      const uint32_t bits = cells_.entries[cell_ * ROOM + place].box;
      box = {y_ + int(bits & 31), y_ + int(bits >> 5 & 31), x_ + int(bits >> 10 & 31), x_ + int(bits >> 15 & 31)};
    }
    return {warp_min(box.top), warp_max(box.bottom), warp_min(box.left), warp_max(box.right)};
  }

 private:
  const Cells& cells_;
  const Tile& tile_;
  int lane_, first_ = -1, count_ = 0, y_ = 0, x_ = 0;
  int64_t cell_ = 0;
};

// The box of the instance that entry `place` of list `list` belongs to, within the windows of the tile. It is empty
// where an earlier list has the instance too: so each is found once.
__device__ inline Box find_instance(CellLists& cell_lists, const Tile& tile, int list, int64_t id, int radius) {
  constexpr int far = 1 << 30;
  const Box nothing = {0, -1, 0, -1};
  Box box = {far, -far, far, -far};
  for (int first = 0; first < tile.lists; first += WARP) {
    cell_lists.load(first);
    unsigned lanes;
    const Box part = cell_lists.box_of(id, lanes);
    if (lanes != 0 && first + __ffs(lanes) - 1 < list) return nothing;
    box = {smaller(box.top, part.top), larger(box.bottom, part.bottom), smaller(box.left, part.left),
           larger(box.right, part.right)};
  }
  return {larger(box.top, -radius), smaller(box.bottom, TILE_H - 1 + radius), larger(box.left, -radius),
          smaller(box.right, TILE_W - 1 + radius)};
}

// Rows of an instance as bits, wherever its cells are.
class RowBits {
 public:
  __device__ RowBits(const Cells& cells, const Tile& tile, const Instance& instance, int row)
      : cells_(cells), id_(instance.id), left_(instance.box.left), right_(instance.box.right), x_(tile.x) {
    const int y = tile.y + row;
    cell_ = cells.index(tile.image, y / CELL, 0);
    row_ = y % CELL;
  }

  // Columns column..column + 31 of the tile; only those within the box can be set.
  __device__ uint32_t from(int column) const {
    const int first = x_ + larger(column, left_), last = x_ + smaller(column + 31, right_);
    if (last < first) return 0;
    const int shift = (x_ + column) & 31, cell_column = (x_ + column - shift) / CELL;
    uint32_t bits = 0;
    if (first / CELL == cell_column) bits = word(cell_column) >> shift;
    if (last / CELL > cell_column && shift) bits |= word(cell_column + 1) << (32 - shift);
    const int before = first - x_ - column, after = column + 31 - (last - x_);
    return bits & (ALL_LANES << before) & (ALL_LANES >> after);
  }

 private:
  __device__ uint32_t word(int cell_column) const {
    const int64_t cell = cell_ + cell_column;
    const int place = find_entry(cells_, cell, cells_.counts[cell], id_);
    return place < 0 ? 0 : word_of(cells_, cell, cells_.entries[cell * ROOM + place], row_);
  }

  const Cells& cells_;
  int64_t id_, cell_;
  int left_, right_, x_, row_;
};

}  // namespace flc::cuda
