// Stage 1, distance: the LogConv distance d_i of one instance at a panel of columns.
//
// With c the pixel of the bounding box next to p, and a = exp(-1 / decay_length), the sum over the instance
// is a^(|p - c|) times a sum seen from c, so that d_i(p) = |p - c| + (a distance found at the box). The
// window cuts the latter: k rows above the box only its first r + 1 - k rows count (prefix sums), and columns
// likewise (the tables left_window and right_window).
#pragma once

#include <type_traits>

#include "cpu/denormals.h"
#include "cpu/simd/elements.h"
#include "cpu/simd/windowed_sum.h"

namespace flc {
namespace FLC_ISA {

// A panel: up to PANEL chunks side by side.
constexpr int PANEL = 8;

// Distances of one instance at `columns` columns, found for the rows of its box, `columns` numbers each.
template <class Out>
struct PanelDistance {
  int32_t columns;
  const Out* inside;  // rows first_inside.. of the box
  int32_t first_inside;
  // above[m], below[m]: distance at the box's first (last) row if only its first (last) m + 1 rows count. In
  // chunk c they no longer change from above_settled[c] (below_settled[c]) on, and are not given beyond.
  const Out *above, *below;
  int32_t above_settled[PANEL], below_settled[PANEL];
};

// Rows of the box (counted from its top, half open) that a pass over part of the image asks for, and whether
// it asks for rows above and below the box.
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
  static constexpr int vectors_per_chunk = CHUNK / lanes;
  static constexpr int max_vectors = PANEL * vectors_per_chunk;
  static constexpr bool soft_masks_served = !std::is_same_v<Scalar, float>;  // never summed in float

 public:
  // False where memory ran out.
  bool prepare(const ImagePlan& plan, const Instance& instance, const Settings& settings, WantedRows wanted,
               Workspace& soft_rows, Workspace& panel_rows) {
    plan_ = &plan;
    instance_ = &instance;
    settings_ = &settings;
    tables_ = &Number<S>::tables(settings);
    by_pixels_ = soft_masks_served && (instance.soft_mask || instance.dense);
    wanted_ = wanted;
    const int32_t radius = settings.radius;
    height_ = instance.bottom - instance.top + 1;
    fits_window_ = height_ <= radius + 1;
    prefix_rows_ = smaller(height_, larger(radius, 1));  // k = 1 .. r rows outside see at most r of them
    // Rows of the box whose sums are needed: whole blocks of r + 1 around those asked for.
    sum_begin_ = sum_end_ = 0;
    if (wanted.inside_begin < wanted.inside_end) {
      if (fits_window_) {
        sum_end_ = height_;
      } else {
        const int64_t block = radius + 1;
        sum_begin_ = int32_t(larger<int64_t>(wanted.inside_begin - radius, 0) / block * block);
        sum_end_ =
            int32_t(smaller<int64_t>((wanted.inside_end + radius + block - 1) / block * block, height_));
      }
    }
    rows_begin_ = wanted.above || (wanted.below && prefix_rows_ == height_) ? 0
                  : wanted.below && sum_begin_ == sum_end_                  ? height_ - prefix_rows_
                  : wanted.below ? smaller(sum_begin_, height_ - prefix_rows_)
                                 : sum_begin_;
    rows_end_ = wanted.below ? height_ : wanted.above ? larger(sum_end_, prefix_rows_) : sum_end_;
    row_count_ = rows_end_ - rows_begin_;

    const int64_t row_bytes = max_vectors * int64_t(sizeof(S)), distance_bytes = PANEL * CHUNK * sizeof(Out);
    char* memory = static_cast<char*>(reserve(
        panel_rows, row_count_ * (3 * row_bytes + distance_bytes) + prefix_rows_ * 2 * distance_bytes));
    if (!memory) return false;
    const auto take = [&memory](int64_t bytes) {
      char* const taken = memory;
      memory += bytes;
      return taken;
    };
    rows_ = reinterpret_cast<S*>(take(row_count_ * row_bytes));
    sums_ = reinterpret_cast<S*>(take(row_count_ * row_bytes));
    sum_workspace_ = reinterpret_cast<S*>(take(row_count_ * row_bytes));
    inside_ = reinterpret_cast<Out*>(take(row_count_ * distance_bytes));
    above_ = reinterpret_cast<Out*>(take(prefix_rows_ * distance_bytes));
    below_ = reinterpret_cast<Out*>(take(prefix_rows_ * distance_bytes));
    runs_begin_ = plan.instance_runs + instance.first_run;
    runs_end_ = plan.instance_runs + instance.last_run;
    if (rows_begin_ > 0) runs_begin_ = first_of_row(runs_begin_, runs_end_, instance.top + rows_begin_);
    if constexpr (soft_masks_served) {
      if (by_pixels_) return prepare_soft_rows(soft_rows);
    }
    return true;
  }

