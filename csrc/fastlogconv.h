// The C interface of fastlogconv's native code: plain pointers, sizes and strides, no PyTorch.
//
// Every function returns FLC_OK or one of the codes below; nothing throws across this boundary.
// Sizes and strides are in elements. Pixels are the unit of every length, but where there is a spacing.
#pragma once

#include <stdint.h>

#if defined(_WIN32)
#define FLC_API __declspec(dllexport)
#else
#define FLC_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Raised by one whenever a struct or a signature below changes: the Python side refuses a library that it was
// not written for.
#define FLC_ABI_VERSION 10

// Axes that a tensor can have.
#define FLC_MOST_AXES 4

enum flc_status {
  FLC_OK = 0,
  FLC_OUT_OF_MEMORY = 1,
  FLC_NOT_AN_ID = 2,  // a label (or a mask value) that is no finite whole number (no finite number >= 0)
  FLC_UNSUPPORTED = 3,  // a dtype, a number of axes, a size or a rule that this build does not handle
};

enum flc_dtype {
  FLC_BOOL = 0,
  FLC_UINT8,
  FLC_INT8,
  FLC_UINT16,
  FLC_INT16,
  FLC_UINT32,
  FLC_INT32,
  FLC_UINT64,
  FLC_INT64,
  FLC_FLOAT16,
  FLC_BFLOAT16,
  FLC_FLOAT32,
  FLC_FLOAT64,
};

// Names and codes as in fastlogconv/rules.py and fastlogconv/codes.py.
enum flc_distance { FLC_LOGCONV = 0, FLC_EUCLIDEAN = 1 };

enum flc_border { FLC_FARTHEST = 0, FLC_SECOND_NEAREST = 1 };

enum flc_padding { FLC_CONSTANT = 0, FLC_REFLECT, FLC_REPLICATE, FLC_CIRCULAR };

// Read through any strides. Of `axes` sizes and strides, the rest is not looked at. An image is three axes,
// [images or regions, rows, columns], volumes are four, [B, D, H, W].
typedef struct flc_tensor {
  const void* data;
  int32_t dtype;
  int32_t axes;
  int64_t size[FLC_MOST_AXES];
  int64_t stride[FLC_MOST_AXES];
} flc_tensor;

// The settings, by their names in fastlogconv/settings.py, and what follows from them for images of one size
// and results of one precision, by its names in fastlogconv/numerics.py: derived there for all backends.
//
// An unknown distance or border gives FLC_UNSUPPORTED. The other numbers are taken as they are, and memory is
// laid out by them. A caller who does not pass on what numerics.py gives has to hold that
//
//   bws, fds, bwf, fbr  are in the ranges of settings.py;
//   decay_length        is at least 1e-12; it and bits_per_step, limit, bits_that_matter and largest_sum are
//                       finite and >= 0;
//   the scales          (step_scale, border_scale) are from 1e-30 to 1e30, exponents from -1e30 to -1e-30;
//   radius              is >= 0 and less than the image's longer side; with FLC_EUCLIDEAN it is the reach;
//   reach, cut_radius   are >= 0 and at most radius; with FLC_EUCLIDEAN the reach is at most 2^29 and the
//                       image's diagonal, rounded up;
//   scale_exponent      is from 0 to 63;
//   double_inside       is 0 or 1; without effect where results are float64;
//   the last two        are from 0 to 1: the falloff is sum_factor times the sum over the instances of
//                       exp(-d^2 / (2 fds^2)), plus nearest_factor times the sum over the classes of that
//                       of the nearest instance alone.
typedef struct flc_weight_params {
  int32_t distance;  // flc_distance
  int32_t border;    // flc_border
  double bws;
  double fds;
  double bwf;
  double fbr;
  double decay_length;  // lmbda
  double bits_per_step;
  double foreground_exponent;
  double border_exponent;
  double step_scale;
  double border_scale;
  double limit;
  double bits_that_matter;
  double largest_sum;
  int64_t radius;
  int64_t reach;
  int64_t cut_radius;
  int64_t scale_exponent;
  int64_t double_inside;
  double sum_factor;
  double nearest_factor;
} flc_weight_params;

FLC_API int32_t flc_abi_version(void);

// The instruction set in use: "avx512", "avx2", "baseline"; on aarch64 "neon".
FLC_API const char* flc_cpu_instruction_set(void);

// Chooses one of them by name, for tests and benchmarks; FLC_UNSUPPORTED where this CPU lacks it.
FLC_API int32_t flc_cpu_use_instruction_set(const char* name);

