// Stage 2, accumulate: what the instances add up to at each pixel (sum of exp(-d^2 / (2 fds^2)), the nearest
// distance and the other one of the border rule), collected in blocks of BLOCK columns.
#pragma once

#include "cpu/simd/instance_distance.h"
#include "cpu/simd/live_border.h"

namespace flc {
namespace FLC_ISA {

// Rows of a block hold the sums of BLOCK columns, then (with a border rule) the nearest distances, then the
// rule's other ones. The padding makes a row an odd number of cache lines, so that a column of rows spreads
// over the whole cache.
template <class Out, class Border>
constexpr int ROW_STRIDE = (has_border<Border> ? 3 * BLOCK : BLOCK) + 64 / int(sizeof(Out));

// The sum of a foreground pixel: so far below zero that no instance's term changes its sign.
constexpr double FOREGROUND = -1e30;

template <class Out, class Border>
class Accumulator {
  using V = Vec<Out>;
  static constexpr int lanes = Number<V>::lanes;
  static constexpr int vectors = CHUNK / lanes;
  static constexpr int stride = ROW_STRIDE<Out, Border>;

 public:
  explicit Accumulator(const Settings& settings)
      : exponent_(Out(settings.foreground_exponent)),
        ratio_of_ratios_(Out(exp2(2 * settings.foreground_exponent))),
        first_ratio_(Out(settings.foreground_exponent +
                         (2 * settings.foreground_exponent - log2(double(ratio_of_ratios_))) * 0.4 * PERIOD)),
        foreground_sigma_(sqrt(-0.72134752044448170368 / settings.foreground_exponent)),
        least_recurred_(Out(-sqrt(-100 / settings.foreground_exponent))),
        radius_(settings.radius),
        reach_(settings.reach) {}

  // `beyond` is a distance that no other exceeds.
  static void clear(Out* row, Out beyond = Out(BEYOND)) {
    for (int i = 0; i < BLOCK; ++i) row[i] = 0;
    if constexpr (has_border<Border>) {
      const Out start = Border::start(beyond);
      for (int i = BLOCK; i < 2 * BLOCK; ++i) row[i] = beyond;
      for (int i = 2 * BLOCK; i < 3 * BLOCK; ++i) row[i] = start;
    }
  }

  // Adds one instance at one chunk. `block_rows` points at the chunk's columns in the row first_row of the
  // block; rows [first_row, last_row) are written.
  void add(const Instance& instance, const PanelDistance<Out>& distance, int32_t chunk, Out* block_rows,
           int32_t first_row, int32_t last_row) const {
    const int32_t top = instance.top, bottom = instance.bottom;
    const int64_t columns = distance.columns;
    for (int vector = 0; vector < vectors; ++vector) {
      const int32_t column = chunk * CHUNK + vector * lanes;
      Out* const rows = block_rows + vector * lanes;
      const int32_t inside_begin = larger(top, first_row), inside_end = smaller(bottom + 1, last_row);
      const Out* d = distance.inside + (inside_begin - top - distance.first_inside) * columns + column;
      Out* row = rows + int64_t(inside_begin - first_row) * stride;
      for (int32_t y = inside_begin; y < inside_end; ++y) {
        add_pixel_row(row, load<V>(d));
        d += columns;
        row += stride;
      }
      if (first_row < top) {
        add_outside(distance.above + column, columns, distance.above_settled[chunk],
                    rows + int64_t(top - first_row) * stride, -stride, larger(top - (last_row - 1), 1),
                    smaller(top - first_row, reach_));
      }
      if (last_row - 1 > bottom) {
        add_outside(distance.below + column, columns, distance.below_settled[chunk],
                    rows + int64_t(bottom - first_row) * stride, stride, larger(first_row - bottom, 1),
                    smaller(last_row - 1 - bottom, reach_));
      }
    }
  }

  // Adds the squares of the distances to one instance at a vector of pixels; squares are tracked, then.
  FLC_INLINE void add_squares(Out* row, V squares) const {
    add_terms(row, power_of_two(squares * exponent_), squares);
  }

