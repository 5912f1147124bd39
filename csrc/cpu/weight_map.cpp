// Instance labels, or region masks, to weights.
#include <algorithm>
#include <limits>
#include <new>
#include <vector>

#include "cpu/class_instances.h"
#include "cpu/dispatch.h"
#include "cpu/image_plan.h"
#include "cpu/parallel.h"
#include "cpu/work.h"

namespace flc {
namespace {

// Adds the tables that a plan's instances need. Not to be called while kernels read the settings.
void build_tables(CallSettings& settings, const OwnedPlan& plan) {
  for (const Arithmetic arithmetic : {SINGLE, DOUBLE, LOGARITHMIC})
    if (plan.uses(arithmetic)) settings.build_tables(arithmetic);
}

int32_t weigh_image(const OwnedPlan& plan, const CallSettings& settings, int64_t threads, void* out) {
  const int32_t height = plan.get().height, rows = rows_per_part(height, threads);
  return parallel_for(divide_up(height, rows), threads, [&](int64_t part) {
    const int32_t begin = static_cast<int32_t>(part) * rows;
    return kernels().weigh_rows(&plan.get(), &settings.get(), settings.precision(), begin,
                                std::min(begin + rows, height), out);
  });
}

void* image_of(void* out, int32_t out_dtype, int64_t pixels, int64_t image) {
  return static_cast<char*>(out) + image * pixels * (out_dtype == FLC_FLOAT64 ? 8 : 4);
}

int32_t weigh_labels(const flc_tensor& labels, const flc_weight_params& params, int64_t image,
                     int64_t threads, void* out, int32_t out_dtype, double* bad_value) {
  const int32_t height = static_cast<int32_t>(labels.size[1]), width = static_cast<int32_t>(labels.size[2]);
  std::vector<OwnedRuns> runs;
  if (const int32_t status = scan_image(labels, image, threads, runs, bad_value)) return status;
  CallSettings settings(params, height, width, out_dtype);
  const OwnedPlan plan(runs, height, width, settings, params.border, threads);
  build_tables(settings, plan);
  return weigh_image(plan, settings, threads, out);
}

int32_t weigh_regions(const flc_tensor& masks, const flc_weight_params& params, int64_t threads, void* out,
                      int32_t out_dtype, double* bad_value) {
  const int64_t regions = masks.size[0];
  const int32_t height = static_cast<int32_t>(masks.size[1]), width = static_cast<int32_t>(masks.size[2]);
  std::vector<OwnedRuns> runs(regions);
  std::vector<ValueRange> values(regions, ValueRange{std::numeric_limits<double>::infinity(), 0});
  std::vector<double> bad_values(regions);
  const int32_t status = parallel_for(regions, threads, [&](int64_t region) {
    if (masks.dtype == FLC_BOOL) values[region] = {1, 1};
    return kernels().scan_rows(&masks, region, 0, height, true, runs[region].get(), &values[region],
                               &bad_values[region]);
  });
  if (status != FLC_OK) {
    for (const double value : bad_values)
      if (value != 0) *bad_value = value;
    return status;
  }
  CallSettings settings(params, height, width, out_dtype);
  for (const ValueRange& range : values)
    if (range.largest > 1) settings.reach_whole_window();
  const OwnedPlan plan(runs, values, masks, settings, params.border, threads);
  build_tables(settings, plan);
  return weigh_image(plan, settings, threads, out);
}

}  // namespace
}  // namespace flc

extern "C" {

int32_t flc_cpu_weight_map(const flc_tensor* labels, const flc_weight_params* params, void* out,
                           int32_t out_dtype, int32_t threads, double* bad_value) {
  using namespace flc;
  const int64_t images = labels->size[0], pixels = labels->size[1] * labels->size[2];
  if (images * pixels == 0) return FLC_OK;
  if (!sizes_supported(*labels)) return FLC_UNSUPPORTED;
  const int64_t useful = useful_threads(threads, images * pixels);
  prefer_huge_pages(out, images * pixels * (out_dtype == FLC_FLOAT64 ? 8 : 4));
  if (useful == 1 || images >= 2 * useful) {  // image by image, each by one thread
    std::vector<double> bad_values(images);
    const int32_t status = parallel_for(images, useful, [&](int64_t image) {
      return caught([&] {
        return weigh_labels(*labels, *params, image, 1, image_of(out, out_dtype, pixels, image), out_dtype,
                            &bad_values[image]);
      });
    });
    for (const double value : bad_values)
      if (value != 0) *bad_value = value;
    return status;
  }
  for (int64_t image = 0; image < images; ++image) {
    const int32_t status = caught([&] {
      return weigh_labels(*labels, *params, image, useful, image_of(out, out_dtype, pixels, image), out_dtype,
                          bad_value);
    });
    if (status != FLC_OK) return status;
  }
  return FLC_OK;
}

int32_t flc_cpu_region_weight_map(const flc_tensor* masks, const flc_weight_params* params, void* out,
                                  int32_t out_dtype, int32_t threads, double* bad_value) {
  using namespace flc;
  const int64_t pixels = masks->size[1] * masks->size[2];
  if (pixels == 0) return FLC_OK;
  if (!sizes_supported(*masks)) return FLC_UNSUPPORTED;
  return caught([&] {
    return weigh_regions(*masks, *params, useful_threads(threads, masks->size[0] * pixels), out, out_dtype,
                         bad_value);
  });
}

}  // extern "C"
