// The formulas that the kernels for the CPU and those for GPUs share.
// docs/algorithm.md leads from the formulas to the kernels, with a figure for each stage.
#pragma once

#include <math.h>
#include <stdint.h>

#include "fastlogconv.h"

// A function compiled for one instruction set must never stand in for its twin, thus always in line.
#ifdef __CUDACC__
#define FLC_FORMULA __host__ __device__ __forceinline__
#else
#define FLC_FORMULA inline __attribute__((always_inline))
#endif

namespace flc {

constexpr double LN2 = 0.69314718055994530942;

// ------------------------------------------------------------------------------------------- convolution

// No smaller decay length makes a difference; the inverse of this one is finite.
FLC_FORMULA double usable_decay_length(double decay_length) {
  return decay_length > 1e-12 ? decay_length : 1e-12;
}

// a^first + ... + a^last with a = exp(-1 / decay_length).
FLC_FORMULA double geometric_sum(double decay_length, double first, double last) {
  return exp(-first / decay_length) * expm1(-(last - first + 1) / decay_length) / expm1(-1 / decay_length);
}

// The index that position `i` of a sequence of `count` values padded on both sides stands for; -1 for a zero.
template <class Int>
FLC_FORMULA Int padded_index(Int i, Int count, int32_t padding) {
  if (i >= 0 && i < count) return i;
  switch (padding) {
    case FLC_REFLECT:
      return i < 0 ? -i : 2 * (count - 1) - i;
    case FLC_REPLICATE:
      return i < 0 ? 0 : count - 1;
    case FLC_CIRCULAR:
      return i < 0 ? i + count : i - count;
    default:
      return -1;
  }
}

}  // namespace flc
