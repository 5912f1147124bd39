// Calls every function of the C interface with random tensors and settings, built with AddressSanitizer and
// UndefinedBehaviorSanitizer: every tensor and every result is allocated to the byte. See `make fuzz`.
//
//   fuzz SECONDS [FIRST_CASE]     each case is made from its number, which is printed when it fails
#include <sanitizer/common_interface_defs.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <random>
#include <type_traits>

#include "fastlogconv.h"
#include "fuzz_input.h"

namespace {

uint64_t current_case = 0;

void tell_case() {
  std::fprintf(stderr, "in case %llu: repeat it with `fuzz 0 %llu`\n", (unsigned long long)current_case,
               (unsigned long long)current_case);
}

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  tell_case();
  std::exit(1);
}

// Calls with one thread and with three; the results are to be the same to the bit, and finite where asked.
// What is not supported is to be refused, and nothing else.
template <class Result, class Call>
void check_result(int64_t n, bool supported, bool finite, const Call& call) {
  std::unique_ptr<Result[]> results[2];
  int32_t status[2];
  for (int i = 0; i < 2; ++i) {
    results[i].reset(new Result[n]);
    std::memset(static_cast<void*>(results[i].get()), 0xff, n * sizeof(Result));  // NaN
    status[i] = call(results[i].get(), i == 0 ? 1 : 3);
    require(status[i] >= FLC_OK && status[i] <= FLC_UNSUPPORTED, "a status that does not exist");
    require((status[i] == FLC_UNSUPPORTED) == !supported, supported ? "refused" : "not refused");
  }
  require(status[0] == status[1], "the status depends on the number of threads");
  if (status[0] != FLC_OK) return;
  require(!std::memcmp(results[0].get(), results[1].get(), n * sizeof(Result)),
          "the result depends on the number of threads");
  if constexpr (std::is_floating_point_v<Result>) {
    for (int64_t i = 0; i < n && finite; ++i)
      require(std::isfinite(results[0][i]), "a result that is not finite");
  }
}

template <class Call>
void check_weights(Random& random, int64_t n, bool supported, bool finite, const Call& call) {
  const auto with = [&](int32_t dtype) {
    return [&call, dtype](void* out, int32_t threads) {
      double bad_value = 0;
      return call(out, dtype, threads, &bad_value);
    };
  };
  if (random.once_in(2)) {
    check_result<float>(n, supported, finite, with(FLC_FLOAT32));
  } else {
    check_result<double>(n, supported, finite, with(FLC_FLOAT64));
  }
}

int32_t random_dtype(Random& random) {
  return int32_t(random.between(0, n_dtypes - 1));
}

int32_t floating_dtype(Random& random) {
  return random.one_of<int32_t>({FLC_BOOL, FLC_FLOAT16, FLC_BFLOAT16, FLC_FLOAT32, FLC_FLOAT64});
}

struct Labels {
  Input instances, classes, foreground, ignore;
  bool has[4];
  const flc_tensor* of(int i) const {
    const Input* const all[] = {&instances, &classes, &foreground, &ignore};
    return has[i] ? &all[i]->tensor : nullptr;
  }
  bool supported() const { return are_images({of(0), of(1), of(2), of(3)}); }
};

Labels random_labels(Random& random, const Size& size, bool with_foreground = true) {
  const Values values = random.once_in(5) ? Values::garbage : Values::ids;
  Labels labels{random_input(random, size, random_dtype(random), values),
                random_input(random, size, random_dtype(random), values),
                random_input(random, size, random_dtype(random), values),
                random_input(random, size, FLC_BOOL, Values::mask),
                {}};
  labels.has[0] = !random.once_in(4);
  labels.has[1] = !labels.has[0] || random.once_in(3);
  labels.has[2] = with_foreground && random.once_in(4);
  labels.has[3] = random.once_in(3);
  return labels;
}

void weight_map(Random& random) {
  const Size size = random_size(random);
  const Params params = random_params(random, size.n[1], size.n[2]);
  const Labels labels = random_labels(random, size);
  check_weights(random, size.pixels(), params.known && labels.supported(), params.moderate,
                [&](void* out, int32_t dtype, int32_t threads, double* bad) {
                  return flc_cpu_weight_map(labels.of(0), labels.of(1), labels.of(2), labels.of(3), &params.c,
                                            out, dtype, threads, bad);
                });
}

void class_labels(Random& random) {
  const Size size = random_size(random);
  Labels labels = random_labels(random, size, false);
  labels.has[3] = false;
  check_result<int32_t>(size.pixels(), labels.supported(), false, [&](int32_t* out, int32_t threads) {
    double bad_value = 0;
    return flc_cpu_class_labels(labels.of(0), labels.of(1), out, threads, &bad_value);
  });
}

