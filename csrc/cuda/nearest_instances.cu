// Exact distances to the two nearest instances, and the id of the nearest.
#include "cuda/nearest_launches.h"

namespace flc::cuda {

template <class Real, class Id>
struct DistancesArguments {
  NearestPasses<Real, Id> passes;
  Real unit;
  bool with_second, out_is_double;
  void* distances;  // [1 or 2, B, D, H, W]
  int64_t* ids;     // [B, D, H, W]; null: they are not wanted
  int64_t stride[4];
};

template <class Real, class Id>
__global__ void __launch_bounds__(WARPS_OF_PASS* WARP, sizeof(Real) == 8 ? 2 : 4)
    nearest_in_rows_kernel(const __grid_constant__ DistancesArguments<Real, Id> arguments) {
  const auto& passes = arguments.passes;
  if (blockIdx.x == 0) fill_squares(passes);
  const int64_t row = job_of_warp();
  if (row < passes.rows()) scan_row<true>(passes, passes.first_plane, row, 0, threadIdx.x % WARP);
}

template <class Real, class Id>
__global__ void __launch_bounds__(WARPS_OF_PASS* WARP, sizeof(Real) == 8 ? 2 : 4)
    nearest_in_planes_kernel(const __grid_constant__ DistancesArguments<Real, Id> arguments) {
  const auto& passes = arguments.passes;
  const int64_t index = job_of_warp();
  if (index < passes.jobs_along_h())
    pass_along_h<Real, Id, true>(passes, passes.first_plane, index, arguments.with_second,
                                 threadIdx.x % WARP);
}

template <class Real, class Id>
__global__ void __launch_bounds__(WARPS_OF_PASS* WARP, sizeof(Real) == 8 ? 2 : 4)
    nearest_in_volumes_kernel(const __grid_constant__ DistancesArguments<Real, Id> arguments) {
  const auto& passes = arguments.passes;
  const LastPass<Real, Id> last(passes);
  const int64_t index = job_of_warp();
  const int lane = threadIdx.x % WARP;
  if (index >= last.jobs(passes.volumes)) return;
  const Job job = job_of(index, last.inner, last.count);
  using Search = NearestAlong<Real, Id, true>;
  Search search(last.column(job), job.begin, lane);
  search.find_near(INFINITE<Real>);
#pragma unroll
  for (int i = 0; i < Search::VOXELS; ++i) search.second[i] = search.there(i) ? INFINITE<Real> : Real(0);
  if (arguments.with_second) search.find_second();
  if (!last.in_row(job, passes, lane)) return;
  int64_t voxel = last.first_voxel(job, passes.strips, lane, arguments.stride);
  const int64_t all = passes.volumes * arguments.stride[0];
  const auto put = [&](int64_t at, Real square) {
    const Real distance = sqrt_of(square) * arguments.unit;
    if (arguments.out_is_double)
      static_cast<double*>(arguments.distances)[at] = distance;
    else
      static_cast<float*>(arguments.distances)[at] = float(distance);
  };
#pragma unroll
  for (int i = 0; i < Search::VOXELS; ++i, voxel += arguments.stride[last.axis]) {
    if (!search.there(i)) return;
    put(voxel, search.near[i]);
    if (arguments.with_second) put(all + voxel, search.second[i]);
    if (arguments.ids) arguments.ids[voxel] = search.id[i];
  }
}

// Launches, or with `stream` null and no memory, counts bytes.
template <class Real, class Id>
static int32_t find_nearest(const NearestVolumes& volumes, const flc_tensor& labels, const flc_tensor* ignore,
                            int32_t count, void* distances, int32_t out_dtype, int64_t* ids, void* scratch,
                            cudaStream_t stream) {
  Memory memory(scratch);
  DistancesArguments<Real, Id> arguments{passes_for<Real, Id>(volumes, memory)};
  auto& passes = arguments.passes;
  passes.labels = volumes.tensor(&labels);
  passes.ignore = volumes.tensor(ignore);
  passes.limit = passes.second_limit = std::numeric_limits<Real>::infinity();
  arguments.unit = Real(volumes.unit);
  arguments.with_second = count > 1;
  arguments.out_is_double = out_dtype == FLC_FLOAT64;
  arguments.distances = distances;
  arguments.ids = ids;
  volumes.contiguous(arguments.stride);
  const int32_t status = launch_first_passes(nearest_in_rows_kernel<Real, Id>,
                                             nearest_in_planes_kernel<Real, Id>, arguments, stream);
  if (status != FLC_OK) return status;
  const int64_t jobs = LastPass<Real, Id>(passes).jobs(passes.volumes);
  return launch_jobs(nearest_in_volumes_kernel<Real, Id>, jobs, arguments, stream);
}

static bool distances_in_double(const NearestVolumes& volumes, int32_t out_dtype, bool with_ids) {
  return out_dtype == FLC_FLOAT64 || !volumes.fit_float || (with_ids && !volumes.exact_in_float);
}

}  // namespace flc::cuda

extern "C" {

int64_t flc_cuda_nearest_instances_scratch_bytes(const flc_tensor* labels, const double spacing[3],
                                                 int32_t out_dtype, int32_t with_ids) {
  using namespace flc::cuda;
  if (!are_volumes(*labels) || !are_spacings(spacing)) return 0;
  const NearestVolumes volumes(*labels, spacing);
  return with_types(distances_in_double(volumes, out_dtype, with_ids != 0), ids_are_small(*labels),
                    [&](auto real, auto id) {
                      Memory memory(nullptr);
                      passes_for<decltype(real), decltype(id)>(volumes, memory);
                      return memory.bytes();
                    });
}

int32_t flc_cuda_nearest_instances(const flc_tensor* labels, const flc_tensor* ignore,
                                   const double spacing[3], int32_t count, void* distances, int32_t out_dtype,
                                   int64_t* ids, void* scratch, int32_t device, void* stream) {
  using namespace flc::cuda;
  if (!are_volumes(*labels) || !are_volumes(ignore, FLC_BOOL) || !are_spacings(spacing) ||
      !is_result_dtype(out_dtype) || count < 1 || count > 2)
    return FLC_UNSUPPORTED;
  const NearestVolumes volumes(*labels, spacing);
  if (volumes.strips_in_all() == 0) return FLC_OK;
  return on_device(device, [&] {
    return with_types(distances_in_double(volumes, out_dtype, ids != nullptr), ids_are_small(*labels),
                      [&](auto real, auto id) {
                        return find_nearest<decltype(real), decltype(id)>(volumes, *labels, ignore, count,
                                                                          distances, out_dtype, ids, scratch,
                                                                          static_cast<cudaStream_t>(stream));
                      });
  });
}

}  // extern "C"
