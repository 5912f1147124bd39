// What the kernels need to know of an image: its instances with their runs, in the order they are worked on.
#pragma once

#include <utility>
#include <vector>

#include "cpu/plan.h"
#include "cpu/scratch.h"
#include "cpu/tables.h"

namespace flc {

class OwnedRuns {
 public:
  OwnedRuns() = default;
  explicit OwnedRuns(int64_t capacity);  // for as many calls of append; throws where memory ran out
  OwnedRuns(OwnedRuns&& other) noexcept : runs_(other.runs_) { other.runs_ = {}; }
  OwnedRuns(const OwnedRuns&) = delete;
  OwnedRuns& operator=(OwnedRuns&& other) noexcept {
    std::swap(runs_, other.runs_);
    return *this;
  }
  ~OwnedRuns() {
    aligned_free(runs_.runs);
    aligned_free(runs_.ids);
  }
  void append(const Run& run, int64_t id) {
    runs_.runs[runs_.size] = run;
    runs_.ids[runs_.size++] = id;
  }
  LabelRuns* get() { return &runs_; }
  Run* begin() const { return runs_.runs; }
  Run* end() const { return runs_.runs + runs_.size; }
  int64_t size() const { return runs_.size; }
  const int64_t* ids() const { return runs_.ids; }

 private:
  LabelRuns runs_{};
};

class OwnedPlan {
 public:
  // From an image's label runs, cut into consecutive parts. Instances are numbered by first appearance; where
  // the border rule asks every instance they are the ids 1..max, present or not.
  OwnedPlan(std::vector<OwnedRuns>& parts, int32_t height, int32_t width, const CallSettings& settings,
            int64_t threads);

  // From the runs of one class among others; whether the ids 1..max of the image are all present is known.
  OwnedPlan(std::vector<OwnedRuns>& parts, int32_t height, int32_t width, const CallSettings& settings,
            int64_t threads, bool all_present);

  // From the runs of region masks: one instance for each region that has any.
  OwnedPlan(const std::vector<OwnedRuns>& regions, const std::vector<ValueRange>& values,
            const flc_tensor& masks, const flc_tensor* ignore, const CallSettings& settings, int64_t threads);

  const ImagePlan& get() const { return plan_; }
  bool uses(Arithmetic arithmetic) const { return uses_[arithmetic]; }

 private:
  void find_instances(std::vector<OwnedRuns>& parts, const CallSettings& settings, int64_t threads);
  void number_instances(std::vector<OwnedRuns>& parts);
  void group_runs(const std::vector<OwnedRuns>& parts);
  template <class Measure>
  void measure_all(int64_t begin, int64_t threads, const Measure& measure);
  void measure(Instance& instance, const CallSettings& settings, ValueRange values) const;
  void cut_into_parts(int32_t height, int32_t width, const CallSettings& settings, int64_t threads);
  void finish(int32_t height, int32_t width, const CallSettings& settings, bool all_present, int64_t threads);
  bool asks_everybody(const CallSettings& settings) const;
  void take_specks();
  void note_out_of_reach(const std::vector<Rectangle>& empty, size_t first_part, int32_t reach);
  Rectangle border_area(const CallSettings& settings, bool all_present) const;

  ImagePlan plan_{};
  ScratchArray<Run> instance_runs_;
  std::vector<Instance> instances_;
  std::vector<int32_t> left_to_right_;
  std::vector<Shape> shapes_;
  std::vector<Speck> specks_;
  std::vector<Rectangle> out_of_reach_;
  std::vector<int64_t> out_of_reach_begin_;
  int64_t largest_id_ = 0;
  bool uses_[ARITHMETICS] = {};
};

}  // namespace flc
