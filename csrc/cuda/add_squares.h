// Adds a batch of instances to the pixels of a warp's strip, by exact distances.
#pragma once

#include "cuda/euclidean_distance.h"
#include "cuda/tile_block.h"

namespace flc::cuda {

// The table of squares along rows for a batch, for a tall instance from its row `first` on.
template <class T, bool BY_CLASS>
FLC_DEVICE void form_row_squares(const TileBlock<T, EUCLIDEAN, BY_CLASS>& block, const Batch& batch,
                                 int first) {
  auto& shared = block.shared;
  constexpr int ROWS_AT_A_TIME = 16;
  const int lane = block.lane, all_rows = batch.end_row - batch.begin_row;
  for (int begin = block.warp * ROWS_AT_A_TIME; begin < all_rows; begin += block.warps() * ROWS_AT_A_TIME) {
    const int row = begin + lane, rows = smaller(all_rows - begin, ROWS_AT_A_TIME);
    NearestPixels pixels;
    if (lane < rows) {
      const int candidate = shared.batches.candidate_of(batch.begin_row + row);
      const Located instance = block.instance(candidate);
      const int y = instance.box.top + first + row - shared.batches.first_rows[candidate];
      if (y <= instance.box.bottom) {
        pixels = NearestPixels(RowBits(block.cells, shared.tile, instance, y), instance.box);
      }
    }
    for (int i = 0; i < rows; ++i) shared.table[begin + i][lane] = pixels.of_lane(i).template square<T>(lane);
  }
}

// An instance with more rows than the table is alone in its batch, and goes through it part by part.
template <class T, bool BY_CLASS, class Border>
FLC_DEVICE void add_squares(const TileBlock<T, EUCLIDEAN, BY_CLASS>& block, const Batch& batch,
                            Accumulated<T, Border> (&sums)[STRIP_H]) {
  constexpr int ROWS = TileBlock<T, EUCLIDEAN, BY_CLASS>::ROWS;
  auto& shared = block.shared;
  const int height = shared.candidates.boxes[__ffs(batch.candidates) - 1].height();
  const unsigned shown = block.shown_to_strip(batch, sums);
  StripSquares<T> squares;
  for (int first = 0; first < height; first += ROWS) {
    form_row_squares(block, batch, first);
    __syncthreads();
    for (unsigned rest = shown; rest != 0; rest &= rest - 1) {
      const int candidate = __ffs(rest) - 1;
      const Box box = shared.candidates.boxes[candidate];
      if (first == 0) squares = {};
      squares.template add<TABLE_PITCH>(&shared.table[shared.batches.first_rows[candidate]][block.lane],
                                        smaller(ROWS, box.height() - first),
                                        box.top + first - block.strip_y(),
                                        least_square<T>(box, block.lane, block.numbers.radius));
      if (first + ROWS < height) continue;
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) sums[i].add_square(squares[i], block.numbers.square_scale);
    }
    if (first + ROWS < height) __syncthreads();
  }
}

}  // namespace flc::cuda
