// Labels to weights by the two nearest instances alone.
//
// Where there are classes, the passes run for one class after the other. How many there are the host does not
// know: it queues the passes for CLASSES_BY_LAUNCHES of them, which end at once where there are fewer, and
// then one block for each volume, which goes through the classes that are left.
#include "cuda/compose.h"
#include "cuda/nearest_launches.h"

namespace flc::cuda {

template <class Real>
struct NearestWeights {
  Real one, zero, fall, bwf, foreground_exponent, border_exponent;
  Real near_limit, fall_limit, pair_limit;  // the first two are squares
  bool with_border, border_everywhere, out_is_double;
  void* out;  // [B, D, H, W]
  int64_t stride[4];
};

template <class Real, class Id>
struct NearestWeightsArguments {
  NearestPasses<Real, Id> passes;
  NearestWeights<Real> weights;
};

constexpr unsigned long long NO_CLASS = 1ull << 32;  // what stands for class c is less by c

// The class of a launch; 0: none. Where it is the first one, the passes run all the same.
template <class Real, class Id>
FLC_DEVICE int32_t class_of_launch(const NearestPasses<Real, Id>& passes) {
  if (!passes.by_class()) return 0;
  const unsigned long long found = passes.found_classes[passes.slot];
  return found ? int32_t(NO_CLASS - found) : 0;
}
template <class Real, class Id>
FLC_DEVICE bool is_idle(const NearestPasses<Real, Id>& passes) {
  return passes.slot > 0 && passes.found_classes[passes.slot] == 0;
}

// The smallest class above `above` at an instance, of voxels first, first + step, ... before `end`; 2^32 - 1:
// there is none. Of each thread.
template <class Real, class Id>
FLC_DEVICE uint32_t next_class(const NearestPasses<Real, Id>& passes, int32_t above, int64_t first,
                               int64_t step, int64_t end) {
  uint32_t next = ~0u;
  for (int64_t i = first; i < end; i += step) {
    const int64_t x = i % passes.width, row = i / passes.width, y = row % passes.height;
    const int64_t plane = row / passes.height, z = plane % passes.depth, volume = plane / passes.depth;
    const auto index = [&](const VoxelTensor& tensor) {
      return volume * tensor.stride[0] + z * tensor.stride[1] + y * tensor.stride[2] + x * tensor.stride[3];
    };
    const int32_t found = class_at(passes.classes, index(passes.classes));
    if (found > above && uint32_t(found) < next && id_at<Id>(passes.labels, index(passes.labels)) > 0)
      next = found;
  }
  return next;
}

constexpr int THREADS_OF_CLASSES = 256;

template <class Real, class Id>
__global__ void __launch_bounds__(THREADS_OF_CLASSES)
    find_class_kernel(const __grid_constant__ NearestWeightsArguments<Real, Id> arguments) {
  const auto& passes = arguments.passes;
  auto* const found = const_cast<unsigned long long*>(passes.found_classes);
  if (passes.slot > 0 && found[passes.slot - 1] == 0) return;
  const int32_t above = passes.slot > 0 ? int32_t(NO_CLASS - found[passes.slot - 1]) : 0;
  const uint32_t next = warp_min(next_class(passes, above, int64_t(blockIdx.x) * blockDim.x + threadIdx.x,
                                            int64_t(gridDim.x) * blockDim.x, passes.voxels()));
  if (threadIdx.x % WARP == 0 && next != ~0u) atomicMax(found + passes.slot, NO_CLASS - next);
}

template <class Real, class Id>
__global__ void __launch_bounds__(WARPS_OF_PASS* WARP, sizeof(Real) == 8 ? 2 : 4)
    weigh_rows_kernel(const __grid_constant__ NearestWeightsArguments<Real, Id> arguments) {
  const auto& passes = arguments.passes;
  if (is_idle(passes)) return;
  if (blockIdx.x == 0) fill_squares(passes);
  const int64_t row = job_of_warp();
  if (row < passes.rows())
    scan_row<false>(passes, passes.first_plane, row, class_of_launch(passes), threadIdx.x % WARP);
}

template <class Real, class Id>
__global__ void __launch_bounds__(WARPS_OF_PASS* WARP, sizeof(Real) == 8 ? 2 : 4)
    weigh_planes_kernel(const __grid_constant__ NearestWeightsArguments<Real, Id> arguments) {
  const auto& passes = arguments.passes;
  if (is_idle(passes)) return;
  const int64_t index = job_of_warp();
  if (index < passes.jobs_along_h())
    pass_along_h<Real, Id, false>(passes, passes.first_plane, index, arguments.weights.with_border,
                                  threadIdx.x % WARP);
}

// The weights of the voxels of a job; `on_top` of what other classes added.
template <class Real, class Id>
class JobWeights {
  using Search = NearestAlong<Real, Id, false>;
  static constexpr int VOXELS = Search::VOXELS;

