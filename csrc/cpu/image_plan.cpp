#include "cpu/image_plan.h"

#include <algorithm>
#include <cstdint>
#include <new>

#include "cpu/id_numbering.h"
#include "cpu/parallel.h"
#include "cpu/pieces.h"
#include "cpu/shapes.h"
#include "cpu/work.h"
#include "rules.h"

namespace flc {

OwnedRuns::OwnedRuns(int64_t capacity) {
  runs_.capacity = capacity;
  runs_.runs = static_cast<Run*>(aligned_allocate(capacity * int64_t(sizeof(Run))));
  runs_.ids = static_cast<int64_t*>(aligned_allocate(capacity * int64_t(sizeof(int64_t))));
  if (runs_.runs && runs_.ids) return;
  aligned_free(runs_.runs);
  aligned_free(runs_.ids);
  throw std::bad_alloc();
}

OwnedPlan::OwnedPlan(std::vector<OwnedRuns>& parts, int32_t height, int32_t width,
                     const CallSettings& settings, int64_t threads) {
  find_instances(parts, settings, threads);
  finish(height, width, settings, static_cast<int64_t>(instances_.size()) == largest_id_, threads);
}

OwnedPlan::OwnedPlan(std::vector<OwnedRuns>& parts, int32_t height, int32_t width,
                     const CallSettings& settings, int64_t threads, bool all_present) {
  find_instances(parts, settings, threads);
  finish(height, width, settings, all_present, threads);
}

OwnedPlan::OwnedPlan(const std::vector<OwnedRuns>& regions, const std::vector<ValueRange>& values,
                     const flc_tensor& masks, const flc_tensor* ignore, const CallSettings& settings,
                     int64_t threads) {
  plan_.ignore = ignore;
  const int32_t height = static_cast<int32_t>(masks.size[1]), width = static_cast<int32_t>(masks.size[2]);
  int64_t run_count = 0;
  for (const OwnedRuns& region : regions) run_count += region.size();
  instance_runs_.reserve(run_count);
  run_count = 0;
  bool all_present = true;
  for (size_t region = 0; region < regions.size(); ++region) {
    if (!regions[region].size()) {
      all_present = false;
      continue;
    }
    Instance instance{};
    instance.first_run = run_count;
    std::copy(regions[region].begin(), regions[region].end(), instance_runs_.data() + run_count);
    instance.last_run = run_count += regions[region].size();
    if (values[region].smallest != 1 || values[region].largest != 1) instance.soft_mask = &masks;
    instance.region = static_cast<int64_t>(region);
    instances_.push_back(instance);
  }
  measure_all(0, threads, [&](Instance& instance) { measure(instance, settings, values[instance.region]); });
  finish(height, width, settings, all_present, threads);
}

void OwnedPlan::find_instances(std::vector<OwnedRuns>& parts, const CallSettings& settings, int64_t threads) {
  number_instances(parts);
  group_runs(parts);
  measure_all(0, threads, [&](Instance& instance) { measure(instance, settings, {1, 1}); });
}

void OwnedPlan::number_instances(std::vector<OwnedRuns>& parts) {
  int64_t run_count = 0;
  for (const OwnedRuns& part : parts) {
    run_count += part.size();
    for (int64_t i = 0; i < part.size(); ++i) largest_id_ = std::max(largest_id_, part.ids()[i]);
  }
  IdNumbering numbering(largest_id_, run_count);
  for (OwnedRuns& part : parts) {
    for (int64_t i = 0; i < part.size(); ++i) {
      const int32_t number = numbering.number(part.ids()[i]);
      part.begin()[i].instance = number;
      if (number == static_cast<int32_t>(instances_.size())) instances_.emplace_back();
      ++instances_[number].last_run;
    }
  }
}

// instance_runs: the runs by instance, in reading order within each.
void OwnedPlan::group_runs(const std::vector<OwnedRuns>& parts) {
  int64_t next = 0;
  for (Instance& instance : instances_) {
    instance.first_run = next;
    next += instance.last_run;  // so far the number of its runs
    instance.last_run = instance.first_run;
  }
  instance_runs_.reserve(next);
  for (const OwnedRuns& part : parts)
    for (const Run& run : part) instance_runs_[instances_[run.instance].last_run++] = run;
}

template <class Measure>
void OwnedPlan::measure_all(int64_t begin, int64_t threads, const Measure& measure) {
  constexpr int64_t instances_per_job = 512;
  const int64_t count = static_cast<int64_t>(instances_.size()) - begin;
  parallel_for(divide_up(count, instances_per_job), threads, [&](int64_t job) {
    const int64_t end = std::min(count, (job + 1) * instances_per_job);
    for (int64_t i = job * instances_per_job; i < end; ++i) measure(instances_[begin + i]);
    return FLC_OK;
  });
}

// The bounding box of an instance, and how far, in steps of a, the largest term of any of its sums may
// decline: what decides whether floats can hold the sums.
void OwnedPlan::measure(Instance& instance, const CallSettings& settings, ValueRange values) const {
  const Run* const begin = instance_runs_.data() + instance.first_run;
  const Run* const end = instance_runs_.data() + instance.last_run;
  instance.top = begin->row;
  instance.bottom = end[-1].row;
  instance.left = begin->first;
  instance.right = begin->last;
  for (const Run* run = begin; run != end; ++run) {
    instance.left = std::min(instance.left, run->first);
    instance.right = std::max(instance.right, run->last);
  }
  const int64_t radius = settings.get().radius;
  const int64_t height = instance.bottom - instance.top, width = instance.right - instance.left;
  if (instance.soft_mask) {
    instance.arithmetic = settings.arithmetic(2 * radius, values.smallest, values.largest);
    return;
  }
  int64_t steps = std::min(height, radius) + std::min(width, radius);
  if (width <= radius && settings.arithmetic(steps + CHUNK - 1) != settings.arithmetic(0)) {
    // Every column of the box sees every row whole. Row by row, the widest gap between a column of the box
    // and the row's pixels; beside the box, where the window may hide a row, only rows that reach further out
    // than all rows before them (from the top, from the bottom) can be the first in sight.
    int64_t widest_gap = 0, records = 0;
    int32_t expected_row = instance.top;
    int32_t left = INT32_MAX, right = INT32_MIN;
    bool without_gaps = true;
    for (const Run* run = begin; run != end;) {
      const int32_t row = run->row;
      const int32_t row_left = run->first;
      int32_t row_right = run->last;
      int64_t gap = row_left - instance.left;
      for (++run; run != end && run->row == row; ++run) {
        gap = std::max<int64_t>(gap, run->first - row_right);
        row_right = run->last;
      }
      gap = std::max<int64_t>(gap, instance.right - row_right);
      widest_gap = std::max(widest_gap, gap);
      without_gaps &= row == expected_row;
      expected_row = row + 1;
      if (row_left < left)
        records = std::max<int64_t>(records, row - instance.top + row_left - instance.left);
      if (row_right > right)
        records = std::max<int64_t>(records, row - instance.top + instance.right - row_right);
      left = std::min(left, row_left);
      right = std::max(right, row_right);
    }
    left = INT32_MAX, right = INT32_MIN;
    for (const Run* run = end; run-- != begin;) {
      if (run->first < left)
        records = std::max<int64_t>(records, instance.bottom - run->row + run->first - instance.left);
      if (run->last > right)
        records = std::max<int64_t>(records, instance.bottom - run->row + instance.right - run->last);
      left = std::min(left, run->first);
      right = std::max(right, run->last);
    }
    if (without_gaps) steps = std::min(steps, std::max({height, widest_gap, records}));
  }
  instance.arithmetic = settings.arithmetic(steps + CHUNK - 1);
}

// Whether the border term is alive and each instance has a say in it.
bool OwnedPlan::asks_everybody(const CallSettings& settings) const {
  return plan_.border_area.top <= plan_.border_area.bottom &&
         plan_.border_area.left <= plan_.border_area.right &&
         with_border(settings.get().border, false, [](auto border) { return border.EVERY_INSTANCE; });
}

// Where instances in parts are out of reach: the zones without a part, and of the others what is out of their
// parts' reach. Instances from first_part on are parts.
void OwnedPlan::note_out_of_reach(const std::vector<Rectangle>& empty, size_t first_part, int32_t reach) {
  const Rectangle& area = plan_.border_area;
  constexpr Rectangle nothing{0, -1, 0, -1};
  std::vector<Rectangle> found;
  for (const Rectangle& zone : empty) subtract(zone, nothing, area, found);
  for (size_t i = first_part; i < instances_.size(); ++i) {
    const Instance& part = instances_[i];
    subtract(part.zone, {part.top - reach, part.bottom + reach, part.left - reach, part.right + reach}, area,
             found);
  }
  std::vector<int64_t> next(plan_.width / BLOCK + 2, 0);
  for (const Rectangle& rectangle : found)
    for (int32_t block = rectangle.left / BLOCK; block <= rectangle.right / BLOCK; ++block) ++next[block + 1];
  for (size_t block = 1; block < next.size(); ++block) next[block] += next[block - 1];
  out_of_reach_begin_ = next;
  out_of_reach_.resize(next.back());
  for (const Rectangle& rectangle : found)
    for (int32_t block = rectangle.left / BLOCK; block <= rectangle.right / BLOCK; ++block)
      out_of_reach_[next[block]++] = rectangle;
  plan_.out_of_reach = out_of_reach_.data();
  plan_.out_of_reach_begin = out_of_reach_begin_.data();
}

// Cuts instances that are better cut into parts.
void OwnedPlan::cut_into_parts(int32_t height, int32_t width, const CallSettings& settings, int64_t threads) {
  Pieces pieces(height, width, settings.get().halo, settings.distance().uses_tables);
  size_t kept = 0;
  int64_t run_count = 0;
  for (const Instance& instance : instances_) {
    run_count = std::max(run_count, instance.last_run);
    const Run* const runs = instance_runs_.data();
    if (instance.soft_mask || !pieces.cut(instance, runs + instance.first_run, runs + instance.last_run))
      instances_[kept++] = instance;
  }
  if (pieces.parts.empty()) return;
  instances_.resize(kept);
  if (kept == 0) {
    instance_runs_.swap(pieces.runs.array());
    run_count = 0;
  } else {
    instance_runs_.grow(run_count, run_count + pieces.runs.size());
    std::copy_n(pieces.runs.array().data(), pieces.runs.size(), instance_runs_.data() + run_count);
  }
  for (Instance& part : pieces.parts) {
    part.first_run += run_count;
    part.last_run += run_count;
    part.is_part = true;
  }
  instances_.insert(instances_.end(), pieces.parts.begin(), pieces.parts.end());
  measure_all(static_cast<int64_t>(kept), threads, [&](Instance& part) {
    measure(part, settings, {1, 1});
    part.dense = part.last_run - part.first_run > 4 * (part.bottom - part.top + int64_t(1));
    if (part.dense) {
      part.arithmetic = std::max(part.arithmetic, DOUBLE);
    } else if (part.arithmetic != SINGLE &&
               always_near({std::max(part.zone.top, 0), std::min(part.zone.bottom, height - 1),
                            std::max(part.zone.left, 0), std::min(part.zone.right, width - 1)},
                           instance_runs_.data() + part.first_run, instance_runs_.data() + part.last_run,
                           settings.get().radius, settings.single_steps())) {
      part.arithmetic = SINGLE;
    }
  });
  if (asks_everybody(settings)) note_out_of_reach(pieces.empty, kept, settings.get().reach);
}

void OwnedPlan::finish(int32_t height, int32_t width, const CallSettings& settings, bool all_present,
                       int64_t threads) {
  plan_.height = height;
  plan_.width = width;
  plan_.border_area = border_area(settings, all_present);
  cut_into_parts(height, width, settings, threads);
  if (!asks_everybody(settings)) {
    shapes_ = common_shapes(instances_, instance_runs_.data(), height, width, settings.get().reach,
                            settings.bytes_per_stamp());
  }

  // By left edge, ties by index: a counting sort.
  const int32_t reach = settings.get().reach;
  const auto place = [reach](const Instance& instance) {
    return instance.is_part ? std::max<int64_t>(instance.left, int64_t(instance.zone.left) + reach)
                            : instance.left;
  };
  int64_t last = 0;
  for (const Instance& instance : instances_) {
    uses_[instance.arithmetic] = true;
    last = std::max<int64_t>(last, place(instance));
  }
  std::vector<int64_t> next(last + 2, 0);
  for (const Instance& instance : instances_) ++next[place(instance) + 1];
  for (int64_t x = 0; x < last; ++x) next[x + 1] += next[x];
  left_to_right_.resize(instances_.size());
  for (size_t i = 0; i < instances_.size(); ++i)
    left_to_right_[next[place(instances_[i])]++] = static_cast<int32_t>(i);
  if (!shapes_.empty()) take_specks();
  plan_.instances = instances_.data();
  plan_.left_to_right = left_to_right_.data();
  plan_.instance_count = static_cast<int64_t>(left_to_right_.size());
  plan_.specks = specks_.data();
  plan_.speck_count = static_cast<int64_t>(specks_.size());
  plan_.shapes = shapes_.data();
  plan_.shape_count = static_cast<int64_t>(shapes_.size());
  plan_.instance_runs = instance_runs_.data();
}

// Moves instances of a common shape from left_to_right to specks.
void OwnedPlan::take_specks() {
  size_t kept = 0;
  for (const int32_t i : left_to_right_) {
    const Instance& instance = instances_[i];
    if (instance.shape < 0)
      left_to_right_[kept++] = i;
    else
      specks_.push_back({instance.top, instance.left, instance.shape});
  }
  left_to_right_.resize(kept);
}

// Where the border rule finds the instances that it needs within reach.
Rectangle OwnedPlan::border_area(const CallSettings& settings, bool all_present) const {
  constexpr Rectangle nowhere{0, -1, 0, -1};
  return with_border(settings.get().border, nowhere, [&](auto border) {
    using Border = decltype(border);
    if (static_cast<int64_t>(instances_.size()) < Border::FEWEST_INSTANCES ||
        (Border::EVERY_INSTANCE && !all_present))
      return nowhere;
    Rectangle area{0, plan_.height - 1, 0, plan_.width - 1};
    if constexpr (Border::EVERY_INSTANCE) {  // where the boxes of all, widened by the reach, overlap
      const int32_t reach = settings.get().reach;
      for (const Instance& instance : instances_) {
        area = {std::max(area.top, instance.top - reach), std::min(area.bottom, instance.bottom + reach),
                std::max(area.left, instance.left - reach), std::min(area.right, instance.right + reach)};
      }
    }
    return area;
  });
}

}  // namespace flc
