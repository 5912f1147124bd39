// Adds a batch of instances to the pixels of a warp's strip, by LogConv distances.
#pragma once

#include "cuda/log_distance.h"
#include "cuda/scaled_columns.h"
#include "cuda/scaled_rows.h"
#include "cuda/tile_block.h"

namespace flc::cuda {

// The table of row sums for a batch, each row by one thread.
template <class Block>
FLC_DEVICE void form_row_sums(const Block& block, const Batch& batch) {
  auto& shared = block.shared;
  uint32_t* const words = &shared.scaling.words[block.warp][0][block.lane];
#pragma unroll 1
  for (int row = batch.begin_row + threadIdx.x; row < batch.end_row; row += blockDim.x) {
    const int candidate = shared.batches.candidate_of(row);
    const Located instance = block.instance(candidate);
    const Box& box = instance.box;
    const int y = box.top + row - batch.begin_row - shared.batches.first_rows[candidate];
    float* const sums = shared.table[row - batch.begin_row];
    const auto& numbers = block.numbers;
    if (box.width() <= smaller(32, numbers.radius + 1)) {
      const uint32_t bits = shared.candidates.at_hand
                                ? row_at_hand(block.cells, shared.candidates, candidate, box, y)
                                : RowBits(block.cells, shared.tile, instance, y).from(box.left);
      NarrowRow(numbers.scaling, shared.scaling.four_sums, numbers.bits_per_step, numbers.radius, box, bits)
          .sum(sums);
    } else {
      RowBits(block.cells, shared.tile, instance, y).copy(box.left, (box.width() - 1) / 32 + 1, words);
      ScaledRow(numbers.scaling, shared.scaling.four_sums, numbers.bits_per_step, numbers.radius, box, words)
          .sum(sums);
    }
  }
}

// The distances of an instance at the pixels of this warp's strip.
template <class T, Way WAY, bool BY_CLASS>
FLC_DEVICE void logconv_distances(const TileBlock<T, WAY, BY_CLASS>& block, int candidate, bool in_table,
                                  T (&d)[STRIP_H]) {
  auto& shared = block.shared;
  if constexpr (CAN_SCALE<WAY>) {
    if (WAY == SCALED || in_table) {
      const Box box = shared.candidates.boxes[candidate];
      ScaledColumn<WAY == MIXED> column(block.numbers, box,
                                        shared.table[shared.batches.first_rows[candidate]], block.lane);
      column.distances(block.strip_y() - box.top, d);
    }
  }
  if (WAY == LOGARITHMIC || (WAY == MIXED && !in_table)) {
    // Each warp has a part of the table for itself.
    constexpr int ROWS = TileBlock<T, WAY, BY_CLASS>::ROWS_OF_WARP;
    log_distances<T, ROWS - STRIP_H>(block.numbers, block.cells, shared.tile, block.instance(candidate),
                                     block.strip_y(), block.lane, shared.table + block.warp * ROWS, d);
  }
}

template <class T, Way WAY, bool BY_CLASS, class Border>
FLC_DEVICE void add_sums(const TileBlock<T, WAY, BY_CLASS>& block, const Batch& batch,
                         Accumulated<T, Border> (&sums)[STRIP_H]) {
  if constexpr (CAN_SCALE<WAY>) form_row_sums(block, batch);
  __syncthreads();
  for (unsigned rest = block.shown_to_strip(batch, sums); rest != 0; rest &= rest - 1) {
    T d[STRIP_H];
    logconv_distances(block, __ffs(rest) - 1, batch.in_table, d);
#pragma unroll
    for (int i = 0; i < STRIP_H; ++i) sums[i].add(d[i]);
  }
}

}  // namespace flc::cuda
