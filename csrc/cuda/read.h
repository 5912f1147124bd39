// Reading the elements of a tensor of any dtype.
#pragma once

#include "cuda/device.h"
#include "fastlogconv.h"

namespace flc::cuda {

// 16-bit floats by their bits, so that no header of CUDA's is needed.
struct Float16 {
  uint16_t bits;
  FLC_DEVICE operator float() const {
    const uint32_t sign = uint32_t(bits & 0x8000) << 16, rest = uint32_t(bits & 0x7fff) << 13;
    const uint32_t magnitude =
        rest >= 0x7c00u << 13 ? rest | 0x7f800000u : bits_of(value_of(rest) * 0x1p112f);
    return value_of(sign | magnitude);
  }
  FLC_DEVICE static float value_of(uint32_t from) { return __uint_as_float(from); }
  FLC_DEVICE static uint32_t bits_of(float from) { return __float_as_uint(from); }
};

struct BFloat16 {
  uint16_t bits;
  FLC_DEVICE operator float() const { return __uint_as_float(uint32_t(bits) << 16); }
};

// Of an element.
inline int bytes_of(int32_t dtype) {
  switch (static_cast<flc_dtype>(dtype)) {
    case FLC_BOOL:
    case FLC_UINT8:
    case FLC_INT8:
      return 1;
    case FLC_UINT16:
    case FLC_INT16:
    case FLC_FLOAT16:
    case FLC_BFLOAT16:
      return 2;
    case FLC_UINT32:
    case FLC_INT32:
    case FLC_FLOAT32:
      return 4;
    case FLC_UINT64:
    case FLC_INT64:
    case FLC_FLOAT64:
      break;
  }
  return 8;
}

// Calls function(pointer to the elements) with the type that `dtype` stands for, which is_served.
template <class Function>
FLC_DEVICE void with_type(const void* data, int32_t dtype, const Function& function) {
  switch (static_cast<flc_dtype>(dtype)) {
    case FLC_BOOL:
    case FLC_UINT8:
      return function(static_cast<const uint8_t*>(data));
    case FLC_INT8:
      return function(static_cast<const int8_t*>(data));
    case FLC_UINT16:
      return function(static_cast<const uint16_t*>(data));
    case FLC_INT16:
      return function(static_cast<const int16_t*>(data));
    case FLC_UINT32:
      return function(static_cast<const uint32_t*>(data));
    case FLC_INT32:
      return function(static_cast<const int32_t*>(data));
    case FLC_UINT64:
      return function(static_cast<const uint64_t*>(data));
    case FLC_INT64:
      return function(static_cast<const int64_t*>(data));
    case FLC_FLOAT16:
      return function(static_cast<const Float16*>(data));
    case FLC_BFLOAT16:
      return function(static_cast<const BFloat16*>(data));
    case FLC_FLOAT32:
      return function(static_cast<const float*>(data));
    case FLC_FLOAT64:
      break;
  }
  return function(static_cast<const double*>(data));
}

// The element at an index.
template <class T>
FLC_DEVICE T value_at(const flc_tensor& tensor, int64_t index) {
  T value;
  with_type(tensor.data, tensor.dtype, [&](const auto* data) { value = T(data[index]); });
  return value;
}

}  // namespace flc::cuda
