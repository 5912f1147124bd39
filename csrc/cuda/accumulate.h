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
    rank(d);
  }

  // By the square of a distance: `near` and `other` are squares then too, until the roots are taken.
  FLC_DEVICE void add_square(T square, T scale) {
    fd += exp2_of(-square * scale);
    rank(square);
  }

  FLC_DEVICE void take_roots() {
    near = sqrt_of(near);
    other = sqrt_of(other);
  }

  // fd runs over all classes, the rest begins anew.
  FLC_DEVICE void next_class() {
    const T all = fd;
    *this = {};
    fd = all;
  }

 private:
  FLC_DEVICE void rank(T d) {
    other = FARTHEST ? larger(other, d) : smaller(other, larger(near, d));
    near = smaller(near, d);
  }
};

}  // namespace flc::cuda