void region_weight_map(Random& random) {
  const Size size = random_size(random);
  const Params params = random_params(random, size.n[1], size.n[2]);
  const Values values = random.once_in(5) ? Values::garbage : Values::mask;
  const Input masks = random_input(random, size, floating_dtype(random), values);
  const Input ignore = random_input(random, {{1, size.n[1], size.n[2]}}, FLC_BOOL, Values::mask);
  const flc_tensor* const ignored = random.once_in(3) ? &ignore.tensor : nullptr;
  const bool supported = params.known && are_images({&masks.tensor, ignored});
  check_weights(random, size.n[1] * size.n[2], supported, params.moderate,
                [&](void* out, int32_t dtype, int32_t threads, double* bad) {
                  return flc_cpu_region_weight_map(&masks.tensor, ignored, &params.c, out, dtype, threads,
                                                   bad);
                });
}

void distance_to_weight(Random& random) {
  const Size size = random_size(random);
  const Params params = random_params(random, size.n[1], size.n[2]);
  const Values values = random.once_in(3) ? Values::garbage : Values::ids;
  const Input distance =
      random_input(random, size, random.one_of<int32_t>({FLC_FLOAT16, FLC_FLOAT32, FLC_FLOAT64}), values);
  const Input foreground = random_input(random, {{1, size.n[1], size.n[2]}}, FLC_BOOL, Values::mask);
  const flc_tensor* const known = random.once_in(2) ? &foreground.tensor : nullptr;
  const bool supported = params.known && are_images({&distance.tensor, known});
  check_weights(random, size.n[1] * size.n[2], supported, params.moderate,
                [&](void* out, int32_t dtype, int32_t threads, double* bad) {
                  return flc_cpu_distance_to_weight(&distance.tensor, known, &params.c, out, dtype, threads,
                                                    bad);
                });
}

void separable_conv2d(Random& random) {
  const Size size = random_size(random);
  const bool known = !random.once_in(30);
  const int32_t padding = known ? int32_t(random.between(FLC_CONSTANT, FLC_CIRCULAR)) : random.no_code();
  const int64_t shorter = size.n[1] < size.n[2] ? size.n[1] : size.n[2];
  int64_t radius = random.between(0, 90);
  if (padding == FLC_REFLECT || padding == FLC_CIRCULAR)
    radius = random.between(0, shorter > 0 ? shorter - 1 : 0);
  const double decay_length = random.positive();
  const Input input = random_input(random, size, floating_dtype(random), Values::mask);
  const bool supported = known && are_images({&input.tensor});
  check_weights(
      random, size.pixels(), supported, false, [&](void* out, int32_t dtype, int32_t threads, double*) {
        return flc_cpu_separable_conv2d(&input.tensor, decay_length, radius, padding, out, dtype, threads);
      });
}

// A volume: some axes of one voxel.
Size random_volume(Random& random) {
  Size size{{random.between(0, 3), random.between(0, 12), random.between(0, 12), random.between(0, 40)}, 4};
  for (int axis = 1; axis < 4; ++axis)
    if (random.once_in(5)) size.n[axis] = 1;
  return size;
}

bool random_spacing(Random& random, double* spacing) {
  bool known = true;
  for (int axis = 0; axis < 3; ++axis) {
    spacing[axis] = random.once_in(2) ? 1.0 : random.positive();
    if (random.once_in(50)) spacing[axis] = random.one_of<double>({0.0, -1.0, NAN, INFINITY});
    known &= spacing[axis] >= 1e-30 && spacing[axis] <= 1e30;
  }
  return known;
}

void nearest_instances(Random& random) {
  const Size size = random_volume(random);
  const Values values = random.once_in(5) ? Values::garbage : Values::ids;
  const Input labels = random_input(random, size, random_dtype(random), values);
  const Input ignore = random_input(random, size, FLC_BOOL, Values::mask);
  const flc_tensor* const ignored = random.once_in(3) ? &ignore.tensor : nullptr;
  double spacing[3];
  const bool known_spacing = random_spacing(random, spacing);
  const int32_t count = random.once_in(30) ? random.no_code() : int32_t(random.between(1, 2));
  const bool known_count = count == 1 || count == 2;
  const bool supported = known_spacing && known_count && have_axes({&labels.tensor, ignored}, 4);
  const bool with_ids = random.once_in(2);
  const int64_t n = size.pixels();
  check_weights(random, (known_count ? count : 1) * n, supported, false,
                [&](void* out, int32_t dtype, int32_t threads, double* bad) {
                  std::unique_ptr<int64_t[]> ids(new int64_t[n]);
                  return flc_cpu_nearest_instances(&labels.tensor, ignored, spacing, count, out, dtype,
                                                   with_ids ? ids.get() : nullptr, threads, bad);
                });
}

