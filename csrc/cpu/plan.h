// Plain data that passes between the portable driver and the kernels compiled once per instruction set.
// No inline functions here: a function compiled for AVX-512 must never stand in for its baseline twin.
#pragma once

#include <stdint.h>

#include "fastlogconv.h"

#define FLC_INLINE inline __attribute__((always_inline))

namespace flc {

// Columns are worked on in chunks of CHUNK, weights are collected in blocks of BLOCK columns.
constexpr int CHUNK = 16;
constexpr int BLOCK = 64;

// Pixels first..last of one row, inclusive. `instance` indexes ImagePlan::instances.
struct Run {
  int32_t row, first, last, instance;
};

// Runs in reading order, with the label each one carries. Grown by the scanning kernel.
struct LabelRuns {
  Run* runs;
  int64_t* ids;
  int64_t size, capacity;
};

// Smallest and largest of the nonzero values of a region mask.
struct ValueRange {
  double smallest, largest;
};

// The number type in which an instance's sums S_i are formed; WIDE is for soft masks and float64 results alone.
enum Arithmetic { SINGLE = 0, DOUBLE = 1, LOGARITHMIC = 2, WIDE = 3, ARITHMETICS };

// Rows top..bottom and columns left..right of an image, inclusive; empty where top > bottom or left > right.
struct Rectangle {
  int32_t top, bottom, left, right;
};

struct Instance {
  int32_t top, bottom, left, right;  // bounding box, inclusive
  int64_t first_run, last_run;       // its runs are instance_runs[first_run, last_run)
  Arithmetic arithmetic;
  const flc_tensor* soft_mask;  // its values where they are not all 0 and 1, else null
  int64_t region;               // index into soft_mask
  // The pixels that this is weighed for: all, or where an instance was cut into parts, those of one of them
  // (see pieces.h), from a multiple of CHUNK to another along the columns.
  Rectangle zone{0, INT32_MAX - 1, 0, INT32_MAX - 1};
  bool is_part = false;
  bool dense = false;  // a part of many runs a row
  int32_t shape = -1;  // index into ImagePlan::shapes
};

// What a small instance looks like, within its box.
constexpr int32_t SHAPE_SIDE = 8;
struct Shape {
  uint64_t pixels;  // bit row * SHAPE_SIDE + column
  int32_t height, width;
  Arithmetic arithmetic;
};

// An instance of a shape.
struct Speck {
  int32_t top, left, shape;
};

struct ImagePlan {
  int32_t height, width;
  const Instance* instances;
  const int32_t* left_to_right;  // instance indices by left edge, ties by first appearance; parts by
  // reach + the first column that they reach
  int64_t instance_count;  // of left_to_right
  const Speck* specks;  // the other instances, likewise from left to right
  int64_t speck_count;
  const Shape* shapes;
  int64_t shape_count;
  const Run* instance_runs;  // grouped by instance, rows ascending
  const flc_tensor* ignore;  // where soft masks count as 0, or null
  // Where an instance in parts is out of reach, for border rules in which each has a say: in the block of
  // BLOCK columns b it is out_of_reach[out_of_reach_begin[b], out_of_reach_begin[b + 1]). Null where there
  // are no parts.
  const Rectangle* out_of_reach;
  const int64_t* out_of_reach_begin;
  Rectangle border_area;  // where the border term is alive: it is 0 elsewhere
};

// Sums of the kernel exp(-|t| / decay_length) over a run of pixels first..last, seen from column x, split
// into the pixels at or left of x and those right of it:
//   left(x)  = left_decay[x - last] min(left_from_first[x - first], left_window[x - last], G(min(n, r + 1)))
//   right(x) = right_decay[x - first + 1] min(right_to_last[x - last + 1], right_window[x - first + 1],
//              G(min(n, r)))
// with n the length of the run and G(n) = 1 + a + ... + a^(n - 1). Each array may be read from index `lowest`
// to `highest`, plus CHUNK - 1; beyond these its values no longer change. left_decay and right_decay carry
// the factor 2^scale_exponent.
template <class Scalar>
struct KernelTables {
  const Scalar *left_decay, *left_from_first, *left_window;
  const Scalar *right_decay, *right_to_last, *right_window;
  const Scalar* left_length;  // G(min(n, r + 1)), n = 0..r + 1
  const Scalar* right_length;  // G(min(n, r)), n = 0..r + 1
  int32_t lowest, highest;
  Scalar decay;  // a = exp(-1 / decay_length)
  // a^t = decay_half[t] decay_rest[t], in two factors so that neither leaves the number range. t = 0..r + 1.
  const Scalar *decay_half, *decay_rest;
  int32_t radius;
  int32_t scale_exponent;
  // Scaled sums from here on are unscaled before their logarithm is taken: the larger it is, the coarser.
  double unscaled_from;
};

// 64-byte aligned memory; null where there is none.
void* aligned_allocate(int64_t bytes);
void aligned_free(void* memory);

// A number by its natural logarithm, for sums that leave double's range.
struct LogReal {
  double log;
};

// (high + low) 2^exponent, high in [1, 2) and low below its last bit; 0 is {0, 0, -INFINITY}. See wide.h.
struct WideReal {
  double high, low, exponent;
};

// Names as in flc_weight_params.
struct Settings {
  int32_t border;
  double bwf, fbr;
  double decay_length;
  double foreground_exponent, border_exponent;
  double sum_factor, nearest_factor;
  bool marks_foreground;  // stage 3 gives instances their weight of 1, where the distance is LogConv's
  double prefix_tolerance;  // a prefix sum less than this fraction below the whole counts as whole
  int32_t radius, reach;
  int32_t halo;  // what lies farther than this from a pixel, along an axis, does not show there
  const KernelTables<float>* single_tables;
  const KernelTables<double>* double_tables;
  const KernelTables<LogReal>* log_tables;
  const KernelTables<WideReal>* wide_tables;
};

enum Precision { FLOAT_THROUGHOUT = 0, DOUBLE_INSIDE = 1, DOUBLE_THROUGHOUT = 2 };

// Weighs rows [begin, end) of an image. on_top: adds to `out` what the plan's instances add to the weights of
// others; foreground pixels are left without meaning then.
using WeighRows = int32_t(const ImagePlan* plan, const Settings* settings, bool on_top, Precision precision,
                          int32_t begin, int32_t end, void* out);

// How to convolve along one axis: with tables of one number type, those of the other are null.
struct ConvolutionAxis {
  const KernelTables<float>* single_tables;
  const KernelTables<double>* double_tables;
  double edge_weight;  // of the first and of the last value, for what shows them beyond the tables' radius
};

// ---- the two nearest instances, see nearest_instances.cpp: lengths in units of the smallest spacing

// What a search looks for. What is beyond a limit (+inf: none) need not be found.
struct NearestSearch {
  bool double_inside;  // squares of distances are double, not float
  bool with_second;  // the second nearest is asked for
  bool smaller_id_wins;  // where two are equally near; else either may
  double limit, second_limit;
};

// What the last search ends in: distances and ids, or weights. Places are counted in voxels of a volume.
struct NearestResult {
  int32_t dtype;
  double unit;  // the smallest spacing
  void *nearest, *second;  // second: null where it is not asked for
  int64_t* ids;  // or null
  const int64_t* id_of;  // number -> id, or null: numbers are ids

