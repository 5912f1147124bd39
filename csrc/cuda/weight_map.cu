// Instance labels to weights: the second launch, in which each block weighs one tile.
//
// It goes through the entries of all cells within reach, 32 at a time: finds the instances that they belong to, forms
// row sums for as many as the table holds, and lets each warp add them to the distances of its strip.
#include "cuda/compose.h"
#include "cuda/log_distance.h"
#include "cuda/scaled_distance.h"
#include "fastlogconv.h"

namespace flc::cuda {

template <class T>
struct WeighTilesArguments {
  Cells cells;
  Settings<T> settings;
  int height, width;
  void* out;  // [B, H, W], contiguous
  bool out_is_double;
};

// Rows of the table of row sums: as many as static shared memory takes, in float as leave room for four blocks.
template <class T>
constexpr int TABLE_ROWS = sizeof(T) == 4 ? 192 : 176;

template <class T>
struct Shared {
  T table[TABLE_ROWS<T>][TABLE_PITCH];
  Instance instances[CANDIDATES];
  float byte_sums[256];
  uint32_t words[WARPS][MOST_WORDS][WARP];
};
template <>
struct Shared<double> {
  double table[TABLE_ROWS<double>][TABLE_PITCH];
  Instance instances[CANDIDATES];
};

// One tile, by one block: each warp runs all of this.
template <class T, bool FARTHEST>
class TileWeigher {
  static constexpr bool CAN_SCALE = sizeof(T) == 4;
  // Where sums are known by logarithms, each warp has a part of the table for itself.
  static constexpr int SLOT_ROWS = TABLE_ROWS<T> / WARPS;

 public:
  __device__ TileWeigher(const WeighTilesArguments<T>& arguments, Shared<T>& shared)
      : arguments_(arguments),
        settings_(arguments.settings),
        shared_(shared),
        lane_(threadIdx.x % WARP),
        warp_(threadIdx.x / WARP),
        strip_y_(warp_ * STRIP_H),
        tile_(blockIdx.x, arguments.cells, arguments.height, arguments.width, arguments.settings.radius),
        cell_lists_(arguments.cells, tile_, lane_) {
    if constexpr (CAN_SCALE) fill_byte_sums(settings_.scaling, shared_.byte_sums);
  }

  __device__ void weigh() {
    for (int first_list = 0; first_list < tile_.lists; first_list += WARP) {
      cell_lists_.load(first_list);
      const int end = warp_scan(cell_lists_.count(), lane_);  // of this lane's entries, numbered through
      const int entries = __shfl_sync(ALL_LANES, end, WARP - 1);
      for (int entry = 0; entry < entries; entry += CANDIDATES) {
        for (int i = warp_; i < CANDIDATES; i += WARPS) find_candidate(i, first_list, end, entry + i, entries);
        __syncthreads();
        add_candidates();
        __syncthreads();
      }
    }
    store();
  }

 private:
  // Notes the instance of an entry, or an empty box where it is none that this tile needs.
  __device__ void find_candidate(int candidate, int first_list, int end, int entry, int entries) {
    Instance found = {0, {0, -1, 0, -1}};
    if (entry < entries) {
      cell_lists_.load(first_list);
      const int list = __popc(__ballot_sync(ALL_LANES, end <= entry));
      const int place = entry - __shfl_sync(ALL_LANES, end - cell_lists_.count(), list);
      found.id = cell_lists_.id(list, place);
      found.box = find_instance(cell_lists_, tile_, first_list + list, found.id, settings_.radius);
      const Box& box = found.box;
      const int away = beyond(0, box.top - (TILE_H - 1), box.bottom) + beyond(0, box.left - (TILE_W - 1), box.right);
      if (T(away) > settings_.limit) found.box.bottom = box.top - 1;
    }
    if (lane_ == 0) shared_.instances[candidate] = found;
  }

  // Adds the instances that were found, batch by batch: as many as the table of row sums holds, or one whose sums
  // cannot be scaled. Lane i decides about candidate i.
  __device__ void add_candidates() {
    const Box box = shared_.instances[lane_].box;
    const bool present = !box.empty();
    bool scaled = false;
    if constexpr (CAN_SCALE) {
      scaled = present && scalable(settings_.scaling, box, settings_.radius, settings_.bits_per_step, TABLE_ROWS<T>);
    }
    const unsigned all_scaled = __ballot_sync(ALL_LANES, scaled);
    const unsigned in_reach = __ballot_sync(
        ALL_LANES, present && beyond(strip_y_, box.top - (STRIP_H - 1), box.bottom) <= settings_.radius);
    seen_ += __popc(in_reach);
    const int rows = scaled ? box.height() : 0, end_row = warp_scan(rows, lane_);
    unsigned waiting = __ballot_sync(ALL_LANES, present);
    while (waiting != 0) {
      const int first = __ffs(waiting) - 1;
      unsigned batch = 1u << first;
      const bool batch_is_scaled = all_scaled >> first & 1;
      // In the table; of this lane's candidate.
      const int first_row = end_row - rows - __shfl_sync(ALL_LANES, end_row - rows, first);
      if (batch_is_scaled) {
        batch = __ballot_sync(ALL_LANES, first_row + rows <= TABLE_ROWS<T>) & all_scaled & waiting;
        if constexpr (CAN_SCALE) form_row_sums(batch, first_row);
        __syncthreads();
      }
      for (unsigned rest = batch & in_reach; rest != 0; rest &= rest - 1) {
        const int candidate = __ffs(rest) - 1;
        add(shared_.instances[candidate], batch_is_scaled, __shfl_sync(ALL_LANES, first_row, candidate));
      }
      waiting &= ~batch;
      __syncthreads();
    }
  }

