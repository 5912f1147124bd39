// Region masks, overlapping and soft as they may be, to weights.
//
// The first launch notes the bounding box of each region in each cell, so that the second reads no more of
// the masks than lies within the windows. Sums are known by their log2, for a mask may hold any values.
#include <algorithm>

#include "cuda/compose.h"
#include "cuda/log_distance.h"
#include "cuda/read.h"

namespace flc::cuda {

constexpr uint32_t NO_BOX = ~0u;  // else top | bottom << 5 | left << 10 | right << 15
constexpr int CELLS_PER_BLOCK = 4;

struct BoxRegionsArguments {
  flc_tensor masks;
  int rows, columns;  // of cells
  int64_t count;      // of cells of all regions
  uint32_t* boxes;    // [N, rows, columns]
};

// One warp for each cell of each region.
__global__ void __launch_bounds__(CELLS_PER_BLOCK* WARP)
    box_regions_kernel(const __grid_constant__ BoxRegionsArguments arguments) {
  const flc_tensor& masks = arguments.masks;
  const int lane = threadIdx.x % WARP;
  const int64_t cell = int64_t(blockIdx.x) * CELLS_PER_BLOCK + threadIdx.x / WARP;
  if (cell >= arguments.count) return;
  const int64_t line = cell / arguments.columns, region = line / arguments.rows;
  const int64_t y = line % arguments.rows * CELL, x = cell % arguments.columns * CELL + lane;
  uint32_t row_set = 0;  // rows in which the column of this lane has something
  const int64_t index = region * masks.stride[0] + y * masks.stride[1] + x * masks.stride[2];
  for (int row = 0; row < CELL && y + row < masks.size[1] && x < masks.size[2]; ++row) {
    if (value_at<double>(masks, index + row * masks.stride[1]) > 0) row_set |= 1u << row;
  }
  const uint32_t column_set = __ballot_sync(ALL_LANES, row_set != 0);
  const int top = warp_min(row_set ? __ffs(row_set) - 1 : CELL), bottom = warp_max(31 - __clz(row_set));
  if (lane != 0) return;
  const uint32_t box = top | bottom << 5 | (__ffs(column_set) - 1) << 10 | (31 - __clz(column_set)) << 15;
  arguments.boxes[cell] = column_set ? box : NO_BOX;
}

template <class T>
struct WeighRegionsArguments {
  flc_tensor masks;
  int rows, columns;      // of cells
  const uint32_t* boxes;  // as box_regions_kernel left them
  Settings<T> settings;
  void* out;  // [H, W], contiguous
  bool out_is_double;
};

// Rows of log2 sums that a block keeps.
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

// log2 of the sums along a row of a mask, each lane at its own column. The row's value at column 0 is that of
// `index`.
template <class T>
FLC_DEVICE T log_row_sum(const Settings<T>& settings, const flc_tensor& masks, int64_t index, const Box& box,
                         int lane) {
  T largest = LOWEST<T>, sum = 0;
  for (int first = box.left; first <= box.right; first += WARP) {
    const int column = first + lane;
    const T log_value =
        column <= box.right ? T(log2(value_at<T>(masks, index + column * masks.stride[2]))) : -INFINITE<T>;
    for (unsigned rest = __ballot_sync(ALL_LANES, log_value > -INFINITE<T>); rest != 0; rest &= rest - 1) {
      const int i = __ffs(rest) - 1, steps = beyond(lane, first + i, first + i);
      const T log_other = __shfl_sync(ALL_LANES, log_value, i);
      const T term = steps <= settings.radius ? log_other - T(steps) * settings.bits_per_step : -INFINITE<T>;
      const T ratio = exp2_of(smaller(term, largest) - larger(term, largest));
      sum = term > largest ? sum * ratio + 1 : sum + ratio;
      largest = larger(term, largest);
    }
  }
  return sum > 0 ? largest + log2_of(sum) : -INFINITE<T>;
}

template <class T, bool FARTHEST>
__global__ void __launch_bounds__(WARPS* WARP, 2)
    weigh_regions_kernel(const __grid_constant__ WeighRegionsArguments<T> arguments) {
  __shared__ RegionShared<T> shared;
  const flc_tensor& masks = arguments.masks;
  const Settings<T>& settings = arguments.settings;
  const int height = int(masks.size[1]), width = int(masks.size[2]);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, strip_y = warp * STRIP_H;
  const Cells cells = {arguments.rows, arguments.columns};
  const Tile tile(blockIdx.x, cells, height, width, settings.radius);
  const int x = tile.x + lane;
  Accumulated<T, FARTHEST> sums[STRIP_H];
  unsigned foreground = 0;
  int64_t seen = 0;
  const uint32_t* boxes = arguments.boxes;
  for (int64_t region = 0; region < masks.size[0];
       ++region, boxes += int64_t(arguments.rows) * arguments.columns) {
    const Box box = region_box(boxes, arguments.columns, tile, settings.radius, lane);
    if (box.empty()) continue;
    ++seen;
    T(*const totals)[TILE_W + 1] = shared.totals + strip_y;
    for (int i = 0; i < STRIP_H; ++i) totals[i][lane] = -INFINITE<T>;
    const int64_t corner = region * masks.stride[0] + tile.y * masks.stride[1] + tile.x * masks.stride[2];
    for (int i = strip_y; i < strip_y + STRIP_H && tile.y + i < height && x < width; ++i) {
      const T value = value_at<T>(masks, corner + i * masks.stride[1] + lane * masks.stride[2]);
      if (value > 0) foreground |= 1u << (i - strip_y);
    }
    for (int first = box.top; first <= box.bottom; first += REGION_ROWS) {
      const int rows = smaller(REGION_ROWS, box.bottom - first + 1);
      __syncthreads();
      for (int row = warp; row < rows; row += WARPS) {
        const int64_t index = corner + (first + row) * masks.stride[1];
        shared.rows[row][lane] = log_row_sum(settings, masks, index, box, lane);
      }
      __syncthreads();
      add_log_rows(settings, shared.rows, rows, first - strip_y, lane, totals);
    }
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) sums[i].add(-settings.bit_scale * totals[i][lane]);
  }
  if (x >= width) return;
  const bool with_border = seen > 0 && (!FARTHEST || seen == masks.size[0]);
#pragma unroll
  for (int i = 0; i < STRIP_H; ++i) {
    const int64_t y = tile.y + strip_y + i;
    if (y >= height) return;
    const T weight = foreground >> i & 1 ? T(1) : compose(sums[i], with_border, settings);
    store_weight(arguments.out, arguments.out_is_double, y * width + x, weight);
  }
}

