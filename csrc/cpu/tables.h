// The tables and settings that a call's kernels read, from its parameters.
#pragma once

#include <memory>
#include <vector>

#include "cpu/distances.h"
#include "cpu/plan.h"

namespace flc {

// Factors 2^exponent that put the sums into the upper part of each number type's range.
constexpr int32_t SINGLE_SCALE_EXPONENT = 110;
constexpr int32_t DOUBLE_SCALE_EXPONENT = 900;

template <class Scalar>
class OwnedTables {
 public:
  // fine: without what is lost where an exponential or a logarithm includes the scale.
  OwnedTables(double decay_length, int32_t radius, bool fine = false);
  const KernelTables<Scalar>* get() const { return &tables_; }

 private:
  std::vector<Scalar> storage_;
  KernelTables<Scalar> tables_;
};

// What one call computes with. Tables are built when the first instance needs them.
class CallSettings {
 public:
  // Of params whose rules are known.
  CallSettings(const flc_weight_params& params, int32_t out_dtype);

  const Settings& get() const { return settings_; }
  const Distance& distance() const { return *distance_; }
  Precision precision() const { return precision_; }

  // The cheapest arithmetic that is right for sums whose largest term may be as small as a^steps, of an
  // instance whose values lie between `smallest` and `largest`.
  Arithmetic arithmetic(int64_t steps, double smallest = 1, double largest = 1) const;
  // The most steps at which the arithmetic of the usual values is SINGLE; -1 where it never is.
  int32_t single_steps() const { return single_steps_; }
  void build_tables(Arithmetic arithmetic);
  // What a common shape takes (see simd/stamps.h).
  int64_t bytes_per_stamp() const {
    const int64_t side = 2 * int64_t(settings_.reach) + SHAPE_SIDE;
    if (side > 1 << 20) return INT64_MAX;
    return 2 * side * (side + 4 * CHUNK) * (precision_ == FLOAT_THROUGHOUT ? 4 : 8);
  }
  // For a foreground that is not where instances are: their pixels are weighed as all others.
  void weigh_instances() { settings_.marks_foreground = false; }
  // For masks whose values may exceed 1: distances then fall below those that the reach was derived from, and
  // cancel those of other masks.
  void allow_values_up_to(double largest);

 private:
  Settings settings_{};
  const Distance* distance_;
  Precision precision_;
  bool single_is_accurate_;
  bool needs_fine_tables_;
  double lost_in_soft_masks_, largest_log_;  // where results are float64
  int32_t single_steps_;
  std::unique_ptr<OwnedTables<float>> single_tables_;
  std::unique_ptr<OwnedTables<double>> double_tables_;
  std::unique_ptr<OwnedTables<LogReal>> log_tables_;
  std::unique_ptr<OwnedTables<WideReal>> wide_tables_;
};

}  // namespace flc
