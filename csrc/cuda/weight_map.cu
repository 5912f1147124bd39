// Instance labels to weights, in two launches: the first lists what lies in each cell, the second weighs.
#include <climits>

#include "cuda/launch.h"
#include "cuda/tile_weigher.h"

namespace flc::cuda {

// Blocks that an SM is to hold. Four of scaled sums, of 64 registers a thread, fill half of it. Where three of
// exact distances by class were to fit, the assemblers for older GPUs would spill.
#if __CUDA_ARCH__ >= 900
constexpr int EUCLIDEAN_BLOCKS_BY_CLASS = 3;
#else
constexpr int EUCLIDEAN_BLOCKS_BY_CLASS = 2;
#endif
template <class T, Way WAY, bool BY_CLASS>
constexpr int BLOCKS = sizeof(T) == 8                 ? 1
                       : WAY == MIXED                 ? 2
                       : WAY == EUCLIDEAN && BY_CLASS ? EUCLIDEAN_BLOCKS_BY_CLASS
                       : WAY == EUCLIDEAN || BY_CLASS ? 3
                                                      : 4;

template <class T, Way WAY, class Border, bool BY_CLASS>
__global__ void __launch_bounds__(WARPS* WARP, BLOCKS<T, WAY, BY_CLASS>)
    weigh_tiles_kernel(const __grid_constant__ WeighTilesArguments<T> arguments) {
  __shared__ Shared<T, WAY, BY_CLASS> shared;
  TileWeigher<T, WAY, Border, BY_CLASS>(arguments, shared).weigh();
}

// -------------------------------------------------------------------------------------------- on the host

struct WeightMapCall {
  LabelTensors tensors;
  const flc_weight_params& params;
  void* out;
  int32_t out_dtype;
  void* scratch;
  int32_t device;
  cudaStream_t stream;
};

// How many blocks are to share a tile: an image alone would leave most of a GPU idle. As they form more row
// sums than one block would, not where two thirds of the blocks are there anyway.
static int sharing_for(int64_t tiles, int32_t device) {
  const int64_t wanted = 2 * processors_of(device);
  return 3 * tiles > 2 * wanted ? 1 : int(smaller<int64_t>(divide_up(wanted, tiles), WARPS));
}

// The warps of a block: as many as let three of them lie on an SM, for there will be about three, and at least
// one for each strip. Those without a strip help with row sums.
static int warps_for(int sharing, int blocks) {
  return sharing == 1 ? WARPS : smaller(larger(WARPS * blocks / 3, divide_up(WARPS, sharing)), WARPS);
}

template <Way WAY, class Border, bool BY_CLASS, class T>
static int32_t weigh_tiles(const WeightMapCall& call, const Cells& cells, const Numbers<T>& numbers) {
  const int64_t* const size = call.tensors.labels.size;
  const int64_t tiles = size[0] * divide_up<int64_t>(size[1], TILE_H) * divide_up<int64_t>(size[2], TILE_W);
  const bool out_is_double = call.out_dtype == FLC_FLOAT64;
  const int sharing = sharing_for(tiles, call.device);
  const WeighTilesArguments<T> arguments = {cells,    numbers,       int(size[1]), int(size[2]),
                                            call.out, out_is_double, sharing};
  return launch(weigh_tiles_kernel<T, WAY, Border, BY_CLASS>, tiles * sharing,
                warps_for(sharing, BLOCKS<T, WAY, BY_CLASS>) * WARP, arguments, call.stream);
}

// Whether a float holds the scaled sums of any instance.
static bool all_scaled(const Numbers<float>& numbers) {
  const Box largest = shown_part({INT_MIN, INT_MAX, INT_MIN, INT_MAX}, numbers.radius);
  return scalable(numbers, largest, TABLE_ROWS<float, SCALED>) && always_accurate(numbers);
}

// Chooses the way, and the precision.
template <flc_distance DISTANCE, class Border, bool BY_CLASS>
static int32_t weigh_in_a_way(const WeightMapCall& call, const Cells& cells) {
  const flc_weight_params& params = call.params;
  const bool in_double = computed_in_double(params, call.out_dtype);
  if constexpr (DISTANCE == FLC_EUCLIDEAN) {
    return in_double
               ? weigh_tiles<EUCLIDEAN, Border, BY_CLASS>(call, cells, euclidean_numbers<double>(params))
               : weigh_tiles<EUCLIDEAN, Border, BY_CLASS>(call, cells, euclidean_numbers<float>(params));
  } else {
    if (in_double)
      return weigh_tiles<LOGARITHMIC, Border, BY_CLASS>(call, cells, logconv_numbers<double>(params));
    const auto numbers = logconv_numbers<float>(params);
    return all_scaled(numbers) ? weigh_tiles<SCALED, Border, BY_CLASS>(call, cells, numbers)
                               : weigh_tiles<MIXED, Border, BY_CLASS>(call, cells, numbers);
  }
}

template <flc_distance DISTANCE, class Border>
static int32_t weigh_labels(const WeightMapCall& call) {
  const Cells cells = place_cells(call.tensors, call.scratch);
  const int32_t status = list_cells(call.tensors, cells, Border::EVERY_INSTANCE, call.stream);
  if (status != FLC_OK) return status;
  return call.tensors.classes.data ? weigh_in_a_way<DISTANCE, Border, true>(call, cells)
                                   : weigh_in_a_way<DISTANCE, Border, false>(call, cells);
}

static LabelTensors tensors_of(const flc_tensor* labels, const flc_tensor* classes,
                               const flc_tensor* foreground, const flc_tensor* ignore) {
  const auto given = [](const flc_tensor* optional) { return optional ? *optional : flc_tensor{}; };
  return {*labels, given(classes), given(foreground), given(ignore)};
}

}  // namespace flc::cuda

extern "C" {

int64_t flc_cuda_weight_map_scratch_bytes(const flc_tensor* labels, const flc_tensor* classes,
                                          const flc_tensor* ignore) {
  if (!flc::cuda::is_served(*labels)) return 0;
  return flc::cuda::cells_bytes(flc::cuda::tensors_of(labels, classes, nullptr, ignore));
}

int32_t flc_cuda_weight_map(const flc_tensor* labels, const flc_tensor* classes, const flc_tensor* foreground,
                            const flc_tensor* ignore, const flc_weight_params* params, void* out,
                            int32_t out_dtype, void* scratch, int32_t device, void* stream) {
  using namespace flc::cuda;
  if (!is_served(*labels) || !is_served(classes, FLC_INT32) || !is_served(foreground, FLC_BOOL) ||
      !is_served(ignore, FLC_BOOL) || !is_result_dtype(out_dtype))
    return FLC_UNSUPPORTED;
  const WeightMapCall call = {tensors_of(labels, classes, foreground, ignore),
                              *params,
                              out,
                              out_dtype,
                              scratch,
                              device,
                              static_cast<cudaStream_t>(stream)};
  return with_rules(*params, [&](auto distance, auto border) -> int32_t {
    if (labels->size[0] * labels->size[1] * labels->size[2] == 0) return FLC_OK;
    if (!sizes_served(*labels)) return FLC_UNSUPPORTED;
    return on_device(device, [&] { return weigh_labels<decltype(distance)::value, decltype(border)>(call); });
  });
}

}  // extern "C"
