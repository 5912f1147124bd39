// The two nearest instances of every voxel, exactly, whatever their number, by passes along W, H and D.
//
// A row's third nearest instance is never among the two nearest of a voxel: the two before it in its row win
// against it from wherever one looks, since all three are equally far away along the other axes. So of each
// row two are kept, then of each plane. Squares of distances add up from axis to axis, and a pass along an axis
// looks at the places k = 1, 2, ... steps away until the square of k steps alone is as large as what was found.
//
// Lengths are in units of the smallest spacing, so that with equal spacings, or multiples, squares are whole
// numbers: exact, and equal where distances are. In float that is up to 2^24; beyond, or with other spacings,
// each square is off by at most 5 roundings of 2^-24 of itself, and a distance by 2e-7 of itself.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/label_volume.h"
#include "cpu/parallel.h"
#include "cpu/work.h"

namespace flc {
namespace {

constexpr double INF = std::numeric_limits<double>::infinity();

// The passes through one volume.
class Passes {
 public:
  // steps: the spacings in units of the smallest.
  Passes(const LabelVolume& labels, const double* steps, const NearestSearch& search,
         const NearestResult& result, int64_t threads)
      : labels_(labels),
        steps_(steps),
        search_(search),
        result_(result),
        threads_(threads),
        kernels_(kernels()),
        lanes_(kernels_.vector_bytes / (search.double_inside ? 8 : 4)),
        place_(3 * int64_t(kernels_.vector_bytes)),
        depth_(labels.size[0]),
        height_(labels.size[1]),
        width_(labels.size[2]),
        vectors_(divide_up(width_, lanes_)) {}

  // Of the instances of one class, or (0) of all; fills in `kinds` where not null. `when_read` is called before
  // the last pass, for which the result may still be told more.
  int32_t run(
      int64_t only_class, uint8_t* kinds, double* bad_value, std::function<void()> when_read = [] {}) {
    when_read_ = std::move(when_read);
    for (const int axis : {0, 1}) fill_squares(axis);
    if (depth_ == 1) return plane(0, only_class, kinds, threads_, nullptr, bad_value);
    const int64_t bytes = depth_ * height_ * vectors_ * place_;
    ScratchArray<char> memory;
    char* const places = memory.reserve(bytes);  // [height][vectors][depth]
    prefer_huge_pages(places, bytes);
    const bool one_by_one = depth_ < 2 * threads_;  // else plane by plane, each by one thread
    const auto read_plane = [&](int64_t z, double* bad) {
      return caught([&] { return plane(z, only_class, kinds, one_by_one ? threads_ : 1, places, bad); });
    };
    const int32_t status = parallel_reading(depth_, one_by_one ? 1 : threads_, bad_value, read_plane);
    if (status != FLC_OK) return status;
    when_read_();
    return parallel_for(height_, threads_, [&](int64_t y) {
      for (int64_t v = 0; v < vectors_; ++v) {
        const int32_t status = finish(places + (y * vectors_ + v) * depth_ * place_, 0, 0, depth_,
                                      y * width_ + v * lanes_, height_ * width_);
        if (status != FLC_OK) return status;
      }
      return int32_t(FLC_OK);
    });
  }

 private:
  static constexpr int64_t ROWS = 64;  // that are read at a time

  void fill_squares(int axis) {
    const int64_t count = labels_.size[axis];
    double* const doubles = squares_[axis].reserve(count);
    for (int64_t k = 0; k < count; ++k) doubles[k] = steps_[axis] * k * (steps_[axis] * k);
    if (search_.double_inside) return;
    float* const floats = reinterpret_cast<float*>(doubles);  // behind what is still to be read
    for (int64_t k = 0; k < count; ++k) floats[k] = static_cast<float>(doubles[k]);
  }

