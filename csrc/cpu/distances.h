// The ways to a distance, by their codes.
#pragma once

#include "cpu/plan.h"

namespace flc {

// What the code around the kernels has to know of one.
struct Distance {
  WeighRows* Kernels::* weigh_rows;
  int32_t most_rows;       // that a pass takes
  bool uses_tables;        // those of the kernel exp(-|t| / decay_length)
  bool weighs_foreground;  // its pixels get their weight of 1; else that is left to the caller
};

// Null for a code that there is not.
const Distance* find_distance(int32_t code);

// Whether this library knows the distance and the border rule.
bool rules_known(const flc_weight_params& params);

}  // namespace flc
