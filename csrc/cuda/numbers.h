// The numbers that the kernels compute with, from a call's parameters.
//
// LogConv distances are in units of fds sqrt(2 ln 2) pixels, which makes the foreground term 2^-(d^2). Sums
// are known by their log2, in bits.
#pragma once

#include <cstdint>

#include "fastlogconv.h"

namespace flc::cuda {

// Sums of an instance are scaled, to fit into floats: S a^-steps 4^exponent is held in place of S, with steps
// the way to its bounding box. Factors along each axis must fit, see `scalable`; where their product may not,
// sums that are too small are noticed, and formed again by logarithms.
struct Scaling {
  int exponent;
  float unit;              // 2^exponent
  float unscaled;          // the distance of 4^exponent
  float decay;             // a
  float powers[9];         // a^t
  float leaving;           // a^(radius + 1) 2^exponent
  float complete;          // a row adds nothing, nor do further ones, to this many times its weight
  float most_bits;         // that a factor along one axis may lose inside the box
  float most_bits_of_product;
  float bits_that_matter;  // a larger loss need not be told from +inf
};

template <class T>
struct Numbers {
  int radius;       // of the window, no more than matters
  T limit;          // pixels (LogConv: steps): an instance farther away adds nothing
  T bits_per_step;  // -log2 a
  T step_scale;     // the distance of one step
  T bit_scale;      // the distance of one bit
  T square_scale;   // the foreground term is 2^-(scale d^2) of an exact distance in pixels
  T border_scale;   // the border term is 2^-(scale d^2) of the sum of two distances
  T fbr, bwf;
  T fall_of_sum, fall_of_nearest;  // factors of the foreground terms
  Scaling scaling;
};

// Of float64 results, and where float32 does not suffice for others.
inline bool computed_in_double(const flc_weight_params& params, int32_t out_dtype) {
  return params.double_inside || out_dtype == FLC_FLOAT64;
}

// For LogConv distances.
template <class T>
Numbers<T> logconv_numbers(const flc_weight_params& params);

// For exact distances and those that the caller found, which are in pixels.
template <class T>
Numbers<T> euclidean_numbers(const flc_weight_params& params);

}  // namespace flc::cuda