  // Along W, then along H: to `places`, or where they are null to the result.
  int32_t plane(int64_t z, int64_t only_class, uint8_t* kinds, int64_t threads, char* places,
                double* bad_value) {
    ScratchArray<char> memory;
    char* const across = memory.reserve(vectors_ * height_ * place_);  // [vectors][height]
    const auto read_rows = [&](int64_t part, double* bad) {
      return caught([&] {
        const int32_t begin = static_cast<int32_t>(part * ROWS),
                      end = static_cast<int32_t>(std::min(height_, (part + 1) * ROWS));
        OwnedRuns runs;
        const int32_t status = labels_.read(z, begin, end, only_class, kinds, runs, bad);
        if (status != FLC_OK) return status;
        return kernels_.nearest_in_rows(&search_, steps_[2], runs.begin(), runs.end(), begin, end,
                                        static_cast<int32_t>(height_), static_cast<int32_t>(width_), across);
      });
    };
    const int32_t status = parallel_reading(divide_up(height_, ROWS), threads, bad_value, read_rows);
    if (status != FLC_OK) return status;
    if (!places) when_read_();
    const int64_t positions = threads > 1 ? std::max(ROWS, divide_up(height_, 4)) : height_;
    const int64_t parts = divide_up(height_, positions);
    return parallel_for(vectors_ * parts, threads, [&](int64_t job) {
      const int64_t v = job / parts, begin = job % parts * positions,
                    end = std::min(height_, begin + positions);
      const char* const from = across + v * height_ * place_;
      if (!places) return finish(from, 1, begin, end, v * lanes_, width_);
      return along(1, {from, squares_[1].data(), begin, end, height_, places + (v * depth_ + z) * place_,
                       vectors_ * depth_, 0, 0, nullptr});
    });
  }

  // The last pass, along `axis`, of the column of vectors with `first_voxel`.
  int32_t finish(const char* from, int axis, int64_t begin, int64_t end, int64_t first_voxel,
                 int64_t stride) const {
    const int32_t width = static_cast<int32_t>(std::min(lanes_, width_ - first_voxel % width_));
    return along(axis, {from, squares_[axis].data(), begin, end, labels_.size[axis], nullptr, stride,
                        first_voxel, width, nullptr});
  }

  // A pass of a column; by blocks of places, too, where the search goes far beyond one.
  int32_t along(int axis, NearestColumn column) const {
    return caught([&] {
      ScratchArray<char> memory;
      const double reach = std::min(double(column.size), search_.limit / steps_[axis]);
      if (reach > 4 * double(NEAREST_BLOCK))
        column.blocks = memory.reserve(divide_up(column.size, NEAREST_BLOCK) * place_);
      kernels_.nearest_along(&search_, &column, &result_);
      return FLC_OK;
    });
  }

  const LabelVolume& labels_;
  const double* const steps_;
  const NearestSearch& search_;
  const NearestResult& result_;
  const int64_t threads_;
  const Kernels& kernels_;
  const int64_t lanes_, place_, depth_, height_, width_, vectors_;
  ScratchArray<double> squares_[2];
  std::function<void()> when_read_;
};

// The spacings in units of the smallest, and what a volume's size says of squares of distances.
struct Units {
  explicit Units(const LabelVolume& labels) : unit(*std::min_element(labels.spacing, labels.spacing + 3)) {
    for (int axis = 0; axis < 3; ++axis) {
      steps[axis] = labels.spacing[axis] / unit;
      if (labels.size[axis] == 1) steps[axis] = 1;
      const double extent = steps[axis] * double(labels.size[axis]);
      largest_square += extent * extent;
      longest = std::max(longest, labels.size[axis]);
      whole &= steps[axis] == std::floor(steps[axis]);
    }
  }
  // Whether float counts the steps along any axis and holds all squares.
  bool fit_float() const { return longest < FLOAT_COUNTS_TO && largest_square < 1e36; }
  bool exact_in_float() const { return whole && largest_square < double(FLOAT_COUNTS_TO); }

