// Distances to weights.
#include <limits>
#include <new>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/tables.h"
#include "cpu/work.h"

extern "C" int32_t flc_cpu_distance_to_weight(const flc_tensor* distance, const flc_tensor* foreground,
                                              const flc_weight_params* params, void* out, int32_t out_dtype,
                                              int32_t threads, double* bad_value) {
  using namespace flc;
  constexpr int64_t rows_per_job = 16;
  const int64_t height = distance->size[1], width = distance->size[2];
  if (height * width == 0) return FLC_OK;
  if (!dtype_supported(*distance) || width > std::numeric_limits<int32_t>::max() / 2) return FLC_UNSUPPORTED;
  try {
    const CallSettings settings(*params, height, width, out_dtype);
    const Precision precision = out_dtype == FLC_FLOAT64 ? DOUBLE_THROUGHOUT : FLOAT_THROUGHOUT;
    const int64_t jobs = (height + rows_per_job - 1) / rows_per_job;
    std::vector<double> bad_values(jobs);
    const int32_t status = parallel_for(jobs, threads, [&](int64_t job) {
      const int64_t begin = job * rows_per_job,
                    end = begin + rows_per_job < height ? begin + rows_per_job : height;
      return kernels().distance_to_weight(distance, foreground, &settings.get(), params->border, precision,
                                          begin, end, out, &bad_values[job]);
    });
    for (const double value : bad_values)
      if (value != 0) *bad_value = value;
    return status;
  } catch (const std::bad_alloc&) {
    return FLC_OUT_OF_MEMORY;
  }
}
