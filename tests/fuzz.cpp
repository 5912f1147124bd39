// Calls every function of the C interface with random tensors and settings, built with AddressSanitizer and
// UndefinedBehaviorSanitizer: every tensor and every result is allocated to the byte. See `make fuzz`.
//
//   fuzz SECONDS [FIRST_CASE]     each case is made from its number, which is printed when it fails
#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <random>
#include <type_traits>
#include <vector>

#include "fastlogconv.h"

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

struct Random {
  std::mt19937_64 bits;

  int64_t between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(bits);
  }
  bool once_in(int64_t n) { return between(1, n) == 1; }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[between(0, values.size() - 1)];
  }
  // Mostly as people set it, sometimes as far out as a double allows.
  double positive() {
    const double exponent = once_in(8) ? std::uniform_real_distribution<>(-300, 300)(bits)
                                       : std::uniform_real_distribution<>(-1.5, 2)(bits);
    return std::pow(10.0, exponent);
  }
};

constexpr int64_t item_sizes[] = {1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8};
constexpr int32_t n_dtypes = 13;

// A tensor and the memory it reads, no byte more.
struct Input {
  flc_tensor tensor;
  std::unique_ptr<unsigned char, decltype(&std::free)> memory{nullptr, std::free};
};

struct Size {
  int64_t n[3];
  int64_t pixels() const { return n[0] * n[1] * n[2]; }
};

Size random_size(Random& random) {
  const int64_t longest = random.once_in(10) ? 400 : 40;
  Size size{{random.between(0, 3), random.between(0, 40), random.between(0, longest)}};
  if (random.once_in(2)) size.n[1] = size.n[2];
  if (size.n[1] > 40) size.n[1] = 1;
  return size;
}

enum class Values { ids, garbage, mask };

double random_value(Random& random, Values values, int64_t largest) {
  switch (values) {
    case Values::ids:
      return double(random.between(-1, largest));
    case Values::mask:
      return random.once_in(2) ? 0.0 : std::uniform_real_distribution<>(0, 1)(random.bits);
    default:
      return random.one_of<double>({0.0, 1.0, 0.5, -3.0, NAN, INFINITY, -INFINITY, 1e19, 9e18, 3e38, 1e-310});
  }
}

template <class T>
void put(unsigned char* where, double value) {
  T converted;
  if constexpr (std::is_integral_v<T>) {
    converted = std::isfinite(value) ? T(int64_t(std::fmod(value, 9e18))) : T(77);
  } else {
    converted = T(value);
  }
  std::memcpy(where, &converted, sizeof converted);
}

void put(int32_t dtype, unsigned char* where, double value) {
  uint32_t bits;
  const float single = float(value);
  std::memcpy(&bits, &single, 4);
  switch (dtype) {
    case FLC_BOOL:
      return put<uint8_t>(where, value > 0);
    case FLC_UINT8:
      return put<uint8_t>(where, value);
    case FLC_INT8:
      return put<int8_t>(where, value);
    case FLC_UINT16:
      return put<uint16_t>(where, value);
    case FLC_INT16:
      return put<int16_t>(where, value);
    case FLC_UINT32:
      return put<uint32_t>(where, value);
    case FLC_INT32:
      return put<int32_t>(where, value);
    case FLC_UINT64:
      return put<uint64_t>(where, value);
    case FLC_INT64:
      return put<int64_t>(where, value);
    case FLC_BFLOAT16:
      return put<uint16_t>(where, bits >> 16);
    case FLC_FLOAT32:
      return put<float>(where, value);
    case FLC_FLOAT64:
      return put<double>(where, value);
    default:
      return put<uint16_t>(where, value != 0 ? 0x3c00 : 0);  // float16: 1 or 0
  }
}

