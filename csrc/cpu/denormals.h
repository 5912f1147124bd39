// Whether this thread takes denormal numbers for what they are.
#pragma once

#include <stdint.h>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "cpu/plan.h"

namespace flc {

#if defined(__SSE2__)
using FloatControl = unsigned;
constexpr FloatControl denormals_are_zero = 0x8040;
FLC_INLINE FloatControl float_control() {
  return _mm_getcsr();
}
FLC_INLINE void set_float_control(FloatControl control) {
  _mm_setcsr(control);
}
#elif defined(__aarch64__)
using FloatControl = uint64_t;
constexpr FloatControl denormals_are_zero = FloatControl(1) << 24;
FLC_INLINE FloatControl float_control() {
  FloatControl control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  return control;
}
FLC_INLINE void set_float_control(FloatControl control) {
  asm volatile("msr fpcr, %0" : : "r"(control));
}
#else
using FloatControl = unsigned;
constexpr FloatControl denormals_are_zero = 0;
FLC_INLINE FloatControl float_control() {
  return 0;
}
FLC_INLINE void set_float_control(FloatControl) {}
#endif

// The thread gets its own setting back in the end.
template <bool ARE_ZERO>
class Denormals {
 public:
  FLC_INLINE Denormals() {
    set_float_control(ARE_ZERO ? saved_ | denormals_are_zero : saved_ & ~denormals_are_zero);
  }
  FLC_INLINE ~Denormals() { set_float_control(saved_); }

 private:
  const FloatControl saved_ = float_control();
};

// While numbers are computed: sums that decay to nothing would else take 100 times as long.
using DenormalsAreZero = Denormals<true>;
// Where input is read: a denormal number is not background.
using DenormalsCount = Denormals<false>;

}  // namespace flc
