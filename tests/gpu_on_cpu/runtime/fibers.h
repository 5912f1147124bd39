// One fiber for each GPU thread of a block; blocks one after another in each of a few CPU threads.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "types.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

inline constinit thread_local Size3 thread_id{}, block_id{}, block_size{}, grid_size{};

extern "C" void switch_stack(void** save, void* load);
asm(R"(.text
.weak switch_stack
.type switch_stack,@function
switch_stack:
 pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
 movq %rsp, (%rdi)
 movq %rsi, %rsp
 popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
 ret
)");

constexpr size_t STACK_BYTES = 128 << 10;

// AddressSanitizer has to know on which stack the code runs.
struct SanitizedStack {
  void* fake = nullptr;
  const void* bottom = nullptr;
  size_t size = 0;
};
#ifdef __SANITIZE_ADDRESS__
inline void leave_stack(SanitizedStack& from, const SanitizedStack& to, bool for_good) {
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake, to.bottom, to.size);
}
inline void enter_stack(const SanitizedStack& own, SanitizedStack* from) {
  __sanitizer_finish_switch_fiber(own.fake, from ? &from->bottom : nullptr, from ? &from->size : nullptr);
}
#else
inline void leave_stack(SanitizedStack&, const SanitizedStack&, bool) {}
inline void enter_stack(const SanitizedStack&, SanitizedStack*) {}
#endif

// In which order the threads of a block take their turns: 0 ascending, 1 descending, else at random by this
// seed.
inline unsigned thread_order = 0;
extern "C" __attribute__((used)) inline void set_thread_order(unsigned order) {
  thread_order = order;
}

enum class State { READY, AT_BARRIER, AT_WARP, DONE };

struct Fiber {
  void* stack_pointer;
  char* stack;
  State state;
  Size3 id;
  const char* waits_at;
  SanitizedStack sanitized;
};

// Lanes of a warp that meet for an operation of theirs. Values are kept for two meetings: a lane may arrive
// at the next one before another has read from the last.
struct Meeting {
  u32 mask, arrived = 0, count = 0;
  const char* operation = nullptr;
  u64 values[2][32];
  u32 present[2];
};

struct Warp {
  std::vector<Meeting> meetings;  // by mask
  u32 alive = 0;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  int running = -1;  // index of the fiber that runs
  void* scheduler = nullptr;
  SanitizedStack scheduler_sanitized;
  const std::function<void()>* body = nullptr;
  u32 arrived = 0, alive = 0, votes = 0;
  u32 epoch = 0;            // barriers passed
  u32 last_votes = 0, last_voters = 0;
};
// Of this CPU thread. A plain pointer, as are the others: their use costs no check whether they were made.
inline constinit thread_local Block* block = nullptr;

inline int thread_index() {
  return block->running;
}
inline u32 lane() {
  return u32(block->running) & 31;
}

[[noreturn]] inline void die(const char* message) {
  std::fprintf(stderr, "gpu_on_cpu: %s in block (%u, %u, %u)\n", message, block_id.x, block_id.y, block_id.z);
  for (size_t i = 0; i < block->fibers.size(); ++i) {
    const Fiber& fiber = block->fibers[i];
    if (i > 0 && fiber.state == block->fibers[i - 1].state && fiber.waits_at == block->fibers[i - 1].waits_at)
      continue;
    const char* const states[] = {"runs", "waits at a barrier:", "waits for its warp:", "has ended"};
    std::fprintf(stderr, "  from thread %zu: %s %s\n", i, states[int(fiber.state)], fiber.waits_at);
  }
  std::fflush(stderr);
  _exit(3);
}

inline void pause(State state, const char* where) {
  Fiber& self = block->fibers[block->running];
  self.state = state;
  self.waits_at = where;
  leave_stack(self.sanitized, block->scheduler_sanitized, state == State::DONE);
  switch_stack(&self.stack_pointer, block->scheduler);
  enter_stack(self.sanitized, &block->scheduler_sanitized);
}

inline void fiber_main() {
  enter_stack({}, &block->scheduler_sanitized);
  (*block->body)();
  pause(State::DONE, "");
  __builtin_unreachable();
}

inline void release(Warp& warp, size_t warp_index, Meeting& meeting) {
  meeting.present[meeting.count & 1] = meeting.arrived;
  meeting.arrived = 0;
  ++meeting.count;
  for (u32 l = 0; l < 32; ++l) {
    const size_t i = 32 * warp_index + l;
    if (meeting.mask >> l & 1 && i < block->fibers.size() && block->fibers[i].state == State::AT_WARP)
      block->fibers[i].state = State::READY;
  }
}

