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

// Adds rows of log2 sums to `totals`, those of a strip, in the column of this lane. The first of the rows
// lies `y` rows below the first row of the strip.
template <class T, int PITCH>
FLC_DEVICE void add_log_rows(const Numbers<T>& numbers, const T (*sums)[PITCH], int rows, int y, int lane,
                             T (*totals)[PITCH]) {
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
