// What an image of ranks (0 = background) looks like beside its own 3x3 grey closing.
#pragma once

#include "cpu/simd/simd.h"

namespace flc {
namespace FLC_ISA {

using Unsigned = Vec<uint32_t>;

template <class V, class T>
FLC_INLINE V load_as(const T* from) {
  V value;
  memcpy(&value, from, sizeof(V));
  return value;
}
template <class V, class T>
FLC_INLINE void store_as(T* to, V value) {
  memcpy(to, &value, sizeof(V));
}

// Row by row: the largest rank of a 3x3 neighbourhood (the dilation), the smallest of the dilation (the
// closing), and the smallest rank that is not background. Beyond the edge counts as neutral to each.
class ClosingPass {
  static constexpr int lanes = VECTOR_BYTES / 4;

 public:
  ClosingPass(const int32_t* ranks, int32_t height, int32_t width, uint8_t* written, uint8_t* touches)
      : ranks_(ranks),
        height_(height),
        width_(width),
        stride_((width + lanes - 1) / lanes * lanes + 2 * lanes),
        written_(written),
        touches_(touches) {}
  ~ClosingPass() { aligned_free(memory_); }
  ClosingPass(const ClosingPass&) = delete;
  ClosingPass& operator=(const ClosingPass&) = delete;

  int32_t run(int32_t begin, int32_t end) {
    memory_ = static_cast<int32_t*>(aligned_allocate(LINES * stride_ * int64_t(sizeof(int32_t))));
    if (!memory_) return FLC_OUT_OF_MEMORY;
    for (int32_t y = begin - 2; y < end + 2; ++y) {
      find_row_extremes(y);
      if (y >= begin) dilate(y - 1);
      if (y >= begin + 2) compare(y - 2);
    }
    return FLC_OK;
  }

 private:
  // Lines of `stride_` numbers, column 0 at `lanes`; of each kind the last four rows are held.
  enum { LARGEST = 0, NONZERO = 4, DILATED = 8, CLOSED = 12, VALUES = 16, LINES = 17 };
  int32_t* line(int kind) const { return memory_ + kind * stride_ + lanes; }
  int32_t* line(int kind, int32_t y) const { return line(kind + (y + 4) % 4); }

  static void fill(int32_t* line, int32_t from, int32_t to, int32_t value) {
    for (int32_t x = from; x < to; ++x) line[x] = value;
  }

  // LARGEST and NONZERO: of each pixel and its left and right neighbours. Ranks count from 0 as unsigned
  // numbers in NONZERO, which makes background the largest of all.
  void find_row_extremes(int32_t y) {
    int32_t *const largest = line(LARGEST, y), *const nonzero = line(NONZERO, y);
    if (y < 0 || y >= height_) {
      fill(largest, 0, width_, 0);
      fill(nonzero, 0, width_, -1);
      return;
    }
    int32_t* const values = line(VALUES);
    memcpy(values, ranks_ + int64_t(y) * width_, width_ * sizeof(int32_t));
    values[-1] = 0;
    fill(values, width_, width_ + 1, 0);
    for (int32_t x = 0; x < width_; x += lanes) {
      const Ints left = load_as<Ints>(values + x - 1), here = load_as<Ints>(values + x),
                 right = load_as<Ints>(values + x + 1);
      store_as(largest + x, larger(here, larger(left, right)));
      store_as(nonzero + x,
               smaller((Unsigned)(here - 1), smaller((Unsigned)(left - 1), (Unsigned)(right - 1))));
    }
  }

  // DILATED of a row, and CLOSED: its smallest among each pixel and its left and right neighbours.
  void dilate(int32_t y) {
    int32_t *const dilated = line(DILATED, y), *const closed = line(CLOSED, y);
    if (y < 0 || y >= height_) {
      fill(closed, 0, width_, INT32_MAX);
      return;
    }
    const int32_t *const above = line(LARGEST, y - 1), *const here = line(LARGEST, y),
                         *const below = line(LARGEST, y + 1);
    for (int32_t x = 0; x < width_; x += lanes) {
      store_as(dilated + x,
               larger(load_as<Ints>(above + x), larger(load_as<Ints>(here + x), load_as<Ints>(below + x))));
    }
    dilated[-1] = INT32_MAX;
    fill(dilated, width_, width_ + 1, INT32_MAX);
    for (int32_t x = 0; x < width_; x += lanes) {
      store_as(closed + x, smaller(load_as<Ints>(dilated + x),
                                   smaller(load_as<Ints>(dilated + x - 1), load_as<Ints>(dilated + x + 1))));
    }
  }

  void compare(int32_t y) {
    const int32_t* const ranks = ranks_ + int64_t(y) * width_;
    uint8_t* const touches = touches_ + int64_t(y) * width_;
    memset(touches, 0, width_);
    const int32_t* const dilated = line(DILATED, y);
    for (int32_t x = 0; x < width_; x += lanes) {
      const auto of_rows = [&](int kind, const auto& choose) {
        return choose(line(kind, y) + x, line(kind, y - 1) + x, line(kind, y + 1) + x);
      };
      const Ints closed = of_rows(CLOSED, [](auto* a, auto* b, auto* c) {
        return smaller(load_as<Ints>(a), smaller(load_as<Ints>(b), load_as<Ints>(c)));
      });
      const Ints nonzero = of_rows(NONZERO, [](auto* a, auto* b, auto* c) {
        return (Ints)smaller(load_as<Unsigned>(a), smaller(load_as<Unsigned>(b), load_as<Unsigned>(c)));
      });
      const int32_t count = smaller(lanes, width_ - x);
      Ints rank{};
      if (count == lanes)
        rank = load_as<Ints>(ranks + x);
      else
        memcpy(&rank, ranks + x, count * sizeof(int32_t));
      const Ints changed = closed != rank;
      if (any_true(changed)) {
        for (int32_t i = 0; i < count; ++i)
          if (changed[i]) __atomic_store_n(written_ + closed[i], 1, __ATOMIC_RELAXED);
      }
      const Ints touching = (rank != 0) & ((load_as<Ints>(dilated + x) != rank) | (nonzero != rank - 1));
      if (any_true(touching)) {
        for (int32_t i = 0; i < count; ++i) touches[x + i] = touching[i] & 1;
      }
    }
  }

  const int32_t* const ranks_;
  const int32_t height_, width_;
  const int64_t stride_;
  uint8_t *const written_, *const touches_;
  int32_t* memory_ = nullptr;
};

// Of rows [begin, end): written[rank] = 1 for each rank that the closing puts where the image holds another,
// touches[pixel] = 1 for each pixel with another instance among its 8 neighbours, else 0.
inline int32_t compare_with_closing(const int32_t* ranks, int32_t height, int32_t width, int32_t begin,
                                    int32_t end, uint8_t* written, uint8_t* touches) {
  return ClosingPass(ranks, height, width, written, touches).run(begin, end);
}

}  // namespace FLC_ISA
}  // namespace flc
