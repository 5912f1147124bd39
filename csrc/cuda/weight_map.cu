// Instance labels to weights: the second launch, in which each block weighs one tile.
//
// It goes through the instances that the windows of the tile show, 32 at a time: forms row sums (or squares)
// for as many as the table holds, and lets each warp add them to the distances of its strip. Where there are
// classes it does so class by class.
#include <climits>
#include <type_traits>

#include "cuda/candidates.h"
#include "cuda/compose.h"
#include "cuda/euclidean_distance.h"
#include "cuda/log_distance.h"
#include "cuda/scaled_distance.h"
#include "fastlogconv.h"
#include "formulas.h"

namespace flc::cuda {

template <class T>
struct WeighTilesArguments {
  Cells cells;
  Settings<T> settings;
  int height, width;
  void* out;  // [B, H, W], contiguous
  bool out_is_double;
};

// How distances are found: from sums that are all scaled, or each as it is possible for it, or all by
// logarithms; or exactly.
enum Distance { SCALED, MIXED, LOGARITHMIC, EUCLIDEAN };

// Rows of the table of row sums or squares: as many as static shared memory takes, in float as leave room for
// four blocks.
template <class T, Distance DISTANCE>
constexpr int TABLE_ROWS = DISTANCE == EUCLIDEAN ? 128
                           : sizeof(T) == 4      ? 192
                                                 : 152;

// Entries that there is room for to keep them at hand.
template <Distance DISTANCE>
constexpr int MOST_NEARBY = DISTANCE == EUCLIDEAN ? 256 : 128;

// Instances whose rows are in the table at the same time, or one whose rows are not: its sums cannot be
// scaled.
struct Batch {
  unsigned candidates;  // bit by bit
  bool in_table;
  int begin_row, end_row;  // of the numbering that `end_rows` tells
};

// What is only needed where sums are scaled.
struct ScalingShared {
  float byte_sums[256];
  uint32_t words[WARPS][MOST_WORDS][WARP];
};
struct Nothing {};

template <bool BY_CLASS>
using TileFor = std::conditional_t<BY_CLASS, ClassTile, Tile>;

template <class T, Distance DISTANCE, bool BY_CLASS>
struct Shared {
  T table[TABLE_ROWS<T, DISTANCE>][TABLE_PITCH];
  TileFor<BY_CLASS> tile;
  Candidates<MOST_NEARBY<DISTANCE>> candidates;
  int first_rows[CANDIDATES];  // of a candidate in the table
  int end_rows[CANDIDATES];    // rows of candidates are numbered through: where those of a candidate end
  int batches;
  int seen;  // instances, so far
  bool missed;  // one is too far away to matter
  Batch plan[CANDIDATES];
  std::conditional_t<DISTANCE == SCALED || DISTANCE == MIXED, ScalingShared, Nothing> scaling;
};

// One tile, by one block. What is needed throughout lies in shared memory, to leave registers to the sums.
template <class T, Distance DISTANCE, bool FARTHEST, bool BY_CLASS>
class TileWeigher {
  static constexpr bool CAN_SCALE = DISTANCE == SCALED || DISTANCE == MIXED;
  static constexpr int ROWS = TABLE_ROWS<T, DISTANCE>, ROWS_OF_WARP = ROWS / WARPS;

 public:
  FLC_DEVICE TileWeigher(const WeighTilesArguments<T>& arguments, Shared<T, DISTANCE, BY_CLASS>& shared)
      : arguments_(arguments),
        settings_(arguments.settings),
        shared_(shared),
        lane_(threadIdx.x % WARP),
        warp_(threadIdx.x / WARP) {}

  FLC_DEVICE void weigh() {
    if (threadIdx.x == 0) {
      shared_.seen = 0;
      shared_.missed = false;
      shared_.candidates.begin();
      shared_.tile =
          Tile(blockIdx.x, arguments_.cells, arguments_.height, arguments_.width, settings_.radius);
    }
    if constexpr (CAN_SCALE) fill_byte_sums(settings_.scaling, shared_.scaling.byte_sums);
    __syncthreads();
    if constexpr (BY_CLASS) {
      for (uint32_t label = next_class(0); label != NO_CLASS; label = next_class(label)) {
        if (threadIdx.x == 0) {
          shared_.missed = false;
          shared_.candidates.begin();
          shared_.tile.class_label = label;
        }
        __syncthreads();
        add_instances();
        add_border();
        __syncthreads();
      }
    } else {
      add_instances();
      add_border();
    }
    store();
  }

