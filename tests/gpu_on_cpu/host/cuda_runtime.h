// Stands in for CUDA's header of this name where a C++ compiler builds .cu files for the CPU: as much of the language
// and of the runtime's functions as these use. A kernel's threads are fibers, as for translated PTX.
#pragma once

#include <dlfcn.h>

#include "../runtime/runtime.h"

#define CUDART_VERSION 13000
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static thread_local  // one copy for each block that runs

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define threadIdx thread_id
#define blockIdx block_id
#define blockDim block_size
#define gridDim grid_size

// ---------------------------------------------------------------------------------------- in a kernel

inline void __syncthreads() { barrier(0, 0); }
inline int __syncthreads_or(int vote) { return barrier_or(vote); }
inline void __syncwarp(unsigned mask = ~0u) { warp_barrier(mask); }
inline unsigned __ballot_sync(unsigned mask, bool vote) { return vote_ballot(mask, vote); }
inline bool __any_sync(unsigned mask, bool vote) { return vote_any(mask, vote); }
inline bool __all_sync(unsigned mask, bool vote) { return vote_all(mask, vote); }

// The modes and the clamps of PTX's shfl.
template <class T>
T shuffled(unsigned mask, T value, unsigned by, unsigned clamp, int mode) {
  u64 bits = as<u64>(value), result = 0;
  for (u32 shift = 0; shift < 8 * sizeof(T); shift += 32) {
    bool there;
    result |= u64(shuffle(mask, u32(bits >> shift), by, clamp, mode, there)) << shift;
  }
  return as<T>(result);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by) {
  return shuffled(mask, value, by, 0, 0);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, unsigned by) {
  return shuffled(mask, value, by, 31, 2);
}
template <class T>
T __shfl_sync(unsigned mask, T value, unsigned from) {
  return shuffled(mask, value, from, 31, 3);
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1) << (31 - bit);
  return reversed;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned((u64(high) << 32 | low) >> (shift & 31));
}
inline unsigned __float_as_uint(float x) { return as<u32>(x); }
inline float __uint_as_float(unsigned x) { return as<float>(x); }

inline unsigned atomicOr(unsigned* at, unsigned bits) { return std::atomic_ref<unsigned>(*at).fetch_or(bits); }
inline unsigned atomicAdd(unsigned* at, unsigned value) { return std::atomic_ref<unsigned>(*at).fetch_add(value); }
template <class T, class Better>
T atomic_replace(T* at, T value, const Better& better) {
  std::atomic_ref<T> word(*at);
  T old = word.load();
  while (better(value, old) && !word.compare_exchange_weak(old, value)) {
  }
  return old;
}
inline int atomicMin(int* at, int value) { return atomic_replace(at, value, std::less()); }
inline int atomicMax(int* at, int value) { return atomic_replace(at, value, std::greater()); }
inline unsigned long long atomicMax(unsigned long long* at, unsigned long long value) {
  return atomic_replace(at, value, std::greater());
}

// ------------------------------------------------------------------------------------------- on the host

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorInvalidDevice = 101 };

inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : error == cudaErrorInvalidDevice ? "invalid device ordinal" : "invalid configuration argument";
}
inline cudaError_t cudaSetDevice(int device) { return device <= 0 ? cudaSuccess : cudaErrorInvalidDevice; }
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 132;  // an H100's
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}

// Where a test sets one, it gets every launch: the kernel's name as the linker sees it, the number of blocks and of
// threads, and the bytes of the argument.
using LaunchHandler = void (*)(const char*, unsigned, unsigned, const void*, u64);
inline LaunchHandler launch_handler = nullptr;
inline int launch_threads = 1;
extern "C" __attribute__((used)) inline void set_launch_handler(LaunchHandler handler) { launch_handler = handler; }
extern "C" __attribute__((used)) inline void set_launch_threads(int threads) { launch_threads = threads; }

template <class Argument>
cudaError_t cudaLaunchKernel(void (*kernel)(Argument), dim3 grid, dim3 block_shape, void** arguments, size_t, cudaStream_t) {
  if (launch_handler) {
    Dl_info found;
    if (!dladdr(reinterpret_cast<void*>(kernel), &found) || !found.dli_sname) std::abort();
    launch_handler(found.dli_sname, grid.x, block_shape.x, arguments[0], sizeof(Argument));
    return cudaSuccess;
  }
  const Argument& argument = *static_cast<const Argument*>(arguments[0]);
  launch(&grid.x, &block_shape.x, 0, launch_threads, 1, [&] { kernel(argument); });
  return cudaSuccess;
}
