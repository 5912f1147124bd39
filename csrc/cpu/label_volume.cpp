#include "cpu/label_volume.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/work.h"

namespace flc {
namespace {

constexpr int64_t LARGEST_NUMBER = std::numeric_limits<int32_t>::max();

int32_t scan(const flc_tensor& tensor, const flc_tensor* ignore, int64_t z, int32_t begin, int32_t end,
             OwnedRuns& runs, double* bad_value) {
  return kernels().scan_rows(&tensor, ignore, z, begin, end, false, runs.get(), nullptr, bad_value);
}

bool before(const Run& a, const Run& b) {
  return a.row < b.row || (a.row == b.row && a.last < b.first);
}

// The parts of the runs of instances that lie in one class, or (0) in any.
OwnedRuns of_class(const OwnedRuns& instances, const OwnedRuns& classes, int64_t only_class) {
  OwnedRuns met(instances.size() + classes.size());
  for (int64_t i = 0, c = 0; i < instances.size() && c < classes.size();) {
    const Run &one = instances.begin()[i], &other = classes.begin()[c];
    if (before(one, other)) {
      ++i;
    } else if (before(other, one)) {
      ++c;
    } else {
      if (!only_class || classes.ids()[c] == only_class)
        met.append({one.row, std::max(one.first, other.first), std::min(one.last, other.last), 0},
                   instances.ids()[i]);
      (one.last <= other.last ? i : c) += 1;
    }
  }
  return met;
}

void sort_distinct(std::vector<int64_t>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

}  // namespace

LabelVolume::LabelVolume(const VolumeTensors& tensors, int64_t volume, const double spacings[3]) {
  int order[3], count = 0;
  for (const bool wanted : {false, true})
    for (int axis = 0; axis < 3; ++axis)
      if ((tensors.labels->size[axis + 1] != 1) == wanted) order[count++] = axis;
  const auto view = [&](const flc_tensor* tensor) {
    View view;
    if (!tensor) return view;
    view.there = true;
    view.tensor = *tensor;
    view.tensor.axes = 3;
    const int64_t bytes[] = {1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8};
    view.tensor.data =
        static_cast<const char*>(tensor->data) + volume * tensor->stride[0] * bytes[tensor->dtype];
    for (int i = 0; i < 3; ++i) {
      view.tensor.size[i] = tensor->size[order[i] + 1];
      view.tensor.stride[i] = tensor->stride[order[i] + 1];
    }
    return view;
  };
  for (int i = 0; i < 3; ++i) {
    size[i] = tensors.labels->size[order[i] + 1];
    spacing[i] = spacings[order[i]];
  }
  labels_ = view(tensors.labels);
  classes_ = view(tensors.classes);
  foreground_ = view(tensors.foreground);
  ignore_ = view(tensors.ignore);
}

// Of few rows at a time: a checkerboard has as many runs as voxels.
int32_t LabelVolume::find_distinct(const View& view, const flc_tensor* ignore, int64_t threads,
                                   std::vector<int64_t>& found, double* bad_value) const {
  constexpr int32_t rows = 64;
  const int64_t parts = divide_up(size[1], rows);
  std::mutex joining;
  return parallel_reading(size[0] * parts, threads, bad_value, [&](int64_t job, double* bad) {
    return caught([&] {
      const int32_t begin = static_cast<int32_t>(job % parts) * rows;
      OwnedRuns runs;
      const int32_t end = static_cast<int32_t>(std::min<int64_t>(size[1], begin + int64_t(rows)));
      const int32_t status = scan(view.tensor, ignore, job / parts, begin, end, runs, bad);
      if (status != FLC_OK) return status;
      std::vector<int64_t> here(runs.ids(), runs.ids() + runs.size());
      sort_distinct(here);
      const std::lock_guard<std::mutex> lock(joining);
      std::vector<int64_t> joined;
      joined.reserve(found.size() + here.size());
      std::set_union(found.begin(), found.end(), here.begin(), here.end(), std::back_inserter(joined));
      found.swap(joined);
      return status;
    });
  });
}

int32_t LabelVolume::number_ids(int64_t threads, double* bad_value) {
  const int32_t status = find_distinct(labels_, ignore_.get(), threads, ids_, bad_value);
  if (status != FLC_OK) return status;
  return static_cast<int64_t>(ids_.size()) <= LARGEST_NUMBER ? FLC_OK : FLC_UNSUPPORTED;
}

int32_t LabelVolume::find_classes(int64_t threads, std::vector<int64_t>& found, double* bad_value) const {
  return find_distinct(classes_, ignore_.get(), threads, found, bad_value);
}

void LabelVolume::fill_kind(const OwnedRuns& runs, int kind, uint8_t* plane) const {
  for (const Run& run : runs)
    std::memset(plane + run.row * size[2] + run.first, kind, run.last - run.first + 1);
}

int32_t LabelVolume::read(int64_t z, int32_t begin, int32_t end, int64_t only_class, uint8_t* kinds,
                          OwnedRuns& runs, double* bad_value) const {
  int32_t status = scan(labels_.tensor, ignore_.get(), z, begin, end, runs, bad_value);
  if (status != FLC_OK) return status;
  uint8_t* const plane = kinds ? kinds + z * size[1] * size[2] : nullptr;
  if (plane) std::memset(plane + begin * size[2], BACKGROUND, (end - begin) * size[2]);
  if (classes_.there) {
    OwnedRuns classes;
    status = scan(classes_.tensor, ignore_.get(), z, begin, end, classes, bad_value);
    if (status != FLC_OK) return status;
    if (plane && !foreground_.there) fill_kind(of_class(runs, classes, 0), FOREGROUND, plane);
    runs = of_class(runs, classes, only_class);
  } else if (plane && !foreground_.there) {
    fill_kind(runs, FOREGROUND, plane);
  }
  for (const auto& [view, kind] : {std::pair(&foreground_, FOREGROUND), std::pair(&ignore_, IGNORED)}) {
    if (!plane || !view->there) continue;
    OwnedRuns positive;
    status = scan(view->tensor, nullptr, z, begin, end, positive, bad_value);
    if (status != FLC_OK) return status;
    fill_kind(positive, kind, plane);
  }
  for (int64_t i = 0; i < runs.size(); ++i) {
    int64_t number = runs.ids()[i];
    if (!ids_.empty())
      number = std::lower_bound(ids_.begin(), ids_.end(), number) - ids_.begin() + 1;
    else if (number > LARGEST_NUMBER)
      return IDS_NEED_NUMBERS;
    runs.begin()[i].instance = static_cast<int32_t>(number);
  }
  return FLC_OK;
}

}  // namespace flc