// Labels to weights: contiguous [B, H, W], float32 or (out_dtype) float64. Labels <= 0 are background. Any
// tensor but one of the first two may be null; all are [B, H, W]:
//
//   instances   Without them, the 4-connected components of each class.
//   classes     Without them, one class. Where a class and an instance meet, there is an instance of the
//               class; the border term is that within each class, summed over classes.
//   foreground  Where it is positive the weight is 1; without it, where instances are.
//   ignore      bool; where it is true the weight is 0 and there is no instance.
//
// bad_value receives the offending label with FLC_NOT_AN_ID.
FLC_API int32_t flc_cpu_weight_map(const flc_tensor* instances, const flc_tensor* classes,
                                   const flc_tensor* foreground, const flc_tensor* ignore,
                                   const flc_weight_params* params, void* out, int32_t out_dtype,
                                   int32_t threads, double* bad_value);

// Instances, as above, to class labels: contiguous [B, H, W] of int32, with a ridge of background between
// touching instances of a class. Classes must fit int32.
FLC_API int32_t flc_cpu_class_labels(const flc_tensor* instances, const flc_tensor* classes, int32_t* out,
                                     int32_t threads, double* bad_value);

// Region masks [N, H, W], floating point or bool, to weights [H, W]; ignore is bool [1, H, W] or null.
FLC_API int32_t flc_cpu_region_weight_map(const flc_tensor* masks, const flc_tensor* ignore,
                                          const flc_weight_params* params, void* out, int32_t out_dtype,
                                          int32_t threads, double* bad_value);

// Distances [N, H, W] (+inf: out of reach) and a foreground mask, bool [1, H, W] or null, to weights [H, W].
FLC_API int32_t flc_cpu_distance_to_weight(const flc_tensor* distance, const flc_tensor* foreground,
                                           const flc_weight_params* params, void* out, int32_t out_dtype,
                                           int32_t threads, double* bad_value);

// The separable lambda-kernel convolution of [N, H, W], out contiguous, float32 or float64. decay_length > 0,
// radius >= 0; with FLC_REFLECT the radius is less than H and W, with FLC_CIRCULAR at most as large.
FLC_API int32_t flc_cpu_separable_conv2d(const flc_tensor* input, double decay_length, int64_t radius,
                                         int32_t padding, void* out, int32_t out_dtype, int32_t threads);

// The weights of flc_cpu_nearest_weight_map, see there.
typedef struct flc_nearest_params {
  double spacing[3];  // the length of a voxel along D, H and W: the unit of all that follows
  double one;
  double zero;
  double fall;
  double bwf;
  double foreground_exponent;  // < 0, per squared unit, of the power of 2 that the term is
  double border_exponent;
  double limit;       // a nearest instance beyond it adds nothing
  double pair_limit;  // near + second beyond it add nothing
  int64_t border_everywhere;  // 0 or 1
} flc_nearest_params;

// The exact distances to the `count` (1 or 2) nearest instances: contiguous [count, B, D, H, W], float32 or
// (out_dtype) float64, +inf where there is no such instance, 0 to a voxel's own. labels and ignore (bool or
// null: there is no instance) are [B, D, H, W], an image being a volume of depth 1. `ids` [B, D, H, W], which
// may be null, are those of the nearest, 0 where there is none; of several that are equally near, the smallest.
// (Where ids are asked for, float32 results are computed in double unless all squares of distances are exact
// in float; distances whose squares differ by less than double tells apart count as equal.) Each spacing is
// from 1e-30 to 1e30. Scratch memory: 12 bytes a voxel, 24 where double is computed in, and for each thread as
// much for a plane of H x W, with rows rounded up to whole vectors of at most 64 bytes.
FLC_API int32_t flc_cpu_nearest_instances(const flc_tensor* labels, const flc_tensor* ignore,
                                          const double spacing[3], int32_t count, void* distances,
                                          int32_t out_dtype, int64_t* ids, int32_t threads,
                                          double* bad_value);

// Labels to weights by the two nearest instances alone: contiguous [B, D, H, W] of out_dtype. On background
//
//   w = zero + sum over classes of (fall 2^(foreground_exponent near^2)
//                                   + bwf 2^(border_exponent (near + second)^2))
//
// on foreground `one`, plus bwf's term with border_everywhere; 0 where `ignore` is true. Tensors are
// [B, D, H, W], any but the labels may be null, and they mean what they do in flc_cpu_weight_map. Distances go
// to whole instances, so to those at a labelled voxel near is 0, be it foreground or not. The time grows with
// the number of classes.
//
// `balanced` (without classes alone): in place of the parameters' one and zero, those with which foreground and
// background of a volume have the same total, N / (K n): n voxels of the kind, N that are not ignored, K kinds
// among these.
FLC_API int32_t flc_cpu_nearest_weight_map(const flc_tensor* labels, const flc_tensor* classes,
                                           const flc_tensor* foreground, const flc_tensor* ignore,
                                           const flc_nearest_params* params, int32_t balanced, void* out,
                                           int32_t out_dtype, int32_t threads, double* bad_value);

