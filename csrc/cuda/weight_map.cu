// Instance labels to weights: the second launch, in which each block weighs one tile.
//
// It goes through the entries of all cells within reach, 32 at a time: finds the instances that they belong
// to, forms row sums for as many as the table holds, and lets each warp add them to the distances of its
// strip.
#include <climits>
#include <type_traits>

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

// Rows of the table of row sums: as many as static shared memory takes, in float as leave room for four
// blocks.
template <class T>
constexpr int TABLE_ROWS = sizeof(T) == 4 ? 192 : 152;

// How the sums of the instances can be known: all scaled, each as it is possible for it, or all by
// logarithms.
enum Sums { SCALED, MIXED, LOGARITHMIC };

// Instances whose row sums are in the table at the same time, or one whose sums cannot be scaled.
struct Batch {
  unsigned candidates;  // bit by bit
  bool scaled;
  int begin_row, end_row;  // of the numbering that `end_rows` tells
};

// What is only needed where sums are scaled.
struct ScalingShared {
  float byte_sums[256];
  uint32_t words[WARPS][MOST_WORDS][WARP];
};
struct Nothing {};

template <class T>
struct Shared {
  T table[TABLE_ROWS<T>][TABLE_PITCH];
  Tile tile;
  int entries;                   // of the lists at hand
  Located nearby[MOST_NEARBY];   // those entries, where there is room for them
  Located candidates[CANDIDATES];
  int first_rows[CANDIDATES];  // of a candidate in the table
  int end_rows[CANDIDATES];    // rows of candidates are numbered through: where those of a candidate end
  int batches;
  int seen;  // instances, so far
  Batch plan[CANDIDATES];
  std::conditional_t<sizeof(T) == 4, ScalingShared, Nothing> scaling;
};

// One tile, by one block. What is needed throughout lies in shared memory, to leave registers to the sums.
template <class T, Sums SUMS, bool FARTHEST>
class TileWeigher {
  static constexpr bool CAN_SCALE = SUMS != LOGARITHMIC;
  // Where sums are known by logarithms, each warp has a part of the table for itself.
  static constexpr int SLOT_ROWS = TABLE_ROWS<T> / WARPS;

 public:
  FLC_DEVICE TileWeigher(const WeighTilesArguments<T>& arguments, Shared<T>& shared)
      : arguments_(arguments),
        settings_(arguments.settings),
        shared_(shared),
        lane_(threadIdx.x % WARP),
        warp_(threadIdx.x / WARP) {}

  FLC_DEVICE void weigh() {
    if (threadIdx.x == 0) {
      shared_.seen = 0;
      shared_.tile =
          Tile(blockIdx.x, arguments_.cells, arguments_.height, arguments_.width, settings_.radius);
    }
    if constexpr (CAN_SCALE) fill_byte_sums(settings_.scaling, shared_.scaling.byte_sums);
    __syncthreads();
    for (int first_list = 0; first_list < shared_.tile.lists; first_list += WARP) {
      if (warp_ == 0) gather(first_list);
      __syncthreads();
      for (int entry = 0; entry < shared_.entries; entry += CANDIDATES) {
        const int count = smaller(CANDIDATES, shared_.entries - entry);
        find_candidates(first_list, entry, count);
        __syncthreads();
        if (warp_ == 0) plan(count);
        __syncthreads();
        for (int i = 0; i < shared_.batches; ++i) {
          const Batch& batch = shared_.plan[i];
          if constexpr (CAN_SCALE) form_row_sums(batch);
          __syncthreads();
          const unsigned in_reach = candidates_in_reach();
          if (FARTHEST && (batch.candidates & ~in_reach)) lose_border();
          for (unsigned rest = batch.candidates & in_reach; rest != 0; rest &= rest - 1) {
            add(__ffs(rest) - 1, batch.scaled);
          }
          __syncthreads();
        }
      }
      __syncthreads();
    }
    store();
  }

