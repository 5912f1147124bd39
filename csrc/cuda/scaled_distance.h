// Stage 1, distance, where a float can hold the scaled sums of an instance (see Scaling).
//
// With a = exp(-1 / lmbda), S(p) is the sum of a^|q - p| over the pixels q of an instance in the window
// around p. Row sums come first: lane by lane the rows of the instance, all columns of the tile one after
// another. They are kept in a table, from which a warp forms the sums over columns for its strip of the tile,
// lane by lane a column. Beside its bounding box a row's sums are those of the box's edge, but for what the
// window hides.
#pragma once

#include "cuda/settings.h"
#include "cuda/tile.h"

namespace flc::cuda {

constexpr int TABLE_PITCH =
    TILE_W + 1;  // so that lanes side by side, in a row or a column, use different banks
constexpr int MOST_WORDS = 5;  // 32 bits each, of a row of an instance whose sums are scaled

// Sums below this are not accurate any more.
constexpr float TOO_SMALL = 0x1p-100f;

// Whether the factors of the sums of an instance can be scaled.
__host__ __device__ inline bool scalable(const Settings<float>& settings, const Box& box, int table_rows) {
  const Scaling& scaling = settings.scaling;
  const int longest = smaller(larger(box.width(), box.height()) - 1 + STRIP_H, settings.radius);
  const float bits = smaller(float(longest) * settings.bits_per_step, scaling.bits_that_matter);
  return box.width() <= MOST_WORDS * 32 && box.height() <= table_rows && bits <= scaling.most_bits;
}

// Whether no sum can become too small.
__host__ __device__ inline bool always_accurate(const Settings<float>& settings) {
  const float bits = float(2 * settings.radius + STRIP_H) * settings.bits_per_step;
  return smaller(bits, settings.scaling.bits_that_matter) <= settings.scaling.most_bits_of_product;
}

// --------------------------------------------------------------------------------------------- row sums

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

  // To the left (+1) or to the right (-1) of the box, from far to near: the window shows a pixel more each
  // time.
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

// ------------------------------------------------------------------------------------------ column sums

// The distances of an instance at the pixels of a strip, one column in each lane, from its table of row sums.
// CHECKED: sums may become too small.
template <bool CHECKED>
class ScaledColumn {
 public:
  // `sums`: the instance's first row, at column 0.
  FLC_DEVICE ScaledColumn(const Settings<float>& settings, const Box& box, const float* sums, int x)
      : settings_(settings), scaling_(settings.scaling), height_(box.height()) {
    const int away = beyond(x, box.left, box.right);
    in_reach_ = away <= settings.radius;
    // Columns out of reach have no sums. What is read for them does not matter, but must be numbers.
    sums_ = sums + smaller(larger(x, box.left - settings.radius), box.right + settings.radius);
    base_ = in_reach_ ? float(away) * settings.step_scale + scaling_.unscaled : INFINITE<float>;
    if (CHECKED) by_row_ = base_ - 0.5f * scaling_.unscaled;
  }

  // Of a strip that begins `y` rows below the first row of the box; y may be negative.
  FLC_DEVICE void distances(int y, float (&d)[STRIP_H]) {
    if (y + STRIP_H <= 0)
      outside<+1>(-y - STRIP_H + 1, d);
    else if (y >= height_)
      outside<-1>(y - height_ + 1, d);
    else
      across(y, d);
    if (CHECKED && __any_sync(ALL_LANES, in_reach_ && smallest_ < TOO_SMALL)) by_logarithms(y, d);
  }

