// Convolution by windows that are too long for a tile with its surroundings in shared memory.
//
// A first kernel sums up each strip of the padded axis, decayed to its first and to its last position. Then a
// warp forms the results of a strip of 32 lines from the sums of the strips that all of its windows show, and
// takes the values further out block by block: their number does not grow with the window.
#pragma once

#include "cuda/convolve.h"

namespace flc::cuda {

constexpr int LONG_STRIP = LONGEST_STRIP;
static_assert(LONG_STRIP == WARP);
constexpr int BLOCK_PITCH = LINES + 1;
template <class T>
constexpr int LONG_WARPS = sizeof(T) == 4 ? 8 : 4;

// Strips of the padded axis before the image that have sums, and as many after it.
template <class T>
FLC_DEVICE int outer_strips(const ConvolveArguments<T>& arguments) {
  return arguments.padding == FLC_CONSTANT ? 0 : arguments.whole;
}

// Where a strip's two sums lie, of one line.
template <class T>
FLC_DEVICE T* sums_of_strip(const ConvolveArguments<T>& arguments, int64_t image, int strip, int line) {
  const int64_t strips = arguments.tiles + 2 * outer_strips(arguments);
  return arguments.strip_sums + (image * strips + outer_strips(arguments) + strip) * 2 * arguments.lines +
         line;
}

// A strip of 32 lines, one in each lane, and the memory by which its warp turns what lies side by side.
template <class T>
struct WarpStrip {
  const ConvolveArguments<T>& arguments;
  T (&block)[LINES][BLOCK_PITCH];
  int64_t image;
  int strip, line, lines, lane;

  // Loads the values at `count` positions from `first` on into the block, [line][position].
  FLC_DEVICE void load(int first, int count) const {
    const View& from = arguments.from;
    const T* const in = static_cast<const T*>(arguments.input.data) + image * from.image + line * from.across;
    const bool is_shown = lane < count && first + lane < arguments.size + arguments.windows.radius;
    const int at = is_shown ? padded_index(first + lane, arguments.size, arguments.padding) : -1;
    __syncwarp();
    if (arguments.along_rows) {
      const T* const of_lane = in + at * from.along;
      if (at >= 0) {
#pragma unroll 8
        for (int i = 0; i < lines; ++i) block[i][lane] = of_lane[i * from.across];
      } else {
#pragma unroll 8
        for (int i = 0; i < lines; ++i) block[i][lane] = 0;
      }
    } else {
      const T* const of_lane = in + smaller(lane, lines - 1) * from.across;
#pragma unroll 8
      for (int i = 0; i < count; ++i) {
        const int at_i = __shfl_sync(ALL_LANES, at, i);
        T value = 0;
        if (at_i >= 0) value = of_lane[at_i * from.along];
        block[lane][i] = value;
      }
    }
    __syncwarp();
  }

  // The strip's own values.
  FLC_DEVICE void load_own(int count, T (&own)[LONG_STRIP]) const {
    load(strip * LONG_STRIP, count);
#pragma unroll
    for (int i = 0; i < LONG_STRIP; ++i) own[i] = block[lane][i];
  }

