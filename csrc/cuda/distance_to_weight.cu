// Distances to weights: stages 2 and 3 on distances that the caller found. One thread for each pixel.
#include "cuda/compose.h"
#include "cuda/launch.h"
#include "cuda/read.h"

namespace flc::cuda {

constexpr int PIXELS_PER_BLOCK = 256;  // of one row

template <class T>
struct WeighDistancesArguments {
  flc_tensor distance;
  flc_tensor foreground;  // no data: none
  Numbers<T> numbers;
  void* out;  // [H, W], contiguous
  bool out_is_double;
};

template <class T, class Border>
__global__ void __launch_bounds__(PIXELS_PER_BLOCK, 4)
    weigh_distances_kernel(const __grid_constant__ WeighDistancesArguments<T> arguments) {
  const flc_tensor& distance = arguments.distance;
  const flc_tensor& foreground = arguments.foreground;
  const unsigned blocks_of_row = divide_up(unsigned(distance.size[2]), unsigned(PIXELS_PER_BLOCK));
  const int64_t y = blockIdx.x / blocks_of_row;
  const int64_t x = blockIdx.x % blocks_of_row * PIXELS_PER_BLOCK + threadIdx.x;
  if (x >= distance.size[2]) return;
  Accumulated<T, Border> sums;
  int64_t index = y * distance.stride[1] + x * distance.stride[2];
  for (int64_t i = 0; i < distance.size[0]; ++i, index += distance.stride[0]) {
    // Not scaled before they are added up: they may cancel.
    sums.add(value_at<T>(distance, index), arguments.numbers.square_scale);
  }
  const bool has_border = distance.size[0] >= Border::FEWEST_INSTANCES;
  const T border = has_border ? border_term(sums, arguments.numbers) : T(0);
  T weight = compose(sums.fd, border, arguments.numbers);
  if (foreground.data) {
    const auto* const covered = static_cast<const uint8_t*>(foreground.data);
    if (covered[y * foreground.stride[1] + x * foreground.stride[2]]) weight = 1;
  }
  store_weight(arguments.out, arguments.out_is_double, y * distance.size[2] + x, weight);
}

template <class T, class Border>
static int32_t weigh_distances(const flc_tensor& distance, const flc_tensor* foreground,
                               const flc_weight_params& params, void* out, int32_t out_dtype,
                               cudaStream_t stream) {
  const int64_t height = distance.size[1], width = distance.size[2];
  const WeighDistancesArguments<T> arguments = {distance, foreground ? *foreground : flc_tensor{},
                                                euclidean_numbers<T>(params), out, out_dtype == FLC_FLOAT64};
  return launch(weigh_distances_kernel<T, Border>, height * divide_up<int64_t>(width, PIXELS_PER_BLOCK),
                PIXELS_PER_BLOCK, arguments, stream);
}

}  // namespace flc::cuda

extern "C" int32_t flc_cuda_distance_to_weight(const flc_tensor* distance, const flc_tensor* foreground,
                                               const flc_weight_params* params, void* out, int32_t out_dtype,
                                               int32_t device, void* stream) {
  using namespace flc::cuda;
  if (!is_served(*distance) || !is_served(foreground, FLC_BOOL) || !is_result_dtype(out_dtype))
    return FLC_UNSUPPORTED;
  return with_rules(*params, [&](auto, auto border) -> int32_t {
    using Border = decltype(border);
    if (distance->size[1] * distance->size[2] == 0) return FLC_OK;
    if (!sizes_served(*distance)) return FLC_UNSUPPORTED;
    return on_device(device, [&] {
      const auto weigh = computed_in_double(*params, out_dtype) ? weigh_distances<double, Border>
                                                                : weigh_distances<float, Border>;
      return weigh(*distance, foreground, *params, out, out_dtype, static_cast<cudaStream_t>(stream));
    });
  });
}
