// Stage 1, distance: the squares of the Euclidean distance to an instance of scattered pixels, tile by tile.
//
// Of the instance's runs, only those can be nearest to a pixel of a tile that are no farther from the tile
// than the far side of the tile is from any one run. Among scattered pixels these are few, wherever the others
// lie. The result is that of euclidean_distance.h.
#pragma once

#include "cpu/simd/instance_distance.h"

namespace flc {
namespace FLC_ISA {

template <class Out>
class NearestRuns {
  using V = Vec<Out>;
  static constexpr int lanes = Number<V>::lanes;

 public:
  static constexpr int ROWS = 16;  // of a tile, which is CHUNK columns wide
  static constexpr int VECTORS = CHUNK / lanes;

  // For rows first_row..last_row - 1 of the image, with squares[t] = t^2 for |t| <= reach + ROWS. False: memory
  // ran out.
  bool prepare(const ImagePlan& plan, const Instance& instance, const Settings& settings, const Out* squares,
               int32_t first_row, int32_t last_row, Workspace& memory) {
    squares_ = squares;
    reach_ = settings.reach;
    left_ = instance.left;
    top_ = larger(instance.top, first_row - reach_);
    bottom_ = smaller(instance.bottom, last_row - 1 + reach_);
    const Run* run = plan.instance_runs + instance.first_run;
    const Run* end = plan.instance_runs + instance.last_run;
    while (run != end && run->row < top_) ++run;
    while (run != end && end[-1].row > bottom_) --end;
    const int64_t rows = larger(bottom_ - top_ + 1, 0), count = end - run;
    const int64_t padded = (count + lanes - 1) / lanes * lanes;
    Out* numbers = static_cast<Out*>(
        reserve(memory, 4 * padded * int64_t(sizeof(Out)) + (padded + rows + 2) * int64_t(sizeof(int32_t))));
    if (!numbers) return false;
    row_ = numbers;
    first_ = numbers + padded;
    last_ = numbers + 2 * padded;
    near_ = numbers + 3 * padded;
    hits_ = reinterpret_cast<int32_t*>(numbers + 4 * padded);
    row_begin_ = hits_ + padded + 1;
    int32_t next_row = top_;
    for (int64_t i = 0; i < count; ++i) {
      while (next_row <= run[i].row) row_begin_[next_row++ - top_] = int32_t(i);
      row_[i] = Out(run[i].row - top_);
      first_[i] = Out(run[i].first - left_);
      last_[i] = Out(run[i].last - left_);
    }
    while (next_row <= bottom_ + 1) row_begin_[next_row++ - top_] = int32_t(count);
    for (int64_t i = count; i < padded; ++i) row_[i] = first_[i] = last_[i] = Out(1e9);  // out of sight
    bound_ = reach_;
    return true;
  }

  // Before the first tile of a row of tiles.
  void start_row() { bound_ = reach_; }

  // The squares at rows y.. and columns x.. of a tile, right where they are at most reach^2; larger than that
  // elsewhere. False: they are nowhere. Tiles follow one another from left to right.
  FLC_INLINE bool find(int32_t y, int32_t x, V (*squares)[VECTORS]) {
    const int32_t top = larger(y - bound_, top_), bottom = smaller(y + ROWS - 1 + bound_, bottom_);
    if (top > bottom) return false;
    const int32_t begin = row_begin_[top - top_] / lanes * lanes, end = row_begin_[bottom + 1 - top_];
    const V x0 = broadcast<V>(Out(x - left_)), x1 = x0 + Out(CHUNK - 1);
    const V y0 = broadcast<V>(Out(y - top_)), y1 = y0 + Out(ROWS - 1);
    V nearest = broadcast<V>(Out(BEYOND));
    for (int32_t i = begin; i < end; i += lanes) {
      const V first = load<V>(first_ + i), last = load<V>(last_ + i), row = load<V>(row_ + i);
      const V across = larger(larger(first - x1, x0 - last), V{});
      const V along = larger(larger(row - y1, y0 - row), V{});
      store<V>(near_ + i, across * across + along * along);
      const V far_across = larger(larger(first - x0, x1 - last), V{});
      const V far_along = larger(row - y0, y1 - row);
      nearest = smaller(nearest, far_across * far_across + far_along * far_along);
    }
    const Out reach_squared = Out(reach_) * Out(reach_);
    Out within = nearest[0];
    for (int lane = 1; lane < lanes; ++lane) within = smaller(within, nearest[lane]);
    // Every pixel of the next tile is CHUNK columns away from one of this.
    bound_ = within < reach_squared ? smaller(int32_t(sqrt(double(within))) + 1 + CHUNK, reach_) : reach_;
    within = smaller(within, reach_squared);
    int32_t hits = 0;
    for (int32_t i = begin; i < end; i += lanes) {
      if (!any_greater(broadcast<V>(within + 1), load<V>(near_ + i))) continue;
      for (int32_t lane = i; lane < i + lanes; ++lane) {
        hits_[hits] = lane;
        hits += near_[lane] <= within;
      }
    }
    if (hits == 0) return false;
    V found[ROWS][VECTORS];  // held in registers
    for (int r = 0; r < ROWS; ++r)
      for (int n = 0; n < VECTORS; ++n) found[r][n] = broadcast<V>(Out(BEYOND));
    for (int32_t i = 0; i < hits; ++i) take(hits_[i], y, x, found);
    for (int r = 0; r < ROWS; ++r)
      for (int n = 0; n < VECTORS; ++n) squares[r][n] = found[r][n];
    return true;
  }

 private:
  FLC_INLINE void take(int32_t run, int32_t y, int32_t x, V (*squares)[VECTORS]) const {
    const V first = broadcast<V>(first_[run]), last = broadcast<V>(last_[run]);
    V across[VECTORS];
    for (int n = 0; n < VECTORS; ++n) {
      V column;
      for (int lane = 0; lane < lanes; ++lane) column[lane] = Out(n * lanes + lane);
      column = column + Out(x - left_);
      const V away = larger(larger(first - column, column - last), V{});
      across[n] = away * away;
    }
    const Out* const along = squares_ + (int32_t(row_[run]) + top_ - y);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const V square = broadcast<V>(along[-r]);
      for (int n = 0; n < VECTORS; ++n) squares[r][n] = smaller(squares[r][n], across[n] + square);
    }
  }

  const Out* squares_;
  int32_t reach_, left_, top_, bottom_;
  Out *row_, *first_, *last_, *near_;  // of each run, from top_ and left_; its distance to the tile, squared
  int32_t* hits_;  // runs that may be nearest to a pixel of the tile
  int32_t* row_begin_;  // of each row the first run, or that of the rows below
  int32_t bound_;  // each pixel of the tile has a run within this, or none within the reach
};

}  // namespace FLC_ISA
}  // namespace flc
