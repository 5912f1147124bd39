// Instance labels, or region masks, to weights.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/class_instances.h"
#include "cpu/dispatch.h"
#include "cpu/distances.h"
#include "cpu/image_plan.h"
#include "cpu/parallel.h"
#include "cpu/work.h"
#include "rules.h"

namespace flc {
namespace {

struct Labels {
  const flc_tensor *instances, *classes, *foreground, *ignore;  // as in flc_cpu_weight_map
  const flc_tensor& shape() const { return instances ? *instances : *classes; }
};

struct Output {
  void* weights;
  int32_t dtype;
  Output image(int64_t image, int64_t pixels) const {
    return {static_cast<char*>(weights) + image * pixels * bytes_of_result(dtype), dtype};
  }
};

void fill(const Output& out, int64_t pixels, double value) {
  if (out.dtype == FLC_FLOAT64)
    std::fill_n(static_cast<double*>(out.weights), pixels, value);
  else
    std::fill_n(static_cast<float*>(out.weights), pixels, static_cast<float>(value));
}

// Adds the tables that a plan's instances need. Not to be called while kernels read the settings.
void build_tables(CallSettings& settings, const OwnedPlan& plan) {
  for (const Arithmetic arithmetic : {SINGLE, DOUBLE, LOGARITHMIC, WIDE})
    if (plan.uses(arithmetic)) settings.build_tables(arithmetic);
}

// on_top: adds what these instances contribute to the weights; else these are all there are.
int32_t weigh_image(const OwnedPlan& plan, CallSettings& settings, bool on_top, int64_t threads, void* out) {
  const Distance& distance = settings.distance();
  if (distance.uses_tables) build_tables(settings, plan);
  WeighRows* const weigh_rows = kernels().*distance.weigh_rows;
  const int32_t height = plan.get().height;
  const int32_t rows = std::min(rows_per_part(height, threads), distance.most_rows);
  return parallel_for(divide_up(height, rows), threads, [&](int64_t part) {
    const int32_t begin = static_cast<int32_t>(part) * rows;
    return weigh_rows(&plan.get(), &settings.get(), on_top, settings.precision(), begin,
                      std::min(begin + rows, height), out);
  });
}

template <class Real>
void fill_runs(const std::vector<OwnedRuns>& parts, int32_t width, Real value, Real* weights) {
  for (const OwnedRuns& runs : parts) {
    for (const Run& run : runs) {
      Real* const row = weights + int64_t(run.row) * width;
      std::fill(row + run.first, row + run.last + 1, value);
    }
  }
}

void fill_runs(const std::vector<OwnedRuns>& parts, int32_t width, double value, const Output& out) {
  if (out.dtype == FLC_FLOAT64)
    fill_runs(parts, width, value, static_cast<double*>(out.weights));
  else
    fill_runs(parts, width, static_cast<float>(value), static_cast<float*>(out.weights));
}

int64_t pixels_of(const OwnedRuns& runs) {
  int64_t pixels = 0;
  for (const Run& run : runs) pixels += run.last - run.first + 1;
  return pixels;
}

// Whether every pixel belongs to an instance. Looks no further than to the first rows where that is not so,
// and keeps no runs: a checkerboard has as many as pixels.
int32_t is_foreground(const flc_tensor& labels, const flc_tensor* ignore, int64_t image, bool& whole,
                      double* bad_value) {
  const int32_t height = static_cast<int32_t>(labels.size[1]), width = static_cast<int32_t>(labels.size[2]);
  OwnedRuns runs;
  int32_t begin = 0;
  for (int32_t end = 1; begin < height; end = std::min(end + 16, height)) {
    runs.get()->size = 0;
    const int32_t status =
        kernels().scan_rows(&labels, ignore, image, begin, end, false, runs.get(), nullptr, bad_value);
    if (status != FLC_OK) return status;
    if (pixels_of(runs) < int64_t(end - begin) * width) return FLC_OK;
    begin = end;
  }
  whole = true;
  return FLC_OK;
}

// Writes `value` where an image of `labels` is positive.
int32_t fill_positive(const flc_tensor& labels, int64_t image, int64_t threads, double value,
                      const Output& out, double* bad_value) {
  std::vector<OwnedRuns> parts;
  const int32_t status = scan_image(labels, nullptr, image, threads, parts, bad_value);
  if (status == FLC_OK) fill_runs(parts, static_cast<int32_t>(labels.size[2]), value, out);
  return status;
}

// The classes one on top of the other. Leaves the runs of all of them in `instances`.
int32_t weigh_classes(const Labels& labels, CallSettings& settings, int64_t image, int64_t threads,
                      std::vector<OwnedRuns>& instances, const Output& out, double* bad_value) {
  const flc_tensor& shape = labels.shape();
  const int32_t height = static_cast<int32_t>(shape.size[1]), width = static_cast<int32_t>(shape.size[2]);
  std::vector<ClassInstances> found;
  int32_t status =
      find_class_instances(labels.instances, labels.classes, labels.ignore, image, threads, found, bad_value);
  if (status != FLC_OK) return status;
  const bool all_needed =
      with_border(settings.get().border, false, [](auto border) { return border.EVERY_INSTANCE; });
  const bool all_present = all_needed && all_ids_present(found);
  if (found.empty()) found.push_back({1, OwnedRuns()});
  int64_t background = int64_t(height) * width;
  for (const ClassInstances& of_class : found) background -= pixels_of(of_class.runs);
  if (background == 0 && !labels.foreground) {
    fill(out, int64_t(height) * width, 1);
    return FLC_OK;
  }
  for (size_t i = 0; i < found.size() && status == FLC_OK; ++i) {
    std::vector<OwnedRuns> parts;
    parts.push_back(std::move(found[i].runs));
    const OwnedPlan plan(parts, height, width, settings, threads, all_present);
    status = weigh_image(plan, settings, i > 0, threads, out.weights);
    instances.push_back(std::move(parts[0]));
  }
  return status;
}

int32_t weigh_labels(const Labels& labels, const flc_weight_params& params, int64_t image, int64_t threads,
                     const Output& out, double* bad_value) {
  const flc_tensor& shape = labels.shape();
  const int32_t height = static_cast<int32_t>(shape.size[1]), width = static_cast<int32_t>(shape.size[2]);
  std::vector<OwnedRuns> instances;
  CallSettings settings(params, out.dtype);
  if (labels.foreground) settings.weigh_instances();
  int32_t status;
  if (labels.classes) {
    status = weigh_classes(labels, settings, image, threads, instances, out, bad_value);
  } else {
    if (!labels.foreground) {
      bool whole = false;
      status = is_foreground(*labels.instances, labels.ignore, image, whole, bad_value);
      if (whole) fill(out, int64_t(height) * width, 1);  // nothing asks for a distance
      if (whole || status != FLC_OK) return status;
    }
    status = scan_image(*labels.instances, labels.ignore, image, threads, instances, bad_value);
    if (status != FLC_OK) return status;
    const OwnedPlan plan(instances, height, width, settings, threads);
    status = weigh_image(plan, settings, false, threads, out.weights);
  }
  if (labels.foreground) {
    if (status == FLC_OK) status = fill_positive(*labels.foreground, image, threads, 1, out, bad_value);
  } else if (labels.classes || !settings.distance().weighs_foreground) {
    fill_runs(instances, width, 1, out);
  }
  if (status == FLC_OK && labels.ignore)
    status = fill_positive(*labels.ignore, image, threads, 0, out, bad_value);
  return status;
}

// A mask value v moves distances by decay_length ln v, and floats round the more the larger they are; where two
// distances of either sign cancel in the border term, that shows.
flc_weight_params for_values_up_to(double largest, flc_weight_params params) {
  if (find_distance(params.distance)->uses_tables &&
      params.decay_length * std::log(largest) > 2 * std::min(params.bws, params.fds))
    params.double_inside = 1;
  return params;
}

int32_t weigh_regions(const flc_tensor& masks, const flc_tensor* ignore, const flc_weight_params& params,
                      int64_t threads, const Output& out, double* bad_value) {
  const int64_t regions = masks.size[0];
  const int32_t height = static_cast<int32_t>(masks.size[1]), width = static_cast<int32_t>(masks.size[2]);
  std::vector<OwnedRuns> runs(regions);
  std::vector<ValueRange> values(regions, ValueRange{std::numeric_limits<double>::infinity(), 0});
  int32_t status = parallel_reading(regions, threads, bad_value, [&](int64_t region, double* bad) {
    if (masks.dtype == FLC_BOOL) values[region] = {1, 1};
    return kernels().scan_rows(&masks, ignore, region, 0, height, true, runs[region].get(), &values[region],
                               bad);
  });
  if (status != FLC_OK) return status;
  double largest = 1;
  for (const ValueRange& range : values) largest = std::max(largest, range.largest);
  CallSettings settings(for_values_up_to(largest, params), out.dtype);
  if (largest > 1) settings.allow_values_up_to(largest);
  const OwnedPlan plan(runs, values, masks, ignore, settings, threads);
  status = weigh_image(plan, settings, false, threads, out.weights);
  if (!settings.distance().weighs_foreground) fill_runs(runs, width, 1, out);
  if (status == FLC_OK && ignore) status = fill_positive(*ignore, 0, threads, 0, out, bad_value);
  return status;
}

}  // namespace
}  // namespace flc

