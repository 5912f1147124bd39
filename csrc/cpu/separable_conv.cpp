// The separable lambda-kernel convolution.
#include <limits>
#include <memory>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/tables.h"
#include "cpu/work.h"
#include "formulas.h"

extern "C" int32_t flc_cpu_separable_conv2d(const flc_tensor* input, double decay_length, int64_t radius,
                                            int32_t padding, void* out, int32_t out_dtype, int32_t threads) {
  using namespace flc;
  // Each step of a recursion in float adds the rounding error of a: beyond this radius double is used.
  constexpr int64_t largest_single_radius = 128;
  if (!are_images({input}) || !is_result_dtype(out_dtype) || padding < FLC_CONSTANT || padding > FLC_CIRCULAR)
    return FLC_UNSUPPORTED;
  const int64_t images = input->size[0], height = input->size[1], width = input->size[2];
  if (images * height * width == 0) return FLC_OK;
  const int64_t longest = height > width ? height : width;
  // Where pixels beyond the edge are zero, nothing is further away than the image is long.
  if (padding == FLC_CONSTANT && radius >= longest) radius = longest - 1;
  if (!dtype_known(*input) || longest + radius > std::numeric_limits<int32_t>::max() / 4)
    return FLC_UNSUPPORTED;
  return caught([&] {
    const double length = usable_decay_length(decay_length);
    const bool single = out_dtype == FLC_FLOAT32 && radius <= largest_single_radius;
    std::unique_ptr<OwnedTables<float>> single_tables;
    std::unique_ptr<OwnedTables<double>> double_tables;
    if (single)
      single_tables = std::make_unique<OwnedTables<float>>(length, static_cast<int32_t>(radius));
    else
      double_tables = std::make_unique<OwnedTables<double>>(length, static_cast<int32_t>(radius));
    prefer_huge_pages(out, images * height * width * bytes_of_result(out_dtype));
    return parallel_for(images, threads, [&](int64_t image) {
      return kernels().separable_conv2d(input, image, single ? single_tables->get() : nullptr,
                                        single ? nullptr : double_tables->get(), padding, out, out_dtype);
    });
  });
}