 private:
  using Finder = CandidateFinder<TileFor<BY_CLASS>, MOST_NEARBY<DISTANCE>>;
  static constexpr uint32_t NO_CLASS = ~0u;

  FLC_DEVICE int strip_y() const { return warp_ * STRIP_H; }

  // The lowest class above another one that has entries within reach. By each warp.
  FLC_DEVICE uint32_t next_class(uint32_t label) const {
    const Cells& cells = arguments_.cells;
    uint32_t next = NO_CLASS;
    for (int list = lane_; list < shared_.tile.lists; list += WARP) {
      const int cell = shared_.tile.cell(cells, list), place = first_of_class(cells, cell, label + 1);
      if (place < cells.counts[cell]) next = smaller(next, cells.classes[int64_t(cell) * ROOM + place]);
    }
    return warp_min(next);
  }

  // Adds the instances within reach, those of the class where there are classes.
  FLC_DEVICE void add_instances() {
    const auto candidates = candidate_finder();
    while (candidates.find()) {
      if (warp_ == 0) plan(candidates);
      __syncthreads();
      for (int i = 0; i < shared_.batches; ++i) {
        if constexpr (DISTANCE == EUCLIDEAN)
          add_squares(shared_.plan[i]);
        else
          add_sums(shared_.plan[i]);
      }
    }
  }

  FLC_DEVICE Finder candidate_finder() const {
    return {arguments_.cells, shared_.tile, settings_.radius, shared_.candidates};
  }

  // What the windows show of a box, or nothing where the instance is too far away to matter.
  FLC_DEVICE Box needed_part(const Box& box) const {
    const Box shown = shown_part(box, settings_.radius);
    return within_limit(beyond(0, shown.top - (TILE_H - 1), shown.bottom),
                        beyond(0, shown.left - (TILE_W - 1), shown.right))
               ? shown
               : Box::nothing();
  }

  FLC_DEVICE bool within_limit(int rows, int columns) const {
    const T y = T(rows), x = T(columns), limit = settings_.limit;
    return DISTANCE == EUCLIDEAN ? y * y + x * x <= limit * limit : y + x <= limit;
  }

  // Divides the candidates that this tile needs into batches. By one warp, each lane with a candidate.
  FLC_DEVICE void plan(const Finder& candidates) {
    const Box found = candidates.box(lane_);
    const Box box = found.empty() ? found : needed_part(found);
    const bool present = !box.empty();
    if (BY_CLASS && FARTHEST && !found.empty() && !present) shared_.missed = true;
    shared_.candidates.found[lane_].box = box;
    bool in_table = false;
    if constexpr (DISTANCE == EUCLIDEAN) in_table = present;
    if constexpr (CAN_SCALE) in_table = present && scalable(settings_, box, ROWS);
    const unsigned all_in_table = __ballot_sync(ALL_LANES, in_table);
    const int rows = in_table ? smaller(box.height(), ROWS) : 0, end_row = warp_scan(rows, lane_),
              begin_row = end_row - rows;
    shared_.end_rows[lane_] = end_row;
    int batches = 0;
    const unsigned all_present = __ballot_sync(ALL_LANES, present);
    for (unsigned waiting = all_present; waiting != 0; ++batches) {
      const int first = __ffs(waiting) - 1;
      const bool first_in_table = all_in_table >> first & 1;
      const int begin = __shfl_sync(ALL_LANES, begin_row, first);
      const unsigned fit = __ballot_sync(ALL_LANES, end_row - begin <= ROWS) & all_in_table & waiting;
      const unsigned candidates = first_in_table ? fit : 1u << first;
      const int end = __shfl_sync(ALL_LANES, end_row, 31 - __clz(candidates));
      if (lane_ == first) shared_.plan[batches] = {candidates, first_in_table, begin, end};
      if (candidates >> lane_ & 1) shared_.first_rows[lane_] = begin_row - begin;
      waiting &= ~candidates;
    }
    if (lane_ == 0) {
      shared_.batches = batches;
      shared_.seen += __popc(all_present);
    }
  }

  // The candidate that a row of a batch belongs to.
  FLC_DEVICE int candidate_of(int row) const {
    int candidate = 0;  // the first whose rows end behind this one
    for (int step = CANDIDATES / 2; step > 0; step /= 2) {
      if (shared_.end_rows[candidate + step - 1] <= row) candidate += step;
    }
    return candidate;
  }

