// Region masks, overlapping and soft as they may be, to weights.
//
// The first launch notes the bounding box of each region in each cell, so that the second reads no more of
// the masks than lies within the windows. Sums are known by their log2, for a mask may hold any values; for
// the exact distance it only matters where a mask is positive.
#include <algorithm>

#include "cuda/compose.h"
#include "cuda/euclidean_distance.h"
#include "cuda/launch.h"
#include "cuda/log_distance.h"
#include "cuda/region_masks.h"

namespace flc::cuda {

constexpr int CELLS_PER_BLOCK = 4;

struct BoxRegionsArguments {
  Masks masks;
  int rows, columns;  // of cells
  int64_t count;      // of cells of all regions
  uint32_t* boxes;    // [N, rows, columns]
  int element_bytes;  // of masks of which each row of a cell begins at a multiple of 16 bytes, else 0
};

// Whether a whole cell of such masks has no bit that is set. By one warp, 16 bytes a lane at a time.
template <int ELEMENT_BYTES>
FLC_DEVICE bool all_zero(const void* first, int64_t row_bytes, int lane) {
  struct alignas(16) Sixteen {
    uint32_t words[4];
  };
  constexpr int LANES = CELL * ELEMENT_BYTES / sizeof(Sixteen);  // for a row
  constexpr int ROWS = WARP / LANES;                             // at a time
  const char* at =
      static_cast<const char*>(first) + lane / LANES * row_bytes + lane % LANES * sizeof(Sixteen);
  uint32_t bits = 0;
#pragma unroll
  for (int row = 0; row < CELL; row += ROWS, at += ROWS * row_bytes) {
    const Sixteen part = *reinterpret_cast<const Sixteen*>(at);
    bits |= part.words[0] | part.words[1] | part.words[2] | part.words[3];
  }
  return !__any_sync(ALL_LANES, bits != 0);
}

FLC_DEVICE bool all_zero(const void* first, int64_t row_bytes, int element_bytes, int lane) {
  switch (element_bytes) {
    case 1:
      return all_zero<1>(first, row_bytes, lane);
    case 2:
      return all_zero<2>(first, row_bytes, lane);
    case 4:
      return all_zero<4>(first, row_bytes, lane);
    default:
      return all_zero<8>(first, row_bytes, lane);
  }
}

// Bit by bit the rows of a cell in which a mask is positive in the column of this lane. `index`: of the
// column's first pixel.
FLC_DEVICE uint32_t positive_rows(const Masks& masks, int64_t index, int rows) {
  const int64_t stride = masks.masks.stride[1];
  uint32_t positive = 0;
  with_type(masks.masks.data, masks.masks.dtype, [&](const auto* data) {
    data += index;
    for (int row = 0; row < rows; ++row, data += stride) {
      if (+*data > 0) positive |= 1u << row;
    }
  });
  return positive;
}

// One warp for each cell of each region.
__global__ void __launch_bounds__(CELLS_PER_BLOCK* WARP)
    box_regions_kernel(const __grid_constant__ BoxRegionsArguments arguments) {
  const Masks& masks = arguments.masks;
  const int64_t *const size = masks.masks.size, *const stride = masks.masks.stride;
  const int lane = threadIdx.x % WARP;
  const int64_t cell = int64_t(blockIdx.x) * CELLS_PER_BLOCK + threadIdx.x / WARP;
  if (cell >= arguments.count) return;
  const unsigned cells = arguments.rows * arguments.columns;
  const int64_t region = cell / cells;
  const unsigned place = unsigned(cell % cells), cell_row = place / arguments.columns;
  const int64_t y = int64_t(cell_row) * CELL, x = int64_t(place - cell_row * arguments.columns) * CELL;
  const int rows = int(smaller<int64_t>(CELL, size[1] - y)),
            columns = int(smaller<int64_t>(CELL, size[2] - x));
  const int64_t first = region * stride[0] + y * stride[1] + x * stride[2];
  const int bytes = arguments.element_bytes;
  uint32_t box = NO_BOX;
  if (!bytes || rows < CELL || columns < CELL ||
      !all_zero(static_cast<const char*>(masks.masks.data) + first * bytes, stride[1] * bytes, bytes, lane)) {
    // Rows in which the column of this lane has something.
    uint32_t row_set = lane < columns ? positive_rows(masks, first + lane * stride[2], rows) : 0;
    if (masks.ignore.data) {
      for (uint32_t rest = row_set; rest != 0; rest &= rest - 1) {
        const int row = __ffs(rest) - 1;
        if (masks.ignored(y + row, x + lane)) row_set &= ~(1u << row);
      }
    }
    const uint32_t column_set = __ballot_sync(ALL_LANES, row_set != 0);
    row_set = warp_or(row_set);
    if (row_set) box = packed_box(row_set, column_set);
  }
  if (lane == 0) arguments.boxes[cell] = box;
}

template <class T>
struct WeighRegionsArguments {
  Masks masks;
  int rows, columns;      // of cells
  const uint32_t* boxes;  // as box_regions_kernel left them
  Numbers<T> numbers;
  void* out;  // [H, W], contiguous
  bool out_is_double;
};

// Rows of log2 sums, or of squares, that a block keeps.
constexpr int REGION_ROWS = 64;
constexpr int REGIONS = 128;  // of which a block looks at the boxes in one go

template <class T>
struct RegionShared {
  T rows[REGION_ROWS][TILE_W + 1];
  T totals[TILE_H][TILE_W + 1];
  Box boxes[REGIONS];
};

template <class T, flc_distance DISTANCE, class Border>
__global__ void __launch_bounds__(WARPS* WARP, sizeof(T) == 8 ? 1 : 2)
    weigh_regions_kernel(const __grid_constant__ WeighRegionsArguments<T> arguments) {
  constexpr bool EUCLIDEAN = DISTANCE == FLC_EUCLIDEAN;
  __shared__ RegionShared<T> shared;
  const Masks& masks = arguments.masks;
  const Numbers<T>& numbers = arguments.numbers;
  const int64_t regions = masks.masks.size[0];
  const int height = int(masks.masks.size[1]), width = int(masks.masks.size[2]);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, strip_y = warp * STRIP_H;
  const Cells cells = {arguments.rows, arguments.columns};
  const Tile tile(blockIdx.x, cells, height, width, numbers.radius);
  const int x = tile.x + lane;
  Accumulated<T, Border> sums[STRIP_H];
  unsigned foreground = 0;
  int64_t seen = 0;
  const int64_t cells_of_region = int64_t(arguments.rows) * arguments.columns;
  for (int64_t begin = 0; begin < regions; begin += REGIONS) {
    const int count = int(smaller<int64_t>(REGIONS, regions - begin));
    __syncthreads();
    for (int i = warp; i < count; i += WARPS) {
      const uint32_t* const boxes = arguments.boxes + (begin + i) * cells_of_region;
      const Box box = region_box(boxes, arguments.columns, tile, numbers.radius, lane);
      if (lane == 0) shared.boxes[i] = box;
    }
    __syncthreads();
    for (int first_place = 0; first_place < count; first_place += WARP) {
      const int own = first_place + lane;
      unsigned present = __ballot_sync(ALL_LANES, own < count && !shared.boxes[own].empty());
      for (; present != 0; present &= present - 1) {
        const int place = first_place + __ffs(present) - 1;
        const int64_t region = begin + place;
        const Box box = shared.boxes[place];
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
                EUCLIDEAN ? NearestPixels(row, box).square<T>(lane) : log_row_sum(numbers, row);
          }
          __syncthreads();
          if (EUCLIDEAN)
            squares.template add<TILE_W + 1>(&shared.rows[0][lane], rows, first - strip_y,
                                             least_square<T>(box, lane, numbers.radius));
          else
            add_log_rows(numbers, shared.rows, rows, first - strip_y, lane, totals);
        }
#pragma unroll
        for (int i = 0; i < STRIP_H; ++i) {
          if (EUCLIDEAN)
            sums[i].add_square(squares[i], numbers.square_scale);
          else
            sums[i].add(-numbers.bit_scale * totals[i][lane]);
        }
      }
    }
  }
  if (x >= width) return;
  const bool has_border = seen >= Border::FEWEST_INSTANCES && (!Border::EVERY_INSTANCE || seen == regions);
