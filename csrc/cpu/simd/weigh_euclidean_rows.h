// Instances to weights by exact Euclidean distances, for some rows of an image: the three stages, instance by
// instance from left to right, as in weigh_rows.h.
//
// Stages 1 and 2 need the squares of the distances alone, exp and minimum alike: stage 3 takes the roots of
// the two that the border term adds.
#pragma once

#include "cpu/simd/euclidean_distance.h"
#include "cpu/simd/nearest_runs.h"
#include "cpu/simd/row_blocks.h"

namespace flc {
namespace FLC_ISA {

// Half open.
struct VectorRange {
  int32_t begin, end;
};

template <class Out, class Result, class Border>
class EuclideanRowPass {
  using V = Vec<Out>;
  using Blocks = RowBlocks<Out, Result, Border, true>;
  static constexpr int lanes = Number<V>::lanes;
  static constexpr int VECTORS = BLOCK / lanes;  // of a block
  static constexpr int ROWS = EuclideanDistance<Out>::ROWS;
  // Columns from which on an instance is wide enough for a bound to the search to pay.
  static constexpr int WIDE = 64;

 public:
  EuclideanRowPass(const ImagePlan& plan, const Settings& settings, bool on_top, int32_t begin, int32_t end,
                   Result* out)
      : plan_(plan),
        settings_(settings),
        accumulator_(settings),
        blocks_(plan, settings, on_top, begin, end, out),
        row_length_((plan.width + BLOCK - 1) / BLOCK * int64_t(BLOCK)),
        reach_squared_(Out(settings.reach) * Out(settings.reach)) {}

  ~EuclideanRowPass() {
    aligned_free(bounds_);
    aligned_free(row_squares_);
    aligned_free(table_);
    aligned_free(rows_.data);
  }
  EuclideanRowPass(const EuclideanRowPass&) = delete;
  EuclideanRowPass& operator=(const EuclideanRowPass&) = delete;

  int32_t run() {
    bounds_ = static_cast<int32_t*>(aligned_allocate(row_length_ / lanes * int64_t(sizeof(int32_t))));
    row_squares_ = static_cast<Out*>(aligned_allocate(ROWS * row_length_ * int64_t(sizeof(Out))));
    if (!bounds_ || !row_squares_ || !fill_table()) return FLC_OUT_OF_MEMORY;
    return blocks_.weigh([this](const Instance& instance, int32_t first_row, int32_t last_row, int32_t left,
                                int32_t right) { return add(instance, first_row, last_row, left, right); },
                         [this](const Shape& shape, const Stamp<Out>& stamp, int64_t lead, int64_t stride) {
                           find_stamp(shape, stamp, lead, stride);
                           return true;
                         });
  }

 private:
  bool fill_table() {
    const int32_t last = settings_.reach + BLOCK + 1;
    table_ = static_cast<Out*>(aligned_allocate((2 * int64_t(last) + 1 + lanes) * sizeof(Out)));
    if (!table_) return false;
    for (int32_t t = -last; t <= last + lanes; ++t) table_[t + last] = Out(t) * Out(t);
    squares_ = table_ + last;
    return true;
  }

  bool add(const Instance& instance, int32_t first_row, int32_t last_row, int32_t left, int32_t right) {
    if (instance.is_part && instance.right - instance.left >= WIDE)
      return add_tiles(instance, first_row, last_row, left, right);
    if (!distance_.prepare(plan_, instance, settings_, squares_, first_row, last_row, rows_)) return false;
    const bool wide = instance.right - instance.left >= WIDE;
    if (wide)
      for (int32_t vector = left / lanes; vector <= right / lanes; ++vector)
        bounds_[vector] = settings_.reach;
    for (int32_t y = first_row; y < last_row;) {
      const int32_t part_end = y < instance.top       ? smaller(instance.top, last_row)
                               : y <= instance.bottom ? smaller(instance.bottom + 1, last_row)
                                                      : last_row;
      for (; y < part_end; y += ROWS) {
        const int32_t count = smaller(ROWS, part_end - y);
        if (wide)
          add_rows<true>(instance, y, count);
        else
          add_rows<false>(instance, y, count);
      }
      y = part_end;
    }
    return true;
  }