  FLC_DEVICE void add_sums(const Batch& batch) {
    if constexpr (CAN_SCALE) form_row_sums(batch);
    __syncthreads();
    const unsigned in_reach = candidates_in_reach();
    if (FARTHEST && (batch.candidates & ~in_reach)) lose_border();
    for (unsigned rest = batch.candidates & in_reach; rest != 0; rest &= rest - 1) {
      add(__ffs(rest) - 1, batch.in_table);
    }
    __syncthreads();
  }

  // The table of row sums for a batch, each row by one thread.
  FLC_DEVICE void form_row_sums(const Batch& batch) {
    static_assert(ROWS <= WARPS * WARP);
    const int row = batch.begin_row + threadIdx.x;
    if (row >= batch.end_row) return;
    const int candidate = candidate_of(row);
    const Located& instance = shared_.candidates.found[candidate];
    ScaledRow sums(settings_.scaling, shared_.scaling.byte_sums, settings_.bits_per_step, settings_.radius,
                   instance.box, &shared_.scaling.words[warp_][0][lane_]);
    const int y = instance.box.bottom + 1 - (shared_.end_rows[candidate] - row);
    sums.read(RowBits(arguments_.cells, shared_.tile, instance, y));
    sums.sum(shared_.table[threadIdx.x]);
  }

  // An instance with more rows than the table is alone in its batch, and goes through it part by part.
  FLC_DEVICE void add_squares(const Batch& batch) {
    const int height = shared_.candidates.found[__ffs(batch.candidates) - 1].box.height();
    const unsigned in_reach = candidates_in_reach();
    if (FARTHEST && (batch.candidates & ~in_reach)) lose_border();
    StripSquares<T> squares;
    for (int first = 0; first < height; first += ROWS) {
      form_row_squares(batch, first);
      __syncthreads();
      for (unsigned rest = batch.candidates & in_reach; rest != 0; rest &= rest - 1) {
        const int candidate = __ffs(rest) - 1;
        const Box box = shared_.candidates.found[candidate].box;
        if (first == 0) squares = {};
        squares.template add<TABLE_PITCH>(&shared_.table[shared_.first_rows[candidate]][lane_],
                                          smaller(ROWS, box.height() - first), box.top + first - strip_y(),
                                          least_square<T>(box, lane_, settings_.radius));
        if (first + ROWS < height) continue;
#pragma unroll
        for (int i = 0; i < STRIP_H; ++i) sums_[i].add_square(squares[i], settings_.square_scale);
      }
      __syncthreads();
    }
  }

  // The table of squares along rows for a batch, for a tall instance from its row `first` on.
  FLC_DEVICE void form_row_squares(const Batch& batch, int first) {
    const int begin = warp_ * ROWS_OF_WARP, row = begin + lane_;
    const int rows = smaller(batch.end_row - batch.begin_row - begin, ROWS_OF_WARP);
    NearestPixels pixels;
    if (lane_ < rows) {
      const int candidate = candidate_of(batch.begin_row + row);
      const Located instance = shared_.candidates.found[candidate];
      const int y = instance.box.top + first + row - shared_.first_rows[candidate];
      if (y <= instance.box.bottom) {
        pixels = NearestPixels(RowBits(arguments_.cells, shared_.tile, instance, y), instance.box);
      }
    }
    for (int i = 0; i < rows; ++i) {
      shared_.table[begin + i][lane_] = pixels.of_lane(i).template square<T>(lane_);
    }
  }

  // Those that the windows of this warp's strip show, bit by bit.
  FLC_DEVICE unsigned candidates_in_reach() const {
    const Box box = shared_.candidates.found[lane_].box;
    const int rows = beyond(strip_y(), box.top - (STRIP_H - 1), box.bottom);
    bool shown = rows <= settings_.radius;
    if (DISTANCE == EUCLIDEAN) {
      shown = shown && within_limit(rows, beyond(0, box.left - (TILE_W - 1), box.right));
    }
    return __ballot_sync(ALL_LANES, shown);
  }

  // One instance is infinitely far away.
  FLC_DEVICE void lose_border() {
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) sums_[i].other = INFINITE<T>;
  }

