// The numbers that the kernels compute with, from a call's parameters.
//
// Distances are in units of fds sqrt(2 ln 2) pixels, which makes the foreground term 2^-(d^2); sums are known
// by their log2, in bits.
#pragma once

#include <cstdint>

#include "fastlogconv.h"

namespace flc::cuda {

// Sums of an instance are scaled, to fit into floats: S a^-steps 4^exponent is held in place of S, with steps
// the way to its bounding box. Factors along each axis must fit, see `scalable`; where their product may not,
// sums that are too small are noticed, and formed again by logarithms.
struct Scaling {
  int exponent;
  float unit;  // 2^exponent
  float unscaled;  // the distance of 4^exponent
  float decay;  // a
  float powers[9];  // a^t
  float leaving;  // a^(radius + 1) 2^exponent
  float
      complete;  // a row's sum and all further ones are below this much of 2^-24 times the first one's weight
  float most_bits;  // that a factor along one axis may lose inside the box
  float most_bits_of_product;
  float bits_that_matter;  // a larger loss need not be told from +inf
};

template <class T>
struct Settings {
  int radius;  // of the window, no more than matters
  T limit;  // an instance farther away than this many steps adds nothing
  T bits_per_step;  // -log2 a
  T step_scale;  // the distance of one step
  T square_scale;  // of the square of a Euclidean distance in pixels
  T bit_scale;  // the distance of one bit
  T foreground_background_ratio, border_weight_factor, border_scale;
  Scaling scaling;
};

// Whether the kernels need double for these parameters.
bool needs_double(const flc_weight_params& params, int32_t out_dtype);

template <class T>
Settings<T> settings_for(const flc_weight_params& params, int64_t height, int64_t width);

// For Euclidean distances, which are in pixels. At most `crowd` instances may lie beyond the limit, each with
// the foreground term that it has there.
template <class T>
Settings<T> euclidean_settings(const flc_weight_params& params, int64_t height, int64_t width, double crowd);

}  // namespace flc::cuda
