// The separable lambda-kernel convolution: one launch along the rows, one along the columns; two where windows
// are long.
#include <algorithm>
#include <cmath>

#include "cuda/convolve_strips.h"
#include "cuda/convolve_tiles.h"
#include "cuda/launch.h"

namespace flc::cuda {

// What the caller asks for.
struct Convolution {
  double decay_length;
  int64_t radius;
  int32_t padding;
};

// How many steps to sum over on each side: factors that are 0 in T are left out, and zeros beyond the edge.
// What all further ones weigh that show the edge's value.
template <class T>
static int steps_of(const Convolution& asked, int64_t size, double& edge_weight) {
  const double lasting = std::ceil(std::min((sizeof(T) == 8 ? 750 : 105) * asked.decay_length, 0x1p30)) + 1;
  const int64_t wanted = std::min(asked.radius, int64_t(lasting));
  edge_weight = 0;
  if (asked.padding == FLC_CONSTANT) return int(std::min(wanted, size - 1));
  if (asked.padding != FLC_REPLICATE || wanted <= size) return int(wanted);
  edge_weight = geometric_sum(asked.decay_length, double(size + 1), double(asked.radius));
  return int(size);
}

template <class T>
using Kernel = void (*)(ConvolveArguments<T>);

// How to convolve along an axis.
template <class T>
struct AxisPlan {
  ConvolveArguments<T> arguments{};
  Kernel<T> kernel = nullptr;  // of tiles; null: the windows are too long for those
  int warps = 0;

  AxisPlan(const flc_tensor& input, int axis, const Convolution& asked) {
    const int64_t *const size = input.size, across = 3 - axis;
    arguments.input = input;
    arguments.from = {input.stride[0], input.stride[axis], input.stride[across]};
    arguments.to = {size[1] * size[2], axis == 2 ? 1 : size[2], axis == 2 ? size[2] : 1};
    arguments.images = size[0];
    arguments.size = int(size[axis]);
    arguments.lines = int(size[across]);
    arguments.tiles_across = divide_up(arguments.lines, LINES);
    arguments.padding = asked.padding;
    arguments.along_rows = axis == 2;
    double edge_weight;
    const int radius = steps_of<T>(asked, size[axis], edge_weight);
    arguments.edge_weight = T(edge_weight);

    constexpr int WIDE = THREAD_RESULTS<T>, NARROW = 8;
    int strip = radius >= WIDE - 1 ? WIDE : NARROW;
    const auto fits = [&](int warps) {
      return halo_of(radius) + WIDE * warps + radius <= TABLE_POSITIONS<T>;
    };
    if (radius < TABLE_POSITIONS<T> && fits(4)) {
      const bool by_rows = arguments.along_rows;
      warps = fits(8) && arguments.size > 4 * WIDE ? 8 : 4;
      if (strip == NARROW) {
        kernel = by_rows ? convolve_rows_kernel<T, NARROW, 8> : convolve_columns_kernel<T, NARROW, 8>;
        warps = 8;
      } else if (warps == 8) {
        kernel = by_rows ? convolve_rows_kernel<T, WIDE, 8> : convolve_columns_kernel<T, WIDE, 8>;
      } else {
        kernel = by_rows ? convolve_rows_kernel<T, WIDE, 4> : convolve_columns_kernel<T, WIDE, 4>;
      }
    } else {
      strip = LONG_STRIP;
    }
    arguments.tiles = divide_up(arguments.size, kernel ? WIDE * warps : strip);

    const double decay_length = asked.decay_length;
    const auto decay = [&](double steps) { return std::exp(-steps / decay_length); };
    Windows<T>& windows = arguments.windows;
    windows.radius = radius;
    windows.together = radius - (strip - 1);
    for (int t = 0; t < LONGEST_STRIP; ++t) windows.powers[t] = T(decay(t));
    windows.first_edge = T(decay(windows.together + 1));
    arguments.whole = std::max(windows.together, 0) / strip;
    arguments.rest = std::max(windows.together, 0) % strip;
    arguments.strip_decay = decay(strip);
    arguments.rest_decay = T(decay(double(arguments.whole) * strip + 1));
  }

  // Strips of a line that have sums.
  int64_t strips() const {
    return arguments.tiles + (arguments.padding == FLC_CONSTANT ? 0 : 2 * int64_t(arguments.whole));
  }

  int64_t strip_sums() const { return kernel ? 0 : arguments.images * strips() * 2 * arguments.lines; }