  // Adds an instance to the pixels of this warp's strip.
  FLC_DEVICE void add(int candidate, bool in_table) {
    const Box box = shared_.candidates.found[candidate].box;
    T d[STRIP_H];
    if constexpr (CAN_SCALE) {
      if (in_table) {
        ScaledColumn<DISTANCE == MIXED> column(settings_, box, shared_.table[shared_.first_rows[candidate]],
                                               lane_);
        column.distances(strip_y() - box.top, d);
      }
    }
    if (DISTANCE == LOGARITHMIC || (DISTANCE == MIXED && !in_table)) {
      // Each warp has a part of the table for itself.
      log_distances<T, ROWS_OF_WARP - STRIP_H>(settings_, arguments_.cells, shared_.tile,
                                               shared_.candidates.found[candidate], strip_y(), lane_,
                                               shared_.table + warp_ * ROWS_OF_WARP, d);
    }
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) sums_[i].add(d[i]);
  }

  // The border term of what was added, and a new beginning for the next class.
  FLC_DEVICE void add_border() {
    const bool with_border = !FARTHEST || all_in_reach();
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) {
      if (DISTANCE == EUCLIDEAN) sums_[i].take_roots();
      if (with_border) borders_[i] += border_term(sums_[i], settings_);
      if (BY_CLASS) sums_[i].next_class();
    }
  }

  // Whether a farthest instance can be known: all of them, of the class where there are classes, lie within
  // reach. In parity mode the instances are 1..largest, of all classes together, present or not.
  FLC_DEVICE bool all_in_reach() const {
    const Cells& cells = arguments_.cells;
    const auto& tile = shared_.tile;
    if constexpr (BY_CLASS) {
      if (shared_.missed || cells.ids.counts[tile.image] != cells.largest[tile.image]) return false;
      bool missed = false;
      const int first = cells.index(tile.image, 0, 0);
      for (int i = threadIdx.x; i < cells.rows * cells.columns && !missed; i += WARPS * WARP) {
        const Range range = entries_of(cells, first + i, tile);
        for (int place = range.first; place < range.end && !missed; ++place) {
          missed = !candidate_finder().shows(cells.entries[int64_t(first + i) * ROOM + place].id);
        }
      }
      return !__syncthreads_or(missed);
    }
    return shared_.seen > 0 && uint64_t(shared_.seen) == cells.largest[tile.image];
  }

  FLC_DEVICE void store() const {
    const Tile& tile = shared_.tile;
    const Cells& cells = arguments_.cells;
    const int x = tile.x + lane_, y = tile.y + strip_y(), rows = arguments_.height - y;
    if (x >= arguments_.width) return;
    const int64_t first_word = int64_t(cells.index(tile.image, y / CELL, tile.x / CELL)) * CELL + y % CELL;
    const uint32_t* const foreground = cells.foreground + first_word;
    const uint32_t* const ignored = cells.ignored ? cells.ignored + first_word : nullptr;
    int64_t index = (int64_t(tile.image) * arguments_.height + y) * arguments_.width + x;
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) {
      if (i >= rows) return;
      T weight = compose(sums_[i].fd, borders_[i], settings_);
      if (foreground[i] & 1u << lane_) weight = 1;
      if (ignored && ignored[i] & 1u << lane_) weight = 0;
      store_weight(arguments_.out, arguments_.out_is_double, index, weight);
      index += arguments_.width;
    }
  }

  const WeighTilesArguments<T>& arguments_;
  const Settings<T>& settings_;
  Shared<T, DISTANCE, BY_CLASS>& shared_;
  const int lane_, warp_;
  Accumulated<T, FARTHEST> sums_[STRIP_H];
  T borders_[STRIP_H] = {};
};

// Blocks that an SM is to hold. Four of scaled sums, of 64 registers a thread, fill half of it; the
// assemblers for newer GPUs need more registers.
#if __CUDA_ARCH__ >= 1000
constexpr int SCALED_BLOCKS = 3;
#else
constexpr int SCALED_BLOCKS = 4;
#endif
template <class T, Distance DISTANCE, bool BY_CLASS>
constexpr int BLOCKS = sizeof(T) == 8          ? 1
                       : DISTANCE == MIXED     ? 2
                       : DISTANCE == EUCLIDEAN ? 3
                       : BY_CLASS              ? 3
                                               : SCALED_BLOCKS;

template <class T, Distance DISTANCE, bool FARTHEST, bool BY_CLASS>
__global__ void __launch_bounds__(WARPS* WARP, BLOCKS<T, DISTANCE, BY_CLASS>)
    weigh_tiles_kernel(const __grid_constant__ WeighTilesArguments<T> arguments) {
  __shared__ Shared<T, DISTANCE, BY_CLASS> shared;
  TileWeigher<T, DISTANCE, FARTHEST, BY_CLASS>(arguments, shared).weigh();
}

