// Threads for one call: none is started where one will do, so forked workers stay safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "cpu/denormals.h"

namespace flc {

// Asks for huge pages behind a large result that was not written yet: faulting in 4 KiB at a time may take
// longer than the computation. Only advice; nothing depends on it.
inline void prefer_huge_pages(void* memory, int64_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t huge_page = 2 << 20;
  if (bytes < 4 * int64_t(huge_page)) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + huge_page - 1) / huge_page * huge_page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / huge_page * huge_page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

// Calls job(i) -> status for i in [0, jobs) on up to `threads` threads, and returns the first status (by i)
// that is not zero. Jobs must not throw.
template <class Job>
int32_t parallel_for(int64_t jobs, int64_t threads, const Job& job) {
  threads = threads < jobs ? threads : jobs;
  if (threads <= 1) {
    const DenormalsAreZero guard;
    for (int64_t i = 0; i < jobs; ++i)
      if (const int32_t status = job(i)) return status;
    return 0;
  }
  std::atomic<int64_t> next{0};
  std::vector<int32_t> statuses(jobs, 0);
  const auto work = [&] {
    const DenormalsAreZero guard;
    for (int64_t i; (i = next.fetch_add(1)) < jobs;) statuses[i] = job(i);
  };
  std::vector<std::thread> others;
  others.reserve(threads - 1);
  try {
    for (int64_t i = 1; i < threads; ++i) others.emplace_back(work);
  } catch (...) {  // no more threads to be had: those that run do the work
  }
  work();
  for (std::thread& other : others) other.join();
  for (const int32_t status : statuses)
    if (status) return status;
  return 0;
}

// Likewise for jobs job(i, bad_value) that may read what is no id or no distance: the last such value is passed
// on. Throws where memory ran out.
template <class Job>
int32_t parallel_reading(int64_t jobs, int64_t threads, double* bad_value, const Job& job) {
  std::vector<double> bad_values(jobs, 0);
  const int32_t status = parallel_for(jobs, threads, [&](int64_t i) { return job(i, &bad_values[i]); });
  for (const double value : bad_values)
    if (value != 0) *bad_value = value;
  return status;
}

}  // namespace flc
