// The separable lambda-kernel convolution.
#include <algorithm>
#include <limits>
#include <memory>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/tables.h"
#include "cpu/work.h"
#include "formulas.h"

namespace flc {
namespace {

// How many steps to sum over on each side of a value: all, but none that is beyond the edge from everywhere,
// where values are zero or, in replicate padding, the edge's.
int64_t steps_along(int64_t size, int64_t radius, int32_t padding) {
  return padding == FLC_CONSTANT || padding == FLC_REPLICATE ? std::min(radius, size - 1) : radius;
}

// How to convolve along one axis, with the tables for it.
class OwnedAxis {
 public:
  OwnedAxis(double decay_length, int64_t radius, int64_t steps, int32_t padding, bool single) {
    if (single)
      single_tables_ = std::make_unique<OwnedTables<float>>(decay_length, static_cast<int32_t>(steps));
    else
      double_tables_ = std::make_unique<OwnedTables<double>>(decay_length, static_cast<int32_t>(steps));
    const bool further = padding == FLC_REPLICATE && steps < radius;
    axis_ = {single ? single_tables_->get() : nullptr, single ? nullptr : double_tables_->get(),
             further ? geometric_sum(decay_length, double(steps + 1), double(radius)) : 0};
  }
  const ConvolutionAxis* get() const { return &axis_; }

 private:
  std::unique_ptr<OwnedTables<float>> single_tables_;
  std::unique_ptr<OwnedTables<double>> double_tables_;
  ConvolutionAxis axis_;
};

}  // namespace
}  // namespace flc

extern "C" int32_t flc_cpu_separable_conv2d(const flc_tensor* input, double decay_length, int64_t radius,
                                            int32_t padding, void* out, int32_t out_dtype, int32_t threads) {
  using namespace flc;
  // Each step of a recursion in float adds the rounding error of a: beyond this radius double is used.
  constexpr int64_t largest_single_radius = 128;
  if (!are_images({input}) || !is_result_dtype(out_dtype) || padding < FLC_CONSTANT || padding > FLC_CIRCULAR)
    return FLC_UNSUPPORTED;
  const int64_t images = input->size[0], height = input->size[1], width = input->size[2];
  if (images * height * width == 0) return FLC_OK;
  const int64_t steps_in_row = steps_along(width, radius, padding),
                steps_in_column = steps_along(height, radius, padding),
                steps = std::max(steps_in_row, steps_in_column);
  if (!dtype_known(*input) || std::max(height, width) + steps > std::numeric_limits<int32_t>::max() / 4)
    return FLC_UNSUPPORTED;
  return caught([&] {
    const double length = usable_decay_length(decay_length);
    const bool single = out_dtype == FLC_FLOAT32 && steps <= largest_single_radius;
    const OwnedAxis along_rows(length, radius, steps_in_row, padding, single);
    const OwnedAxis along_columns(length, radius, steps_in_column, padding, single);
    prefer_huge_pages(out, images * height * width * bytes_of_result(out_dtype));
    return parallel_for(images, threads, [&](int64_t image) {
      return kernels().separable_conv2d(input, image, along_rows.get(), along_columns.get(), padding, out,
                                        out_dtype);
    });
  });
}
