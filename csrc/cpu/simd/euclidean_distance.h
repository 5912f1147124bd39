// Stage 1, distance: the square of the Euclidean distance to one instance, row by row of the image.
//
// In each column c of the instance's box, g(y, c) is the distance to the nearest of the column's own pixels;
// then d(y, x)^2 is the smallest (x - c)^2 + g(y, c)^2 over the columns (Saito and Toriwaki, "New algorithms
// for Euclidean distance transformation of an n-dimensional digitized picture with applications", Pattern
// Recognition 27(11), 1994). g comes from two sweeps over the box and grows by 1 with every row outside it. All
// numbers are whole: the result is exact while it fits the mantissa (distances up to 4095 in float).
#pragma once

#include "cpu/simd/instance_distance.h"

namespace flc {
namespace FLC_ISA {

template <class Out>
class EuclideanDistance {
  using V = Vec<Out>;
  static constexpr int lanes = Number<V>::lanes;

 public:
  // For rows first_row..last_row - 1 of the image, with squares[t] = t^2 for |t| <= reach + BLOCK + 1; false
  // where memory ran out.
  bool prepare(const ImagePlan& plan, const Instance& instance, const Settings& settings,
               const Out* squares, int32_t first_row, int32_t last_row, Workspace& memory) {
    instance_ = &instance;
    table_ = squares;
    reach_ = settings.reach;
    columns_ = instance.right - instance.left + 1;
    stride_ = (columns_ + lanes - 1) / lanes * lanes;
    inside_begin_ = larger(instance.top, first_row);
    inside_end_ = larger(inside_begin_, smaller(instance.bottom + 1, last_row));
    Out* rows = static_cast<Out*>(
        reserve(memory, (int64_t(inside_end_ - inside_begin_) + 4) * stride_ * int64_t(sizeof(Out))));
    if (!rows) return false;
    above_ = rows;
    below_ = rows + stride_;
    sweep_ = rows + 2 * stride_;
    outside_ = rows + 3 * stride_;
    inside_ = rows + 4 * stride_;
    // Pixels further than the reach from the rows asked for do not count.
    const Run* const begin = plan.instance_runs + instance.first_run;
    const Run* const end = plan.instance_runs + instance.last_run;
    sweep_down(begin, end, larger(instance.top, first_row - reach_), smaller(instance.bottom, last_row - 1));
    sweep_up(begin, end, smaller(instance.bottom, last_row - 1 + reach_), larger(instance.top, first_row));
    return true;
  }

  // Chooses the row that `find` is about.
  void go_to_row(int32_t y) {
    if (y < instance_->top) {
      square_outside(above_, instance_->top - y);
    } else if (y > instance_->bottom) {
      square_outside(below_, y - instance_->bottom);
    } else {
      row_ = inside_ + int64_t(y - inside_begin_) * stride_;
    }
  }

  // The squares at columns x.. of N vectors, right where they are at most limit^2, larger than that elsewhere.
  template <int N>
  FLC_INLINE void find(int32_t x, int32_t limit, V* squares) const {
    const int32_t left = instance_->left, right = instance_->right;
    const int32_t first = larger(left, x - limit), last = smaller(right, x + N * lanes - 1 + limit);
    V nearest[N];
    for (int n = 0; n < N; ++n) nearest[n] = V{} + Out(BEYOND);
    int32_t c = first;
    for (; c < last; c += 2) {  // two at a time: the minima of two columns do not wait for each other
      const V one = V{} + row_[c - left], other = V{} + row_[c + 1 - left];
      const Out* const table = table_ + (x - c);
      for (int n = 0; n < N; ++n) {
        const V at_one = load<V>(table + n * lanes) + one, at_other = load<V>(table + n * lanes - 1) + other;
        nearest[n] = smaller(nearest[n], smaller(at_one, at_other));
      }
    }
    if (c == last) {
      for (int n = 0; n < N; ++n)
        nearest[n] = smaller(nearest[n], load<V>(table_ + (x - c) + n * lanes) + row_[c - left]);
    }
    for (int n = 0; n < N; ++n) squares[n] = nearest[n];
  }

 private:
  // Distances of each column's pixels at or above rows from..to, those of the rows inside kept, those at the
  // box's last row for the rows below it.
  void sweep_down(const Run* run, const Run* end, int32_t from, int32_t to) {
    start_sweep();
    while (run != end && run->row < from) ++run;
    for (int32_t y = from; y <= to; ++y) {
      for (int32_t c = 0; c < stride_; c += lanes) store<V>(sweep_ + c, load<V>(sweep_ + c) + Out(1));
      for (; run != end && run->row == y; ++run) clear_run(*run);
      if (y >= inside_begin_ && y < inside_end_)
        memcpy(inside_ + int64_t(y - inside_begin_) * stride_, sweep_, stride_ * sizeof(Out));
    }
    memcpy(below_, sweep_, stride_ * sizeof(Out));
  }

  // Likewise from below; rows inside get the square of the smaller of the two.
  void sweep_up(const Run* begin, const Run* run, int32_t from, int32_t to) {
    start_sweep();
    while (run != begin && run[-1].row > from) --run;
    for (int32_t y = from; y >= to; --y) {
      for (int32_t c = 0; c < stride_; c += lanes) store<V>(sweep_ + c, load<V>(sweep_ + c) + Out(1));
      for (; run != begin && run[-1].row == y; --run) clear_run(run[-1]);
      if (y < inside_begin_ || y >= inside_end_) continue;
      Out* const inside = inside_ + int64_t(y - inside_begin_) * stride_;
      for (int32_t c = 0; c < stride_; c += lanes) {
        const V g = smaller(load<V>(inside + c), load<V>(sweep_ + c));
        store<V>(inside + c, g * g);
      }
    }
    memcpy(above_, sweep_, stride_ * sizeof(Out));
  }

  void start_sweep() {
    for (int32_t c = 0; c < stride_; ++c) sweep_[c] = FAR_COLUMN;
  }

  void clear_run(const Run& run) {
    for (int32_t x = run.first; x <= run.last; ++x) sweep_[x - instance_->left] = 0;
  }

  void square_outside(const Out* at_box, int32_t rows_away) {
    for (int32_t c = 0; c < stride_; c += lanes) {
      const V g = load<V>(at_box + c) + Out(rows_away);
      store<V>(outside_ + c, g * g);
    }
    row_ = outside_;
  }

  // Stands for a column without pixels: its square is about BEYOND.
  static constexpr Out FAR_COLUMN = Out(1e9);

  const Instance* instance_;
  const Out* table_;
  int32_t reach_;
  int32_t columns_, stride_;
  int32_t inside_begin_, inside_end_;  // rows of the image
  Out *above_, *below_, *sweep_, *outside_, *inside_;
  const Out* row_;
};

}  // namespace FLC_ISA
}  // namespace flc
