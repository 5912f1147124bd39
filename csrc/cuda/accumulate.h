// Stage 2, accumulate: over the instances, fd, the nearest, and the farthest or the second nearest distance.
#pragma once

#include "cuda/device.h"

namespace flc::cuda {

template <class T, bool FARTHEST>
struct Accumulated {
  T fd = 0;
  T near = INFINITE<T>;
  T other = FARTHEST ? -INFINITE<T> : INFINITE<T>;

  FLC_DEVICE void add(T d) {
    fd += exp2_of(-d * d);
    other = FARTHEST ? larger(other, d) : smaller(other, larger(near, d));
    near = smaller(near, d);
  }
};

}  // namespace flc::cuda
