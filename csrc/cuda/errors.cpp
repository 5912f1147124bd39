#include <cuda_runtime.h>

#include "fastlogconv.h"

extern "C" {

int32_t flc_cuda_abi_version(void) {
  return FLC_ABI_VERSION;
}

int32_t flc_cuda_runtime_version(void) {
  return CUDART_VERSION;
}

int32_t flc_cuda_driver_version(void) {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

const char* flc_cuda_error_text(int32_t error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

}  // extern "C"
