// Vectors of the width that this file is compiled for (FLC_ISA), and the numbers that sums are formed in.
//
// Everything here lives in a namespace of the instruction set's name and uses no inline function of the
// standard library, so that no code compiled for one instruction set can be linked into another's.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "cpu/plan.h"
#include "cpu/wide.h"
#include "formulas.h"

namespace flc {
namespace FLC_ISA {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(VECTOR_BYTES)));
};
template <class T>
using Vec = typename VectorOf<T>::type;

using Floats = Vec<float>;
using Doubles = Vec<double>;
using Ints = Vec<int32_t>;

// A distance that stands for "no pixel of the instance in the window". Finite, so that no sum or product of
// it becomes NaN; its square fits a float.
constexpr double BEYOND = 1e18;

template <class T>
FLC_INLINE T smaller(T a, T b) {
  return a < b ? a : b;
}
template <class T>
FLC_INLINE T larger(T a, T b) {
  return a > b ? a : b;
}

// A number known at compile time, to pass to a generic lambda.
template <int n>
struct Size {
  static constexpr int value = n;
};

// ---- numbers that sums are formed in: Floats, Doubles, LogReal, WideReal ---------------------------------

FLC_INLINE LogReal operator*(LogReal a, LogReal b) {
  return {a.log + b.log};
}
FLC_INLINE LogReal operator+(LogReal a, LogReal b) {
  const double high = larger(a.log, b.log), low = smaller(a.log, b.log);
  return {low == -INFINITY ? high : high + log1p(exp(low - high))};
}
FLC_INLINE LogReal smaller(LogReal a, LogReal b) {
  return a.log < b.log ? a : b;
}

template <class S>
struct Number;

template <class T>
struct NumberInLanes {
  using Scalar = T;
  static constexpr int lanes = VECTOR_BYTES / sizeof(T);
  static constexpr T zero = 0;
};
template <>
struct Number<Floats> : NumberInLanes<float> {
  static const KernelTables<float>& tables(const Settings& settings) { return *settings.single_tables; }
};
template <>
struct Number<Doubles> : NumberInLanes<double> {
  static const KernelTables<double>& tables(const Settings& settings) { return *settings.double_tables; }
};
template <>
struct Number<LogReal> {
  using Scalar = LogReal;
  static constexpr int lanes = 1;
  static constexpr LogReal zero = {-INFINITY};
  static const KernelTables<LogReal>& tables(const Settings& settings) { return *settings.log_tables; }
};
template <>
struct Number<WideReal> {
  using Scalar = WideReal;
  static constexpr int lanes = 1;
  static constexpr WideReal zero = {0, 0, -INFINITY};
  static const KernelTables<WideReal>& tables(const Settings& settings) { return *settings.wide_tables; }
};

template <class S>
FLC_INLINE S load(const typename Number<S>::Scalar* from) {
  S value;
  memcpy(&value, from, sizeof(S));
  return value;
}
template <class S>
FLC_INLINE void store(typename Number<S>::Scalar* to, S value) {
  memcpy(to, &value, sizeof(S));
}
template <class S>
FLC_INLINE S broadcast(typename Number<S>::Scalar scalar) {
  if constexpr (Number<S>::lanes == 1) {
    return scalar;
  } else {
    return scalar - S{};
  }
}

