// The instances of an image, class by class.
#pragma once

#include <vector>

#include "cpu/image_plan.h"

namespace flc {

struct ClassInstances {
  int64_t class_id;
  OwnedRuns runs;  // in reading order, with the ids of the instances
};

// The instances of image `image`, by ascending class. An instance of a class is where its label and the class
// meet. Without `classes` there is one class, 1; without `instances` they are the 4-connected components of
// each class, numbered in reading order. Labels <= 0 are background. Throws where memory ran out.
int32_t find_class_instances(const flc_tensor* instances, const flc_tensor* classes, int64_t image,
                             int64_t threads, std::vector<ClassInstances>& found, double* bad_value);

// The runs of equal positive labels in image `image`.
int32_t scan_image(const flc_tensor& labels, int64_t image, int64_t threads, std::vector<OwnedRuns>& parts,
                   double* bad_value);

}  // namespace flc
