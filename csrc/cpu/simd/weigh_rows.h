// Labels to weights for some rows of an image: the three stages, instance by instance from left to right.
#pragma once

#include "cpu/simd/row_blocks.h"

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

template <class Out, class Result, class Border>
class RowPass {
  using Blocks = RowBlocks<Out, Result, Border, false>;

 public:
  RowPass(const ImagePlan& plan, const Settings& settings, bool on_top, int32_t begin, int32_t end,
          Result* out)
      : plan_(plan),
        settings_(settings),
        accumulator_(settings),
        blocks_(plan, settings, on_top, begin, end, out) {}

  ~RowPass() {
    aligned_free(soft_rows_.data);
    aligned_free(panel_rows_.data);
  }
  RowPass(const RowPass&) = delete;
  RowPass& operator=(const RowPass&) = delete;

  int32_t run() {
    return blocks_.weigh(
        [this](const Instance& instance, int32_t first_row, int32_t last_row, int32_t left, int32_t right) {
          if (settings_.marks_foreground) mark_foreground(instance, first_row, last_row, left, right);
          return with_sums(instance.arithmetic, [&](auto sum) {
            return add<decltype(sum)>(instance, first_row, last_row, left, right);
          });
        },
        [this](const Shape& shape, const Stamp<Out>& stamp, int64_t lead, int64_t stride) {
          return with_sums(shape.arithmetic,
                           [&](auto sum) { return find_stamp<decltype(sum)>(shape, stamp, lead, stride); });
        });
  }

 private:
  // Calls function(S()) for what sums are formed in.
  template <class Function>
  static FLC_INLINE bool with_sums(Arithmetic arithmetic, const Function& function) {
    switch (arithmetic) {
      case SINGLE:
        if constexpr (sizeof(Out) == 4) return function(Floats());
        [[fallthrough]];
      case DOUBLE:
        return function(Doubles());
      case WIDE:
        if constexpr (sizeof(Result) == 8) return function(WideReal());
        [[fallthrough]];
      default:
        return function(LogReal());
    }
  }

  template <class S>
  bool add(const Instance& instance, int32_t first_row, int32_t last_row, int32_t left, int32_t right) {
    InstanceDistance<S, Out> distance;
    if (!distance.prepare(plan_, instance, settings_, wanted_rows(instance, first_row, last_row), soft_rows_,
                          panel_rows_))
      return false;
    PanelDistance<Out> panel;
    for (int32_t x = left / CHUNK * CHUNK; x <= right; x += PANEL * CHUNK) {
      const int32_t chunks = smaller(PANEL, (right - x) / CHUNK + 1);
      distance.find(x, chunks, panel);
      for (int32_t chunk = 0; chunk < chunks; ++chunk)
        accumulator_.add(instance, panel, chunk, blocks_.at(first_row, x + chunk * CHUNK), first_row,
                         last_row);
    }
    return true;
  }

  static WantedRows wanted_rows(const Instance& instance, int32_t first_row, int32_t last_row) {
    WantedRows wanted;
    wanted.inside_begin = larger(first_row, instance.top) - instance.top;
    wanted.inside_end = smaller(last_row, instance.bottom + 1) - instance.top;
    wanted.above = first_row < instance.top;
    wanted.below = last_row > instance.bottom + 1;
    return wanted;
  }

  // The stamp of a shape, found as `add` does for an instance that nothing stands beside.
  template <class S>
  bool find_stamp(const Shape& shape, const Stamp<Out>& stamp, int64_t lead, int64_t stride) {
    const int32_t reach = settings_.reach, rows = shape.height + 2 * reach;
    const int32_t left = (reach + CHUNK - 1) / CHUNK * CHUNK, right = left + shape.width - 1;
    Run runs[MOST_RUNS];
    ImagePlan plan = plan_;
    plan.instance_runs = runs;
    Instance instance{};
    instance.top = reach;
    instance.bottom = reach + shape.height - 1;
    instance.left = left;
    instance.right = right;
    instance.last_run = runs_of(shape, reach, left, runs);
    instance.soft_mask = nullptr;
    InstanceDistance<S, Out> distance;
    if (!distance.prepare(plan, instance, settings_, wanted_rows(instance, 0, rows), soft_rows_, panel_rows_))
      return false;
    Out* const block = static_cast<Out*>(aligned_allocate(int64_t(rows) * Blocks::stride * sizeof(Out)));
    if (!block) return false;
    PanelDistance<Out> panel;
    for (int32_t x = 0; x <= right + reach; x += BLOCK) {
      for (int32_t y = 0; y < rows; ++y) Accumulator<Out, Border>::clear(block + int64_t(y) * Blocks::stride);
      distance.find(x, BLOCK / CHUNK, panel);
      for (int32_t chunk = 0; chunk < BLOCK / CHUNK; ++chunk)
        accumulator_.add(instance, panel, chunk, block + chunk * CHUNK, 0, rows);
      for (int32_t y = 0; y < rows; ++y) {
        const Out* const row = block + int64_t(y) * Blocks::stride - x;
        const int64_t to = y * stride + lead - left;
        for (int32_t column = larger(x, left - reach); column <= smaller(x + BLOCK - 1, right + reach);
             ++column) {
          stamp.terms[to + column] = row[column];
          if constexpr (has_border<Border>) stamp.distances[to + column] = row[BLOCK + column];
        }
      }
    }
    aligned_free(block);
    return true;
  }

  // Marks the pixels of an instance in the blocks that it reaches.
  void mark_foreground(const Instance& instance, int32_t first_row, int32_t last_row, int32_t left,
                       int32_t right) {
    for (int64_t i = instance.first_run; i < instance.last_run; ++i) {
      const Run& run = plan_.instance_runs[i];
      if (run.row < first_row || run.row >= last_row) continue;
      const int32_t last = smaller(run.last, right);
      for (int32_t x = larger(run.first, left); x <= last;) {
        const int32_t count = smaller(last + 1 - x, BLOCK - x % BLOCK);
        fill(blocks_.at(run.row, x), count, Out(FOREGROUND));
        x += count;
      }
    }
  }

  const ImagePlan& plan_;
  const Settings& settings_;
  const Accumulator<Out, Border> accumulator_;
  Blocks blocks_;
  Workspace soft_rows_{nullptr, 0}, panel_rows_{nullptr, 0};
};

template <class Out, class Result>
int32_t weigh_rows_as(const ImagePlan& plan, const Settings& settings, bool on_top, int32_t begin,
                      int32_t end, Result* out) {
  return with_live_border(plan, settings, [&](auto border) {
    return RowPass<Out, Result, decltype(border)>(plan, settings, on_top, begin, end, out).run();
  });
}

inline int32_t weigh_rows(const ImagePlan* plan, const Settings* settings, bool on_top, Precision precision,
                          int32_t begin, int32_t end, void* out) {
  switch (precision) {
    case FLOAT_THROUGHOUT:
      return weigh_rows_as<float, float>(*plan, *settings, on_top, begin, end, static_cast<float*>(out));
    case DOUBLE_INSIDE:
      return weigh_rows_as<double, float>(*plan, *settings, on_top, begin, end, static_cast<float*>(out));
    case DOUBLE_THROUGHOUT:
      return weigh_rows_as<double, double>(*plan, *settings, on_top, begin, end, static_cast<double*>(out));
  }
  return FLC_UNSUPPORTED;
}

}  // namespace FLC_ISA
}  // namespace flc
