// Distances to weights: stages 2 and 3 on distances that the caller found.
#pragma once

#include "cpu/simd/compose.h"
#include "cpu/simd/elements.h"

namespace flc {
namespace FLC_ISA {

// Columns x.. of one row of distances as Real; false where one is NaN or -inf. They are taken as they are,
// however large: two of them may cancel in the border term.
template <class Real>
inline bool read_distances(const flc_tensor& distance, int64_t index, int32_t columns, Real* to,
                           double* bad_value) {
  const int64_t stride = distance.stride[2];
  if (distance.dtype == FLC_FLOAT32) {
    const float* const from = static_cast<const float*>(distance.data) + index;
    if (stride == 1)
      for (int32_t i = 0; i < columns; ++i) to[i] = Real(from[i]);
    else
      for (int32_t i = 0; i < columns; ++i) to[i] = Real(from[i * stride]);
  } else {
    for (int32_t i = 0; i < columns; ++i) to[i] = Real(read_value(distance, index + i * stride));
  }
  int32_t wrong = 0;
  for (int32_t i = 0; i < columns; ++i) wrong += !(to[i] > Real(-INFINITY));
  for (int32_t i = 0; wrong && i < columns; ++i)
    if (!(to[i] > Real(-INFINITY))) *bad_value = to[i];
  for (int32_t i = columns; i < BLOCK; ++i) to[i] = Real(INFINITY);
  return wrong == 0;
}

template <class Real, class Result, class Border>
int32_t weigh_distances(const flc_tensor& distance, const flc_tensor* foreground, const Settings& settings,
                        int64_t begin, int64_t end, Result* out, double* bad_value) {
  constexpr int32_t stride = ROW_STRIDE<Real, Border>;
  const int64_t regions = distance.size[0];
  const int32_t width = int32_t(distance.size[2]), blocks = (width + BLOCK - 1) / BLOCK;
  const Accumulator<Real, Border> accumulator(settings);
  const Composer<Real, Result, Border> composer(settings);
  Real* const row = static_cast<Real*>(aligned_allocate(blocks * int64_t(stride) * sizeof(Real)));
  if (!row) return FLC_OUT_OF_MEMORY;
  int32_t status = FLC_OK;
  for (int64_t y = begin; y < end && status == FLC_OK; ++y) {
    for (int32_t block = 0; block < blocks; ++block)
      accumulator.clear(row + int64_t(block) * stride, Real(INFINITY));
    for (int64_t region = 0; region < regions; ++region) {
      const int64_t index = region * distance.stride[0] + y * distance.stride[1];
      for (int32_t block = 0; block < blocks; ++block) {
        const int32_t x = block * BLOCK;
        Real d[BLOCK];
        if (!read_distances(distance, index + x * distance.stride[2], smaller(BLOCK, width - x), d,
                            bad_value))
          status = FLC_NOT_AN_ID;
        accumulator.add_block_row(row + int64_t(block) * stride, d);
      }
    }
    for (int32_t block = 0; block < blocks; ++block) {
      const int32_t x = block * BLOCK;
      composer.compose(row + int64_t(block) * stride, 0, BLOCK - 1, out + y * width + x,
                       smaller(BLOCK, width - x));
    }
    if (foreground) {
      const uint8_t* const mask = static_cast<const uint8_t*>(foreground->data) + y * foreground->stride[1];
      for (int32_t x = 0; x < width; ++x)
        if (mask[x * foreground->stride[2]]) out[y * width + x] = 1;
    }
  }
  aligned_free(row);
  return status;
}

template <class Real, class Result>
int32_t weigh_distances_as(const flc_tensor& distance, const flc_tensor* foreground, const Settings& settings,
                           int64_t begin, int64_t end, void* out, double* bad_value) {
  return with_border(settings.border, int32_t(FLC_UNSUPPORTED), [&](auto border) {
    using Border = decltype(border);
    const bool alive = distance.size[0] >= Border::FEWEST_INSTANCES;
    // The nearest distance is kept by each rule; by this one nothing comes of less than two.
    const auto without_border = settings.nearest_factor != 0 ? weigh_distances<Real, Result, SecondNearest>
                                                             : weigh_distances<Real, Result, NoBorder>;
    const auto weigh = alive ? weigh_distances<Real, Result, Border> : without_border;
    return weigh(distance, foreground, settings, begin, end, static_cast<Result*>(out), bad_value);
  });
}

inline int32_t distance_to_weight(const flc_tensor* distance, const flc_tensor* foreground,
                                  const Settings* settings, Precision precision, int64_t begin, int64_t end,
                                  void* out, double* bad_value) {
  const auto weigh = precision == FLOAT_THROUGHOUT ? weigh_distances_as<float, float>
                     : precision == DOUBLE_INSIDE  ? weigh_distances_as<double, float>
                                                   : weigh_distances_as<double, double>;
  return weigh(*distance, foreground, *settings, begin, end, out, bad_value);
}

}  // namespace FLC_ISA
}  // namespace flc