 public:
  FLC_DEVICE JobWeights(const NearestWeightsArguments<Real, Id>& arguments, int lane)
      : passes_(arguments.passes), weights_(arguments.weights), last_(arguments.passes), lane_(lane) {}

  FLC_DEVICE int64_t jobs_of_volume() const { return last_.jobs(1); }

  FLC_DEVICE void weigh(int64_t index, bool on_top) const {
    const Job job = job_of(index, last_.inner, last_.count);
    const bool in_row = last_.in_row(job, passes_, lane_);
    Search search(last_.column(job), job.begin, lane_);
    search.find_near(weights_.near_limit);
    // What a foreground of its own and what is ignored change, bit by bit.
    uint32_t inside = 0, ignored = 0;
    if (passes_.foreground.data) {
      inside = bits_where(job, in_row, search, passes_.foreground,
                          [&](int64_t at) { return flag_at(passes_.foreground, at); });
    } else if (passes_.by_class()) {
      inside = bits_where(job, in_row, search, passes_.labels,
                          [&](int64_t at) { return id_at<Id>(passes_.labels, at) > 0; });
      inside &= bits_where(job, in_row, search, passes_.classes,
                           [&](int64_t at) { return class_at(passes_.classes, at) > 0; });
    } else {
#pragma unroll
      for (int i = 0; i < VOXELS; ++i) inside |= search.near[i] == 0 ? 1u << i : 0u;
    }
    if (passes_.ignore.data) {
      ignored = bits_where(job, in_row, search, passes_.ignore,
                           [&](int64_t at) { return flag_at(passes_.ignore, at); });
    }
    const uint32_t bordered = weights_.border_everywhere ? ~ignored : ~(inside | ignored);
    if (weights_.with_border) {
      Real farthest = 0;
#pragma unroll
      for (int i = 0; i < VOXELS; ++i) {
        search.second[i] = second_limit(search, bordered, i);
        farthest = larger(farthest, search.second[i]);
      }
      if (__any_sync(ALL_LANES, farthest > 0)) search.find_second();
    }
    if (!in_row) return;
    int64_t voxel = last_.first_voxel(job, passes_.strips, lane_, weights_.stride);
#pragma unroll
    for (int i = 0; i < VOXELS; ++i, voxel += weights_.stride[last_.axis]) {
      if (!search.there(i)) return;
      const bool is_inside = inside >> i & 1, is_ignored = ignored >> i & 1;
      Real weight = is_ignored ? Real(0) : is_inside ? weights_.one : weights_.zero;
      if (on_top) weight = weight_at(voxel);
      if (!is_inside && !is_ignored && search.near[i] < weights_.fall_limit)
        weight += weights_.fall * exp2_of(weights_.foreground_exponent * search.near[i]);
      if (weights_.with_border) {
        const Real distance = sqrt_of(search.near[i]), room = weights_.pair_limit - distance;
        const Real both = distance + sqrt_of(search.second[i]);
        if (search.second[i] >= 0 && search.second[i] < room * room)
          weight += weights_.bwf * exp2_of(weights_.border_exponent * (both * both));
      }
      store_weight(weights_.out, weights_.out_is_double, voxel, weight);
    }
  }

 private:
  // The square below which a second instance adds something to the voxel, given the first one; -1: none does.
  FLC_DEVICE Real second_limit(const Search& search, uint32_t bordered, int i) const {
    const Real distance = sqrt_of(search.near[i]), room = weights_.pair_limit - distance;
    return (bordered >> i & 1) && search.id[i] > 0 && distance < room ? room * room : Real(-1);
  }

  template <class Test>
  FLC_DEVICE uint32_t bits_where(const Job& job, bool in_row, const Search& search, const VoxelTensor& tensor,
                                 const Test& test) const {
    uint32_t bits = 0;
    int64_t voxel = last_.first_voxel(job, passes_.strips, lane_, tensor.stride);
    for (int i = 0; i < VOXELS; ++i, voxel += tensor.stride[last_.axis])
      if (in_row && search.there(i) && test(voxel)) bits |= 1u << i;
    return bits;
  }

  FLC_DEVICE Real weight_at(int64_t voxel) const {
    return weights_.out_is_double ? Real(static_cast<const double*>(weights_.out)[voxel])
                                  : Real(static_cast<const float*>(weights_.out)[voxel]);
  }

