// Sums with the weights a^|t| over a window of 2 r + 1 values, in O(1) per value whatever r, without ever
// subtracting: s[i] = x[i] + a s[i - 1] within blocks of r + 1 values, and what a window takes from the block
// before and the block after by weighted suffix and prefix sums of those blocks (van Herk, Gil and Werman).
#pragma once

#include "cpu/simd/simd.h"

namespace flc {
namespace FLC_ISA {

// sum + value a^steps, in two factors: a^steps itself may be too small for the number type where the product
// is not.
template <class S>
FLC_INLINE S add_decayed(S sum, S value, const KernelTables<typename Number<S>::Scalar>& tables,
                         int64_t steps) {
  return multiply_add(value * broadcast<S>(tables.decay_half[steps]), broadcast<S>(tables.decay_rest[steps]),
                      sum);
}

// N sequences side by side: value i of sequence n is values[i * values_stride + n], and likewise with
// `stride` for the sums and the workspace. sums[i] = sum over |t| <= r of a^|t| values[i + t], values beyond
// [0, count) being zero. Where values begin or end within the sequence that they are cut from, they do so at
// a multiple of r + 1.
template <int N, class S>
FLC_INLINE void windowed_sums_of(const S* values, int64_t values_stride, int64_t stride, int64_t count,
                                 const KernelTables<typename Number<S>::Scalar>& tables, S* workspace,
                                 S* sums, bool fits_window) {
  const S zero = broadcast<S>(Number<S>::zero);
  const S decay = broadcast<S>(tables.decay);
  const int64_t radius = tables.radius, block = fits_window ? count : radius + 1;
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t end = smaller(begin + block, count);
    S left[N], right[N];
    for (int n = 0; n < N; ++n) left[n] = right[n] = zero;
    for (int64_t i = begin; i < end; ++i) {
      for (int n = 0; n < N; ++n) {
        left[n] = multiply_add(left[n], decay, values[i * values_stride + n]);
        sums[i * stride + n] = left[n];
      }
    }
    for (int64_t i = end; i-- > begin;) {
      for (int n = 0; n < N; ++n) {
        right[n] = right[n] * decay;
        sums[i * stride + n] = sums[i * stride + n] + right[n];
        right[n] = right[n] + values[i * values_stride + n];
      }
    }
    if (begin > 0) {  // workspace: weighted suffixes of the block before
      S suffix[N];
      for (int n = 0; n < N; ++n) suffix[n] = zero;
      for (int64_t i = begin; i-- > begin - block;) {
        for (int n = 0; n < N; ++n) {
          suffix[n] = add_decayed<S>(suffix[n], values[i * values_stride + n], tables, begin - 1 - i);
          workspace[i * stride + n] = suffix[n];
        }
      }
      for (int64_t i = begin; i < end && i - radius < begin; ++i) {
        for (int n = 0; n < N; ++n) {
          sums[i * stride + n] = add_decayed<S>(sums[i * stride + n], workspace[(i - radius) * stride + n],
                                                tables, i - (begin - 1));
        }
      }
    }
    if (end < count) {  // workspace: weighted prefixes of the block after
      const int64_t after = smaller(end + block, count);
      S prefix[N];
      for (int n = 0; n < N; ++n) prefix[n] = zero;
      for (int64_t i = end; i < after; ++i) {
        for (int n = 0; n < N; ++n) {
          prefix[n] = add_decayed<S>(prefix[n], values[i * values_stride + n], tables, i - end);
          workspace[i * stride + n] = prefix[n];
        }
      }
      for (int64_t i = begin + 1; i < end; ++i) {
        const int64_t last = smaller(i + radius, after - 1);
        for (int n = 0; n < N; ++n) {
          sums[i * stride + n] =
              add_decayed<S>(sums[i * stride + n], workspace[last * stride + n], tables, end - i);
        }
      }
    }
  }
}

// Calls function(first, N) for groups of N = 4, 2 or 1 adjacent vectors that cover [0, count): several at a
// time hide the latency of the recursions.
template <class Function>
FLC_INLINE void for_vector_groups(int32_t count, const Function& function) {
  int32_t first = 0;
  for (; first + 4 <= count; first += 4) function(first, Size<4>());
  if (first + 2 <= count) {
    function(first, Size<2>());
    first += 2;
  }
  if (first < count) function(first, Size<1>());
}

// As windowed_sums_of, for `vectors` sequences.
template <class S>
inline void windowed_sums(const S* values, int32_t vectors, int64_t count,
                          const KernelTables<typename Number<S>::Scalar>& tables, S* workspace, S* sums,
                          bool fits_window) {
  for_vector_groups(vectors, [&](int32_t first, auto size) {
    windowed_sums_of<size.value>(values + first, vectors, vectors, count, tables, workspace + first,
                                 sums + first, fits_window);
  });
}

}  // namespace FLC_ISA
}  // namespace flc
