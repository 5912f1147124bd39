// What is known of the nearest instances from the places of a vector of columns.
#pragma once

#include "cpu/simd/simd.h"

namespace flc {
namespace FLC_ISA {

// Integers as wide as the lanes of a vector.
template <class V>
struct NumbersBeside;
template <>
struct NumbersBeside<Floats> {
  using type = Ints;
};
template <>
struct NumbersBeside<Doubles> {
  using type = Vec<int64_t>;
};

// Squares of the distances to the nearest instance and to the nearest other one, +inf where there is none, and
// the number of the nearest, 0 where there is none. The number of the other is not needed: whoever looks from
// farther away, along another axis, takes the nearest, or where that is nearest already, the other.
template <class V>
struct Place {
  using Numbers = typename NumbersBeside<V>::type;
  V near;
  Numbers number;
  V second;
};

}  // namespace FLC_ISA
}  // namespace flc
