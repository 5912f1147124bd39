// On the host: the order of axes, the memory and the launches of the passes of nearest_places.h.
#pragma once

#include <algorithm>
#include <cmath>

#include "cuda/launch.h"
#include "cuda/nearest_along.h"

namespace flc::cuda {

constexpr int WARPS_OF_PASS = 4;
constexpr int CLASSES_BY_LAUNCHES = 16;  // further ones are left to one block for each volume

// Float errs by 6e-7 of an exponent at most: where a factor is larger than this, that shows at weights of 1.
constexpr double LARGEST_FACTOR_FOR_FLOAT = 1e6;

// What a call's tensors and spacings come to.
struct NearestVolumes {
  int64_t volumes, size[3];
  int order[3];      // of the axes, the last being rows
  double steps[3];   // spacings in units of the smallest
  double unit;
  bool fit_float, exact_in_float;  // see csrc/cpu/nearest_instances.cpp

  NearestVolumes(const flc_tensor& labels, const double spacing[3]) {
    constexpr int64_t float_counts_to = 1 << 24;
    volumes = labels.size[0];
    int count = 0;
    for (const bool wanted : {false, true})
      for (int axis = 0; axis < 3; ++axis)
        if ((labels.size[axis + 1] != 1) == wanted) order[count++] = axis;
    if (labels.size[order[2] + 1] < WARP)
      std::stable_sort(order, order + 3,
                       [&](int a, int b) { return labels.size[a + 1] < labels.size[b + 1]; });
    unit = *std::min_element(spacing, spacing + 3);
    double largest_square = 0;
    int64_t longest = 0;
    bool whole = true;
    for (int axis = 0; axis < 3; ++axis) {
      size[axis] = labels.size[order[axis] + 1];
      steps[axis] = size[axis] == 1 ? 1 : spacing[order[axis]] / unit;
      const double extent = steps[axis] * double(size[axis]);
      largest_square += extent * extent;
      longest = std::max(longest, size[axis]);
      whole = whole && steps[axis] == std::floor(steps[axis]);
    }
    fit_float = longest < float_counts_to && largest_square < 1e36;
    exact_in_float = whole && largest_square < double(float_counts_to);
  }

  int64_t strips() const { return divide_up<int64_t>(size[2], WARP); }
  int64_t strips_in_all() const { return volumes * size[0] * size[1] * strips(); }

  // Strides of a contiguous tensor [B, D, H, W], in the order of the axes.
  void contiguous(int64_t stride[4]) const {
    int64_t given[3];
    for (int axis = 0; axis < 3; ++axis) given[order[axis]] = size[axis];
    const int64_t by_axis[3] = {given[1] * given[2], given[2], 1};
    stride[0] = given[0] * given[1] * given[2];
    for (int axis = 0; axis < 3; ++axis) stride[axis + 1] = by_axis[order[axis]];
  }

  VoxelTensor tensor(const flc_tensor* given) const {
    VoxelTensor tensor{};
    if (!given) return tensor;
    tensor.data = given->data;
    tensor.dtype = given->dtype;
    tensor.stride[0] = given->stride[0];
    for (int axis = 0; axis < 3; ++axis) tensor.stride[axis + 1] = given->stride[order[axis] + 1];
    return tensor;
  }
};

// Whether ids fit 32 bits.
inline bool ids_are_small(const flc_tensor& labels) {
  return labels.dtype <= FLC_INT16 || labels.dtype == FLC_INT32 || labels.dtype == FLC_FLOAT16;
}

inline bool are_volumes(const flc_tensor& labels) {
  if (labels.axes != 4 || labels.dtype < FLC_BOOL || labels.dtype > FLC_FLOAT64) return false;
  return *std::max_element(labels.size + 1, labels.size + 4) <= int64_t(1) << 30;
}
inline bool are_volumes(const flc_tensor* optional, flc_dtype dtype) {
  return !optional || (optional->axes == 4 && optional->dtype == dtype);
}
inline bool are_spacings(const double spacing[3]) {
  return std::all_of(spacing, spacing + 3, [](double length) { return length >= 1e-30 && length <= 1e30; });
}

// Hands out memory; with none, it only counts.
class Memory {
 public:
  explicit Memory(void* begin) : begin_(static_cast<char*>(begin)) {}
  template <class T>
  T* take(int64_t count) {
    T* const taken = begin_ ? reinterpret_cast<T*>(begin_ + bytes_) : nullptr;
    bytes_ += divide_up<int64_t>(count * int64_t(sizeof(T)), 128) * 128;
    return taken;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* const begin_;
  int64_t bytes_ = 0;
};

// The passes but for what is particular to weights; their memory comes from `memory`.
template <class Real, class Id>
NearestPasses<Real, Id> passes_for(const NearestVolumes& volumes, Memory& memory) {
  NearestPasses<Real, Id> passes{};
  passes.volumes = volumes.volumes;
  passes.depth = volumes.size[0];
  passes.height = volumes.size[1];
  passes.width = volumes.size[2];
  passes.strips = volumes.strips();
  // Half of a volume at a time, for memory.
  passes.planes = sizeof(Real) == 8 ? divide_up<int64_t>(passes.depth, 2) : passes.depth;
  const int64_t strips = passes.rows() * passes.strips;
  passes.along_w = memory.take<Strip<Real, Id>>(strips);
  if (passes.depth > 1) passes.along_h = memory.take<Strip<Real, Id>>(volumes.strips_in_all());
  passes.sides = memory.take<Side<Real, Id>>(strips);
  for (int axis = 0; axis < 2; ++axis) {
    passes.fours[axis] = int32_t(divide_up<int64_t>(volumes.size[axis], 4) + 4);
    passes.squares[axis] = memory.take<FourSquares<Real>>(passes.fours[axis]);
  }
  for (int axis = 0; axis < 3; ++axis) passes.steps[axis] = Real(volumes.steps[axis]);
  return passes;
}

// A job for each warp.
template <class Arguments>
int32_t launch_jobs(void (*kernel)(Arguments), int64_t jobs, const Arguments& arguments,
                    cudaStream_t stream) {
  return launch(kernel, divide_up<int64_t>(jobs, WARPS_OF_PASS), WARPS_OF_PASS * WARP, arguments, stream);
}

// The passes along W and H, by kernels that take them in `arguments`.
template <class Arguments>
int32_t launch_first_passes(void (*along_w)(Arguments), void (*along_h)(Arguments), Arguments& arguments,
                            cudaStream_t stream) {
  auto& passes = arguments.passes;
  int32_t status = FLC_OK;
  for (passes.first_plane = 0; passes.first_plane < passes.depth && status == FLC_OK;
       passes.first_plane += passes.planes) {
    status = launch_jobs(along_w, passes.rows(), arguments, stream);
    if (status == FLC_OK && passes.depth > 1)
      status = launch_jobs(along_h, passes.jobs_along_h(), arguments, stream);
  }
  return status;
}

FLC_DEVICE int64_t job_of_warp() {
  return int64_t(blockIdx.x) * WARPS_OF_PASS + threadIdx.x / WARP;
}

// Calls function(Real(), Id()): what is computed with.
template <class Function>
auto with_types(bool in_double, bool small_ids, const Function& function) {
  if (in_double) return function(double(), int64_t());
  return small_ids ? function(float(), int32_t()) : function(float(), int64_t());
}

}  // namespace flc::cuda