extern "C" {

int32_t flc_cpu_weight_map(const flc_tensor* instances, const flc_tensor* classes,
                           const flc_tensor* foreground, const flc_tensor* ignore,
                           const flc_weight_params* params, void* out, int32_t out_dtype, int32_t threads,
                           double* bad_value) {
  using namespace flc;
  if (!are_images({instances, classes, foreground, ignore}) || !rules_known(*params) ||
      !is_result_dtype(out_dtype))
    return FLC_UNSUPPORTED;
  const Labels labels{instances, classes, foreground, ignore};
  const flc_tensor& shape = labels.shape();
  const int64_t images = shape.size[0], pixels = shape.size[1] * shape.size[2];
  if (images * pixels == 0) return FLC_OK;
  if (!can_be_held(shape)) return FLC_UNSUPPORTED;
  const int64_t useful = useful_threads(threads, images * pixels);
  prefer_huge_pages(out, images * pixels * bytes_of_result(out_dtype));
  const auto weigh = [&](int64_t image, int64_t image_threads, double* bad) {
    return caught([&] {
      return weigh_labels(labels, *params, image, image_threads, Output{out, out_dtype}.image(image, pixels),
                          bad);
    });
  };
  if (useful > 1 && images < 2 * useful) {
    for (int64_t image = 0; image < images; ++image)
      if (const int32_t status = weigh(image, useful, bad_value)) return status;
    return FLC_OK;
  }
  return caught([&] {  // image by image, each by one thread
    return parallel_reading(images, useful, bad_value,
                            [&](int64_t image, double* bad) { return weigh(image, 1, bad); });
  });
}

int32_t flc_cpu_region_weight_map(const flc_tensor* masks, const flc_tensor* ignore,
                                  const flc_weight_params* params, void* out, int32_t out_dtype,
                                  int32_t threads, double* bad_value) {
  using namespace flc;
  if (!are_images({masks, ignore}) || !rules_known(*params) || !is_result_dtype(out_dtype))
    return FLC_UNSUPPORTED;
  const int64_t pixels = masks->size[1] * masks->size[2];
  if (pixels == 0) return FLC_OK;
  if (!can_be_held(*masks)) return FLC_UNSUPPORTED;
  flc_tensor shared;  // the one image for all regions
  if (ignore) {
    shared = *ignore;
    shared.stride[0] = 0;
  }
  return caught([&] {
    return weigh_regions(*masks, ignore ? &shared : nullptr, *params,
                         useful_threads(threads, masks->size[0] * pixels), Output{out, out_dtype}, bad_value);
  });
}

}  // extern "C"
