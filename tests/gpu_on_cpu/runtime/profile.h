// Counts, where built with -DPROFILE: how often each warp ran each basic block, and what its memory accesses
// take.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <unordered_set>

#include "fibers.h"

#ifdef PROFILE

struct Totals {
  std::map<u32, std::pair<u64, u64>> blocks;  // runs by warps, by threads
  u64 sectors = 0, wavefronts = 0;
  std::unordered_set<u64> touched;  // sectors, each once: what a cache that forgets nothing would move
  std::mutex mutex;
};
inline Totals totals;

struct Access {
  u64 address;
  u32 size;
};

// What one CPU thread counted of the block that it runs.
struct Counter {
  std::vector<std::vector<u32>> runs{1024};                               // of basic blocks, by thread
  std::map<int, std::vector<std::vector<Access>>> global, shared;         // by PTX line, by thread

  void run(u32 basic_block) {
    std::vector<u32>& own = runs[thread_index()];
    if (own.size() <= basic_block) own.resize(basic_block + 1);
    ++own[basic_block];
  }

  void access(bool is_shared, u64 address, u32 size, int line) {
    auto& threads = (is_shared ? shared : global)[line];
    if (threads.empty()) threads.resize(1024);
    threads[thread_index()].push_back({address, size});
  }

  // Calls function(accesses) for the k-th access of a line by each lane of a warp.
  template <class F>
  static void for_requests(const std::map<int, std::vector<std::vector<Access>>>& lines, const F& function) {
    for (const auto& [line, threads] : lines) {
      for (size_t warp = 0; warp < 32; ++warp) {
        size_t most = 0;
        for (size_t l = 0; l < 32; ++l) most = std::max(most, threads[32 * warp + l].size());
        for (size_t k = 0; k < most; ++k) {
          std::vector<Access> request;
          for (size_t l = 0; l < 32; ++l) {
            const auto& accesses = threads[32 * warp + l];
            if (k < accesses.size()) request.push_back(accesses[k]);
          }
          function(request);
        }
      }
    }
  }

  void flush() {
    std::lock_guard<std::mutex> lock(totals.mutex);
    for (size_t warp = 0; warp < 32; ++warp) {
      std::vector<u32> most;
      for (size_t t = 32 * warp; t < 32 * warp + 32; ++t) {
        most.resize(std::max(most.size(), runs[t].size()));
        for (size_t b = 0; b < runs[t].size(); ++b) {
          most[b] = std::max(most[b], runs[t][b]);
          totals.blocks[u32(b)].second += runs[t][b];
        }
      }
      for (size_t b = 0; b < most.size(); ++b) totals.blocks[u32(b)].first += most[b];
    }
    for_requests(global, [](const std::vector<Access>& request) {
      std::set<u64> sectors;
      for (const Access& a : request) {
        for (u64 s = a.address / 32; s <= (a.address + a.size - 1) / 32; ++s) sectors.insert(s);
      }
      totals.sectors += sectors.size();
      totals.touched.insert(sectors.begin(), sectors.end());
    });
    for_requests(shared, [](const std::vector<Access>& request) {
      std::map<u64, std::set<u64>> words_of_bank;
      for (const Access& a : request) {
        for (u64 w = a.address / 4; w <= (a.address + a.size - 1) / 4; ++w) words_of_bank[w % 32].insert(w);
      }
      size_t wavefronts = 0;
      for (const auto& [bank, words] : words_of_bank) wavefronts = std::max(wavefronts, words.size());
      totals.wavefronts += wavefronts;
    });
    for (auto& thread_runs : runs) thread_runs.clear();
    global.clear();
    shared.clear();
  }
};
inline constinit thread_local Counter* counter = nullptr;

#define COUNT_BLOCK(index) counter->run(index)
#define COUNT_ACCESS(is_shared, address, size, line) counter->access(is_shared, address, size, line)

extern "C" __attribute__((used)) inline const char* take_profile() {
  static std::string text;
  text = "{\"blocks\": [";
  const char* separator = "";
  for (const auto& [basic_block, runs] : totals.blocks) {
    text += separator + ("[" + std::to_string(basic_block)) + ", " + std::to_string(runs.first) + ", " +
            std::to_string(runs.second) + "]";
    separator = ", ";
  }
  text += "], \"sectors\": " + std::to_string(totals.sectors) +
          ", \"touched\": " + std::to_string(totals.touched.size()) +
          ", \"wavefronts\": " + std::to_string(totals.wavefronts) + "}";
  totals.blocks.clear();
  totals.touched.clear();
  totals.sectors = totals.wavefronts = 0;
  return text.c_str();
}

#else

#define COUNT_BLOCK(index)
#define COUNT_ACCESS(is_shared, address, size, line)
extern "C" __attribute__((used)) inline const char* take_profile() {
  return "{}";
}

#endif
