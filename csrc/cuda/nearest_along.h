// The two nearest instances along a further axis: by one warp, for some voxels of each of 32 columns.
//
// First the nearest with its id, as far as it is away, then the nearest other one. A line of another place
// along the axis is put to use for all of the warp's voxels at once, unless no lane can gain by it.
#pragma once

#include "cuda/nearest_places.h"

namespace flc::cuda {

// Places along an axis from one strip on.
template <class Real, class Id>
struct Column {
  const Strip<Real, Id>* first;
  int64_t step;  // strips from one place to the next
  int32_t count;
  const FourSquares<Real>* squares;
  Real spacing;
};

// Some voxels of a column of strips. The columns are outer x inner ones, and along each follow its groups of
// voxels.
struct Job {
  int64_t outer, inner;
  int32_t begin;
};

FLC_DEVICE Job job_of(int64_t index, int64_t inner, int64_t count) {
  const int64_t groups = groups_of(count), column = index / groups;
  return {column / inner, column % inner, int32_t(index % groups) * VOXELS_OF_JOB};
}

// What there is not offers this: it is less than nothing, and not the smaller of two numbers.
template <class Real>
constexpr Real NEVER = std::numeric_limits<Real>::quiet_NaN();

template <class Real, class Id, bool SMALLER_ID>
class NearestAlong {
 public:
  static constexpr int VOXELS = VOXELS_OF_JOB;
  Real near[VOXELS], second[VOXELS];
  Id id[VOXELS];

  FLC_DEVICE NearestAlong(const Column<Real, Id>& column, int32_t begin, int lane)
      : column_(column), begin_(begin), lane_(lane) {}

  FLC_DEVICE bool there(int i) const { return begin_ + i < column_.count; }

  // Instances whose squares are below the limit; beyond it there is none, at the limit.
  FLC_DEVICE void find_near(Real limit) {
#pragma unroll
    for (int i = 0; i < VOXELS; ++i) {
      near[i] = there(i) ? limit : Real(0);
      id[i] = 0;
    }
    search<false>(near);
  }

  // What is below the values that stand in `second`, for each voxel.
  FLC_DEVICE void find_second() {
    common_ = id[0];
#pragma unroll
    for (int i = 1; i < VOXELS; ++i) common_ = id[i] == common_ ? common_ : Id(-1);
    search<true>(second);
  }

 private:
  static constexpr int STEPS = 4;  // between looks at what was found
  static constexpr int64_t STRIP = sizeof(Strip<Real, Id>);

  // Where this lane's numbers of a strip are.
  class Lines {
   public:
    FLC_DEVICE Lines(const Strip<Real, Id>* strip, int lane)
        : at_(reinterpret_cast<const char*>(strip->near + lane)), lane_(lane) {}
    FLC_DEVICE void move(int64_t bytes) { at_ += bytes; }
    FLC_DEVICE Lines moved(int64_t bytes) const {
      Lines other = *this;
      other.at_ += bytes;
      return other;
    }
    FLC_DEVICE Real near() const { return *reinterpret_cast<const Real*>(at_); }
    FLC_DEVICE Real second() const { return reinterpret_cast<const Real*>(at_)[WARP]; }
    FLC_DEVICE Id id() const {
      const char* at = at_ + 2 * WARP * sizeof(Real);
      if (sizeof(Id) != sizeof(Real)) at += lane_ * (sizeof(Id) - sizeof(Real));
      return *reinterpret_cast<const Id*>(at);
    }

   private:
    const char* at_;
    int lane_;
  };

  // The square that a line offers to a voxel of which `nearest` is the nearest instance.
  template <bool SECOND>
  FLC_DEVICE static Real offered(const Lines& line, Id nearest) {
    if (!SECOND) return line.near();
    const Real near = line.near(), other = line.second();
    return line.id() == nearest ? other : near;
  }

  // Takes a line into account; to_voxel(square, i) adds to a square of its the way to voxel i.
  template <bool SECOND, class ToVoxel>
  FLC_DEVICE void take(const Lines& line, const ToVoxel& to_voxel) {
    const Real line_near = line.near(), line_second = SECOND ? line.second() : Real(0);
    const Id line_id = line.id();
#pragma unroll
    for (int i = 0; i < VOXELS; ++i) {
      if constexpr (SECOND) {
        second[i] = smaller(second[i], to_voxel(line_id == id[i] ? line_second : line_near, i));
      } else {
        const Real found = to_voxel(line_near, i);
        bool nearer = found < near[i];
        if (SMALLER_ID) nearer |= found == near[i] && line_id < id[i];
        id[i] = nearer ? line_id : id[i];
        near[i] = smaller(near[i], found);
      }
    }
  }