// Where labels are foreground once there are gaps between those that touch: 1 in `out`, contiguous
// [B, D, H, W], where a label (and its class) is positive and none of the neighbours that come before it in
// scan order, of 8 in a plane and 26 in all, has another positive label (of the same class). labels of any type
// and classes (int32, may be null) are [B, D, H, W]; values are not checked.
FLC_API int32_t flc_cpu_foreground_with_gaps(const flc_tensor* labels, const flc_tensor* classes,
                                             uint8_t* out, int32_t threads);

// ---------------------------------------------------------------------------------------------------- CUDA
//
// A library of its own. As above, with these differences: `data` and `out` are memory of `device`, the work
// is queued on `stream` (a cudaStream_t) and not waited for, a value that is no id goes unnoticed and gives
// weights without meaning, and beside flc_status a function may return the negative of a cudaError_t.
// `scratch` is memory of the device for the duration of the work, as many bytes as the function of that name
// asks for, of any content.

FLC_API int32_t flc_cuda_abi_version(void);

// Versions of CUDA, 1000 major + 10 minor: that of the runtime in this library, and the newest that the driver
// serves (0 without a driver). The driver's major version must not be the lower one.
FLC_API int32_t flc_cuda_runtime_version(void);
FLC_API int32_t flc_cuda_driver_version(void);

// The text of a cudaError_t.
FLC_API const char* flc_cuda_error_text(int32_t error);

// Labels to weights, as on the CPU; classes (int32), foreground and ignore (both bool) may be null.
FLC_API int64_t flc_cuda_weight_map_scratch_bytes(const flc_tensor* labels, const flc_tensor* classes,
                                                  const flc_tensor* ignore);
FLC_API int32_t flc_cuda_weight_map(const flc_tensor* labels, const flc_tensor* classes,
                                    const flc_tensor* foreground, const flc_tensor* ignore,
                                    const flc_weight_params* params, void* out, int32_t out_dtype,
                                    void* scratch, int32_t device, void* stream);

FLC_API int64_t flc_cuda_region_weight_map_scratch_bytes(const flc_tensor* masks);
FLC_API int32_t flc_cuda_region_weight_map(const flc_tensor* masks, const flc_tensor* ignore,
                                           const flc_weight_params* params, void* out, int32_t out_dtype,
                                           void* scratch, int32_t device, void* stream);

FLC_API int32_t flc_cuda_distance_to_weight(const flc_tensor* distance, const flc_tensor* foreground,
                                            const flc_weight_params* params, void* out, int32_t out_dtype,
                                            int32_t device, void* stream);

// As on the CPU, with ignore of bool. `with_ids`: whether ids are asked for.
FLC_API int64_t flc_cuda_nearest_instances_scratch_bytes(const flc_tensor* labels, const double spacing[3],
                                                         int32_t out_dtype, int32_t with_ids);
FLC_API int32_t flc_cuda_nearest_instances(const flc_tensor* labels, const flc_tensor* ignore,
                                           const double spacing[3], int32_t count, void* distances,
                                           int32_t out_dtype, int64_t* ids, void* scratch, int32_t device,
                                           void* stream);

// As on the CPU, with classes of int32, foreground and ignore of bool. For 16 classes many blocks work
// together; the 17th and further ones take many times as long.
FLC_API int64_t flc_cuda_nearest_weight_map_scratch_bytes(const flc_tensor* labels,
                                                          const flc_nearest_params* params,
                                                          int32_t out_dtype);
FLC_API int32_t flc_cuda_nearest_weight_map(const flc_tensor* labels, const flc_tensor* classes,
                                            const flc_tensor* foreground, const flc_tensor* ignore,
                                            const flc_nearest_params* params, void* out, int32_t out_dtype,
                                            void* scratch, int32_t device, void* stream);

FLC_API int64_t flc_cuda_separable_conv2d_scratch_bytes(const flc_tensor* input, double decay_length,
                                                        int64_t radius, int32_t padding, int32_t out_dtype);
FLC_API int32_t flc_cuda_separable_conv2d(const flc_tensor* input, double decay_length, int64_t radius,
                                          int32_t padding, void* out, int32_t out_dtype, void* scratch,
                                          int32_t device, void* stream);

#ifdef __cplusplus
}
#endif
