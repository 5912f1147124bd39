// The instances that the windows of a tile show, 32 at a time.
//
// An instance has an entry in each of its cells, and only those that windows show count: the first of them
// stands for the instance, the box around them all is its box. Where there is room they are kept at hand,
// those of an instance linked, else each is looked for in all lists.
#pragma once

#include "cuda/tile.h"

namespace flc::cuda {

constexpr int CANDIDATES = 32;  // that are found in one go

// An entry at hand.
struct Nearby {
  int64_t id;
  uint32_t box, row_set;  // as in Entry
  int cell;
  int16_t y, x;  // of the cell's first pixel, in the tile
};

// The entries of a cell within reach of a tile.
class CellList {
 public:
  template <class AnyTile>
  FLC_DEVICE CellList(const Cells& cells, const AnyTile& tile, int list) : cells_(cells) {
    cell_ = tile.cell(cells, list);
    range_ = list < tile.lists ? entries_of(cells, cell_, tile) : Range{0, 0};
    y_ = tile.row_of(list) * CELL - tile.y;
    x_ = tile.column_of(list) * CELL - tile.x;
  }

  FLC_DEVICE int cell() const { return cell_; }
  FLC_DEVICE int y() const { return y_; }
  FLC_DEVICE int x() const { return x_; }
  FLC_DEVICE int count() const { return range_.end - range_.first; }
  FLC_DEVICE Entry entry(int place) const {
    return cells_.entries[int64_t(cell_) * ROOM + range_.first + place];
  }
  FLC_DEVICE Box box(const Entry& entry) const { return unpacked_box(entry.box, y_, x_); }

  // The bounding box of the pixels of an id, or nothing.
  FLC_DEVICE Box find(int64_t id) const {
    const int place = find_entry(cells_, cell_, range_, id);
    return place < 0 ? Box::nothing() : box(entry(place - range_.first));
  }

 private:
  const Cells& cells_;
  Range range_;
  int cell_, y_, x_;
};

// What the warps share, and how far the search has come.
template <int MOST_NEARBY>
struct Candidates {
  int64_t ids[CANDIDATES];
  Box boxes[CANDIDATES];
  int lists[CANDIDATES];  // that their entries are in; where they are at hand the first entry's number there
  unsigned repeated;  // bit by bit: a list before that has the candidate too
  bool any, more;  // candidates, now and later
  bool at_hand;  // all entries that windows show, in `nearby`
  int next_list, count, next;  // of instances at hand, or of entries of the 32 lists before next_list
  Nearby nearby[MOST_NEARBY];
  uint8_t nexts[MOST_NEARBY];  // of an entry at hand the next one of its instance; the last one names itself
  bool follows[MOST_NEARBY];  // an entry at hand follows another one of its instance
  uint8_t firsts[MOST_NEARBY];  // entries at hand, of each instance the first one

  FLC_DEVICE void begin() { next_list = count = next = 0, at_hand = false; }
};

// By all threads of a block.
template <class AnyTile, int MOST_NEARBY>
class CandidateFinder {
 public:
  FLC_DEVICE CandidateFinder(const Cells& cells, const AnyTile& tile, int radius,
                             Candidates<MOST_NEARBY>& shared)
      : cells_(cells),
        tile_(tile),
        radius_(radius),
        shared_(shared),
        lane_(threadIdx.x % WARP),
        warp_(threadIdx.x / WARP) {}

  // The ids of the next candidates, and their boxes if they are at hand. By one warp.
  FLC_DEVICE void take_next() const {
    int list = shared_.next_list, count = shared_.count, next = shared_.next;
    bool at_hand = shared_.at_hand;
    __syncwarp();
    while (next >= count && list < tile_.lists) {
      next = 0;
      count = list == 0 ? take_to_hand() : -1;
      at_hand = count >= 0;
      if (!at_hand) {
        const int own = CellList(cells_, tile_, list + lane_).count();
        count = __shfl_sync(ALL_LANES, warp_scan(own, lane_), WARP - 1);
      }
      list = at_hand ? tile_.lists : list + WARP;
    }
    const bool any = next < count;
    if (any) next = at_hand ? take_nearby(next, count) : take_listed(list - WARP, next, count);
    if (lane_ == 0) {
      shared_.any = any;
      shared_.more = next < count || list < tile_.lists;
      shared_.repeated = 0;
      shared_.next_list = list;
      shared_.count = count;
      shared_.next = next;
      shared_.at_hand = at_hand;
    }
    __syncwarp();
  }

