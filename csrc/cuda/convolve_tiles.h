// Convolution of a tile that lies in shared memory, with as much around it as the windows show.
//
// Lanes are lines. Along rows a line lies side by side in the table, at an odd pitch, along columns the lines do:
// either way a warp's accesses meet different banks.
#pragma once

#include "cuda/convolve.h"

namespace flc::cuda {

template <class T>
constexpr int THREAD_RESULTS = sizeof(T) == 4 ? 32 : 16;  // of a thread, in strips of STRIP
template <class T>
constexpr int TABLE_POSITIONS = (46 << 10) / (LINES * int(sizeof(T))) - 1;  // odd
constexpr int SECTOR_POSITIONS = 8;  // so many positions begin at a memory sector

// Positions before a tile of rows, as many as the windows show or somewhat more.
__host__ __device__ constexpr int halo_of(int radius) {
  return divide_up(radius, SECTOR_POSITIONS) * SECTOR_POSITIONS;
}

struct TilePlace {
  int64_t image;
  int first, count, line, lines;  // the first result along the axis, how many; the first line, how many
};

template <class T>
FLC_DEVICE TilePlace tile_place(const ConvolveArguments<T>& arguments, int results) {
  const unsigned block = blockIdx.x, tile = block / unsigned(arguments.tiles_across);
  TilePlace place;
  place.image = tile / unsigned(arguments.tiles);
  place.first = int(tile % unsigned(arguments.tiles)) * results;
  place.count = smaller(results, arguments.size - place.first);
  place.line = int(block % unsigned(arguments.tiles_across)) * LINES;
  place.lines = smaller(LINES, arguments.lines - place.line);
  return place;
}

// Calls function(i) for i < `count`, of COUNT at most; without a check for each where there are all.
template <int COUNT, class Function>
FLC_DEVICE void for_counted(int count, const Function& function) {
  if (count >= COUNT) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) function(i);
  } else {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      if (i < count) function(i);
    }
  }
}

// The results of a thread. `ends`: of its line, where they count beyond the windows' radius.
template <int STRIP, int STRIDE, class T, class Ends>
FLC_DEVICE void sum_strips(const ConvolveArguments<T>& arguments, const T* at, const Ends& ends,
                           T (&results)[THREAD_RESULTS<T>]) {
#pragma unroll
  for (int strip = 0; strip < THREAD_RESULTS<T>; strip += STRIP) {
    T sums[STRIP];
    sum_windows<STRIDE>(arguments.windows, at + strip * STRIDE, sums);
#pragma unroll
    for (int i = 0; i < STRIP; ++i) results[strip + i] = sums[i];
  }
  if (arguments.edge_weight != 0) {
    const T both = arguments.edge_weight * ends(0) + arguments.edge_weight * ends(arguments.size - 1);
#pragma unroll
    for (int i = 0; i < THREAD_RESULTS<T>; ++i) results[i] += both;
  }
}