 private:
  FLC_DEVICE int strip_y() const { return warp_ * STRIP_H; }

  // Whether all entries within reach are at hand.
  FLC_DEVICE bool at_hand(int entries) const { return shared_.tile.lists <= WARP && entries <= MOST_NEARBY; }

  // Counts the entries of 32 lists, and takes them to hand. By one warp.
  FLC_DEVICE void gather(int first_list) {
    const CellLists lists(arguments_.cells, shared_.tile, first_list, lane_);
    const int count = lists.count(), end = warp_scan(count, lane_);
    const int entries = __shfl_sync(ALL_LANES, end, WARP - 1);
    if (lane_ == 0) shared_.entries = entries;
    if (!at_hand(entries)) return;
    for (int i = 0; i < count; ++i) shared_.nearby[end - count + i] = lists.entry(i);
  }

  // Notes the instances of entries, or nothing where another entry stands for one or this tile does not need
  // it.
  FLC_DEVICE void find_candidates(int first_list, int first_entry, int count) {
    const int entries = shared_.entries;
    if (at_hand(entries)) {
      const int entry = first_entry + lane_;
      if (warp_ == 0 && lane_ < count) {
        note_candidate(lane_, shared_.nearby[entry].id, find_instance(shared_.nearby, entries, entry));
      }
      return;
    }
    const CellLists lists(arguments_.cells, shared_.tile, first_list, lane_);
    for (int i = warp_; i < count; i += WARPS) {
      const Located found = listed_instance(lists, first_list, first_entry + i);
      if (lane_ == 0) note_candidate(i, found.id, found.box);
    }
  }

  FLC_DEVICE void note_candidate(int candidate, int64_t id, const Box& box) {
    shared_.candidates[candidate] = {id, box.empty() ? box : needed_part(box)};
  }

  FLC_DEVICE Located listed_instance(const CellLists& lists, int first_list, int entry) const {
    int list;
    const int place = lists.place_of(entry, lane_, list);
    const int64_t id = __shfl_sync(ALL_LANES, place >= 0 ? lists.entry(place).id : 0, list);
    return {id,
            find_instance(arguments_.cells, shared_.tile, lists, first_list, first_list + list, id, lane_)};
  }

  // What the windows show of a box, or nothing where the instance is too far away to matter.
  FLC_DEVICE Box needed_part(const Box& box) const {
    const Box shown = shown_part(box, settings_.radius);
    const int away =
        beyond(0, shown.top - (TILE_H - 1), shown.bottom) + beyond(0, shown.left - (TILE_W - 1), shown.right);
    return T(away) <= settings_.limit ? shown : Box::nothing();
  }

  // Divides the candidates into batches. By one warp, each lane with a candidate.
  FLC_DEVICE void plan(int count) {
    const Box box = lane_ < count ? shared_.candidates[lane_].box : Box::nothing();
    const bool present = !box.empty();
    bool scaled = false;
    if constexpr (CAN_SCALE) {
      scaled = present && scalable(settings_, box, TABLE_ROWS<T>);
    }
    const unsigned all_scaled = __ballot_sync(ALL_LANES, scaled);
    const int rows = scaled ? box.height() : 0, end_row = warp_scan(rows, lane_), begin_row = end_row - rows;
    shared_.end_rows[lane_] = end_row;
    int batches = 0;
    const unsigned all_present = __ballot_sync(ALL_LANES, present);
    for (unsigned waiting = all_present; waiting != 0; ++batches) {
      const int first = __ffs(waiting) - 1;
      const bool first_is_scaled = all_scaled >> first & 1;
      const int begin = __shfl_sync(ALL_LANES, begin_row, first);
      const unsigned fit = __ballot_sync(ALL_LANES, end_row - begin <= TABLE_ROWS<T>) & all_scaled & waiting;
      const unsigned candidates = first_is_scaled ? fit : 1u << first;
      const int end = __shfl_sync(ALL_LANES, end_row, 31 - __clz(candidates));
      if (lane_ == first) shared_.plan[batches] = {candidates, first_is_scaled, begin, end};
      if (candidates >> lane_ & 1) shared_.first_rows[lane_] = begin_row - begin;
      waiting &= ~candidates;
    }
    if (lane_ == 0) {
      shared_.batches = batches;
      shared_.seen += __popc(all_present);
    }
  }