  int32_t launch_on(cudaStream_t stream, T* out, T* strip_sums) {
    arguments.out = out;
    arguments.strip_sums = strip_sums;
    const int64_t groups = arguments.images * arguments.tiles_across;  // of lines
    if (kernel) return launch(kernel, groups * arguments.tiles, warps * WARP, arguments, stream);
    const auto launch_strips = [&](Kernel<T> of_strips, int64_t strips) {
      constexpr int WARPS = LONG_WARPS<T>;
      return launch(of_strips, divide_up<int64_t>(groups * strips, WARPS), WARPS * WARP, arguments, stream);
    };
    const int32_t status = launch_strips(sum_strips_kernel<T>, strips());
    return status == FLC_OK ? launch_strips(convolve_strips_kernel<T>, arguments.tiles) : status;
  }
};

template <class T>
struct Plan {
  AxisPlan<T> rows, columns;
  int64_t pixels;

  // Rows are not read where they are of another type and their windows are too long for tiles, but a copy.
  Plan(const flc_tensor& input, const Convolution& asked)
      : rows(input, 2, asked),
        columns(contiguous(input), 1, asked),
        pixels(input.size[0] * input.size[1] * input.size[2]) {}

  static flc_tensor contiguous(flc_tensor tensor) {
    tensor.dtype = sizeof(T) == 8 ? FLC_FLOAT64 : FLC_FLOAT32;
    tensor.stride[0] = tensor.size[1] * tensor.size[2];
    tensor.stride[1] = tensor.size[2];
    tensor.stride[2] = 1;
    return tensor;
  }

  // The rows' results, and the sums of strips.
  int64_t scratch_bytes() const {
    return (pixels + std::max(rows.strip_sums(), columns.strip_sums())) * int64_t(sizeof(T));
  }

  int32_t launch_on(cudaStream_t stream, T* out, T* scratch) {
    ConvolveArguments<T>& read = rows.arguments;
    const flc_tensor as_results = contiguous(read.input);
    if (!rows.kernel && read.input.dtype != as_results.dtype) {
      read.out = out;
      const int32_t status =
          launch(copy_input_kernel<T>, divide_up<int64_t>(pixels, 8 * WARP), 8 * WARP, read, stream);
      if (status != FLC_OK) return status;
      read.input = as_results;
      read.input.data = out;
      read.from = read.to;
    }
    T* const strip_sums = scratch + pixels;
    const int32_t status = rows.launch_on(stream, scratch, strip_sums);
    if (status != FLC_OK) return status;
    columns.arguments.input.data = scratch;
    return columns.launch_on(stream, out, strip_sums);
  }
};

}  // namespace flc::cuda

extern "C" {

int64_t flc_cuda_separable_conv2d_scratch_bytes(const flc_tensor* input, double decay_length, int64_t radius,
                                                int32_t padding, int32_t out_dtype) {
  using namespace flc::cuda;
  if (!is_served(*input) || !sizes_served(*input)) return 0;
  if (input->size[0] * input->size[1] * input->size[2] == 0) return 0;
  const Convolution asked{flc::usable_decay_length(decay_length), radius, padding};
  return out_dtype == FLC_FLOAT64 ? Plan<double>(*input, asked).scratch_bytes()
                                  : Plan<float>(*input, asked).scratch_bytes();
}

int32_t flc_cuda_separable_conv2d(const flc_tensor* input, double decay_length, int64_t radius,
                                  int32_t padding, void* out, int32_t out_dtype, void* scratch,
                                  int32_t device, void* stream) {
  using namespace flc::cuda;
  if (!is_served(*input) || !is_result_dtype(out_dtype) || padding < FLC_CONSTANT || padding > FLC_CIRCULAR)
    return FLC_UNSUPPORTED;
  if (input->size[0] * input->size[1] * input->size[2] == 0) return FLC_OK;
  if (!sizes_served(*input)) return FLC_UNSUPPORTED;
  const Convolution asked{flc::usable_decay_length(decay_length), radius, padding};
  const auto convolve = [&](auto* typed_out) {
    using T = std::remove_pointer_t<decltype(typed_out)>;
    return Plan<T>(*input, asked)
        .launch_on(static_cast<cudaStream_t>(stream), typed_out, static_cast<T*>(scratch));
  };
  return on_device(device, [&] {
    return out_dtype == FLC_FLOAT64 ? convolve(static_cast<double*>(out))
                                    : convolve(static_cast<float*>(out));
  });
}

}  // extern "C"
