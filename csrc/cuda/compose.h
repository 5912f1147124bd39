// Stage 3, compose: from what the instances add up to at a pixel to its weight.
#pragma once

#include "cuda/accumulate.h"
#include "cuda/numbers.h"

namespace flc::cuda {

// The border term of one class, with its factor.
template <class T, class Border>
FLC_DEVICE T border_term(const Accumulated<T, Border>& sums, const Numbers<T>& numbers) {
  const T squared = Border::squared(sums.near, sums.other);
  return numbers.bwf * exp2_of(-squared * squared * numbers.border_scale);
}

// The weight of a background pixel, from the sum of the border terms of all classes, with their factor, and
// of whatever else they add.
template <class T>
FLC_DEVICE T compose(T fd, T terms, const Numbers<T>& numbers) {
  return numbers.fbr + numbers.fall_of_sum * fd + terms;
}

// out[index] = weight, in the result's precision.
template <class T>
FLC_DEVICE void store_weight(void* out, bool out_is_double, int64_t index, T weight) {
  if (sizeof(T) == 8 && out_is_double)
    static_cast<double*>(out)[index] = weight;
  else
    static_cast<float*>(out)[index] = float(weight);
}

}  // namespace flc::cuda
