// The two nearest instances of every voxel, exactly, whatever their number: what passes along W, H and D hand
// on, and the first of them. See csrc/cpu/nearest_instances.cpp for why two instances a row suffice.
//
// A pass works on strips of 32 voxels along W, one in each lane of a warp. Lengths are in units of the smallest
// spacing. Axes of one voxel come first, and a thin W gives way to a longer axis: so rows are long.
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

// Looking to one side along a row: the next instance, and the next other one. Positions wrap around, so that
// what is not there is at least FARTHEST away from everywhere.
constexpr uint32_t FARTHEST = 1u << 30;
template <class Id>
struct alignas(16) Side {
  Id id = 0;
  uint32_t at, other;
  FLC_DEVICE static Side nothing(bool right) {
    const uint32_t at = right ? 2 * FARTHEST : 0u - FARTHEST;
    return {Id(0), at, at};
  }
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
  Strip<Real, Id>*along_w, *along_h;  // after the pass along W, and along H: [volumes, D, H, strips]
  Side<Id>* sides;                    // what each strip of a row sees to the right
  FourSquares<Real>* squares[2];      // of steps along D and H
  int32_t fours[2];
  Real steps[3];                // the spacings
  Real limit, second_limit;     // squares: what is farther in a plane adds nothing
  const unsigned long long* found_classes;  // 2^32 - class, ascending by class; 0: no more. Null: all are one
  int32_t slot;                 // which of them

  FLC_DEVICE bool by_class() const { return classes.data != nullptr; }
  __host__ __device__ int64_t rows() const { return volumes * depth * height; }
  __host__ __device__ int64_t voxels() const { return rows() * width; }
  __host__ __device__ int64_t jobs_along_h() const { return volumes * depth * strips * groups_of(height); }
};

// An id, 0 where there is no instance.
template <class Id>
FLC_DEVICE Id id_at(const VoxelTensor& labels, int64_t index) {
  Id id;
  with_type(labels.data, labels.dtype, [&](const auto* data) {
    const auto value = data[index];
    id = value > 0 ? Id(value) : Id(0);
  });
  return id > 0 ? id : Id(0);
}

FLC_DEVICE int32_t class_at(const VoxelTensor& classes, int64_t index) {
  return static_cast<const int32_t*>(classes.data)[index];
}
FLC_DEVICE bool flag_at(const VoxelTensor& flags, int64_t index) {
  return static_cast<const uint8_t*>(flags.data)[index] != 0;
}

// The labels of a row, of one class where there are classes.
template <class Real, class Id>
class RowLabels {
 public:
  FLC_DEVICE RowLabels(const NearestPasses<Real, Id>& passes, int64_t row, int32_t only_class)
      : passes_(passes), only_class_(only_class) {
    const int64_t y = row % passes.height, plane = row / passes.height;
    const int64_t z = plane % passes.depth, volume = plane / passes.depth;
    const auto begin = [&](const VoxelTensor& tensor) {
      return volume * tensor.stride[0] + z * tensor.stride[1] + y * tensor.stride[2];
    };
    labels_ = begin(passes.labels);
    if (passes.classes.data) classes_ = begin(passes.classes);
    if (passes.ignore.data) ignore_ = begin(passes.ignore);
  }

  FLC_DEVICE Id operator[](int64_t x) const {
    if (x >= passes_.width) return 0;
    Id id = id_at<Id>(passes_.labels, labels_ + x * passes_.labels.stride[3]);
    if (passes_.classes.data &&
        class_at(passes_.classes, classes_ + x * passes_.classes.stride[3]) != only_class_)
      id = 0;
    if (passes_.ignore.data && flag_at(passes_.ignore, ignore_ + x * passes_.ignore.stride[3])) id = 0;
    return id;
  }

 private:
  const NearestPasses<Real, Id>& passes_;
  const int32_t only_class_;
  int64_t labels_, classes_ = 0, ignore_ = 0;
};

// The lane of a mask that is next to this one.
template <bool RIGHT>
FLC_DEVICE int next_lane(uint32_t mask) {
  return RIGHT ? __ffs(mask) - 1 : 31 - __clz(mask);
}