  static constexpr int64_t FLOAT_COUNTS_TO = 1 << 24;
  const double unit;
  double steps[3];
  double largest_square = 0;
  int64_t longest = 0;
  bool whole = true;
};

bool can_be_served(const VolumeTensors& tensors, const double* spacing, int32_t out_dtype) {
  for (const flc_tensor* const tensor :
       {tensors.labels, tensors.classes, tensors.foreground, tensors.ignore}) {
    if (!tensor) continue;
    if (tensor->axes != 4 || !dtype_known(*tensor)) return false;
    for (int axis = 1; axis < 4; ++axis)
      if (tensor->size[axis] > std::numeric_limits<int32_t>::max() / 2) return false;
  }
  for (int axis = 0; axis < 3; ++axis)
    if (!(spacing[axis] >= 1e-30 && spacing[axis] <= 1e30)) return false;
  return is_result_dtype(out_dtype);
}

void* behind(void* out, int64_t voxels, int32_t dtype) {
  return static_cast<char*>(out) + voxels * bytes_of_result(dtype);
}

// Calls serve(volume, threads, bad_value) for each of a batch.
template <class Serve>
int32_t for_each_volume(const flc_tensor& labels, int32_t threads, double* bad_value, const Serve& serve) {
  const int64_t volumes = labels.size[0], voxels = labels.size[1] * labels.size[2] * labels.size[3];
  const int64_t useful = useful_threads(threads, volumes * voxels);
  const auto serve_one = [&](int64_t volume, int64_t inner_threads, double* bad) {
    return caught([&] { return serve(volume, inner_threads, bad); });
  };
  if (useful > 1 && volumes < 2 * useful) {
    for (int64_t volume = 0; volume < volumes; ++volume)
      if (const int32_t status = serve_one(volume, useful, bad_value)) return status;
    return FLC_OK;
  }
  return caught([&] {
    return parallel_reading(volumes, useful, bad_value,
                            [&](int64_t volume, double* bad) { return serve_one(volume, 1, bad); });
  });
}

// Calls run(), and again with numbers where ids are none.
template <class Run>
int32_t with_numbers(LabelVolume& labels, int64_t threads, double* bad_value, const Run& run) {
  int32_t status = run();
  if (status == LabelVolume::IDS_NEED_NUMBERS) {
    status = labels.number_ids(threads, bad_value);
    if (status == FLC_OK) status = run();
  }
  return status;
}

int64_t voxels_of(const flc_tensor& labels) {
  return labels.size[0] * labels.size[1] * labels.size[2] * labels.size[3];
}

// One and zero with which foreground and background have the same total.
void balance(const uint8_t* kinds, int64_t voxels, flc_nearest_params& params) {
  const int64_t inside = std::count(kinds, kinds + voxels, uint8_t(FOREGROUND)),
                outside = std::count(kinds, kinds + voxels, uint8_t(BACKGROUND));
  const auto share = [&](int64_t n) {
    return n > 0 ? double(inside + outside) / (double((inside > 0) + (outside > 0)) * double(n)) : 0.0;
  };
  params.one = share(inside);
  params.zero = share(outside);
}

int32_t weigh(LabelVolume& labels, bool by_class, const flc_nearest_params& given, bool balanced,
              NearestResult& result, int64_t threads, double* bad_value) {
  // Float errs by 6e-7 of the exponent at most: where a factor is larger than this, that shows at weights of 1.
  constexpr double largest_factor_for_float = 1e6;
  const Units units(labels);
  flc_nearest_params params = given;
  const double unit = units.unit;
  params.limit = given.fall != 0 ? given.limit / unit : 0;
  params.pair_limit = given.bwf != 0 ? given.pair_limit / unit : 0;
  for (double* const exponent : {&params.foreground_exponent, &params.border_exponent})
    *exponent = -std::clamp(-*exponent * unit * unit, 1e-30, 1e30);
  const bool with_border = params.pair_limit > 0;
  const NearestSearch search{result.dtype == FLC_FLOAT64 || !units.fit_float() ||
                                 std::max(std::abs(given.fall), given.bwf) > largest_factor_for_float,
                             with_border, false, std::max(params.limit, with_border ? params.pair_limit : 0),
                             params.pair_limit};
  std::vector<int64_t> classes{0};
  if (by_class) {
    classes.clear();
    const int32_t status = labels.find_classes(threads, classes, bad_value);
    if (status != FLC_OK) return status;
    if (classes.empty()) classes.push_back(0);
  }
  ScratchArray<uint8_t> memory;
  uint8_t* const kinds = memory.reserve(labels.voxels() + 64);  // a vector is read from each voxel on
  result.unit = unit;
  result.weights = &params;
  result.kinds = kinds;
  Passes passes(labels, units.steps, search, result, threads);
  return with_numbers(labels, threads, bad_value, [&] {
    int32_t status = FLC_OK;
    for (size_t i = 0; i < classes.size() && status == FLC_OK; ++i) {
      result.on_top = i > 0;
      status = passes.run(classes[i], i == 0 ? kinds : nullptr, bad_value, [&] {
        if (balanced) balance(kinds, labels.voxels(), params);
      });
    }
    return status;
  });
}

}  // namespace
}  // namespace flc

