// Stage 3, compose: from what the instances add up to at a pixel to its weight.
#pragma once

#include "cpu/simd/accumulate.h"

namespace flc {
namespace FLC_ISA {

FLC_INLINE Floats square_root(Floats x) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#elif defined(__AVX2__)
  return (Floats)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
  return (Floats)_mm_sqrt_ps((__m128)x);
#elif defined(__aarch64__)
  return (Floats)vsqrtq_f32((float32x4_t)x);
#else
  for (int lane = 0; lane < Number<Floats>::lanes; ++lane) x[lane] = sqrtf(x[lane]);
  return x;
#endif
}
FLC_INLINE Doubles square_root(Doubles x) {
  for (int lane = 0; lane < Number<Doubles>::lanes; ++lane) x[lane] = sqrt(x[lane]);
  return x;
}

// squared: what stage 2 collected are the squares of the distances.
template <class Out, class Result, class Border, bool squared = false>
class Composer {
  using V = Vec<Out>;
  static constexpr int lanes = Number<V>::lanes;

 public:
  // on_top: adds to weights what instances contribute to them.
  explicit Composer(const Settings& settings, bool on_top = false)
      : on_top_(on_top),
        ratio_(Out(on_top ? 0 : settings.fbr)),
        rest_(Out((1 - settings.fbr) * settings.sum_factor)),
        nearest_rest_(Out((1 - settings.fbr) * settings.nearest_factor)),
        foreground_exponent_(Out(settings.foreground_exponent)),
        border_factor_(Out(settings.bwf)),
        border_exponent_(Out(settings.border_exponent)) {}

  // Weights of one row of a block; the border term in its columns first_bordered..last_bordered alone.
  void compose(const Out* row, int32_t first_bordered, int32_t last_bordered, Result* weights,
               int32_t width) const {
    if (width == BLOCK && !on_top_) {
      compose_block(row, first_bordered, last_bordered, weights);
    } else {
      Result whole[BLOCK];
      compose_block(row, first_bordered, last_bordered, whole);
      for (int32_t i = 0; i < width; ++i) weights[i] = on_top_ ? weights[i] + whole[i] : whole[i];
    }
  }

  // A row that no instance reaches.
  void untouched(Result* weights, int32_t width) const {
    for (int32_t i = 0; i < width; ++i) weights[i] = Result(ratio_);
  }

 private:
  FLC_INLINE void compose_block(const Out* row, int32_t first_bordered, int32_t last_bordered,
                                Result* weights) const {
    for (int32_t i = 0; i < BLOCK; i += lanes) {
      const V sum = load<V>(row + i);
      V weight = multiply_add(sum, V{} + rest_, V{} + ratio_);
      if constexpr (has_border<Border>) {
        if (nearest_rest_ != 0) {
          const V square = square_of(load<V>(row + BLOCK + i));
          weight = multiply_add(power_of_two(square * foreground_exponent_), V{} + nearest_rest_, weight);
        }
        if (first_bordered < i + lanes && last_bordered >= i) {
          const V both = Border::squared(root(load<V>(row + BLOCK + i)), root(load<V>(row + 2 * BLOCK + i)));
          V border = power_of_two(both * both * border_exponent_) * border_factor_;
          if (first_bordered > i || last_bordered < i + lanes - 1) {
            for (int lane = 0; lane < lanes; ++lane)
              if (i + lane < first_bordered || i + lane > last_bordered) border[lane] = 0;
          }
          weight += border;
        }
      }
      weight = sum < Out(0) ? V{} + Out(1) : weight;
      if constexpr (sizeof(Out) == sizeof(Result)) {
        store<V>(weights + i, weight);
      } else {
        for (int lane = 0; lane < lanes; ++lane) weights[i + lane] = Result(weight[lane]);
      }
    }
  }

  // The distance of what was collected, BEYOND where there is none within reach.
  static FLC_INLINE V root(V collected) {
    if constexpr (!squared) return collected;
    return collected < Out(BEYOND) ? square_root(larger(collected, V{})) : collected;
  }

  static FLC_INLINE V square_of(V collected) {
    if constexpr (!squared) return collected * collected;
    return collected < Out(BEYOND) ? larger(collected, V{}) : broadcast<V>(Out(BEYOND) * Out(BEYOND));
  }

  const bool on_top_;
  const Out ratio_, rest_, nearest_rest_, foreground_exponent_, border_factor_, border_exponent_;
};

}  // namespace FLC_ISA
}  // namespace flc
