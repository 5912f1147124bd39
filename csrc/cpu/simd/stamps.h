// Stages 1 and 2 for specks: small instances of a shape that many have (see cpu/shapes.h).
//
// A stamp is what an instance of the shape adds to the pixels around it: the terms of the sum, and the
// distances. It is found once for a pass over some rows of the image, by the same arithmetic as for any
// instance, and added wherever there is such an instance: one sum a vector. Of the distances, only those need
// a look that may be among the two smallest of a pixel.
#pragma once

#include "cpu/simd/accumulate.h"

namespace flc {
namespace FLC_ISA {

// The rows and columns of a stamp are those that an instance reaches; `least` is the smallest distance.
template <class Out>
struct Stamp {
  Out *terms, *distances;
  Out least;
};

// The runs of a shape whose box is at (top, left); how many.
inline int32_t runs_of(const Shape& shape, int32_t top, int32_t left, Run* runs) {
  int32_t count = 0;
  for (int32_t row = 0; row < shape.height; ++row) {
    const auto taken = [&](int32_t x) {
      return x < shape.width && shape.pixels >> (row * SHAPE_SIDE + x) & 1;
    };
    for (int32_t x = 0; x < shape.width; ++x) {
      if (!taken(x)) continue;
      const int32_t first = x;
      while (taken(x + 1)) ++x;
      runs[count++] = {top + row, left + first, left + x, 0};
    }
  }
  return count;
}
constexpr int32_t MOST_RUNS = SHAPE_SIDE * SHAPE_SIDE / 2;

// squared: distances are held by their squares, and are Euclidean.
template <class Out, class Border, bool squared>
class Specks {
  using V = Vec<Out>;
  static constexpr int lanes = Number<V>::lanes;
  static constexpr int VECTORS = CHUNK / lanes;
  static constexpr int stride = ROW_STRIDE<Out, Border>;
  static constexpr int TILE = 8;  // rows that share a bound; as many columns as a chunk
  static constexpr int GROUP = 4;  // whose terms are added together

 public:
  Specks(const ImagePlan& plan, const Settings& settings, int32_t begin, int32_t end)
      : plan_(plan), reach_(settings.reach), begin_(begin), end_(end) {}
  ~Specks() {
    if (stamps_)
      for (int64_t shape = 0; shape < plan_.shape_count; ++shape) aligned_free(stamps_[shape].terms);
    aligned_free(stamps_);
    aligned_free(specks_);
    aligned_free(bounds_);
  }
  Specks(const Specks&) = delete;
  Specks& operator=(const Specks&) = delete;

  // False: memory ran out.
  bool prepare() {
    if (plan_.speck_count == 0) return true;
    const int64_t line = 64 / int64_t(sizeof(Out));
    stamp_lead_ = reach_ + CHUNK - 1;
    // An odd number of cache lines: a column of rows spreads over the whole cache.
    stamp_stride_ = ((2 * stamp_lead_ + SHAPE_SIDE + line - 1) / line | 1) * line;
    specks_ = static_cast<Speck*>(aligned_allocate(plan_.speck_count * int64_t(sizeof(Speck))));
    stamps_ = static_cast<Stamp<Out>*>(aligned_allocate(plan_.shape_count * int64_t(sizeof(Stamp<Out>))));
    if (stamps_)
      for (int64_t shape = 0; shape < plan_.shape_count; ++shape) stamps_[shape] = {};
    bounds_ = static_cast<Out*>(aligned_allocate(tiles() * int64_t(sizeof(Out))));
    if (!specks_ || !stamps_ || !bounds_) return false;
    for (int64_t i = 0; i < plan_.speck_count; ++i) {
      const Speck& speck = plan_.specks[i];
      if (speck.top - reach_ < end_ && speck.top + shape(speck).height + reach_ > begin_)
        specks_[speck_count_++] = speck;
    }
    return true;
  }

  // Whether any reaches columns x.. of a block. Blocks are asked for from left to right.
  bool reach_block(int32_t x) {
    skip_until(x);
    return first_ < speck_count_ && specks_[first_].left - reach_ < x + BLOCK;
  }

  // Adds them to the chunk at columns x.., `rows` points at it in the first row of the block. Calls
  // find(shape, stamp, lead, stride) for shapes not met before: it writes their terms and distances, row by
  // row from the first that they reach; the column of the shape's left edge is `lead`. False: memory ran out.
  template <class Find>
  bool add(int32_t x, Out* rows, const Find& find) {
    skip_until(x);
    int64_t last = first_;
    while (last < speck_count_ && specks_[last].left - reach_ < x + CHUNK) ++last;
    if (first_ == last) return true;
    int64_t group[GROUP];
    int count = 0;
    for (int64_t i = first_; i < last; ++i) {
      const Speck& speck = specks_[i];
      Stamp<Out>& stamp = stamps_[speck.shape];
      if (!stamp.terms && !make(shape(speck), stamp, find)) return false;
      if (speck.left + shape(speck).width - 1 + reach_ < x) continue;
      group[count++] = i;
      if (count < GROUP) continue;
      add_group(group, x, rows);
      count = 0;
    }
    for (int i = 0; i < count; ++i) {
      const Rows reached = reached_by(specks_[group[i]]);
      add_terms(specks_[group[i]], reached.first, reached.last, x, rows);
    }
    if constexpr (has_border<Border> && !Border::EVERY_INSTANCE) rank_distances(x, last, rows);
    return true;
  }

