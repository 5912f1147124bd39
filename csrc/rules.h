// The border rules: one type each, which the kernels for CPU and GPU take as a template parameter.
//
// A rule says what the border term adds to the distance of the nearest instance: where that other distance
// starts, how one more instance ranks, and what the exponent squares. `Order` has smaller(a, b) and
// larger(a, b) of what distances are held in: numbers, or vectors of them. `rank` only chooses among what it
// is given, for that may be the squares of distances.
#pragma once

#include "fastlogconv.h"
#include "formulas.h"

namespace flc {

struct SecondNearest {
  static constexpr flc_border CODE = FLC_SECOND_NEAREST;
  static constexpr int FEWEST_INSTANCES = 2;
  // Whether each of the instances 1..max has a say: one that is absent or out of reach makes the term 0.
  static constexpr bool EVERY_INSTANCE = false;

  template <class T>
  FLC_FORMULA static T start(T infinite) {
    return infinite;
  }
  template <class Order, class T>
  FLC_FORMULA static T rank(T other, T near, T d) {
    return Order::smaller(other, Order::larger(near, d));
  }
  template <class T>
  FLC_FORMULA static T squared(T near, T other) {
    return near + other;
  }
};

struct Farthest {
  static constexpr flc_border CODE = FLC_FARTHEST;
  static constexpr int FEWEST_INSTANCES = 1;
  static constexpr bool EVERY_INSTANCE = true;

  template <class T>
  FLC_FORMULA static T start(T infinite) {
    return -infinite;
  }
  template <class Order, class T>
  FLC_FORMULA static T rank(T other, T, T d) {
    return Order::larger(other, d);
  }
  template <class T>
  FLC_FORMULA static T squared(T near, T other) {
    return near + other;
  }
};

// Calls function(Rule()) for the rule of a code, and returns what it returns; `unknown` for any other code.
template <class Result, class Function>
Result with_border(int32_t border, Result unknown, const Function& function) {
  switch (static_cast<flc_border>(border)) {
    case FLC_SECOND_NEAREST:
      return function(SecondNearest());
    case FLC_FARTHEST:
      return function(Farthest());
  }
  return unknown;
}

}  // namespace flc