  // Whether a square matters to a voxel at which another was found.
  template <bool SECOND>
  FLC_DEVICE static bool matters(Real square, Real found) {
    return SMALLER_ID && !SECOND ? square <= found : square < found;
  }

  template <bool SECOND>
  FLC_DEVICE void search(Real (&found)[VOXELS]) {
    Real squares[STEPS + VOXELS];  // of k, k + 1, ... steps
    const FourSquares<Real>* fours = column_.squares;
    load_squares<0>(fours, squares);
    load_squares<1>(fours, squares);
    const int64_t step = column_.step * STRIP;
    const Lines here(column_.first + begin_ * column_.step, lane_);
#pragma unroll
    for (int i = 0; i < VOXELS; ++i) {
      if (!there(i)) continue;
      take<SECOND>(here.moved(i * step), [&](Real along, int j) {
        return i == j ? along : along + squares[i < j ? j - i - 1 : i - j - 1];
      });
    }
    // `before` is a multiple of STEPS, `after` need not be.
    const int32_t before = begin_, after = column_.count - VOXELS - begin_, most = larger(before, after);
    Lines up = here, down = here.moved((VOXELS - 1) * step);
    Bounds bounds = bounds_of(found, squares);
#pragma unroll 1
    for (int32_t k = 1; k <= most; k += STEPS, ++fours) {
      load_squares<0>(fours, squares);
      if (!__any_sync(ALL_LANES, matters<SECOND>(squares[0], larger(bounds.above, bounds.below)))) return;
      Real above[STEPS / 2], below[STEPS / 2];  // what two lines offer at best
#pragma unroll
      for (int i = 0; i < STEPS / 2; ++i) above[i] = below[i] = NEVER<Real>;
      if (k <= before) look<SECOND>(up, -step, squares, above);
      if (k + STEPS - 1 <= after) {
        look<SECOND>(down, step, squares, below);
      } else if (k <= after) {  // the last few
#pragma unroll 1
        for (int i = 0; k + i <= after; ++i) {
          down.move(step);
          take<SECOND>(down, [&](Real along, int j) {
            const Real steps = Real(k + i + VOXELS - 1 - j) * column_.spacing;
            return along + steps * steps;
          });
        }
      }
      const bool any = matters<SECOND>(smaller(above[0], above[1]), bounds.above) ||
                       matters<SECOND>(smaller(below[0], below[1]), bounds.below);
      if (!__any_sync(ALL_LANES, any)) continue;
      load_squares<1>(fours, squares);
#pragma unroll
      for (int i = 0; i < STEPS / 2; ++i) {
        if (__any_sync(ALL_LANES, matters<SECOND>(above[i], bounds.above))) {
          take<SECOND>(up.moved((STEPS - 1 - 2 * i) * step),
                       [&](Real along, int j) { return along + squares[2 * i + j]; });
          take<SECOND>(up.moved((STEPS - 2 - 2 * i) * step),
                       [&](Real along, int j) { return along + squares[2 * i + 1 + j]; });
        }
        if (__any_sync(ALL_LANES, matters<SECOND>(below[i], bounds.below))) {
          take<SECOND>(down.moved((2 * i + 1 - STEPS) * step),
                       [&](Real along, int j) { return along + squares[2 * i + VOXELS - 1 - j]; });
          take<SECOND>(down.moved((2 * i + 2 - STEPS) * step),
                       [&](Real along, int j) { return along + squares[2 * i + VOXELS - j]; });
        }
      }
      bounds = bounds_of(found, squares);
    }
  }

  // What a line above or below may offer to the voxel next to it if it is to matter to any voxel: for lines as
  // far away as `squares` begin, or farther.
  struct Bounds {
    Real above, below;
  };
  FLC_DEVICE static Bounds bounds_of(const Real (&found)[VOXELS], const Real (&squares)[STEPS + VOXELS]) {
    Real above = found[1] - squares[1], below = found[VOXELS - 2] - squares[1];
#pragma unroll
    for (int i = 2; i < VOXELS; ++i) {
      above = larger(above, found[i] - squares[i]);
      below = larger(below, found[VOXELS - 1 - i] - squares[i]);
    }
    return {larger(found[0], above + squares[0]), larger(found[VOXELS - 1], below + squares[0])};
  }

