// The types of PTX, and reading bits as one of them.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using u128 = unsigned __int128;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;
using s128 = __int128;
using f16 = _Float16;
using f32 = float;
using f64 = double;
struct bf16 {
  u16 bits;
};

struct Size3 {
  u32 x, y, z;
};

// The low bits of `bits` as a T.
template <class T, class Bits>
T as(Bits bits) {
  T value{};
  std::memcpy(&value, &bits, std::min(sizeof(T), sizeof(Bits)));
  return value;
}

// A value into a register: integers by their value, sign extended where they are signed, all else by its
// bits.
template <class Register, class T>
void set(Register& target, T value) {
  if constexpr (std::is_same_v<Register, bool>) {
    target = as<u8>(value) != 0;
  } else if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
    target = Register(s64(value));
  } else {
    target = as<Register>(value);
  }
}

inline float widen(f16 value) {
  return float(value);
}
inline float widen(bf16 value) {
  return as<float>(u32(value.bits) << 16);
}
inline float widen(float value) {
  return value;
}
inline double widen(double value) {
  return value;
}

template <class T>
T narrow(double value) {
  if constexpr (std::is_same_v<T, bf16>) {
    const u32 bits = as<u32>(float(value));
    if (value != value) return {0x7fff};
    return {u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};  // to nearest, ties to even
  } else {
    return T(value);
  }
}
