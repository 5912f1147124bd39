// Stage 1, distance: the LogConv distance d_i of one instance at a chunk of CHUNK columns.
//
// With c the pixel of the bounding box next to p, and a = exp(-1 / decay_length), the sum over the instance
// is a^(|p - c|) times a sum seen from c, so that d_i(p) = |p - c| + (a distance found at the box). The
// window cuts the latter: k rows above the box only its first r + 1 - k rows count (prefix sums), and columns
// likewise (the tables left_window and right_window).
#pragma once

#include "cpu/simd/windowed_sum.h"

namespace flc {
namespace FLC_ISA {

// Distances of one instance at CHUNK columns, found for the rows of its box. Each row holds CHUNK numbers.
template <class Out>
struct ChunkDistance {
  const Out* inside;  // rows first_inside.. of the box
  int32_t first_inside;
  // above[m], below[m]: distance at the box's first (last) row if only its first (last) m + 1 rows count;
  // from `above_limit` (`below_limit`) on they no longer change.
  const Out *above, *below;
  int32_t above_limit, below_limit;
};

// Rows relative to the box's top that a pass over part of the image asks for, half open.
struct WantedRows {
  int32_t inside_begin, inside_end;
  bool above, below;
};

struct Workspace {
  char* data;
  int64_t size;
};

// Room for `bytes` at 64-byte alignment, growing as needed; null where memory ran out.
FLC_INLINE void* reserve(Workspace& workspace, int64_t bytes) {
  if (workspace.size < bytes) {
    aligned_free(workspace.data);
    workspace.data = static_cast<char*>(aligned_allocate(bytes));
    workspace.size = workspace.data ? bytes : 0;
  }
  return workspace.data;
}

template <class S, class Out>
class InstanceDistance {
  using Scalar = typename Number<S>::Scalar;
  static constexpr int lanes = Number<S>::lanes;
  static constexpr int vectors = CHUNK / lanes;
  static constexpr bool soft_masks_served = sizeof(Scalar) == 8;  // never summed in float

 public:
  // False where memory ran out.
  bool prepare(const ImagePlan& plan, const Instance& instance, const Settings& settings, WantedRows wanted,
               Workspace& soft_rows, Workspace& chunk_rows) {
    plan_ = &plan;
    instance_ = &instance;
    settings_ = &settings;
    tables_ = &Number<S>::tables(settings);
    wanted_ = wanted;
    const int32_t radius = settings.radius, height = instance.bottom - instance.top + 1;
    fits_window_ = height <= radius + 1;
    prefix_rows_ = smaller(height, larger(radius, 1));  // k = 1 .. r rows outside see at most r of them
    // Rows of the box whose sums are needed: whole blocks of r + 1 around those asked for.
    rows_begin_ = height;
    rows_end_ = 0;
    if (wanted.inside_begin < wanted.inside_end) {
      if (fits_window_) {
        rows_begin_ = 0;
        rows_end_ = height;
      } else {
        const int32_t block = radius + 1;
        rows_begin_ = larger(wanted.inside_begin - radius, 0) / block * block;
        rows_end_ = int32_t(
            smaller<int64_t>((int64_t(wanted.inside_end) + radius + block - 1) / block * block, height));
      }
    }
    sum_begin_ = rows_begin_;
    sum_end_ = rows_end_;
    if (wanted.above) {
      rows_begin_ = 0;
      rows_end_ = larger(rows_end_, prefix_rows_);
    }
    if (wanted.below) {
      rows_begin_ = smaller(rows_begin_, height - prefix_rows_);
      rows_end_ = height;
    }
    row_count_ = larger(rows_end_ - rows_begin_, 0);
    const int64_t sum_bytes = int64_t(row_count_) * sizeof(S);
    const int64_t distance_bytes = int64_t(row_count_) * CHUNK * sizeof(Out);
    const int64_t prefix_bytes = int64_t(prefix_rows_) * CHUNK * sizeof(Out);
    const int64_t prefix_sum_bytes = int64_t(prefix_rows_) * vectors * sizeof(S);
    char* memory = static_cast<char*>(reserve(chunk_rows, (vectors + 2) * sum_bytes + prefix_sum_bytes +
                                                              distance_bytes + 2 * prefix_bytes + 7 * 64));
    if (!memory) return false;
    const auto take = [&memory](int64_t bytes) {
      char* taken = memory;
      memory += (bytes + 63) / 64 * 64;
      return taken;
    };
    rows_ = reinterpret_cast<S*>(take(vectors * sum_bytes));
    sums_ = reinterpret_cast<S*>(take(sum_bytes));
    sum_workspace_ = reinterpret_cast<S*>(take(sum_bytes));
    prefixes_ = reinterpret_cast<S*>(take(prefix_sum_bytes));
    inside_ = reinterpret_cast<Out*>(take(distance_bytes));
    above_ = reinterpret_cast<Out*>(take(prefix_bytes));
    below_ = reinterpret_cast<Out*>(take(prefix_bytes));
    first_run_of_rows();
    if constexpr (soft_masks_served) {
      if (instance.soft_mask) return prepare_soft_rows(soft_rows);
    }
    return true;
  }

