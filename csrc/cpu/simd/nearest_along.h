// The two nearest instances along a further axis, and what they are wanted for: distances, or weights.
#pragma once

#include "cpu/simd/compose.h"
#include "cpu/simd/nearest_place.h"

namespace flc {
namespace FLC_ISA {

// Whether any lane of a is as large as that of b.
template <class V>
FLC_INLINE bool any_reached(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(a[0]) == 4)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ) != 0;
  else
    return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GE_OQ) != 0;
#else
  return any_true((Ints)(a >= b));
#endif
}

// Looks at the places k steps before and after one, k = 1, 2, ..., as far as there are any, while more(k): that
// is asked at every other step alone. look(place, another, k), the same twice where there is but one.
template <class V, class More, class Look>
FLC_INLINE void look_around(const Place<V>* here, int64_t before, int64_t after, const More& more,
                            const Look& look) {
  const int64_t both = smaller(before, after), most = larger(before, after);
  int64_t k = 1;
  for (; k < both; k += 2) {
    if (!more(k)) return;
    look(here[-k], here[k], k);
    look(here[-k - 1], here[k + 1], k + 1);
  }
  if (k == both) {
    if (!more(k)) return;
    look(here[-k], here[k], k);
    ++k;
  }
  const int64_t direction = before < after ? 1 : -1;
  for (; k <= most && more(k); ++k) look(here[direction * k], here[direction * k], k);
}

// Likewise for the places more than NEAREST_BLOCK steps before and after one, but for those of blocks that
// may_help(block, k), where k leads to their first place, rules out.
template <class V, class More, class MayHelp, class Look>
FLC_INLINE void look_far(const Place<V>* here, const Place<V>* blocks, int64_t position, int64_t size,
                         const More& more, const MayHelp& may_help, const Look& look) {
  for (int64_t direction = -1; direction <= 1; direction += 2) {
    const int64_t most = direction < 0 ? position : size - 1 - position;
    for (int64_t k = NEAREST_BLOCK + 1; k <= most && more(k);) {
      const int64_t block = (position + direction * k) / NEAREST_BLOCK,
                    begin = (position + direction * k) % NEAREST_BLOCK,
                    last = smaller(most, k + (direction < 0 ? begin : NEAREST_BLOCK - 1 - begin));
      if (may_help(blocks[block], k))
        for (; k <= last; ++k) look(here[direction * k], k);
      k = last + 1;
    }
  }
}

// Two searches: for the nearest instance with its number, up to where it is; then for the nearest other one.
template <class V, bool smaller_id_wins>
class NearestAlong {
  using Real = typename Number<V>::Scalar;
  using Numbers = typename Place<V>::Numbers;

 public:
  NearestAlong(const NearestSearch& search, const NearestColumn& column)
      : with_second_(search.with_second),
        limit_(square_of(search.limit)),
        second_limit_(square_of(search.second_limit)),
        from_(static_cast<const Place<V>*>(column.from)),
        squares_(static_cast<const Real*>(column.squares)),
        size_(column.size),
        at_once_(column.blocks ? NEAREST_BLOCK : column.size),
        blocks_(static_cast<Place<V>*>(column.blocks)) {
    if (column.blocks) summarize(static_cast<Place<V>*>(column.blocks));
  }

  // For the next axis. What is beyond the limits is not found: there is no number then.
  Place<V> at(int64_t i) const {
    Place<V> found;
    find_near(i, V{} + limit_, found.near, found.number);
    found.second = with_second_ ? find_second(i, V{} + second_limit_, found.number) : V{} + second_limit_;
    return found;
  }

  // Only what is nearer than `least`, which is found otherwise.
  FLC_INLINE void find_near(int64_t i, V least, V& near_out, Numbers& number_out) const {
    const Place<V>* const here = from_ + i;
    Near found{least, Numbers{}};
    take(here->near, here->number, found);
    look_around(
        here, smaller(i, at_once_), smaller(size_ - 1 - i, at_once_),
        [&](int64_t k) { return counts(V{} + squares_[k], found); },
        [&](const Place<V>& a, const Place<V>& b, int64_t k) {
          Near nearer{a.near, a.number};
          take(b.near, b.number, nearer);
          take(nearer.square + squares_[k], nearer.number, found);
        });
    if (blocks_) found = find_near_far_away(i, found);
    near_out = found.square;
    number_out = found.number;
  }

  FLC_INLINE V find_second(int64_t i, V least, Numbers nearest) const {
    const Place<V>* const here = from_ + i;
    V second = smaller(other(*here, nearest), least);
    look_around(
        here, smaller(i, at_once_), smaller(size_ - 1 - i, at_once_),
        [&](int64_t k) { return any_greater(second, V{} + squares_[k]); },
        [&](const Place<V>& a, const Place<V>& b, int64_t k) {
          second = smaller(smaller(other(a, nearest), other(b, nearest)) + squares_[k], second);
        });
    return blocks_ ? find_second_far_away(i, second, nearest) : second;
  }

