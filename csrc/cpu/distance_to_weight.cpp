// Distances to weights.
#include <algorithm>
#include <limits>

#include "cpu/dispatch.h"
#include "cpu/distances.h"
#include "cpu/parallel.h"
#include "cpu/tables.h"
#include "cpu/work.h"

extern "C" int32_t flc_cpu_distance_to_weight(const flc_tensor* distance, const flc_tensor* foreground,
                                              const flc_weight_params* params, void* out, int32_t out_dtype,
                                              int32_t threads, double* bad_value) {
  using namespace flc;
  constexpr int64_t rows_per_job = 16;
  if (!are_images({distance, foreground}) || !rules_known(*params) || !is_result_dtype(out_dtype))
    return FLC_UNSUPPORTED;
  const int64_t height = distance->size[1], width = distance->size[2];
  if (height * width == 0) return FLC_OK;
  if (!dtype_known(*distance) || width > std::numeric_limits<int32_t>::max() / 2) return FLC_UNSUPPORTED;
  return caught([&] {
    const CallSettings settings(*params, out_dtype);
    const int64_t jobs = divide_up(height, rows_per_job);
    return parallel_reading(jobs, threads, bad_value, [&](int64_t job, double* bad) {
      const int64_t begin = job * rows_per_job, end = std::min(begin + rows_per_job, height);
      return kernels().distance_to_weight(distance, foreground, &settings.get(), settings.precision(), begin,
                                          end, out, bad);
    });
  });
}
