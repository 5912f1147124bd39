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
// each class, numbered in reading order. Labels <= 0 are background; so is where `ignore`, bool or null, is
// true. Throws where memory ran out.
int32_t find_class_instances(const flc_tensor* instances, const flc_tensor* classes, const flc_tensor* ignore,
                             int64_t image, int64_t threads, std::vector<ClassInstances>& found,
                             double* bad_value);

// Whether there is an instance of every id from 1 to the largest, in whatever class.
bool all_ids_present(const std::vector<ClassInstances>& found);

// The runs of equal positive labels in image `image`, but for where `ignore`, bool or null, is true.
int32_t scan_image(const flc_tensor& labels, const flc_tensor* ignore, int64_t image, int64_t threads,
                   std::vector<OwnedRuns>& parts, double* bad_value);

}  // namespace flc
