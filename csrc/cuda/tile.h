// A tile of the result, and the instances within reach of it.
#pragma once

#include "cuda/cells.h"

namespace flc::cuda {

constexpr int TILE_W = CELL, TILE_H = 64;
constexpr int STRIP_H = 8;  // rows of a tile that a warp weighs, one column in each lane
constexpr int WARPS = TILE_H / STRIP_H;  // a strip for each; fewer where blocks share a tile

// In coordinates of the tile: y and x of its first pixel are 0. Inclusive; empty where bottom < top.
struct alignas(16) Box {
  int top, bottom, left, right;

  FLC_DEVICE static Box nothing() { return {1 << 30, -(1 << 30), 1 << 30, -(1 << 30)}; }
  FLC_DEVICE bool empty() const { return bottom < top || right < left; }
  __host__ __device__ int height() const { return bottom - top + 1; }
  __host__ __device__ int width() const { return right - left + 1; }
};

// Row i of a strip, counted from the side that lies in DIRECTION: below (+1) or above (-1).
template <int DIRECTION>
FLC_DEVICE constexpr int strip_row(int i) {
  return DIRECTION > 0 ? STRIP_H - 1 - i : i;
}

// How far `position` lies outside of first..last: 0 within.
FLC_DEVICE int beyond(int position, int first, int last) {
  return larger(larger(first - position, position - last), 0);
}

// The box that packed_box packed, of a cell whose first pixel lies at (y, x) of the tile.
FLC_DEVICE Box unpacked_box(uint32_t packed, int y, int x) {
  return {y + int(packed & 31), y + int(packed >> 5 & 31), x + int(packed >> 10 & 31),
          x + int(packed >> 15 & 31)};
}

// The smallest box around both.
FLC_DEVICE Box united(const Box& a, const Box& b) {
  return {smaller(a.top, b.top), larger(a.bottom, b.bottom), smaller(a.left, b.left),
          larger(a.right, b.right)};
}

FLC_DEVICE Box united_over_lanes(const Box& box) {
  return {warp_min(box.top), warp_max(box.bottom), warp_min(box.left), warp_max(box.right)};
}

// An instance, or an entry of one.
struct Located {
  int64_t id;
  Box box;
};

struct Tile {
  int image, y, x;
  // The cells that the windows of the tile's pixels meet, row by row: `list` 0..lists - 1.
  int cell_row, cell_column, cell_columns, lists;

  Tile() = default;
  FLC_DEVICE Tile(unsigned number, const Cells& cells, int image_height, int image_width, int radius) {
    const unsigned tiles_x = divide_up(image_width, TILE_W), tiles_y = divide_up(image_height, TILE_H);
    const unsigned line = number / tiles_x;
    image = line / tiles_y;
    y = int(line % tiles_y) * TILE_H;
    x = int(number % tiles_x) * TILE_W;
    cell_row = larger(y - radius, 0) / CELL;
    cell_column = larger(x - radius, 0) / CELL;
    cell_columns = smaller(x + TILE_W - 1 + radius, image_width - 1) / CELL - cell_column + 1;
    lists = (smaller(y + TILE_H - 1 + radius, image_height - 1) / CELL - cell_row + 1) * cell_columns;
  }

  FLC_DEVICE int row_of(int list) const { return cell_row + list / cell_columns; }
  FLC_DEVICE int column_of(int list) const { return cell_column + list % cell_columns; }
  FLC_DEVICE int cell(const Cells& cells, int list) const {
    return cells.index(image, row_of(list), column_of(list));
  }
};

// A tile of which the instances of one class are looked at.
struct ClassTile : Tile {
  uint32_t class_label;

  ClassTile() = default;
  FLC_DEVICE ClassTile(const Tile& tile) : Tile(tile), class_label(0) {}
};

// The entries of a cell that are looked at.
FLC_DEVICE Range entries_of(const Cells& cells, int cell, const Tile&) {
  return {0, cells.counts[cell]};
}
FLC_DEVICE Range entries_of(const Cells& cells, int cell, const ClassTile& tile) {
  return {first_of_class(cells, cell, tile.class_label), first_of_class(cells, cell, tile.class_label + 1)};
}

// The part of a box that the windows of a tile's pixels show.
__host__ __device__ inline Box shown_part(const Box& box, int radius) {
  return {larger(box.top, -radius), smaller(box.bottom, TILE_H - 1 + radius), larger(box.left, -radius),
          smaller(box.right, TILE_W - 1 + radius)};
}

// The strips of a tile that one of the blocks that share it weighs.
struct Strips {
  int first, count;

  FLC_DEVICE int top() const { return first * STRIP_H; }
  FLC_DEVICE int bottom() const { return (first + count) * STRIP_H - 1; }
};

// Rows of an instance as bits, wherever its cells are.
template <class AnyTile>
class RowBits {
 public:
  FLC_DEVICE RowBits(const Cells& cells, const AnyTile& tile, const Located& instance, int row)
      : cells_(cells),
        tile_(tile),
        id_(instance.id),
        left_(instance.box.left),
        right_(instance.box.right),
        x_(tile.x) {
    const int y = tile.y + row;
    cell_ = cells.index(tile.image, y / CELL, 0);
    row_ = y % CELL;
  }

  // Columns column..column + 31 of the tile; only those within the box can be set.
  FLC_DEVICE uint32_t from(int column) const {
    const int first = x_ + larger(column, left_), last = x_ + smaller(column + 31, right_);
    if (last < first) return 0;
    const int shift = (x_ + column) & 31, cell_column = (x_ + column - shift) / CELL;
    uint32_t bits = 0;
    if (first / CELL == cell_column) bits = word(cell_column) >> shift;
    if (last / CELL > cell_column && shift) bits |= word(cell_column + 1) << (32 - shift);
    const int before = first - x_ - column, after = column + 31 - (last - x_);
    return bits & (ALL_LANES << before) & (ALL_LANES >> after);
  }

  // Column `column` of the tile and what follows, 32 bits to a word, the words WARP apart.
  FLC_DEVICE void copy(int column, int words, uint32_t* to) const {
    const int shift = (x_ + column) & 31, first = (x_ + column - shift) / CELL, last = (x_ + right_) / CELL;
    uint32_t before = 0;
#pragma unroll 1
    for (int i = 0; i <= words; ++i) {
      const uint32_t next = first + i <= last ? word(first + i) : 0;
      if (i > 0) to[(i - 1) * WARP] = __funnelshift_r(before, next, shift);
      before = next;
    }
    to[(words - 1) * WARP] &= ALL_LANES >> (column + 32 * words - 1 - right_);
  }

 private:
  FLC_DEVICE uint32_t word(int cell_column) const {
    const int cell = cell_ + cell_column;
    const int place = find_entry(cells_, cell, entries_of(cells_, cell, tile_), id_);
    if (place < 0) return 0;
    const Entry& entry = cells_.entries[int64_t(cell) * ROOM + place];
    return word_of(cells_, cell, entry.box, entry.row_set, row_);
  }

  const Cells& cells_;
  const AnyTile& tile_;
  int64_t id_;
  int cell_;
  int left_, right_, x_, row_;
};

}  // namespace flc::cuda
