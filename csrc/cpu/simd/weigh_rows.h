// Labels to weights for some rows of an image: the three stages, instance by instance from left to right.
// Only the blocks of columns that instances still reach are held, so that they stay in the cache whatever the
// image's width.
#pragma once

#include "cpu/simd/compose.h"

namespace flc {
namespace FLC_ISA {

FLC_INLINE void fill(double* values, int32_t count, double value) {
  for (int32_t i = 0; i < count; ++i) values[i] = value;
}
FLC_INLINE void fill(float* values, int32_t count, float value) {
#if defined(__AVX512F__)
  for (; count > 0; count -= 16, values += 16)  // most runs are short: no loop over single pixels
    _mm512_mask_storeu_ps(values, count >= 16 ? 0xffff : (1u << count) - 1, _mm512_set1_ps(value));
#else
  for (int32_t i = 0; i < count; ++i) values[i] = value;
#endif
}

template <class Out, class Result, Tracking tracking>
class RowPass {
  static constexpr int stride = ROW_STRIDE<Out, tracking>;

 public:
  // on_top: adds what these instances contribute to the weights; else these are all there are.
  RowPass(const ImagePlan& plan, const Settings& settings, bool on_top, int32_t begin, int32_t end,
          Result* out)
      : plan_(plan),
        settings_(settings),
        on_top_(on_top),
        begin_(begin),
        end_(end),
        out_(out),
        accumulator_(settings),
        composer_(settings, on_top),
        block_count_((plan.width + BLOCK - 1) / BLOCK) {}

  ~RowPass() {
    if (blocks_)
      for (int32_t block = 0; block < block_count_; ++block) aligned_free(blocks_[block]);
    while (spare_) aligned_free(pop_spare());
    aligned_free(blocks_);
    aligned_free(soft_rows_.data);
    aligned_free(panel_rows_.data);
  }
  RowPass(const RowPass&) = delete;
  RowPass& operator=(const RowPass&) = delete;

  int32_t run() {
    blocks_ = static_cast<Out**>(aligned_allocate(block_count_ * int64_t(sizeof(Out*))));
    if (!blocks_) return FLC_OUT_OF_MEMORY;
    for (int32_t block = 0; block < block_count_; ++block) blocks_[block] = nullptr;
    for (int64_t i = 0; i < plan_.instance_count; ++i) {
      const Instance& instance = plan_.instances[plan_.left_to_right[i]];
      const int32_t first_row = larger(begin_, instance.top - settings_.reach);
      const int32_t last_row = smaller(end_, instance.bottom + settings_.reach + 1);
      if (first_row >= last_row) continue;
      if (!add(instance, first_row, last_row)) return FLC_OUT_OF_MEMORY;
    }
    compose_until(block_count_);
    return FLC_OK;
  }

 private:
  bool add(const Instance& instance, int32_t first_row, int32_t last_row) {
    const int32_t left = larger(0, instance.left - settings_.reach);
    const int32_t right = smaller(plan_.width - 1, instance.right + settings_.reach);
    compose_until(left / BLOCK);  // no later instance begins further left
    for (int32_t block = left / BLOCK; block <= right / BLOCK; ++block)
      if (!blocks_[block] && !(blocks_[block] = cleared_block())) return false;
    mark_foreground(instance);
    switch (instance.arithmetic) {
      case SINGLE:
        if constexpr (sizeof(Out) == 4) return add_with<Floats>(instance, first_row, last_row, left, right);
        [[fallthrough]];
      case DOUBLE:
        return add_with<Doubles>(instance, first_row, last_row, left, right);
      default:
        return add_with<LogReal>(instance, first_row, last_row, left, right);
    }
  }

  template <class S>
  bool add_with(const Instance& instance, int32_t first_row, int32_t last_row, int32_t left, int32_t right) {
    WantedRows wanted;
    wanted.inside_begin = larger(first_row, instance.top) - instance.top;
    wanted.inside_end = smaller(last_row, instance.bottom + 1) - instance.top;
    wanted.above = first_row < instance.top;
    wanted.below = last_row > instance.bottom + 1;
    InstanceDistance<S, Out> distance;
    if (!distance.prepare(plan_, instance, settings_, wanted, soft_rows_, panel_rows_)) return false;
    PanelDistance<Out> panel;
    for (int32_t x = left / CHUNK * CHUNK; x <= right; x += PANEL * CHUNK) {
      const int32_t chunks = smaller(PANEL, (right - x) / CHUNK + 1);
      distance.find(x, chunks, panel);
      for (int32_t chunk = 0; chunk < chunks; ++chunk) {
        const int32_t begin = x + chunk * CHUNK;
        Out* const columns = blocks_[begin / BLOCK] + int64_t(first_row - begin_) * stride + begin % BLOCK;
        accumulator_.add(instance, panel, chunk, columns, first_row, last_row);
      }
    }
    return true;
  }

