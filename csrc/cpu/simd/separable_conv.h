// The separable convolution with exp(-|t| / decay_length): windowed sums along the rows, then along the
// columns, a band of them at a time.
#pragma once

#include "cpu/simd/elements.h"
#include "cpu/simd/windowed_sum.h"

namespace flc {
namespace FLC_ISA {

// Fills the padding before and after the `count` values that start at values[radius * vectors].
template <class S>
inline void fill_padding(S* values, int64_t count, int32_t radius, int32_t vectors, int32_t padding) {
  const S zero = broadcast<S>(Number<S>::zero);
  const auto copy = [&](int64_t to, int64_t from) {
    for (int32_t v = 0; v < vectors; ++v)
      values[to * vectors + v] = from < 0 ? zero : values[(radius + from) * vectors + v];
  };
  for (int64_t i = 0; i < radius; ++i) {
    copy(i, padded_index<int64_t>(i - radius, count, padding));
    copy(radius + count + i, padded_index<int64_t>(count + i, count, padding));
  }
}

// Adds what shows the value of either edge further out than the padding: to the `count` sums at
// sums[i * vectors], with the values that they belong to at values[i * stride].
template <class S>
inline void add_edges(const S* values, int64_t stride, int64_t count, int32_t vectors, double edge_weight,
                      S* sums) {
  if (edge_weight == 0) return;
  using Scalar = typename Number<S>::Scalar;
  for (int32_t v = 0; v < vectors; ++v) {
    const S further = (values[v] + values[(count - 1) * stride + v]) * broadcast<S>(Scalar(edge_weight));
    for (int64_t i = 0; i < count; ++i) sums[i * vectors + v] = sums[i * vectors + v] + further;
  }
}

// The numbers 0, 1, .. as a type, to expand into the arguments of a shuffle.
template <int... lane>
struct Lanes {};
template <int n, int... lane>
struct CountedLanes : CountedLanes<n - 1, n - 1, lane...> {};
template <int... lane>
struct CountedLanes<0, lane...> {
  using type = Lanes<lane...>;
};
template <int n>
using LanesUpTo = typename CountedLanes<n>::type;

// Swaps the lanes of rows[i] and rows[i + step] that lie in each other's half of a square of 2 step: after
// steps 1, 2, .., lanes / 2 a square of `lanes` rows is transposed.
template <int step, class S, int... lane>
FLC_INLINE void exchange(S& upper, S& lower, Lanes<lane...>) {
  constexpr int n = sizeof...(lane);
  const S a = upper, b = lower;
#if __has_builtin(__builtin_shufflevector)
  upper = __builtin_shufflevector(a, b, (lane & step ? n + lane - step : lane)...);
  lower = __builtin_shufflevector(a, b, (lane & step ? n + lane : lane + step)...);
#else  // GCC 11
  using Index = decltype(a < b);
  upper = __builtin_shuffle(a, b, Index{(lane & step ? n + lane - step : lane)...});
  lower = __builtin_shuffle(a, b, Index{(lane & step ? n + lane : lane + step)...});
#endif
}

template <int step, class S>
FLC_INLINE void transpose(S* rows) {
  constexpr int lanes = Number<S>::lanes;
  if constexpr (step < lanes) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i)
      if (!(i & step)) exchange<step>(rows[i], rows[i + step], LanesUpTo<lanes>());
    transpose<2 * step>(rows);
  }
}

// The row-major plane from[y][x] to to[x * vectors * lanes + y] for y in [0, rows), the last row standing in
// for those that lack to vectors * lanes, and back. Both may be read and written up to a multiple of `lanes`.
template <class S>
inline void rows_to_lanes(const typename Number<S>::Scalar* from, int64_t stride, int32_t rows,
                          int64_t columns, int32_t vectors, typename Number<S>::Scalar* to) {
  constexpr int32_t lanes = Number<S>::lanes;
  for (int32_t v = 0; v < vectors; ++v) {
    for (int64_t x = 0; x < columns; x += lanes) {
      S square[lanes];
      for (int32_t i = 0; i < lanes; ++i)
        square[i] = load<S>(from + smaller(v * lanes + i, rows - 1) * stride + x);
      transpose<1>(square);
      for (int32_t i = 0; i < lanes; ++i) store<S>(to + ((x + i) * vectors + v) * lanes, square[i]);
    }
  }
}

template <class S>
inline void lanes_to_rows(const typename Number<S>::Scalar* from, int32_t vectors, int32_t rows,
                          int64_t columns, int64_t stride, typename Number<S>::Scalar* to) {
  constexpr int32_t lanes = Number<S>::lanes;
  for (int32_t v = 0; v * lanes < rows; ++v) {
    for (int64_t x = 0; x < columns; x += lanes) {
      S square[lanes];
      for (int32_t i = 0; i < lanes; ++i) square[i] = load<S>(from + ((x + i) * vectors + v) * lanes);
      transpose<1>(square);
      for (int32_t i = 0; i < lanes && v * lanes + i < rows; ++i)
        store<S>(to + (v * lanes + i) * stride + x, square[i]);
    }
  }
}

// Row y of an image as numbers.
template <class Scalar>
inline void read_row(const flc_tensor& input, int64_t index, int64_t width, Scalar* to) {
  const int64_t stride = input.stride[2];
  const auto convert = [&](const auto* from) {
    if (stride == 1)
      for (int64_t x = 0; x < width; ++x) to[x] = Scalar(from[x]);
    else
      for (int64_t x = 0; x < width; ++x) to[x] = Scalar(from[x * stride]);
  };
  if (input.dtype == FLC_FLOAT32) {
    convert(static_cast<const float*>(input.data) + index);
  } else if (input.dtype == FLC_FLOAT64) {
    convert(static_cast<const double*>(input.data) + index);
  } else {
    for (int64_t x = 0; x < width; ++x) to[x] = Scalar(read_value(input, index + x * stride));
  }
}