  // The distances at columns x.. of `chunks` chunks.
  void find(int32_t x, int32_t chunks, PanelDistance<Out>& distance) {
    vectors_ = chunks * vectors_per_chunk;
    find_offsets(x, chunks);
    sum_rows(x);
    distance.columns = chunks * CHUNK;
    distance.inside = inside_;
    distance.first_inside = wanted_.inside_begin;
    distance.above = above_;
    distance.below = below_;
    if (wanted_.inside_begin < wanted_.inside_end) find_inside();
    if (wanted_.above) find_prefixes(rows_, vectors_, chunks, above_, distance.above_settled);
    if (wanted_.below) {
      find_prefixes(rows_ + int64_t(row_count_ - 1) * vectors_, -vectors_, chunks, below_,
                    distance.below_settled);
    }
  }

 private:
  // Whole chunks beside the box hold distances from its edge column, chunks across it from the pixel itself.
  void find_offsets(int32_t x, int32_t chunks) {
    const int32_t left = instance_->left, right = instance_->right;
    vectors_left_ = vectors_right_ = 0;
    for (int32_t chunk = 0; chunk < chunks; ++chunk) {
      const int32_t begin = x + chunk * CHUNK;
      Out* const offset = offset_ + chunk * CHUNK;
      if (begin + CHUNK <= left && !by_pixels_) {
        vectors_left_ += vectors_per_chunk;
        for (int lane = 0; lane < CHUNK; ++lane) offset[lane] = Out(left - begin - lane);
      } else if (begin > right && !by_pixels_) {
        vectors_right_ += vectors_per_chunk;
        for (int lane = 0; lane < CHUNK; ++lane) offset[lane] = Out(begin + lane - right);
      } else {
        for (int lane = 0; lane < CHUNK; ++lane) offset[lane] = 0;
      }
    }
  }

  // rows_: for each row of the box, the sum of its pixels within the window, seen from the panel's columns.
  void sum_rows(int32_t x) {
    if constexpr (soft_masks_served) {
      if (by_pixels_) {
        const Scalar* const from = soft_sums_ + (x - (instance_->left - tables_->radius)) + CHUNK;
        for (int64_t row = 0; row < row_count_; ++row)
          for (int32_t v = 0; v < vectors_; ++v)
            rows_[row * vectors_ + v] = load<S>(from + row * soft_width_ + v * lanes);
        return;
      }
    }
    if (instance_->right - instance_->left <= tables_->radius)
      sum_runs<false>(x);
    else
      sum_runs<true>(x);
  }

  // Instances wider than the window may lead beyond the tables, where they no longer change: `clamped`.
  template <bool clamped>
  void sum_runs(int32_t x) {
    const KernelTables<Scalar>& tables = *tables_;
    const int32_t left = instance_->left, right = instance_->right, longest = tables.radius + 1;
    const int32_t across_end = vectors_ - vectors_right_;
    const auto at = [&tables](int32_t index) {
      return clamped ? larger(tables.lowest, smaller(index, tables.highest)) : index;
    };
    const Run* run = runs_begin_;
    S* sums = rows_;
    for (int32_t row = instance_->top + rows_begin_; row < instance_->top + rows_end_; ++row) {
      for (int32_t v = 0; v < vectors_; ++v) sums[v] = broadcast<S>(Number<S>::zero);
      for (; run != runs_end_ && run->row == row; ++run) {
        const int32_t first = run->first, last = run->last, length = smaller(last - first + 1, longest);
        const S left_length = broadcast<S>(tables.left_length[length]);
        const S right_length = broadcast<S>(tables.right_length[length]);
        if (vectors_left_ && first - left <= tables.radius) {
          const S at_box = broadcast<S>(tables.left_decay[first - left]);
          for (int32_t v = 0; v < vectors_left_; ++v) {
            const S window = load<S>(tables.right_window + at(x + v * lanes - first + 1));
            sums[v] = multiply_add(at_box, smaller(window, right_length), sums[v]);
          }
        }
        int32_t begin = vectors_left_, end = across_end;
        if (clamped) {  // elsewhere the window shows nothing of the run
          const int64_t before = int64_t(first) - tables.radius - x,
                        after = int64_t(last) + tables.radius - x;
          begin = larger(begin, int32_t(larger<int64_t>(before, 0) / lanes));
          end = after < 0 ? begin : smaller<int64_t>(end, after / lanes + 1);
        }
        for (int32_t v = begin; v < end; ++v) {
          const int32_t from_first = at(x + v * lanes - first), from_last = at(x + v * lanes - last);
          const int32_t to_first = at(x + v * lanes - first + 1), to_last = at(x + v * lanes - last + 1);
          const S here = smaller(
              smaller(load<S>(tables.left_from_first + from_first), load<S>(tables.left_window + from_last)),
              left_length);
          const S there = smaller(
              smaller(load<S>(tables.right_to_last + to_last), load<S>(tables.right_window + to_first)),
              right_length);
          sums[v] = multiply_add(load<S>(tables.left_decay + from_last), here, sums[v]);
          sums[v] = multiply_add(load<S>(tables.right_decay + to_first), there, sums[v]);
        }
        if (vectors_right_ && right - last <= tables.radius) {
          const S at_box = broadcast<S>(tables.left_decay[right - last]);
          for (int32_t v = across_end; v < vectors_; ++v) {
            const S window = load<S>(tables.left_window + at(x + v * lanes - last));
            sums[v] = multiply_add(at_box, smaller(window, left_length), sums[v]);
          }
        }
      }
      sums += vectors_;
    }
  }

