// Stage 1, distance: the exact Euclidean one, as its square.
//
// Row by row of an instance, the distance from each column of the tile to the nearest pixel of the row comes
// from the row's bits; its square goes to a table. Of them a strip finds the smallest dx^2 + dy^2 in each
// column, from the nearest row outwards, until no farther row can matter.
#pragma once

#include "cuda/numbers.h"
#include "cuda/tile.h"

namespace flc::cuda {

constexpr int NO_PIXEL = 1 << 30;  // farther than any

// Those pixels of a row that may be the nearest ones of a column of the tile.
class NearestPixels {
 public:
  NearestPixels() = default;

  // Row::from(column): the row's bits in columns column..column + 31 of the tile.
  template <class Row>
  FLC_DEVICE NearestPixels(const Row& row, const Box& box) : bits_(row.from(0)) {
    for (int column = -WARP; left_ == -NO_PIXEL && column + WARP > box.left; column -= WARP) {
      if (const uint32_t bits = row.from(column)) left_ = column + 31 - __clz(bits);
    }
    for (int column = TILE_W; right_ == NO_PIXEL && column <= box.right; column += WARP) {
      if (const uint32_t bits = row.from(column)) right_ = column + __ffs(bits) - 1;
    }
  }

  // Those that another lane found.
  FLC_DEVICE NearestPixels of_lane(int lane) const {
    NearestPixels other;
    other.bits_ = __shfl_sync(ALL_LANES, bits_, lane);
    other.left_ = __shfl_sync(ALL_LANES, left_, lane);
    other.right_ = __shfl_sync(ALL_LANES, right_, lane);
    return other;
  }

  // The square of the distance from column x of the tile; +inf where the row has no pixel.
  template <class T>
  FLC_DEVICE T square(int x) const {
    const uint32_t from_left = bits_ << (WARP - 1 - x), from_right = bits_ >> x;
    const int to_left = from_left ? __clz(from_left) : x - left_;
    const int to_right = from_right ? __ffs(from_right) - 1 : right_ - x;
    const int steps = smaller(to_left, to_right);
    return steps < NO_PIXEL - WARP ? T(steps) * T(steps) : INFINITE<T>;
  }

 private:
  uint32_t bits_ = 0;  // in the tile
  int left_ = -NO_PIXEL, right_ = NO_PIXEL;  // columns of the nearest ones beside the tile
};

// The square of the least distance along a row from column x to a pixel within the box; +inf out of reach,
// where it does not matter.
template <class T>
FLC_DEVICE T least_square(const Box& box, int x, int radius) {
  const int steps = beyond(x, box.left, box.right);
  return steps <= radius ? T(steps) * T(steps) : INFINITE<T>;
}

// The squares of the distances of an instance at the pixels of a strip, one column in each lane.
template <class T>
class StripSquares {
 public:
  FLC_DEVICE StripSquares() {
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) least_[i] = INFINITE<T>;
  }

  // Of pixel i from the top.
  FLC_DEVICE T operator[](int i) const { return least_[i] + T(i * i); }

  // Takes `count` more rows into account, of which the first lies `y` rows below the first one of the strip;
  // `along` are their squares, PITCH apart, of which none is below `least_along`.
  template <int PITCH>
  FLC_DEVICE void add(const T* along, int count, int y, T least_along) {
    const int above = smaller(larger(-y, 0), count);
    sweep<+1, PITCH>(along + above * PITCH, count - above, y + above, least_along);
    sweep<-1, PITCH>(along + (above - 1) * PITCH, above, y + above - 1, least_along);
  }

 private:
  template <int DIRECTION, int PITCH>
  FLC_DEVICE void sweep(const T* along, int count, int y, T least_along) {
    constexpr int STEP = 4;
    T row = T(y);
    const auto take = [&] {
      const T first = *along + row * row;
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) least_[i] = smaller(least_[i], first - T(2 * i) * row);
      along += DIRECTION * PITCH;
      row += T(DIRECTION);
    };
#pragma unroll 1
    for (; count >= STEP; count -= STEP) {
#pragma unroll
      for (int i = 0; i < STEP; ++i) take();
      // Where no further row is nearer to the pixel that is nearest to them, none is nearer to another one.
      constexpr int NEAREST = DIRECTION > 0 ? STRIP_H - 1 : 0;
      const T gap = larger(T(DIRECTION) * (row - T(NEAREST)), T(0));
      if (__all_sync(ALL_LANES, (*this)[NEAREST] <= gap * gap + least_along)) return;
    }
#pragma unroll 1
    for (; count > 0; --count) take();
  }

  T least_[STRIP_H];  // less i^2
};

}  // namespace flc::cuda
