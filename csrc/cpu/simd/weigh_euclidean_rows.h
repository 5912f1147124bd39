// Instances to weights by exact Euclidean distances, for some rows of an image: the three stages, instance by
// instance from left to right, as in weigh_rows.h.
//
// Stages 1 and 2 need the squares of the distances alone, exp and minimum alike: stage 3 takes the roots of
// the two that the border term adds.
#pragma once

#include "cpu/simd/compose.h"
#include "cpu/simd/euclidean_distance.h"

namespace flc {
namespace FLC_ISA {

FLC_INLINE Floats square_root(Floats x) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#elif defined(__AVX2__)
  return (Floats)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
  return (Floats)_mm_sqrt_ps((__m128)x);
#else
  for (int lane = 0; lane < Number<Floats>::lanes; ++lane) x[lane] = sqrtf(x[lane]);
  return x;
#endif
}
FLC_INLINE Doubles square_root(Doubles x) {
  for (int lane = 0; lane < Number<Doubles>::lanes; ++lane) x[lane] = sqrt(x[lane]);
  return x;
}

// Half open.
struct VectorRange {
  int32_t begin, end;
};

template <class Out, Tracking tracking>
class EuclideanRowPass {
  using V = Vec<Out>;
  static constexpr int lanes = Number<V>::lanes;
  static constexpr int stride = ROW_STRIDE<Out, tracking>;
  static constexpr int VECTORS = BLOCK / lanes;  // of a block
  static constexpr int ROWS = EuclideanDistance<Out>::ROWS;
  // Columns from which on an instance is wide enough for a limit to the search to pay.
  static constexpr int WIDE = 64;

 public:
  // on_top: adds what these instances contribute to the weights; else these are all there are.
  EuclideanRowPass(const ImagePlan& plan, const Settings& settings, bool on_top, int32_t begin, int32_t end,
                   Out* out)
      : plan_(plan),
        settings_(settings),
        on_top_(on_top),
        begin_(begin),
        end_(end),
        out_(out),
        accumulator_(settings),
        composer_(settings, on_top),
        block_count_((plan.width + BLOCK - 1) / BLOCK),
        row_length_(block_count_ * int64_t(BLOCK)),
        farthest_(Out(settings.reach) * Out(settings.reach)) {}

  ~EuclideanRowPass() {
    if (blocks_)
      for (int32_t block = 0; block < block_count_; ++block) aligned_free(blocks_[block]);
    aligned_free(blocks_);
    aligned_free(limits_);
    aligned_free(row_squares_);
    aligned_free(table_);
    aligned_free(rows_.data);
  }
  EuclideanRowPass(const EuclideanRowPass&) = delete;
  EuclideanRowPass& operator=(const EuclideanRowPass&) = delete;

  int32_t run() {
    blocks_ = static_cast<Out**>(aligned_allocate(block_count_ * int64_t(sizeof(Out*))));
    if (!blocks_) return FLC_OUT_OF_MEMORY;
    for (int32_t block = 0; block < block_count_; ++block) blocks_[block] = nullptr;
    limits_ = static_cast<int32_t*>(aligned_allocate(block_count_ * int64_t(VECTORS) * sizeof(int32_t)));
    row_squares_ = static_cast<Out*>(aligned_allocate(ROWS * row_length_ * int64_t(sizeof(Out))));
    if (!limits_ || !row_squares_ || !fill_table()) return FLC_OUT_OF_MEMORY;
    for (int64_t i = 0; i < plan_.instance_count; ++i) {
      const Instance& instance = plan_.instances[plan_.left_to_right[i]];
      const int32_t first_row = larger(begin_, instance.top - settings_.reach);
      const int32_t last_row = smaller(end_, instance.bottom + settings_.reach + 1);
      if (first_row >= last_row) continue;
      if (!add(instance, first_row, last_row)) return FLC_OUT_OF_MEMORY;
    }
    compose_until(block_count_);
    return FLC_OK;
  }

 private:
  bool fill_table() {
    const int32_t limit = settings_.reach + BLOCK + 1;
    table_ = static_cast<Out*>(aligned_allocate((2 * int64_t(limit) + 1 + lanes) * sizeof(Out)));
    if (!table_) return false;
    for (int32_t t = -limit; t <= limit + lanes; ++t) table_[t + limit] = Out(t) * Out(t);
    squares_ = table_ + limit;
    return true;
  }

