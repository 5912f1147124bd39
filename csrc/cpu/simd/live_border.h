// The border rules of rules.h as template parameters of the kernels: `Border` is one of them, or NoBorder.
#pragma once

#include "cpu/simd/simd.h"
#include "rules.h"

namespace flc {
namespace FLC_ISA {

// Stands for a rule where the border term is 0 all over.
struct NoBorder {
  static constexpr bool EVERY_INSTANCE = false;
};

template <class Border>
constexpr bool has_border = true;
template <>
constexpr bool has_border<NoBorder> = false;

// How a rule ranks vectors of distances.
struct Order {
  template <class V>
  static FLC_INLINE V smaller(V a, V b) {
    return FLC_ISA::smaller(a, b);
  }
  template <class V>
  static FLC_INLINE V larger(V a, V b) {
    return FLC_ISA::larger(a, b);
  }
};

// Calls function(rule) for what is alive in a plan. Whoever asks for the nearest distance gets a rule that keeps
// it: where nothing is alive, it adds nothing.
template <class Function>
inline int32_t with_live_border(const ImagePlan& plan, const Settings& settings, const Function& function) {
  const Rectangle& area = plan.border_area;
  if (area.top > area.bottom || area.left > area.right)
    return settings.nearest_factor != 0 ? function(SecondNearest()) : function(NoBorder());
  return with_border(settings.border, int32_t(FLC_UNSUPPORTED), function);
}

}  // namespace FLC_ISA
}  // namespace flc