// What each lane of a strip sees to one side, itself included, where `beyond` is seen from the strip's end.
template <bool RIGHT, class Id>
FLC_DEVICE Side<Id> look(Id id, uint32_t x, int lane, const Side<Id>& beyond) {
  const uint32_t own = 1u << lane, passed = RIGHT ? ~(own | (own - 1)) : own - 1;
  const uint32_t before = __ballot_sync(ALL_LANES, id > 0) & passed;
  const int neighbour = next_lane<RIGHT>(before);
  const Id its_id = __shfl_sync(ALL_LANES, id, neighbour & 31);
  const Id next = before ? its_id : beyond.id;
  const uint32_t next_at = before ? x - lane + neighbour : beyond.at;
  // Where another instance begins, what was next until then is the next other one.
  const uint32_t changes = __ballot_sync(ALL_LANES, id > 0 && id != next) & (passed | own);
  const uint32_t other = __shfl_sync(ALL_LANES, next_at, next_lane<RIGHT>(changes) & 31);
  return {id > 0 ? id : next, id > 0 ? x : next_at, changes ? other : beyond.other};
}

// The two nearest instances along a row. By one warp: from the right it notes what each strip sees, then from
// the left it fills the strips.
template <class Real, class Id>
FLC_DEVICE void scan_row(const NearestPasses<Real, Id>& passes, int64_t row, int32_t only_class, int lane) {
  const RowLabels<Real, Id> labels(passes, row, only_class);
  const int strips = int(passes.strips);
  Side<Id>* const sides = passes.sides + row * strips;
  auto right = Side<Id>::nothing(true);
  for (int strip = strips - 1; strip >= 0; --strip) {
    const uint32_t first = strip * WARP;
    if (lane == 0) sides[strip] = right;
    const Id id = labels[first + lane];
    const uint32_t labelled = __ballot_sync(ALL_LANES, id > 0);
    if (!labelled) continue;
    const int next = next_lane<true>(labelled);
    const Id next_id = __shfl_sync(ALL_LANES, id, next);
    const uint32_t others = __ballot_sync(ALL_LANES, id > 0 && id != next_id);
    const uint32_t farther = next_id == right.id ? right.other : right.at;
    right = {next_id, first + next, others ? first + next_lane<true>(others) : farther};
  }
  __syncwarp();
  auto left = Side<Id>::nothing(false);
  Strip<Real, Id>* const out = passes.along_w + row * strips;
  for (int strip = 0; strip < strips; ++strip) {
    const uint32_t x = strip * WARP + lane;
    const Id id = labels[x];
    const Side<Id> a = look<false>(id, x, lane, left), b = look<true>(id, x, lane, sides[strip]);
    left = {__shfl_sync(ALL_LANES, a.id, WARP - 1), __shfl_sync(ALL_LANES, a.at, WARP - 1),
            __shfl_sync(ALL_LANES, a.other, WARP - 1)};
    const uint32_t to_left = x - a.at, to_right = b.at - x;
    const uint32_t steps = smaller(to_left, to_right);
    uint32_t other = smaller(x - a.other, b.other - x);
    if (a.id != b.id) other = smaller(other, larger(to_left, to_right));
    const auto square = [&](uint32_t along) {
      const Real distance = Real(int(along)) * passes.steps[2];
      return along < FARTHEST ? distance * distance : INFINITE<Real>;
    };
    out[strip].near[lane] = square(steps);
    out[strip].second[lane] = square(other);
    const Id equally_near = smaller(a.id, b.id);
    out[strip].id[lane] = to_left < to_right ? a.id : to_right < to_left ? b.id : equally_near;
  }
}

// Thread `i` of `threads` fills in its part of the squares of steps.
template <class Real, class Id>
FLC_DEVICE void fill_squares(const NearestPasses<Real, Id>& passes, int64_t i, int64_t threads) {
  for (int axis = 0; axis < 2; ++axis) {
    for (int64_t four = i; four < passes.fours[axis]; four += threads) {
      FourSquares<Real> squares;
      for (int k = 0; k < 4; ++k) {
        const Real distance = Real(int(4 * four) + k + 1) * passes.steps[axis];
        squares.square[k] = distance * distance;
      }
      passes.squares[axis][four] = squares;
    }
  }
}

}  // namespace flc::cuda