#pragma unroll
  for (int i = 0; i < STRIP_H; ++i) {
    const int64_t y = tile.y + strip_y + i;
    if (y >= height) return;
    if (EUCLIDEAN) sums[i].take_roots();
    const T border = has_border ? border_term(sums[i], numbers) : T(0);
    T weight = foreground >> i & 1 ? T(1) : compose(sums[i].fd, border, numbers);
    if (masks.ignored(y, x)) weight = 0;
    store_weight(arguments.out, arguments.out_is_double, y * width + x, weight);
  }
}

// -------------------------------------------------------------------------------------------- on the host

struct RegionMapCall {
  BoxRegionsArguments cells;
  const flc_weight_params& params;
  void* out;
  int32_t out_dtype;
  cudaStream_t stream;
};

template <class T>
static Numbers<T> numbers_of(const RegionMapCall& call) {
  if (call.params.distance == FLC_EUCLIDEAN) return euclidean_numbers<T>(call.params);
  auto numbers = logconv_numbers<T>(call.params);
  // Values above 1 make distances smaller than the limit was derived from.
  const int64_t* const size = call.cells.masks.masks.size;
  numbers.radius = int(std::min(call.params.radius, std::max(size[1], size[2]) - 1));
  return numbers;
}

template <class T, flc_distance DISTANCE, class Border>
static int32_t weigh_regions(const RegionMapCall& call) {
  const BoxRegionsArguments& cells = call.cells;
  const int64_t* const size = cells.masks.masks.size;
  WeighRegionsArguments<T> arguments{cells.masks, cells.rows, cells.columns, cells.boxes};
  arguments.numbers = numbers_of<T>(call);
  arguments.out = call.out;
  arguments.out_is_double = call.out_dtype == FLC_FLOAT64;
  return launch(weigh_regions_kernel<T, DISTANCE, Border>,
                divide_up<int64_t>(size[1], TILE_H) * divide_up<int64_t>(size[2], TILE_W), WARPS * WARP,
                arguments, call.stream);
}