  const NearestPasses<Real, Id>& passes_;
  const NearestWeights<Real>& weights_;
  const LastPass<Real, Id> last_;
  const int lane_;
};

template <class Real, class Id>
__global__ void __launch_bounds__(WARPS_OF_PASS* WARP, sizeof(Real) == 8 ? 2 : 4)
    weigh_volumes_kernel(const __grid_constant__ NearestWeightsArguments<Real, Id> arguments) {
  const auto& passes = arguments.passes;
  if (is_idle(passes)) return;
  const JobWeights<Real, Id> job(arguments, threadIdx.x % WARP);
  const int64_t index = job_of_warp();
  if (index < job.jobs_of_volume() * passes.volumes) job.weigh(index, passes.slot > 0);
}

constexpr int WARPS_OF_FURTHER = 8;

// All passes of a volume, for each class behind those that were launched for.
template <class Real, class Id>
__global__ void __launch_bounds__(WARPS_OF_FURTHER* WARP, 1)
    weigh_further_classes_kernel(const __grid_constant__ NearestWeightsArguments<Real, Id> arguments) {
  __shared__ uint32_t of_warps[WARPS_OF_FURTHER];
  const auto& passes = arguments.passes;
  const unsigned long long found = passes.found_classes[CLASSES_BY_LAUNCHES - 1];
  if (found == 0) return;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int64_t volume = blockIdx.x;
  const JobWeights<Real, Id> job(arguments, lane);
  const auto for_jobs = [&](int64_t count, const auto& function) {
    for (int64_t i = warp; i < count; i += WARPS_OF_FURTHER) function(volume * count + i);
    __syncthreads();
  };
  for (int32_t last = int32_t(NO_CLASS - found);;) {
    const int64_t voxels = passes.voxels() / passes.volumes, begin = volume * voxels;
    uint32_t next = warp_min(next_class(passes, last, begin + threadIdx.x, blockDim.x, begin + voxels));
    if (lane == 0) of_warps[warp] = next;
    __syncthreads();
    for (int i = 0; i < WARPS_OF_FURTHER; ++i) next = smaller(next, of_warps[i]);
    if (next == ~0u) return;
    last = int32_t(next);
    for (int64_t first = 0; first < passes.depth; first += passes.planes) {
      for_jobs(passes.planes * passes.height,
               [&](int64_t row) { scan_row<false>(passes, first, row, last, lane); });
      if (passes.depth > 1) {
        for_jobs(passes.jobs_along_h() / passes.volumes, [&](int64_t index) {
          pass_along_h<Real, Id, false>(passes, first, index, arguments.weights.with_border, lane);
        });
      }
    }
    for_jobs(job.jobs_of_volume(), [&](int64_t index) { job.weigh(index, true); });
  }
}

// --------------------------------------------------------------------------------------------- on the host

template <class Real>
static NearestWeights<Real> weights_for(const NearestVolumes& volumes, const flc_nearest_params& params,
                                        Real& limit, Real& second_limit) {
  const double unit = volumes.unit, largest = 1e18;
  const double fall_limit = params.fall != 0 ? std::min(params.limit / unit, largest) : 0;
  const double pair_limit = params.bwf != 0 ? std::min(params.pair_limit / unit, largest) : 0;
  const auto exponent = [&](double given) { return Real(-std::clamp(-given * unit * unit, 1e-30, 1e30)); };
  const auto square = [](double x) { return Real(x) * Real(x); };
  NearestWeights<Real> weights{};
  weights.one = Real(params.one);
  weights.zero = Real(params.zero);
  weights.fall = Real(params.fall);
  weights.bwf = Real(params.bwf);
  weights.foreground_exponent = exponent(params.foreground_exponent);
  weights.border_exponent = exponent(params.border_exponent);
  weights.fall_limit = square(fall_limit);
  weights.pair_limit = Real(pair_limit);
  // near + second <= pair_limit cannot be had where near is more than half of it; an own instance always is.
  weights.near_limit = square(std::max({fall_limit, pair_limit / 2, 0.5}));
  weights.with_border = pair_limit > 0;
  weights.border_everywhere = params.border_everywhere != 0;
  limit = square(std::max({fall_limit, pair_limit, 0.5}));
  second_limit = square(pair_limit);
  return weights;
}

template <class Real, class Id>
static int32_t weigh_nearest(const NearestVolumes& volumes, const flc_tensor& labels,
                             const flc_tensor* classes, const flc_tensor* foreground,
                             const flc_tensor* ignore, const flc_nearest_params& params, void* out,
                             int32_t out_dtype, void* scratch, cudaStream_t stream) {
  Memory memory(scratch);
  NearestWeightsArguments<Real, Id> arguments{passes_for<Real, Id>(volumes, memory), {}};
  auto& passes = arguments.passes;
  passes.labels = volumes.tensor(&labels);
  passes.classes = volumes.tensor(classes);
  passes.foreground = volumes.tensor(foreground);
  passes.ignore = volumes.tensor(ignore);
  arguments.weights = weights_for<Real>(volumes, params, passes.limit, passes.second_limit);
  arguments.weights.out = out;
  arguments.weights.out_is_double = out_dtype == FLC_FLOAT64;
  volumes.contiguous(arguments.weights.stride);
  auto* const found = memory.take<unsigned long long>(CLASSES_BY_LAUNCHES);
  passes.found_classes = found;
  int32_t status = FLC_OK;
  if (classes) status = status_of(cudaMemsetAsync(found, 0, CLASSES_BY_LAUNCHES * sizeof(*found), stream));
  const int slots = classes ? CLASSES_BY_LAUNCHES : 1;
  for (passes.slot = 0; passes.slot < slots && status == FLC_OK; ++passes.slot) {
    if (classes) {
      const int64_t blocks = divide_up<int64_t>(passes.voxels(), THREADS_OF_CLASSES * 16);
      status = launch(find_class_kernel<Real, Id>, std::min<int64_t>(blocks, 1024), THREADS_OF_CLASSES,
                      arguments, stream);
    }
    if (status == FLC_OK)
      status =
          launch_first_passes(weigh_rows_kernel<Real, Id>, weigh_planes_kernel<Real, Id>, arguments, stream);
    if (status != FLC_OK) return status;
    const int64_t jobs = LastPass<Real, Id>(passes).jobs(passes.volumes);
    status = launch_jobs(weigh_volumes_kernel<Real, Id>, jobs, arguments, stream);
  }
  if (!classes || status != FLC_OK) return status;
  return launch(weigh_further_classes_kernel<Real, Id>, passes.volumes, WARPS_OF_FURTHER * WARP, arguments,
                stream);
}

static bool weights_in_double(const NearestVolumes& volumes, const flc_nearest_params& params,
                              int32_t out_dtype) {
  return out_dtype == FLC_FLOAT64 || !volumes.fit_float ||
         std::max(std::abs(params.fall), params.bwf) > LARGEST_FACTOR_FOR_FLOAT;
}

}  // namespace flc::cuda

