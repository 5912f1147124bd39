// Shapes that many small instances have in common.
//
// What an instance adds to the pixels around it depends on its shape and on where they lie from it alone.
// Where thousands of specks crowd, it is found once for each shape (see simd/stamps.h).
#pragma once

#include <vector>

#include "cpu/plan.h"

namespace flc {

// The shapes that are common enough for `bytes_per_shape` each to pay, and Instance::shape of the instances
// that have one of them. Empty where instances are not so crowded that it would matter.
std::vector<Shape> common_shapes(std::vector<Instance>& instances, const Run* runs, int32_t height,
                                 int32_t width, int32_t reach, int64_t bytes_per_shape);

}  // namespace flc
