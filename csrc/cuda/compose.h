// Stage 3, compose: from what the instances add up to at a pixel to its weight.
#pragma once

#include "cuda/accumulate.h"
#include "cuda/settings.h"

namespace flc::cuda {

// The border term of one class.
template <class T, bool FARTHEST>
FLC_DEVICE T border_term(const Accumulated<T, FARTHEST>& sums, const Settings<T>& settings) {
  const T both = sums.near + sums.other;
  return exp2_of(-both * both * settings.border_scale);
}

// The weight of a background pixel, from the sum of the border terms of all classes.
template <class T>
FLC_DEVICE T compose(T fd, T border, const Settings<T>& settings) {
  const T ratio = settings.foreground_background_ratio;
  return ratio + (1 - ratio) * fd + settings.border_weight_factor * border;
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
