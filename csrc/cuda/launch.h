// On the host: launches, and what the functions of the C interface check and return.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "fastlogconv.h"
#include "rules.h"

namespace flc::cuda {

// FLC_OK, or the negative of CUDA's error.
inline int32_t status_of(cudaError_t error) {
  return -int32_t(error);
}

// A kernel of this library takes one struct; `blocks` may be more than a grid can have.
template <class Arguments>
int32_t launch(void (*kernel)(Arguments), int64_t blocks, int threads, Arguments arguments,
               cudaStream_t stream) {
  if (blocks > std::numeric_limits<int32_t>::max()) return status_of(cudaErrorInvalidConfiguration);
  void* parameters[] = {&arguments};
  return status_of(
      cudaLaunchKernel(kernel, dim3(unsigned(blocks)), dim3(unsigned(threads)), parameters, 0, stream));
}

// SMs of a device that can be had; CUDA is asked once.
inline int64_t processors_of(int32_t device) {
  static std::atomic<int> known[64];  // 0: not yet
  int count = device < 64 ? known[device].load(std::memory_order_relaxed) : 0;
  if (count == 0) {
    count = 1;
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    if (device < 64) known[device].store(count, std::memory_order_relaxed);
  }
  return count;
}

// What `call` returns on a device, or why it cannot be had.
template <class Call>
int32_t on_device(int32_t device, const Call& call) {
  const cudaError_t error = cudaSetDevice(device);
  return error == cudaSuccess ? call() : status_of(error);
}

// --------------------------------------------------------------------------------------- what is served

// Images, or regions, of a dtype that kernels read.
inline bool is_served(const flc_tensor& tensor) {
  return tensor.axes == 3 && tensor.dtype >= FLC_BOOL && tensor.dtype <= FLC_FLOAT64;
}

// What may be missing, and has one dtype only.
inline bool is_served(const flc_tensor* optional, flc_dtype dtype) {
  return !optional || (optional->axes == 3 && optional->dtype == dtype);
}

// Positions within an image are ints.
inline bool sizes_served(const flc_tensor& tensor) {
  return tensor.size[1] <= 1 << 30 && tensor.size[2] <= 1 << 30;
}

inline bool is_result_dtype(int32_t dtype) {
  return dtype == FLC_FLOAT32 || dtype == FLC_FLOAT64;
}

// Calls function(the distance's code, as a constant of its own type) and returns what it returns.
template <class Function>
int32_t with_distance(int32_t distance, const Function& function) {
  switch (static_cast<flc_distance>(distance)) {
    case FLC_LOGCONV:
      return function(std::integral_constant<flc_distance, FLC_LOGCONV>());
    case FLC_EUCLIDEAN:
      return function(std::integral_constant<flc_distance, FLC_EUCLIDEAN>());
  }
  return FLC_UNSUPPORTED;
}

// Likewise function(the distance's code, the border rule).
template <class Function>
int32_t with_rules(const flc_weight_params& params, const Function& function) {
  return with_distance(params.distance, [&](auto distance) {
    return with_border(params.border, int32_t(FLC_UNSUPPORTED),
                       [&](auto border) { return function(distance, border); });
  });
}

}  // namespace flc::cuda