  void find_inside() {
    const int64_t before = int64_t(sum_begin_ - rows_begin_) * vectors_;
    windowed_sums<S>(rows_ + before, vectors_, sum_end_ - sum_begin_, *tables_, sum_workspace_, sums_,
                     fits_window_);
    const DistanceOfSum<S, Out> distance(*tables_, settings_->decay_length);
    const S* sums = sums_ + int64_t(wanted_.inside_begin - sum_begin_) * vectors_;
    Out* to = inside_;
    for (int32_t j = wanted_.inside_begin; j < wanted_.inside_end; ++j) {
      const Out* offset = offset_;
      for (int32_t v = vectors_; v > 0; --v) {
        distance.store(*sums++, offset, to);
        offset += lanes;
        to += lanes;
      }
    }
  }

  // Distances from prefixes of the rows at first_row, first_row + step, .., and for each chunk the index from
  // which on they agree with the distance from all of them.
  void find_prefixes(const S* first_row, int64_t step, int32_t chunks, Out* distances, int32_t* settled) {
    const int32_t last = prefix_rows_ - 1, vectors = vectors_;
    S whole[max_vectors];
    for_vector_groups(vectors, [&](int32_t first, auto size) {
      constexpr int N = size.value;
      const S decay = broadcast<S>(tables_->decay);
      const S* row = first_row + last * step + first;
      S sum[N];
      for (int n = 0; n < N; ++n) sum[n] = row[n];
      for (int32_t m = last; m > 0; --m) {
        row -= step;
        for (int n = 0; n < N; ++n) sum[n] = multiply_add(sum[n], decay, row[n]);
      }
      for (int n = 0; n < N; ++n) whole[first + n] = sum[n];
    });
    const DistanceOfSum<S, Out> distance(*tables_, settings_->decay_length);
    constexpr int N = vectors_per_chunk;
    for (int32_t chunk = 0; chunk < chunks; ++chunk) {
      const S* row = first_row + chunk * N;
      const S* const all = whole + chunk * N;
      const Out* const offset = offset_ + chunk * CHUNK;
      Out* to = distances + chunk * CHUNK;
      S prefix[N];
      for (int n = 0; n < N; ++n) prefix[n] = broadcast<S>(Number<S>::zero);
      int32_t m = 0;
      for (; m < last; ++m) {
        bool agree = true;
        for (int n = 0; n < N; ++n) {
          prefix[n] = add_decayed<S>(prefix[n], row[n], *tables_, m);
          agree &= !any_greater(all[n], nearly(prefix[n]));
        }
        if (agree) break;
        for (int n = 0; n < N; ++n) distance.store(prefix[n], offset + n * lanes, to + n * lanes);
        row += step;
        to += vectors * lanes;
      }
      settled[chunk] = m;
      for (int n = 0; n < N; ++n) distance.store(all[n], offset + n * lanes, to + n * lanes);
    }
  }

  // A prefix sum this close below the whole sum counts as equal to it.
  FLC_INLINE Floats nearly(Floats sum) const { return sum * float(1 + settings_->prefix_tolerance); }
  FLC_INLINE Doubles nearly(Doubles sum) const { return sum * (1 + settings_->prefix_tolerance); }
  FLC_INLINE LogReal nearly(LogReal sum) const { return {sum.log + settings_->prefix_tolerance}; }
  FLC_INLINE WideReal nearly(WideReal sum) const { return sum * wide(1, settings_->prefix_tolerance); }

  // The first run at or below `row`.
  static const Run* first_of_row(const Run* begin, const Run* end, int32_t row) {
    while (begin < end) {
      const Run* const middle = begin + (end - begin) / 2;
      if (middle->row < row)
        begin = middle + 1;
      else
        end = middle;
    }
    return begin;
  }

