// The sums along the rows of an instance, scaled: see scaled_sums.h.
#pragma once

#include "cuda/scaled_sums.h"

namespace flc::cuda {

// sums[byte]: of a^i 2^exponent over the bits i of the byte. By 256 threads.
FLC_DEVICE void fill_byte_sums(const Scaling& scaling, float (&sums)[256]) {
  const int byte = threadIdx.x;
  if (byte < 16) {
    float sum = 0;
    for (int bit = 3; bit >= 0; --bit) sum = sum * scaling.decay + (byte >> bit & 1 ? scaling.unit : 0.f);
    sums[byte] = sum;
  }
  __syncthreads();
  if (byte >= 16) sums[byte] = sums[byte & 15] + scaling.powers[4] * sums[byte >> 4];
}

// One row of an instance: the sums along it, at the columns of the tile.
class ScaledRow {
 public:
  // `words` has room for MOST_WORDS words, WARP apart.
  FLC_DEVICE ScaledRow(const Scaling& scaling, const float* byte_sums, float bits_per_step, int radius,
                       const Box& box, uint32_t* words)
      : scaling_(scaling),
        byte_sums_(byte_sums),
        decay_8_(scaling.powers[8]),
        bits_per_step_(bits_per_step),
        radius_(radius),
        left_(box.left),
        right_(box.right),
        words_(words) {}

  template <class Row>
  FLC_DEVICE void read(const Row& bits) {
    bits.copy(left_, (right_ - left_) / 32 + 1, words_);
  }

  // Columns that the row does not reach are left as they are.
  FLC_DEVICE void sum(float* sums) const {
    beside<+1>(sums);
    beside<-1>(sums);
    if (right_ - left_ <= radius_)
      inside<false>(sums);
    else
      inside<true>(sums);
  }

 private:
  // 32 columns from `column` on, to the right (+1) or to the left (-1); bit 0 is the first.
  template <int DIRECTION>
  FLC_DEVICE uint32_t bits(int column) const {
    if (DIRECTION < 0) return __brev(bits<+1>(column - 31));
    const int offset = column - left_, word = offset >> 5;
    return __funnelshift_r(word_at(word), word_at(word + 1), offset & 31);
  }

  FLC_DEVICE uint32_t word_at(int word) const {
    return word >= 0 && word * 32 <= right_ - left_ ? words_[word * WARP] : 0;
  }

  // The sum of a^i over the first `count` columns from `column` on.
  template <int DIRECTION>
  FLC_DEVICE float sum_of(int column, int count) const {
    float sum = 0;
    for (int first = (count - 1) & ~31; first >= 0; first -= 32) {
      uint32_t word = bits<DIRECTION>(column + DIRECTION * first);
      if (count - first < 32) word &= (1u << (count - first)) - 1;
#pragma unroll
      for (int shift = 24; shift >= 0; shift -= 8) sum = sum * decay_8_ + byte_sums_[word >> shift & 255];
    }
    return sum;
  }

  // To the left (+1) or to the right (-1) of the box, from far to near: each time the window shows one pixel
  // more of it.
  template <int DIRECTION>
  FLC_DEVICE void beside(float* sums) const {
    const int edge = DIRECTION > 0 ? left_ : right_, width = right_ - left_ + 1;
    int away = smaller(radius_, DIRECTION > 0 ? left_ : TILE_W - 1 - right_);
    const int nearest = larger(1, DIRECTION > 0 ? left_ - (TILE_W - 1) : -right_);
    if (away < nearest) return;
    int shown = smaller(width, radius_ - away + 1);
    float sum = sum_of<DIRECTION>(edge, shown);
    float weight = exp2_of(float(scaling_.exponent) - float(shown) * bits_per_step_);
    float* at = sums + edge - DIRECTION * away;
    const float* const end = sums + edge - DIRECTION * (nearest - 1);
    uint32_t next = shown < width ? bits<DIRECTION>(edge + DIRECTION * shown) : 0;
    for (const float* partly = at + DIRECTION * smaller(width - shown, away - nearest + 1); at != partly;
         at += DIRECTION) {
      *at = sum;
      if (next & 1) sum += weight;
      next >>= 1;
      weight *= scaling_.decay;
    }
#pragma unroll 1
    for (; at != end; at += DIRECTION) *at = sum;
  }

  // How far to the left (-1) or right of `column`, itself included, the next pixel is.
  template <int DIRECTION>
  FLC_DEVICE int nearest_from(int column) const {
    for (int steps = 0; steps <= radius_; steps += 32) {
      const uint32_t word = bits<DIRECTION>(column + DIRECTION * steps);
      if (word) return steps + __ffs(word) - 1;
    }
    return radius_ + 1;
  }

  // In the columns of the box: pixels at the column and left of it by one recursion, those right of it by
  // another. WIDE: pixels leave the window. They are taken out by subtraction, which costs no precision: what
  // stays is nearer, thus more. Where none stays, the sum is exactly 0.
  template <bool WIDE>
  FLC_DEVICE void inside(float* sums) const {
    const int first = larger(left_, 0), last = smaller(right_, TILE_W - 1);
    if (first > last) return;
    const uint32_t own = bits<+1>(first);
    const auto has = [](uint32_t bits, int at) { return (bits >> at & 1) != 0; };
    {
      const uint32_t leaving = WIDE ? bits<+1>(first - radius_ - 1) : 0;
      float sum = sum_of<-1>(first - 1, first - left_);
      int nearest = WIDE ? nearest_from<-1>(first - 1) : 0;
      for (int i = 0; i <= last - first; ++i) {
        sum = sum * scaling_.decay + (has(own, i) ? scaling_.unit : 0.f);
        if (WIDE) {
          if (has(leaving, i)) sum -= scaling_.leaving;
          nearest = has(own, i) ? 0 : nearest + 1;
          if (nearest > radius_) sum = 0;
        }
        sums[first + i] = sum;
      }
    }
    const uint32_t leaving = WIDE ? bits<+1>(first + radius_ + 1) : 0;
    float sum = sum_of<+1>(last + 1, right_ - last);
    int nearest = WIDE ? nearest_from<+1>(last + 1) : 0;
    for (int i = last - first; i >= 0; --i) {
      sum *= scaling_.decay;
      if (WIDE) {
        if (has(leaving, i)) sum -= scaling_.leaving;
        if (++nearest > radius_) sum = 0;
      }
      sums[first + i] += sum;
      if (has(own, i)) {
        sum += scaling_.unit;
        nearest = 0;
      }
    }
  }

  const Scaling& scaling_;
  const float* byte_sums_;
  float decay_8_, bits_per_step_;
  int radius_, left_, right_;
  uint32_t* words_;
};

}  // namespace flc::cuda
