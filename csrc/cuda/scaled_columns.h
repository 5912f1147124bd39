// The sums along the columns of an instance, scaled, and its distances: see scaled_sums.h.
#pragma once

#include "cuda/scaled_sums.h"
#include "cuda/sum_within.h"

namespace flc::cuda {

// The distances of an instance at the pixels of a strip, one column in each lane, from its table of row sums.
// CHECKED: sums may become too small.
template <bool CHECKED>
class ScaledColumn {
 public:
  // `sums`: the instance's first row, at column 0.
  FLC_DEVICE ScaledColumn(const Numbers<float>& numbers, const Box& box, const float* sums, int x)
      : numbers_(numbers), scaling_(numbers.scaling), height_(box.height()) {
    const int away = beyond(x, box.left, box.right);
    in_reach_ = away <= numbers.radius;
    // Columns out of reach have no sums. What is read for them does not matter, but must be numbers.
    sums_ = sums + smaller(larger(x, box.left - numbers.radius), box.right + numbers.radius);
    base_ = in_reach_ ? float(away) * numbers.step_scale + scaling_.unscaled : INFINITE<float>;
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
    const float bits_per_step = numbers_.bits_per_step;
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
        if (steps <= numbers_.radius) log_sums[i] = log2_sum(log_sums[i], own - float(steps) * bits_per_step);
      }
    }
    add_side_logarithms<+1>(y + STRIP_H - 1, log_sums);
    add_side_logarithms<-1>(y, log_sums);
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) d[i] = by_row_ - numbers_.bit_scale * log_sums[i];
  }

  // Adds to the logarithms of sums what the rows below (+1) or above a strip contribute. `edge` is its row
  // that is nearest to them.
  template <int DIRECTION>
  FLC_DEVICE void add_side_logarithms(int edge, float (&log_sums)[STRIP_H]) const {
    const int radius = numbers_.radius;
    const int begin = larger(1, DIRECTION > 0 ? -edge : edge - (height_ - 1));  // rows from `edge`
    const int last = DIRECTION > 0 ? height_ - 1 - edge : edge;
    const float bits_per_step = numbers_.bits_per_step;
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
      log_sums[strip_row<DIRECTION>(i)] =
          log2_sum(log_sums[strip_row<DIRECTION>(i)], side - float(i) * bits_per_step);
      const int next = radius - i + 1;  // what the next pixel sees besides
      if (next >= begin && next <= last) side = log2_sum(side, term(next));
    }
  }

  // Whether rows with this weight and less add nothing to a sum, at all columns.
  FLC_DEVICE bool complete(float sum, float weight) const {
    return __all_sync(ALL_LANES, weight * scaling_.complete <= sum || !in_reach_);
  }

  // Adds the first `end` rows of those that follow in DIRECTION, with falling weights; false where it stops
  // before, for the rest adds no more.
  template <int DIRECTION>
  FLC_DEVICE bool add_rows(int end, float& sum, float& weight, const float*& at) const {
    int row = 0;
#pragma unroll 1
    for (; row + 8 <= end; row += 8) {
      add_group<DIRECTION, 8>(sum, weight, at);
      if (complete(sum, weight)) return false;
    }
    const int rest = larger(end - row, 0);
    if (rest & 4) add_group<DIRECTION, 4>(sum, weight, at);
    if (rest & 2) add_group<DIRECTION, 2>(sum, weight, at);
    if (rest & 1) add_group<DIRECTION, 1>(sum, weight, at);
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
    return base_ - numbers_.bit_scale * log2_of(sum);
  }

  // The strip lies `gap` rows above (+1) or below (-1) the box. Sums are scaled by the way to it.
  template <int DIRECTION>
  FLC_DEVICE void outside(int gap, float (&d)[STRIP_H]) {
    constexpr int PITCH = DIRECTION * TABLE_PITCH;
    const float* at = sums_ + (DIRECTION > 0 ? 0 : height_ - 1) * TABLE_PITCH;
    const float step = numbers_.step_scale;
    const int shown_by_all = numbers_.radius - gap - STRIP_H + 2;
    float sum = 0, weight = scaling_.unit;
    base_ += float(gap) * step;
    if (!add_rows<DIRECTION>(smaller(height_, shown_by_all), sum, weight, at) || shown_by_all >= height_ ||
        complete(sum, weight)) {
      const float nearest = distance(sum);
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) d[strip_row<DIRECTION>(i)] = nearest + float(i) * step;
      return;
    }
    // From the farthest pixel to the nearest: each sees one row more.
    if (shown_by_all >= 0 && shown_by_all + STRIP_H <= height_) {
#pragma unroll
      for (int i = STRIP_H - 1; i >= 0; --i) {
        d[strip_row<DIRECTION>(i)] = distance(sum) + float(i) * step;
        sum += weight * at[(STRIP_H - 1 - i) * PITCH];
        weight *= scaling_.decay;
      }
      return;
    }