template <flc_distance DISTANCE, class Border>
static int32_t weigh_masks(const RegionMapCall& call) {
  const int64_t count = call.cells.count;
  if (count > 0) {
    const int32_t status = launch(box_regions_kernel, divide_up<int64_t>(count, CELLS_PER_BLOCK),
                                  CELLS_PER_BLOCK * WARP, call.cells, call.stream);
    if (status != FLC_OK) return status;
  }
  return computed_in_double(call.params, call.out_dtype) ? weigh_regions<double, DISTANCE, Border>(call)
                                                         : weigh_regions<float, DISTANCE, Border>(call);
}

// See BoxRegionsArguments::element_bytes.
static int whole_bytes(const flc_tensor& masks) {
  const int bytes = bytes_of(masks.dtype);
  const auto is_multiple = [](int64_t value) { return value % 16 == 0; };
  const bool whole = masks.stride[2] == 1 && is_multiple(masks.stride[1] * bytes) &&
                     is_multiple(masks.stride[0] * bytes) &&
                     is_multiple(int64_t(reinterpret_cast<intptr_t>(masks.data)));
  return whole ? bytes : 0;
}

static BoxRegionsArguments cells_of(const flc_tensor& masks, const flc_tensor* ignore, void* boxes) {
  const int rows = int(divide_up<int64_t>(masks.size[1], CELL)),
            columns = int(divide_up<int64_t>(masks.size[2], CELL));
  const int64_t count = masks.size[0] * rows * columns;
  return {{masks, ignore ? *ignore : flc_tensor{}},
          rows,
          columns,
          count,
          static_cast<uint32_t*>(boxes),
          whole_bytes(masks)};
}

}  // namespace flc::cuda

extern "C" {

int64_t flc_cuda_region_weight_map_scratch_bytes(const flc_tensor* masks) {
  if (!flc::cuda::is_served(*masks)) return 0;
  return flc::cuda::cells_of(*masks, nullptr, nullptr).count * int64_t(sizeof(uint32_t));
}

int32_t flc_cuda_region_weight_map(const flc_tensor* masks, const flc_tensor* ignore,
                                   const flc_weight_params* params, void* out, int32_t out_dtype,
                                   void* scratch, int32_t device, void* stream) {
  using namespace flc::cuda;
  if (!is_served(*masks) || !is_served(ignore, FLC_BOOL) || !is_result_dtype(out_dtype))
    return FLC_UNSUPPORTED;
  const RegionMapCall call = {cells_of(*masks, ignore, scratch), *params, out, out_dtype,
                              static_cast<cudaStream_t>(stream)};
  return with_rules(*params, [&](auto distance, auto border) -> int32_t {
    if (masks->size[1] * masks->size[2] == 0) return FLC_OK;
    if (!sizes_served(*masks)) return FLC_UNSUPPORTED;
    return on_device(device, [&] { return weigh_masks<decltype(distance)::value, decltype(border)>(call); });
  });
}

}  // extern "C"