// Rows, columns and images in any order, forwards or backwards, with gaps, or all the same.
Input random_input(Random& random, const Size& size, int32_t dtype, Values values) {
  Input input;
  flc_tensor& tensor = input.tensor;
  tensor.dtype = dtype;
  int order[] = {2, 1, 0};
  if (random.once_in(3)) std::shuffle(order, order + 3, random.bits);
  int64_t step = random.once_in(3) ? random.between(1, 3) : 1, lowest = 0, highest = 0;
  for (const int axis : order) {
    tensor.size[axis] = size.n[axis];
    tensor.stride[axis] = random.once_in(6) ? -step : random.once_in(12) ? 0 : step;
    step *= size.n[axis] > 0 ? size.n[axis] : 1;
    const int64_t last = (size.n[axis] > 0 ? size.n[axis] - 1 : 0) * tensor.stride[axis];
    (last < 0 ? lowest : highest) += last;
  }
  const int64_t items = size.pixels() ? highest - lowest + 1 : 0, item = item_sizes[dtype];
  input.memory.reset(static_cast<unsigned char*>(std::malloc(items * item)));
  tensor.data = input.memory.get() - lowest * item;
  const int64_t largest = random.one_of<int64_t>({1, 3, 12, 120, int64_t(9e18)}), run = random.between(1, 12);
  for (int64_t i = 0; i < items; ++i) {
    const bool repeat = i > 0 && i % run;
    unsigned char* const where = input.memory.get() + i * item;
    if (repeat) {
      std::memcpy(where, where - item, item);
    } else {
      put(dtype, where, random.once_in(3) ? 0.0 : random_value(random, values, largest));
    }
  }
  return input;
}

flc_weight_params random_params(Random& random) {
  flc_weight_params params;
  params.border_weight_sigma = random.positive();
  params.foreground_dist_sigma = random.positive();
  params.border_weight_factor = random.once_in(5) ? 0 : random.positive();
  params.foreground_background_ratio = random.once_in(5) ? 0 : random.positive();
  params.decay_length = random.positive();
  params.radius =
      random.once_in(6) ? random.one_of<int64_t>({1 << 30, int64_t(1) << 62}) : random.between(0, 90);
  params.border = random.one_of<int32_t>({FLC_FARTHEST, FLC_SECOND_NEAREST});
  params.distance = random.one_of<int32_t>({FLC_LOGCONV, FLC_EUCLIDEAN});
  return params;
}

bool is_moderate(const flc_weight_params& params) {
  const auto moderate = [](double value) { return value == 0 || (value > 1e-3 && value < 1e3); };
  return moderate(params.border_weight_sigma) && moderate(params.foreground_dist_sigma) &&
         moderate(params.border_weight_factor) && moderate(params.foreground_background_ratio) &&
         moderate(params.decay_length);
}