  // The boxes of candidates that are not at hand, in all lists. Each lane looks for one of them, each warp in
  // other lists.
  FLC_DEVICE void search_lists() const {
    const int64_t id = shared_.ids[lane_];
    Box& box = shared_.boxes[lane_];
    for (int list = warp_; list < tile_.lists; list += blockDim.x / WARP) {
      const Box part = CellList(cells_, tile_, list).find(id);
      if (shown(part)) {
        atomicMin(&box.top, part.top);
        atomicMax(&box.bottom, part.bottom);
        atomicMin(&box.left, part.left);
        atomicMax(&box.right, part.right);
        if (list < shared_.lists[lane_]) atomicOr(&shared_.repeated, 1u << lane_);
      }
      __syncwarp();
    }
  }

  // The box of a candidate, or nothing where another one stands for the instance.
  FLC_DEVICE Box box(int candidate) const {
    return shared_.repeated >> candidate & 1 ? Box::nothing() : shared_.boxes[candidate];
  }

  // Whether windows show pixels of an instance. By each thread for itself.
  FLC_DEVICE bool shows(int64_t id) const {
    for (int list = 0; list < tile_.lists; ++list) {
      if (shown(CellList(cells_, tile_, list).find(id))) return true;
    }
    return false;
  }

 private:
  FLC_DEVICE bool shown(const Box& box) const { return !shown_part(box, radius_).empty(); }

  // All that follows is by one warp. Takes all entries that windows show to hand and returns how many
  // instances they are of, or -1 where there is no room.
  FLC_DEVICE int take_to_hand() const {
    constexpr int MOST = (1 << 15) / CELL;  // rows and columns of cells whose places an entry can hold
    if (tile_.cell_columns > MOST || tile_.lists > MOST * tile_.cell_columns) return -1;
    int taken = 0;
    for (int first_list = 0; first_list < tile_.lists; first_list += WARP) {
      const int end = warp_scan(CellList(cells_, tile_, first_list + lane_).count(), lane_);
      const int entries = __shfl_sync(ALL_LANES, end, WARP - 1);
      for (int first = 0; first < entries; first += WARP) {
        int place = first + lane_;
        const bool there = place < entries;
        const int list = first_list + list_of(end, place);
        Nearby own{};
        bool is_shown = false;
        if (there) {
          const CellList cell_list(cells_, tile_, list);
          const Entry entry = cell_list.entry(place);
          own = {entry.id,
                 entry.box,
                 entry.row_set,
                 cell_list.cell(),
                 int16_t(cell_list.y()),
                 int16_t(cell_list.x())};
          is_shown = shown(cell_list.box(entry));
        }
        const unsigned all_shown = __ballot_sync(ALL_LANES, is_shown);
        const int at = taken + __popc(all_shown & ((1u << lane_) - 1));
        if (is_shown && at < MOST_NEARBY) {
          shared_.nearby[at] = own;
          shared_.follows[at] = false;
        }
        taken += __popc(all_shown);
        if (taken > MOST_NEARBY) return -1;
      }
    }
    __syncwarp();
    return link(taken);
  }

  // Links entries at hand, and lists the first one of each instance; returns how many these are.
  FLC_DEVICE int link(int entries) const {
    const Nearby* const nearby = shared_.nearby;
    for (int first = 0; first < entries; first += WARP) {
      const int own = first + lane_;
      if (own >= entries) continue;
      const int64_t id = nearby[own].id;
      int next = own;
#pragma unroll 4
      for (int i = entries - 1; i > first; --i) {
        if (nearby[i].id == id && i > own) next = i;
      }
      shared_.nexts[own] = uint8_t(next);
      if (next != own) shared_.follows[next] = true;
    }
    __syncwarp();
    int count = 0;
    for (int first = 0; first < entries; first += WARP) {
      const int own = first + lane_;
      const bool is_first = own < entries && !shared_.follows[own];
      const unsigned all = __ballot_sync(ALL_LANES, is_first);
      if (is_first) shared_.firsts[count + __popc(all & ((1u << lane_) - 1))] = uint8_t(own);
      count += __popc(all);
    }
    __syncwarp();
    return count;
  }

