// Instances to weights by exact Euclidean distances.
#include <algorithm>
#include <vector>

#include "cpu/class_instances.h"
#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/work.h"

namespace flc {
namespace {

// Fewer than elsewhere: instances reach further, so that more columns are held at a time.
constexpr int32_t ROWS_PER_EUCLIDEAN_PASS = 256;

template <class Real>
void fill_runs(const OwnedRuns& runs, int32_t width, Real value, Real* weights) {
  for (const Run& run : runs) {
    Real* const row = weights + int64_t(run.row) * width;
    std::fill(row + run.first, row + run.last + 1, value);
  }
}

void fill_runs(const OwnedRuns& runs, int32_t width, double value, void* weights, int32_t out_dtype) {
  if (out_dtype == FLC_FLOAT64)
    fill_runs(runs, width, value, static_cast<double*>(weights));
  else
    fill_runs(runs, width, static_cast<float>(value), static_cast<float*>(weights));
}

int32_t weigh_image(const flc_tensor* instances, const flc_tensor* classes, const flc_tensor* foreground,
                    const flc_tensor* ignore, const flc_weight_params& params, int64_t image, int64_t threads,
                    void* weights, int32_t out_dtype, double* bad_value) {
  const flc_tensor& shape = instances ? *instances : *classes;
  const int32_t height = static_cast<int32_t>(shape.size[1]), width = static_cast<int32_t>(shape.size[2]);
  std::vector<ClassInstances> found;
  int32_t status = find_class_instances(instances, classes, image, threads, found, bad_value);
  if (status != FLC_OK) return status;
  if (found.empty()) found.push_back({1, OwnedRuns()});

  CallSettings settings(params, height, width, out_dtype);
  settings.use_euclidean_reach(params, height, width, out_dtype);
  const int32_t rows = std::min(rows_per_part(height, threads), ROWS_PER_EUCLIDEAN_PASS);
  for (size_t i = 0; i < found.size(); ++i) {
    std::vector<OwnedRuns> parts;
    parts.push_back(std::move(found[i].runs));
    const OwnedPlan plan(parts, height, width, settings, params.border, threads);
    status = parallel_for(divide_up(height, rows), threads, [&](int64_t part) {
      const int32_t begin = static_cast<int32_t>(part) * rows;
      return kernels().weigh_euclidean_rows(&plan.get(), &settings.get(), i > 0, settings.precision(), begin,
                                            std::min(begin + rows, height), weights);
    });
    if (status != FLC_OK) return status;
    if (!foreground) found[i].runs = std::move(parts[0]);
  }
  std::vector<OwnedRuns> parts;
  if (foreground) status = scan_image(*foreground, image, threads, parts, bad_value);
  for (ClassInstances& class_instances : found) parts.push_back(std::move(class_instances.runs));
  for (const OwnedRuns& runs : parts) fill_runs(runs, width, 1, weights, out_dtype);
  if (status == FLC_OK && ignore) status = scan_image(*ignore, image, threads, parts, bad_value);
  if (status == FLC_OK && ignore)
    for (const OwnedRuns& runs : parts) fill_runs(runs, width, 0, weights, out_dtype);
  return status;
}

}  // namespace
}  // namespace flc

extern "C" int32_t flc_cpu_euclidean_weight_map(const flc_tensor* instances, const flc_tensor* classes,
                                                const flc_tensor* foreground, const flc_tensor* ignore,
                                                const flc_weight_params* params, void* out, int32_t out_dtype,
                                                int32_t threads, double* bad_value) {
  using namespace flc;
  const flc_tensor& shape = instances ? *instances : *classes;
  const int64_t images = shape.size[0], pixels = shape.size[1] * shape.size[2];
  if (images * pixels == 0) return FLC_OK;
  if (!sizes_supported(shape)) return FLC_UNSUPPORTED;
  prefer_huge_pages(out, images * pixels * (out_dtype == FLC_FLOAT64 ? 8 : 4));
  const auto weigh = [&](int64_t image, int64_t image_threads, double* bad) {
    return caught([&] {
      char* const weights = static_cast<char*>(out) + image * pixels * (out_dtype == FLC_FLOAT64 ? 8 : 4);
      return weigh_image(instances, classes, foreground, ignore, *params, image, image_threads, weights,
                         out_dtype, bad);
    });
  };
  const int64_t useful = useful_threads(threads, images * pixels);
  if (useful > 1 && images < 2 * useful) {
    for (int64_t image = 0; image < images; ++image)
      if (const int32_t status = weigh(image, useful, bad_value)) return status;
    return FLC_OK;
  }
  return caught([&] {  // image by image, each by one thread
    std::vector<double> bad_values(images);
    const int32_t status =
        parallel_for(images, useful, [&](int64_t image) { return weigh(image, 1, &bad_values[image]); });
    for (const double value : bad_values)
      if (value != 0) *bad_value = value;
    return status;
  });
}
