// The two nearest instances along rows: from runs of labels to places.
#pragma once

#include "cpu/simd/nearest_place.h"

namespace flc {
namespace FLC_ISA {

// From a pixel one sees at most four runs that matter: the next to the left and the next of another instance
// beyond it, and likewise to the right. They are the same all along a run, and all along a gap, so that each
// of these is filled in vectors, the next over what reaches past its end.
template <class V>
class NearestInRows {
  using Real = typename Number<V>::Scalar;
  using Numbers = typename Place<V>::Numbers;
  using Integer = std::conditional_t<sizeof(Real) == 4, int32_t, int64_t>;
  static constexpr int lanes = Number<V>::lanes;

  // Looking to one side: the next run, and the next of another instance. Positions are of their ends.
  struct Side {
    Integer number;
    Real at, other_at;
  };

 public:
  NearestInRows(double step, int32_t height, int32_t width, Place<V>* to)
      : step_(Real(step)),
        height_(height),
        width_(width),
        padded_((width + lanes - 1) / lanes * lanes),
        line_(padded_ + lanes),
        to_(to) {
    for (int i = 0; i < lanes; ++i) lane_[i] = Real(i);
  }
  ~NearestInRows() { aligned_free(memory_); }
  NearestInRows(const NearestInRows&) = delete;
  NearestInRows& operator=(const NearestInRows&) = delete;

  // Lines of a row: near, numbers, second, and for each run what is to its right.
  bool allocate() {
    const int64_t bytes = 3 * line_ * int64_t(sizeof(Real)) + (width_ + 1) * int64_t(sizeof(Side));
    memory_ = static_cast<char*>(aligned_allocate(bytes));
    near_ = reinterpret_cast<Real*>(memory_);
    second_ = near_ + line_;
    numbers_ = reinterpret_cast<Integer*>(second_ + line_);
    right_ = reinterpret_cast<Side*>(numbers_ + line_);
    return memory_ != nullptr;
  }

  void fill_row(int32_t y, const Run* begin, const Run* end) {
    const int64_t count = end - begin;
    Side side{0, Real(INFINITY), Real(INFINITY)};
    right_[count] = side;
    for (int64_t i = count; i-- > 0;) {
      side = beyond(side, begin[i].instance, Real(begin[i].first));
      right_[i] = side;
    }
    side = {0, Real(-INFINITY), Real(-INFINITY)};
    int32_t x = 0;
    for (int64_t i = 0; i < count; ++i) {
      const Run& run = begin[i];
      if (x < run.first) fill_gap(x, run.first, side, right_[i]);
      side = beyond(side, run.instance, Real(run.last));
      fill_run(run, side.other_at, right_[i].other_at);
      x = run.last + 1;
    }
    if (x < width_) fill_gap(x, width_, side, right_[count]);
    for (int32_t i = width_; i < padded_; ++i) near_[i] = second_[i] = 0, numbers_[i] = 0;  // found already
    for (int32_t i = 0; i < padded_; i += lanes) {
      Place<V>& place = to_[int64_t(i / lanes) * height_ + y];
      place.near = load<V>(near_ + i);
      memcpy(&place.number, numbers_ + i, sizeof(place.number));
      place.second = load<V>(second_ + i);
    }
  }

 private:
  // What one sees from beyond a run that ends `at`, where `side` is seen from the run.
  static FLC_INLINE Side beyond(Side side, Integer number, Real at) {
    return {number, at, side.number == number ? side.other_at : side.at};
  }

  FLC_INLINE V square(V distance) const {
    distance *= V{} + step_;
    return distance * distance;
  }

  FLC_INLINE void put(int32_t x, V near, Numbers numbers, V second) {
    store<V>(near_ + x, square(near));
    memcpy(numbers_ + x, &numbers, sizeof(numbers));
    store<V>(second_ + x, square(second));
  }

  FLC_INLINE void fill_run(const Run& run, Real left_other, Real right_other) {
    for (int32_t x = run.first; x <= run.last; x += lanes) {
      const V at = lane_ + Real(x);
      put(x, V{}, Numbers{} + Integer(run.instance), smaller(at - left_other, right_other - at));
    }
  }

  FLC_INLINE void fill_gap(int32_t begin, int32_t end, const Side& left, const Side& right) {
    if (left.number == right.number) {
      for (int32_t x = begin; x < end; x += lanes) {
        const V at = lane_ + Real(x);
        put(x, smaller(at - left.at, right.at - at), Numbers{} + left.number,
            smaller(at - left.other_at, right.other_at - at));
      }
      return;
    }
    const bool left_wins = left.number < right.number;
    for (int32_t x = begin; x < end; x += lanes) {
      const V at = lane_ + Real(x), to_left = at - left.at, to_right = right.at - at;
      const Numbers is_left = left_wins ? to_left <= to_right : to_left < to_right;
      put(x, smaller(to_left, to_right), is_left ? Numbers{} + left.number : Numbers{} + right.number,
          is_left ? smaller(to_right, at - left.other_at) : smaller(to_left, right.other_at - at));
    }
  }

  const Real step_;
  const int32_t height_, width_, padded_;
  const int64_t line_;
  Place<V>* const to_;
  V lane_;
  char* memory_ = nullptr;
  Real *near_ = nullptr, *second_ = nullptr;
  Integer* numbers_ = nullptr;
  Side* right_ = nullptr;
};

template <class V>
inline int32_t nearest_in_rows_of(double step, const Run* runs, const Run* runs_end, int32_t begin,
                                  int32_t end, int32_t height, int32_t width, void* to) {
  NearestInRows<V> rows(step, height, width, static_cast<Place<V>*>(to));
  if (!rows.allocate()) return FLC_OUT_OF_MEMORY;
  for (int32_t y = begin; y < end; ++y) {
    const Run* const first = runs;
    while (runs != runs_end && runs->row == y) ++runs;
    rows.fill_row(y, first, runs);
  }
  return FLC_OK;
}

inline int32_t nearest_in_rows(const NearestSearch* search, double step, const Run* runs, const Run* runs_end,
                               int32_t begin, int32_t end, int32_t height, int32_t width, void* to) {
  return search->double_inside
             ? nearest_in_rows_of<Doubles>(step, runs, runs_end, begin, end, height, width, to)
             : nearest_in_rows_of<Floats>(step, runs, runs_end, begin, end, height, width, to);
}

}  // namespace FLC_ISA
}  // namespace flc