  // Moves over STEPS lines; of each two, what they offer to the nearest voxel.
  template <bool SECOND>
  FLC_DEVICE void look(Lines& lines, int64_t step, const Real (&squares)[STEPS + VOXELS],
                       Real (&best)[STEPS / 2]) const {
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      lines.move(step);
      const Real offer = offered<SECOND>(lines, common_) + squares[i];
      best[i / 2] = i % 2 ? smaller(best[i / 2], offer) : offer;
    }
  }

  // The first four, or the others.
  template <bool OTHERS>
  FLC_DEVICE static void load_squares(const FourSquares<Real>* fours, Real (&squares)[STEPS + VOXELS]) {
#pragma unroll
    for (int i = OTHERS ? 4 : 0; i < (OTHERS ? STEPS + VOXELS : 4); i += 4) {
      const FourSquares<Real> four = fours[i / 4];
#pragma unroll
      for (int j = 0; j < 4; ++j) squares[i + j] = four.square[j];
    }
  }

  const Column<Real, Id> column_;
  const int32_t begin_;
  const int lane_;
  Id common_;  // the nearest instance of all of a lane's voxels, or -1
};

// ------------------------------------------------------------------------------------------------ passes

// The pass along H of volumes of more than one plane, for planes as in scan_row.
template <class Real, class Id, bool SMALLER_ID>
FLC_DEVICE void pass_along_h(const NearestPasses<Real, Id>& passes, int64_t first_plane, int64_t index,
                             bool with_second, int lane) {
  using Search = NearestAlong<Real, Id, SMALLER_ID>;
  const Job job = job_of(index, passes.strips, passes.height);
  const int64_t of_plane = passes.height * passes.strips;
  const int64_t first = job.outer * of_plane + job.inner;
  int64_t plane = job.outer;  // of along_h
  if (passes.planes < passes.depth) {
    const int64_t z = first_plane + plane % passes.planes;
    if (z >= passes.depth) return;
    plane = plane / passes.planes * passes.depth + z;
  }
  Search search(
      {passes.along_w + first, passes.strips, int32_t(passes.height), passes.squares[1], passes.steps[1]},
      job.begin, lane);
  search.find_near(passes.limit);
#pragma unroll
  for (int i = 0; i < Search::VOXELS; ++i) search.second[i] = search.there(i) ? passes.second_limit : Real(0);
  if (with_second) search.find_second();
  Strip<Real, Id>* out = passes.along_h + plane * of_plane + job.inner + job.begin * passes.strips;
#pragma unroll
  for (int i = 0; i < Search::VOXELS; ++i, out += passes.strips) {
    if (!search.there(i)) return;
    out->near[lane] = search.near[i];
    out->second[lane] = search.second[i];
    out->id[lane] = search.id[i];
  }
}

// The last pass: along D, or along H where there is one plane.
template <class Real, class Id>
struct LastPass {
  const Strip<Real, Id>* from;
  const FourSquares<Real>* squares;
  int64_t inner, count;  // strips of a place, places
  Real spacing;
  int axis;  // of the strides of tensors

  __host__ __device__ explicit LastPass(const NearestPasses<Real, Id>& passes) {
    axis = passes.depth > 1 ? 1 : 2;
    from = axis == 1 ? passes.along_h : passes.along_w;
    squares = passes.squares[axis - 1];
    spacing = passes.steps[axis - 1];
    inner = axis == 1 ? passes.height * passes.strips : passes.strips;
    count = axis == 1 ? passes.depth : passes.height;
  }

  __host__ __device__ int64_t jobs(int64_t volumes) const { return volumes * inner * groups_of(count); }

  FLC_DEVICE Column<Real, Id> column(const Job& job) const {
    return {from + job.outer * count * inner + job.inner, inner, int32_t(count), squares, spacing};
  }

  // The first voxel of a job in a tensor, in this lane.
  FLC_DEVICE int64_t first_voxel(const Job& job, int64_t strips, int lane, const int64_t stride[4]) const {
    const int64_t y = job.inner / strips, x = job.inner % strips * WARP + lane;
    return job.outer * stride[0] + job.begin * stride[axis] + (axis == 1 ? y * stride[2] : 0) + x * stride[3];
  }
  FLC_DEVICE bool in_row(const Job& job, const NearestPasses<Real, Id>& passes, int lane) const {
    return job.inner % passes.strips * WARP + lane < passes.width;
  }
};

}  // namespace flc::cuda
