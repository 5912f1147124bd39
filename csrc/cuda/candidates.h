// The instances that the windows of a tile show, 32 at a time.
//
// An instance has an entry in each of its cells, and only those that windows show count: the first of them
// stands for the instance, the box around them all is its box. Where there is room they are kept at hand and
// compared with each other, else each is looked for in all lists.
#pragma once

#include "cuda/tile.h"

namespace flc::cuda {

constexpr int CANDIDATES = 32;  // that are found in one go

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

  FLC_DEVICE int count() const { return range_.end - range_.first; }

  FLC_DEVICE Located operator[](int place) const {
    const Entry entry = cells_.entries[int64_t(cell_) * ROOM + range_.first + place];
    return {entry.id, unpacked_box(entry.box, y_, x_)};
  }

  // The bounding box of the pixels of an id, or nothing.
  FLC_DEVICE Box find(int64_t id) const {
    const int place = find_entry(cells_, cell_, range_, id);
    return place < 0 ? Box::nothing() : (*this)[place - range_.first].box;
  }

 private:
  const Cells& cells_;
  Range range_;
  int cell_, y_, x_;
};

// What the warps share, and how far the search has come.
template <int MOST_NEARBY>
struct Candidates {
  Located found[CANDIDATES];
  int lists[CANDIDATES];  // that their entries are in, if they are not at hand
  unsigned repeated;      // bit by bit: a list before that has the candidate too
  bool any;
  bool at_hand;                        // all entries that windows show, in `nearby`
  int next_list, entries, next_entry;  // entries: at hand, or of the 32 lists before next_list
  Located nearby[MOST_NEARBY];

  FLC_DEVICE void begin() { next_list = entries = next_entry = 0, at_hand = false; }
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

  // Finds the next candidates; false where there are no more.
  FLC_DEVICE bool find() const {
    if (warp_ == 0) take_next();
    __syncthreads();
    if (!shared_.any) return false;
    if (!shared_.at_hand) {
      search_lists();
      __syncthreads();
    }
    return true;
  }

  // The box of a candidate, or nothing where another one stands for the instance.
  FLC_DEVICE Box box(int candidate) const {
    return shared_.repeated >> candidate & 1 ? Box::nothing() : shared_.found[candidate].box;
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

  // By one warp, as all that follows but search_lists.
  FLC_DEVICE void take_next() const {
    int list = shared_.next_list, entries = shared_.entries, entry = shared_.next_entry;
    bool at_hand = shared_.at_hand;
    __syncwarp();
    while (entry >= entries && list < tile_.lists) {
      entry = 0;
      entries = list == 0 ? take_to_hand() : MOST_NEARBY + 1;
      at_hand = entries <= MOST_NEARBY;
      if (!at_hand) {
        const int count = CellList(cells_, tile_, list + lane_).count();
        entries = __shfl_sync(ALL_LANES, warp_scan(count, lane_), WARP - 1);
      }
      list = at_hand ? tile_.lists : list + WARP;
    }
    const bool any = entry < entries;
    if (any) entry = at_hand ? take_nearby(entry, entries) : take_listed(list - WARP, entry, entries);
    if (lane_ == 0) {
      shared_.any = any;
      shared_.repeated = 0;
      shared_.next_list = list;
      shared_.entries = entries;
      shared_.next_entry = entry;
      shared_.at_hand = at_hand;
    }
  }

  // Takes all entries that windows show to hand, as long as there is room, and counts them.
  FLC_DEVICE int take_to_hand() const {
    int all = 0;
    for (int first = 0; first < tile_.lists; first += WARP) {
      const CellList list(cells_, tile_, first + lane_);
      int count = 0;
      for (int i = 0; i < list.count(); ++i) count += shown(list[i].box);
      const int before = all + warp_scan(count, lane_) - count;
      all = __shfl_sync(ALL_LANES, before + count, WARP - 1);
      if (all > MOST_NEARBY) break;
      Located* next = shared_.nearby + before;
      for (int i = 0; i < list.count(); ++i) {
        const Located entry = list[i];
        if (shown(entry.box)) *next++ = entry;
      }
    }
    __syncwarp();
    return all;
  }

  // The instances of entries at hand from `first` on; returns the entry that comes next.
  FLC_DEVICE int take_nearby(int first, int entries) const {
    const int entry = first + lane_;
    Located candidate{0, Box::nothing()};
    if (entry < entries) candidate = {shared_.nearby[entry].id, box_of_nearby(entry, entries)};
    shared_.found[lane_] = candidate;
    return first + CANDIDATES;
  }

  // The box of the instance of an entry at hand, or nothing where another one comes first.
  FLC_DEVICE Box box_of_nearby(int entry, int entries) const {
    const int64_t id = shared_.nearby[entry].id;
    Box box = Box::nothing();
    int first = entry;
#pragma unroll 2
    for (int i = entries - 1; i >= 0; --i) {
      if (shared_.nearby[i].id != id) continue;
      box = united(box, shared_.nearby[i].box);
      first = i;
    }
    return first == entry ? box : Box::nothing();
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
      const Located entry = there ? CellList(cells_, tile_, list)[place] : Located{0, Box::nothing()};
      const unsigned all_shown = __ballot_sync(ALL_LANES, shown(entry.box));
      const int candidate = taken + __popc(all_shown & ((1u << lane_) - 1));
      const bool left = candidate >= CANDIDATES;
      if (shown(entry.box) && !left) {
        shared_.found[candidate] = {entry.id, Box::nothing()};
        shared_.lists[candidate] = list;
      }
      const unsigned all_left = all_shown & __ballot_sync(ALL_LANES, left);
      first += all_left ? __ffs(all_left) - 1 : WARP;
      taken += __popc(all_shown);
    }
    if (lane_ >= taken) shared_.found[lane_] = {0, Box::nothing()};
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

  // The boxes of candidates, in all lists. Each lane looks for one of them, each warp in other lists.
  FLC_DEVICE void search_lists() const {
    Located& candidate = shared_.found[lane_];
    const int64_t id = candidate.id;
    for (int list = warp_; list < tile_.lists; list += WARPS) {
      const Box part = CellList(cells_, tile_, list).find(id);
      if (shown(part)) {
        atomicMin(&candidate.box.top, part.top);
        atomicMax(&candidate.box.bottom, part.bottom);
        atomicMin(&candidate.box.left, part.left);
        atomicMax(&candidate.box.right, part.right);
        if (list < shared_.lists[lane_]) atomicOr(&shared_.repeated, 1u << lane_);
      }
      __syncwarp();
    }
  }

  const Cells& cells_;
  const AnyTile& tile_;
  const int radius_;
  Candidates<MOST_NEARBY>& shared_;
  const int lane_, warp_;
};

}  // namespace flc::cuda