  ChunkDistance<Out> at(int32_t x) {
    const int32_t left = instance_->left, right = instance_->right;
    // Whole chunks beside the box hold distances from its edge column, other chunks from the pixel itself.
    if (instance_->soft_mask) {
      side_ = ACROSS;
    } else {
      side_ = x + CHUNK <= left ? LEFT_OF_BOX : x > right ? RIGHT_OF_BOX : ACROSS;
    }
    for (int lane = 0; lane < CHUNK; ++lane) {
      offset_[lane] = Out(side_ == LEFT_OF_BOX    ? left - x - lane
                          : side_ == RIGHT_OF_BOX ? x + lane - right
                                                  : 0);
    }
    ChunkDistance<Out> distance{inside_, sum_begin_, above_, below_, 0, 0};
    const int32_t height = instance_->bottom - instance_->top + 1;
    for (int vector = 0; vector < vectors; ++vector) {
      sum_rows(x + vector * lanes, rows_ + vector * row_count_);
      if (sum_begin_ < sum_end_) find_inside(vector);
    }
    if (wanted_.above) distance.above_limit = find_prefixes(rows_ - rows_begin_, 1, above_);
    if (wanted_.below) distance.below_limit = find_prefixes(rows_ + (height - 1 - rows_begin_), -1, below_);
    return distance;
  }

 private:
  enum Side { LEFT_OF_BOX, ACROSS, RIGHT_OF_BOX };