  // Writes the weights of blocks composed_ to end_block, which nothing adds to any more.
  void compose_until(int32_t end_block) {
    for (; composed_ < end_block; ++composed_) {
      Out* const block = blocks_[composed_];
      if (!block && on_top_) continue;
      const int32_t x = composed_ * BLOCK, width = smaller(BLOCK, plan_.width - x);
      for (int32_t y = begin_; y < end_; ++y) {
        Result* const weights = out_ + int64_t(y) * plan_.width + x;
        if (y + 16 < end_) {
          for (int32_t i = 0; i < width; i += 64 / int32_t(sizeof(Result)))
            __builtin_prefetch(weights + 16 * int64_t(plan_.width) + i, 1);
        }
        if (block) {
          const bool bordered = y >= plan_.border_top && y <= plan_.border_bottom;
          composer_.compose(block + int64_t(y - begin_) * stride, bordered ? plan_.border_left - x : BLOCK,
                            bordered ? plan_.border_right - x : -1, weights, width);
        } else {
          composer_.untouched(weights, width);
        }
      }
      if (block) {
        push_spare(block);
        blocks_[composed_] = nullptr;
      }
    }
  }

  // Marks the pixels of an instance in the blocks.
  void mark_foreground(const Instance& instance) {
    for (int64_t i = instance.first_run; i < instance.last_run; ++i) {
      const Run& run = plan_.instance_runs[i];
      if (run.row < begin_ || run.row >= end_) continue;
      for (int32_t x = run.first; x <= run.last;) {
        const int32_t count = smaller(run.last + 1 - x, BLOCK - x % BLOCK);
        fill(blocks_[x / BLOCK] + int64_t(run.row - begin_) * stride + x % BLOCK, count, Out(FOREGROUND));
        x += count;
      }
    }
  }

  Out* cleared_block() {
    Out* block = spare_ ? pop_spare()
                        : static_cast<Out*>(aligned_allocate(int64_t(end_ - begin_) * stride * sizeof(Out)));
    if (block)
      for (int32_t y = begin_; y < end_; ++y) accumulator_.clear(block + int64_t(y - begin_) * stride);
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
  const Settings& settings_;
  const bool on_top_;
  const int32_t begin_, end_;
  Result* const out_;
  const Accumulator<Out, tracking> accumulator_;
  const Composer<Out, Result, tracking> composer_;
  const int32_t block_count_;
  int32_t composed_ = 0;
  Out** blocks_ = nullptr;
  Out* spare_ = nullptr;
  Workspace soft_rows_{nullptr, 0}, panel_rows_{nullptr, 0};
};

template <class Out, class Result>
int32_t weigh_rows_as(const ImagePlan& plan, const Settings& settings, bool on_top, int32_t begin,
                      int32_t end, Result* out) {
  switch (plan.tracking) {
    case SUM_ONLY:
      return RowPass<Out, Result, SUM_ONLY>(plan, settings, on_top, begin, end, out).run();
    case NEAREST_AND_SECOND:
      return RowPass<Out, Result, NEAREST_AND_SECOND>(plan, settings, on_top, begin, end, out).run();
    default:
      return RowPass<Out, Result, NEAREST_AND_FARTHEST>(plan, settings, on_top, begin, end, out).run();
  }
}

inline int32_t weigh_rows(const ImagePlan* plan, const Settings* settings, bool on_top, Precision precision,
                          int32_t begin, int32_t end, void* out) {
  switch (precision) {
    case FLOAT_THROUGHOUT:
      return weigh_rows_as<float, float>(*plan, *settings, on_top, begin, end, static_cast<float*>(out));
    case DOUBLE_INSIDE:
      return weigh_rows_as<double, float>(*plan, *settings, on_top, begin, end, static_cast<float*>(out));
    default:
      return weigh_rows_as<double, double>(*plan, *settings, on_top, begin, end, static_cast<double*>(out));
  }
}

}  // namespace FLC_ISA
}  // namespace flc
