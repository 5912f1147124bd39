// The candidates of a tile in batches: as many at a time as have room in the table of their rows.
#pragma once

#include "cuda/candidates.h"

namespace flc::cuda {

// Instances whose rows are in the table at the same time, or one whose rows are not, for its sums cannot be
// scaled.
struct Batch {
  unsigned candidates;  // bit by bit
  bool in_table;
  int begin_row, end_row;  // of the numbering that `end_rows` tells
};

// What the warps share of it.
struct Batches {
  int first_rows[CANDIDATES];  // in the table, of a candidate's box, though its first rows may be left out
  int end_rows[CANDIDATES];    // rows of candidates are numbered through: where those of a candidate end
  int count;
  Batch plan[CANDIDATES];

  // Divides candidates into batches of at most `room` rows, first those in the table: their order does not
  // depend on how many rows are left out. By one warp, each lane with a candidate: whether it is present,
  // whether it is to be in the table, how many of its first rows are left out there, and how many follow.
  FLC_DEVICE void divide(bool present, bool in_table, int left_out, int height, int room, int lane) {
    const unsigned all_in_table = __ballot_sync(ALL_LANES, in_table);
    const int rows = in_table ? smaller(height, room) : 0, end_row = warp_scan(rows, lane),
              begin_row = end_row - rows;
    end_rows[lane] = end_row;
    int batches = 0;
    for (unsigned waiting = __ballot_sync(ALL_LANES, present); waiting != 0; ++batches) {
      const bool first_in_table = (waiting & all_in_table) != 0;
      const int first = __ffs(first_in_table ? waiting & all_in_table : waiting) - 1;
      const int begin = __shfl_sync(ALL_LANES, begin_row, first);
      const unsigned fit = __ballot_sync(ALL_LANES, end_row - begin <= room) & all_in_table & waiting;
      const unsigned candidates = first_in_table ? fit : 1u << first;
      const int end = __shfl_sync(ALL_LANES, end_row, 31 - __clz(candidates));
      if (lane == first) plan[batches] = {candidates, first_in_table, begin, end};
      if (candidates >> lane & 1) first_rows[lane] = begin_row - begin - left_out;
      waiting &= ~candidates;
    }
    if (lane == 0) count = batches;
  }

  // The candidate that a row of a batch belongs to.
  FLC_DEVICE int candidate_of(int row) const {
    int candidate = 0;  // the first whose rows end behind this one
#pragma unroll
    for (int step = CANDIDATES / 2; step > 0; step /= 2) {
      candidate += end_rows[candidate + step - 1] <= row ? step : 0;
    }
    return candidate;
  }
};

}  // namespace flc::cuda