  // Adds what lies before (-1) or after (+1) the strip.
  template <int DIRECTION>
  FLC_DEVICE void add_side(T (&sums)[LONG_STRIP]) const {
    const Windows<T>& windows = arguments.windows;
    const T decay = windows.powers[1];
    double whole = 0;
    const int outer = outer_strips(arguments);
    const int there = DIRECTION < 0 ? strip + outer : arguments.tiles + outer - 1 - strip;
    if (lane < lines) {
      for (int steps = smaller(arguments.whole, there); steps >= 1; --steps) {
        const T* const sum = sums_of_strip(arguments, image, strip + DIRECTION * steps, line + lane);
        whole = whole * arguments.strip_decay + double(sum[DIRECTION < 0 ? arguments.lines : 0]);
      }
    }
    // The nearest position of the rest; from where on a block holds it, and what only some windows show.
    const int rest = arguments.rest, edge = LONG_STRIP - 1;
    const int beyond = (strip + (DIRECTION > 0)) * LONG_STRIP + DIRECTION * arguments.whole * LONG_STRIP;
    load(DIRECTION < 0 ? beyond - rest : beyond, rest);
    T sum = 0;
    for (int i = rest - 1; i >= 0; --i) sum = sum * decay + block[lane][DIRECTION < 0 ? rest - 1 - i : i];
    sum = T(whole * double(decay)) + arguments.rest_decay * sum;
    load(DIRECTION < 0 ? beyond - rest - edge : beyond + rest, edge);
    T weight = windows.first_edge;
#pragma unroll
    for (int i = LONG_STRIP - 1; i >= 0; --i) {  // steps from the result that is nearest
      sums[DIRECTION > 0 ? LONG_STRIP - 1 - i : i] += windows.powers[i] * sum;
      if (i > 0) {
        sum += weight * block[lane][DIRECTION < 0 ? i - 1 : edge - i];
        weight *= decay;
      }
    }
  }
};

template <class T>
FLC_DEVICE WarpStrip<T> warp_strip(const ConvolveArguments<T>& arguments, int strips, int first_strip,
                                   T (&block)[LINES][BLOCK_PITCH]) {
  const int64_t warp = int64_t(blockIdx.x) * LONG_WARPS<T> + threadIdx.x / WARP;
  const int line = int(warp % arguments.tiles_across) * LINES;
  const int64_t strip = warp / arguments.tiles_across;
  return {arguments,
          block,
          strip / strips,
          first_strip + int(strip % strips),
          line,
          smaller(LINES, arguments.lines - line),
          int(threadIdx.x) % WARP};
}

template <class T>
__global__ void __launch_bounds__(LONG_WARPS<T>* WARP)
    sum_strips_kernel(const __grid_constant__ ConvolveArguments<T> arguments) {
  __shared__ T blocks[LONG_WARPS<T>][LINES][BLOCK_PITCH];
  const int outer = outer_strips(arguments);
  const WarpStrip<T> of_warp =
      warp_strip(arguments, arguments.tiles + 2 * outer, -outer, blocks[threadIdx.x / WARP]);
  if (of_warp.image >= arguments.images) return;
  T own[LONG_STRIP], to_first = 0, to_last = 0;
  of_warp.load_own(LONG_STRIP, own);
  const T decay = arguments.windows.powers[1];
#pragma unroll
  for (int i = 0; i < LONG_STRIP; ++i) {
    to_last = to_last * decay + own[i];
    to_first = to_first * decay + own[LONG_STRIP - 1 - i];
  }
  if (of_warp.lane >= of_warp.lines) return;
  T* const sums = sums_of_strip(arguments, of_warp.image, of_warp.strip, of_warp.line + of_warp.lane);
  sums[0] = to_first;
  sums[arguments.lines] = to_last;
}

template <class T>
__global__ void __launch_bounds__(LONG_WARPS<T>* WARP)
    convolve_strips_kernel(const __grid_constant__ ConvolveArguments<T> arguments) {
  __shared__ T blocks[LONG_WARPS<T>][LINES][BLOCK_PITCH];
  const WarpStrip<T> of_warp = warp_strip(arguments, arguments.tiles, 0, blocks[threadIdx.x / WARP]);
  if (of_warp.image >= arguments.images) return;
  const int lane = of_warp.lane, first = of_warp.strip * LONG_STRIP;
  const int count = smaller(LONG_STRIP, arguments.size - first);
  T results[LONG_STRIP];
  {
    T own[LONG_STRIP];
    of_warp.load_own(LONG_STRIP, own);
    sum_strip(arguments.windows.powers[1], own, results);
  }
  of_warp.template add_side<-1>(results);
  of_warp.template add_side<+1>(results);
  if (arguments.edge_weight != 0) {
    T both = 0;
    for (int end = 0; end < 2; ++end) {
      of_warp.load(end * (arguments.size - 1), 1);
      both += arguments.edge_weight * of_warp.block[lane][0];
    }
#pragma unroll
    for (int i = 0; i < LONG_STRIP; ++i) results[i] += both;
  }
  T* out = arguments.out + of_warp.image * arguments.to.image + first * arguments.to.along +
           of_warp.line * arguments.to.across;
  if (arguments.along_rows) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < LONG_STRIP; ++i) of_warp.block[lane][i] = results[i];
    __syncwarp();
    if (lane >= count) return;
#pragma unroll 8
    for (int i = 0; i < of_warp.lines; ++i) out[i * arguments.to.across + lane] = of_warp.block[i][lane];
  } else if (lane < of_warp.lines) {
#pragma unroll
    for (int i = 0; i < LONG_STRIP; ++i) {
      if (i < count) out[i * arguments.to.along + lane] = results[i];
    }
  }
}

// Copies the input, so that it is of the results' type.
template <class T>
__global__ void __launch_bounds__(8 * WARP)
    copy_input_kernel(const __grid_constant__ ConvolveArguments<T> arguments) {
  const int64_t pixel = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t of_image = int64_t(arguments.size) * arguments.lines, image = pixel / of_image;
  if (image >= arguments.images) return;
  const int64_t y = pixel % of_image / arguments.size, x = pixel % of_image % arguments.size;
  const View& from = arguments.from;
  arguments.out[pixel] = value_at<T>(arguments.input, image * from.image + x * from.along + y * from.across);
}

}  // namespace flc::cuda
