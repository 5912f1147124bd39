// What C++ made from PTX is built with.
#pragma once

#include "arithmetic.h"
#include "warp.h"

// Runs every `step`-th block of a grid, `threads` at a time.
inline void launch(const u32* grid, const u32* block_shape, u64 shared_bytes, int threads, u64 step,
                   const std::function<void()>& kernel) {
  races = 0;
  std::atomic<u64> next{0};
  const u64 blocks = u64(grid[0]) * grid[1] * grid[2];
  const auto work = [&] {
    grid_size = {grid[0], grid[1], grid[2]};
    block_size = {block_shape[0], block_shape[1], block_shape[2]};
    block = new Block;
    fragments = new Fragments;
    copies = new Copies[1024];
    shared.allocate(shared_bytes);
#ifdef PROFILE
    counter = new Counter;
#endif
    for (u64 i; (i = step * next++) < blocks;) {
      block_id = {u32(i % grid[0]), u32(i / grid[0] % grid[1]), u32(i / grid[0] / grid[1])};
      shared.poison();
      std::fill_n(copies, 1024, Copies{});
      run_block(kernel);
#ifdef PROFILE
      counter->flush();
#endif
    }
#ifdef PROFILE
    delete counter;
#endif
    shared.release();
    delete[] copies;
    delete fragments;
    free_block();
  };
  if (threads <= 1) return work();
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
}