  // sums[j - rows_begin_]: the sum of row j's pixels within the window, seen from columns x.. of that row.
  void sum_rows(int32_t x, S* sums) {
    const KernelTables<Scalar>& tables = *tables_;
    const S zero = broadcast<S>(Number<S>::zero);
    if constexpr (soft_masks_served) {
      if (instance_->soft_mask) {
        const int64_t width = soft_width_;
        for (int32_t j = rows_begin_; j < rows_end_; ++j)
          sums[j - rows_begin_] = load<S>(soft_sums_ + (j - rows_begin_) * width +
                                          (x - (instance_->left - tables.radius)) + CHUNK);
        return;
      }
    }
    const Run* run = plan_->instance_runs + run_begin_;
    const Run* const last_run = plan_->instance_runs + run_end_;
    const int32_t top = instance_->top, left = instance_->left, right = instance_->right;
    const auto clamp = [&tables](int32_t index) {
      return larger(tables.lowest, smaller(index, tables.highest));
    };
    const int32_t length_limit = tables.radius + 1;
    for (int32_t j = rows_begin_; j < rows_end_; ++j) {
      S sum = zero;
      for (; run != last_run && run->row == top + j; ++run) {
        const int32_t first = run->first, last = run->last, length = smaller(last - first + 1, length_limit);
        if (side_ == LEFT_OF_BOX) {
          if (first - left > tables.radius) continue;
          const S window = load<S>(tables.right_window + clamp(x - first + 1));
          const S whole = broadcast<S>(tables.right_length[length]);
          sum = sum + broadcast<S>(tables.left_decay[first - left]) * smaller(window, whole);
        } else if (side_ == RIGHT_OF_BOX) {
          if (right - last > tables.radius) continue;
          const S window = load<S>(tables.left_window + clamp(x - last));
          const S whole = broadcast<S>(tables.left_length[length]);
          sum = sum + broadcast<S>(tables.left_decay[right - last]) * smaller(window, whole);
        } else {
          const int32_t from_first = clamp(x - first), from_last = clamp(x - last);
          const int32_t to_first = clamp(x - first + 1), to_last = clamp(x - last + 1);
          const S here =
              smaller(load<S>(tables.left_from_first + from_first), load<S>(tables.left_window + from_last));
          const S there =
              smaller(load<S>(tables.right_to_last + to_last), load<S>(tables.right_window + to_first));
          sum = sum + load<S>(tables.left_decay + from_last) *
                          smaller(here, broadcast<S>(tables.left_length[length]));
          sum = sum + load<S>(tables.right_decay + to_first) *
                          smaller(there, broadcast<S>(tables.right_length[length]));
        }
      }
      sums[j - rows_begin_] = sum;
    }
  }

  void find_inside(int vector) {
    windowed_sum<S>(rows_ + vector * row_count_ + (sum_begin_ - rows_begin_), sum_end_ - sum_begin_, *tables_,
                    sum_workspace_, sums_, fits_window_);
    for (int32_t j = wanted_.inside_begin; j < wanted_.inside_end; ++j) {
      store_distance(sums_[j - sum_begin_], *tables_, settings_->decay_length, offset_ + vector * lanes,
                     inside_ + int64_t(j - sum_begin_) * CHUNK + vector * lanes);
    }
  }

  // Distances from prefixes of the rows first_row[0], first_row[step], .. and the index from which on they
  // agree.
  int32_t find_prefixes(const S* first_row, int step, Out* distances) {
    int32_t limit = 0;
    for (int vector = 0; vector < vectors; ++vector) {
      const S* const rows = first_row + vector * row_count_;
      S* const prefixes = prefixes_ + vector * prefix_rows_;
      S prefix = broadcast<S>(Number<S>::zero);
      for (int32_t m = 0; m < prefix_rows_; ++m) {
        prefix = prefix + decayed<S>(rows[m * step], *tables_, m);
        prefixes[m] = prefix;
      }
      int32_t agree = prefix_rows_ - 1;
      while (agree > limit && !any_greater(prefix, nearly(prefixes[agree - 1]))) --agree;
      limit = larger(limit, agree);
    }
    for (int vector = 0; vector < vectors; ++vector) {
      const S* const prefixes = prefixes_ + vector * prefix_rows_;
      for (int32_t m = 0; m <= limit; ++m) {
        store_distance(prefixes[m < limit ? m : prefix_rows_ - 1], *tables_, settings_->decay_length,
                       offset_ + vector * lanes, distances + m * CHUNK + vector * lanes);
      }
    }
    return limit;
  }

  // A prefix sum this close below the whole sum counts as equal to it.
  static FLC_INLINE Floats nearly(Floats sum) { return sum * (1.0f + 0x1p-22f); }
  static FLC_INLINE Doubles nearly(Doubles sum) {
    return sum * (1.0 + (sizeof(Out) == 4 ? 0x1p-24 : 0x1p-48));
  }
  static FLC_INLINE LogReal nearly(LogReal sum) { return {sum.log + 1e-14}; }

