// The two nearest instances of every voxel, exactly, whatever their number: what passes along W, H and D hand
// on, and the first of them. See csrc/cpu/nearest_instances.cpp for why two instances a row suffice.
//
// A pass works on strips of 32 voxels along W, one in each lane of a warp. Lengths are in units of the
// smallest spacing. Axes of one voxel come first, and a thin W gives way to a longer axis: so rows are long.
#pragma once

#include "cuda/read.h"

namespace flc::cuda {

// Squares of the distances to the nearest instance and to the nearest other one, and the id of the nearest; 0
// where there is none within the limits. The id of the other is not needed: whoever looks from farther away,
// along another axis, takes the nearest, or where that is the nearest already, the other.
template <class Real, class Id>
struct Strip {
  Real near[WARP], second[WARP];
  Id id[WARP];
};

// Looking to one side along a row: the next instance, and the next other one. Positions are infinite where
// there is none.
template <class Real, class Id>
struct alignas(16) Side {
  Id id = 0;
  Real at, other;
  FLC_DEVICE static Side nothing(Real at) { return {Id(0), at, at}; }
};

// Squares of 4 i + 1, ..., 4 i + 4 steps.
template <class Real>
struct alignas(16) FourSquares {
  Real square[4];
};

// A warp's work along H or D is a group of voxels in each of 32 columns.
constexpr int VOXELS_OF_JOB = 8;
__host__ __device__ inline int64_t groups_of(int64_t count) {
  return divide_up<int64_t>(count, VOXELS_OF_JOB);
}

// A tensor whose axes are ordered as the passes need them; no data: there is none.
struct VoxelTensor {
  const void* data;
  int32_t dtype;
  int64_t stride[4];  // of the batch, D, H and W
};

template <class Real, class Id>
struct NearestPasses {
  VoxelTensor labels, classes, foreground, ignore;
  int64_t volumes, depth, height, width, strips;  // strips of a row
  int64_t planes;  // of a volume, that the first passes go through at a time
  int64_t first_plane;
  Strip<Real, Id>* along_w;  // after the pass along W: [volumes, planes, H, strips]
  Strip<Real, Id>* along_h;  // and along H: [volumes, D, H, strips]
  Side<Real, Id>* sides;  // what each strip of a row sees to the right
  FourSquares<Real>* squares[2];  // of steps along D and H
  int32_t fours[2];
  Real steps[3];  // the spacings
  Real limit, second_limit;  // squares: what is farther in a plane adds nothing
  const unsigned long long* found_classes;  // 2^32 - class, ascending by class; 0: no more. Null: all are one
  int32_t slot;  // which of them

