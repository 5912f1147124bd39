// The separable lambda-kernel convolution: one launch along the rows, one along the columns.
//
// Sums are only ever added to, so that no NaN, no infinity and no large value leaves a trace where no window
// shows it.
#include <algorithm>
#include <cmath>

#include "cuda/launch.h"
#include "cuda/read.h"
#include "cuda/sum_within.h"
#include "formulas.h"

namespace flc::cuda {

constexpr int STRIP = 8;     // results that a thread forms together
constexpr int LINES = WARP;  // of a tile: one in each lane
constexpr int PITCH = LINES + 1;
constexpr int THREADS = 256;

// Positions along the axis in a tile with its surroundings, and results in it.
template <class T>
constexpr int MOST_POSITIONS = (46 << 10) / (PITCH * int(sizeof(T)));
template <class T>
constexpr int RESULTS = sizeof(T) == 4 ? 128 : 64;

// Strides of a tensor, seen along an axis.
struct View {
  int64_t image, along, across;
};

template <class T>
struct ConvolveArguments {
  flc_tensor input;
  View from;
  T* out;
  View to;
  int64_t images;
  int size, lines;  // of the axis, and of the other one
  int tiles, tiles_across;
  int radius;  // of the window
  int padding;
  bool along_rows;
  T powers[STRIP];       // of the decay of one step
  T first_not_together;  // the decay at the nearest position that not all results of a strip show
  T edge_weight;         // of each edge's value, for what lies further out than `radius`
};

template <class T>
FLC_DEVICE T input_at(const ConvolveArguments<T>& arguments, int64_t image, int64_t position, int64_t line) {
  const View& from = arguments.from;
  return value_at<T>(arguments.input, image * from.image + position * from.along + line * from.across);
}

// Adds what lies before (-1) or after (+1) a strip, next to which it begins at `at`.
template <int DIRECTION, class T>
FLC_DEVICE void add_side(const ConvolveArguments<T>& arguments, const T* at, T (&results)[STRIP]) {
  const T decay = arguments.powers[1];
  const int radius = arguments.radius, together = radius - (STRIP - 1);
  T sum = 0, weight = arguments.first_not_together;
  for (int k = together; k >= 1; --k) sum = (sum + at[DIRECTION * (k - 1) * PITCH]) * decay;
  int next = larger(together, 0) + 1;
#pragma unroll
  for (int i = STRIP - 1; i >= 0; --i) {  // steps from the result that is nearest
    results[DIRECTION > 0 ? STRIP - 1 - i : i] += arguments.powers[i] * sum;
    if (next <= radius - i + 1) {  // what the next one shows besides
      sum += weight * at[DIRECTION * (next - 1) * PITCH];
      weight *= decay;
      ++next;
    }
  }
}

// The results at `at`, and at the STRIP - 1 positions that follow.
template <class T>
FLC_DEVICE void convolve_strip(const ConvolveArguments<T>& arguments, const T* at, T (&results)[STRIP]) {
  sum_within(arguments.radius, arguments.powers, [&](int k) { return at[k * PITCH]; }, results);
  add_side<-1>(arguments, at - PITCH, results);
  add_side<+1>(arguments, at + STRIP * PITCH, results);
}

// A tile of the result: it is taken into shared memory, with as much around it as the windows show.
template <class T>
__global__ void __launch_bounds__(THREADS, 2)
    convolve_tiles_kernel(const __grid_constant__ ConvolveArguments<T> arguments) {
  constexpr int STRIPS = RESULTS<T> / STRIP * LINES / THREADS;  // of a thread
  __shared__ T table[MOST_POSITIONS<T>][PITCH];
  const int64_t block = blockIdx.x, tile = block / arguments.tiles_across, image = tile / arguments.tiles;
  const int first = int(tile % arguments.tiles) * RESULTS<T>,
            line = int(block % arguments.tiles_across) * LINES;
  const int radius = arguments.radius, thread = threadIdx.x;

  // Calls function(position in the table, line of the tile) for `positions` of them, side by side in memory.
  const auto for_tile = [&](int positions, const auto& function) {
    for (int i = thread; i < positions * LINES; i += THREADS) {
      if (arguments.along_rows)
        function(i % positions, i / positions);
      else
        function(i / LINES, i % LINES);
    }
  };
  const int count = smaller(RESULTS<T>, arguments.size - first);
  for_tile(count + 2 * radius, [&](int position, int lane) {
    const int from = padded_index(first - radius + position, arguments.size, arguments.padding);
    const bool there = from >= 0 && line + lane < arguments.lines;
    table[position][lane] = there ? input_at(arguments, image, from, line + lane) : T(0);
  });
  __syncthreads();
  T results[STRIPS][STRIP];
#pragma unroll
  for (int i = 0; i < STRIPS; ++i) {
    const int position = (thread / LINES + i * (THREADS / LINES)) * STRIP;
    if (position < count) convolve_strip(arguments, &table[radius + position][thread % LINES], results[i]);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < STRIPS; ++i) {
    const int position = (thread / LINES + i * (THREADS / LINES)) * STRIP;
#pragma unroll
    for (int k = 0; k < STRIP; ++k) {
      if (position + k < count) table[position + k][thread % LINES] = results[i][k];
    }
  }
  __syncthreads();
  T* const out = arguments.out + image * arguments.to.image;
  for_tile(count, [&](int position, int lane) {
    if (line + lane >= arguments.lines) return;
    out[(first + position) * arguments.to.along + (line + lane) * arguments.to.across] =
        table[position][lane];
  });
}

// Windows that are too large for that: a thread for each result.
template <class T>
__global__ void __launch_bounds__(THREADS, 2)
    convolve_each_kernel(const __grid_constant__ ConvolveArguments<T> arguments) {
  const int64_t result = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  const int64_t of_image = int64_t(arguments.size) * arguments.lines, image = result / of_image;
  if (image >= arguments.images) return;
  const int64_t width = arguments.along_rows ? arguments.size : arguments.lines;
  const int y = int(result % of_image / width), x = int(result % of_image % width);
  const int position = arguments.along_rows ? x : y, line = arguments.along_rows ? y : x;
  const auto value = [&](int at) {
    const int from = padded_index(at, arguments.size, arguments.padding);
    return from < 0 ? 0.0 : double(input_at(arguments, image, from, line));
  };
  const double decay = double(arguments.powers[1]);
  double before = 0, after = 0;
  for (int k = arguments.radius; k >= 1; --k) {
    before = (before + value(position - k)) * decay;
    after = (after + value(position + k)) * decay;
  }
  double sum = value(position) + before + after;
  if (arguments.edge_weight != 0)
    sum += double(arguments.edge_weight) * (value(0) + value(arguments.size - 1));
  arguments.out[image * arguments.to.image + position * arguments.to.along + line * arguments.to.across] =
      T(sum);
}

// -------------------------------------------------------------------------------------------- on the host

// How many steps to sum over on each side: factors that are 0 in T are left out, and zeros beyond the edge.
// What all further ones weigh that show the edge's value.
template <class T>
static int steps_of(double decay_length, int64_t radius, int64_t size, int32_t padding, double& edge_weight) {
  const double lasting = std::ceil(std::min((sizeof(T) == 8 ? 750 : 105) * decay_length, 0x1p30)) + 1;
  const int64_t wanted = std::min(radius, int64_t(lasting));
  edge_weight = 0;
  if (padding == FLC_CONSTANT) return int(std::min(wanted, size - 1));
  if (padding != FLC_REPLICATE || wanted <= size) return int(wanted);
  edge_weight = geometric_sum(decay_length, double(size + 1), double(radius));
  return int(size);
}

template <class T>
static int32_t convolve_axis(const flc_tensor& input, int axis, double decay_length, int64_t radius,
                             int32_t padding, T* out, cudaStream_t stream) {
  const int across = 3 - axis;
  const int64_t *const size = input.size, *const from = input.stride;
  ConvolveArguments<T> arguments{};
  arguments.input = input;
  arguments.from = {from[0], from[axis], from[across]};
  arguments.out = out;
  arguments.to = {size[1] * size[2], axis == 2 ? 1 : size[2], axis == 2 ? size[2] : 1};
  arguments.images = size[0];
  arguments.size = int(size[axis]);
  arguments.lines = int(size[across]);
  arguments.tiles = divide_up(arguments.size, RESULTS<T>);
  arguments.tiles_across = divide_up(arguments.lines, LINES);
  arguments.padding = padding;
  arguments.along_rows = axis == 2;
  double edge_weight;
  arguments.radius = steps_of<T>(decay_length, radius, size[axis], padding, edge_weight);
  arguments.edge_weight = T(edge_weight);
  for (int t = 0; t < STRIP; ++t) arguments.powers[t] = T(std::exp(-t / decay_length));
  arguments.first_not_together =
      T(std::exp(-(std::max(arguments.radius - (STRIP - 1), 0) + 1) / decay_length));
  if (edge_weight == 0 && RESULTS<T> + 2 * arguments.radius <= MOST_POSITIONS<T>) {
    const int64_t tiles = size[0] * arguments.tiles * arguments.tiles_across;
    return launch(convolve_tiles_kernel<T>, tiles, THREADS, arguments, stream);
  }
  return launch(convolve_each_kernel<T>, divide_up<int64_t>(size[0] * size[1] * size[2], THREADS), THREADS,
                arguments, stream);
}

template <class T>
static int32_t convolve(const flc_tensor& input, double decay_length, int64_t radius, int32_t padding,
                        void* out, void* scratch, cudaStream_t stream) {
  T* const between = static_cast<T*>(scratch);
  const int32_t status = convolve_axis(input, 2, decay_length, radius, padding, between, stream);
  if (status != FLC_OK) return status;
  flc_tensor rows = input;
  rows.data = between;
  rows.dtype = sizeof(T) == 8 ? FLC_FLOAT64 : FLC_FLOAT32;
  rows.stride[0] = input.size[1] * input.size[2];
  rows.stride[1] = input.size[2];
  rows.stride[2] = 1;
  return convolve_axis(rows, 1, decay_length, radius, padding, static_cast<T*>(out), stream);
}

}  // namespace flc::cuda

extern "C" {

int64_t flc_cuda_separable_conv2d_scratch_bytes(const flc_tensor* input, int32_t out_dtype) {
  if (!flc::cuda::is_served(*input)) return 0;
  return input->size[0] * input->size[1] * input->size[2] * (out_dtype == FLC_FLOAT64 ? 8 : 4);
}

int32_t flc_cuda_separable_conv2d(const flc_tensor* input, double decay_length, int64_t radius,
                                  int32_t padding, void* out, int32_t out_dtype, void* scratch,
                                  int32_t device, void* stream) {
  using namespace flc::cuda;
  if (!is_served(*input) || !is_result_dtype(out_dtype) || padding < FLC_CONSTANT || padding > FLC_CIRCULAR)
    return FLC_UNSUPPORTED;
  if (input->size[0] * input->size[1] * input->size[2] == 0) return FLC_OK;
  if (!sizes_served(*input)) return FLC_UNSUPPORTED;
  return on_device(device, [&] {
    const auto convolve_as = out_dtype == FLC_FLOAT64 ? convolve<double> : convolve<float>;
    return convolve_as(*input, flc::usable_decay_length(decay_length), radius, padding, out, scratch,
                       static_cast<cudaStream_t>(stream));
  });
}

}  // extern "C"