 private:
  struct Near {
    V square;
    Numbers number;
  };

  // Not inlined: the searches nearby keep their registers.
  [[gnu::noinline]] Near find_near_far_away(int64_t i, Near found) const {
    look_far(
        from_ + i, blocks_, i, size_, [&](int64_t k) { return counts(V{} + squares_[k], found); },
        [&](const Place<V>& block, int64_t k) {
          return any_greater(V{} + Real(INFINITY), block.near) && counts(block.near + squares_[k], found);
        },
        [&](const Place<V>& place, int64_t k) { take(place.near + squares_[k], place.number, found); });
    return found;
  }

  [[gnu::noinline]] V find_second_far_away(int64_t i, V second, Numbers nearest) const {
    look_far(
        from_ + i, blocks_, i, size_, [&](int64_t k) { return any_greater(second, V{} + squares_[k]); },
        [&](const Place<V>& block, int64_t k) {
          return any_greater(second, other(block, nearest) + squares_[k]);
        },
        [&](const Place<V>& place, int64_t k) {
          second = smaller(other(place, nearest) + squares_[k], second);
        });
    return second;
  }

  // Of each block the least squares across the axis: from no place along it is there less to any of its places.
  void summarize(Place<V>* blocks) const {
    for (int64_t begin = 0; begin < size_; begin += NEAREST_BLOCK) {
      const int64_t end = smaller(size_, begin + NEAREST_BLOCK);
      Place<V> all = from_[begin];
      for (int64_t i = begin + 1; i < end; ++i) {
        const Place<V>& next = from_[i];
        const Numbers number = next.near < all.near ? next.number : all.number;
        if (with_second_) all.second = smaller(other(all, number), other(next, number));
        all.near = smaller(next.near, all.near);
        all.number = number;
      }
      blocks[begin / NEAREST_BLOCK] = all;
    }
  }

  static Real square_of(double x) { return Real(x * x < 1e300 ? x * x : INFINITY); }

  // The nearest instance there but for one.
  static FLC_INLINE V other(const Place<V>& place, Numbers nearest) {
    return place.number == nearest ? place.second : place.near;
  }

  // Whether what is so far can be found yet.
  static FLC_INLINE bool counts(V square, const Near& found) {
    return smaller_id_wins ? any_reached(found.square, square) : any_greater(found.square, square);
  }

  static FLC_INLINE void take(V square, Numbers number, Near& found) {
    Numbers nearer = square < found.square;
    if constexpr (smaller_id_wins) nearer |= (square == found.square) & (number < found.number);
    found.number = nearer ? number : found.number;
    found.square = smaller(square, found.square);
  }

  const bool with_second_;
  const Real limit_, second_limit_;
  const Place<V>* const from_;
  const Real* const squares_;
  const int64_t size_, at_once_;
  const Place<V>* const blocks_;  // or null
};

// The first `count` lanes to memory.
template <class To, class V>
FLC_INLINE void put_lanes(To* to, V values, int32_t count) {
  if constexpr (sizeof(To) == sizeof(values[0])) {
    if (count == Number<V>::lanes) {
      memcpy(to, &values, sizeof(values));
      return;
    }
  }
  for (int32_t i = 0; i < count; ++i) to[i] = To(values[i]);
}

// Distances and ids.
template <class V, bool smaller_id_wins>
class DistancesFromNearest {
  using Real = typename Number<V>::Scalar;

 public:
  DistancesFromNearest(const NearestSearch& search, const NearestResult& result)
      : search_(search), result_(result), unit_(Real(result.unit)) {}

  FLC_INLINE void finish(const NearestAlong<V, smaller_id_wins>& along, int64_t i, int64_t voxel,
                         int32_t width) const {
    const Place<V> found = along.at(i);
    put_distances(result_.nearest, found.near, voxel, width);
    if (search_.with_second) put_distances(result_.second, found.second, voxel, width);
    if (!result_.ids) return;
    for (int32_t lane = 0; lane < width; ++lane) {
      const int64_t number = found.number[lane];
      result_.ids[voxel + lane] = result_.id_of && number > 0 ? result_.id_of[number - 1] : number;
    }
  }

 private:
  FLC_INLINE void put_distances(void* to, V square, int64_t voxel, int32_t width) const {
    const V distance = square_root(square) * (V{} + unit_);
    if (result_.dtype == FLC_FLOAT64)
      put_lanes(static_cast<double*>(to) + voxel, distance, width);
    else
      put_lanes(static_cast<float*>(to) + voxel, distance, width);
  }

  const NearestSearch& search_;
  const NearestResult& result_;
  const Real unit_;
};