  // The table of row sums for a batch, each row by one thread.
  FLC_DEVICE void form_row_sums(const Batch& batch) {
    static_assert(TABLE_ROWS<T> <= WARPS * WARP);
    const int row = batch.begin_row + threadIdx.x;
    if (row >= batch.end_row) return;
    int candidate = 0;  // the first whose rows end behind this one
    for (int step = CANDIDATES / 2; step > 0; step /= 2) {
      if (shared_.end_rows[candidate + step - 1] <= row) candidate += step;
    }
    const Located& instance = shared_.candidates[candidate];
    ScaledRow sums(settings_.scaling, shared_.scaling.byte_sums, settings_.bits_per_step, settings_.radius,
                   instance.box, &shared_.scaling.words[warp_][0][lane_]);
    const int y = instance.box.bottom + 1 - (shared_.end_rows[candidate] - row);
    sums.read(RowBits(arguments_.cells, shared_.tile, instance, y));
    sums.sum(shared_.table[threadIdx.x]);
  }

  // Those that the windows of this warp's strip show, bit by bit.
  FLC_DEVICE unsigned candidates_in_reach() const {
    const Box box = shared_.candidates[lane_].box;
    return __ballot_sync(ALL_LANES,
                         beyond(strip_y(), box.top - (STRIP_H - 1), box.bottom) <= settings_.radius);
  }

  // One instance is infinitely far away.
  FLC_DEVICE void lose_border() {
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) sums_[i].other = INFINITE<T>;
  }

  // Adds an instance to the pixels of this warp's strip.
  FLC_DEVICE void add(int candidate, bool scaled) {
    const Box box = shared_.candidates[candidate].box;
    T d[STRIP_H];
    if constexpr (CAN_SCALE) {
      if (scaled) {
        ScaledColumn<SUMS == MIXED> column(settings_, box, shared_.table[shared_.first_rows[candidate]],
                                           lane_);
        column.distances(strip_y() - box.top, d);
      }
    }
    if (SUMS == LOGARITHMIC || (SUMS == MIXED && !scaled)) {
      log_distances<T, SLOT_ROWS - STRIP_H>(settings_, arguments_.cells, shared_.tile,
                                            shared_.candidates[candidate], strip_y(), lane_,
                                            shared_.table + warp_ * SLOT_ROWS, d);
    }
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) sums_[i].add(d[i]);
  }

  FLC_DEVICE void store() const {
    const Tile& tile = shared_.tile;
    const Cells& cells = arguments_.cells;
    const int x = tile.x + lane_, y = tile.y + strip_y(), rows = arguments_.height - y;
    if (x >= arguments_.width) return;
    // In parity mode the instances are 1..largest, present or not.
    const bool with_border =
        !FARTHEST || (shared_.seen > 0 && uint64_t(shared_.seen) == cells.largest[tile.image]);
    const uint32_t* const foreground =
        cells.foreground + int64_t(cells.index(tile.image, y / CELL, tile.x / CELL)) * CELL + y % CELL;
    int64_t index = (int64_t(tile.image) * arguments_.height + y) * arguments_.width + x;
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) {
      if (i >= rows) return;
      const T weight = compose(sums_[i], with_border, settings_);
      store_weight(arguments_.out, arguments_.out_is_double, index,
                   foreground[i] & 1u << lane_ ? T(1) : weight);
      index += arguments_.width;
    }
  }

  const WeighTilesArguments<T>& arguments_;
  const Settings<T>& settings_;
  Shared<T>& shared_;
  const int lane_, warp_;
  Accumulated<T, FARTHEST> sums_[STRIP_H];
};

