// The first launch from labels to weights: which instances lie in each cell, and where.
#include <type_traits>

#include "cuda/cells.h"
#include "cuda/launch.h"
#include "cuda/read.h"

namespace flc::cuda {

constexpr int CELLS_PER_BLOCK = 4;  // one for each warp

struct ListCellsArguments {
  LabelTensors tensors;
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
  const int64_t below = labels.size[1] - y, stride = labels.stride[1];
  const bool inside = x < labels.size[2];
  with_type(labels.data, labels.dtype, [&](auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    if constexpr (std::is_same_v<KeyOf<T>, Key>) {
      data += image * labels.stride[0] + y * labels.stride[1] + x * labels.stride[2];
      if (__all_sync(ALL_LANES, inside && below >= CELL)) {
#pragma unroll
        for (int row = 0; row < CELL; ++row, data += stride) ids[row] = id_of<Key>(*data);
        return;
      }
#pragma unroll
      for (int row = 0; row < CELL; ++row) {
        ids[row] = inside && row < below ? id_of<Key>(data[row * stride]) : Key(0);
      }
    }
  });
}

// The pixels of a cell where a tensor of bool is true: those of the row of this lane's number, bit by bit.
// Calls take(row) for those of this lane's column.
template <class Take>
FLC_DEVICE uint32_t load_flags(const flc_tensor& tensor, int64_t image, int64_t y, int64_t x, int lane,
                               const Take& take) {
  const int64_t below = tensor.size[1] - y, stride = tensor.stride[1];
  const bool inside = x < tensor.size[2];
  const auto* const data =
      static_cast<const uint8_t*>(tensor.data) + image * tensor.stride[0] + y * stride + x * tensor.stride[2];
  uint32_t flags = 0;
#pragma unroll
  for (int row = 0; row < CELL; ++row) {
    const bool own = inside && row < below && data[row * stride];
    const uint32_t of_row = __ballot_sync(ALL_LANES, own);
    if (own) take(row);
    if (lane == row) flags = of_row;
  }
  return flags;
}

// classes[row]: as ids, 0 where there is no instance; takes pixels of no class from the ids.
template <class Key>
FLC_DEVICE void load_classes(const flc_tensor& tensor, int64_t image, int64_t y, int64_t x, Key (&ids)[CELL],
                             uint32_t (&classes)[CELL]) {
  const int64_t stride = tensor.stride[1];
  const auto* const data =
      static_cast<const int32_t*>(tensor.data) + image * tensor.stride[0] + y * stride + x * tensor.stride[2];
#pragma unroll
  for (int row = 0; row < CELL; ++row) {
    classes[row] = ids[row] ? id_of<uint32_t>(data[row * stride]) : 0;
    if (!classes[row]) ids[row] = 0;
  }
}

// The smallest of the values that `counts` admits above `previous`; 0: none.
template <class Key, class Counts>
FLC_DEVICE Key next_above(const Key (&values)[CELL], Key previous, const Counts& counts) {
  Key above = ~Key(0);  // by how much it is more than previous + 1; values that are not above it wrap around
#pragma unroll
  for (int row = 0; row < CELL; ++row) {
    if (counts(row)) above = smaller<Key>(above, values[row] - (previous + 1));
  }
  above = warp_min(above);
  return above < ~previous ? above + previous + 1 : Key(0);
}

// Blocks that an SM is to hold, for the registers that ids and classes take; 0: as it comes.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int BLOCKS_OF_NARROW_KEYS = 5;  // the assembler's own choice, 6, spills there
#else
constexpr int BLOCKS_OF_NARROW_KEYS = 0;
#endif
template <class Key, bool BY_CLASS>
constexpr int BLOCKS = BY_CLASS           ? 3
                       : sizeof(Key) == 4 ? BLOCKS_OF_NARROW_KEYS
                                          : 0;

template <class Key, bool BY_CLASS>
__global__ void __launch_bounds__(CELLS_PER_BLOCK* WARP, BLOCKS<Key, BY_CLASS>)
    list_cells_kernel(ListCellsArguments arguments) {
  const Cells& cells = arguments.cells;
  const int lane = threadIdx.x % WARP;
  const int64_t cell = int64_t(blockIdx.x) * CELLS_PER_BLOCK + threadIdx.x / WARP;
  if (cell >= arguments.count) return;
  const int64_t line = cell / cells.columns, image = line / cells.rows;
  const int64_t y = line % cells.rows * CELL, x = cell % cells.columns * CELL + lane;
  Key ids[CELL];
  load_ids(arguments.tensors.labels, image, y, x, ids);
  if (cells.ignored) {
    cells.ignored[cell * CELL + lane] =
        load_flags(arguments.tensors.ignore, image, y, x, lane, [&](int row) { ids[row] = 0; });
  }

  Entry* const entries = cells.entries + cell * ROOM;
  uint32_t* const words = cells.words + cell * ROOM;
  int count = 0, word_count = 0;
  uint32_t foreground = 0;  // of the row of this lane's number, as `word` is
  uint32_t label = 0;  // of a class
  const auto list_instances = [&](const auto& counts) {
    Key id = 0;
    while (const Key next = next_above(ids, id, counts)) {
      id = next;
      uint32_t word = 0;
#pragma unroll
      for (int row = 0; row < CELL; ++row) {
        const uint32_t own = __ballot_sync(ALL_LANES, ids[row] == id && counts(row));
        if (lane == row) word = own;
      }
      const uint32_t column_set = warp_or(word);
      const uint32_t row_set = __ballot_sync(ALL_LANES, word != 0);
      if (word != 0) words[word_count + __popc(row_set & ((1u << lane) - 1))] = word;
      if (lane == 0) {
        const uint32_t box = packed_box(row_set, column_set) | uint32_t(word_count) << 20;
        entries[count] = {int64_t(id), box, row_set};
        if (BY_CLASS) {
          cells.classes[cell * ROOM + count] = label;
          if (cells.largest) cells.ids.add(image, id);
        }
      }
      foreground |= word;
      word_count += __popc(row_set);
      ++count;
    }
    if (lane == 0 && cells.largest && id) {
      atomicMax(reinterpret_cast<unsigned long long*>(cells.largest + image),
                static_cast<unsigned long long>(id));
    }
  };
  if constexpr (BY_CLASS) {
    uint32_t classes[CELL];
    load_classes(arguments.tensors.classes, image, y, x, ids, classes);
    while (const uint32_t next = next_above(classes, label, [](int) { return true; })) {
      label = next;
      list_instances([&](int row) { return classes[row] == label; });
    }
  } else {
    list_instances([](int) { return true; });
  }
  if (arguments.tensors.foreground.data) {
    foreground = load_flags(arguments.tensors.foreground, image, y, x, lane, [](int) {});
  }
  cells.foreground[cell * CELL + lane] = foreground;
  if (lane == 0) cells.counts[cell] = count;
}

// -------------------------------------------------------------------------------------------- on the host

// Clears what atomic operations add to.
static int32_t clear_ids(const Cells& cells, int64_t images, cudaStream_t stream) {
  int64_t bytes = images * sizeof(uint64_t);
  if (cells.ids.present) bytes += images * (1 + cells.ids.words) * sizeof(uint32_t);
  return status_of(cudaMemsetAsync(cells.largest, 0, bytes, stream));
}

// Whether all labels of a dtype fit KeyOf's 32 bits.
static bool keys_are_narrow(int32_t dtype) {
  switch (static_cast<flc_dtype>(dtype)) {
    case FLC_BOOL:
    case FLC_UINT8:
    case FLC_INT8:
    case FLC_UINT16:
    case FLC_INT16:
    case FLC_INT32:
    case FLC_FLOAT16:
      return true;
    case FLC_UINT32:
    case FLC_UINT64:
    case FLC_INT64:
    case FLC_BFLOAT16:
    case FLC_FLOAT32:
    case FLC_FLOAT64:
      break;
  }
  return false;
}

int32_t list_cells(const LabelTensors& tensors, Cells cells, bool with_ids, cudaStream_t stream) {
  if (with_ids) {
    const int32_t status = clear_ids(cells, tensors.labels.size[0], stream);
    if (status != FLC_OK) return status;
  } else {
    cells.largest = nullptr;
  }
  const int64_t count = cell_count(tensors.labels);
  const auto kernel_for = [narrow = keys_are_narrow(tensors.labels.dtype)](auto by_class) {
    return narrow ? list_cells_kernel<uint32_t, by_class> : list_cells_kernel<uint64_t, by_class>;
  };
  return launch(cells.classes ? kernel_for(std::true_type()) : kernel_for(std::false_type()),
                divide_up<int64_t>(count, CELLS_PER_BLOCK), CELLS_PER_BLOCK * WARP,
                ListCellsArguments{tensors, cells, count}, stream);
}

}  // namespace flc::cuda