// Weights. Beyond the limits nothing is looked for, and nowhere on foreground that has no border term.
template <class V, class Result>
class WeightsFromNearest {
  using Real = typename Number<V>::Scalar;
  using Numbers = typename Place<V>::Numbers;
  static constexpr int lanes = Number<V>::lanes;

 public:
  WeightsFromNearest(const NearestSearch& search, const NearestResult& result)
      : params_(*result.weights),
        kinds_(result.kinds),
        on_top_(result.on_top),
        with_border_(search.with_second),
        weights_(static_cast<Result*>(result.nearest)),
        // (near + second <= pair_limit) is not to be had where near is more than half of it.
        near_limit_(largest_square(larger(params_.limit, with_border_ ? params_.pair_limit / 2 : 0))),
        fall_limit_(largest_square(params_.limit)),
        pair_limit_(with_border_ ? finite(params_.pair_limit) : 0) {}

  FLC_INLINE void finish(const NearestAlong<V, false>& along, int64_t i, int64_t voxel, int32_t width) const {
    const Numbers kind = kinds_of(voxel);
    const Numbers background = kind == BACKGROUND;
    const Numbers bordered = params_.border_everywhere ? kind != IGNORED : background;
    V weight;
    if (on_top_) {
      weight = V{};
      for (int32_t lane = 0; lane < width; ++lane) weight[lane] = Real(weights_[voxel + lane]);
    } else {
      weight = background ? V{} + Real(params_.zero) : V{} + Real(params_.one);
      weight = kind == IGNORED ? V{} : weight;
    }
    if (any_true((Ints)bordered)) {
      V near;
      Numbers number;
      along.find_near(i, bordered ? V{} + near_limit_ : V{}, near, number);
      const Numbers falls = background & (near < fall_limit_);
      if (any_true((Ints)falls)) {
        const V fall = power_of_two(near * Real(params_.foreground_exponent)) * Real(params_.fall);
        weight += falls ? fall : V{};
      }
      if (with_border_) {
        const V distance = square_root(near), room = pair_limit_ - distance;
        V least = distance < room ? room * room : V{};
        least = (bordered & (number > 0)) ? least : V{};
        if (any_greater(least, V{})) {
          const V second = along.find_second(i, least, number);
          const V both = distance + square_root(second);
          const V border = power_of_two(both * both * Real(params_.border_exponent)) * Real(params_.bwf);
          weight += second < least ? border : V{};
        }
      }
    }
    put_lanes(weights_ + voxel, weight, width);
  }

 private:
  static Real finite(double x) { return Real(smaller(x, 1e18)); }
  static Real largest_square(double x) { return finite(x) * finite(x); }

  FLC_INLINE Numbers kinds_of(int64_t voxel) const {
    typedef uint8_t Bytes __attribute__((vector_size(lanes)));
    Bytes bytes;
    memcpy(&bytes, kinds_ + voxel, sizeof(bytes));
    return __builtin_convertvector(bytes, Numbers);
  }

  const flc_nearest_params& params_;
  const uint8_t* const kinds_;
  const bool on_top_, with_border_;
  Result* const weights_;
  const Real near_limit_, fall_limit_, pair_limit_;
};

template <class Along, class Finish>
FLC_INLINE void finish_column(const NearestColumn& column, const Along& along, const Finish& end) {
  for (int64_t i = column.begin; i < column.end; ++i)
    end.finish(along, i, column.first_voxel + i * column.stride, column.width);
}

template <class V, bool smaller_id_wins>
inline void nearest_along_of(const NearestSearch& search, const NearestColumn& column,
                             const NearestResult& result) {
  const NearestAlong<V, smaller_id_wins> along(search, column);
  if (column.to) {
    Place<V>* const to = static_cast<Place<V>*>(column.to);
    for (int64_t i = column.begin; i < column.end; ++i) to[i * column.stride] = along.at(i);
    return;
  }
  if constexpr (!smaller_id_wins) {
    if (result.weights) {
      if (result.dtype == FLC_FLOAT64)
        return finish_column(column, along, WeightsFromNearest<V, double>(search, result));
      return finish_column(column, along, WeightsFromNearest<V, float>(search, result));
    }
  }
  finish_column(column, along, DistancesFromNearest<V, smaller_id_wins>(search, result));
}

inline void nearest_along(const NearestSearch* search, const NearestColumn* column,
                          const NearestResult* result) {
  if (search->double_inside) {
    if (search->smaller_id_wins) return nearest_along_of<Doubles, true>(*search, *column, *result);
    return nearest_along_of<Doubles, false>(*search, *column, *result);
  }
  if (search->smaller_id_wins) return nearest_along_of<Floats, true>(*search, *column, *result);
  return nearest_along_of<Floats, false>(*search, *column, *result);
}

}  // namespace FLC_ISA
}  // namespace flc