  // Likewise, for parts of scattered pixels.
  bool add_tiles(const Instance& instance, int32_t first_row, int32_t last_row, int32_t left, int32_t right) {
    using Tiles = NearestRuns<Out>;
    if (!runs_.prepare(plan_, instance, settings_, squares_, first_row, last_row, rows_)) return false;
    for (int32_t y = first_row; y < last_row; y += Tiles::ROWS) {
      const int32_t count = smaller(Tiles::ROWS, last_row - y);
      runs_.start_row();
      for (int32_t x = left / CHUNK * CHUNK; x <= right; x += CHUNK) {
        V squares[Tiles::ROWS][Tiles::VECTORS];
        if (!runs_.find(y, x, squares)) {
          if constexpr (!Border::EVERY_INSTANCE) continue;
          for (auto& row : squares)
            for (V& of_vector : row) of_vector = broadcast<V>(Out(BEYOND));
        }
        Out* row = blocks_.at(y, x);
        for (int32_t i = 0; i < count; ++i, row += Blocks::stride)
          for (int n = 0; n < Tiles::VECTORS; ++n)
            accumulator_.add_squares(row + n * lanes, within_reach(squares[i][n]));
      }
    }
    return true;
  }

  // The stamp of a shape: each of its runs in turn.
  void find_stamp(const Shape& shape, const Stamp<Out>& stamp, int64_t lead, int64_t stride) const {
    const int32_t reach = settings_.reach, columns = shape.width + 2 * reach;
    Run runs[MOST_RUNS];
    const int32_t count = runs_of(shape, reach, reach, runs);
    for (int32_t y = 0; y < shape.height + 2 * reach; ++y) {
      for (int32_t x = 0; x < columns; x += lanes) {
        V column, squares = broadcast<V>(Out(BEYOND));
        for (int lane = 0; lane < lanes; ++lane) column[lane] = Out(x + lane);
        for (int32_t i = 0; i < count; ++i) {
          const V across = larger(larger(Out(runs[i].first) - column, column - Out(runs[i].last)), V{});
          const Out along = Out(y - runs[i].row);
          squares = smaller(squares, across * across + along * along);
        }
        Out row[3 * BLOCK];
        Accumulator<Out, Border>::clear(row);
        accumulator_.add_squares(row, within_reach(squares));
        const int64_t to = y * stride + lead - reach + x;
        store<V>(stamp.terms + to, load<V>(row));
        if constexpr (has_border<Border>) store<V>(stamp.distances + to, load<V>(row + BLOCK));
      }
    }
  }

  // What lies beyond the reach depends on how vectors and rows were grouped; no result may.
  FLC_INLINE V within_reach(V squares) const {
    return squares > reach_squared_ ? broadcast<V>(Out(BEYOND)) : squares;
  }

  // Adds the instance at rows y..y + count - 1, found in three parts by what columns can be nearest.
  template <bool wide>
  void add_rows(const Instance& instance, int32_t y, int32_t count) {
    VectorRange of_row[ROWS], all{INT32_MAX, 0};
    for (int32_t i = 0; i < count; ++i) {
      of_row[i] = reached(instance, y + i);
      if (of_row[i].begin < of_row[i].end)
        all = {smaller(all.begin, of_row[i].begin), larger(all.end, of_row[i].end)};
    }
    if (all.begin >= all.end) return;
    distance_.go_to_rows(y, count);
    const ColumnRange first = distance_.first_nearest(), last = distance_.last_nearest();
    const int32_t left_end = larger(all.begin, smaller((first.first + 1) / lanes, all.end));
    const int32_t right_begin = larger(left_end, smaller((last.last + lanes - 1) / lanes, all.end));
    find<wide>({instance.left, first.last}, {all.begin, left_end});
    find<wide>({instance.left, instance.right}, {left_end, right_begin});
    find<wide>({last.first, instance.right}, {right_begin, all.end});
    for (int32_t i = 0; i < count; ++i) {
      const Out* const squares = row_squares_ + i * row_length_;
      for (int32_t vector = of_row[i].begin; vector < of_row[i].end;) {
        const int32_t block = vector / VECTORS, end = smaller(of_row[i].end, (block + 1) * VECTORS);
        Out* const row = blocks_.at(y + i, block * BLOCK) - block * BLOCK;
        for (; vector < end; ++vector)
          accumulator_.add_squares(row + vector * lanes, load<V>(squares + vector * lanes));
      }
    }
  }