  FLC_DEVICE bool by_class() const { return classes.data != nullptr; }
  __host__ __device__ int64_t rows() const { return volumes * planes * height; }
  __host__ __device__ int64_t voxels() const { return volumes * depth * height * width; }
  __host__ __device__ int64_t jobs_along_h() const { return volumes * planes * strips * groups_of(height); }
};

// The id that a label stands for, 0 where there is no instance.
template <class Id, class Label>
FLC_DEVICE Id id_of(const Label& label) {
  const Id id = label > 0 ? Id(label) : Id(0);
  return id > 0 ? id : Id(0);
}

template <class Id>
FLC_DEVICE Id id_at(const VoxelTensor& labels, int64_t index) {
  Id id;
  with_type(labels.data, labels.dtype, [&](const auto* data) { id = id_of<Id>(data[index]); });
  return id;
}

FLC_DEVICE int32_t class_at(const VoxelTensor& classes, int64_t index) {
  return static_cast<const int32_t*>(classes.data)[index];
}
FLC_DEVICE bool flag_at(const VoxelTensor& flags, int64_t index) {
  return static_cast<const uint8_t*>(flags.data)[index] != 0;
}

// Calls function(id_of), where id_of(x) are the ids of a row, of one class where there are classes.
template <class Real, class Id, class Function>
FLC_DEVICE void with_ids_of_row(const NearestPasses<Real, Id>& passes, int64_t volume, int64_t z, int64_t y,
                                int32_t only_class, const Function& function) {
  const auto begin = [&](const VoxelTensor& tensor) {
    return volume * tensor.stride[0] + z * tensor.stride[1] + y * tensor.stride[2];
  };
  const int64_t classes = passes.classes.data ? begin(passes.classes) : 0;
  const int64_t ignore = passes.ignore.data ? begin(passes.ignore) : 0;
  with_type(passes.labels.data, passes.labels.dtype, [&](const auto* data) {
    data += begin(passes.labels);
    function([&](uint32_t x) {
      if (x >= passes.width) return Id(0);
      Id id = id_of<Id>(data[x * passes.labels.stride[3]]);
      if (passes.classes.data) {
        const int32_t its_class = class_at(passes.classes, classes + x * passes.classes.stride[3]);
        if (its_class != only_class || its_class == 0) id = 0;  // 0: there is no class to look for
      }
      if (passes.ignore.data && flag_at(passes.ignore, ignore + x * passes.ignore.stride[3])) id = 0;
      return id;
    });
  });
}

// The lane of a mask that is next to this one.
template <bool RIGHT>
FLC_DEVICE int next_lane(uint32_t mask) {
  return RIGHT ? __ffs(mask) - 1 : 31 - __clz(mask);
}

// What each lane of a strip sees to one side, itself included, where `beyond` is seen from the strip's end and
// `labelled` are the lanes with an instance. Its pixel is at `x`, that of lane 0 at `first`.
template <bool RIGHT, class Real, class Id>
FLC_DEVICE Side<Real, Id> look(uint32_t labelled, Id id, Real x, Real first, int lane,
                               const Side<Real, Id>& beyond) {
  const uint32_t own = 1u << lane, passed = RIGHT ? ~(own | (own - 1)) : own - 1;
  const uint32_t before = labelled & passed;
  const int neighbour = next_lane<RIGHT>(before);
  const Id its_id = __shfl_sync(ALL_LANES, id, neighbour);  // of its lowest five bits
  const Id next = before ? its_id : beyond.id;
  const Real next_at = before ? first + Real(neighbour) : beyond.at;
  // Where another instance begins, what was next until then is the next other one.
  const uint32_t changes = __ballot_sync(ALL_LANES, id > 0 && id != next) & (passed | own);
  const Real other = __shfl_sync(ALL_LANES, next_at, next_lane<RIGHT>(changes));
  return {id > 0 ? id : next, id > 0 ? x : next_at, changes ? other : beyond.other};
}

// The two nearest instances along a row. By one warp: from the right it notes the ids and what each strip
// sees, then from the left it fills the strips. Of two that are equally near, either comes first unless it is
// to be the one of the smaller id. Rows are numbered through the planes from `first_plane` on, of all volumes.
template <bool SMALLER_ID, class Real, class Id>
FLC_DEVICE void scan_row(const NearestPasses<Real, Id>& passes, int64_t first_plane, int64_t row,
                         int32_t only_class, int lane) {
  const int64_t plane = row / passes.height, z = first_plane + plane % passes.planes;
  if (z >= passes.depth) return;
  const int strips = int(passes.strips);
  Side<Real, Id>* const sides = passes.sides + row * strips;
  Strip<Real, Id>* out = passes.along_w + row * strips;
  const int64_t volume = plane / passes.planes, y = row % passes.height;
  with_ids_of_row(passes, volume, z, y, only_class, [&](const auto& id_of_voxel) {
    auto right = Side<Real, Id>::nothing(INFINITE<Real>);
#pragma unroll 1
    for (int strip = strips - 1; strip >= 0; --strip) {
      if (lane == 0) sides[strip] = right;
      const Id id = id_of_voxel(strip * WARP + lane);
      out[strip].id[lane] = id;
      const uint32_t labelled = __ballot_sync(ALL_LANES, id > 0);
      if (!labelled) continue;
      const int first = strip * WARP, next = next_lane<true>(labelled);
      const Id next_id = __shfl_sync(ALL_LANES, id, next);
      const uint32_t others = __ballot_sync(ALL_LANES, id > 0 && id != next_id);
      const Real farther = next_id == right.id ? right.other : right.at;
      right = {next_id, Real(first + next), others ? Real(first + next_lane<true>(others)) : farther};
    }
  });
  __syncwarp();
  auto left = Side<Real, Id>::nothing(-INFINITE<Real>);
  Real first = 0;
#pragma unroll 1
  for (int strip = 0; strip < strips; ++strip, ++out, first += WARP) {
    const Id id = out->id[lane];
    const Real x = first + Real(lane);
    const Side<Real, Id> right = sides[strip];
    Side<Real, Id> a = left, b = right;
    if (const uint32_t labelled = __ballot_sync(ALL_LANES, id > 0)) {
      a = look<false>(labelled, id, x, first, lane, left);
      b = look<true>(labelled, id, x, first, lane, right);
      left = {__shfl_sync(ALL_LANES, a.id, WARP - 1), __shfl_sync(ALL_LANES, a.at, WARP - 1),
              __shfl_sync(ALL_LANES, a.other, WARP - 1)};
    }
    const Real to_left = x - a.at, to_right = b.at - x;
    Real other = smaller(x - a.other, b.other - x);
    if (a.id != b.id) other = smaller(other, larger(to_left, to_right));
    const auto square = [&](Real along) {
      const Real distance = along * passes.steps[2];
      return distance * distance;
    };
    out->near[lane] = square(smaller(to_left, to_right));
    out->second[lane] = square(other);
    bool is_left = to_left < to_right;
    if (SMALLER_ID) is_left |= to_left == to_right && a.id < b.id;
    out->id[lane] = is_left ? a.id : b.id;
  }
}

// Fills in the squares of steps, for the next passes. By one block.
template <class Real, class Id>
FLC_DEVICE void fill_squares(const NearestPasses<Real, Id>& passes) {
  for (int axis = 0; axis < 2; ++axis) {
    for (int32_t four = threadIdx.x; four < passes.fours[axis]; four += blockDim.x) {
      FourSquares<Real> squares;
      for (int k = 0; k < 4; ++k) {
        const Real distance = Real(4 * four + k + 1) * passes.steps[axis];
        squares.square[k] = distance * distance;
      }
      passes.squares[axis][four] = squares;
    }
  }
}

}  // namespace flc::cuda
