// Sums over the windows of a strip, results side by side along an axis, by one thread.
//
// What all of its windows show is summed once, and what only some of them show is added value by value from the
// nearest of them on: no value is ever subtracted, and none is met by a window that does not show it.
#pragma once

#include "cuda/device.h"

namespace flc::cuda {

constexpr int LONGEST_STRIP = 32;

// What a strip of `size` results has to know of its windows.
template <class T>
struct Windows {
  int radius;
  int together;  // steps next to a strip that all of its windows show; negative: not even the strip
  T powers[LONGEST_STRIP];  // of the decay of one step
  T first_edge;  // the decay at the nearest position that not all of them show
};

// Of the strip's own values, all of which each window shows.
template <int SIZE, class T>
FLC_DEVICE void sum_strip(T decay, const T (&own)[SIZE], T (&sums)[SIZE]) {
  T sum = 0;
#pragma unroll
  for (int i = 0; i < SIZE; ++i) sums[i] = sum = sum * decay + own[i];
  sum = own[SIZE - 1];
#pragma unroll
  for (int i = SIZE - 2; i >= 0; --i) {
    sums[i] += decay * sum;
    sum = sum * decay + own[i];
  }
}

// Of `count` values, the nearest at `nearest` and others further on in DIRECTION: decayed to the nearest.
template <int DIRECTION, int STRIDE, class T>
FLC_DEVICE T sum_together(int count, T decay, const T* nearest) {
  T sum = 0;
  const T* at = nearest + DIRECTION * (count - 1) * STRIDE;
#pragma unroll 4
  for (int i = 0; i < count; ++i, at -= DIRECTION * STRIDE) sum = sum * decay + *at;
  return sum;
}

// Adds what lies before and after the strip. `before`, `after`: sums of what all windows show, decayed to the
// strip's nearest result; `first`, `last`: the farthest values that any of them shows.
template <int STRIDE, int SIZE, class T>
FLC_DEVICE void add_sides(const Windows<T>& windows, T before, T after, const T* first, const T* last,
                          T (&sums)[SIZE]) {
  T weight = windows.first_edge;
#pragma unroll
  for (int i = SIZE - 1; i >= 0; --i) {  // steps from the result that is nearest
    sums[i] += windows.powers[i] * before;
    sums[SIZE - 1 - i] += windows.powers[i] * after;
    if (i > 0) {
      before += weight * first[(i - 1) * STRIDE];
      after += weight * last[-(i - 1) * STRIDE];
      weight *= windows.powers[1];
    }
  }
}

// Windows that do not show the whole strip, step by step.
template <int STRIDE, int SIZE, class T>
FLC_DEVICE void sum_steps(int radius, T decay, const T* at, T (&sums)[SIZE]) {
  T weight = decay;
#pragma unroll
  for (int i = 0; i < SIZE; ++i) sums[i] = at[i * STRIDE];
#pragma unroll 1
  for (int k = 1; k <= radius; ++k, weight *= decay) {
    const T *const before = at - k * STRIDE, *const after = at + k * STRIDE;
#pragma unroll
    for (int i = 0; i < SIZE; ++i) {
      sums[i] += weight * before[i * STRIDE];
      sums[i] += weight * after[i * STRIDE];
    }
  }
}

// Sums at `at` and at the SIZE - 1 positions that follow, of a line of which a table holds all that they show.
template <int STRIDE, int SIZE, class T>
FLC_DEVICE void sum_windows(const Windows<T>& windows, const T* at, T (&sums)[SIZE]) {
  const T decay = windows.powers[1];
  const int radius = windows.radius, together = windows.together;
  if (together < 0) return sum_steps<STRIDE>(radius, decay, at, sums);
  T own[SIZE];
#pragma unroll
  for (int i = 0; i < SIZE; ++i) own[i] = at[i * STRIDE];
  sum_strip(decay, own, sums);
  const T before = sum_together<-1, STRIDE>(together, decay, at - STRIDE) * decay;
  const T after = sum_together<+1, STRIDE>(together, decay, at + SIZE * STRIDE) * decay;
  add_sides<STRIDE>(windows, before, after, at - radius * STRIDE, at + (SIZE - 1 + radius) * STRIDE, sums);
}

}  // namespace flc::cuda
