// Region masks, overlapping and soft as they may be, to weights.
//
// The first launch notes the bounding box of each region in each cell, so that the second reads no more of
// the masks than lies within the windows. Sums are known by their log2, for a mask may hold any values; for
// the exact distance it only matters where a mask is positive.
#include <algorithm>

#include "cuda/compose.h"
#include "cuda/euclidean_distance.h"
#include "cuda/log_distance.h"
#include "cuda/read.h"

namespace flc::cuda {

constexpr uint32_t NO_BOX = ~0u;  // else top | bottom << 5 | left << 10 | right << 15
constexpr int CELLS_PER_BLOCK = 4;

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

struct BoxRegionsArguments {
  Masks masks;
  int rows, columns;  // of cells
  int64_t count;      // of cells of all regions
  uint32_t* boxes;    // [N, rows, columns]
};

// One warp for each cell of each region.
__global__ void __launch_bounds__(CELLS_PER_BLOCK* WARP)
    box_regions_kernel(const __grid_constant__ BoxRegionsArguments arguments) {
  const Masks& masks = arguments.masks;
  const int64_t* const size = masks.masks.size;
  const int lane = threadIdx.x % WARP;
  const int64_t cell = int64_t(blockIdx.x) * CELLS_PER_BLOCK + threadIdx.x / WARP;
  if (cell >= arguments.count) return;
  const int64_t line = cell / arguments.columns, region = line / arguments.rows;
  const int64_t y = line % arguments.rows * CELL, x = cell % arguments.columns * CELL + lane;
  uint32_t row_set = 0;  // rows in which the column of this lane has something
  for (int row = 0; row < CELL && y + row < size[1] && x < size[2]; ++row) {
    if (masks.value<double>(region, y + row, x) > 0) row_set |= 1u << row;
  }
  const uint32_t column_set = __ballot_sync(ALL_LANES, row_set != 0);
  const int top = warp_min(row_set ? __ffs(row_set) - 1 : CELL), bottom = warp_max(31 - __clz(row_set));
  if (lane != 0) return;
  const uint32_t box = top | bottom << 5 | (__ffs(column_set) - 1) << 10 | (31 - __clz(column_set)) << 15;
  arguments.boxes[cell] = column_set ? box : NO_BOX;
}

template <class T>
struct WeighRegionsArguments {
  Masks masks;
  int rows, columns;      // of cells
  const uint32_t* boxes;  // as box_regions_kernel left them
  Settings<T> settings;
  void* out;  // [H, W], contiguous
  bool out_is_double;
};

// Rows of log2 sums, or of squares, that a block keeps.
constexpr int REGION_ROWS = 64;

template <class T>
struct RegionShared {
  T rows[REGION_ROWS][TILE_W + 1];
  T totals[TILE_H][TILE_W + 1];
};

// The bounding box of a region, as far as the windows of the tile's pixels show it.
FLC_DEVICE Box region_box(const uint32_t* boxes, int columns, const Tile& tile, int radius, int lane) {
  Box box = Box::nothing();
  for (int list = lane; list < tile.lists; list += WARP) {
    const int row = tile.cell_row + list / tile.cell_columns,
              column = tile.cell_column + list % tile.cell_columns;
    const uint32_t bits = boxes[int64_t(row) * columns + column];
    const int y = row * CELL - tile.y, x = column * CELL - tile.x;
    if (bits != NO_BOX) {
      box = united(box, {y + int(bits & 31), y + int(bits >> 5 & 31), x + int(bits >> 10 & 31),
                         x + int(bits >> 15 & 31)});
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
FLC_DEVICE T log_row_sum(const Settings<T>& settings, const MaskRow& row) {
  T largest = LOWEST<T>, sum = 0;
  for (int first = row.box.left; first <= row.box.right; first += WARP) {
    const T log_value = T(log2(row.value<T>(first)));
    for (unsigned rest = __ballot_sync(ALL_LANES, log_value > -INFINITE<T>); rest != 0; rest &= rest - 1) {
      const int i = __ffs(rest) - 1, steps = beyond(row.lane, first + i, first + i);
      const T log_other = __shfl_sync(ALL_LANES, log_value, i);
      const T term = steps <= settings.radius ? log_other - T(steps) * settings.bits_per_step : -INFINITE<T>;
      const T ratio = exp2_of(smaller(term, largest) - larger(term, largest));
      sum = term > largest ? sum * ratio + 1 : sum + ratio;
      largest = larger(term, largest);
    }
  }
  return sum > 0 ? largest + log2_of(sum) : -INFINITE<T>;
}

template <class T, bool EUCLIDEAN, bool FARTHEST>
__global__ void __launch_bounds__(WARPS* WARP, sizeof(T) == 8 ? 1 : 2)
    weigh_regions_kernel(const __grid_constant__ WeighRegionsArguments<T> arguments) {
  __shared__ RegionShared<T> shared;
  const Masks& masks = arguments.masks;
  const Settings<T>& settings = arguments.settings;
  const int64_t regions = masks.masks.size[0];
  const int height = int(masks.masks.size[1]), width = int(masks.masks.size[2]);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, strip_y = warp * STRIP_H;
  const Cells cells = {arguments.rows, arguments.columns};
  const Tile tile(blockIdx.x, cells, height, width, settings.radius);
  const int x = tile.x + lane;
  Accumulated<T, FARTHEST> sums[STRIP_H];
  unsigned foreground = 0;
  int64_t seen = 0;
  const uint32_t* boxes = arguments.boxes;
  for (int64_t region = 0; region < regions; ++region, boxes += int64_t(arguments.rows) * arguments.columns) {
    const Box box = region_box(boxes, arguments.columns, tile, settings.radius, lane);
    if (box.empty()) continue;
    ++seen;
    T(*const totals)[TILE_W + 1] = shared.totals + strip_y;
    StripSquares<T> squares;
    if (!EUCLIDEAN) {
      for (int i = 0; i < STRIP_H; ++i) totals[i][lane] = -INFINITE<T>;
    }
    for (int i = strip_y; i < strip_y + STRIP_H && tile.y + i < height && x < width; ++i) {
      if (masks.value<T>(region, tile.y + i, x) > 0) foreground |= 1u << (i - strip_y);
    }
    for (int first = box.top; first <= box.bottom; first += REGION_ROWS) {
      const int rows = smaller(REGION_ROWS, box.bottom - first + 1);
      __syncthreads();
      for (int i = warp; i < rows; i += WARPS) {
        const MaskRow row = {masks, region, tile.y + first + i, tile.x, box, lane};
        shared.rows[i][lane] =
            EUCLIDEAN ? NearestPixels(row, box).square<T>(lane) : log_row_sum(settings, row);
      }
      __syncthreads();
      if (EUCLIDEAN)
        squares.template add<TILE_W + 1>(&shared.rows[0][lane], rows, first - strip_y,
                                         least_square<T>(box, lane, settings.radius));
      else
        add_log_rows(settings, shared.rows, rows, first - strip_y, lane, totals);
    }
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) {
      if (EUCLIDEAN)
        sums[i].add_square(squares[i], settings.square_scale);
      else
        sums[i].add(-settings.bit_scale * totals[i][lane]);
    }
  }
  if (x >= width) return;
  const bool with_border = seen > 0 && (!FARTHEST || seen == regions);
#pragma unroll
  for (int i = 0; i < STRIP_H; ++i) {
    const int64_t y = tile.y + strip_y + i;
    if (y >= height) return;
    if (EUCLIDEAN) sums[i].take_roots();
    const T border = with_border ? border_term(sums[i], settings) : T(0);
    T weight = foreground >> i & 1 ? T(1) : compose(sums[i].fd, border, settings);
    if (masks.ignored(y, x)) weight = 0;
    store_weight(arguments.out, arguments.out_is_double, y * width + x, weight);
  }
}

// -------------------------------------------------------------------------------------------- on the host

template <class T>
static cudaError_t weigh_regions(const BoxRegionsArguments& cells, const flc_weight_params& params, void* out,
                                 int32_t out_dtype, cudaStream_t stream) {
  const auto [regions, height, width] = cells.masks.masks.size;
  WeighRegionsArguments<T> arguments = {cells.masks, cells.rows, cells.columns,           cells.boxes,
                                        {},          out,        out_dtype == FLC_FLOAT64};
  const bool euclidean = params.distance == FLC_EUCLIDEAN;
  if (euclidean) {
    arguments.settings = euclidean_settings<T>(params, height, width, regions);
  } else {
    arguments.settings = settings_for<T>(params, height, width);
    // Values above 1 make distances smaller than the reach was derived from.
    arguments.settings.radius = int(std::min(params.radius, std::max(height, width) - 1));
  }
  const auto kernel_for = [euclidean](auto farthest) {
    return euclidean ? weigh_regions_kernel<T, true, farthest> : weigh_regions_kernel<T, false, farthest>;
  };
  return launch(params.border == FLC_FARTHEST ? kernel_for(std::true_type()) : kernel_for(std::false_type()),
                divide_up<int64_t>(height, TILE_H) * divide_up<int64_t>(width, TILE_W), WARPS * WARP,
                arguments, stream);
}

static BoxRegionsArguments cells_of(const flc_tensor& masks, const flc_tensor* ignore, void* boxes) {
  const int rows = int(divide_up<int64_t>(masks.size[1], CELL)),
            columns = int(divide_up<int64_t>(masks.size[2], CELL));
  return {{masks, ignore ? *ignore : flc_tensor{}},
          rows,
          columns,
          masks.size[0] * rows * columns,
          static_cast<uint32_t*>(boxes)};
}

}  // namespace flc::cuda

extern "C" {

int64_t flc_cuda_region_weight_map_scratch_bytes(const flc_tensor* masks) {
  return flc::cuda::cells_of(*masks, nullptr, nullptr).count * int64_t(sizeof(uint32_t));
}

int32_t flc_cuda_region_weight_map(const flc_tensor* masks, const flc_tensor* ignore,
                                   const flc_weight_params* params, void* out, int32_t out_dtype,
                                   void* scratch, int32_t device, void* stream) {
  using namespace flc::cuda;
  if (masks->size[1] * masks->size[2] == 0) return FLC_OK;
  if (!sizes_supported(*masks)) return FLC_UNSUPPORTED;
  return on_device(device, [&] {
    const auto queue = static_cast<cudaStream_t>(stream);
    const BoxRegionsArguments cells = cells_of(*masks, ignore, scratch);
    if (cells.count > 0) {
      const cudaError_t error = launch(box_regions_kernel, divide_up<int64_t>(cells.count, CELLS_PER_BLOCK),
                                       CELLS_PER_BLOCK * WARP, cells, queue);
      if (error != cudaSuccess) return error;
    }
    return (needs_double(*params, out_dtype) ? weigh_regions<double>
                                             : weigh_regions<float>)(cells, *params, out, out_dtype, queue);
  });
}

}  // extern "C"