  // The vectors of row y in which a pixel may lie within reach; all within the reach's square where every
  // instance has a say.
  VectorRange reached(const Instance& instance, int32_t y) const {
    const double rows_away = larger(0, larger(instance.top - y, y - instance.bottom)),
                 reach = settings_.reach;
    const int32_t columns =
        Border::EVERY_INSTANCE ? settings_.reach : int32_t(sqrt(reach * reach - rows_away * rows_away));
    const int32_t left = larger(larger(0, instance.zone.left), instance.left - columns);
    const int32_t right = smaller(smaller(plan_.width - 1, instance.zone.right), instance.right + columns);
    if (left > right) return {0, 0};
    return {left / lanes, right / lanes + 1};
  }

  // row_squares_ of these vectors, when no other than `columns` can be nearest.
  template <bool wide>
  void find(ColumnRange columns, VectorRange vectors) {
    int32_t vector = vectors.begin;
    for (; vector + 2 <= vectors.end; vector += 2) find_group<wide, 2>(columns, vector);
    if (vector < vectors.end) find_group<wide, 1>(columns, vector);
  }

  template <bool wide, int N>
  FLC_INLINE void find_group(ColumnRange columns, int32_t vector) {
    int32_t bound = settings_.reach;
    if constexpr (wide) {
      bound = bounds_[vector];
      for (int n = 1; n < N; ++n) bound = larger(bound, bounds_[vector + n]);
    }
    V squares[ROWS][N];
    distance_.template find<N>(vector * lanes, columns, bound, squares);
    for (int i = 0; i < ROWS; ++i) {
      for (int n = 0; n < N; ++n) {
        store<V>(row_squares_ + i * row_length_ + (vector + n) * lanes, within_reach(squares[i][n]));
      }
    }
    if constexpr (wide)
      for (int n = 0; n < N; ++n) bounds_[vector + n] = bound_of_next_rows(squares[ROWS - 1][n]);
  }

  // From one row to the next a distance grows by at most 1.
  int32_t bound_of_next_rows(V squares) const {
    Out largest = squares[0];
    for (int lane = 1; lane < lanes; ++lane) largest = larger(largest, squares[lane]);
    return largest < reach_squared_ ? smaller(int32_t(sqrt(double(largest))) + 1 + ROWS, settings_.reach)
                                    : settings_.reach;
  }

  const ImagePlan& plan_;
  const Settings& settings_;
  const Accumulator<Out, Border> accumulator_;
  Blocks blocks_;
  const int64_t row_length_;
  const Out reach_squared_;
  Out* table_ = nullptr;
  const Out* squares_ = nullptr;  // squares_[t] = t^2, |t| <= reach + BLOCK + 1
  Out* row_squares_ = nullptr;  // of the row's pixels, the squares of their distances to the instance
  int32_t* bounds_ = nullptr;  // of each vector of columns: no distance in the next row exceeds it
  EuclideanDistance<Out> distance_;
  NearestRuns<Out> runs_;
  Workspace rows_{nullptr, 0};
};

template <class Out, class Result>
int32_t weigh_euclidean_rows_as(const ImagePlan& plan, const Settings& settings, bool on_top, int32_t begin,
                                int32_t end, Result* out) {
  return with_live_border(plan, settings, [&](auto border) {
    return EuclideanRowPass<Out, Result, decltype(border)>(plan, settings, on_top, begin, end, out).run();
  });
}

inline int32_t weigh_euclidean_rows(const ImagePlan* plan, const Settings* settings, bool on_top,
                                    Precision precision, int32_t begin, int32_t end, void* out) {
  switch (precision) {
    case FLOAT_THROUGHOUT:
      return weigh_euclidean_rows_as<float>(*plan, *settings, on_top, begin, end, static_cast<float*>(out));
    case DOUBLE_INSIDE:
      return weigh_euclidean_rows_as<double>(*plan, *settings, on_top, begin, end, static_cast<float*>(out));
    case DOUBLE_THROUGHOUT:
      return weigh_euclidean_rows_as<double>(*plan, *settings, on_top, begin, end, static_cast<double*>(out));
  }
  return FLC_UNSUPPORTED;
}

}  // namespace FLC_ISA
}  // namespace flc
