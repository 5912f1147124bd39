// How the cells of all images lie in memory.
#include "cuda/cells.h"

namespace flc::cuda {

int64_t cell_count(const flc_tensor& labels) {
  return labels.size[0] * divide_up<int64_t>(labels.size[1], CELL) * divide_up<int64_t>(labels.size[2], CELL);
}

// Hands out memory piece by piece, the widest alignment first.
class Pieces {
 public:
  explicit Pieces(void* memory) : next_(static_cast<char*>(memory)) {}

  template <class T>
  void take(T*& piece, int64_t count) {
    piece = reinterpret_cast<T*>(next_);
    next_ += count * sizeof(T);
  }

  char* next() const { return next_; }

 private:
  char* next_;
};

// Returns where they end.
static char* place(const LabelTensors& tensors, void* memory, Cells& cells) {
  const flc_tensor& labels = tensors.labels;
  const int64_t images = labels.size[0], count = cell_count(labels);
  const bool by_class = tensors.classes.data;
  cells = {};
  cells.rows = int(divide_up<int64_t>(labels.size[1], CELL));
  cells.columns = int(divide_up<int64_t>(labels.size[2], CELL));
  Pieces pieces(memory);
  // Words of cells begin at multiples of their size.
  pieces.take(cells.entries, count * ROOM);
  pieces.take(cells.words, count * ROOM);
  pieces.take(cells.foreground, count * CELL);
  if (tensors.ignore.data) pieces.take(cells.ignored, count * CELL);
  if (by_class) pieces.take(cells.classes, count * ROOM);
  pieces.take(cells.largest, images);
  if (by_class) {
    cells.ids.words = divide_up<int64_t>(labels.size[1] * labels.size[2], 32);
    pieces.take(cells.ids.counts, images);
    pieces.take(cells.ids.present, images * cells.ids.words);
  }
  pieces.take(cells.counts, count);
  return pieces.next();
}

int64_t cells_bytes(const LabelTensors& tensors) {
  Cells cells;
  return place(tensors, nullptr, cells) - static_cast<char*>(nullptr);
}

Cells place_cells(const LabelTensors& tensors, void* memory) {
  Cells cells;
  place(tensors, memory, cells);
  return cells;
}

}  // namespace flc::cuda