  // Instances at hand from `first` on; returns the one that comes next.
  FLC_DEVICE int take_nearby(int first, int count) const {
    const int instance = first + lane_;
    int64_t id = 0;
    Box all = Box::nothing();
    if (instance < count) {
      int entry = shared_.firsts[instance];
      shared_.lists[lane_] = entry;
      id = shared_.nearby[entry].id;
      while (true) {
        const Nearby& part = shared_.nearby[entry];
        all = united(all, unpacked_box(part.box, part.y, part.x));
        const int next = shared_.nexts[entry];
        if (next == entry) break;
        entry = next;
      }
    }
    shared_.ids[lane_] = id;
    shared_.boxes[lane_] = all;
    return first + CANDIDATES;
  }

  // The ids of those entries of 32 lists, from `first` on, that windows show; returns the entry that comes
  // next, numbered through the lists.
  FLC_DEVICE int take_listed(int first_list, int first, int entries) const {
    const int end = warp_scan(CellList(cells_, tile_, first_list + lane_).count(), lane_);
    int taken = 0;
    while (taken < CANDIDATES && first < entries) {
      int place = first + lane_;
      const bool there = place < entries;
      const int list = first_list + list_of(end, place);
      const CellList cell_list(cells_, tile_, list);
      const Entry entry = there ? cell_list.entry(place) : Entry{};
      const bool is_shown = there && shown(cell_list.box(entry));
      const unsigned all_shown = __ballot_sync(ALL_LANES, is_shown);
      const int candidate = taken + __popc(all_shown & ((1u << lane_) - 1));
      const bool left = candidate >= CANDIDATES;
      if (is_shown && !left) {
        shared_.ids[candidate] = entry.id;
        shared_.boxes[candidate] = Box::nothing();
        shared_.lists[candidate] = list;
      }
      const unsigned all_left = all_shown & __ballot_sync(ALL_LANES, left);
      first += all_left ? __ffs(all_left) - 1 : WARP;
      taken += __popc(all_shown);
    }
    if (lane_ >= taken) {
      shared_.ids[lane_] = 0;
      shared_.boxes[lane_] = Box::nothing();
    }
    return first;
  }

  // Which one of 32 lists has an entry, numbered through them; its number becomes its place there.
  // `end`: where the list of this lane ends.
  FLC_DEVICE static int list_of(int end, int& number) {
    int list = 0;
    for (int step = WARP / 2; step > 0; step /= 2) {
      if (__shfl_sync(ALL_LANES, end, list + step - 1) <= number) list += step;
    }
    const int begin = __shfl_sync(ALL_LANES, end, larger(list - 1, 0));
    if (list > 0) number -= begin;
    return list;
  }

  const Cells& cells_;
  const AnyTile& tile_;
  const int radius_;
  Candidates<MOST_NEARBY>& shared_;
  const int lane_, warp_;
};

// The bits of row y of a candidate at hand whose box is at most 32 columns wide, from its left on.
template <int MOST_NEARBY>
FLC_DEVICE uint32_t row_at_hand(const Cells& cells, const Candidates<MOST_NEARBY>& candidates, int candidate,
                                const Box& box, int y) {
  uint32_t bits = 0;
  for (int entry = candidates.lists[candidate], next;; entry = next) {
    const Nearby& part = candidates.nearby[entry];
    const int row = y - part.y, column = part.x - box.left;
    if (unsigned(row) < CELL) {
      const uint32_t word = word_of(cells, part.cell, part.box, part.row_set, row);
      bits |= column >= 0 ? word << column : word >> -column;
    }
    next = candidates.nexts[entry];
    if (next == entry) break;
  }
  return bits & ALL_LANES >> (31 - (box.right - box.left));
}

}  // namespace flc::cuda
