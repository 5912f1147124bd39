// What lies where: for each cell of 32 x 32 pixels the instances in it, as list_cells leaves them.
//
// A cell's entries are listed by ascending id, none left out: a cell has room for one per pixel. An entry has
// one word for each row in which the instance has pixels; bit x of a word is the pixel of column x. The words
// of a cell lie one after another; there are at most as many as pixels.
#pragma once

#include "cuda/device.h"
#include "fastlogconv.h"

namespace flc::cuda {

constexpr int CELL = 32;  // pixels on a side: a row is one word
constexpr int ROOM = CELL * CELL;  // entries, and words, that a cell can hold

struct alignas(16) Entry {
  int64_t id;
  uint32_t box;  // top | bottom << 5 | left << 10 | right << 15 of its pixels | first word << 20
  uint32_t row_set;  // bit y: it has pixels in row y
};

// [size[0], size[1], size[2]] = [images, rows, columns] of cells. Each array is ordered so.
struct Cells {
  int rows, columns;  // cells of an image
  int32_t* counts;  // of entries
  uint32_t* foreground;  // [CELL] words: pixels of any instance
  Entry* entries;  // [ROOM]
  uint32_t* words;  // [ROOM]
  uint64_t* largest;  // by image: the largest id; null where nobody asks

  FLC_DEVICE int index(int image, int row, int column) const {
    return (image * rows + row) * columns + column;
  }
};

// The place of an id among a cell's entries, -1 where it has none.
FLC_DEVICE int find_entry(const Cells& cells, int cell, int count, int64_t id) {
  const Entry* const entries = cells.entries + int64_t(cell) * ROOM;
  int first = 0;
  for (unsigned length = count; length > 1;) {  // it is among entries first..first + length - 1, if at all
    const unsigned half = length / 2;
    if (entries[first + half].id <= id) first += half;
    length -= half;
  }
  return count > 0 && entries[first].id == id ? first : -1;
}

// Row `row` (0..31) of an entry.
FLC_DEVICE uint32_t word_of(const Cells& cells, int cell, const Entry& entry, int row) {
  if (!(entry.row_set >> row & 1)) return 0;
  const int below = __popc(entry.row_set & ((1u << row) - 1));
  return cells.words[int64_t(cell) * ROOM + (entry.box >> 20) + below];
}

// How the cells of a tensor lie in memory that the caller provides.
int64_t cells_bytes(const flc_tensor& labels);
Cells place_cells(const flc_tensor& labels, void* memory);

// Fills them; `with_largest`, the largest ids too.
cudaError_t list_cells(const flc_tensor& labels, Cells cells, bool with_largest, cudaStream_t stream);

}  // namespace flc::cuda