void nearest_weight_map(Random& random) {
  const Size size = random_volume(random);
  Labels labels = random_labels(random, size);
  labels.has[0] = true;
  flc_nearest_params params{};
  const bool known = random_spacing(random, params.spacing);
  const auto factor = [&] { return random.once_in(4) ? 0 : random.positive(); };
  params.one = factor();
  params.zero = factor();
  params.fall = factor();
  params.bwf = factor();
  params.foreground_exponent = -random.positive();
  params.border_exponent = -random.positive();
  params.limit = factor();
  params.pair_limit = factor();
  params.border_everywhere = random.once_in(2);
  const int32_t balanced = random.once_in(3);
  const bool supported = known && have_axes({labels.of(0), labels.of(1), labels.of(2), labels.of(3)}, 4) &&
                         !(balanced && labels.has[1]);
  const auto moderate = [](double value) { return value < 1e3; };
  const bool finite =
      moderate(params.one) && moderate(params.zero) && moderate(params.fall) && moderate(params.bwf);
  check_weights(random, size.pixels(), supported, finite,
                [&](void* out, int32_t dtype, int32_t threads, double* bad) {
                  return flc_cpu_nearest_weight_map(labels.of(0), labels.of(1), labels.of(2), labels.of(3),
                                                    &params, balanced, out, dtype, threads, bad);
                });
}

// What the interface is to refuse without a look at the pixels, beside the codes and axes of the other cases.
void unsupported(Random& random) {
  Params params = random_params(random, 4, 4);
  params.c.distance = random.one_of<int32_t>({FLC_LOGCONV, FLC_EUCLIDEAN});
  params.c.border = random.one_of<int32_t>({FLC_FARTHEST, FLC_SECOND_NEAREST});
  const Input input = random_input(random, {{1, 4, 4}}, FLC_FLOAT64, Values::mask);
  flc_tensor tensor = input.tensor;
  tensor.axes = 3;
  int32_t result_dtype = FLC_FLOAT64;
  const int64_t way = random.between(0, 2);
  if (way == 0) {
    tensor.dtype = random.one_of<int32_t>({-1, n_dtypes, 99});
  } else if (way == 1) {
    tensor.size[2] = (int64_t(1) << 30) + 1;
    tensor.stride[0] = tensor.stride[1] = tensor.stride[2] = 0;
  } else {
    result_dtype = random.one_of<int32_t>({-1, FLC_INT32, FLC_FLOAT16, n_dtypes});
  }
  double result[16], bad_value;
  int32_t class_of[16];
  const auto refused = [](int32_t status, const char* what) { require(status == FLC_UNSUPPORTED, what); };
  refused(
      flc_cpu_weight_map(&tensor, nullptr, nullptr, nullptr, &params.c, result, result_dtype, 1, &bad_value),
      "weight_map does not refuse");
  refused(flc_cpu_region_weight_map(&tensor, nullptr, &params.c, result, result_dtype, 1, &bad_value),
          "region_weight_map does not refuse");
  refused(flc_cpu_distance_to_weight(&tensor, nullptr, &params.c, result, result_dtype, 1, &bad_value),
          "distance_to_weight does not refuse");
  refused(flc_cpu_separable_conv2d(&tensor, 1, 3, FLC_CONSTANT, result, result_dtype, 1),
          "separable_conv2d does not refuse");
  if (way < 2)
    refused(flc_cpu_class_labels(&tensor, nullptr, class_of, 1, &bad_value), "class_labels does not refuse");
}

void run_case(uint64_t number) {
  current_case = number;
  Random random{std::mt19937_64(number)};
  flc_cpu_use_instruction_set(random.one_of<const char*>({"baseline", "avx2", "avx512"}));  // if there
  switch (random.between(0, 12)) {
    case 0:
      return class_labels(random);
    case 1:
      return distance_to_weight(random);
    case 2:
      return separable_conv2d(random);
    case 3:
    case 4:
      return region_weight_map(random);
    case 10:
      return nearest_instances(random);
    case 11:
    case 12:
      return nearest_weight_map(random);
    case 5:
      return random.once_in(10) ? unsupported(random) : weight_map(random);
    default:
      return weight_map(random);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 10;
  const uint64_t first = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : std::random_device{}();
  __sanitizer_set_death_callback(tell_case);
  const auto started = std::chrono::steady_clock::now();
  uint64_t number = first;
  do run_case(number++);
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count() < seconds);
  std::printf("%llu cases passed, from %llu\n", (unsigned long long)(number - first),
              (unsigned long long)first);
}