// -------------------------------------------------------------------------------------------- on the host

template <class T>
static cudaError_t weigh_regions(const BoxRegionsArguments& cells, const flc_weight_params& params, void* out,
                                 int32_t out_dtype, cudaStream_t stream) {
  const flc_tensor& masks = cells.masks;
  WeighRegionsArguments<T> arguments = {masks,
                                        cells.rows,
                                        cells.columns,
                                        cells.boxes,
                                        settings_for<T>(params, masks.size[1], masks.size[2]),
                                        out,
                                        out_dtype == FLC_FLOAT64};
  // Values above 1 make distances smaller than the reach was derived from.
  arguments.settings.radius = int(std::min(params.radius, std::max(masks.size[1], masks.size[2]) - 1));
  const int64_t tiles = divide_up<int64_t>(masks.size[1], TILE_H) * divide_up<int64_t>(masks.size[2], TILE_W);
  return launch(
      params.border == FLC_FARTHEST ? weigh_regions_kernel<T, true> : weigh_regions_kernel<T, false>, tiles,
      WARPS * WARP, arguments, stream);
}

static BoxRegionsArguments cells_of(const flc_tensor& masks, void* boxes) {
  const int rows = int(divide_up<int64_t>(masks.size[1], CELL)),
            columns = int(divide_up<int64_t>(masks.size[2], CELL));
  return {masks, rows, columns, masks.size[0] * rows * columns, static_cast<uint32_t*>(boxes)};
}

}  // namespace flc::cuda

extern "C" {

int64_t flc_cuda_region_weight_map_scratch_bytes(const flc_tensor* masks) {
  return flc::cuda::cells_of(*masks, nullptr).count * int64_t(sizeof(uint32_t));
}

int32_t flc_cuda_region_weight_map(const flc_tensor* masks, const flc_weight_params* params, void* out,
                                   int32_t out_dtype, void* scratch, int32_t device, void* stream) {
  using namespace flc::cuda;
  if (masks->size[1] * masks->size[2] == 0) return FLC_OK;
  if (!sizes_supported(*masks)) return FLC_UNSUPPORTED;
  return on_device(device, [&] {
    const auto queue = static_cast<cudaStream_t>(stream);
    const BoxRegionsArguments cells = cells_of(*masks, scratch);
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
