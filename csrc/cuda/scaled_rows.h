// The sums along the rows of an instance, scaled: see scaled_sums.h.
#pragma once

#include "cuda/scaled_sums.h"

namespace flc::cuda {

struct alignas(16) Four {
  float at[4];
};

// Of pixels in four columns, by their bits.
struct FourSums {
  Four around[16];  // at column i: 2^exponent a^|i - j| over the pixels j
  Four up_to[16];   // at column i: a^j over the pixels j <= i

  // By one warp.
  FLC_DEVICE void fill(const Scaling& scaling, int lane) {
    const bool is_around = lane < 16;
    Four sums;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums.at[i] = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float around = scaling.unit * scaling.powers[i < j ? j - i : i - j];
        const float up_to = j <= i ? scaling.powers[j] : 0.f;
        if (lane >> j & 1) sums.at[i] += is_around ? around : up_to;
      }
    }
    (is_around ? this->around : this->up_to)[lane & 15] = sums;
  }
};

// Sums along a row of an instance whose box is at most 32 columns wide and no wider than what a window shows
// of one side: four columns at a time, from the bits of the four and what lies beside them.
class NarrowRow {
 public:
  // `bits`: of the row, from the left of the box on.
  FLC_DEVICE NarrowRow(const Scaling& scaling, const FourSums& four_sums, float bits_per_step, int radius,
                       const Box& box, uint32_t bits)
      : scaling_(scaling),
        four_sums_(four_sums),
        bits_per_step_(bits_per_step),
        radius_(radius),
        left_(box.left),
        right_(box.right),
        bits_(bits) {}

  // At the columns of the tile; those that the row does not reach get what does not matter.
  FLC_DEVICE void sum(float* sums) const {
    if (left_ < TILE_W && right_ >= 0) inside(sums);
    // Most boxes have columns of the tile on one side only, so that all lanes are busy at the same time.
    bool on_the_left = left_ > 0 && left_ - radius_ < TILE_W;
    bool on_the_right = right_ < TILE_W - 1 && right_ + radius_ >= 0;
#pragma unroll 1
    while (on_the_left || on_the_right) {
      beside(on_the_left, sums);
      if (on_the_left)
        on_the_left = false;
      else
        on_the_right = false;
    }
  }

 private:
  // The sum of 2^exponent a^i over the bits i of a word.
  FLC_DEVICE float sum_of(uint32_t word) const {
    float sum = around(word >> 28).at[0];
#pragma unroll
    for (int shift = 24; shift >= 0; shift -= 4) {
      sum = sum * scaling_.powers[4] + around(word >> shift & 15).at[0];
    }
    return sum;
  }

  FLC_DEVICE const Four& around(uint32_t four) const { return four_sums_.around[four]; }

  // In all columns of the tile, right in those of the box.
  FLC_DEVICE void inside(float* sums) const {
    const float decay_4 = scaling_.powers[4];
    const uint32_t own = left_ < 0 ? bits_ >> -left_ : bits_ << left_;
    float from_left = 0, from_right = 0;
    if (left_ < 0) {
      from_left = sum_of(__brev(bits_ << (TILE_W + left_)));
    } else if (right_ >= TILE_W) {
      from_right = sum_of(bits_ >> (TILE_W - left_));
    }
    // Half of the columns at a time, for want of registers.
    const auto next_to_the_left = [&](float sum, int i) {
      return sum * decay_4 + around(own >> 4 * i & 15).at[0];
    };
    float half = from_right;
#pragma unroll
    for (int i = 7; i >= 4; --i) half = next_to_the_left(half, i);
    sum_half<0>(own, half, next_to_the_left, from_left, sums);
    sum_half<4>(own, from_right, next_to_the_left, from_left, sums);
  }

  // In the four times four columns from 4 * FIRST on.
  template <int FIRST, class Next>
  FLC_DEVICE void sum_half(uint32_t own, float last, const Next& next_to_the_left, float& from_left,
                           float* sums) const {
    float from_right[4];
    from_right[3] = last;
#pragma unroll
    for (int i = 3; i > 0; --i) from_right[i - 1] = next_to_the_left(from_right[i], FIRST + i);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Four part = around(own >> 4 * (FIRST + i) & 15);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        sums[4 * (FIRST + i) + j] =
            part.at[j] + scaling_.powers[j + 1] * from_left + scaling_.powers[4 - j] * from_right[i];
      }
      from_left = from_left * scaling_.powers[4] + part.at[3];
    }
  }

  // To one side of the box, from far to near: each time the window shows one pixel more of it.
  FLC_DEVICE void beside(bool is_left, float* sums) const {
    const int width = right_ - left_ + 1, step = is_left ? 1 : -1;
    const uint32_t bits = is_left ? bits_ : __brev(bits_ << (32 - width));  // from near to far
    const int edge = is_left ? left_ : TILE_W - 1 - right_;  // columns of the tile on this side, and more
    const int away = smaller(radius_, edge);
    const int shown = smaller(width, radius_ - away + 1);
    int count = away - larger(edge - TILE_W, 0);  // columns
    float sum = sum_of(bits & ALL_LANES >> (32 - shown));
    float* at = sums + (is_left ? left_ - away : right_ + away);
    float weight = exp2_of(float(scaling_.exponent) - float(shown) * bits_per_step_);
    uint32_t next = shown < 32 ? bits >> shown : 0;
    // A pixel that the window shows from a column on counts from the next one on.
#pragma unroll 1
    for (; count >= 4; count -= 4) {
      const Four part = four_sums_.up_to[next & 15];
      next >>= 4;
      at[0] = sum;
      at[step] = sum + weight * part.at[0];
      at[2 * step] = sum + weight * part.at[1];
      at[3 * step] = sum + weight * part.at[2];
      sum += weight * part.at[3];
      weight *= scaling_.powers[4];
      at += 4 * step;
    }
    if (count > 0) {
      const Four part = four_sums_.up_to[next & 15];
      at[0] = sum;
      if (count > 1) at[step] = sum + weight * part.at[0];
      if (count > 2) at[2 * step] = sum + weight * part.at[1];
    }
  }

  const Scaling& scaling_;
  const FourSums& four_sums_;
  float bits_per_step_;
  int radius_, left_, right_;
  uint32_t bits_;
};

