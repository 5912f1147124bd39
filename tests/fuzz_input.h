// Random tensors and settings for fuzz.cpp, within what the C interface asks of its callers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <random>
#include <type_traits>

#include "fastlogconv.h"

namespace {

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
  // Stands for nothing, now or later.
  int32_t no_code() { return one_of<int32_t>({-1, INT32_MIN, INT32_MAX}); }
  // Mostly as people set it, sometimes as far out as a double allows.
  double positive() {
    const double exponent = once_in(8) ? std::uniform_real_distribution<>(-300, 300)(bits)
                                       : std::uniform_real_distribution<>(-1.5, 2)(bits);
    return std::pow(10.0, exponent);
  }
};

inline constexpr int64_t item_sizes[] = {1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8};
constexpr int32_t n_dtypes = 13;

// A tensor and the memory it reads, no byte more.
struct Input {
  flc_tensor tensor;
  std::unique_ptr<unsigned char, decltype(&std::free)> memory{nullptr, std::free};
};

// Of images [B, H, W] or of volumes [B, D, H, W].
struct Size {
  int64_t n[4];
  int axes = 3;
  int64_t pixels() const { return n[0] * n[1] * n[2] * (axes == 3 ? 1 : n[3]); }
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
  const int axes = size.axes, other_axes = 7 - axes;
  tensor.axes = random.once_in(60) ? random.one_of<int32_t>({-1, 0, 1, 2, other_axes, 5, INT32_MAX}) : axes;
  int order[] = {axes - 1, axes - 2, axes - 3, axes - 4};
  if (random.once_in(3)) std::shuffle(order, order + axes, random.bits);
  int64_t step = random.once_in(3) ? random.between(1, 3) : 1, lowest = 0, highest = 0;
  for (int place = 0; place < axes; ++place) {
    const int axis = order[place];
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

// The derived numbers: half of the time what fits the settings, else anything that the interface allows.
void derive(Random& random, int64_t height, int64_t width, bool fitting, flc_weight_params& params) {
  const auto scale = [&random] { return std::clamp(random.positive(), 1e-30, 1e30); };
  const auto exponent = [&](double sigma) {
    return fitting ? -std::clamp(0.5 / std::log(2) / (sigma * sigma), 1e-30, 1e30) : -scale();
  };
  params.decay_length = std::max(random.positive(), 1e-12);
  params.bits_per_step = random.positive();
  params.foreground_exponent = exponent(params.fds);
  params.border_exponent = exponent(params.bws);
  params.step_scale = scale();
  params.border_scale = scale();
  params.limit = random.positive();
  params.bits_that_matter = random.positive();
  if (params.distance == FLC_EUCLIDEAN) {
    params.reach = random.between(0, int64_t(std::ceil(std::hypot(height, width))));
    params.radius = params.reach;
  } else {
    params.radius = random.between(0, std::max<int64_t>({height, width, 1}) - 1);
    params.reach = random.between(0, params.radius);
  }
  params.cut_radius = random.between(0, params.radius);
  const double whole = std::expm1(-double(params.radius + 1) / params.decay_length);
  params.largest_sum = fitting ? 2 * whole / std::expm1(-1 / params.decay_length) - 1 : random.positive();
  params.scale_exponent = random.between(0, 63);
  params.double_inside = fitting ? params.decay_length > std::min(params.fds, params.bws) : random.once_in(2);
}

struct Params {
  flc_weight_params c;
  bool known;     // the codes of its rules
  bool moderate;  // gives finite weights
};

Params random_params(Random& random, int64_t height, int64_t width) {
  Params params{};
  const bool known_distance = !random.once_in(30), known_border = !random.once_in(30);
  const bool fitting = random.once_in(2);
  flc_weight_params& c = params.c;
  c.distance = known_distance ? random.one_of<int32_t>({FLC_LOGCONV, FLC_EUCLIDEAN}) : random.no_code();
  c.border = known_border ? random.one_of<int32_t>({FLC_FARTHEST, FLC_SECOND_NEAREST}) : random.no_code();
  c.bws = random.positive();
  c.fds = random.positive();
  c.bwf = random.once_in(5) ? 0 : random.positive();
  c.fbr = random.once_in(5) ? 0 : random.positive();
  derive(random, height, width, fitting, c);
  const auto factor = [&random] { return random.one_of<double>({0.0, 0.5, 1.0}); };
  c.sum_factor = random.once_in(2) ? 1.0 : factor();
  c.nearest_factor = random.once_in(2) ? 0.0 : factor();
  const auto moderate = [](double value) { return value == 0 || (value > 1e-3 && value < 1e3); };
  params.known = known_distance && known_border;
  params.moderate = fitting && moderate(c.bws) && moderate(c.fds) && moderate(c.bwf) && moderate(c.fbr) &&
                    moderate(c.decay_length);
  return params;
}

// Whether tensors, null where there is none, have so many axes.
bool have_axes(std::initializer_list<const flc_tensor*> tensors, int32_t axes) {
  return std::all_of(tensors.begin(), tensors.end(),
                     [axes](const flc_tensor* tensor) { return !tensor || tensor->axes == axes; });
}

bool are_images(std::initializer_list<const flc_tensor*> tensors) {
  return have_axes(tensors, 3);
}

}  // namespace
