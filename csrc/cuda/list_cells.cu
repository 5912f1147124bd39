// The first launch from labels to weights: which instances lie in each cell, and where.
#include <type_traits>

#include "cuda/cells.h"
#include "cuda/read.h"

namespace flc::cuda {

constexpr int CELLS_PER_BLOCK = 4;  // one for each warp

struct ListCellsArguments {
  flc_tensor labels;
  Cells cells;
  int64_t count;  // of cells
};

// Ids of 32 bits take half the registers.
template <class T>
using KeyOf = std::conditional_t<(std::is_integral_v<T> && sizeof(T) < 4) || std::is_same_v<T, int32_t> ||
                                     std::is_same_v<T, Float16>,
                                 uint32_t, uint64_t>;

// A label as an id: 0 where it is background, or no id at all.
template <class Key, class T>
FLC_DEVICE Key id_of(T label) {
  if constexpr (std::is_integral_v<T>) {
    return label > T(0) ? Key(label) : Key(0);
  } else {
    const auto value = +label;
    return value > 0 ? Key(smaller<decltype(value)>(value, 0x7fffffff00000000)) : Key(0);
  }
}

// ids[y]: of row y of the cell, in the column of this lane.
template <class Key>
FLC_DEVICE void load_ids(const flc_tensor& labels, int64_t image, int64_t y, int64_t x, Key (&ids)[CELL]) {
  const int64_t below = labels.size[1] - y;
  const bool inside = x < labels.size[2];
  with_type(labels.data, labels.dtype, [&](auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    if constexpr (std::is_same_v<KeyOf<T>, Key>) {
      data += image * labels.stride[0] + y * labels.stride[1] + x * labels.stride[2];
#pragma unroll
      for (int row = 0; row < CELL; ++row) {
        ids[row] = inside && row < below ? id_of<Key>(data[row * labels.stride[1]]) : Key(0);
      }
    }
  });
}

// The smallest id above `previous`; 0: none.
template <class Key>
FLC_DEVICE Key next_id(const Key (&ids)[CELL], Key previous) {
  Key above = ~Key(0);  // by how much an id is more than previous + 1; ids that are not above it wrap around
#pragma unroll
  for (int row = 0; row < CELL; ++row) above = smaller<Key>(above, ids[row] - (previous + 1));
  above = warp_min(above);
  return above < ~previous ? above + previous + 1 : Key(0);
}

template <class Key>
__global__ void __launch_bounds__(CELLS_PER_BLOCK* WARP) list_cells_kernel(ListCellsArguments arguments) {
  const Cells& cells = arguments.cells;
  const int lane = threadIdx.x % WARP;
  const int64_t cell = int64_t(blockIdx.x) * CELLS_PER_BLOCK + threadIdx.x / WARP;
  if (cell >= arguments.count) return;
  const int64_t line = cell / cells.columns, image = line / cells.rows;
  Key ids[CELL];
  load_ids(arguments.labels, image, line % cells.rows * CELL, cell % cells.columns * CELL + lane, ids);

  Entry* const entries = cells.entries + cell * ROOM;
  uint32_t* const words = cells.words + cell * ROOM;
  int count = 0, word_count = 0;
  uint32_t foreground = 0;  // of the row of this lane's number, as `word` is
  Key id = 0;
  while (const Key next = next_id(ids, id)) {
    id = next;
    uint32_t word = 0;
#pragma unroll
    for (int row = 0; row < CELL; ++row) {
      const uint32_t own = __ballot_sync(ALL_LANES, ids[row] == id);
      if (lane == row) word = own;
    }
    const uint32_t column_set = warp_or(word);
    const uint32_t row_set = __ballot_sync(ALL_LANES, word != 0);
    if (word != 0) words[word_count + __popc(row_set & ((1u << lane) - 1))] = word;
    if (lane == 0) {
      const int top = __ffs(row_set) - 1, bottom = 31 - __clz(row_set);
      const int left = __ffs(column_set) - 1, right = 31 - __clz(column_set);
      const uint32_t box = top | bottom << 5 | left << 10 | right << 15 | uint32_t(word_count) << 20;
      entries[count] = {int64_t(id), box, row_set};
    }
    foreground |= word;
    word_count += __popc(row_set);
    ++count;
  }
  cells.foreground[cell * CELL + lane] = foreground;
  if (lane == 0) {
    cells.counts[cell] = count;
    if (cells.largest && id) {
      atomicMax(reinterpret_cast<unsigned long long*>(cells.largest + image),
                static_cast<unsigned long long>(id));
    }
  }
}

// -------------------------------------------------------------------------------------------- on the host

static int64_t cell_count(const flc_tensor& labels) {
  return labels.size[0] * divide_up<int64_t>(labels.size[1], CELL) * divide_up<int64_t>(labels.size[2], CELL);
}

int64_t cells_bytes(const flc_tensor& labels) {
  const int64_t of_cell =
      ROOM * (sizeof(Entry) + sizeof(uint32_t)) + CELL * sizeof(uint32_t) + sizeof(int32_t);
  return cell_count(labels) * of_cell + labels.size[0] * sizeof(uint64_t);
}

Cells place_cells(const flc_tensor& labels, void* memory) {
  const int64_t count = cell_count(labels);
  Cells cells;
  cells.rows = int(divide_up<int64_t>(labels.size[1], CELL));
  cells.columns = int(divide_up<int64_t>(labels.size[2], CELL));
  cells.entries = static_cast<Entry*>(memory);  // the widest alignment first
  cells.largest = reinterpret_cast<uint64_t*>(cells.entries + count * ROOM);
  cells.words = reinterpret_cast<uint32_t*>(cells.largest + labels.size[0]);
  cells.foreground = cells.words + count * ROOM;
  cells.counts = reinterpret_cast<int32_t*>(cells.foreground + count * CELL);
  return cells;
}

cudaError_t list_cells(const flc_tensor& labels, Cells cells, bool with_largest, cudaStream_t stream) {
  if (with_largest) {
    const cudaError_t error = cudaMemsetAsync(cells.largest, 0, labels.size[0] * sizeof(uint64_t), stream);
    if (error != cudaSuccess) return error;
  } else {
    cells.largest = nullptr;
  }
  const int64_t count = cell_count(labels);
  bool narrow;
  switch (labels.dtype) {
    case FLC_UINT32:
    case FLC_UINT64:
    case FLC_INT64:
    case FLC_BFLOAT16:
    case FLC_FLOAT32:
    case FLC_FLOAT64:
      narrow = false;
      break;
    default:
      narrow = true;
  }
  return launch(narrow ? list_cells_kernel<uint32_t> : list_cells_kernel<uint64_t>,
                divide_up<int64_t>(count, CELLS_PER_BLOCK), CELLS_PER_BLOCK * WARP,
                ListCellsArguments{labels, cells, count}, stream);
}

}  // namespace flc::cuda