#pragma unroll
    for (int i = STRIP_H - 1; i >= 0; --i) {
      d[strip_row<DIRECTION>(i)] = distance(sum) + float(i) * step;
      const int next = shown_by_all + STRIP_H - 1 - i;  // what the next pixel sees besides
      if (unsigned(next) < unsigned(height_)) add_group<DIRECTION, 1>(sum, weight, at);
    }
  }

  // The strip begins in row y of the box, or reaches into it. Sums are not scaled by the way along columns.
  FLC_DEVICE void across(int y, float (&d)[STRIP_H]) {
    float own[STRIP_H];
    const float* const first = sums_ + y * TABLE_PITCH;
    if (y >= 0 && y + STRIP_H <= height_) {
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) own[i] = first[i * TABLE_PITCH] * scaling_.unit;
    } else {
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) {
        own[i] = unsigned(y + i) < unsigned(height_) ? first[i * TABLE_PITCH] * scaling_.unit : 0.f;
      }
    }
    // What the rows beside the strip add to its outermost ones.
    float above = 0, below = 0;
    const bool all_alike = numbers_.radius >= STRIP_H - 1 && sum_beside<-1>(y - 1, y, above) &&
                           sum_beside<+1>(y + STRIP_H, height_ - (y + STRIP_H), below);
    if (all_alike) {
#pragma unroll
      for (int i = STRIP_H - 1; i >= 0; --i) {
        d[i] = below;
        below = own[i] * scaling_.decay + below * scaling_.decay;
      }
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) {
        own[i] += above;
        above = own[i] * scaling_.decay;
        d[i] += own[i];
      }
    } else {
      sum_within(numbers_.radius, scaling_.powers, [&](int k) { return own[k]; }, d);
      add_side<+1>(y + STRIP_H, height_ - (y + STRIP_H), d);
      add_side<-1>(y - 1, y, d);
    }
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) d[i] = distance(d[i]);
  }

  // The sum of `count` rows of the box that lie below (+1) or above a strip, at its pixel that is nearest to
  // them; `first` is the one next to it. False where the other pixels see another one, but for the way.
  template <int DIRECTION>
  FLC_DEVICE bool sum_beside(int first, int count, float& sum) const {
    if (count <= 0) return true;
    const float* at = sums_ + first * TABLE_PITCH;
    const int shown_by_all = numbers_.radius - STRIP_H + 1;
    float weight = scaling_.unit * scaling_.decay;
    return !add_rows<DIRECTION>(smaller(count, shown_by_all), sum, weight, at) || shown_by_all >= count;
  }

  // Adds those rows to the sums of a strip of which not all pixels see the same.
  template <int DIRECTION>
  FLC_DEVICE void add_side(int first, int count, float (&totals)[STRIP_H]) const {
    if (count <= 0) return;
    const float* at = sums_ + first * TABLE_PITCH;
    const int shown_by_all = numbers_.radius - STRIP_H + 1;
    float sum = 0, weight = scaling_.unit * scaling_.decay;
    const bool grows = add_rows<DIRECTION>(smaller(count, shown_by_all), sum, weight, at);
#pragma unroll
    for (int i = STRIP_H - 1; i >= 0; --i) {
      totals[strip_row<DIRECTION>(i)] += scaling_.powers[i] * sum;
      const int next = shown_by_all + STRIP_H - 1 - i;
      if (grows && unsigned(next) < unsigned(count)) add_group<DIRECTION, 1>(sum, weight, at);
    }
  }

  const Numbers<float>& numbers_;
  const Scaling& scaling_;
  int height_;
  const float* sums_;
  bool in_reach_;
  float base_;
  float by_row_ = 0, smallest_ = INFINITE<float>;  // where it is checked
};

}  // namespace flc::cuda