  // The table of row sums of a batch: 32 rows of an instance at a time, by one warp.
  __device__ void form_row_sums(unsigned batch, int first_row) {
    const float decay_8 = exp2_of(-8 * settings_.bits_per_step);
    int turn = 0;
    for (; batch != 0; batch &= batch - 1) {
      const int candidate = __ffs(batch) - 1;
      const Instance& instance = shared_.instances[candidate];
      const int table_row = __shfl_sync(ALL_LANES, first_row, candidate);
      for (int row = 0; row < instance.box.height(); row += WARP) {
        if (turn++ % WARPS != warp_ || row + lane_ >= instance.box.height()) continue;
        ScaledRow sums(settings_.scaling, shared_.byte_sums, decay_8, settings_.bits_per_step, settings_.radius,
                       instance.box, &shared_.words[warp_][0][lane_]);
        sums.read(RowBits(arguments_.cells, tile_, instance, instance.box.top + row + lane_));
        sums.sum(shared_.table[table_row + row + lane_]);
      }
    }
  }

  // Adds an instance to the pixels of this warp's strip.
  __device__ void add(const Instance& instance, bool scaled, int table_row) {
    T d[STRIP_H];
    bool done = false;
    if constexpr (CAN_SCALE) {
      if (scaled) {
        ScaledColumn column(settings_, instance.box, shared_.table[table_row], lane_);
        column.distances(strip_y_ - instance.box.top, d);
        done = true;
      }
    }
    if (!done) {
      log_distances<T, SLOT_ROWS - STRIP_H>(settings_, arguments_.cells, tile_, instance, strip_y_, lane_,
                                            shared_.table + warp_ * SLOT_ROWS, d);
    }
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) sums_[i].add(d[i]);
  }

  __device__ void store() const {
    const int x = tile_.x + lane_;
    if (x >= arguments_.width) return;
    // In parity mode the instances are 1..largest, present or not.
    const Cells& cells = arguments_.cells;
    const bool with_border = seen_ > 0 && (!FARTHEST || uint64_t(seen_) == cells.largest[tile_.image]);
    const int y = tile_.y + strip_y_;
    const uint32_t* const foreground =
        cells.foreground + cells.index(tile_.image, y / CELL, tile_.x / CELL) * CELL + y % CELL;
    const int64_t first = (tile_.image * arguments_.height + y) * arguments_.width + x;
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) {
      if (y + i >= arguments_.height) return;
      const T weight = foreground[i] >> lane_ & 1 ? T(1) : compose(sums_[i], with_border, settings_);
      store_weight(arguments_.out, arguments_.out_is_double, first + int64_t(i) * arguments_.width, weight);
    }
  }

  const WeighTilesArguments<T>& arguments_;
  const Settings<T>& settings_;
  Shared<T>& shared_;
  const int lane_, warp_, strip_y_;
  const Tile tile_;
  CellLists cell_lists_;
  Accumulated<T, FARTHEST> sums_[STRIP_H];
  int seen_ = 0;
};

template <class T, bool FARTHEST>
__global__ void __launch_bounds__(WARPS* WARP, sizeof(T) == 4 ? 4 : 1) weigh_tiles_kernel(const __grid_constant__ WeighTilesArguments<T> arguments) {
  __shared__ Shared<T> shared;
  TileWeigher<T, FARTHEST>(arguments, shared).weigh();
}

// -------------------------------------------------------------------------------------------- on the host

template <class T>
static cudaError_t weigh_tiles(const flc_tensor& labels, const Cells& cells, const flc_weight_params& params,
                               void* out, int32_t out_dtype, cudaStream_t stream) {
  const int64_t height = labels.size[1], width = labels.size[2];
  const WeighTilesArguments<T> arguments = {cells, settings_for<T>(params, height, width), int(height), int(width),
                                            out, out_dtype == FLC_FLOAT64};
  const int64_t tiles = labels.size[0] * divide_up<int64_t>(height, TILE_H) * divide_up<int64_t>(width, TILE_W);
  return launch(params.border == FLC_FARTHEST ? weigh_tiles_kernel<T, true> : weigh_tiles_kernel<T, false>, tiles,
                WARPS * WARP, arguments, stream);
}

}  // namespace flc::cuda

extern "C" {

int64_t flc_cuda_weight_map_scratch_bytes(const flc_tensor* labels) { return flc::cuda::cells_bytes(*labels); }

int32_t flc_cuda_weight_map(const flc_tensor* labels, const flc_weight_params* params, void* out, int32_t out_dtype,
                            void* scratch, int32_t device, void* stream) {
  using namespace flc::cuda;
  if (labels->size[0] * labels->size[1] * labels->size[2] == 0) return FLC_OK;
  if (!sizes_supported(*labels)) return FLC_UNSUPPORTED;
  return on_device(device, [&] {
    const auto queue = static_cast<cudaStream_t>(stream);
    const Cells cells = place_cells(*labels, scratch);
    const cudaError_t error = list_cells(*labels, cells, params->border == FLC_FARTHEST, queue);
    if (error != cudaSuccess) return error;
    return (needs_double(*params, out_dtype) ? weigh_tiles<double> : weigh_tiles<float>)(*labels, cells, *params, out,
                                                                                        out_dtype, queue);
  });
}

}  // extern "C"
