// The block of threads that weighs a tile: what its warps share, and which instances each of them needs.
#pragma once

#include <type_traits>

#include "cuda/accumulate.h"
#include "cuda/batches.h"
#include "cuda/scaled_rows.h"

namespace flc::cuda {

// How an instance's sums are held, by the names in fastlogconv/codes.py: all scaled, or each as it is
// possible for it, or all by logarithms. Exact distances have no sums.
enum Way { SCALED, MIXED, LOGARITHMIC, EUCLIDEAN };

template <Way WAY>
constexpr bool CAN_SCALE = WAY == SCALED || WAY == MIXED;

// Rows of the table of row sums or squares: as many as static shared memory takes, in float as leave room for
// four blocks.
template <class T, Way WAY>
constexpr int TABLE_ROWS = WAY == EUCLIDEAN ? 128
                           : sizeof(T) == 4 ? 192
                                            : 152;

// Entries that there is room for to keep them at hand.
template <Way WAY>
constexpr int MOST_NEARBY = WAY == EUCLIDEAN ? 256 : 128;

// What is only needed where sums are scaled.
struct ScalingShared {
  FourSums four_sums;
  uint32_t words[WARPS][MOST_WORDS][WARP];
};
struct Nothing {};

template <class T, Way WAY, bool BY_CLASS>
struct Shared {
  T table[TABLE_ROWS<T, WAY>][TABLE_PITCH];
  std::conditional_t<BY_CLASS, ClassTile, Tile> tile;
  Strips strips;
  Candidates<MOST_NEARBY<WAY>> candidates;
  Batches batches;
  int seen;     // instances, so far (of the class)
  bool missed;  // one is too far away to matter
  std::conditional_t<CAN_SCALE<WAY>, ScalingShared, Nothing> scaling;
};

// What is needed throughout lies in shared memory, to leave registers to the sums.
template <class T, Way WAY, bool BY_CLASS>
struct TileBlock {
  static constexpr int ROWS = TABLE_ROWS<T, WAY>, ROWS_OF_WARP = ROWS / WARPS;

  const Cells& cells;
  const Numbers<T>& numbers;
  Shared<T, WAY, BY_CLASS>& shared;
  const int lane, warp;

  FLC_DEVICE TileBlock(const Cells& cells, const Numbers<T>& numbers, const Strips& strips,
                       Shared<T, WAY, BY_CLASS>& shared)
      : cells(cells),
        numbers(numbers),
        shared(shared),
        lane(threadIdx.x % WARP),
        warp(threadIdx.x / WARP),
        strip_y_(BY_CLASS ? 0 : strip_y_of(strips)) {}

  FLC_DEVICE static int warps() { return blockDim.x / WARP; }

  // The first row of this warp's strip; negative where it has none. Classes leave no register to keep it in.
  FLC_DEVICE int strip_y() const { return BY_CLASS ? strip_y_of(shared.strips) : strip_y_; }

  FLC_DEVICE Located instance(int candidate) const {
    return {shared.candidates.ids[candidate], shared.candidates.boxes[candidate]};
  }

  // What the windows show of a box, or nothing where the instance is too far away to matter.
  FLC_DEVICE Box needed_part(const Box& box) const {
    const Box shown = shown_part(box, numbers.radius);
    return within_limit(beyond(0, shown.top - (TILE_H - 1), shown.bottom),
                        beyond(0, shown.left - (TILE_W - 1), shown.right))
               ? shown
               : Box::nothing();
  }

  // Those of a batch that the windows of this warp's strip show, bit by bit. Where each instance has a say,
  // the others count as infinitely far away.
  template <class Border>
  FLC_DEVICE unsigned shown_to_strip(const Batch& batch, Accumulated<T, Border> (&sums)[STRIP_H]) const {
    const unsigned shown =
        batch.candidates & __ballot_sync(ALL_LANES, strip_shows(shared.candidates.boxes[lane]));
    if (Border::EVERY_INSTANCE && shown != batch.candidates) {
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) sums[i].add_infinite();
    }
    return shown;
  }

 private:
  FLC_DEVICE int strip_y_of(const Strips& strips) const {
    return warp < strips.count ? strips.top() + warp * STRIP_H : -1;
  }

  FLC_DEVICE bool within_limit(int rows, int columns) const {
    const T y = T(rows), x = T(columns), limit = numbers.limit;
    return WAY == EUCLIDEAN ? y * y + x * x <= limit * limit : y + x <= limit;
  }

  FLC_DEVICE bool strip_shows(const Box& box) const {
    const int rows = beyond(strip_y(), box.top - (STRIP_H - 1), box.bottom);
    if (strip_y() < 0 || rows > numbers.radius) return false;
    return WAY != EUCLIDEAN || within_limit(rows, beyond(0, box.left - (TILE_W - 1), box.right));
  }

  const int strip_y_;
};

}  // namespace flc::cuda
