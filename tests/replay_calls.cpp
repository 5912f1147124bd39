// Calls a library of fastlogconv with what recorded_calls.py wrote on another system, and compares:
//
//   replay_calls LIBRARY FILE [INSTRUCTION_SET]
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "fastlogconv.h"

namespace {

[[noreturn]] void stop(const char* what, const char* which = "") {
  std::fprintf(stderr, "%s %s\n", what, which);
  std::exit(1);
}

struct Library {
#if defined(_WIN32)
  HMODULE handle;
  explicit Library(const char* path) : handle(LoadLibraryA(path)) {}
  void* find(const char* name) const { return reinterpret_cast<void*>(GetProcAddress(handle, name)); }
#else
  void* handle;
  explicit Library(const char* path) : handle(dlopen(path, RTLD_NOW)) {
    if (!handle) std::fprintf(stderr, "%s\n", dlerror());
  }
  void* find(const char* name) const { return dlsym(handle, name); }
#endif
  template <class Function>
  Function* function(const char* name, Function*) const {
    void* const found = find(name);
    if (!found) stop("the library lacks", name);
    Function* typed;
    std::memcpy(&typed, &found, sizeof(typed));
    return typed;
  }
};
#define FLC_CALL(library, name) library.function(#name, static_cast<decltype(&name)>(nullptr))

struct Reader {
  std::FILE* file;
  template <class T>
  T one() {
    T value;
    bytes(&value, sizeof(value));
    return value;
  }
  void bytes(void* to, size_t count) {
    if (count && std::fread(to, 1, count, file) != count) stop("the file ends too early");
  }
  std::vector<char> block(size_t count) {
    std::vector<char> memory(count);
    bytes(memory.data(), count);
    return memory;
  }
};

struct Input {
  flc_tensor tensor{};
  std::vector<char> memory;
  bool given = false;

  explicit Input(Reader& reader) {
    const int64_t dtype = reader.one<int64_t>();
    if (dtype < 0) return;
    given = true;
    tensor.dtype = int32_t(dtype);
    tensor.axes = int32_t(reader.one<int64_t>());
    reader.bytes(tensor.size, sizeof(tensor.size));
    reader.bytes(tensor.stride, sizeof(tensor.stride));
    memory = reader.block(size_t(reader.one<int64_t>()));
    tensor.data = memory.data();
  }
  const flc_tensor* get() const { return given ? &tensor : nullptr; }
};

enum {
  WEIGHT_MAP,
  REGION_WEIGHT_MAP,
  DISTANCE_TO_WEIGHT,
  NEAREST_WEIGHT_MAP,
  NEAREST_INSTANCES,
  CONVOLUTION,
  CLASS_LABELS,
  WITH_GAPS
};
constexpr int tensors_of[] = {4, 2, 2, 4, 2, 1, 2, 2};

int32_t call(const Library& library, int64_t function, const std::vector<Input>& in, const char* params,
             void* out, int32_t dtype, int64_t* ids, int32_t threads) {
  double bad_value = 0;
  flc_weight_params weight_params{};
  const auto read = [&](auto* value, size_t at = 0) { std::memcpy(value, params + at, sizeof(*value)); };
  switch (function) {
    case WEIGHT_MAP:
      read(&weight_params);
      return FLC_CALL(library, flc_cpu_weight_map)(in[0].get(), in[1].get(), in[2].get(), in[3].get(),
                                                   &weight_params, out, dtype, threads, &bad_value);
    case REGION_WEIGHT_MAP:
      read(&weight_params);
      return FLC_CALL(library, flc_cpu_region_weight_map)(in[0].get(), in[1].get(), &weight_params, out,
                                                          dtype, threads, &bad_value);
    case DISTANCE_TO_WEIGHT:
      read(&weight_params);
      return FLC_CALL(library, flc_cpu_distance_to_weight)(in[0].get(), in[1].get(), &weight_params, out,
                                                           dtype, threads, &bad_value);
    case NEAREST_WEIGHT_MAP: {
      flc_nearest_params nearest;
      int64_t balanced;
      read(&nearest);
      read(&balanced, sizeof(nearest));
      return FLC_CALL(library, flc_cpu_nearest_weight_map)(in[0].get(), in[1].get(), in[2].get(), in[3].get(),
                                                           &nearest, int32_t(balanced), out, dtype, threads,
                                                           &bad_value);
    }
    case NEAREST_INSTANCES: {
      double spacing[3];
      int64_t count;
      read(&spacing);
      read(&count, sizeof(spacing));
      return FLC_CALL(library, flc_cpu_nearest_instances)(in[0].get(), in[1].get(), spacing, int32_t(count),
                                                          out, dtype, ids, threads, &bad_value);
    }
    case CONVOLUTION: {
      double length;
      int64_t radius, padding;
      read(&length);
      read(&radius, 8);
      read(&padding, 16);
      return FLC_CALL(library, flc_cpu_separable_conv2d)(in[0].get(), length, radius, int32_t(padding), out,
                                                         dtype, threads);
    }
    case CLASS_LABELS:
      return FLC_CALL(library, flc_cpu_class_labels)(in[0].get(), in[1].get(), static_cast<int32_t*>(out),
                                                     threads, &bad_value);
    case WITH_GAPS:
      return FLC_CALL(library, flc_cpu_foreground_with_gaps)(in[0].get(), in[1].get(),
                                                             static_cast<uint8_t*>(out), threads);
  }
  stop("the file names a function that is not known here");
}

double element(const std::vector<char>& values, bool single, int64_t i) {
  if (single) {
    float value;
    std::memcpy(&value, &values[size_t(i) * 4], 4);
    return value;
  }
  double value;
  std::memcpy(&value, &values[size_t(i) * 8], 8);
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) stop("replay_calls LIBRARY FILE [INSTRUCTION_SET]");
  const Library library(argv[1]);
  if (!library.handle) stop("cannot load", argv[1]);
  Reader reader{std::fopen(argv[2], "rb")};
  if (!reader.file) stop("cannot read", argv[2]);
  if (reader.one<int64_t>() != FLC_CALL(library, flc_abi_version)()) stop("recorded by another version");
  if (argc > 3 && FLC_CALL(library, flc_cpu_use_instruction_set)(argv[3]) != FLC_OK)
    stop("this CPU has no", argv[3]);