  bool add(const Instance& instance, int32_t first_row, int32_t last_row) {
    const int32_t reach = settings_.reach;
    const int32_t left = larger(0, instance.left - reach);
    const int32_t right = smaller(plan_.width - 1, instance.right + reach);
    compose_until(left / BLOCK);  // no later instance begins further left
    for (int32_t block = left / BLOCK; block <= right / BLOCK; ++block)
      if (!blocks_[block] && !(blocks_[block] = cleared_block())) return false;
    if (!distance_.prepare(plan_, instance, settings_, squares_, first_row, last_row, rows_)) return false;
    const bool wide = instance.right - instance.left >= WIDE;
    if (wide)
      for (int32_t vector = left / lanes; vector <= right / lanes; ++vector) limits_[vector] = reach;
    for (int32_t y = first_row; y < last_row;) {
      const int32_t region_end = y < instance.top       ? smaller(instance.top, last_row)
                                 : y <= instance.bottom ? smaller(instance.bottom + 1, last_row)
                                                        : last_row;
      for (; y < region_end; y += ROWS) {
        const int32_t count = smaller(ROWS, region_end - y);
        if (wide)
          add_rows<true>(instance, y, count);
        else
          add_rows<false>(instance, y, count);
      }
      y = region_end;
    }
    return true;
  }

