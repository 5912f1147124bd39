#include <cuda_runtime.h>

#include "fastlogconv.h"

extern "C" {

int32_t flc_cuda_abi_version(void) {
  return FLC_ABI_VERSION;
}

const char* flc_cuda_error_text(int32_t error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

}  // extern "C"