  const int64_t calls = reader.one<int64_t>();
  int64_t failed = 0, same_bits = 0;
  double worst = 0;  // as a fraction of what is allowed
  for (int64_t i = 0; i < calls; ++i) {
    const int64_t function = reader.one<int64_t>(), dtype = reader.one<int64_t>();
    const int64_t n_out = reader.one<int64_t>(), n_ids = reader.one<int64_t>(),
                  n_params = reader.one<int64_t>();
    const double tolerance = reader.one<double>(), floor = reader.one<double>();
    if (function < 0 || function > WITH_GAPS) stop("the file names a function that is not known here");
    std::vector<Input> in;
    for (int t = 0; t < tensors_of[function]; ++t) in.emplace_back(reader);
    const std::vector<char> params = reader.block(size_t(n_params));
    const bool single = dtype == FLC_FLOAT32, real = single || dtype == FLC_FLOAT64;
    const size_t item = dtype == FLC_FLOAT64 ? 8 : dtype == FLC_UINT8 ? 1 : 4;
    const std::vector<char> there = reader.block(size_t(n_out) * item);
    const std::vector<char> wanted = reader.block(real ? size_t(n_out) * 8 : 0);
    const std::vector<char> ids_there = reader.block(size_t(n_ids) * 8);

    bool good = true;
    std::vector<char> first;
    for (const int32_t threads : {1, 3}) {
      std::vector<char> out(there.size(), char(0xff)), ids(ids_there.size(), char(0xff));  // NaN
      const int32_t status = call(library, function, in, params.data(), out.data(), int32_t(dtype),
                                  reinterpret_cast<int64_t*>(ids.data()), threads);
      good = good && status == FLC_OK && ids == ids_there && (threads == 1 || out == first);
      if (threads == 1) first = out;
    }
    same_bits += first == there;
    if (!real) good = good && first == there;
    for (int64_t k = 0; real && k < n_out; ++k) {
      const double value = element(first, single, k), expected = element(wanted, false, k);
      if (value == expected) continue;
      const double allowed = tolerance * std::fmax(floor, std::fabs(expected));
      const double error = std::fabs(value - expected) / allowed;
      if (!(error <= 1)) good = false;
      if (error > worst) worst = error;
    }
    if (!good) {
      ++failed;
      std::printf("call %lld of function %lld differs\n", (long long)i, (long long)function);
    }
  }
  std::printf("%s: %lld calls, %lld with the same bits, %lld wrong, worst error %.2g of what is allowed\n",
              FLC_CALL(library, flc_cpu_instruction_set)(), (long long)calls, (long long)same_bits,
              (long long)failed, worst);
  return failed != 0 || calls == 0;
}
