// What the kernels build on: the lanes of a warp, powers of two and logarithms, launches.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <limits>

#include "fastlogconv.h"

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
template <class T>
__host__ __device__ constexpr T divide_up(T a, T b) {
  return (a + b - 1) / b;
}

// ------------------------------------------------------------------------------------------------ lanes

FLC_DEVICE int warp_min(int value) {
#if __CUDA_ARCH__ >= 800
  return __reduce_min_sync(ALL_LANES, value);
#else
  for (int step = WARP / 2; step > 0; step /= 2) {
    value = smaller(value, __shfl_xor_sync(ALL_LANES, value, step));
  }
  return value;
#endif
}

FLC_DEVICE uint32_t warp_min(uint32_t value) {
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

// Of float by the hardware's instructions: relative error 2^-22, absolute error 2^-22; subnormal numbers
// count as 0.
FLC_DEVICE float exp2_of(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

FLC_DEVICE float log2_of(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return log2f(x);
#endif
}

// Relative error 2^-23.
FLC_DEVICE float sqrt_of(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return sqrtf(x);
#endif
}

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

// --------------------------------------------------------------------------------------------- launches

// A kernel of this library takes one struct; `blocks` may be more than a grid can have.
template <class Arguments>
cudaError_t launch(void (*kernel)(Arguments), int64_t blocks, int threads, Arguments arguments,
                   cudaStream_t stream) {
  if (blocks > std::numeric_limits<int32_t>::max()) return cudaErrorInvalidConfiguration;
  void* parameters[] = {&arguments};
  return cudaLaunchKernel(kernel, dim3(unsigned(blocks)), dim3(unsigned(threads)), parameters, 0, stream);
}

// What a function of the C interface returns after `call` on a device: FLC_OK, or the negative of CUDA's
// error.
template <class Call>
int32_t on_device(int32_t device, const Call& call) {
  const cudaError_t error = cudaSetDevice(device);
  return -int32_t(error == cudaSuccess ? call() : error);
}

// Positions within an image are ints.
inline bool sizes_supported(const flc_tensor& tensor) {
  return tensor.size[1] <= 1 << 30 && tensor.size[2] <= 1 << 30;
}

}  // namespace flc::cuda
