// Labels of volumes: what stands in their rows.
#pragma once

#include <vector>

#include "cpu/image_plan.h"

namespace flc {

// Tensors [B, D, H, W], null where there is none; they mean what they do in flc_cpu_weight_map.
struct VolumeTensors {
  const flc_tensor *labels, *classes, *foreground, *ignore;
};

// One of the volumes. Axes of one voxel come first: memory is the same, and rows are as long as they can be.
class LabelVolume {
 public:
  LabelVolume(const VolumeTensors& tensors, int64_t volume, const double spacing[3]);

  int64_t size[3];
  double spacing[3];

  int64_t voxels() const { return size[0] * size[1] * size[2]; }

  // Numbers all ids from 1 on, ascending. Without it they are their own numbers, as far as these go.
  int32_t number_ids(int64_t threads, double* bad_value);
  // number - 1 -> id; null: numbers are ids.
  const int64_t* ids() const { return ids_.empty() ? nullptr : ids_.data(); }

  // The classes that occur, ascending.
  int32_t find_classes(int64_t threads, std::vector<int64_t>& found, double* bad_value) const;

  // A status beside those of flc_status: an id is no number.
  static constexpr int32_t IDS_NEED_NUMBERS = -1;

  // The runs of rows [begin, end) of a plane, with the numbers of their instances: of one class, or (0) of all.
  // Fills in `kinds`, one for each voxel of the volume, where not null.
  int32_t read(int64_t z, int32_t begin, int32_t end, int64_t only_class, uint8_t* kinds, OwnedRuns& runs,
               double* bad_value) const;

 private:
  struct View {
    flc_tensor tensor;  // [D, H, W]
    bool there = false;
    const flc_tensor* get() const { return there ? &tensor : nullptr; }
  };
  int32_t find_distinct(const View& view, const flc_tensor* ignore, int64_t threads,
                        std::vector<int64_t>& found, double* bad_value) const;
  void fill_kind(const OwnedRuns& runs, int kind, uint8_t* plane) const;

  View labels_, classes_, foreground_, ignore_;
  std::vector<int64_t> ids_;
};

}  // namespace flc
