// The rows of one pass in blocks of columns. Only the blocks that instances still reach are held, to stay in
// the cache whatever the image's width; an instance's stages 1 and 2 fill them, stage 3 empties them.
#pragma once

#include "cpu/simd/compose.h"
#include "cpu/simd/stamps.h"

namespace flc {
namespace FLC_ISA {

template <class Out, class Result, class Border, bool squared>
class RowBlocks {
 public:
  static constexpr int stride = ROW_STRIDE<Out, Border>;

  // on_top: adds what these instances contribute to the weights; else these are all there are.
  RowBlocks(const ImagePlan& plan, const Settings& settings, bool on_top, int32_t begin, int32_t end,
            Result* out)
      : plan_(plan),
        reach_(settings.reach),
        marks_foreground_(!squared && settings.marks_foreground),
        on_top_(on_top),
        begin_(begin),
        end_(end),
        out_(out),
        composer_(settings, on_top),
        specks_(plan, settings, begin, end),
        block_count_((plan.width + BLOCK - 1) / BLOCK) {}

  ~RowBlocks() {
    if (blocks_)
      for (int32_t block = 0; block < block_count_; ++block) aligned_free(blocks_[block]);
    while (spare_) aligned_free(pop_spare());
    aligned_free(blocks_);
  }
  RowBlocks(const RowBlocks&) = delete;
  RowBlocks& operator=(const RowBlocks&) = delete;

  // Calls add(instance, first_row, last_row, left, right) for each instance, from left to right, that reaches
  // rows first_row..last_row - 1 of these, in columns left..right of the image; false: memory ran out. For
  // specks, find_stamp is called as Specks::add says.
  template <class Add, class FindStamp>
  int32_t weigh(const Add& add, const FindStamp& find_stamp) {
    blocks_ = static_cast<Out**>(aligned_allocate(block_count_ * int64_t(sizeof(Out*))));
    if (!blocks_ || !specks_.prepare()) return FLC_OUT_OF_MEMORY;
    for (int32_t block = 0; block < block_count_; ++block) blocks_[block] = nullptr;
    for (int64_t i = 0; i < plan_.instance_count; ++i) {
      const Instance& instance = plan_.instances[plan_.left_to_right[i]];
      const Rectangle& zone = instance.zone;
      const int32_t first_row = larger(begin_, larger(zone.top, instance.top - reach_));
      const int32_t last_row = smaller(end_, smaller(zone.bottom, instance.bottom + reach_) + 1);
      if (first_row >= last_row) continue;
      const int32_t left = larger(larger(0, zone.left), instance.left - reach_);
      const int32_t right = smaller(smaller(plan_.width - 1, zone.right), instance.right + reach_);
      if (left > right) continue;
      // No later instance begins further left.
      if (!compose_until(left / BLOCK, find_stamp)) return FLC_OUT_OF_MEMORY;
      for (int32_t block = left / BLOCK; block <= right / BLOCK; ++block)
        if (!blocks_[block] && !(blocks_[block] = cleared_block())) return FLC_OUT_OF_MEMORY;
      if (!add(instance, first_row, last_row, left, right)) return FLC_OUT_OF_MEMORY;
    }
    return compose_until(block_count_, find_stamp) ? FLC_OK : FLC_OUT_OF_MEMORY;
  }

  // What is collected at a pixel of the image. Its block's columns follow, the next row is `stride` further.
  Out* at(int32_t y, int32_t x) { return blocks_[x / BLOCK] + int64_t(y - begin_) * stride + x % BLOCK; }

 private:
  // Writes the weights of blocks composed_ to end_block, which nothing but specks adds to any more. False:
  // memory ran out.
  template <class FindStamp>
  bool compose_until(int32_t end_block, const FindStamp& find_stamp) {
    for (; composed_ < end_block; ++composed_) {
      if (plan_.speck_count > 0 && !add_specks(composed_, find_stamp)) return false;
      Out* const block = blocks_[composed_];
      if (!block && on_top_) continue;
      const int32_t x = composed_ * BLOCK, width = smaller(BLOCK, plan_.width - x);
      if constexpr (Border::EVERY_INSTANCE)
        if (block && plan_.out_of_reach_begin) mark_out_of_reach(composed_);
      for (int32_t y = begin_; y < end_; ++y) {
        Result* const weights = out_ + int64_t(y) * plan_.width + x;
        if (y + 16 < end_) {
          for (int32_t i = 0; i < width; i += 64 / int32_t(sizeof(Result)))
            __builtin_prefetch(weights + 16 * int64_t(plan_.width) + i, 1);
        }
        if (block) {
          const Rectangle& area = plan_.border_area;
          const bool bordered = y >= area.top && y <= area.bottom;
          composer_.compose(block + int64_t(y - begin_) * stride, bordered ? area.left - x : BLOCK,
                            bordered ? area.right - x : -1, weights, width);
        } else {
          composer_.untouched(weights, width);
        }
      }
      if (block) {
        push_spare(block);
        blocks_[composed_] = nullptr;
      }
    }
    return true;
  }

  // As an instance that is BEYOND does.
  void mark_out_of_reach(int32_t block) {
    const int32_t x = block * BLOCK;
    const int64_t* const range = plan_.out_of_reach_begin + block;
    for (int64_t i = range[0]; i < range[1]; ++i) {
      const Rectangle& rectangle = plan_.out_of_reach[i];
      const int32_t left = larger(rectangle.left - x, 0), right = smaller(rectangle.right - x, BLOCK - 1);
      for (int32_t y = larger(rectangle.top, begin_); y <= smaller(rectangle.bottom, end_ - 1); ++y) {
        Out* const other = blocks_[block] + int64_t(y - begin_) * stride + 2 * BLOCK;
        for (int32_t column = left; column <= right; ++column) other[column] = Out(BEYOND);
      }
    }
  }

  template <class FindStamp>
  bool add_specks(int32_t block, const FindStamp& find_stamp) {
    if (!specks_.reach_block(block * BLOCK)) return true;
    if (!blocks_[block] && !(blocks_[block] = cleared_block())) return false;
    for (int32_t i = 0; i < BLOCK; i += CHUNK) {
      if (!specks_.add(block * BLOCK + i, blocks_[block] + i, find_stamp)) return false;
      if (marks_foreground_) specks_.mark_foreground(block * BLOCK + i, blocks_[block] + i);
    }
    return true;
  }

  Out* cleared_block() {
    Out* block = spare_ ? pop_spare()
                        : static_cast<Out*>(aligned_allocate(int64_t(end_ - begin_) * stride * sizeof(Out)));
    if (block)
      for (int32_t y = begin_; y < end_; ++y)
        Accumulator<Out, Border>::clear(block + int64_t(y - begin_) * stride);
    return block;
  }

  // Spare blocks form a list through their first bytes.
  void push_spare(Out* block) {
    memcpy(block, &spare_, sizeof(spare_));
    spare_ = block;
  }
  Out* pop_spare() {
    Out* const block = spare_;
    memcpy(&spare_, block, sizeof(spare_));
    return block;
  }

  const ImagePlan& plan_;
  const int32_t reach_;
  const bool marks_foreground_, on_top_;
  const int32_t begin_, end_;
  Result* const out_;
  const Composer<Out, Result, Border, squared> composer_;
  Specks<Out, Border, squared> specks_;
  const int32_t block_count_;
  int32_t composed_ = 0;
  Out** blocks_ = nullptr;
  Out* spare_ = nullptr;
};

}  // namespace FLC_ISA
}  // namespace flc
