// Stage 1, distance, for any settings: every sum is known by its log2, and computed by one warp for its own
// strip of the tile.
#pragma once

#include "cuda/numbers.h"
#include "cuda/tile.h"

namespace flc::cuda {

// log2 of the sum of a^(x - c) over the pixels at columns c <= x of a row, for one x after another, or
// mirrored. It is kept as the distance to the nearest pixel and the sum relative to that one's weight: at
// least 1.
template <class T>
class RunningSum {
 public:
  FLC_DEVICE RunningSum(const Numbers<T>& numbers)
      : bits_per_step_(numbers.bits_per_step), radius_(numbers.radius) {}

  // One column further; `pixel`: there is one, `leaving`: so there was radius + 1 columns before.
  FLC_DEVICE void step(bool pixel, bool leaving) {
    advance(leaving);
    add(pixel);
  }

  FLC_DEVICE void advance(bool leaving) {
    if (nearest_ <= radius_) ++nearest_;
    if (leaving && nearest_ <= radius_) sum_ -= exp2_of(T(nearest_ - radius_ - 1) * bits_per_step_);
  }

  FLC_DEVICE void add(bool pixel) {
    if (!pixel) return;
    sum_ = nearest_ <= radius_ ? 1 + sum_ * exp2_of(-T(nearest_) * bits_per_step_) : T(1);
    nearest_ = 0;
  }

  FLC_DEVICE T log2() const {
    return nearest_ <= radius_ ? log2_of(sum_) - T(nearest_) * bits_per_step_ : -INFINITE<T>;
  }

 private:
  T bits_per_step_, sum_ = 0;
  int radius_, nearest_ = 1 << 30;
};

// A row's bits, one column after another in a direction.
template <class Row>
class BitStream {
 public:
  FLC_DEVICE BitStream(const Row& row, int column, int direction)
      : row_(row), column_(column), direction_(direction) {}

  FLC_DEVICE bool next() {
    if (left_ == 0) {
      const int first = direction_ > 0 ? column_ : column_ - 31;
      bits_ = direction_ > 0 ? row_.from(first) : __brev(row_.from(first));
      left_ = 32;
      column_ += 32 * direction_;
    }
    const bool bit = bits_ & 1;
    bits_ >>= 1;
    --left_;
    return bit;
  }

 private:
  const Row& row_;
  int column_, direction_, left_ = 0;
  uint32_t bits_ = 0;
};

// log2 of the sums along a row of an instance, at all columns of the tile.
template <class T, class Row>
FLC_DEVICE void log_row_sums(const Numbers<T>& numbers, const Row& row, const Box& box, T* sums) {
  const int radius = numbers.radius;
  {
    RunningSum<T> sum(numbers);
    const int first = smaller(box.left, 0);
    BitStream entering(row, first, 1), leaving(row, first - radius - 1, 1);
    for (int x = first; x < TILE_W; ++x) {
      sum.step(entering.next(), leaving.next());
      if (x >= 0) sums[x] = sum.log2();
    }
  }
  RunningSum<T> sum(numbers);
  const int first = larger(box.right, TILE_W - 1);
  BitStream entering(row, first, -1), leaving(row, first + radius + 1, -1);
  for (int x = first; x >= 0; --x) {
    sum.advance(leaving.next());
    if (x < TILE_W) sums[x] = log2_sum(sums[x], sum.log2());
    sum.add(entering.next());
  }
}

// Sums below this are not accurate any more.
template <class T>
constexpr T INACCURATE = std::numeric_limits<T>::min() * T(1 << 26);

// The sums along columns of rows of log2 sums at the pixels of a strip, in the column of one lane: relative to
// the largest part that any row has in one of them. The first of the rows lies `y` rows below the first row of
// the strip.
template <class T, int PITCH>
class StripSums {
 public:
  FLC_DEVICE StripSums(const Numbers<T>& numbers, const T (*sums)[PITCH], int rows, int y, int lane)
      : bits_per_step_(numbers.bits_per_step), radius_(numbers.radius), sums_(sums), y_(y), lane_(lane) {
    above_ = smaller(larger(-y, 0), rows);
    below_ = smaller(larger(STRIP_H - y, 0), rows);
    begin_ = larger(0, -y - radius_);
    end_ = smaller(rows, radius_ + STRIP_H - y);
  }

  // log2 of the sums; false where some are too small beside the largest part, or where this is not the way.
  FLC_DEVICE bool find(T (&log_sums)[STRIP_H]) {
    if (radius_ < STRIP_H - 1 || T(STRIP_H) * bits_per_step_ > 60) return false;
    T largest = -INFINITE<T>;
    for (int row = begin_; row < above_; ++row) largest = larger(largest, part<-1>(row));
    for (int row = above_; row < below_; ++row) largest = larger(largest, sums_[row][lane_]);
    for (int row = below_; row < end_; ++row) largest = larger(largest, part<+1>(row));
    largest_ = larger(largest, LOWEST<T>);

    T(&totals)[STRIP_H] = log_sums;
    const T decay = exp2_of(-bits_per_step_);
    T own[STRIP_H], sum = 0;
#pragma unroll
    for (int i = STRIP_H - 1; i >= 0; --i) {
      const bool is_there = i - y_ >= above_ && i - y_ < below_;
      own[i] = is_there ? exp2_of(sums_[i - y_][lane_] - largest_) : T(0);
      totals[i] = sum;
      sum = (sum + own[i]) * decay;
    }
    sum = 0;
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) {
      sum = sum * decay + own[i];
      totals[i] += sum;
    }
    add_side<-1>(above_ - begin_, decay, totals);
    add_side<+1>(end_ - below_, decay, totals);

