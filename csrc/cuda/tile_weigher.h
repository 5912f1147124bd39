// A tile's weights, by one block.
//
// It goes through the instances that the windows of the tile show, 32 at a time: forms row sums (or squares)
// for as many as the table holds, and lets each warp add them to the distances of its strip. Where there are
// classes it does so class by class.
#pragma once

#include "cuda/add_squares.h"
#include "cuda/add_sums.h"
#include "cuda/compose.h"

namespace flc::cuda {

template <class T>
struct WeighTilesArguments {
  Cells cells;
  Numbers<T> numbers;
  int height, width;
  void* out;  // [B, H, W], contiguous
  bool out_is_double;
  int sharing;  // blocks that share a tile
};

template <class T, Way WAY, class Border, bool BY_CLASS>
class TileWeigher {
 public:
  FLC_DEVICE TileWeigher(const WeighTilesArguments<T>& arguments, Shared<T, WAY, BY_CLASS>& shared)
      : arguments_(arguments),
        shared_(shared),
        block_(arguments.cells, arguments.numbers, strips_of(arguments.sharing), shared) {}

  FLC_DEVICE void weigh() {
    const int sharing = arguments_.sharing;
    if (threadIdx.x == 0) {
      begin();
      shared_.tile = Tile(sharing == 1 ? blockIdx.x : blockIdx.x / sharing, block_.cells, arguments_.height,
                          arguments_.width, block_.numbers.radius);
      shared_.strips = strips_of(sharing);
    }
    if (sharing > 1) {
      __syncthreads();
      if (shared_.tile.y + shared_.strips.top() >= arguments_.height) return;
    }
    if constexpr (CAN_SCALE<WAY>) {
      if (block_.warp == block_.warps() - 1) {
        shared_.scaling.four_sums.fill(block_.numbers.scaling, block_.lane);
      }
    }
    __syncwarp();
    if constexpr (BY_CLASS) {
      __syncthreads();
      for (uint32_t label = next_class(0); label != NO_CLASS; label = next_class(label)) {
        if (threadIdx.x == 0) {
          begin();
          shared_.tile.class_label = label;
        }
        __syncthreads();
        add_instances();
        add_terms();
        __syncthreads();
      }
      if (block_.strip_y() < 0) return;
    } else {
      add_instances();
      if (block_.strip_y() < 0) return;
      add_terms();
    }
    store();
  }

 private:
  static constexpr uint32_t NO_CLASS = ~0u;

  // Of the rows of a strip.
  struct Words {
    uint32_t at[STRIP_H] = {};
    Words() = default;
    FLC_DEVICE Words(const uint32_t* words) {
      struct alignas(16) Four {
        uint32_t at[4];
      };
#pragma unroll
      for (int i = 0; i < STRIP_H; i += 4) {
        const Four four = *reinterpret_cast<const Four*>(words + i);
#pragma unroll
        for (int j = 0; j < 4; ++j) at[i + j] = four.at[j];
      }
    }
  };

  // Blocks that share a tile are neighbours, each with its part of the strips.
  FLC_DEVICE static Strips strips_of(int sharing) {
    if (sharing == 1) return {0, WARPS};
    const int part = blockIdx.x % sharing, first = part * WARPS / sharing;
    return {first, (part + 1) * WARPS / sharing - first};
  }

  FLC_DEVICE void begin() {
    shared_.seen = 0;
    shared_.missed = false;
    shared_.candidates.begin();
  }

  // The lowest class above another one that has entries within reach. By each warp.
  FLC_DEVICE uint32_t next_class(uint32_t label) const {
    const Cells& cells = block_.cells;
    uint32_t next = NO_CLASS;
    for (int list = block_.lane; list < shared_.tile.lists; list += WARP) {
      const int cell = shared_.tile.cell(cells, list), place = first_of_class(cells, cell, label + 1);
      if (place < cells.counts[cell]) next = smaller(next, cells.classes[int64_t(cell) * ROOM + place]);
    }
    return warp_min(next);
  }

  FLC_DEVICE auto candidate_finder() const {
    return CandidateFinder(block_.cells, shared_.tile, block_.numbers.radius, shared_.candidates);
  }

  // Adds the instances within reach, those of the class where there are classes.
  FLC_DEVICE void add_instances() {
    const auto candidates = candidate_finder();
    bool more;
    do {
      if (block_.warp == 0) {
        candidates.take_next();
        if (shared_.candidates.any && shared_.candidates.at_hand) plan(candidates.box(block_.lane));
      }
      __syncthreads();
      if (!shared_.candidates.any) return;
      if (!shared_.candidates.at_hand) {
        candidates.search_lists();
        __syncthreads();
        if (block_.warp == 0) plan(candidates.box(block_.lane));
        __syncthreads();
      }
      // What follows is read before anybody can write it anew, and not kept while adding: for registers.
      bool again;
      int i = 0;
      do {
        if (i < shared_.batches.count) {
          if constexpr (WAY == EUCLIDEAN)
            add_squares(block_, shared_.batches.plan[i], sums_);
          else
            add_sums(block_, shared_.batches.plan[i], sums_);
        }
        again = ++i < shared_.batches.count;
        more = shared_.candidates.more;
        if (again || more) __syncthreads();
      } while (again);
    } while (more);
  }

