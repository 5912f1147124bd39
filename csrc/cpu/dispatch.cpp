#include "cpu/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#if defined(FLC_HAVE_AVX2) || defined(FLC_HAVE_AVX512)
#include <cpuid.h>
#endif

namespace flc {

#if defined(__aarch64__)
extern const Kernels kernels_neon;
constexpr const Kernels& usual_kernels = kernels_neon;
#else
extern const Kernels kernels_baseline;
constexpr const Kernels& usual_kernels = kernels_baseline;
#endif
#if defined(FLC_HAVE_AVX2)
extern const Kernels kernels_avx2;
#endif
#if defined(FLC_HAVE_AVX512)
extern const Kernels kernels_avx512;
#endif

namespace {

#if defined(FLC_HAVE_AVX2) || defined(FLC_HAVE_AVX512)
// What CPUID and XGETBV say: __builtin_cpu_supports needs a runtime library that not every compiler brings.
struct Cpu {
  bool avx2 = false, avx512 = false;

  Cpu() {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return;
    constexpr unsigned fma = 1u << 12, xgetbv = 1u << 27, avx = 1u << 28;
    if (!all(ecx, fma | xgetbv | avx)) return;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return;
    // The CPU's word is not enough: the system has to keep the registers of a thread that waits. (macOS turns
    // those of AVX-512 on when they are first used, and until then says that it does not: there AVX2 serves.)
    const unsigned kept = kept_registers();
    constexpr unsigned ymm = 0x6, zmm_and_masks = 0xe6;
    constexpr unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
    avx2 = all(ebx, 1u << 5) && all(kept, ymm);
    avx512 = avx2 && all(ebx, f | dq | bw | vl) && all(kept, zmm_and_masks);
  }

  static bool all(unsigned bits, unsigned wanted) { return (bits & wanted) == wanted; }

  static unsigned kept_registers() {
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
  }
};
#endif

// Fastest first; null where this CPU or its system lacks it.
const Kernels* available(const char* name) {
  const auto wanted = [name](const Kernels& kernels) { return !name || !std::strcmp(name, kernels.name); };
#if defined(FLC_HAVE_AVX2) || defined(FLC_HAVE_AVX512)
  const Cpu cpu;
#endif
#if defined(FLC_HAVE_AVX512)
  if (wanted(kernels_avx512) && cpu.avx512) return &kernels_avx512;
#endif
#if defined(FLC_HAVE_AVX2)
  if (wanted(kernels_avx2) && cpu.avx2) return &kernels_avx2;
#endif
  return wanted(usual_kernels) ? &usual_kernels : nullptr;
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
