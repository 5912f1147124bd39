// What the calls of the C interface share: which tensors are taken, and how the work is cut into parts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <new>

#include "fastlogconv.h"

namespace flc {

// Rows that one job takes: enough to spread the work at the top and bottom of a pass, few enough to stay in
// the cache.
constexpr int32_t ROWS_PER_PASS = 512;
constexpr int32_t FEWEST_ROWS_PER_PASS = 64;
// A thread costs some 20 microseconds to start: as much as this many pixels take.
constexpr int64_t PIXELS_WORTH_A_THREAD = 16384;

// Whether tensors, null where there is none, are [images or regions, rows, columns].
inline bool are_images(std::initializer_list<const flc_tensor*> tensors) {
  return std::all_of(tensors.begin(), tensors.end(),
                     [](const flc_tensor* tensor) { return !tensor || tensor->axes == 3; });
}

inline bool dtype_known(const flc_tensor& tensor) {
  return tensor.dtype >= FLC_BOOL && tensor.dtype <= FLC_FLOAT64;
}

inline bool is_result_dtype(int32_t dtype) {
  return dtype == FLC_FLOAT32 || dtype == FLC_FLOAT64;
}

inline int64_t bytes_of_result(int32_t dtype) {
  return dtype == FLC_FLOAT64 ? 8 : 4;
}

// Whether kernels can hold it: what they add to a row or column fits int32.
inline bool can_be_held(const flc_tensor& tensor) {
  constexpr int64_t longest = std::numeric_limits<int32_t>::max() / 2;
  return dtype_known(tensor) && tensor.size[1] <= longest && tensor.size[2] <= longest;
}

inline int64_t divide_up(int64_t value, int64_t by) {
  return (value + by - 1) / by;
}

// Rows a part takes when `rows` rows are shared among `threads` threads.
inline int32_t rows_per_part(int64_t rows, int64_t threads) {
  if (threads <= 1) return ROWS_PER_PASS;
  return static_cast<int32_t>(
      std::clamp<int64_t>(divide_up(rows, 2 * threads), FEWEST_ROWS_PER_PASS, ROWS_PER_PASS));
}

template <class Function>
int32_t caught(const Function& function) {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return FLC_OUT_OF_MEMORY;
  }
}

inline int64_t useful_threads(int64_t threads, int64_t pixels) {
  return std::clamp<int64_t>(threads, 1, std::max<int64_t>(1, pixels / PIXELS_WORTH_A_THREAD));
}

}  // namespace flc