  const flc_nearest_params* weights;  // lengths in units; where not null, `nearest` holds the weights
  const uint8_t* kinds;  // the kind of each voxel, and a vector's more
  bool on_top;  // adds to the weights that are there
};
constexpr int BACKGROUND = 0, FOREGROUND = 1, IGNORED = 2;  // a voxel's kind

constexpr int64_t NEAREST_BLOCK = 32;  // positions whose places are looked at together from far away

// Positions begin..end - 1 of a column, as wide as a vector, of `size` positions along an axis.
struct NearestColumn {
  const void* from;  // what is known of the nearest instances across the axis: position 0
  const void* squares;  // of 0, 1, 2, ... steps along the axis: float or double
  int64_t begin, end, size;
  void* to;  // for the next axis, position 0, with `stride` places to the next one; or null:
  int64_t stride;  // a result, with so many voxels to the next
  int64_t first_voxel;  // the first of position 0
  int32_t width;  // voxels side by side
  void* blocks;  // room for a place for every NEAREST_BLOCK positions; null: nothing far is looked for
};

// One function table per instruction set.
struct Kernels {
  const char* name;
  int32_t vector_bytes;
  // Appends the runs of rows [begin, end): of positive labels or, as_mask, of the nonzero values of a region
  // mask, whose `values` are widened to hold them. Where `ignore`, bool or null, is true, pixels count as 0.
  int32_t (*scan_rows)(const flc_tensor* tensor, const flc_tensor* ignore, int64_t image, int32_t begin,
                       int32_t end, bool as_mask, LabelRuns* runs, ValueRange* values, double* bad_value);
  // By LogConv distances, and by exact ones: there foreground pixels get no weight of their own.
  WeighRows *weigh_rows, *weigh_euclidean_rows;
  // Of rows [begin, end) of an image of ranks (0 = background): written[rank] = 1 for each rank that the
  // image's 3x3 closing puts where another one is, touches[pixel] = 1 for each pixel with another instance
  // among its 8 neighbours, else 0.
  int32_t (*compare_with_closing)(const int32_t* ranks, int32_t height, int32_t width, int32_t begin,
                                  int32_t end, uint8_t* written, uint8_t* touches);
  int32_t (*distance_to_weight)(const flc_tensor* distance, const flc_tensor* foreground,
                                const Settings* settings, Precision precision, int64_t begin, int64_t end,
                                void* out, double* bad_value);
  int32_t (*separable_conv2d)(const flc_tensor* input, int64_t image, const ConvolutionAxis* along_rows,
                              const ConvolutionAxis* along_columns, int32_t padding, void* out,
                              int32_t out_dtype);
  // From the runs of rows [begin, end) of a plane, with the numbers of their instances, to the nearest ones
  // within each row: places [vectors of columns][height] of three vectors. FLC_OUT_OF_MEMORY or FLC_OK.
  int32_t (*nearest_in_rows)(const NearestSearch* search, double step, const Run* runs, const Run* runs_end,
                             int32_t begin, int32_t end, int32_t height, int32_t width, void* to);
  // From those across an axis to those along it, too.
  void (*nearest_along)(const NearestSearch* search, const NearestColumn* column,
                        const NearestResult* result);
};

}  // namespace flc
