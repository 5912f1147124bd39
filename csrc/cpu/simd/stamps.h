// Stages 1 and 2 for specks: small instances of a shape that many have (see cpu/shapes.h).
//
// A stamp is what an instance of the shape adds to the pixels around it: the terms of the sum, and the distances.
// It is found once for a pass over some rows of the image, by the same arithmetic as for any instance, and added
// wherever there is such an instance: one sum a vector. Of the distances, only those need a look that may be
// among the two smallest of a pixel.
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
    const auto taken = [&](int32_t x) { return x < shape.width && shape.pixels >> (row * SHAPE_SIDE + x) & 1; };
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
    bounds_ = static_cast<Out*>(aligned_allocate(2 * tiles() * int64_t(sizeof(Out))));
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
  // find(shape, stamp, lead, stride) for shapes not met before: it writes their terms and distances, row by row
  // from the first that they reach; the column of the shape's left edge is `lead`. False: memory ran out.
  template <class Find>
  bool add(int32_t x, Out* rows, const Find& find) {
    skip_until(x);
    int64_t last = first_;
    while (last < speck_count_ && specks_[last].left - reach_ < x + CHUNK) ++last;
    if (first_ == last) return true;
    if constexpr (has_border<Border>) bound_distances(x, last);
    for (int64_t i = first_; i < last; ++i) {
      const Speck& speck = specks_[i];
      Stamp<Out>& stamp = stamps_[speck.shape];
      if (!stamp.terms && !make(shape(speck), stamp, find)) return false;
      if (speck.left + shape(speck).width - 1 + reach_ >= x) add(speck, stamp, x, rows);
    }
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

  FLC_INLINE void add(const Speck& speck, const Stamp<Out>& stamp, int32_t x, Out* rows) const {
    const int32_t top = speck.top - reach_, bottom = speck.top + shape(speck).height - 1 + reach_;
    const int32_t first = larger(top, begin_), last = smaller(bottom, end_ - 1);
    const int64_t at = x - speck.left + stamp_lead_;
    const Out* terms = stamp.terms + (first - top) * stamp_stride_ + at;
    Out* row = rows + int64_t(first - begin_) * stride;
    for (int32_t y = first; y <= last; ++y) {
      for (int n = 0; n < VECTORS; ++n)
        store<V>(row + n * lanes, load<V>(row + n * lanes) + load<V>(terms + n * lanes));
      row += stride;
      terms += stamp_stride_;
    }
    if constexpr (has_border<Border>) {
      const int32_t left = speck.left, right = left + shape(speck).width - 1;
      const int32_t across = larger(larger(x - right, left - (x + CHUNK - 1)), 0);
      if (least_of(across, 0, stamp) > largest_bound_) return;
      const int32_t box_bottom = bottom - reach_;
      for (int32_t tile = (first - begin_) / TILE; tile * TILE <= last - begin_; ++tile) {
        const int32_t y = begin_ + tile * TILE;
        const int32_t along = larger(larger(y - box_bottom, speck.top - (y + TILE - 1)), 0);
        if (least_of(across, along, stamp) > bounds_[2 * tile + 1]) continue;
        const int32_t begin = larger(first, y), end = smaller(last + 1, y + TILE);
        const Out* distances = stamp.distances + (begin - top) * stamp_stride_ + at;
        row = rows + int64_t(begin - begin_) * stride;
        for (int32_t i = begin; i < end; ++i) {
          for (int n = 0; n < VECTORS; ++n) rank(row + n * lanes, load<V>(distances + n * lanes));
          row += stride;
          distances += stamp_stride_;
        }
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

  // For each tile of the chunk, a bound to the two nearest distances of its pixels: bounds_[2 tile + 1]. It is the
  // second smallest of the distances to the farthest corners of boxes.
  void bound_distances(int32_t x, int64_t last) {
    const Out reach = Out(reach_);
    for (int64_t i = 0; i < 2 * tiles(); ++i) bounds_[i] = Out(2 * BEYOND);
    for (int64_t i = first_; i < last; ++i) {
      const Speck& speck = specks_[i];
      const int32_t right = speck.left + shape(speck).width - 1, bottom = speck.top + shape(speck).height - 1;
      if (right < x - CHUNK || speck.left >= x + 2 * CHUNK) continue;  // nearer ones will do
      const Out across = Out(larger(x + CHUNK - 1 - speck.left, right - x));
      const int32_t middle = (speck.top - begin_) / TILE;
      for (int32_t tile = larger(middle - 2, 0); tile <= middle + 2 && tile < tiles(); ++tile) {
        const int32_t y = begin_ + tile * TILE;
        const Out along = Out(larger(y + TILE - 1 - speck.top, bottom - y));
        const Out bound = squared ? across * across + along * along : across + along;
        if (squared ? bound > reach * reach : larger(across, along) > reach) continue;
        Out* const of_tile = bounds_ + 2 * tile;
        of_tile[1] = smaller(of_tile[1], larger(of_tile[0], bound));
        of_tile[0] = smaller(of_tile[0], bound);
      }
    }
    largest_bound_ = 0;
    for (int64_t tile = 0; tile < tiles(); ++tile)
      largest_bound_ = larger(largest_bound_, bounds_[2 * tile + 1]);
  }

  const ImagePlan& plan_;
  const int32_t reach_, begin_, end_;
  int64_t stamp_stride_, stamp_lead_;
  Speck* specks_ = nullptr;  // those that reach these rows, from left to right
  int64_t speck_count_ = 0, first_ = 0;  // earlier ones are done with
  Stamp<Out>* stamps_ = nullptr;  // of each shape; without terms where none was met yet
  Out* bounds_ = nullptr;
  Out largest_bound_;
};

}  // namespace FLC_ISA
}  // namespace flc
