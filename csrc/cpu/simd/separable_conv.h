// The separable convolution with exp(-|t| / decay_length): windowed sums along the rows, then along the
// columns, `lanes` of them at a time.
#pragma once

#include "cpu/simd/windowed_sum.h"

namespace flc {
namespace FLC_ISA {

// The index that position `i` of a sequence of `count` values padded on both sides stands for; -1 for a zero.
FLC_INLINE int64_t padded_index(int64_t i, int64_t count, int32_t padding) {
  if (i >= 0 && i < count) return i;
  switch (padding) {
    case FLC_REFLECT:
      return i < 0 ? -i : 2 * (count - 1) - i;
    case FLC_REPLICATE:
      return i < 0 ? 0 : count - 1;
    case FLC_CIRCULAR:
      return i < 0 ? i + count : i - count;
    default:
      return -1;
  }
}

// Fills the padding of values[0 .. radius) and after values[radius + count) from the values between.
template <class S>
inline void fill_padding(S* values, int64_t count, int32_t radius, int32_t padding) {
  const S zero = broadcast<S>(Number<S>::zero);
  for (int64_t i = 0; i < radius; ++i) {
    const int64_t before = padded_index(i - radius, count, padding),
                  after = padded_index(count + i, count, padding);
    values[i] = before < 0 ? zero : values[radius + before];
    values[radius + count + i] = after < 0 ? zero : values[radius + after];
  }
}

// from[y][x] at the given strides to to[x * lanes + y], y in [0, rows), x in [0, count).
template <class From, class To>
inline void gather_lanes(const From* from, int64_t row_stride, int64_t stride, int32_t rows, int64_t count,
                         int32_t lanes, To* to) {
  for (int32_t y = 0; y < rows; ++y)
    for (int64_t x = 0; x < count; ++x) to[x * lanes + y] = To(from[y * row_stride + x * stride]);
}

template <class S>
inline void read_lanes(const flc_tensor& input, int64_t index, int64_t row_stride, int64_t stride,
                       int32_t rows, int64_t count, typename Number<S>::Scalar* to) {
  const int32_t lanes = Number<S>::lanes;
  if (input.dtype == FLC_FLOAT32) {
    gather_lanes(static_cast<const float*>(input.data) + index, row_stride, stride, rows, count, lanes, to);
  } else if (input.dtype == FLC_FLOAT64) {
    gather_lanes(static_cast<const double*>(input.data) + index, row_stride, stride, rows, count, lanes, to);
  } else {
    using Scalar = typename Number<S>::Scalar;
    for (int32_t y = 0; y < rows; ++y)
      for (int64_t x = 0; x < count; ++x)
        to[x * lanes + y] = Scalar(read_value(input, index + y * row_stride + x * stride));
  }
}

template <class S, class Result>
inline int32_t convolve(const flc_tensor& input, int64_t image,
                        const KernelTables<typename Number<S>::Scalar>& tables, int32_t padding,
                        Result* out) {
  using Scalar = typename Number<S>::Scalar;
  constexpr int32_t lanes = Number<S>::lanes;
  const int64_t height = input.size[1], width = input.size[2], radius = tables.radius;
  const int64_t longest = larger(height, width) + 2 * radius;
  const int64_t padded_width =
      (width + lanes - 1) / lanes * lanes + lanes;  // odd in vectors more often than not
  char* const memory = static_cast<char*>(
      aligned_allocate(3 * longest * int64_t(sizeof(S)) + height * padded_width * int64_t(sizeof(Scalar))));
  if (!memory) return FLC_OUT_OF_MEMORY;
  S* const values = reinterpret_cast<S*>(memory);
  S *const sums = values + longest, *const workspace = sums + longest;
  Scalar* const rows_summed = reinterpret_cast<Scalar*>(workspace + longest);

  for (int64_t i = 0; i < width + 2 * radius; ++i) values[i] = S{};
  for (int64_t y = 0; y < height; y += lanes) {
    const int32_t rows = int32_t(smaller<int64_t>(lanes, height - y));
    read_lanes<S>(input, image * input.stride[0] + y * input.stride[1], input.stride[1], input.stride[2],
                  rows, width, reinterpret_cast<Scalar*>(values + radius));
    fill_padding(values, width, int32_t(radius), padding);
    windowed_sums<S>(values, 1, width + 2 * radius, tables, workspace, sums, false);
    const Scalar* const from = reinterpret_cast<const Scalar*>(sums + radius);
    for (int32_t row = 0; row < rows; ++row)
      for (int64_t x = 0; x < width; ++x) rows_summed[(y + row) * padded_width + x] = from[x * lanes + row];
  }
  for (int64_t x = 0; x < width; x += lanes) {
    const int32_t columns = int32_t(smaller<int64_t>(lanes, width - x));
    for (int64_t y = 0; y < height; ++y) values[radius + y] = load<S>(rows_summed + y * padded_width + x);
    fill_padding(values, height, int32_t(radius), padding);
    windowed_sums<S>(values, 1, height + 2 * radius, tables, workspace, sums, false);
    const Scalar* const from = reinterpret_cast<const Scalar*>(sums + radius);
    for (int64_t y = 0; y < height; ++y)
      for (int32_t column = 0; column < columns; ++column)
        out[y * width + x + column] = Result(from[y * lanes + column]);
  }
  aligned_free(memory);
  return FLC_OK;
}

inline int32_t separable_conv2d(const flc_tensor* input, int64_t image,
                                const KernelTables<float>* single_tables,
                                const KernelTables<double>* double_tables, int32_t padding, void* out,
                                int32_t out_dtype) {
  const int64_t offset = image * input->size[1] * input->size[2];
  if (out_dtype == FLC_FLOAT64)
    return convolve<Doubles>(*input, image, *double_tables, padding, static_cast<double*>(out) + offset);
  float* const to = static_cast<float*>(out) + offset;
  return single_tables ? convolve<Floats>(*input, image, *single_tables, padding, to)
                       : convolve<Doubles>(*input, image, *double_tables, padding, to);
}

}  // namespace FLC_ISA
}  // namespace flc