 private:
  // The same, slowly: the sums of rows do fit.
  FLC_DEVICE void by_logarithms(int y, float (&d)[STRIP_H]) const {
    const float bits_per_step = settings_.bits_per_step;
    float log_sums[STRIP_H];
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) log_sums[i] = -INFINITE<float>;
#pragma unroll 1
    for (int k = 0; k < STRIP_H; ++k) {
      if (unsigned(y + k) >= unsigned(height_)) continue;
      const float own = log2_of(sums_[(y + k) * TABLE_PITCH]);
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) {
        const int steps = beyond(i, k, k);
        if (steps <= settings_.radius)
          log_sums[i] = log2_sum(log_sums[i], own - float(steps) * bits_per_step);
      }
    }
    add_side_logarithms<+1>(y + STRIP_H - 1, log_sums);
    add_side_logarithms<-1>(y, log_sums);
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) d[i] = by_row_ - settings_.bit_scale * log_sums[i];
  }

  // Adds to the logarithms of sums what the rows below (+1) or above a strip contribute. `edge` is its row
  // that is nearest to them.
  template <int DIRECTION>
  FLC_DEVICE void add_side_logarithms(int edge, float (&log_sums)[STRIP_H]) const {
    const auto index = [](int i) {
      return DIRECTION > 0 ? STRIP_H - 1 - i : i;
    };  // i rows from the nearest one
    const int radius = settings_.radius;
    const int begin = larger(1, DIRECTION > 0 ? -edge : edge - (height_ - 1));  // rows from `edge`
    const int last = DIRECTION > 0 ? height_ - 1 - edge : edge;
    const float bits_per_step = settings_.bits_per_step;
    const auto term = [&](int steps) {
      return log2_of(sums_[(edge + DIRECTION * steps) * TABLE_PITCH]) - float(steps) * bits_per_step;
    };
    float largest = -INFINITE<float>, sum = 0;
    const int shown_by_all = smaller(last, radius - (STRIP_H - 1));
#pragma unroll 1
    for (int steps = begin; steps <= shown_by_all; ++steps) largest = larger(largest, term(steps));
    const float shift = larger(largest, LOWEST<float>);
#pragma unroll 1
    for (int steps = begin; steps <= shown_by_all; ++steps) sum += exp2_of(term(steps) - shift);
    float side = largest + log2_of(sum);
#pragma unroll
    for (int i = STRIP_H - 1; i >= 0; --i) {
      log_sums[index(i)] = log2_sum(log_sums[index(i)], side - float(i) * bits_per_step);
      const int next = radius - i + 1;  // what the next pixel sees besides
      if (next >= begin && next <= last) side = log2_sum(side, term(next));
    }
  }

  // Adds the first `end` rows of those that follow in DIRECTION, with falling weights; false where it stops
  // before, for the rest adds no more.
  template <int DIRECTION>
  FLC_DEVICE bool add_rows(int end, float& sum, float& weight, const float*& at) const {
    int row = 0;
    for (; row + 8 <= end; row += 8) {
      add_group<DIRECTION, 8>(sum, weight, at);
      if (__all_sync(ALL_LANES, weight * scaling_.complete <= sum || !in_reach_)) return false;
    }
    if (row + 4 <= end) {
      add_group<DIRECTION, 4>(sum, weight, at);
      row += 4;
    }
#pragma unroll 1
    for (; row < end; ++row) add_group<DIRECTION, 1>(sum, weight, at);
    return true;
  }

  template <int DIRECTION, int ROWS>
  FLC_DEVICE void add_group(float& sum, float& weight, const float*& at) const {
    constexpr int PITCH = DIRECTION * TABLE_PITCH;
    float part = at[(ROWS - 1) * PITCH];
#pragma unroll
    for (int i = ROWS - 2; i >= 0; --i) part = part * scaling_.decay + at[i * PITCH];
    sum += weight * part;
    weight *= scaling_.powers[ROWS];
    at += ROWS * PITCH;
  }

  FLC_DEVICE float distance(float sum) {
    if (CHECKED) smallest_ = smaller(smallest_, sum);
    return base_ - settings_.bit_scale * log2_of(sum);
  }

  // The strip lies `gap` rows above (+1) or below (-1) the box. Sums are scaled by the way to it.
  template <int DIRECTION>
  FLC_DEVICE void outside(int gap, float (&d)[STRIP_H]) {
    const auto index = [](int i) {
      return DIRECTION > 0 ? STRIP_H - 1 - i : i;
    };  // i rows from the nearest one
    const float* at = sums_ + (DIRECTION > 0 ? 0 : height_ - 1) * TABLE_PITCH;
    const float step = settings_.step_scale;
    const int shown_by_all = settings_.radius - gap - STRIP_H + 2;
    float sum = 0, weight = scaling_.unit;
    base_ += float(gap) * step;
    if (!add_rows<DIRECTION>(smaller(height_, shown_by_all), sum, weight, at) || shown_by_all >= height_) {
      const float nearest = distance(sum);
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) d[index(i)] = nearest + float(i) * step;
      return;
    }
