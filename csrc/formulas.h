// The formulas that the kernels for the CPU and those for GPUs share.
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

// ------------------------------------------------------------------------------------------- parameters

// No smaller decay length makes a difference; the inverse of this one is finite.
FLC_FORMULA double usable_decay_length(double decay_length) {
  return decay_length > 1e-12 ? decay_length : 1e-12;
}

// exp(-d^2 / (2 sigma^2)) = 2^(exponent d^2). Limited, so that products with squares of distances are finite
// in float.
FLC_FORMULA double gaussian_exponent(double sigma) {
  const double exponent = 0.5 / LN2 / (sigma * sigma);
  return -(exponent < 1e-30 ? 1e-30 : exponent > 1e30 ? 1e30 : exponent);
}

// The distance at which factor exp(-d^2 / (2 sigma^2)) is epsilon; factors below 1 count as 1.
FLC_FORMULA double gaussian_reach(double sigma, double factor, double epsilon) {
  return sigma * sqrt(2 * log((factor > 1 ? factor : 1) / epsilon));
}

// Instances of one pixel each that fill all beyond a distance have at most this many times the term of one at
// that distance.
FLC_FORMULA double crowd_beyond(double sigma, double height, double width) {
  const double crowd = 8 + 2 * 3.1416 * sigma * sigma, pixels = height * width;
  return crowd < pixels ? crowd : pixels;
}

// a^first + ... + a^last with a = exp(-1 / decay_length).
FLC_FORMULA double geometric_sum(double decay_length, double first, double last) {
  return exp(-first / decay_length) * expm1(-(last - first + 1) / decay_length) / expm1(-1 / decay_length);
}

// How far below 0 a distance -decay_length ln S can lie: where an instance fills its window.
FLC_FORMULA double distance_slack(double decay_length, double radius) {
  return 2 * decay_length * log(2 * geometric_sum(decay_length, 0, radius) - 1);
}

// ------------------------------------------------------------------------------------------- convolution

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
