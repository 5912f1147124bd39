// Stage 1, distance: the square of the Euclidean distance to one instance, row by row of the image.
//
// In each column c of the instance's box, g(y, c) is the distance to the nearest of the column's own pixels;
// then d(y, x)^2 is the smallest (x - c)^2 + g(y, c)^2 over the columns (Saito and Toriwaki, "New algorithms
// for Euclidean distance transformation of an n-dimensional digitized picture with applications", Pattern
// Recognition 27(11), 1994). g comes from two sweeps over the box and grows by 1 with every row outside it.
// All numbers are whole: the result is exact while it fits the mantissa (distances up to 4095 in float).
#pragma once

#include "cpu/simd/instance_distance.h"

namespace flc {
namespace FLC_ISA {

// Columns of the image, both inclusive.
struct ColumnRange {
  int32_t first, last;
};

template <class Out>
class EuclideanDistance {
  using V = Vec<Out>;
  static constexpr int lanes = Number<V>::lanes;

 public:
  static constexpr int ROWS = 4;  // of the image, found together

  // For rows first_row..last_row - 1 of the image, with squares[t] = t^2 for |t| <= reach + BLOCK + 1. False:
  // memory ran out.
  bool prepare(const ImagePlan& plan, const Instance& instance, const Settings& settings, const Out* squares,
               int32_t first_row, int32_t last_row, Workspace& memory) {
    instance_ = &instance;
    table_ = squares;
    reach_ = settings.reach;
    columns_ = instance.right - instance.left + 1;
    stride_ = (columns_ + lanes - 1) / lanes * lanes;
    inside_begin_ = larger(instance.top, first_row);
    inside_end_ = larger(inside_begin_, smaller(instance.bottom + 1, last_row));
    const int64_t inside_rows = inside_end_ - inside_begin_;
    Out* rows = static_cast<Out*>(reserve(memory, (inside_rows + 3 + ROWS) * stride_ * int64_t(sizeof(Out)) +
                                                      inside_rows * int64_t(sizeof(ColumnRange))));
    if (!rows) return false;
    above_ = rows;
    below_ = rows + stride_;
    sweep_ = rows + 2 * stride_;
    outside_ = rows + 3 * stride_;
    inside_ = rows + (3 + ROWS) * stride_;
    inside_nearest_ = reinterpret_cast<ColumnRange*>(inside_ + inside_rows * stride_);
    // Pixels further than the reach from the rows asked for do not count.
    const Run* const begin = plan.instance_runs + instance.first_run;
    const Run* const end = plan.instance_runs + instance.last_run;
    sweep_down(begin, end, larger(instance.top, first_row - reach_), smaller(instance.bottom, last_row - 1));
    sweep_up(begin, end, smaller(instance.bottom, last_row - 1 + reach_), larger(instance.top, first_row));
    if (first_row < instance.top) above_nearest_ = nearest_of(above_);
    if (last_row > instance.bottom + 1) below_nearest_ = nearest_of(below_);
    return true;
  }

  // Chooses rows y..y + count - 1, at most ROWS of them, all above the box, all inside or all below.
  void go_to_rows(int32_t y, int32_t count) {
    for (int32_t i = 0; i < ROWS; ++i) {
      const int32_t row = y + smaller(i, count - 1);
      ColumnRange nearest;
      if (row < instance_->top) {
        rows_[i] = square_outside(above_, instance_->top - row, i);
        nearest = above_nearest_;
      } else if (row > instance_->bottom) {
        rows_[i] = square_outside(below_, row - instance_->bottom, i);
        nearest = below_nearest_;
      } else {
        rows_[i] = inside_ + int64_t(row - inside_begin_) * stride_;
        nearest = inside_nearest_[row - inside_begin_];
      }
      if (i == 0) {
        first_nearest_ = {nearest.first, nearest.first};
        last_nearest_ = {nearest.last, nearest.last};
      }
      first_nearest_ = {smaller(first_nearest_.first, nearest.first),
                        larger(first_nearest_.last, nearest.first)};
      last_nearest_ = {smaller(last_nearest_.first, nearest.last), larger(last_nearest_.last, nearest.last)};
    }
  }