// a b + c, fused where the instruction set does so. The compiler is told (-ffp-contract=off) to fuse nothing
// of its own accord: whether it does may differ from one copy of a loop to the next, and results with it.
template <class T>
FLC_INLINE T multiply_add(T a, T b, T c) {
  return a * b + c;
}
#if defined(__AVX512F__)
FLC_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
FLC_INLINE Doubles multiply_add(Doubles a, Doubles b, Doubles c) {
  return (Doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif defined(__AVX2__)
FLC_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
FLC_INLINE Doubles multiply_add(Doubles a, Doubles b, Doubles c) {
  return (Doubles)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#elif defined(__aarch64__)
FLC_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
  return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
FLC_INLINE Doubles multiply_add(Doubles a, Doubles b, Doubles c) {
  return (Doubles)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
#endif
template <class T>
FLC_INLINE T multiply_add(T a, T b, float c) {
  return multiply_add(a, b, T{} + c);
}

// Whether any lane of a comparison holds.
FLC_INLINE bool any_true(Ints mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#elif defined(__SSE2__)
  return _mm_movemask_epi8((__m128i)mask) != 0;
#elif defined(__aarch64__)
  return vmaxvq_u32((uint32x4_t)mask) != 0;
#else
  for (int lane = 0; lane < VECTOR_BYTES / 4; ++lane)
    if (mask[lane]) return true;
  return false;
#endif
}

// Whether any lane of a exceeds that of b.
FLC_INLINE bool any_greater(LogReal a, LogReal b) {
  return a.log > b.log;
}
FLC_INLINE bool any_greater(WideReal a, WideReal b) {
  return b < a;
}
template <class V>
FLC_INLINE bool any_greater(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(a[0]) == 4)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ) != 0;
  else
    return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GT_OQ) != 0;
#else
  return any_true((Ints)(a > b));
#endif
}

// ---- exponential and logarithm ---------------------------------------------------------------------------

// larger(x, floor) for a constant, which GCC would turn into a comparison and a blend.
FLC_INLINE Floats at_least(Floats x, float floor) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_max_ps(0xffff, (__m512)x, _mm512_set1_ps(floor));
#elif defined(__AVX2__)
  return (Floats)_mm256_max_ps((__m256)x, _mm256_set1_ps(floor));
#elif defined(__SSE2__)
  return (Floats)_mm_max_ps((__m128)x, _mm_set1_ps(floor));
#elif defined(__aarch64__)
  return (Floats)vmaxnmq_f32((float32x4_t)x, vdupq_n_f32(floor));  // floor for a NaN, too, as above
#else
  return larger(x, broadcast<Floats>(floor));
#endif
}

// 2^x for x <= 126, relative error 2e-7; 2^-125 stands for everything below it, -inf included.
FLC_INLINE Floats power_of_two(Floats x) {
  const float round_to_integer = 12582912.0f;  // 1.5 2^23
  x = at_least(x, -125.0f);
  const Floats shifted = x + round_to_integer;
  const Floats f = x - (shifted - round_to_integer);
  Floats p = multiply_add(f, Floats{} + 0.00132764666f, 0.00967554189f);
  p = multiply_add(p, f, 0.0555071346f);
  p = multiply_add(p, f, 0.240221202f);
  p = multiply_add(p, f, 0.693146944f);
  p = multiply_add(p, f, 1.00000012f);
  return (Floats)((Ints)p + ((Ints)shifted << 23));
}

FLC_INLINE Doubles power_of_two(Doubles x) {
  for (int lane = 0; lane < Number<Doubles>::lanes; ++lane) x[lane] = exp2(x[lane]);
  return x;
}

// ---- from a sum to a distance ----------------------------------------------------------------------------

// offset - decay_length ln(mantissa 2^(exponent - scale_exponent)), mantissa in [1, 2): a minimax polynomial
// of log2, absolute error 2.8e-7. Its coefficients carry the factor.
template <class F>
class DistanceFromParts {
 public:
  DistanceFromParts(double decay_length, int32_t scale_exponent)
      : slope_(float(-decay_length * LN2)),
        zero_(float(scale_exponent - 0.584962765)),
        coefficients_{0.961795379f * slope_,   -0.320632339f * slope_, 0.142545325f * slope_,
                      -0.0705896129f * slope_, 0.0373112886f * slope_, -0.0251233711f * slope_,
                      0.0151253592f * slope_} {}

  FLC_INLINE F operator()(F exponent, F mantissa, F offset) const {
    const F t = mantissa - 1.5f;
    F p = F{} + coefficients_[6];
    for (int i = 5; i >= 0; --i) p = multiply_add(p, t, coefficients_[i]);
    return multiply_add(p, t, multiply_add(exponent - zero_, F{} + slope_, offset));
  }

 private:
  const float slope_, zero_, coefficients_[7];
};

// store() writes offset - decay_length ln(sum / 2^scale_exponent) for each lane of S: no less than BEYOND
// where the sum is zero.
template <class S, class Out>
class DistanceOfSum;

template <>
class DistanceOfSum<Floats, float> {
 public:
  DistanceOfSum(const KernelTables<float>& tables, double decay_length)
      : from_parts_(decay_length, tables.scale_exponent) {}

