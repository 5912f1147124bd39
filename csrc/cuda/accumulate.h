// Stage 2, accumulate: over the instances, fd, the nearest distance, and the other one of the border rule.
#pragma once

#include "cuda/device.h"
#include "rules.h"

namespace flc::cuda {

template <class T, class Border>
struct Accumulated {
  T fd = 0;
  T near = INFINITE<T>;
  T other = Border::start(INFINITE<T>);

  FLC_DEVICE void add(T d) {
    fd += exp2_of(-d * d);
    rank(d);
  }

  // A distance in a unit of its own, where the foreground term is 2^-(scale d^2).
  FLC_DEVICE void add(T d, T scale) {
    fd += exp2_of(-d * d * scale);
    rank(d);
  }

  // By the square of a distance: `near` and `other` are squares then too, until the roots are taken.
  FLC_DEVICE void add_square(T square, T scale) {
    fd += exp2_of(-square * scale);
    rank(square);
  }

  // An instance out of reach.
  FLC_DEVICE void add_infinite() { rank(INFINITE<T>); }

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
    other = Border::template rank<Order>(other, near, d);
    near = smaller(near, d);
  }
};

}  // namespace flc::cuda
