// Sums with the weights a^|t| over a window of 2 r + 1 values, in O(1) per value whatever r, without ever
// subtracting: s[i] = x[i] + a s[i - 1] within blocks of r + 1 values, and what a window takes from the block
// before and the block after by weighted suffix and prefix sums of those blocks (van Herk, Gil and Werman).
#pragma once

#include "cpu/simd/simd.h"

namespace flc {
namespace FLC_ISA {

// value a^steps, in two factors: a^steps itself may be too small for the number type where the product is
// not.
template <class S>
FLC_INLINE S decayed(S value, const KernelTables<typename Number<S>::Scalar>& tables, int64_t steps) {
  return value * broadcast<S>(tables.decay_half[steps]) * broadcast<S>(tables.decay_rest[steps]);
}

// sums[i] = sum over |t| <= r of a^|t| values[i + t], i in [0, count); values outside count as zero.
// sums holds `count` numbers and does not overlap values; workspace holds `count` too. Where values begin or
// end within the sequence that they are cut from, they do so at a multiple of r + 1.
template <class S>
inline void windowed_sum(const S* values, int64_t count,
                         const KernelTables<typename Number<S>::Scalar>& tables, S* workspace, S* sums,
                         bool fits_window) {
  const S zero = broadcast<S>(Number<S>::zero);
  const S decay = broadcast<S>(tables.decay);
  const int64_t radius = tables.radius, block = radius + 1;
  if (fits_window) {
    S left = zero;
    for (int64_t i = 0; i < count; ++i) {
      left = left * decay + values[i];
      sums[i] = left;
    }
    S right = zero;
    for (int64_t i = count; i-- > 0;) {
      right = right * decay;
      sums[i] = sums[i] + right;
      right = right + values[i];
    }
    return;
  }
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t end = smaller(begin + block, count);
    S left = zero;
    for (int64_t i = begin; i < end; ++i) {
      left = left * decay + values[i];
      sums[i] = left;
    }
    if (begin > 0) {  // workspace: weighted suffixes of the block before
      S suffix = zero;
      for (int64_t i = begin; i-- > begin - block;) {
        suffix = suffix + decayed<S>(values[i], tables, begin - 1 - i);
        workspace[i] = suffix;
      }
      for (int64_t i = begin; i < end && i - radius < begin; ++i)
        sums[i] = sums[i] + decayed<S>(workspace[i - radius], tables, i - (begin - 1));
    }
    S right = zero;
    for (int64_t i = end; i-- > begin;) {
      right = right * decay;
      sums[i] = sums[i] + right;
      right = right + values[i];
    }
    if (end < count) {  // workspace: weighted prefixes of the block after
      const int64_t after = smaller(end + block, count);
      S prefix = zero;
      for (int64_t i = end; i < after; ++i) {
        prefix = prefix + decayed<S>(values[i], tables, i - end);
        workspace[i] = prefix;
      }
      for (int64_t i = begin + 1; i < end; ++i)
        sums[i] = sums[i] + decayed<S>(workspace[smaller(i + radius, after - 1)], tables, end - i);
    }
  }
}

}  // namespace FLC_ISA
}  // namespace flc
