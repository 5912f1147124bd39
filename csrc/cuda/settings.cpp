#include "cuda/settings.h"

#include <algorithm>
#include <cmath>

#include "formulas.h"

namespace flc::cuda {
namespace {

// Beyond this distance the two terms of the weight are below an epsilon each. For all usual border factors
// the same, so that the border term can be switched off without a change to any other bit.
double farthest(const flc_weight_params& params, double foreground_epsilon, double border_epsilon) {
  const double factor = std::max(params.border_weight_factor, 50.0);
  return std::max(gaussian_reach(params.foreground_dist_sigma, 1, foreground_epsilon),
                  gaussian_reach(params.border_weight_sigma, factor, border_epsilon));
}

double clamped(double x) {
  return std::clamp(x, 1e-30, 1e30);
}

}  // namespace

bool needs_double(const flc_weight_params& params, int32_t out_dtype) {
  if (params.distance == FLC_EUCLIDEAN) return out_dtype == FLC_FLOAT64;
  const double sigma = std::min(params.foreground_dist_sigma, params.border_weight_sigma);
  return out_dtype == FLC_FLOAT64 || params.decay_length > 0.7 * sigma;
}

template <class T>
Settings<T> settings_for(const flc_weight_params& params, int64_t height, int64_t width) {
  constexpr bool is_double = sizeof(T) == 8;
  const double decay_length = usable_decay_length(params.decay_length);
  const double bits_per_step = 1 / (decay_length * LN2);
  const int64_t in_image = std::min(params.radius, std::max(height, width) - 1);

  const double terms = geometric_sum(decay_length, 0, in_image);
  const double row_sum = 2 * terms - 1;  // at most
  const double slack = distance_slack(decay_length, in_image);
  const double epsilon = is_double ? 0x1p-60 : 0x1p-36;
  const double limit = farthest(params, epsilon, epsilon) + slack;
  // What lies beyond this does not even show in the sum of an instance that is `limit` away.
  const double tail = decay_length * ((is_double ? 40 : 20) + 3 * std::log1p(decay_length));

  Settings<T> settings{};
  settings.radius = int(std::min<double>(in_image, std::ceil(std::min(limit + tail, 1e9)) + 1));
  settings.limit = T(std::min(limit, 1e30));
  settings.bits_per_step = T(bits_per_step);
  const double step_scale = clamped(std::sqrt(0.5 / LN2) / params.foreground_dist_sigma);
  settings.step_scale = T(step_scale);
  settings.bit_scale = T(step_scale / bits_per_step);
  settings.foreground_background_ratio = T(params.foreground_background_ratio);
  settings.border_weight_factor = T(params.border_weight_factor);
  const double sigmas = params.foreground_dist_sigma / params.border_weight_sigma;
  settings.border_scale = T(clamped(sigmas * sigmas));

  // Scale as little as needed: what is added to log2 is taken away again, at the cost of precision. Of sums
  // down to 2^-120 subnormal numbers hold 29 bits; the largest stay below 2^127.
  constexpr double room_below = 120;
  const double most_exponent = std::floor((127 - 2 * std::ceil(std::log2(row_sum))) / 2);
  const double matters = (farthest(params, 5e-7, 5e-6) + slack) * bits_per_step;
  const double deepest = std::min(2 * settings.radius * bits_per_step, matters);
  Scaling& scaling = settings.scaling;
  scaling.exponent = int(std::clamp(std::ceil((deepest - room_below) / 2), 0.0, most_exponent));
  scaling.unit = float(std::exp2(scaling.exponent));
  scaling.unscaled = float(2 * scaling.exponent * step_scale / bits_per_step);
  scaling.decay = float(std::exp(-1 / decay_length));
  for (int t = 0; t <= 8; ++t) scaling.powers[t] = float(std::exp2(-t * bits_per_step));
  scaling.leaving = float(std::exp2(scaling.exponent - (settings.radius + 1) * bits_per_step));
  scaling.complete = float(std::min(scaling.unit * row_sum * terms * 0x1p24, 3e38));
  scaling.most_bits = float(scaling.exponent + room_below);
  scaling.most_bits_of_product = float(2 * scaling.exponent + room_below);
  scaling.bits_that_matter = float(std::min(matters, 1e30));
  return settings;
}

template <class T>
Settings<T> euclidean_settings(const flc_weight_params& params, int64_t height, int64_t width, double crowd) {
  const double epsilon = sizeof(T) == 8 ? 1e-11 : 1e-6;
  const double limit = farthest(params, epsilon / std::max(crowd, 1.0), 0.1 * epsilon);
  Settings<T> settings{};
  settings.limit = T(std::min(limit, 1e15));
  settings.radius = int(std::min<double>(std::ceil(settings.limit), std::max(height, width) - 1));
  settings.square_scale = T(-gaussian_exponent(params.foreground_dist_sigma));
  settings.foreground_background_ratio = T(params.foreground_background_ratio);
  settings.border_weight_factor = T(params.border_weight_factor);
  settings.border_scale = T(-gaussian_exponent(params.border_weight_sigma));
  return settings;
}

template Settings<float> settings_for(const flc_weight_params&, int64_t, int64_t);
template Settings<double> settings_for(const flc_weight_params&, int64_t, int64_t);
template Settings<float> euclidean_settings(const flc_weight_params&, int64_t, int64_t, double);
template Settings<double> euclidean_settings(const flc_weight_params&, int64_t, int64_t, double);

}  // namespace flc::cuda