extern "C" {

int32_t flc_cpu_nearest_instances(const flc_tensor* labels, const flc_tensor* ignore, const double spacing[3],
                                  int32_t count, void* distances, int32_t out_dtype, int64_t* ids,
                                  int32_t threads, double* bad_value) {
  using namespace flc;
  const VolumeTensors tensors{labels, nullptr, nullptr, ignore};
  if (!can_be_served(tensors, spacing, out_dtype) || count < 1 || count > 2) return FLC_UNSUPPORTED;
  const int64_t all = voxels_of(*labels);
  if (all == 0) return FLC_OK;
  prefer_huge_pages(distances, count * all * bytes_of_result(out_dtype));
  if (ids) prefer_huge_pages(ids, all * int64_t(sizeof(int64_t)));
  return for_each_volume(*labels, threads, bad_value, [&](int64_t i, int64_t inner_threads, double* bad) {
    LabelVolume volume(tensors, i, spacing);
    const Units units(volume);
    const NearestSearch search{
        out_dtype == FLC_FLOAT64 || !units.fit_float() || (ids && !units.exact_in_float()), count > 1,
        ids != nullptr, INF, INF};
    const int64_t first = i * volume.voxels();
    NearestResult result{out_dtype,
                         units.unit,
                         behind(distances, first, out_dtype),
                         behind(distances, all + first, out_dtype),
                         ids ? ids + first : nullptr,
                         nullptr,
                         nullptr,
                         nullptr,
                         false};
    Passes passes(volume, units.steps, search, result, inner_threads);
    return with_numbers(volume, inner_threads, bad, [&] {
      result.id_of = volume.ids();
      return passes.run(0, nullptr, bad);
    });
  });
}

int32_t flc_cpu_nearest_weight_map(const flc_tensor* labels, const flc_tensor* classes,
                                   const flc_tensor* foreground, const flc_tensor* ignore,
                                   const flc_nearest_params* params, int32_t balanced, void* out,
                                   int32_t out_dtype, int32_t threads, double* bad_value) {
  using namespace flc;
  const VolumeTensors tensors{labels, classes, foreground, ignore};
  if (!can_be_served(tensors, params->spacing, out_dtype) || (balanced && classes)) return FLC_UNSUPPORTED;
  const int64_t all = voxels_of(*labels);
  if (all == 0) return FLC_OK;
  prefer_huge_pages(out, all * bytes_of_result(out_dtype));
  return for_each_volume(*labels, threads, bad_value, [&](int64_t i, int64_t inner_threads, double* bad) {
    LabelVolume volume(tensors, i, params->spacing);
    NearestResult result{};
    result.dtype = out_dtype;
    result.nearest = behind(out, i * volume.voxels(), out_dtype);
    return weigh(volume, classes != nullptr, *params, balanced != 0, result, inner_threads, bad);
  });
}

}  // extern "C"