  // Adds one distance to each pixel of a block's row.
  void add_block_row(Out* row, const Out* distances) const {
    for (int i = 0; i < BLOCK; i += lanes) add_pixel_row(row + i, load<V>(distances + i));
  }

 private:
  // Rows first_step..last_step away from the box, where the window shows its first radius - step + 1 rows.
  FLC_INLINE void add_outside(const Out* distances, int64_t columns, int32_t settled, Out* box_row,
                              int64_t row_stride, int32_t first_step, int32_t last_step) const {
    const int32_t last_whole = smaller(radius_ - settled, last_step);
    int32_t step = first_step;
    if (step <= last_whole) {
      const V at_box = load<V>(distances + settled * columns);
      if (sizeof(Out) == 4 && foreground_sigma_ >= 4 && !any_greater(V{} + least_recurred_, at_box)) {
        step = add_whole_by_recurrence(at_box, box_row, row_stride, step, last_whole);
      } else {
        for (; step <= last_whole; ++step) add_pixel_row(box_row + step * row_stride, at_box + Out(step));
      }
    }
    const Out* at_box = distances + (radius_ - step) * columns;
    Out* row = box_row + step * row_stride;
    for (; step <= last_step; ++step) {
      add_pixel_row(row, load<V>(at_box) + Out(step));
      at_box -= columns;
      row += row_stride;
    }
  }

  // Where the distance grows by 1 from row to row, exp(-d^2 / (2 fds^2)) follows from the row before: its
  // ratio to the next one falls by the constant factor exp(-1 / fds^2). Started afresh every PERIOD rows, at
  // the same distances from the box wherever the pass begins: no result depends on how an image is cut.
  FLC_INLINE int32_t add_whole_by_recurrence(V at_box, Out* box_row, int64_t row_stride, int32_t step,
                                             int32_t last) const {
    const V ratio_of_ratios = V{} + ratio_of_ratios_;
    while (step <= last) {
      const int32_t start = (step - 1) / PERIOD * PERIOD + 1;
      const int32_t end = smaller(start + PERIOD - 1, last);
      V d = at_box + Out(start);
      V term = power_of_two(d * d * exponent_);
      V ratio = power_of_two(multiply_add(d, V{} + 2 * exponent_, V{} + first_ratio_));
      for (int32_t skipped = start; skipped < step; ++skipped) {
        term *= ratio;
        ratio *= ratio_of_ratios;
        d += Out(1);
      }
      const auto add_next = [&] {
        add_terms(box_row + step * row_stride, term, d);
        term *= ratio;
        ratio *= ratio_of_ratios;
        if constexpr (has_border<Border>) d += Out(1);
        ++step;
      };
      if (step == start && end - start == PERIOD - 1) {
#pragma GCC unroll 16
        for (int32_t i = 0; i < PERIOD; ++i) add_next();
      } else {
        while (step <= end) add_next();
      }
    }
    return step;
  }

  FLC_INLINE void add_pixel_row(Out* row, V d) const { add_terms(row, power_of_two(d * d * exponent_), d); }

  static FLC_INLINE void add_terms(Out* row, V term, V d) {
    store<V>(row, load<V>(row) + term);
    if constexpr (has_border<Border>) {
      const V nearest = load<V>(row + BLOCK), other = load<V>(row + 2 * BLOCK);
      store<V>(row + BLOCK, smaller(nearest, d));
      store<V>(row + 2 * BLOCK, Border::template rank<Order>(other, nearest, d));
    }
  }

  // Rows after which the recurrence starts afresh: rounding errors gather with the square of their number.
  static constexpr int32_t PERIOD = 12;
  const Out exponent_, ratio_of_ratios_;
  // The exponent of the first ratio at d = 0, and what makes up in the mean for ratio_of_ratios_'s rounding.
  const Out first_ratio_;
  const double foreground_sigma_;
  // Soft masks give distances far below 0. Where the term is too small for a float there, a recurrence that
  // starts from the smallest float would grow with the true terms and far above them.
  const Out least_recurred_;
  const int32_t radius_, reach_;
};

}  // namespace FLC_ISA
}  // namespace flc