// Waits for the lanes of `mask`; afterwards values[slot] holds what each of them brought.
inline const Meeting& meet(u32 mask, u64 value, const char* operation, u32& slot) {
  const size_t warp_index = block->running / 32;
  Warp& warp = block->warps[warp_index];
  if (!(mask >> lane() & 1)) die("a lane is not in the mask of its own operation");
  size_t k = 0;
  while (k < warp.meetings.size() && warp.meetings[k].mask != mask) ++k;
  if (k == warp.meetings.size()) {
    if (k == 0) warp.meetings.reserve(64);  // lanes hold on to them
    if (k == 64) die("more than 64 masks");
    warp.meetings.push_back({mask});
  }
  Meeting& meeting = warp.meetings[k];
  if (meeting.arrived && meeting.operation != operation)
    die("lanes of one mask meet in different operations");
  meeting.operation = operation;
  slot = meeting.count & 1;
  meeting.values[slot][lane()] = value;
  meeting.arrived |= 1u << lane();
  if ((meeting.arrived & warp.alive) == (mask & warp.alive))
    release(warp, warp_index, meeting);
  else
    pause(State::AT_WARP, operation);
  return meeting;
}

// Waits for the block; afterwards last_votes of last_voters threads brought true.
inline void wait_for_block(bool vote) {
  block->votes += vote;
  ++block->arrived;
  pause(State::AT_BARRIER, "bar.sync");
}

inline bool pass_barrier() {
  if (block->arrived == 0 || block->arrived != block->alive) return false;
  block->last_votes = block->votes;
  block->last_voters = block->arrived;
  block->votes = block->arrived = 0;
  ++block->epoch;
  for (Fiber& fiber : block->fibers) {
    if (fiber.state == State::AT_BARRIER) fiber.state = State::READY;
  }
  return true;
}

inline void prepare_fiber(Fiber& fiber, u32 index) {
  fiber.state = State::READY;
  fiber.waits_at = "";
  fiber.id = {index % block_size.x, index / block_size.x % block_size.y,
              index / (block_size.x * block_size.y)};
  void** const top = reinterpret_cast<void**>(fiber.stack + STACK_BYTES) - 2;
  *top = reinterpret_cast<void*>(fiber_main);
  fiber.stack_pointer = top - 6;  // the registers that switch_stack restores
  fiber.sanitized = {nullptr, fiber.stack, STACK_BYTES};
}

inline void run_block(const std::function<void()>& body) {
  const u32 count = block_size.x * block_size.y * block_size.z;
  while (block->fibers.size() < count) {
    Fiber fiber{};
    fiber.stack = static_cast<char*>(mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    block->fibers.push_back(fiber);
  }
  block->fibers.resize(count);
  block->warps.assign((count + 31) / 32, {});
  block->body = &body;
  block->alive = count;
  block->arrived = block->votes = 0;
  for (u32 i = 0; i < count; ++i) {
    prepare_fiber(block->fibers[i], i);
    block->warps[i / 32].alive |= 1u << (i & 31);
  }
  std::vector<u32> order(count);
  std::iota(order.begin(), order.end(), 0u);
  if (thread_order == 1) std::reverse(order.begin(), order.end());
  if (thread_order > 1) std::shuffle(order.begin(), order.end(), std::minstd_rand(thread_order));
  while (true) {
    bool progress = false;
    for (const u32 i : order) {
      Fiber& fiber = block->fibers[i];
      if (fiber.state != State::READY) continue;
      progress = true;
      block->running = int(i);
      thread_id = fiber.id;
      leave_stack(block->scheduler_sanitized, fiber.sanitized, false);
      switch_stack(&block->scheduler, fiber.stack_pointer);
      enter_stack(block->scheduler_sanitized, nullptr);
      if (fiber.state == State::DONE) {
        Warp& warp = block->warps[i / 32];
        warp.alive &= ~(1u << (i & 31));
        --block->alive;
        for (Meeting& meeting : warp.meetings) {
          if (meeting.arrived && (meeting.arrived & warp.alive) == (meeting.mask & warp.alive))
            release(warp, i / 32, meeting);
        }
      }
    }
    if (block->alive == 0) return;
    if (!pass_barrier() && !progress) die("deadlock");
  }
}

inline void free_block() {
  for (Fiber& fiber : block->fibers) munmap(fiber.stack, STACK_BYTES);
  delete block;
  block = nullptr;
}
