// Label ids of any size to consecutive indices.
#pragma once

#include <cstdint>
#include <vector>

namespace flc {

// Numbers ids by first appearance: by a table for small ids, else by an open-addressing hash table.
class IdNumbering {
 public:
  IdNumbering(int64_t largest_id, int64_t run_count) {
    if (largest_id <= 4 * run_count + 1024)
      by_id_.assign(largest_id + 1, -1);
    else
      slots_.assign(64, Slot{0, -1});
  }

  int32_t number(int64_t id) {
    if (!by_id_.empty()) {
      int32_t& number = by_id_[id];
      return number >= 0 ? number : number = count_++;
    }
    Slot& slot = find(id);
    if (slot.number >= 0) return slot.number;
    slot = {id, count_++};
    const int32_t number = slot.number;
    if (2 * int64_t(count_) > int64_t(slots_.size())) grow();
    return number;
  }

 private:
  struct Slot {
    int64_t id;
    int32_t number;
  };

  Slot& find(int64_t id) {
    const size_t mask = slots_.size() - 1;
    size_t at = (static_cast<uint64_t>(id) * 0x9e3779b97f4a7c15u >> 20) & mask;
    while (slots_[at].number >= 0 && slots_[at].id != id) at = (at + 1) & mask;
    return slots_[at];
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size(), Slot{0, -1});
    old.swap(slots_);
    for (const Slot& slot : old)
      if (slot.number >= 0) find(slot.id) = slot;
  }

  std::vector<int32_t> by_id_;
  std::vector<Slot> slots_;
  int32_t count_ = 0;
};

}  // namespace flc
