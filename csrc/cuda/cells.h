// What lies where: for each cell of 32 x 32 pixels the instances in it, as list_cells leaves them.
//
// A cell's entries are listed by ascending id, and by class before that where there are classes, none left
// out: a cell has room for one per pixel. An entry has one word for each row in which the instance has
// pixels; bit x of a word is the pixel of column x. The words of a cell lie one after another; there are at
// most as many as pixels.
#pragma once

#include "cuda/device.h"
#include "fastlogconv.h"

namespace flc::cuda {

constexpr int CELL = 32;           // pixels on a side: a row is one word
constexpr int ROOM = CELL * CELL;  // entries, and words, that a cell can hold

struct alignas(16) Entry {
  int64_t id;
  uint32_t box;      // packed_box of its pixels | first word << 20
  uint32_t row_set;  // bit y: it has pixels in row y
};

// The box around pixels in some rows and columns of a cell, neither of which may be none: top | bottom << 5 |
// left << 10 | right << 15.
FLC_DEVICE uint32_t packed_box(uint32_t row_set, uint32_t column_set) {
  const int top = __ffs(row_set) - 1, bottom = 31 - __clz(row_set);
  const int left = __ffs(column_set) - 1, right = 31 - __clz(column_set);
  return top | bottom << 5 | left << 10 | right << 15;
}

// Which ids there are in each image: only those that can lie among 1, 2, 3... without a gap, which are no
// more than pixels.
struct IdSet {
  int64_t words;      // for an image
  uint32_t* present;  // [images, words]: bit i of them all is id i + 1; null where nobody asks
  uint32_t* counts;   // by image

  FLC_DEVICE void add(int64_t image, uint64_t id) const {
    const uint64_t word = (id - 1) / 32;
    if (word >= uint64_t(words)) return;
    const uint32_t bit = 1u << (id - 1) % 32;
    if (!(atomicOr(present + image * words + word, bit) & bit)) atomicAdd(counts + image, 1u);
  }
};

// [size[0], size[1], size[2]] = [images, rows, columns] of cells. Each array is ordered so.
struct Cells {
  int rows, columns;     // cells of an image
  int32_t* counts;       // of entries
  uint32_t* foreground;  // [CELL] words: pixels of any instance, or of a foreground of its own
  uint32_t* ignored;     // [CELL] words: pixels to ignore; null where there are none
  Entry* entries;        // [ROOM]
  uint32_t* words;       // [ROOM]
  uint32_t* classes;     // [ROOM]: of the entries; null where there is only one class
  uint64_t* largest;     // by image: the largest id; null where nobody asks
  IdSet ids;             // where there are classes

  FLC_DEVICE int index(int image, int row, int column) const {
    return (image * rows + row) * columns + column;
  }
};

// Some of the entries of a cell, one after another.
struct Range {
  int first, end;
};

// The place of the first entry of a cell whose class is `label` or higher.
FLC_DEVICE int first_of_class(const Cells& cells, int cell, uint32_t label) {
  const uint32_t* const classes = cells.classes + int64_t(cell) * ROOM;
  int first = 0, end = cells.counts[cell];
  while (first < end) {
    const int middle = (first + end) / 2;
    if (classes[middle] < label)
      first = middle + 1;
    else
      end = middle;
  }
  return first;
}

// The place of an id among entries of a cell that are of one class, -1 where it has none.
FLC_DEVICE int find_entry(const Cells& cells, int cell, Range range, int64_t id) {
  const Entry* const entries = cells.entries + int64_t(cell) * ROOM;
  int first = range.first;
  for (unsigned length = range.end - range.first; length > 1;) {
    const unsigned half = length / 2;  // it is among entries first..first + length - 1, if at all
    if (entries[first + half].id <= id) first += half;
    length -= half;
  }
  return range.first < range.end && entries[first].id == id ? first : -1;
}

// Row `row` (0..31) of an entry.
FLC_DEVICE uint32_t word_of(const Cells& cells, int cell, uint32_t box, uint32_t row_set, int row) {
  if (!(row_set >> row & 1)) return 0;
  const int below = __popc(row_set & ((1u << row) - 1));
  return cells.words[int64_t(cell) * ROOM + int((box >> 20) + below)];
}

// What list_cells reads: labels, and what may be missing, without data: classes (of int32), a foreground of
// its own and pixels to ignore (both of bool).
struct LabelTensors {
  flc_tensor labels, classes, foreground, ignore;
};

// Of all images.
int64_t cell_count(const flc_tensor& labels);

// How they lie in memory that the caller provides.
int64_t cells_bytes(const LabelTensors& tensors);
Cells place_cells(const LabelTensors& tensors, void* memory);

// Fills them; `with_ids`, the largest ids too, and where there are classes all ids.
int32_t list_cells(const LabelTensors& tensors, Cells cells, bool with_ids, cudaStream_t stream);

}  // namespace flc::cuda