  // Marks their pixels in the chunk.
  void mark_foreground(int32_t x, Out* rows) const {
    for (int64_t i = first_; i < speck_count_ && specks_[i].left < x + CHUNK; ++i) {
      const Speck& speck = specks_[i];
      if (speck.left + SHAPE_SIDE <= x) continue;
      const uint64_t pixels = shape(speck).pixels;
      for (int32_t row = 0; row < shape(speck).height; ++row) {
        const int32_t y = speck.top + row;
        if (y < begin_ || y >= end_) continue;
        for (int32_t column = 0; column < SHAPE_SIDE; ++column) {
          const int32_t at = speck.left + column - x;
          if (at >= 0 && at < CHUNK && pixels >> (row * SHAPE_SIDE + column) & 1)
            rows[int64_t(y - begin_) * stride + at] = Out(FOREGROUND);
        }
      }
    }
  }

 private:
  int64_t tiles() const { return (end_ - begin_ + TILE - 1) / TILE; }
  const Shape& shape(const Speck& speck) const { return plan_.shapes[speck.shape]; }

  // Leaves out what ends left of column x.
  void skip_until(int32_t x) {
    while (first_ < speck_count_ && specks_[first_].left + SHAPE_SIDE - 1 + reach_ < x) ++first_;
  }

  template <class Find>
  bool make(const Shape& shape, Stamp<Out>& stamp, const Find& find) const {
    const int64_t size = (shape.height + 2 * int64_t(reach_)) * stamp_stride_;
    stamp.terms = static_cast<Out*>(aligned_allocate(2 * size * int64_t(sizeof(Out))));
    if (!stamp.terms) return false;
    stamp.distances = stamp.terms + size;
    for (int64_t i = 0; i < size; ++i) {
      stamp.terms[i] = 0;
      stamp.distances[i] = Out(BEYOND);
    }
    if (!find(shape, stamp, stamp_lead_, stamp_stride_)) return false;
    stamp.least = Out(BEYOND);
    for (int64_t i = 0; i < size; ++i) stamp.least = smaller(stamp.least, stamp.distances[i]);
    return true;
  }

  // Rows of the image, both inclusive.
  struct Rows {
    int32_t first, last;
  };
  Rows reached_by(const Speck& speck) const {
    return {larger(speck.top - reach_, begin_),
            smaller(speck.top + shape(speck).height - 1 + reach_, end_ - 1)};
  }
  int64_t index(const Speck& speck, int32_t y, int32_t x) const {  // into a stamp
    return (y - speck.top + reach_) * stamp_stride_ + x - speck.left + stamp_lead_;
  }

  // The terms of several at a time where all of them reach, in their order whatever the group.
  void add_group(const int64_t* group, int32_t x, Out* rows) const {
    Rows of_one[GROUP], all{begin_, end_ - 1};
    const Out* terms[GROUP];
    for (int i = 0; i < GROUP; ++i) {
      of_one[i] = reached_by(specks_[group[i]]);
      all = {larger(all.first, of_one[i].first), smaller(all.last, of_one[i].last)};
    }
    if (all.first > all.last) all.last = all.first - 1;
    for (int i = 0; i < GROUP; ++i) {
      const Speck& speck = specks_[group[i]];
      if (all.first > all.last) {
        add_terms(speck, of_one[i].first, of_one[i].last, x, rows);
        continue;
      }
      add_terms(speck, of_one[i].first, all.first - 1, x, rows);
      add_terms(speck, all.last + 1, of_one[i].last, x, rows);
      terms[i] = stamps_[speck.shape].terms + index(speck, all.first, x);
    }
    Out* row = rows + int64_t(all.first - begin_) * stride;
    int64_t at = 0;
    for (int32_t y = all.first; y <= all.last; ++y) {
      for (int n = 0; n < VECTORS; ++n) {
        V sum = load<V>(row + n * lanes);
        for (int i = 0; i < GROUP; ++i) sum += load<V>(terms[i] + at + n * lanes);
        store<V>(row + n * lanes, sum);
      }
      row += stride;
      at += stamp_stride_;
    }
  }