// Blocks that an SM is to hold. Four of scaled sums, of 64 registers a thread, fill half of it; the
// assemblers for newer GPUs need more registers.
#if __CUDA_ARCH__ >= 1000
constexpr int SCALED_BLOCKS = 3;
#else
constexpr int SCALED_BLOCKS = 4;
#endif
template <Sums SUMS>
constexpr int BLOCKS = SUMS == SCALED  ? SCALED_BLOCKS
                       : SUMS == MIXED ? 2
                                       : 1;

template <class T, Sums SUMS, bool FARTHEST>
__global__ void __launch_bounds__(WARPS* WARP, BLOCKS<SUMS>)
    weigh_tiles_kernel(const __grid_constant__ WeighTilesArguments<T> arguments) {
  __shared__ Shared<T> shared;
  TileWeigher<T, SUMS, FARTHEST>(arguments, shared).weigh();
}

// -------------------------------------------------------------------------------------------- on the host

template <class T, Sums SUMS>
static cudaError_t weigh_tiles(const flc_tensor& labels, const WeighTilesArguments<T>& arguments,
                               bool farthest, cudaStream_t stream) {
  const int64_t tiles = labels.size[0] * divide_up<int64_t>(labels.size[1], TILE_H) *
                        divide_up<int64_t>(labels.size[2], TILE_W);
  return launch(farthest ? weigh_tiles_kernel<T, SUMS, true> : weigh_tiles_kernel<T, SUMS, false>, tiles,
                WARPS * WARP, arguments, stream);
}

template <class T>
static WeighTilesArguments<T> arguments_for(const flc_tensor& labels, const Cells& cells,
                                            const flc_weight_params& params, void* out, int32_t out_dtype) {
  const int64_t height = labels.size[1], width = labels.size[2];
  return {
      cells, settings_for<T>(params, height, width), int(height), int(width), out, out_dtype == FLC_FLOAT64};
}

}  // namespace flc::cuda

extern "C" {

int64_t flc_cuda_weight_map_scratch_bytes(const flc_tensor* labels) {
  return flc::cuda::cells_bytes(*labels);
}

int32_t flc_cuda_weight_map(const flc_tensor* labels, const flc_weight_params* params, void* out,
                            int32_t out_dtype, void* scratch, int32_t device, void* stream) {
  using namespace flc::cuda;
  if (labels->size[0] * labels->size[1] * labels->size[2] == 0) return FLC_OK;
  if (!sizes_supported(*labels)) return FLC_UNSUPPORTED;
  return on_device(device, [&] {
    const auto queue = static_cast<cudaStream_t>(stream);
    const Cells cells = place_cells(*labels, scratch);
    const cudaError_t error = list_cells(*labels, cells, params->border == FLC_FARTHEST, queue);
    if (error != cudaSuccess) return error;
    const bool farthest = params->border == FLC_FARTHEST;
    if (needs_double(*params, out_dtype)) {
      const auto arguments = arguments_for<double>(*labels, cells, *params, out, out_dtype);
      return weigh_tiles<double, LOGARITHMIC>(*labels, arguments, farthest, queue);
    }
    const auto arguments = arguments_for<float>(*labels, cells, *params, out, out_dtype);
    const Box largest = shown_part({INT_MIN, INT_MAX, INT_MIN, INT_MAX}, arguments.settings.radius);
    const bool all_scaled =
        scalable(arguments.settings, largest, TABLE_ROWS<float>) && always_accurate(arguments.settings);
    return all_scaled ? weigh_tiles<float, SCALED>(*labels, arguments, farthest, queue)
                      : weigh_tiles<float, MIXED>(*labels, arguments, farthest, queue);
  });
}

}  // extern "C"