    bool too_small = false;
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) {
      const bool sees_rows = larger(begin_, i - y_ - radius_) < smaller(end_, i - y_ + radius_ + 1);
      too_small |= sees_rows && totals[i] < INACCURATE<T>;
      log_sums[i] = largest_ + log2_of(totals[i]);
    }
    return !__any_sync(ALL_LANES, too_small && largest > -INFINITE<T>);
  }

 private:
  // The log2 sum of a row above (-1) or below (+1) the strip, less the way to the strip.
  template <int DIRECTION>
  FLC_DEVICE T part(int row) const {
    const int steps = DIRECTION > 0 ? y_ + row - (STRIP_H - 1) : -(y_ + row);
    return sums_[row][lane_] - T(steps) * bits_per_step_;
  }

  // Adds `count` rows above or below the strip.
  template <int DIRECTION>
  FLC_DEVICE void add_side(int count, T decay, T (&totals)[STRIP_H]) const {
    if (count <= 0) return;
    const int nearest = DIRECTION > 0 ? below_ : above_ - 1;
    const int steps = DIRECTION > 0 ? y_ + nearest - (STRIP_H - 1) : -(y_ + nearest);
    const auto term = [&](int i) { return exp2_of(part<DIRECTION>(nearest + DIRECTION * i) - largest_); };
    const int shown_by_all = radius_ - (STRIP_H - 1) - steps + 1;
    T sums[STRIP_H], sum = 0;
    for (int i = 0; i < smaller(count, shown_by_all); ++i) sum += term(i);
#pragma unroll
    for (int i = STRIP_H - 1; i >= 0; --i) {
      sums[i] = sum;
      const int next = shown_by_all + STRIP_H - 1 - i;  // what the next pixel sees besides
      if (unsigned(next) < unsigned(count)) sum += term(next);
    }
    T weight = 1;
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) {
      totals[DIRECTION > 0 ? STRIP_H - 1 - i : i] += weight * sums[i];
      weight *= decay;
    }
  }

  const T bits_per_step_;
  const int radius_;
  const T (*const sums_)[PITCH];
  const int y_, lane_;
  int above_, below_;  // rows before above_ lie above the strip, those from below_ on below it
  int begin_, end_;    // of the rows that windows show
  T largest_;
};

// Adds rows of log2 sums to `totals`, those of a strip, in the column of this lane. The first of the rows
// lies `y` rows below the first row of the strip.
template <class T, int PITCH>
FLC_DEVICE void add_log_rows(const Numbers<T>& numbers, const T (*sums)[PITCH], int rows, int y, int lane,
                             T (*totals)[PITCH]) {
  T log_sums[STRIP_H];
  if (StripSums(numbers, sums, rows, y, lane).find(log_sums)) {
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) totals[i][lane] = log2_sum(totals[i][lane], log_sums[i]);
    return;
  }
#pragma unroll 1
  for (int i = 0; i < STRIP_H; ++i) {
    const int begin = larger(0, i - y - numbers.radius), end = smaller(rows, i - y + numbers.radius + 1);
    const auto term = [&](int row) {
      return sums[row][lane] - T(beyond(y + row, i, i)) * numbers.bits_per_step;
    };
    T largest = totals[i][lane];
    for (int row = begin; row < end; ++row) largest = larger(largest, term(row));
    if (largest == -INFINITE<T>) continue;
    T sum = exp2_of(totals[i][lane] - largest);
    for (int row = begin; row < end; ++row) sum += exp2_of(term(row) - largest);
    totals[i][lane] = largest + log2_of(sum);
  }
}

// The distances of an instance at the pixels of a strip that begins in row `strip_y` of the tile, in the
// column of this lane. `slot` has room for ROWS + STRIP_H rows, and is this warp's own.
template <class T, int ROWS, int PITCH, class AnyTile>
FLC_DEVICE void log_distances(const Numbers<T>& numbers, const Cells& cells, const AnyTile& tile,
                              const Located& instance, int strip_y, int lane, T (*slot)[PITCH],
                              T (&d)[STRIP_H]) {
  const int radius = numbers.radius;
  const int top = larger(instance.box.top, strip_y - radius);
  const int bottom = smaller(instance.box.bottom, strip_y + STRIP_H - 1 + radius);
  T(*const totals)[PITCH] = slot + ROWS;
  for (int i = 0; i < STRIP_H; ++i) totals[i][lane] = -INFINITE<T>;
  for (int first = top; first <= bottom; first += ROWS) {
    const int rows = smaller(ROWS, bottom - first + 1);
    __syncwarp();
    if (lane < rows) {
      const RowBits row(cells, tile, instance, first + lane);
      log_row_sums(numbers, row, instance.box, slot[lane]);
    }
    __syncwarp();
    add_log_rows(numbers, slot, rows, first - strip_y, lane, totals);
  }
#pragma unroll
  for (int i = 0; i < STRIP_H; ++i) d[i] = -numbers.bit_scale * totals[i][lane];
  __syncwarp();
}

}  // namespace flc::cuda