  FLC_INLINE void add_terms(const Speck& speck, int32_t first, int32_t last, int32_t x, Out* rows) const {
    const Out* terms = stamps_[speck.shape].terms + index(speck, first, x);
    Out* row = rows + int64_t(first - begin_) * stride;
    for (int32_t y = first; y <= last; ++y) {
      for (int n = 0; n < VECTORS; ++n)
        store<V>(row + n * lanes, load<V>(row + n * lanes) + load<V>(terms + n * lanes));
      row += stride;
      terms += stamp_stride_;
    }
  }

  // First those in and around each tile; what is found bounds where more need to be looked for.
  void rank_distances(int32_t x, int64_t last, Out* rows) {
    const auto held = [](double distance) { return Out(squared ? distance * distance : distance); };
    const Out limits[] = {held(3), held(12), Out(BEYOND)};
    for (int64_t tile = 0; tile < tiles(); ++tile) bounds_[tile] = Out(BEYOND);
    Out above = Out(-BEYOND), largest = Out(BEYOND);
    for (const Out limit : limits) {
      if (largest <= above) break;
      for (int64_t i = first_; i < last; ++i)
        rank_between(specks_[i], above, smaller(limit, largest), x, rows);
      largest = Out(-BEYOND);
      for (int32_t tile = 0; tile < tiles(); ++tile) {
        bounds_[tile] = largest_other(tile, rows);
        largest = larger(largest, bounds_[tile]);
      }
      above = limit;
    }
  }

  Out largest_other(int32_t tile, const Out* rows) const {
    const Out* row = rows + int64_t(tile) * TILE * stride + 2 * BLOCK;
    V largest = load<V>(row);
    for (int32_t y = tile * TILE; y < smaller((tile + 1) * TILE, end_ - begin_); ++y, row += stride)
      for (int n = 0; n < VECTORS; ++n) largest = larger(largest, load<V>(row + n * lanes));
    Out result = largest[0];
    for (int lane = 1; lane < lanes; ++lane) result = larger(result, largest[lane]);
    return result;
  }

  // Ranks one in those tiles in which its least distance lies above `above`, but not above `limit` or the
  // bound.
  void rank_between(const Speck& speck, Out above, Out limit, int32_t x, Out* rows) const {
    const Stamp<Out>& stamp = stamps_[speck.shape];
    const int32_t right = speck.left + shape(speck).width - 1, bottom = speck.top + shape(speck).height - 1;
    const int32_t across = larger(larger(x - right, speck.left - (x + CHUNK - 1)), 0);
    if (across > reach_ || least_of(across, 0, stamp) > limit) return;
    const Rows reached = reached_by(speck);
    // Rows farther than this are too far away.
    const int32_t near = limit >= Out(reach_) * (squared ? Out(reach_) : Out(1)) ? reach_
                         : squared ? smaller(reach_, int32_t(sqrt(double(limit))) + 1)
                                   : smaller(reach_, int32_t(limit - stamp.least) + 2);
    const int32_t from = larger(reached.first, speck.top - near), to = smaller(reached.last, bottom + near);
    for (int32_t tile = (from - begin_) / TILE; from <= to && tile * TILE <= to - begin_; ++tile) {
      const int32_t y = begin_ + tile * TILE, tile_end = smaller(y + TILE, end_);
      const Out least = least_of(across, larger(larger(y - bottom, speck.top - (tile_end - 1)), 0), stamp);
      if (least <= above || least > limit || least > bounds_[tile]) continue;
      const int32_t begin = larger(reached.first, y), end = smaller(reached.last + 1, tile_end);
      const Out* distances = stamp.distances + index(speck, begin, x);
      Out* row = rows + int64_t(begin - begin_) * stride;
      for (int32_t i = begin; i < end; ++i) {
        for (int n = 0; n < VECTORS; ++n) rank(row + n * lanes, load<V>(distances + n * lanes));
        row += stride;
        distances += stamp_stride_;
      }
    }
  }

  static FLC_INLINE void rank(Out* row, V d) {
    const V nearest = load<V>(row + BLOCK), other = load<V>(row + 2 * BLOCK);
    store<V>(row + BLOCK, smaller(nearest, d));
    store<V>(row + 2 * BLOCK, Border::template rank<Order>(other, nearest, d));
  }

  // No distance of a tile's pixels to an instance falls below this, when its box is so many columns and rows
  // away.
  static FLC_INLINE Out least_of(int32_t across, int32_t along, const Stamp<Out>& stamp) {
    return squared ? Out(across) * Out(across) + Out(along) * Out(along)
                   : Out(across) + Out(along) + stamp.least - Out(0.01);
  }

  const ImagePlan& plan_;
  const int32_t reach_, begin_, end_;
  int64_t stamp_stride_, stamp_lead_;
  Speck* specks_ = nullptr;  // those that reach these rows, from left to right
  int64_t speck_count_ = 0, first_ = 0;  // earlier ones are done with
  Stamp<Out>* stamps_ = nullptr;  // of each shape; without terms where none was met yet
  Out* bounds_ = nullptr;  // of each tile: no two nearest distances exceed it
};

}  // namespace FLC_ISA
}  // namespace flc