extern "C" {

int64_t flc_cuda_nearest_weight_map_scratch_bytes(const flc_tensor* labels, const flc_nearest_params* params,
                                                  int32_t out_dtype) {
  using namespace flc::cuda;
  if (!are_volumes(*labels) || !are_spacings(params->spacing)) return 0;
  const NearestVolumes volumes(*labels, params->spacing);
  return with_types(weights_in_double(volumes, *params, out_dtype), ids_are_small(*labels),
                    [&](auto real, auto id) {
                      Memory memory(nullptr);
                      passes_for<decltype(real), decltype(id)>(volumes, memory);
                      memory.take<unsigned long long>(CLASSES_BY_LAUNCHES);
                      return memory.bytes();
                    });
}

int32_t flc_cuda_nearest_weight_map(const flc_tensor* labels, const flc_tensor* classes,
                                    const flc_tensor* foreground, const flc_tensor* ignore,
                                    const flc_nearest_params* params, void* out, int32_t out_dtype,
                                    void* scratch, int32_t device, void* stream) {
  using namespace flc::cuda;
  if (!are_volumes(*labels) || !are_volumes(classes, FLC_INT32) || !are_volumes(foreground, FLC_BOOL) ||
      !are_volumes(ignore, FLC_BOOL) || !are_spacings(params->spacing) || !is_result_dtype(out_dtype))
    return FLC_UNSUPPORTED;
  const NearestVolumes volumes(*labels, params->spacing);
  if (volumes.strips_in_all() == 0) return FLC_OK;
  return on_device(device, [&] {
    return with_types(
        weights_in_double(volumes, *params, out_dtype), ids_are_small(*labels), [&](auto real, auto id) {
          return weigh_nearest<decltype(real), decltype(id)>(volumes, *labels, classes, foreground, ignore,
                                                             *params, out, out_dtype, scratch,
                                                             static_cast<cudaStream_t>(stream));
        });
  });
}

}  // extern "C"