  // Divides the candidates that this tile needs into batches. By one warp, each lane with a candidate's box.
  // All of a tile's blocks agree on the candidates, their boxes and order, so that weights do not depend on
  // how many share it; but of scaled sums each has those rows that windows of its strips show.
  FLC_DEVICE void plan(const Box& found) {
    const Box box = found.empty() ? found : block_.needed_part(found);
    const bool present = !box.empty();
    if (BY_CLASS && Border::EVERY_INSTANCE && !found.empty() && !present) shared_.missed = true;
    shared_.candidates.boxes[block_.lane] = box;
    bool in_table = false;
    int left_out = 0, rows = box.height();
    if constexpr (WAY == EUCLIDEAN) in_table = present;
    if constexpr (CAN_SCALE<WAY>) {
      in_table = present && scalable(block_.numbers, box, block_.ROWS);
      left_out = larger(shared_.strips.top() - block_.numbers.radius - box.top, 0);
      rows = larger(
          smaller(box.bottom, shared_.strips.bottom() + block_.numbers.radius) - box.top + 1 - left_out, 0);
    }
    shared_.batches.divide(present, in_table, left_out, rows, block_.ROWS, block_.lane);
    const int seen = __popc(__ballot_sync(ALL_LANES, present));
    if (block_.lane == 0) shared_.seen += seen;
  }

  // The terms of what was added but for the sum over instances, and a new beginning for the next class.
  FLC_DEVICE void add_terms() {
    if (block_.numbers.fall_of_nearest != 0) {
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i)
        terms_[i] += block_.numbers.fall_of_nearest * nearest_term(sums_[i].near);
    }
    const bool has_border =
        shared_.seen >= Border::FEWEST_INSTANCES && (!Border::EVERY_INSTANCE || every_instance_seen());
    if (WAY == EUCLIDEAN) {
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) sums_[i].take_roots();
    }
    if (has_border) {
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) terms_[i] += border_term(sums_[i], block_.numbers);
    }
    if (BY_CLASS) {
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) sums_[i].next_class();
    }
  }

  // The foreground term of the nearest instance, by what `sums_` hold: its distance or the square of it.
  FLC_DEVICE T nearest_term(T near) const {
    return exp2_of(WAY == EUCLIDEAN ? -near * block_.numbers.square_scale : -near * near);
  }

  // Whether the ids of an image are 1..largest, none left out, and no instance (of the class, where there are
  // classes) lies out of reach.
  FLC_DEVICE bool every_instance_seen() const {
    const Cells& cells = block_.cells;
    const auto& tile = shared_.tile;
    if constexpr (BY_CLASS) {
      if (shared_.missed || cells.ids.counts[tile.image] != cells.largest[tile.image]) return false;
      bool missed = false;
      const int first = cells.index(tile.image, 0, 0);
      for (int i = threadIdx.x; i < cells.rows * cells.columns && !missed; i += blockDim.x) {
        const Range range = entries_of(cells, first + i, tile);
        for (int place = range.first; place < range.end && !missed; ++place) {
          missed = !candidate_finder().shows(cells.entries[int64_t(first + i) * ROOM + place].id);
        }
      }
      return !__syncthreads_or(missed);
    }
    return uint64_t(shared_.seen) == cells.largest[tile.image];
  }

  FLC_DEVICE void store() const {
    const Tile& tile = shared_.tile;
    const Cells& cells = block_.cells;
    const unsigned own = 1u << block_.lane;
    const int x = tile.x + block_.lane, y = tile.y + block_.strip_y(), rows = arguments_.height - y;
    if (x >= arguments_.width || rows <= 0) return;
    const int64_t first_word = int64_t(cells.index(tile.image, y / CELL, tile.x / CELL)) * CELL + y % CELL;
    const Words foreground(cells.foreground + first_word);
    const int64_t index = (int64_t(tile.image) * arguments_.height + y) * arguments_.width + x;
    const int bytes = sizeof(T) == 8 && arguments_.out_is_double ? sizeof(double) : sizeof(float);
    const int64_t pitch = int64_t(arguments_.width) * bytes;
    char* at = static_cast<char*>(arguments_.out) + index * bytes;
    const auto store_rows = [&](auto is_whole, const auto& is_ignored) {
#pragma unroll
      for (int i = 0; i < STRIP_H; ++i) {
        if (!decltype(is_whole)::value && i >= rows) return;
        T weight = compose(sums_[i].fd, terms_[i], block_.numbers);
        if (foreground.at[i] & own) weight = 1;
        if (is_ignored(i)) weight = 0;
        store_weight(at, arguments_.out_is_double, 0, weight);
        at += pitch;
      }
    };
    if (cells.ignored) {
      const Words ignored(cells.ignored + first_word);
      store_rows(std::false_type(), [&](int i) { return (ignored.at[i] & own) != 0; });
    } else if (rows < STRIP_H) {
      store_rows(std::false_type(), [](int) { return false; });
    } else {
      store_rows(std::true_type(), [](int) { return false; });
    }
  }

  const WeighTilesArguments<T>& arguments_;
  Shared<T, WAY, BY_CLASS>& shared_;
  const TileBlock<T, WAY, BY_CLASS> block_;
  Accumulated<T, Border> sums_[STRIP_H];
  T terms_[STRIP_H] = {};  // but for the sum over instances, by all classes
};

}  // namespace flc::cuda
