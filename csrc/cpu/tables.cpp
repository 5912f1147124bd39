#include "cpu/tables.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/wide.h"
#include "formulas.h"

namespace flc {
namespace {

// A sum, and the factor a^steps 2^scale_exponent, as each number type holds them.
template <class Real>
struct Convert {
  static Real sum(double value) { return static_cast<Real>(value); }
  static Real factor(int32_t steps, double decay_length, int32_t scale_exponent, bool fine) {
    const double log = -steps / decay_length;
    if (fine && log > -700) return static_cast<Real>(std::ldexp(std::exp(log), scale_exponent));
    return static_cast<Real>(std::exp(log + scale_exponent * LN2));
  }
  static Real unlimited() { return std::numeric_limits<Real>::max(); }
};
template <>
struct Convert<LogReal> {
  static LogReal sum(double value) { return {std::log(value)}; }
  static LogReal factor(int32_t steps, double decay_length, int32_t, bool) { return {-steps / decay_length}; }
  static LogReal unlimited() { return {std::numeric_limits<double>::infinity()}; }
};
template <>
struct Convert<WideReal> {
  static WideReal sum(double value) { return wide(value); }
  static WideReal factor(int32_t steps, double decay_length, int32_t, bool) {
    return wide_decay(steps, decay_length);
  }
  static WideReal unlimited() { return {1, 0, std::numeric_limits<double>::infinity()}; }
};

template <class Scalar>
constexpr int32_t scale_exponent_of = 0;
template <>
constexpr int32_t scale_exponent_of<float> = SINGLE_SCALE_EXPONENT;
template <>
constexpr int32_t scale_exponent_of<double> = DOUBLE_SCALE_EXPONENT;

// The most that sums of soft masks may take from weights in float64: a tenth of what is promised.
constexpr double LOST_IN_SOFT_MASKS = 1e-11;

}  // namespace

template <class Scalar>
OwnedTables<Scalar>::OwnedTables(double decay_length, int32_t radius, bool fine) {
  using To = Convert<Scalar>;
  const int32_t scale = scale_exponent_of<Scalar>;
  const int32_t lowest = -(2 * radius + CHUNK + 1), highest = 2 * radius + CHUNK + 1;
  const int32_t span = highest + CHUNK - lowest, counts = radius + 2;
  storage_.resize(size_t(6) * span + size_t(4) * counts);
  std::vector<double> geometric(counts);  // G(n) = 1 + a + ... + a^(n - 1)
  const double decay = std::exp(-1 / decay_length);
  for (int32_t n = 1; n < counts; ++n) geometric[n] = 1 + decay * geometric[n - 1];

  Scalar* next = storage_.data();
  const auto take = [&next](int32_t count) {
    Scalar* const taken = next;
    next += count;
    return taken;
  };
  Scalar* const left_decay = take(span) - lowest;
  Scalar* const left_from_first = take(span) - lowest;
  Scalar* const left_window = take(span) - lowest;
  Scalar* const right_decay = take(span) - lowest;
  Scalar* const right_to_last = take(span) - lowest;
  Scalar* const right_window = take(span) - lowest;
  Scalar* const left_length = take(counts);
  Scalar* const right_length = take(counts);
  Scalar* const decay_half = take(counts);
  Scalar* const decay_rest = take(counts);
  const Scalar nothing = To::sum(0);
  std::vector<Scalar> scaled(counts);  // a^n 2^scale
  for (int32_t n = 0; n < counts; ++n) scaled[n] = To::factor(n, decay_length, scale, fine);
  for (int32_t t = lowest; t < highest + CHUNK; ++t) {
    left_decay[t] = t <= 0 ? scaled[0] : t <= radius ? scaled[t] : nothing;
    left_from_first[t] = t < 0 ? nothing : To::sum(geometric[std::min(t, radius) + 1]);
    left_window[t] = t <= 0 ? To::unlimited() : t <= radius ? To::sum(geometric[radius - t + 1]) : nothing;
    right_decay[t] = t >= 0 ? scaled[1] : -t < radius ? scaled[1 - t] : nothing;
    right_to_last[t] = t > 0 ? nothing : To::sum(geometric[std::min(-t, radius - 1) + 1]);
    right_window[t] = t >= 0 ? To::unlimited() : -t < radius ? To::sum(geometric[radius + t]) : nothing;
  }
  for (int32_t n = 0; n < counts; ++n) {
    left_length[n] = To::sum(geometric[n]);
    right_length[n] = To::sum(geometric[std::min(n, radius)]);
    decay_rest[n] = n % 2 ? decay_half[n - 1] : To::factor(n / 2, decay_length, 0, fine);
    decay_half[n] = n % 2 ? To::factor((n + 1) / 2, decay_length, 0, fine) : decay_rest[n];
  }
  tables_ = {left_decay,
             left_from_first,
             left_window,
             right_decay,
             right_to_last,
             right_window,
             left_length,
             right_length,
             lowest,
             highest,
             To::factor(1, decay_length, 0, fine),
             decay_half,
             decay_rest,
             radius,
             scale,
             fine ? 1 : std::numeric_limits<double>::infinity()};
}

template class OwnedTables<float>;
template class OwnedTables<double>;
template class OwnedTables<LogReal>;
template class OwnedTables<WideReal>;

CallSettings::CallSettings(const flc_weight_params& params, int32_t out_dtype)
    : distance_(find_distance(params.distance)) {
  settings_.border = params.border;
  settings_.bwf = params.bwf;
  settings_.fbr = params.fbr;
  settings_.decay_length = params.decay_length;
  settings_.foreground_exponent = params.foreground_exponent;
  settings_.border_exponent = params.border_exponent;
  settings_.sum_factor = params.sum_factor;
  settings_.nearest_factor = params.nearest_factor;
  settings_.marks_foreground = true;
  settings_.radius = static_cast<int32_t>(params.radius);
  settings_.reach = static_cast<int32_t>(params.reach);
  settings_.halo = static_cast<int32_t>(std::max(params.reach, params.cut_radius));
  precision_ = out_dtype == FLC_FLOAT64 ? DOUBLE_THROUGHOUT
               : params.double_inside   ? DOUBLE_INSIDE
                                        : FLOAT_THROUGHOUT;

  const double sigma = std::min(params.fds, params.bws);
  // A sum that is off by this fraction moves a distance by decay_length times it.
  settings_.prefix_tolerance = out_dtype == FLC_FLOAT64
                                   ? std::clamp(2e-13 * sigma / params.decay_length, 0x1p-60, 1e-14)
                                   : std::clamp(2e-7 * sigma / params.decay_length, 0x1p-22, 0x1p-12);
  // In float sums, each step of the recursion adds the rounding error of a: a distance errs by lost_distance.
  // Border terms feel it the more the larger their factor: where the term is 1 its exponent is ln(bwf), so that
  // it errs by lost_distance sqrt(2 ln(bwf)) / bws, beside what the exponent's own rounding takes, which grows
  // with ln(bwf). Up to bwf = 50 both have room; beyond, the distances get as much less.
  const double half_window = (params.largest_sum + 1) / 2;  // G(r)
  const double lost_distance = params.decay_length * (std::min(settings_.radius, 64) + 8) * 0x1p-25;
  const double steeper = std::log(std::max(params.bwf, 50.0)) / std::log(50.0);
  single_is_accurate_ =
      precision_ == FLOAT_THROUGHOUT && half_window < 100 && lost_distance * steeper <= 1e-6 * sigma;
  // The logarithm of a sum times 2^900 rounds to 2^-44, which moves a distance by decay_length times that.
  needs_fine_tables_ = params.decay_length > 8 * sigma;
  // A sum that is off by a fraction moves a distance by decay_length times it. A term of factor f that is 1 has
  // x sigma as its distance, x^2 = 2 ln f, and errs by x / sigma times that. Along either axis what an instance
  // adds takes up to radius + 1 steps, and in each the last bit of a, and of the product with it, may round the
  // same way. (Labels take no steps outside of their boxes.)
  const double steepest = std::sqrt(2 * std::log(std::max({params.bwf, std::abs(1 - params.fbr), 50.0})));
  lost_in_soft_masks_ = params.decay_length * steepest / sigma * 2 * (settings_.radius + 1) * 0x1p-52;
  // The largest |ln S| with which two distances may still add up to x sigma.
  largest_log_ =
      2 * std::log(params.largest_sum) + steepest * std::max(params.fds, params.bws) / params.decay_length;
  single_steps_ = -1;
  while (single_steps_ < 2 * settings_.radius + 1 && arithmetic(single_steps_ + 1) == SINGLE) ++single_steps_;
}

Arithmetic CallSettings::arithmetic(int64_t steps, double smallest, double largest) const {
  // Natural logarithms: of the smallest term, of the room above the largest, of each type's smallest number.
  const double decline = steps / settings_.decay_length;
  if (single_is_accurate_ && smallest == 1 && largest == 1 &&
      decline < (126 + SINGLE_SCALE_EXPONENT - 1) * LN2)
    return SINGLE;
  const bool moderate = smallest > 1e-30 && largest < 1e10;
  const bool fits = moderate && decline < (1022 + DOUBLE_SCALE_EXPONENT - 110) * LN2;
  if (precision_ == DOUBLE_THROUGHOUT && (smallest != 1 || largest != 1)) {
    // Numbers err by their last bit, logarithms by that of their own size.
    const double size = fits ? 1 : largest_log_;
    if (lost_in_soft_masks_ * size > LOST_IN_SOFT_MASKS) return WIDE;
  }
  return fits ? DOUBLE : LOGARITHMIC;
}

void CallSettings::allow_values_up_to(double largest) {
  settings_.reach = settings_.halo = settings_.radius;
  largest_log_ += std::log(largest);
}

void CallSettings::build_tables(Arithmetic arithmetic) {
  const auto build = [this](auto& tables, auto& in_settings) {
    if (tables) return;
    using Owned = typename std::remove_reference_t<decltype(tables)>::element_type;
    tables = std::make_unique<Owned>(settings_.decay_length, settings_.radius, needs_fine_tables_);
    in_settings = tables->get();
  };
  if (arithmetic == SINGLE) build(single_tables_, settings_.single_tables);
  if (arithmetic == DOUBLE) build(double_tables_, settings_.double_tables);
  if (arithmetic == LOGARITHMIC) build(log_tables_, settings_.log_tables);
  if (arithmetic == WIDE) build(wide_tables_, settings_.wide_tables);
}

}  // namespace flc