  void first_run_of_rows() {
    const Run* runs = plan_->instance_runs;
    run_begin_ =
        first_at_or_below(runs, instance_->first_run, instance_->last_run, instance_->top + rows_begin_);
    run_end_ = instance_->last_run;
  }

  static int64_t first_at_or_below(const Run* runs, int64_t begin, int64_t end, int32_t row) {
    while (begin < end) {
      const int64_t middle = begin + (end - begin) / 2;
      if (runs[middle].row < row)
        begin = middle + 1;
      else
        end = middle;
    }
    return begin;
  }

  // Soft masks: the horizontal sums of every row needed, for all columns that a chunk may ask for.
  bool prepare_soft_rows(Workspace& soft_rows) {
    const int32_t radius = tables_->radius, width = instance_->right - instance_->left + 1;
    const int64_t padded = width + 2 * int64_t(radius);
    soft_width_ = padded + 2 * CHUNK;
    const int64_t sums_bytes = (int64_t(row_count_) * soft_width_ * sizeof(Scalar) + 63) / 64 * 64;
    char* memory = static_cast<char*>(reserve(soft_rows, sums_bytes + 3 * padded * int64_t(sizeof(S))));
    if (!memory) return false;
    Scalar* const soft_sums = reinterpret_cast<Scalar*>(memory);
    S* const values = reinterpret_cast<S*>(memory + sums_bytes);
    S *const sums = values + padded, *const workspace = sums + padded;
    for (int64_t i = 0; i < row_count_ * soft_width_; ++i) soft_sums[i] = Number<S>::zero;
    for (int64_t i = 0; i < padded; ++i) values[i] = broadcast<S>(Number<S>::zero);
    for (int32_t row = 0; row < row_count_; row += lanes) {  // `lanes` rows at a time, one in each lane
      const int32_t rows = smaller(lanes, row_count_ - row);
      Scalar* const scalars = reinterpret_cast<Scalar*>(values + radius);
      for (int32_t lane = 0; lane < rows; ++lane) {
        for (int32_t i = 0; i < width; ++i) {
          scalars[int64_t(i) * lanes + lane] =
              soft_value(instance_->top + rows_begin_ + row + lane, instance_->left + i);
        }
      }
      windowed_sum<S>(values, padded, *tables_, workspace, sums, padded <= radius + 1);
      for (int32_t lane = 0; lane < rows; ++lane) {
        const Scalar* const from = reinterpret_cast<const Scalar*>(sums) + lane;
        Scalar* const to = soft_sums + (row + lane) * soft_width_ + CHUNK;
        for (int64_t i = 0; i < padded; ++i) to[i] = from[i * lanes];
      }
    }
    soft_sums_ = soft_sums;
    return true;
  }

  Scalar soft_value(int32_t y, int32_t x) const {
    const flc_tensor& mask = *instance_->soft_mask;
    const double value =
        read_value(mask, instance_->region * mask.stride[0] + y * mask.stride[1] + x * mask.stride[2]);
    if constexpr (lanes == 1) {
      return {value > 0 ? ::log(value) : -INFINITY};
    } else {
      return ldexp(value, tables_->scale_exponent);
    }
  }

  const ImagePlan* plan_;
  const Instance* instance_;
  const Settings* settings_;
  const KernelTables<Scalar>* tables_;
  WantedRows wanted_;
  bool fits_window_;
  int32_t prefix_rows_;
  int32_t rows_begin_, rows_end_, row_count_;  // rows of the box that are summed
  int32_t sum_begin_, sum_end_;    // those among them that the inside needs
  int64_t run_begin_, run_end_;
  S *rows_, *sums_, *sum_workspace_, *prefixes_;
  Out *inside_, *above_, *below_;
  Out offset_[CHUNK];
  Side side_;
  const Scalar* soft_sums_;
  int64_t soft_width_;
};

}  // namespace FLC_ISA
}  // namespace flc
