// Numbers for sums that leave double's range, or ask for more than its precision: a double of twice the
// precision (the sum of two) times a power of 2.
//
// Sums held by their logarithm would not do: each step of a recursion adds the same ln a to it, which rounds the
// same way as long as the logarithm is of the same size. After hundreds of steps that is hundreds of times the
// last bit, and where two distances cancel in the border term it shows.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "cpu/plan.h"
#include "formulas.h"

namespace flc {

constexpr double LN2_LOW = 2.3190468138462996e-17;  // ln 2 - LN2

// The rounding error of product = a b. None of them is near the ends of double's range.
FLC_INLINE double error_of_product(double a, double b, double product) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fma(a, b, -product);
#else
  const double split = 134217729;  // 2^27 + 1: into halves whose products are exact (Dekker)
  const double a_high = a * split - (a * split - a), a_low = a - a_high;
  const double b_high = b * split - (b * split - b), b_low = b - b_high;
  return a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low);
#endif
}

// The rounding error of sum = a + b.
FLC_INLINE double error_of_sum(double a, double b, double sum) {
  const double b_part = sum - a;
  return (a - (sum - b_part)) + (b - b_part);
}

// 2^n, n from -1022 to 1023.
FLC_INLINE double power_of_two(int64_t n) {
  const uint64_t bits = uint64_t(1023 + n) << 52;
  double power;
  memcpy(&power, &bits, sizeof(power));
  return power;
}

// Of a sum or a product of numbers in [1, 2), or 0, and what is to be added to it. No branch here and below: none
// could be foreseen.
FLC_INLINE WideReal normalized(double high, double low, double exponent) {
  const double sum = high + low, rest = low - (sum - high);
  uint64_t bits;
  memcpy(&bits, &sum, sizeof(bits));
  const int64_t power = int64_t(bits >> 52) - 1023;
  const double factor = power_of_two(-power);
  return {sum * factor, rest * factor, exponent + double(power)};
}

// value + rest, rest far smaller than value.
FLC_INLINE WideReal wide(double value, double rest = 0) {
  if (!(value > 0)) return {0, 0, -INFINITY};
  int exponent;
  const double mantissa = ::frexp(value, &exponent);
  return {2 * mantissa, ::ldexp(rest, 1 - exponent), exponent - 1.0};
}

FLC_INLINE WideReal operator*(WideReal a, WideReal b) {
  const double product = a.high * b.high;
  const double rest = error_of_product(a.high, b.high, product) + (a.high * b.low + a.low * b.high);
  return normalized(product, rest, a.exponent + b.exponent);
}

FLC_INLINE WideReal operator+(WideReal a, WideReal b) {
  const double exponent = a.exponent > b.exponent ? a.exponent : b.exponent;
  const auto factor = [exponent](WideReal x) {
    const double shift = x.exponent - exponent;  // NaN where both are 0
    return power_of_two(static_cast<int64_t>(shift > -200 ? shift : -200.0));
  };
  const double of_a = factor(a), of_b = factor(b);
  const double high = a.high * of_a, added = b.high * of_b, sum = high + added;
  return normalized(sum, error_of_sum(high, added, sum) + (a.low * of_a + b.low * of_b), exponent);
}

FLC_INLINE bool operator<(WideReal a, WideReal b) {
  if (a.exponent != b.exponent) return a.exponent < b.exponent;
  return a.high != b.high ? a.high < b.high : a.low < b.low;
}

// offset - decay_length ln(value), rounded once; value > 0.
FLC_INLINE double distance_of(WideReal value, double decay_length, double offset) {
  const double power = value.exponent * LN2, mantissa = ::log(value.high);
  const double log = power + mantissa;
  const double log_rest = error_of_sum(power, mantissa, log) + error_of_product(value.exponent, LN2, power) +
                          (value.exponent * LN2_LOW + value.low / value.high);
  const double way = decay_length * log;
  const double way_rest = error_of_product(decay_length, log, way) + decay_length * log_rest;
  const double distance = offset - way;
  return distance + (error_of_sum(offset, -way, distance) - way_rest);
}

// exp(-steps / decay_length), whole steps >= 0.
FLC_INLINE WideReal wide_decay(double steps, double decay_length) {
  if (steps == 0) return {1, 0, 0};
  // It is 2^-power e^rest, 0 < rest <= ln 2.
  const double quotient = steps / decay_length, product = quotient * decay_length;
  const double quotient_rest =
      ((steps - product) - error_of_product(quotient, decay_length, product)) / decay_length;
  const double power = ::floor(quotient / LN2) + 1;
  const double taken = power * LN2, rest = taken - quotient;
  const double taken_rest = error_of_product(power, LN2, taken) + power * LN2_LOW;
  const double rest_low = error_of_sum(taken, -quotient, rest) + (taken_rest - quotient_rest);
  if (!(rest > 0 && rest < 1)) return {1, 0, -power};  // of numbers that no longer tell so much from 0
  // e^x = 1 + x (1 + x / 2 (1 + x / 3 ...)), x = rest / 512; then squared nine times.
  WideReal x = wide(rest, rest_low), exponential{1, 0, 0};
  x.exponent -= 9;
  for (int n = 9; n > 0; --n) {
    const double inverse = 1.0 / n, one = inverse * n;
    const double inverse_rest = ((1 - one) - error_of_product(inverse, n, one)) / n;
    exponential = WideReal{1, 0, 0} + x * wide(inverse, inverse_rest) * exponential;
  }
  for (int n = 0; n < 9; ++n) exponential = exponential * exponential;
  exponential.exponent -= power;
  return exponential;
}

}  // namespace flc