  // Adds the instance at rows y..y + count - 1, found in three parts by what columns can be nearest.
  template <bool wide>
  void add_rows(const Instance& instance, int32_t y, int32_t count) {
    VectorRange of_row[ROWS], all{INT32_MAX, 0};
    for (int32_t i = 0; i < count; ++i) {
      of_row[i] = reached(instance, y + i);
      all = {smaller(all.begin, of_row[i].begin), larger(all.end, of_row[i].end)};
    }
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
        Out* const row = blocks_[block] + int64_t(y + i - begin_) * stride - block * BLOCK;
        for (; vector < end; ++vector)
          accumulator_.add_squares(row + vector * lanes, load<V>(squares + vector * lanes));
      }
    }
  }

  // The vectors of row y in which a pixel may lie within reach; all within the reach's square where the
  // farthest instance is tracked.
  VectorRange reached(const Instance& instance, int32_t y) const {
    const double rows_away = larger(0, larger(instance.top - y, y - instance.bottom)),
                 reach = settings_.reach;
    const int32_t columns = tracking == NEAREST_AND_FARTHEST
                                ? settings_.reach
                                : int32_t(sqrt(reach * reach - rows_away * rows_away));
    return {larger(0, instance.left - columns) / lanes,
            smaller(plan_.width - 1, instance.right + columns) / lanes + 1};
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
    int32_t limit = settings_.reach;
    if constexpr (wide) {
      limit = limits_[vector];
      for (int n = 1; n < N; ++n) limit = larger(limit, limits_[vector + n]);
    }
    V squares[ROWS][N];
    distance_.template find<N>(vector * lanes, columns, limit, squares);
    for (int i = 0; i < ROWS; ++i) {
      for (int n = 0; n < N; ++n) {
        // What lies beyond the reach depends on how vectors and rows were grouped; no result may.
        store<V>(row_squares_ + i * row_length_ + (vector + n) * lanes,
                 squares[i][n] > farthest_ ? broadcast<V>(Out(BEYOND)) : squares[i][n]);
      }
    }
    if constexpr (wide)
      for (int n = 0; n < N; ++n) limits_[vector + n] = limit_of_next_rows(squares[ROWS - 1][n]);
  }

  // From one row to the next a distance grows by at most 1.
  int32_t limit_of_next_rows(V squares) const {
    Out largest = squares[0];
    for (int lane = 1; lane < lanes; ++lane) largest = larger(largest, squares[lane]);
    return largest < farthest_ ? smaller(int32_t(sqrt(double(largest))) + 1 + ROWS, settings_.reach)
                               : settings_.reach;
  }

  // Writes the weights of blocks composed_ to end_block, to which nothing is added any more.
  void compose_until(int32_t end_block) {
    for (; composed_ < end_block; ++composed_) {
      Out* const block = blocks_[composed_];
      if (!block && on_top_) continue;
      const int32_t x = composed_ * BLOCK, width = smaller(BLOCK, plan_.width - x);
      for (int32_t y = begin_; y < end_; ++y) {
        Out* const weights = out_ + int64_t(y) * plan_.width + x;
        if (!block) {
          composer_.untouched(weights, width);
          continue;
        }
        Out* const row = block + int64_t(y - begin_) * stride;
        const bool bordered = y >= plan_.border_top && y <= plan_.border_bottom;
        const int32_t border_left = bordered ? plan_.border_left - x : BLOCK;
        const int32_t border_right = bordered ? plan_.border_right - x : -1;
        if (bordered) take_roots(row);
        composer_.compose(row, border_left, border_right, weights, width);
      }
      aligned_free(block);
      blocks_[composed_] = nullptr;
    }
  }

  // From squares to the distances that the border term adds; BEYOND where there is none within reach.
  void take_roots(Out* row) const {
    if constexpr (tracking != SUM_ONLY) {
      const V limit = V{} + Out(settings_.reach + 1) * Out(settings_.reach + 1), beyond = V{} + Out(BEYOND);
      for (int32_t i = 0; i < BLOCK; i += lanes) {
        const V nearest = load<V>(row + BLOCK + i), other = load<V>(row + 2 * BLOCK + i);
        if (any_greater(limit, other)) {
          store<V>(row + BLOCK + i, nearest < Out(BEYOND) ? square_root(nearest) : beyond);
          store<V>(row + 2 * BLOCK + i, other < Out(BEYOND) ? square_root(larger(other, V{})) : beyond);
        } else {
          store<V>(row + 2 * BLOCK + i, beyond);
        }
      }
    }
  }

  Out* cleared_block() {
    Out* const block =
        static_cast<Out*>(aligned_allocate(int64_t(end_ - begin_) * stride * int64_t(sizeof(Out))));
    if (block)
      for (int32_t y = begin_; y < end_; ++y) accumulator_.clear(block + int64_t(y - begin_) * stride);
    return block;
  }

  const ImagePlan& plan_;
  const Settings& settings_;
  const bool on_top_;
  const int32_t begin_, end_;
  Out* const out_;
  const Accumulator<Out, tracking> accumulator_;
  const Composer<Out, Out, tracking> composer_;
  const int32_t block_count_;
  const int64_t row_length_;
  const Out farthest_;  // square of the reach
  int32_t composed_ = 0;
  Out** blocks_ = nullptr;
  Out* table_ = nullptr;
  const Out* squares_ = nullptr;  // squares_[t] = t^2, |t| <= reach + BLOCK + 1
  Out* row_squares_ = nullptr;  // of the row's pixels, the squares of their distances to the instance
  int32_t* limits_ = nullptr;  // of each vector of columns: no distance in the next row exceeds it
  EuclideanDistance<Out> distance_;
  Workspace rows_{nullptr, 0};
};

template <class Out>
int32_t weigh_euclidean_rows_as(const ImagePlan& plan, const Settings& settings, bool on_top, int32_t begin,
                                int32_t end, Out* out) {
  switch (plan.tracking) {
    case SUM_ONLY:
      return EuclideanRowPass<Out, SUM_ONLY>(plan, settings, on_top, begin, end, out).run();
    case NEAREST_AND_SECOND:
      return EuclideanRowPass<Out, NEAREST_AND_SECOND>(plan, settings, on_top, begin, end, out).run();
    default:
      return EuclideanRowPass<Out, NEAREST_AND_FARTHEST>(plan, settings, on_top, begin, end, out).run();
  }
}

inline int32_t weigh_euclidean_rows(const ImagePlan* plan, const Settings* settings, bool on_top,
                                    Precision precision, int32_t begin, int32_t end, void* out) {
  if (precision == FLOAT_THROUGHOUT)
    return weigh_euclidean_rows_as(*plan, *settings, on_top, begin, end, static_cast<float*>(out));
  return weigh_euclidean_rows_as(*plan, *settings, on_top, begin, end, static_cast<double*>(out));
}

}  // namespace FLC_ISA
}  // namespace flc
