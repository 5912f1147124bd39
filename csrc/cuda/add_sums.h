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
  static_assert(Block::ROWS <= WARPS * WARP);
  auto& shared = block.shared;
  const int row = batch.begin_row + threadIdx.x;
  if (row >= batch.end_row) return;
  const int candidate = shared.batches.candidate_of(row);
  const Located& instance = block.instance(candidate);
  ScaledRow sums(block.numbers.scaling, shared.scaling.byte_sums, block.numbers.bits_per_step,
                 block.numbers.radius, instance.box, &shared.scaling.words[block.warp][0][block.lane]);
  const int y = instance.box.bottom + 1 - (shared.batches.end_rows[candidate] - row);
  sums.read(RowBits(block.cells, shared.tile, instance, y));
  sums.sum(shared.table[threadIdx.x]);
}

// The distances of an instance at the pixels of this warp's strip.
template <class T, Way WAY, bool BY_CLASS>
FLC_DEVICE void logconv_distances(const TileBlock<T, WAY, BY_CLASS>& block, int candidate, bool in_table,
                                  T (&d)[STRIP_H]) {
  auto& shared = block.shared;
  const Located& instance = block.instance(candidate);
  if constexpr (CAN_SCALE<WAY>) {
    if (in_table) {
      const Box box = instance.box;
      ScaledColumn<WAY == MIXED> column(block.numbers, box,
                                        shared.table[shared.batches.first_rows[candidate]], block.lane);
      column.distances(block.strip_y() - box.top, d);
    }
  }
  if (WAY == LOGARITHMIC || (WAY == MIXED && !in_table)) {
    // Each warp has a part of the table for itself.
    constexpr int ROWS = TileBlock<T, WAY, BY_CLASS>::ROWS_OF_WARP;
    log_distances<T, ROWS - STRIP_H>(block.numbers, block.cells, shared.tile, instance, block.strip_y(),
                                     block.lane, shared.table + block.warp * ROWS, d);
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
  __syncthreads();
}

}  // namespace flc::cuda
