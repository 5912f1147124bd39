// What the kernels build on: order, the lanes of a warp, powers of two and logarithms.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <limits>

namespace flc::cuda {

// A call would keep what it refers to in memory, in place of registers.
#define FLC_DEVICE __device__ __forceinline__

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int WARP = 32;

template <class T>
constexpr T INFINITE = std::numeric_limits<T>::infinity();
template <class T>
constexpr T LOWEST = std::numeric_limits<T>::lowest();

template <class T>
__host__ __device__ constexpr T smaller(T a, T b) {
  return b < a ? b : a;
}
template <class T>
__host__ __device__ constexpr T larger(T a, T b) {
  return a < b ? b : a;
}
__host__ __device__ inline float smaller(float a, float b) {
  return fminf(a, b);
}
__host__ __device__ inline float larger(float a, float b) {
  return fmaxf(a, b);
}
__host__ __device__ inline double smaller(double a, double b) {
  return fmin(a, b);
}
__host__ __device__ inline double larger(double a, double b) {
  return fmax(a, b);
}

// What border rules rank distances by, see rules.h.
struct Order {
  template <class T>
  __host__ __device__ static T smaller(T a, T b) {
    return cuda::smaller(a, b);
  }
  template <class T>
  __host__ __device__ static T larger(T a, T b) {
    return cuda::larger(a, b);
  }
};

template <class T>
__host__ __device__ constexpr T divide_up(T a, T b) {
  return (a + b - 1) / b;
}

// ------------------------------------------------------------------------------------------------ lanes

// The smallest value of all lanes, of 32 bits.
template <class T>
FLC_DEVICE T warp_min(T value) {
#if __CUDA_ARCH__ >= 800
  return __reduce_min_sync(ALL_LANES, value);
#else
  for (int step = WARP / 2; step > 0; step /= 2) {
    value = smaller(value, __shfl_xor_sync(ALL_LANES, value, step));
  }
  return value;
#endif
}

FLC_DEVICE uint64_t warp_min(uint64_t value) {
  const uint32_t high = warp_min(uint32_t(value >> 32));
  const uint32_t low = warp_min(uint32_t(value >> 32) == high ? uint32_t(value) : ~0u);
  return uint64_t(high) << 32 | low;
}

FLC_DEVICE int warp_max(int value) {
#if __CUDA_ARCH__ >= 800
  return __reduce_max_sync(ALL_LANES, value);
#else
  return -warp_min(-value);
#endif
}

FLC_DEVICE uint32_t warp_or(uint32_t value) {
#if __CUDA_ARCH__ >= 800
  return __reduce_or_sync(ALL_LANES, value);
#else
  for (int step = WARP / 2; step > 0; step /= 2) value |= __shfl_xor_sync(ALL_LANES, value, step);
  return value;
#endif
}

// The sum over this lane and all lower ones.
FLC_DEVICE int warp_scan(int value, int lane) {
  for (int step = 1; step < WARP; step *= 2) {
    const int below = __shfl_up_sync(ALL_LANES, value, step);
    if (lane >= step) value += below;
  }
  return value;
}

// ------------------------------------------------------------------------------ powers of two, logarithms

#ifdef __CUDA_ARCH__
// Of float by the hardware's instructions, for which subnormal numbers count as 0. The power errs by 2^-22 of
// itself, the root by 2^-23 of itself, the logarithm by 2^-22.
FLC_DEVICE float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
FLC_DEVICE float log2_of(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
FLC_DEVICE float sqrt_of(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#else
FLC_DEVICE float exp2_of(float x) {
  return exp2f(x);
}
FLC_DEVICE float log2_of(float x) {
  return log2f(x);
}
FLC_DEVICE float sqrt_of(float x) {
  return sqrtf(x);
}
#endif

FLC_DEVICE double exp2_of(double x) {
  return exp2(x);
}
FLC_DEVICE double log2_of(double x) {
  return log2(x);
}
FLC_DEVICE double sqrt_of(double x) {
  return sqrt(x);
}

// log2(2^a + 2^b); either may be -inf.
template <class T>
FLC_DEVICE T log2_sum(T a, T b) {
  const T greater = larger(a, b);
  return smaller(a, b) > -INFINITE<T> ? greater + log2_of(1 + exp2_of(smaller(a, b) - greater)) : greater;
}

}  // namespace flc::cuda