#pragma unroll
    for (int i = STRIP_H - 1; i >= 0; --i) {
      d[index(i)] = distance(sum) + float(i) * step;
      const int next = shown_by_all + STRIP_H - 1 - i;  // what the next pixel sees besides
      if (unsigned(next) < unsigned(height_)) add_group<DIRECTION, 1>(sum, weight, at);
    }
  }

  // The strip begins in row y of the box, or reaches into it. Sums are not scaled by the way along columns.
  FLC_DEVICE void across(int y, float (&d)[STRIP_H]) {
    float own[STRIP_H];
    const float* const first = sums_ + y * TABLE_PITCH;
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) {
      own[i] = unsigned(y + i) < unsigned(height_) ? first[i * TABLE_PITCH] * scaling_.unit : 0.f;
    }
    if (settings_.radius >= STRIP_H - 1) {
      float sum = 0;
#pragma unroll
      for (int i = STRIP_H - 1; i >= 0; --i) {
        d[i] = sum;
        sum = (sum + own[i]) * scaling_.decay;
      }
      sum = 0;
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) {
        sum = sum * scaling_.decay + own[i];
        d[i] += sum;
      }
    } else {
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) {
        d[i] = 0;
#pragma unroll
        for (int k = 0; k < STRIP_H; ++k) {
          const int steps = i < k ? k - i : i - k;
          if (steps <= settings_.radius) d[i] += scaling_.powers[steps] * own[k];
        }
      }
    }
    add_side<+1>(y + STRIP_H, height_ - (y + STRIP_H), d);
    add_side<-1>(y - 1, y, d);
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) d[i] = distance(d[i]);
  }

  // Adds to the sums of a strip the `count` rows of the box that lie below (+1) or above it, from row `first`
  // on.
  template <int DIRECTION>
  FLC_DEVICE void add_side(int first, int count, float (&totals)[STRIP_H]) {
    if (count <= 0) return;
    const auto index = [](int i) {
      return DIRECTION > 0 ? STRIP_H - 1 - i : i;
    };  // i rows from the nearest one
    const float* at = sums_ + first * TABLE_PITCH;
    const int shown_by_all = settings_.radius - STRIP_H + 1;
    float sum = 0, weight = scaling_.unit * scaling_.decay;
    if (!add_rows<DIRECTION>(smaller(count, shown_by_all), sum, weight, at) || shown_by_all >= count) {
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) {
        totals[index(i)] += sum;
        sum *= scaling_.decay;
      }
      return;
    }
#pragma unroll
    for (int i = STRIP_H - 1; i >= 0; --i) {
      totals[index(i)] += scaling_.powers[i] * sum;
      const int next = shown_by_all + STRIP_H - 1 - i;
      if (unsigned(next) < unsigned(count)) add_group<DIRECTION, 1>(sum, weight, at);
    }
  }

  const Settings<float>& settings_;
  const Scaling& scaling_;
  int height_;
  const float* sums_;
  bool in_reach_;
  float base_;
  float by_row_ = 0, smallest_ = INFINITE<float>;  // where it is checked
};

}  // namespace flc::cuda
