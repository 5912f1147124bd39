// Working memory that a thread keeps between calls: fresh pages cost more than the work done in them.
#include <cstdlib>
#include <cstring>

#include "cpu/parallel.h"
#include "cpu/plan.h"

namespace flc {
namespace {

// What stands just below an aligned block.
struct Header {
  void* allocated;
  int64_t bytes;
};

constexpr int64_t KEPT_BYTES = 8 << 20;
constexpr int KEPT_BLOCKS = 64;

class KeptBlocks {
 public:
  ~KeptBlocks() {
    while (count_ > 0) std::free(blocks_[--count_].allocated);
  }

  // A kept block of at least `bytes`, not far larger, newest first; null if there is none.
  void* take(int64_t bytes) {
    for (int i = count_; i-- > 0;) {
      if (blocks_[i].bytes < bytes || blocks_[i].bytes > 2 * bytes + 4096) continue;
      void* const taken = memory_[i];
      bytes_ -= blocks_[i].bytes;
      --count_;
      blocks_[i] = blocks_[count_];
      memory_[i] = memory_[count_];
      return taken;
    }
    return nullptr;
  }

  bool keep(const Header& header, void* memory) {
    if (count_ == KEPT_BLOCKS || bytes_ + header.bytes > KEPT_BYTES) return false;
    blocks_[count_] = header;
    memory_[count_++] = memory;
    bytes_ += header.bytes;
    return true;
  }

 private:
  Header blocks_[KEPT_BLOCKS];
  void* memory_[KEPT_BLOCKS];
  int count_ = 0;
  int64_t bytes_ = 0;
};

thread_local KeptBlocks kept;

}  // namespace

void* aligned_allocate(int64_t bytes) {
  if (void* const memory = kept.take(bytes)) return memory;
  void* const allocated = std::malloc(static_cast<size_t>(bytes) + 64 + sizeof(Header));
  if (!allocated) return nullptr;
  prefer_huge_pages(allocated, bytes);
  const uintptr_t aligned = (reinterpret_cast<uintptr_t>(allocated) + sizeof(Header) + 63) / 64 * 64;
  const Header header{allocated, bytes};
  std::memcpy(reinterpret_cast<void*>(aligned - sizeof(Header)), &header, sizeof(Header));
  return reinterpret_cast<void*>(aligned);
}

void aligned_free(void* memory) {
  if (!memory) return;
  Header header;
  std::memcpy(&header, static_cast<char*>(memory) - sizeof(Header), sizeof(Header));
  if (!kept.keep(header, memory)) std::free(header.allocated);
}

}  // namespace flc