  // Where the first and the last of the columns lie where g is smallest, over the rows chosen. Left of the
  // first such column, no column beyond it can be nearest, and right of the last none before it.
  ColumnRange first_nearest() const { return first_nearest_; }
  ColumnRange last_nearest() const { return last_nearest_; }

  // The squares at columns x.. of N vectors of each row chosen, found among `columns` and right where they
  // are at most bound^2; larger than that elsewhere.
  template <int N>
  FLC_INLINE void find(int32_t x, ColumnRange columns, int32_t bound, V (*squares)[N]) const {
    const int32_t first = larger(columns.first, x - bound);
    const int32_t last = smaller(columns.last, x + N * lanes - 1 + bound);
    for (int i = 0; i < ROWS; ++i)
      for (int n = 0; n < N; ++n) squares[i][n] = broadcast<V>(Out(BEYOND));
    const Out* const row0 = rows_[0];
    const int64_t row1 = rows_[1] - row0, row2 = rows_[2] - row0, row3 = rows_[3] - row0;
    static_assert(ROWS == 4);
    const Out* g = row0 + (first - instance_->left);
    const Out* table = table_ + (x - first);
    for (int32_t c = first; c <= last; ++c, ++g, --table) {
      const V g0 = broadcast<V>(g[0]), g1 = broadcast<V>(g[row1]), g2 = broadcast<V>(g[row2]),
              g3 = broadcast<V>(g[row3]);
      for (int n = 0; n < N; ++n) {
        const V across = load<V>(table + n * lanes);
        squares[0][n] = smaller(squares[0][n], across + g0);
        squares[1][n] = smaller(squares[1][n], across + g1);
        squares[2][n] = smaller(squares[2][n], across + g2);
        squares[3][n] = smaller(squares[3][n], across + g3);
      }
    }
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
      ColumnRange runs{INT32_MAX, INT32_MIN};
      for (; run != begin && run[-1].row == y; --run) {
        clear_run(run[-1]);
        runs = {run[-1].first, larger(runs.last, run[-1].last)};
      }
      if (y < inside_begin_ || y >= inside_end_) continue;
      Out* const inside = inside_ + int64_t(y - inside_begin_) * stride_;
      for (int32_t c = 0; c < stride_; c += lanes) {
        const V g = smaller(load<V>(inside + c), load<V>(sweep_ + c));
        store<V>(inside + c, g * g);
      }
      inside_nearest_[y - inside_begin_] = runs.first <= runs.last ? runs : nearest_of(inside);
    }
    memcpy(above_, sweep_, stride_ * sizeof(Out));
  }

  void start_sweep() {
    for (int32_t c = 0; c < stride_; ++c) sweep_[c] = FAR_COLUMN;
  }

  void clear_run(const Run& run) {
    for (int32_t x = run.first; x <= run.last; ++x) sweep_[x - instance_->left] = 0;
  }

  ColumnRange nearest_of(const Out* row) const {
    ColumnRange range{0, 0};
    for (int32_t c = 1; c < columns_; ++c) {
      if (row[c] < row[range.first]) range.first = c;
      if (row[c] <= row[range.last]) range.last = c;
    }
    return {instance_->left + range.first, instance_->left + range.last};
  }

  const Out* square_outside(const Out* at_box, int32_t rows_away, int32_t i) {
    Out* const row = outside_ + int64_t(i) * stride_;
    for (int32_t c = 0; c < stride_; c += lanes) {
      const V g = load<V>(at_box + c) + Out(rows_away);
      store<V>(row + c, g * g);
    }
    return row;
  }

  // Stands for a column without pixels: its square is about BEYOND.
  static constexpr Out FAR_COLUMN = Out(1e9);

  const Instance* instance_;
  const Out* table_;
  int32_t reach_;
  int32_t columns_, stride_;
  int32_t inside_begin_, inside_end_;  // rows of the image
  Out *above_, *below_, *sweep_, *outside_, *inside_;
  ColumnRange above_nearest_, below_nearest_;
  ColumnRange* inside_nearest_;
  const Out* rows_[ROWS];
  ColumnRange first_nearest_, last_nearest_;
};

}  // namespace FLC_ISA
}  // namespace flc
