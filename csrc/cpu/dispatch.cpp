#include "cpu/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace flc {

extern const Kernels kernels_baseline;
#if defined(FLC_HAVE_AVX2)
extern const Kernels kernels_avx2;
#endif
#if defined(FLC_HAVE_AVX512)
extern const Kernels kernels_avx512;
#endif

namespace {

// Fastest first; null where this CPU lacks it.
const Kernels* available(const char* name) {
#if defined(FLC_HAVE_AVX512)
  if ((!name || !std::strcmp(name, "avx512")) && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return &kernels_avx512;
#endif
#if defined(FLC_HAVE_AVX2)
  if ((!name || !std::strcmp(name, "avx2")) && __builtin_cpu_supports("avx2") &&
      __builtin_cpu_supports("fma"))
    return &kernels_avx2;
#endif
  return !name || !std::strcmp(name, "baseline") ? &kernels_baseline : nullptr;
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels& kernels() {
  const Kernels* current = chosen.load(std::memory_order_relaxed);
  if (!current) chosen.store(current = available(nullptr), std::memory_order_relaxed);
  return *current;
}

}  // namespace flc

extern "C" {

int32_t flc_abi_version(void) {
  return FLC_ABI_VERSION;
}

const char* flc_cpu_instruction_set(void) {
  return flc::kernels().name;
}

int32_t flc_cpu_use_instruction_set(const char* name) {
  const flc::Kernels* const wanted = flc::available(name);
  if (!wanted) return FLC_UNSUPPORTED;
  flc::chosen.store(wanted);
  return FLC_OK;
}

}  // extern "C"