template <class Scalar>
inline const KernelTables<Scalar>& tables_of(const ConvolutionAxis& axis) {
  if constexpr (sizeof(Scalar) == sizeof(float))
    return *axis.single_tables;
  else
    return *axis.double_tables;
}

// Along the rows: `vectors` vectors of rows at a time, turned so that each lane holds a row. Along the
// columns: as many columns at a time.
template <class S, class Result>
inline int32_t convolve(const flc_tensor& input, int64_t image, const ConvolutionAxis& along_rows,
                        const ConvolutionAxis& along_columns, int32_t padding, Result* out) {
  using Scalar = typename Number<S>::Scalar;
  constexpr int32_t lanes = Number<S>::lanes, vectors = 4, band = vectors * lanes;
  const KernelTables<Scalar>&row_tables = tables_of<Scalar>(along_rows),
        &column_tables = tables_of<Scalar>(along_columns);
  const int32_t row_radius = row_tables.radius, column_radius = column_tables.radius;
  const int64_t height = input.size[1], width = input.size[2];
  const int64_t padded_width = width + 2 * int64_t(row_radius),
                padded_height = height + 2 * int64_t(column_radius),
                longest = larger(padded_width, padded_height) + lanes;
  const int64_t stride = (width + band - 1) / band * band + lanes;  // an odd number of vectors
  const int64_t sequence_bytes = longest * vectors * int64_t(sizeof(S));
  char* const memory = static_cast<char*>(
      aligned_allocate(3 * sequence_bytes + (padded_height + band) * stride * int64_t(sizeof(Scalar))));
  if (!memory) return FLC_OUT_OF_MEMORY;
  S* const values = reinterpret_cast<S*>(memory);
  S* const sums = reinterpret_cast<S*>(memory + sequence_bytes);
  S* const workspace = reinterpret_cast<S*>(memory + 2 * sequence_bytes);
  Scalar* const plane = reinterpret_cast<Scalar*>(memory + 3 * sequence_bytes);
  Scalar* const rows_begin = plane + column_radius * stride;
  S *const first = values + row_radius * vectors, *const sum_in_row = sums + row_radius * vectors,
           *const sum_in_column = sums + column_radius * vectors;

  for (int64_t y = 0; y < height; y += band) {
    const int32_t rows = int32_t(smaller<int64_t>(band, height - y));
    for (int32_t row = 0; row < rows; ++row) {
      Scalar* const to = rows_begin + (y + row) * stride;
      read_row(input, image * input.stride[0] + (y + row) * input.stride[1], width, to);
      for (int64_t x = width; x < stride; ++x) to[x] = 0;
    }
    rows_to_lanes<S>(rows_begin + y * stride, stride, rows, width, vectors, reinterpret_cast<Scalar*>(first));
    fill_padding(values, width, row_radius, vectors, padding);
    windowed_sums_of<vectors>(values, vectors, vectors, padded_width, row_tables, workspace, sums, false);
    add_edges(first, vectors, width, vectors, along_rows.edge_weight, sum_in_row);
    lanes_to_rows<S>(reinterpret_cast<const Scalar*>(sum_in_row), vectors, rows, width, stride,
                     rows_begin + y * stride);
  }
  // The rows of the plane with their padding are the sequences of the second pass as they stand.
  fill_padding(reinterpret_cast<S*>(plane), height, column_radius, int32_t(stride / lanes), padding);
  for (int64_t x = 0; x < width; x += band) {
    const int32_t columns = int32_t(smaller<int64_t>(band, width - x));
    windowed_sums_of<vectors>(reinterpret_cast<const S*>(plane + x), stride / lanes, vectors, padded_height,
                              column_tables, workspace, sums, false);
    add_edges(reinterpret_cast<const S*>(rows_begin + x), stride / lanes, height, vectors,
              along_columns.edge_weight, sum_in_column);
    for (int64_t y = 0; y < height; ++y) {
      const Scalar* const from = reinterpret_cast<const Scalar*>(sum_in_column + y * vectors);
      Result* const to = out + y * width + x;
      for (int32_t i = 0; i < band; i += 64 / int32_t(sizeof(Result)))
        __builtin_prefetch(to + 16 * width + i, 1);
      if (columns == band) {
        for (int32_t i = 0; i < band; ++i) to[i] = Result(from[i]);
      } else {
        for (int32_t i = 0; i < columns; ++i) to[i] = Result(from[i]);
      }
    }
  }
  aligned_free(memory);
  return FLC_OK;
}

inline int32_t separable_conv2d(const flc_tensor* input, int64_t image, const ConvolutionAxis* along_rows,
                                const ConvolutionAxis* along_columns, int32_t padding, void* out,
                                int32_t out_dtype) {
  const int64_t offset = image * input->size[1] * input->size[2];
  if (out_dtype == FLC_FLOAT64)
    return convolve<Doubles>(*input, image, *along_rows, *along_columns, padding,
                             static_cast<double*>(out) + offset);
  const auto convolve_to_single =
      along_rows->single_tables ? convolve<Floats, float> : convolve<Doubles, float>;
  return convolve_to_single(*input, image, *along_rows, *along_columns, padding,
                            static_cast<float*>(out) + offset);
}

}  // namespace FLC_ISA
}  // namespace flc