// Along the last axis.
template <class T, int STRIP, int WARPS>
__global__ void __launch_bounds__(WARPS* WARP, 16 / WARPS)
    convolve_rows_kernel(const __grid_constant__ ConvolveArguments<T> arguments) {
  constexpr int OWN = THREAD_RESULTS<T>, PITCH = TABLE_POSITIONS<T>;
  __shared__ T table[LINES * PITCH];
  const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
  const TilePlace place = tile_place(arguments, OWN * WARPS);
  const int radius = arguments.windows.radius, halo = halo_of(radius), size = arguments.size;
  const int64_t along = arguments.from.along, across = arguments.from.across;
  const int64_t origin = place.image * arguments.from.image + place.line * across;

  with_type(arguments.input.data, arguments.input.dtype, [&](const auto* data) {
    const auto* const lines = data + origin;
    int64_t offsets[LINES / WARPS];  // those that there are not are the last
#pragma unroll
    for (int i = 0; i < LINES / WARPS; ++i) {
      offsets[i] = smaller(warp + i * WARPS, place.lines - 1) * across;
    }
    for (int k = lane; k < halo + place.count + radius; k += WARP) {
      const int from = k < halo - radius ? -1 : padded_index(place.first - halo + k, size, arguments.padding);
      T values[LINES / WARPS]{};
      if (from >= 0) {
        const auto* const at = lines + from * along;
#pragma unroll
        for (int i = 0; i < LINES / WARPS; ++i) values[i] = T(at[offsets[i]]);
      }
#pragma unroll
      for (int i = 0; i < LINES / WARPS; ++i) table[(warp + i * WARPS) * PITCH + k] = values[i];
    }
  });
  __syncthreads();
  T results[OWN];
  const auto end = [&](int position) {
    return lane < place.lines ? value_at<T>(arguments.input, origin + lane * across + position * along)
                              : T(0);
  };
  sum_strips<STRIP, 1>(arguments, &table[lane * PITCH + halo + warp * OWN], end, results);
  __syncthreads();
  T* const own = &table[warp * OWN];
#pragma unroll
  for (int i = 0; i < OWN; ++i) own[lane * PITCH + i] = results[i];
  __syncwarp();
  constexpr int TOGETHER = WARP / OWN;  // lines that a warp stores at a time
  const int position = lane % OWN, line = lane / OWN;
  if (warp * OWN + position >= place.count) return;
  T* const out = arguments.out + place.image * arguments.to.image +
                 (place.line + line) * arguments.to.across + place.first + warp * OWN + position;
  for_counted<LINES / TOGETHER>(divide_up(place.lines - line, TOGETHER), [&](int i) {
    out[i * TOGETHER * arguments.to.across] = own[(i * TOGETHER + line) * PITCH + position];
  });
}

// Along the other axis, from what the rows gave.
template <class T, int STRIP, int WARPS>
__global__ void __launch_bounds__(WARPS* WARP, 16 / WARPS)
    convolve_columns_kernel(const __grid_constant__ ConvolveArguments<T> arguments) {
  constexpr int OWN = THREAD_RESULTS<T>;
  __shared__ T table[LINES * TABLE_POSITIONS<T>];
  const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
  const TilePlace place = tile_place(arguments, OWN * WARPS);
  const int radius = arguments.windows.radius, size = arguments.size;
  const int64_t along = arguments.from.along;
  const bool is_line = lane < place.lines;
  const T* const in = static_cast<const T*>(arguments.input.data) + place.image * arguments.from.image +
                      place.line + smaller(lane, place.lines - 1);
  T* const own = &table[(radius + warp * OWN) * LINES + lane];
  const int first = place.first + warp * OWN, count = place.count - warp * OWN;  // of the thread

  const T* const own_in = in + first * along;
  T results[OWN];  // first their inputs
  for_counted<OWN>(count, [&](int i) { results[i] = own_in[i * along]; });
  for (int begin = warp; begin < 2 * radius; begin += WARPS * WARP) {
    // A lane finds where one of these lies in the table and where it comes from, for all of them.
    const int i = begin + lane * WARPS, position = i < radius ? i : i + place.count;
    const int from = padded_index(place.first - radius + position, size, arguments.padding);
    const int rows = smaller(WARP, divide_up(2 * radius - begin, WARPS));
#pragma unroll 4
    for (int row = 0; row < rows; ++row) {
      const int row_from = __shfl_sync(ALL_LANES, from, row);
      T value = 0;
      if (row_from >= 0) value = in[row_from * along];
      table[__shfl_sync(ALL_LANES, position, row) * LINES + lane] = value;
    }
  }
  for_counted<OWN>(count, [&](int i) { own[i * LINES] = results[i]; });
  __syncthreads();
  if (!is_line) return;
  sum_strips<STRIP, LINES>(arguments, own, [&](int position) { return in[position * along]; }, results);
  T* const out =
      arguments.out + place.image * arguments.to.image + first * arguments.to.along + place.line + lane;
  for_counted<OWN>(count, [&](int i) { out[i * arguments.to.along] = results[i]; });
}

}  // namespace flc::cuda
