#include "cuda/numbers.h"

#include <algorithm>
#include <cmath>

namespace flc::cuda {
namespace {

// What a float that is scaled can hold, as in fastlogconv/numerics.py: down to 2^-125 it is normal with a bit
// to spare.
constexpr double BITS_BELOW = 125;

template <class T>
Numbers<T> common_numbers(const flc_weight_params& params) {
  Numbers<T> numbers{};
  numbers.radius = int(params.cut_radius);
  numbers.limit = T(params.limit);
  numbers.fbr = T(params.fbr);
  numbers.bwf = T(params.bwf);
  numbers.fall_of_sum = T((1 - params.fbr) * params.sum_factor);
  numbers.fall_of_nearest = T((1 - params.fbr) * params.nearest_factor);
  return numbers;
}

Scaling scaling_of(const flc_weight_params& params) {
  const double bits_per_step = params.bits_per_step, exponent = double(params.scale_exponent);
  const double largest_part = (params.largest_sum + 1) / 2;  // 1 + a + ... + a^radius
  Scaling scaling{};
  scaling.exponent = int(params.scale_exponent);
  scaling.unit = float(std::exp2(exponent));
  scaling.unscaled = float(2 * exponent * params.step_scale / bits_per_step);
  scaling.decay = float(std::exp(-1 / params.decay_length));
  for (int t = 0; t <= 8; ++t) scaling.powers[t] = float(std::exp2(-t * bits_per_step));
  scaling.leaving = float(std::exp2(exponent - double(params.cut_radius + 1) * bits_per_step));
  scaling.complete = float(std::min(std::exp2(exponent) * params.largest_sum * largest_part * 0x1p24, 3e38));
  scaling.most_bits = float(exponent + BITS_BELOW);
  scaling.most_bits_of_product = float(2 * exponent + BITS_BELOW);
  scaling.bits_that_matter = float(params.bits_that_matter);
  return scaling;
}

}  // namespace

template <class T>
Numbers<T> logconv_numbers(const flc_weight_params& params) {
  auto numbers = common_numbers<T>(params);
  numbers.bits_per_step = T(params.bits_per_step);
  numbers.step_scale = T(params.step_scale);
  numbers.bit_scale = T(params.step_scale / params.bits_per_step);
  numbers.border_scale = T(params.border_scale);
  numbers.scaling = scaling_of(params);
  return numbers;
}

template <class T>
Numbers<T> euclidean_numbers(const flc_weight_params& params) {
  auto numbers = common_numbers<T>(params);
  numbers.square_scale = T(-params.foreground_exponent);
  numbers.border_scale = T(-params.border_exponent);
  return numbers;
}

template Numbers<float> logconv_numbers(const flc_weight_params&);
template Numbers<double> logconv_numbers(const flc_weight_params&);
template Numbers<float> euclidean_numbers(const flc_weight_params&);
template Numbers<double> euclidean_numbers(const flc_weight_params&);

}  // namespace flc::cuda