// -------------------------------------------------------------------------------------------- on the host

template <class T, Distance DISTANCE, bool BY_CLASS>
static cudaError_t weigh_tiles(const flc_tensor& labels, const WeighTilesArguments<T>& arguments,
                               bool farthest, cudaStream_t stream) {
  const int64_t tiles = labels.size[0] * divide_up<int64_t>(labels.size[1], TILE_H) *
                        divide_up<int64_t>(labels.size[2], TILE_W);
  return launch(farthest ? weigh_tiles_kernel<T, DISTANCE, true, BY_CLASS>
                         : weigh_tiles_kernel<T, DISTANCE, false, BY_CLASS>,
                tiles, WARPS * WARP, arguments, stream);
}

template <class T>
static WeighTilesArguments<T> arguments_for(const flc_tensor& labels, const Cells& cells,
                                            const flc_weight_params& params, void* out, int32_t out_dtype) {
  const int64_t height = labels.size[1], width = labels.size[2];
  const double crowd = crowd_beyond(params.foreground_dist_sigma, double(height), double(width));
  const auto settings = params.distance == FLC_EUCLIDEAN ? euclidean_settings<T>(params, height, width, crowd)
                                                         : settings_for<T>(params, height, width);
  return {cells, settings, int(height), int(width), out, out_dtype == FLC_FLOAT64};
}

// Whether a float holds the scaled sums of any instance.
static bool all_scaled(const Settings<float>& settings) {
  const Box largest = shown_part({INT_MIN, INT_MAX, INT_MIN, INT_MAX}, settings.radius);
  return scalable(settings, largest, TABLE_ROWS<float, SCALED>) && always_accurate(settings);
}

template <bool BY_CLASS>
static cudaError_t weigh_labels(const flc_tensor& labels, const Cells& cells, const flc_weight_params& params,
                                void* out, int32_t out_dtype, cudaStream_t stream) {
  const bool farthest = params.border == FLC_FARTHEST, euclidean = params.distance == FLC_EUCLIDEAN;
  if (needs_double(params, out_dtype)) {
    const auto arguments = arguments_for<double>(labels, cells, params, out, out_dtype);
    return euclidean ? weigh_tiles<double, EUCLIDEAN, BY_CLASS>(labels, arguments, farthest, stream)
                     : weigh_tiles<double, LOGARITHMIC, BY_CLASS>(labels, arguments, farthest, stream);
  }
  const auto arguments = arguments_for<float>(labels, cells, params, out, out_dtype);
  if (euclidean) return weigh_tiles<float, EUCLIDEAN, BY_CLASS>(labels, arguments, farthest, stream);
  return all_scaled(arguments.settings)
             ? weigh_tiles<float, SCALED, BY_CLASS>(labels, arguments, farthest, stream)
             : weigh_tiles<float, MIXED, BY_CLASS>(labels, arguments, farthest, stream);
}

static LabelTensors tensors_of(const flc_tensor* labels, const flc_tensor* classes,
                               const flc_tensor* ignore) {
  return {*labels, classes ? *classes : flc_tensor{}, ignore ? *ignore : flc_tensor{}};
}

}  // namespace flc::cuda

extern "C" {

int64_t flc_cuda_weight_map_scratch_bytes(const flc_tensor* labels, const flc_tensor* classes,
                                          const flc_tensor* ignore) {
  return flc::cuda::cells_bytes(flc::cuda::tensors_of(labels, classes, ignore));
}

int32_t flc_cuda_weight_map(const flc_tensor* labels, const flc_tensor* classes, const flc_tensor* ignore,
                            const flc_weight_params* params, void* out, int32_t out_dtype, void* scratch,
                            int32_t device, void* stream) {
  using namespace flc::cuda;
  if (labels->size[0] * labels->size[1] * labels->size[2] == 0) return FLC_OK;
  if (!sizes_supported(*labels)) return FLC_UNSUPPORTED;
  return on_device(device, [&] {
    const auto queue = static_cast<cudaStream_t>(stream);
    const LabelTensors tensors = tensors_of(labels, classes, ignore);
    const Cells cells = place_cells(tensors, scratch);
    const cudaError_t error = list_cells(tensors, cells, params->border == FLC_FARTHEST, queue);
    if (error != cudaSuccess) return error;
    const auto weigh = classes ? weigh_labels<true> : weigh_labels<false>;
    return weigh(*labels, cells, *params, out, out_dtype, queue);
  });
}

}  // extern "C"
