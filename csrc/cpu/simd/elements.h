// Elements of tensors of any type.
#pragma once

#include "cpu/simd/simd.h"

namespace flc {
namespace FLC_ISA {

// Types that C++ lacks, or has with other bits than a tensor's.
struct Bool {
  uint8_t bits;
  FLC_INLINE explicit operator double() const { return bits; }
};
struct Float16 {
  uint16_t bits;
  FLC_INLINE explicit operator double() const {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double value;
    if (exponent == 31)
      value = mantissa ? NAN : INFINITY;
    else if (exponent == 0)
      value = ldexp(mantissa, -24);
    else
      value = ldexp(mantissa + 1024, exponent - 25);
    return bits >> 15 ? -value : value;
  }
};
struct BFloat16 {
  uint16_t bits;
  FLC_INLINE explicit operator double() const {
    const uint32_t wide = uint32_t(bits) << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
  }
};

// Calls function(T()) for the type of a tensor's elements, and returns what it returns; `unknown` for a code
// of no type.
template <class Result, class Function>
FLC_INLINE Result with_element(int32_t dtype, Result unknown, const Function& function) {
  switch (static_cast<flc_dtype>(dtype)) {
    case FLC_BOOL:
      return function(Bool());
    case FLC_UINT8:
      return function(uint8_t());
    case FLC_INT8:
      return function(int8_t());
    case FLC_UINT16:
      return function(uint16_t());
    case FLC_INT16:
      return function(int16_t());
    case FLC_UINT32:
      return function(uint32_t());
    case FLC_INT32:
      return function(int32_t());
    case FLC_UINT64:
      return function(uint64_t());
    case FLC_INT64:
      return function(int64_t());
    case FLC_FLOAT16:
      return function(Float16());
    case FLC_BFLOAT16:
      return function(BFloat16());
    case FLC_FLOAT32:
      return function(float());
    case FLC_FLOAT64:
      return function(double());
  }
  return unknown;
}

template <class T>
FLC_INLINE T element(const void* at) {
  T value;
  memcpy(&value, at, sizeof(value));
  return value;
}

// Element `index` of a tensor.
inline double read_value(const flc_tensor& tensor, int64_t index) {
  return with_element(tensor.dtype, 0.0, [&](auto type) {
    using T = decltype(type);
    return double(element<T>(static_cast<const T*>(tensor.data) + index));
  });
}

}  // namespace FLC_ISA
}  // namespace flc
