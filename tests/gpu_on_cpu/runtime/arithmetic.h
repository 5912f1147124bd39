// Instructions that C++ has no operator for.
#pragma once

#include "types.h"

// What `.ftz` makes of a number: subnormal ones are 0, with their sign.
inline float flushed(float x) {
  return std::fabs(x) < 0x1p-126f ? std::copysign(0.f, x) : x;
}
inline f16 flushed(f16 x) {
  return f16(std::fabs(float(x)) < 0x1p-14f ? std::copysign(0.f, float(x)) : float(x));
}
inline bf16 flushed(bf16 x) {
  return x;
}
inline double flushed(double x) {
  return std::fabs(x) < 0x1p-1022 ? std::copysign(0., x) : x;
}

template <class T>
T minimum(T a, T b) {
  if (a != a || b != b) return a != a ? b : a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
}
template <class T>
T maximum(T a, T b) {
  if (a != a || b != b) return a != a ? b : a;
  return a > b || (a == b && !std::signbit(a)) ? a : b;
}
template <class T>
T minimum_or_nan(T a, T b) {
  return a != a || b != b ? std::numeric_limits<T>::quiet_NaN() : minimum(a, b);
}
template <class T>
T maximum_or_nan(T a, T b) {
  return a != a || b != b ? std::numeric_limits<T>::quiet_NaN() : maximum(a, b);
}

template <class T>
T to_integer(double x) {
  using Limits = std::numeric_limits<T>;
  if (x != x) return 0;
  if (x <= double(Limits::min())) return Limits::min();
  return x >= double(Limits::max()) ? Limits::max() : T(x);
}

template <class T>
T shift_left(T a, u32 n) {
  return n >= 8 * sizeof(T) ? T(0) : T(a << n);
}
template <class T>
T shift_right(T a, u32 n) {
  if (n < 8 * sizeof(T)) return T(a >> n);
  return std::is_signed_v<T> && a < T(0) ? T(-1) : T(0);
}

template <class T>
T extract_bits(T a, u32 position, u32 length) {
  constexpr u32 width = 8 * sizeof(T);
  position &= 255, length &= 255;
  const u64 bits = u64(std::make_unsigned_t<T>(a));
  const bool sign = std::is_signed_v<T> && length && bits >> std::min(position + length - 1, width - 1) & 1;
  u64 result = 0;
  for (u32 i = 0; i < width; ++i) {
    const bool bit = i < length && position + i < width ? bits >> (position + i) & 1 : sign;
    result |= u64(bit) << i;
  }
  return T(result);
}
template <class T>
T insert_bits(T a, T b, u32 position, u32 length) {
  position &= 255, length &= 255;
  for (u32 i = 0; i < length && position + i < 8 * sizeof(T); ++i) {
    const T mask = T(1) << (position + i);
    b = a >> i & 1 ? b | mask : b & ~mask;
  }
  return b;
}
template <class T>
T reverse_bits(T a) {
  T result = 0;
  for (u32 i = 0; i < 8 * sizeof(T); ++i) result = T(result << 1 | (a >> i & 1));
  return result;
}
inline u32 permute_bytes(u32 a, u32 b, u32 selection) {
  const u64 bytes = u64(b) << 32 | a;
  u32 result = 0;
  for (int i = 0; i < 4; ++i) {
    const u32 selector = selection >> 4 * i & 15;
    u8 byte = u8(bytes >> 8 * (selector & 7));
    if (selector & 8) byte = byte & 0x80 ? 0xff : 0;  // the sign, repeated
    result |= u32(byte) << 8 * i;
  }
  return result;
}
inline u32 logic3(u32 a, u32 b, u32 c, u32 table) {
  u32 result = 0;
  for (u32 i = 0; i < 8; ++i) {
    if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  }
  return result;
}
