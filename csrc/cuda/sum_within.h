// Sums over windows of positions side by side, pair by pair.
#pragma once

#include "cuda/device.h"

namespace flc::cuda {

// sums[i]: of powers[steps] value(k) over those of COUNT positions k that are at most `radius` steps from i.
template <int COUNT, class T, class Value>
FLC_DEVICE void sum_within(int radius, const T* powers, const Value& value, T (&sums)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    sums[i] = 0;
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      const int steps = i < k ? k - i : i - k;
      if (steps <= radius) sums[i] += powers[steps] * value(k);
    }
  }
}

}  // namespace flc::cuda