// One row of an instance: the sums along it, at the columns of the tile.
class ScaledRow {
 public:
  // `words` has room for MOST_WORDS words, WARP apart: the row's bits from the left of the box on.
  FLC_DEVICE ScaledRow(const Scaling& scaling, const FourSums& four_sums, float bits_per_step, int radius,
                       const Box& box, const uint32_t* words)
      : scaling_(scaling),
        four_sums_(four_sums),
        decay_4_(scaling.powers[4]),
        bits_per_step_(bits_per_step),
        radius_(radius),
        left_(box.left),
        right_(box.right),
        words_(words) {}

  // Columns that the row does not reach get what does not matter.
  FLC_DEVICE void sum(float* sums) const {
    beside<+1>(sums);
    beside<-1>(sums);
    if (left_ < TILE_W && right_ >= 0) inside(sums);
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
#pragma unroll 1
    for (int first = (count - 1) & ~31; first >= 0; first -= 32) {
      uint32_t word = bits<DIRECTION>(column + DIRECTION * first);
      if (count - first < 32) word &= (1u << (count - first)) - 1;
#pragma unroll
      for (int shift = 28; shift >= 0; shift -= 4) {
        sum = sum * decay_4_ + four_sums_.around[word >> shift & 15].at[0];
      }
    }
    return sum;
  }

  // To the left (+1) or to the right (-1) of the box, from far to near: each time the window shows one pixel
  // more of it.
  template <int DIRECTION>
  FLC_DEVICE void beside(float* sums) const {
    const int edge = DIRECTION > 0 ? left_ : right_, width = right_ - left_ + 1;
    const int away = smaller(radius_, DIRECTION > 0 ? left_ : TILE_W - 1 - right_);
    const int nearest = larger(1, DIRECTION > 0 ? left_ - (TILE_W - 1) : -right_);
    int count = away - nearest + 1;  // columns
    if (count <= 0) return;
    const int shown = smaller(width, radius_ - away + 1);
    float sum = sum_of<DIRECTION>(edge, shown);
    float* at = sums + edge - DIRECTION * away;
    float weight = exp2_of(float(scaling_.exponent) - float(shown) * bits_per_step_);
    uint32_t next = shown < width ? bits<DIRECTION>(edge + DIRECTION * shown) : 0;
#pragma unroll 1
    for (; count > 0; --count, at += DIRECTION) {
      *at = sum;
      if (next & 1) sum += weight;
      next >>= 1;
      weight *= scaling_.decay;
    }
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

  // In the columns of the box: pixels at the column and left of it by one
  // recursion, those right of it by another. What leaves is taken out by subtraction, which costs no
  // precision: what stays is nearer, thus more. Where none stays, the sum is exactly 0.
  FLC_DEVICE void inside(float* sums) const {
    const int first = larger(left_, 0), last = smaller(right_, TILE_W - 1);
    const uint32_t own = bits<+1>(first);
    const auto has = [](uint32_t bits, int at) { return (bits >> at & 1) != 0; };
    {
      const uint32_t leaving = bits<+1>(first - radius_ - 1);
      float sum = sum_of<-1>(first - 1, first - left_);
      int nearest = nearest_from<-1>(first - 1);
#pragma unroll 1
      for (int i = 0; i <= last - first; ++i) {
        sum = sum * scaling_.decay + (has(own, i) ? scaling_.unit : 0.f);
        if (has(leaving, i)) sum -= scaling_.leaving;
        nearest = has(own, i) ? 0 : nearest + 1;
        if (nearest > radius_) sum = 0;
        sums[first + i] = sum;
      }
    }
    const uint32_t leaving = bits<+1>(first + radius_ + 1);
    float sum = sum_of<+1>(last + 1, right_ - last);
    int nearest = nearest_from<+1>(last + 1);
#pragma unroll 1
    for (int i = last - first; i >= 0; --i) {
      sum *= scaling_.decay;
      if (has(leaving, i)) sum -= scaling_.leaving;
      if (++nearest > radius_) sum = 0;
      sums[first + i] += sum;
      if (has(own, i)) {
        sum += scaling_.unit;
        nearest = 0;
      }
    }
  }

  const Scaling& scaling_;
  const FourSums& four_sums_;
  float decay_4_, bits_per_step_;
  int radius_, left_, right_;
  const uint32_t* words_;
};

}  // namespace flc::cuda