  // Soft masks, and dense parts, whose runs are too many: the horizontal sums of every row needed, for all columns that a panel may ask for.
  bool prepare_soft_rows(Workspace& soft_rows) {
    const int32_t radius = tables_->radius, width = instance_->right - instance_->left + 1;
    const int64_t padded = width + 2 * int64_t(radius);
    soft_width_ = padded + 2 * CHUNK;
    const int64_t sums_bytes = (int64_t(row_count_) * soft_width_ * sizeof(Scalar) + 63) / 64 * 64;
    char* const memory = static_cast<char*>(reserve(soft_rows, sums_bytes + 3 * padded * int64_t(sizeof(S))));
    if (!memory) return false;
    Scalar* const soft_sums = reinterpret_cast<Scalar*>(memory);
    S* const values = reinterpret_cast<S*>(memory + sums_bytes);
    S *const sums = values + padded, *const workspace = sums + padded;
    for (int64_t i = 0; i < row_count_ * soft_width_; ++i) soft_sums[i] = Number<S>::zero;
    for (int64_t i = 0; i < padded; ++i) values[i] = broadcast<S>(Number<S>::zero);
    for (int32_t row = 0; row < row_count_; row += lanes) {  // `lanes` rows at a time, one in each lane
      const int32_t rows = smaller(lanes, row_count_ - row);
      read_soft_rows(row, rows, reinterpret_cast<Scalar*>(values + radius));
      windowed_sums<S>(values, 1, padded, *tables_, workspace, sums, padded <= radius + 1);
      for (int32_t lane = 0; lane < rows; ++lane) {
        const Scalar* const from = reinterpret_cast<const Scalar*>(sums) + lane;
        Scalar* const to = soft_sums + (row + lane) * soft_width_ + CHUNK;
        for (int64_t i = 0; i < padded; ++i) to[i] = from[i * lanes];
      }
    }
    soft_sums_ = soft_sums;
    return true;
  }

  // Row by row into the lanes of a vector for each column.
  void read_soft_rows(int32_t first, int32_t rows, Scalar* scalars) const {
    if (!instance_->soft_mask) return read_runs(first, rows, scalars);
    const DenormalsCount guard;
    for (int32_t lane = 0; lane < rows; ++lane) {
      for (int32_t x = instance_->left; x <= instance_->right; ++x) {
        scalars[int64_t(x - instance_->left) * lanes + lane] =
            soft_value(instance_->top + rows_begin_ + first + lane, x);
      }
    }
  }

  void read_runs(int32_t first, int32_t rows, Scalar* scalars) const {
    const int64_t columns = instance_->right - instance_->left + 1;
    for (int64_t i = 0; i < columns * lanes; ++i) scalars[i] = Number<S>::zero;
    const Scalar one = value_of(1);
    const int32_t top = instance_->top + rows_begin_ + first;
    for (const Run* run = first_of_row(runs_begin_, runs_end_, top);
         run != runs_end_ && run->row < top + rows; ++run) {
      for (int32_t x = run->first; x <= run->last; ++x)
        scalars[int64_t(x - instance_->left) * lanes + run->row - top] = one;
    }
  }

  Scalar soft_value(int32_t y, int32_t x) const {
    const flc_tensor &mask = *instance_->soft_mask, *ignore = plan_->ignore;
    const bool ignored =
        ignore && static_cast<const uint8_t*>(ignore->data)[y * ignore->stride[1] + x * ignore->stride[2]];
    const double value =
        ignored
            ? 0
            : read_value(mask, instance_->region * mask.stride[0] + y * mask.stride[1] + x * mask.stride[2]);
    return value_of(value);
  }

  Scalar value_of(double value) const {
    if constexpr (std::is_same_v<Scalar, WideReal>) {
      return wide(value);
    } else if constexpr (std::is_same_v<Scalar, LogReal>) {
      return {value > 0 ? ::log(value) : -INFINITY};
    } else {
      return Scalar(ldexp(value, tables_->scale_exponent));
    }
  }

  const ImagePlan* plan_;
  const Instance* instance_;
  const Settings* settings_;
  const KernelTables<Scalar>* tables_;
  WantedRows wanted_;
  bool by_pixels_;  // the rows' sums come from soft_sums_
  int32_t height_;
  bool fits_window_;
  int32_t prefix_rows_;
  int32_t rows_begin_, rows_end_, row_count_;  // rows of the box that are summed
  int32_t sum_begin_, sum_end_;  // those among them that the inside needs
  const Run *runs_begin_, *runs_end_;
  S *rows_, *sums_, *sum_workspace_;
  Out *inside_, *above_, *below_;
  int32_t vectors_, vectors_left_, vectors_right_;  // of the panel, and those beside the box among them
  Out offset_[PANEL * CHUNK];
  const Scalar* soft_sums_;
  int64_t soft_width_;
};

}  // namespace FLC_ISA
}  // namespace flc
