#include "cpu/class_instances.h"

#include <algorithm>
#include <utility>

#include "cpu/dispatch.h"
#include "cpu/id_numbering.h"
#include "cpu/parallel.h"
#include "cpu/work.h"

namespace flc {
namespace {

struct LabelledRun {
  Run run;
  int64_t class_id, id;
};

bool before(const Run& a, const Run& b) {
  return a.row < b.row || (a.row == b.row && a.last < b.first);
}

// The runs of all parts, in reading order, with their labels as `label`.
std::vector<LabelledRun> joined(const std::vector<OwnedRuns>& parts, int64_t LabelledRun::* label) {
  int64_t count = 0;
  for (const OwnedRuns& part : parts) count += part.size();
  std::vector<LabelledRun> runs;
  runs.reserve(count);
  for (const OwnedRuns& part : parts) {
    for (int64_t i = 0; i < part.size(); ++i) {
      runs.push_back({part.begin()[i], 1, 1});
      runs.back().*label = part.ids()[i];
    }
  }
  return runs;
}

// Where a run of either meets one of the other.
std::vector<LabelledRun> overlaps(const std::vector<LabelledRun>& instances,
                                  const std::vector<LabelledRun>& classes) {
  std::vector<LabelledRun> runs;
  runs.reserve(instances.size() + classes.size());
  for (size_t i = 0, c = 0; i < instances.size() && c < classes.size();) {
    const Run &one = instances[i].run, &other = classes[c].run;
    if (before(one, other)) {
      ++i;
    } else if (before(other, one)) {
      ++c;
    } else {
      const int32_t first = std::max(one.first, other.first), last = std::min(one.last, other.last);
      runs.push_back({{one.row, first, last, 0}, classes[c].class_id, instances[i].id});
      (one.last <= other.last ? i : c) += 1;
    }
  }
  return runs;
}

// Gives every run the id of its 4-connected component: 1 + the index of the component's first run.
void number_components(std::vector<LabelledRun>& runs) {
  std::vector<int64_t> parent(runs.size());
  const auto root_of = [&parent](int64_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  };
  for (int64_t i = 0, above = 0; i < static_cast<int64_t>(runs.size()); ++i) {
    parent[i] = i;
    const Run& run = runs[i].run;
    while (before(runs[above].run, {run.row - 1, run.first, run.first, 0})) ++above;
    for (int64_t j = above; j < i && runs[j].run.row < run.row && runs[j].run.first <= run.last; ++j) {
      if (runs[j].class_id != runs[i].class_id) continue;
      const auto [lower, higher] = std::minmax({root_of(i), root_of(j)});
      parent[higher] = lower;
    }
  }
  for (size_t i = 0; i < runs.size(); ++i) runs[i].id = root_of(i) + 1;
}

// Splits the runs by class.
void group_by_class(const std::vector<LabelledRun>& runs, std::vector<ClassInstances>& found) {
  int64_t largest_class = 0;
  for (const LabelledRun& run : runs) largest_class = std::max(largest_class, run.class_id);
  IdNumbering numbering(largest_class, static_cast<int64_t>(runs.size()));
  std::vector<std::pair<int64_t, int64_t>> sizes;  // class, number of its runs
  std::vector<int32_t> numbers(runs.size());
  for (size_t i = 0; i < runs.size(); ++i) {
    numbers[i] = numbering.number(runs[i].class_id);
    if (numbers[i] == static_cast<int32_t>(sizes.size())) sizes.push_back({runs[i].class_id, 0});
    ++sizes[numbers[i]].second;
  }
  std::vector<int32_t> ascending(sizes.size()), position(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) ascending[i] = static_cast<int32_t>(i);
  std::sort(ascending.begin(), ascending.end(), [&](int32_t a, int32_t b) { return sizes[a] < sizes[b]; });
  found.reserve(sizes.size());
  for (const int32_t number : ascending) {
    position[number] = static_cast<int32_t>(found.size());
    found.push_back({sizes[number].first, OwnedRuns(sizes[number].second)});
  }
  for (size_t i = 0; i < runs.size(); ++i) found[position[numbers[i]]].runs.append(runs[i].run, runs[i].id);
}

// Room for the runs of so many pixels that rarely has to grow.
int64_t usual_run_count(int64_t pixels) {
  return 1024 + pixels / 32;
}

}  // namespace

bool all_ids_present(const std::vector<ClassInstances>& found) {
  int64_t largest_id = 0, run_count = 0;
  for (const ClassInstances& of_class : found) {
    const OwnedRuns& runs = of_class.runs;
    run_count += runs.size();
    for (int64_t i = 0; i < runs.size(); ++i) largest_id = std::max(largest_id, runs.ids()[i]);
  }
  if (largest_id > run_count) return false;
  std::vector<bool> present(largest_id);
  for (const ClassInstances& of_class : found)
    for (int64_t i = 0; i < of_class.runs.size(); ++i) present[of_class.runs.ids()[i] - 1] = true;
  return std::find(present.begin(), present.end(), false) == present.end();
}

int32_t scan_image(const flc_tensor& labels, const flc_tensor* ignore, int64_t image, int64_t threads,
                   std::vector<OwnedRuns>& parts, double* bad_value) {
  const int32_t height = static_cast<int32_t>(labels.size[1]);
  const int32_t rows = threads <= 1 ? height : rows_per_part(height, threads);
  const int64_t count = divide_up(height, rows);
  parts.clear();
  for (int64_t part = 0; part < count; ++part) parts.emplace_back(usual_run_count(rows * labels.size[2]));
  return parallel_reading(count, threads, bad_value, [&](int64_t part, double* bad) {
    const int32_t begin = static_cast<int32_t>(part) * rows;
    return kernels().scan_rows(&labels, ignore, image, begin, std::min(begin + rows, height), false,
                               parts[part].get(), nullptr, bad);
  });
}

int32_t find_class_instances(const flc_tensor* instances, const flc_tensor* classes, const flc_tensor* ignore,
                             int64_t image, int64_t threads, std::vector<ClassInstances>& found,
                             double* bad_value) {
  std::vector<OwnedRuns> instance_parts, class_parts;
  if (instances) {
    if (const int32_t status = scan_image(*instances, ignore, image, threads, instance_parts, bad_value))
      return status;
  }
  if (classes) {
    if (const int32_t status = scan_image(*classes, ignore, image, threads, class_parts, bad_value))
      return status;
  }
  std::vector<LabelledRun> runs;
  if (classes) runs = joined(class_parts, &LabelledRun::class_id);
  if (instances) {
    std::vector<LabelledRun> instance_runs = joined(instance_parts, &LabelledRun::id);
    runs = classes ? overlaps(instance_runs, runs) : std::move(instance_runs);
  } else {
    number_components(runs);
  }
  group_by_class(runs, found);
  return FLC_OK;
}

}  // namespace flc