// Calls with one thread and with three; the results are to be the same to the bit, and finite where asked.
template <class Result, class Call>
void check_result(int64_t n, bool finite, const Call& call) {
  std::unique_ptr<Result[]> results[2];
  int32_t status[2];
  for (int i = 0; i < 2; ++i) {
    results[i].reset(new Result[n]);
    std::memset(static_cast<void*>(results[i].get()), 0xff, n * sizeof(Result));  // NaN
    status[i] = call(results[i].get(), i == 0 ? 1 : 3);
    require(status[i] >= FLC_OK && status[i] <= FLC_UNSUPPORTED, "a status that does not exist");
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
void check_weights(Random& random, int64_t n, bool finite, const Call& call) {
  const auto with = [&](int32_t dtype) {
    return [&call, dtype](void* out, int32_t threads) {
      double bad_value = 0;
      return call(out, dtype, threads, &bad_value);
    };
  };
  if (random.once_in(2)) {
    check_result<float>(n, finite, with(FLC_FLOAT32));
  } else {
    check_result<double>(n, finite, with(FLC_FLOAT64));
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
};

Labels random_labels(Random& random, const Size& size, bool with_foreground) {
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
  const flc_weight_params params = random_params(random);
  const Labels labels = random_labels(random, size, params.distance == FLC_EUCLIDEAN);
  check_weights(random, size.pixels(), is_moderate(params),
                [&](void* out, int32_t dtype, int32_t threads, double* bad) {
                  return flc_cpu_weight_map(labels.of(0), labels.of(1), labels.of(2), labels.of(3), &params,
                                            out, dtype, threads, bad);
                });
}

void class_labels(Random& random) {
  const Size size = random_size(random);
  const Labels labels = random_labels(random, size, false);
  check_result<int32_t>(size.pixels(), false, [&](int32_t* out, int32_t threads) {
    double bad_value = 0;
    return flc_cpu_class_labels(labels.of(0), labels.of(1), out, threads, &bad_value);
  });
}

void region_weight_map(Random& random) {
  const Size size = random_size(random);
  const flc_weight_params params = random_params(random);
  const Values values = random.once_in(5) ? Values::garbage : Values::mask;
  const Input masks = random_input(random, size, floating_dtype(random), values);
  const Input ignore = random_input(random, {{1, size.n[1], size.n[2]}}, FLC_BOOL, Values::mask);
  const flc_tensor* const ignored = random.once_in(3) ? &ignore.tensor : nullptr;
  check_weights(random, size.n[1] * size.n[2], is_moderate(params),
                [&](void* out, int32_t dtype, int32_t threads, double* bad) {
                  return flc_cpu_region_weight_map(&masks.tensor, ignored, &params, out, dtype, threads, bad);
                });
}

void distance_to_weight(Random& random) {
  const Size size = random_size(random);
  const flc_weight_params params = random_params(random);
  const Values values = random.once_in(3) ? Values::garbage : Values::ids;
  const Input distance =
      random_input(random, size, random.one_of<int32_t>({FLC_FLOAT16, FLC_FLOAT32, FLC_FLOAT64}), values);
  const Input foreground = random_input(random, {{1, size.n[1], size.n[2]}}, FLC_BOOL, Values::mask);
  const flc_tensor* const known = random.once_in(2) ? &foreground.tensor : nullptr;
  check_weights(random, size.n[1] * size.n[2], is_moderate(params),
                [&](void* out, int32_t dtype, int32_t threads, double* bad) {
                  return flc_cpu_distance_to_weight(&distance.tensor, known, &params, out, dtype, threads,
                                                    bad);
                });
}

void separable_conv2d(Random& random) {
  const Size size = random_size(random);
  const int32_t padding = int32_t(random.between(FLC_CONSTANT, FLC_CIRCULAR));
  const int64_t shorter = size.n[1] < size.n[2] ? size.n[1] : size.n[2];
  int64_t radius = random.between(0, 90);
  if (padding == FLC_REFLECT || padding == FLC_CIRCULAR)
    radius = random.between(0, shorter > 0 ? shorter - 1 : 0);
  const double decay_length = random.positive();
  const Input input = random_input(random, size, floating_dtype(random), Values::mask);
  check_weights(random, size.pixels(), false, [&](void* out, int32_t dtype, int32_t threads, double*) {
    return flc_cpu_separable_conv2d(&input.tensor, decay_length, radius, padding, out, dtype, threads);
  });
}

// What the interface is to refuse without a look at the pixels.
void unsupported(Random& random) {
  const flc_weight_params params = random_params(random);
  Input input = random_input(random, {{1, 4, 4}}, FLC_FLOAT64, Values::ids);
  flc_tensor& tensor = input.tensor;
  if (random.once_in(2)) {
    tensor.dtype = random.one_of<int32_t>({-1, n_dtypes, 99});
  } else {
    tensor.size[2] = (int64_t(1) << 30) + 1;
    tensor.stride[0] = tensor.stride[1] = tensor.stride[2] = 0;
  }
  double result[16], bad_value;
  int32_t class_of[16];
  require(flc_cpu_weight_map(&tensor, nullptr, nullptr, nullptr, &params, result, FLC_FLOAT64, 1,
                             &bad_value) == FLC_UNSUPPORTED,
          "weight_map does not refuse");
  require(flc_cpu_region_weight_map(&tensor, nullptr, &params, result, FLC_FLOAT64, 1, &bad_value) ==
              FLC_UNSUPPORTED,
          "region_weight_map does not refuse");
  require(flc_cpu_distance_to_weight(&tensor, nullptr, &params, result, FLC_FLOAT64, 1, &bad_value) ==
              FLC_UNSUPPORTED,
          "distance_to_weight does not refuse");
  require(flc_cpu_class_labels(&tensor, nullptr, class_of, 1, &bad_value) == FLC_UNSUPPORTED,
          "class_labels does not refuse");
  require(flc_cpu_separable_conv2d(&tensor, 1, 3, FLC_CONSTANT, result, FLC_FLOAT64, 1) == FLC_UNSUPPORTED,
          "separable_conv2d does not refuse");
}

void run_case(uint64_t number) {
  current_case = number;
  Random random{std::mt19937_64(number)};
  flc_cpu_use_instruction_set(random.one_of<const char*>({"baseline", "avx2", "avx512"}));  // if there
  switch (random.between(0, 9)) {
    case 0:
      return class_labels(random);
    case 1:
      return distance_to_weight(random);
    case 2:
      return separable_conv2d(random);
    case 3:
    case 4:
      return region_weight_map(random);
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
