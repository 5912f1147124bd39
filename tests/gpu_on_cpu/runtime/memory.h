// Memory with every access checked: bounds and alignment, and races in shared memory.
#pragma once

#include "profile.h"

enum Mode { Read, Write, Atomic };

// Memory that a kernel may reach. Its sectors are counted as if it began at one, as memory of a GPU does.
struct Range {
  u64 begin, end, counted_as;
};
inline std::vector<Range> allowed;
inline std::atomic<int> races{0};

extern "C" __attribute__((used)) inline void forbid_all() {
  allowed.clear();
}
extern "C" __attribute__((used)) inline void allow(u64 begin, u64 size) {
  allowed.push_back({begin, begin + size, u64(allowed.size() + 1) << 44});
}
extern "C" __attribute__((used)) inline int race_count() {
  return races;
}

// Which warp touched which bytes of a word of shared memory in the epoch (between two barriers) of the last
// touch.
struct Touch {
  s32 thread = -1;  // the last one; SEVERAL where more than one warp touched bytes of their own
  u32 epoch = ~0u;
  u8 bytes = 0;
};
constexpr s32 SEVERAL = -2;
struct Trace {
  Touch write, read;
  bool by_atomic = false;
};

struct Shared {
  u8* memory;
  u64 size;
  Trace* traces;
  u8* data() const { return memory; }
  void allocate(u64 bytes) {
    size = bytes;
    memory = static_cast<u8*>(std::aligned_alloc(1024, (bytes / 1024 + 1) * 1024));
    traces = new Trace[bytes / 4 + 1];
  }
  void poison() {
    std::memset(memory, 0xfb, size);
    std::fill_n(traces, size / 4 + 1, Trace{});
  }
  void release() {
    std::free(memory);
    delete[] traces;
  }
};
inline constinit thread_local Shared shared{};

[[noreturn]] inline void fault(const char* what, u64 address, u32 size, int line) {
  std::fprintf(stderr, "gpu_on_cpu: %s at 0x%lx, %u bytes, PTX line %d, thread %d of block (%u, %u, %u)\n",
               what, long(address), size, line, thread_index(), block_id.x, block_id.y, block_id.z);
  std::fflush(stderr);
  _exit(3);
}

inline const u8* parameter_at(const u8* parameters, u64 bytes, u64 address) {
  if (address - u64(parameters) >= bytes) die("out-of-bounds access of a parameter");
  return reinterpret_cast<const u8*>(address);
}

inline u8* local_at(u8* local, u64 bytes, u64 address, u32 size, int line) {
  address = u32(address);
  if (address + size > bytes) fault("out-of-bounds access of local memory", address, size, line);
  return local + address;
}

inline u8* global_at(u64 address, u32 size, int line) {
  // A generic pointer may lead to the thread's own local memory or to shared memory.
  const u64 stack = u64(block->fibers[thread_index()].stack), in_shared = u64(shared.data());
  if (address >= stack && address + size <= stack + STACK_BYTES) return reinterpret_cast<u8*>(address);
  if (address >= in_shared && address + size <= in_shared + shared.size)
    return reinterpret_cast<u8*>(address);
  if (address % size) fault("misaligned access of global memory", address, size, line);
  static constinit thread_local Range last{1, 0, 0};
  if (address < last.begin || address + size > last.end) {
    const auto found = std::find_if(allowed.begin(), allowed.end(), [&](const Range& range) {
      return address >= range.begin && address + size <= range.end;
    });
    if (found == allowed.end()) fault("out-of-bounds access of global memory", address, size, line);
    last = *found;
  }
  COUNT_ACCESS(false, address - last.begin + last.counted_as, size, line);
  return reinterpret_cast<u8*>(address);
}

inline void check_race(u64 address, u32 size, int line, Mode mode, const void* values) {
  const s32 self = thread_index();
  for (u64 word = address / 4; word <= (address + size - 1) / 4; ++word) {
    Trace& trace = shared.traces[word];
    const u64 first = std::max(address, 4 * word), last = std::min(address + size, 4 * word + 4);
    const u8 bytes = u8((1u << (last - 4 * word)) - (1u << (first - 4 * word)));
    // By another warp, with no barrier since.
    const auto conflicts = [&](const Touch& touch) {
      return touch.epoch == block->epoch && touch.bytes & bytes &&
             (touch.thread == SEVERAL || touch.thread / 32 != self / 32);
    };
    const bool written = conflicts(trace.write), read = conflicts(trace.read);
    const bool both_atomic = mode == Atomic && trace.by_atomic && !read;
    const bool same_value = values && written && !read && !std::memcmp(shared.data() + address, values, size);
    if (!both_atomic && !same_value && (written || (mode != Read && read)) && races++ < 5) {
      std::fprintf(stderr,
                   "gpu_on_cpu: race in shared memory at 0x%lx, PTX line %d: thread %d %s, thread %d %s\n",
                   long(address), line, self, mode == Read ? "reads" : "writes",
                   (written ? trace.write : trace.read).thread, written ? "wrote" : "read");
    }
    Touch& touch = mode == Read ? trace.read : trace.write;
    if (touch.epoch != block->epoch) {
      touch = {self, block->epoch, bytes};
    } else {
      if (touch.thread / 32 != self / 32 || touch.thread == SEVERAL) touch.thread = SEVERAL;
      touch.bytes |= bytes;
    }
    if (mode != Read) trace.by_atomic = mode == Atomic;
  }
}

inline u8* shared_at(u64 address, u32 size, int line, Mode mode, const void* values = nullptr) {
  address = u32(address);
  if (address + size > shared.size) fault("out-of-bounds access of shared memory", address, size, line);
  if (address % size) fault("misaligned access of shared memory", address, size, line);
  COUNT_ACCESS(true, address, size, line);
  check_race(address, size, line, mode, values);
  return shared.data() + address;
}

template <class T>
T load(const u8* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

template <class T, class F>
T atomic(u8* at, const F& function) {
  if constexpr (sizeof(T) >= 4) {
    using Bits = std::conditional_t<sizeof(T) == 4, u32, u64>;
    std::atomic_ref<Bits> word(*reinterpret_cast<Bits*>(at));
    Bits old = word.load();
    while (!word.compare_exchange_weak(old, as<Bits>(function(as<T>(old))))) {
    }
    return as<T>(old);
  } else {
    const T old = load<T>(at), changed = function(old);
    std::memcpy(at, &changed, sizeof(T));
    return old;
  }
}

// Asynchronous copies to shared memory take place when they are waited for: a missing wait leaves the poison.
struct Copy {
  u32 target;
  u64 source;
  int size, given, line;
};
struct Copies {
  std::vector<Copy> open;
  std::vector<std::vector<Copy>> groups;
};
inline constinit thread_local Copies* copies = nullptr;  // by thread

inline void copy_start(u32 target, u64 source, int size, int given, int line) {
  copies[thread_index()].open.push_back({target, source, size, given, line});
}
inline void copy_commit() {
  Copies& own = copies[thread_index()];
  own.groups.push_back(std::move(own.open));
  own.open.clear();
}
inline void copy_wait(size_t may_remain) {
  Copies& own = copies[thread_index()];
  while (own.groups.size() > may_remain) {
    for (const Copy& copy : own.groups.front()) {
      u8* const target = shared_at(copy.target, copy.size, copy.line, Write);
      std::memset(target, 0, copy.size);
      if (copy.given) std::memcpy(target, global_at(copy.source, copy.given, copy.line), copy.given);
    }
    own.groups.erase(own.groups.begin());
  }
}