  FLC_INLINE void store(Floats sum, const float* offset, float* to) const {
#if defined(__AVX512F__)
    const Floats exponent = (Floats)_mm512_maskz_getexp_ps(0xffff, (__m512)sum);  // of 0: -inf
    const Floats mantissa =
        (Floats)_mm512_maskz_getmant_ps(0xffff, (__m512)sum, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src);
#else
    const Ints bits = (Ints)sum;
    const Floats power = __builtin_convertvector((bits >> 23) - 127, Floats);
    const Floats exponent = sum > 0.0f ? power : Floats{} - INFINITY;
    const Floats mantissa = (Floats)((bits & 0x7fffff) | 0x3f800000);
#endif
    FLC_ISA::store(to, from_parts_(exponent, mantissa, load<Floats>(offset)));
  }

 private:
  const DistanceFromParts<Floats> from_parts_;
};

template <>
class DistanceOfSum<Doubles, float> {
  using Longs = Vec<int64_t>;
  typedef float HalfFloats __attribute__((vector_size(VECTOR_BYTES / 2)));
  typedef int32_t HalfInts __attribute__((vector_size(VECTOR_BYTES / 2)));

 public:
  DistanceOfSum(const KernelTables<double>& tables, double decay_length)
      : from_parts_(decay_length, 0), one_(1023 + tables.scale_exponent) {}

  FLC_INLINE void store(Doubles sum, const float* offset, float* to) const {
    const Longs bits = (Longs)sum;
    const HalfInts powers = __builtin_convertvector((bits >> 52) - one_, HalfInts);
    const Doubles mantissa = (Doubles)((bits & 0xfffffffffffff) | 0x3ff0000000000000);
    HalfFloats d;
    memcpy(&d, offset, sizeof(d));
    d = from_parts_(__builtin_convertvector(powers, HalfFloats),
                    __builtin_convertvector(mantissa, HalfFloats), d);
    const HalfInts positive = __builtin_convertvector(sum > 0.0, HalfInts);
    d = positive ? d : HalfFloats{} + float(BEYOND);
    memcpy(to, &d, sizeof(d));
  }

 private:
  const DistanceFromParts<HalfFloats> from_parts_;
  const int64_t one_;  // the exponent of a sum that stands for 1
};

template <>
class DistanceOfSum<Doubles, double> {
 public:
  DistanceOfSum(const KernelTables<double>& tables, double decay_length)
      : decay_length_(decay_length),
        log_scale_(tables.scale_exponent * LN2),
        unit_(ldexp(1, -tables.scale_exponent)),
        unscaled_from_(tables.unscaled_from) {}

  FLC_INLINE void store(Doubles sum, const double* offset, double* to) const {
    for (int lane = 0; lane < Number<Doubles>::lanes; ++lane)
      to[lane] = sum[lane] > 0 ? offset[lane] - decay_length_ * log_of(sum[lane]) : BEYOND;
  }

 private:
  FLC_INLINE double log_of(double sum) const {
    return sum >= unscaled_from_ ? ::log(sum * unit_) : ::log(sum) - log_scale_;
  }

  const double decay_length_, log_scale_, unit_, unscaled_from_;
};

template <class Out>
class DistanceOfSum<LogReal, Out> {
 public:
  DistanceOfSum(const KernelTables<LogReal>&, double decay_length) : decay_length_(decay_length) {}

  FLC_INLINE void store(LogReal sum, const Out* offset, Out* to) const {
    *to = sum.log > -INFINITY ? Out(*offset - decay_length_ * sum.log) : Out(BEYOND);
  }

 private:
  const double decay_length_;
};

template <class Out>
class DistanceOfSum<WideReal, Out> {
 public:
  DistanceOfSum(const KernelTables<WideReal>&, double decay_length) : decay_length_(decay_length) {}

  FLC_INLINE void store(WideReal sum, const Out* offset, Out* to) const {
    *to = sum.high > 0 ? Out(distance_of(sum, decay_length_, *offset)) : Out(BEYOND);
  }

 private:
  const double decay_length_;
};

}  // namespace FLC_ISA
}  // namespace flc
