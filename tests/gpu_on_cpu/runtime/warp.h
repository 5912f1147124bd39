// Barriers and operations across the lanes of a warp.
#pragma once

#include "memory.h"

inline void barrier(u64 id, u32 threads) {
  if (id || (threads && threads != block->fibers.size())) die("named and partial barriers are not supported");
  wait_for_block(false);
}
inline u32 barrier_popc(bool vote) {
  wait_for_block(vote);
  return block->last_votes;
}
inline bool barrier_and(bool vote) {
  return barrier_popc(vote) == block->last_voters;
}
inline bool barrier_or(bool vote) {
  return barrier_popc(vote) != 0;
}
inline void warp_barrier(u32 mask) {
  u32 slot;
  meet(mask, 0, "bar.warp.sync", slot);
}

inline u32 shuffle(u32 mask, u32 value, u32 b, u32 c, int mode, bool& there) {
  const int self = int(lane()), segment = c >> 8 & 31, clamp = c & 31;
  const int lowest = self & segment, highest = lowest | (clamp & ~segment);
  b &= 31;
  int source;
  switch (mode) {
    case 0:
      source = self - int(b), there = source >= highest;
      break;  // up: the clamp is the lower end
    case 1:
      source = self + int(b), there = source <= highest;
      break;
    case 2:
      source = self ^ int(b), there = source <= highest;
      break;
    default:
      source = lowest | (int(b) & ~segment), there = source <= highest;
  }
  u32 slot;
  const Meeting& meeting = meet(mask, value, "shfl.sync", slot);
  if (!there) return value;
  return meeting.present[slot] >> source & 1 ? u32(meeting.values[slot][source]) : 0x7fc0deadu;  // undefined
}

inline u32 vote_ballot(u32 mask, bool vote) {
  u32 slot, result = 0;
  const Meeting& meeting = meet(mask, vote, "vote.sync", slot);
  for (u32 l = 0; l < 32; ++l) {
    if (meeting.present[slot] >> l & 1 && meeting.values[slot][l]) result |= 1u << l;
  }
  return result;
}
inline bool vote_any(u32 mask, bool vote) {
  return vote_ballot(mask, vote) != 0;
}
inline bool vote_all(u32 mask, bool vote) {
  return vote_ballot(mask, !vote) == 0;
}

template <class T, class F>
T reduce_lanes(u32 mask, T value, const F& combine) {
  u32 slot;
  const Meeting& meeting = meet(mask, as<u64>(value), "redux.sync", slot);
  bool first = true;
  T result{};
  for (u32 l = 0; l < 32; ++l) {
    if (!(meeting.present[slot] >> l & 1)) continue;
    const T other = as<T>(meeting.values[slot][l]);
    result = first ? other : combine(result, other);
    first = false;
  }
  return result;
}

// What each lane of a warp brings to a matrix operation: up to 12 registers.
struct Fragment {
  u32 registers[12];
};
struct Fragments {
  Fragment of[2][32][32];  // alternating, by warp, by lane
  u8 turn[1024] = {};  // by thread
};
inline constinit thread_local Fragments* fragments = nullptr;

inline const Fragment* exchange(const Fragment& own, const char* operation) {
  Fragments& all = *fragments;
  const int self = thread_index();
  const u8 turn = all.turn[self] ^= 1;  // the lanes of a warp turn together
  all.of[turn][self / 32][self & 31] = own;
  u32 slot;
  meet(~0u, 0, operation, slot);
  return all.of[turn][self / 32];
}

// d = a b + c with a [16, K], b [K, 8], c and d [16, 8], laid out over the lanes as PTX defines it. Sums are
// formed in double precision: a GPU's rounding differs.
template <class Element>
void mma_m16n8k16(u32* d, const u32* a, const u32* b, const u32* c) {
  Fragment own{};
  std::memcpy(own.registers, a, 16);
  std::memcpy(own.registers + 4, b, 8);
  const Fragment* const warp = exchange(own, "mma.sync");
  const u32 group = lane() >> 2, member = lane() & 3;
  for (u32 i = 0; i < 4; ++i) {
    const u32 row = group + (i & 2) * 4, column = member * 2 + (i & 1);
    double sum = as<float>(c[i]);
    for (u32 k = 0; k < 16; ++k) {
      const u32 from_a = warp[(row & 7) * 4 + (k & 7) / 2].registers[(row >> 3) + 2 * (k >> 3)];
      const u32 from_b = warp[column * 4 + (k & 7) / 2].registers[4 + (k >> 3)];
      sum += double(widen(as<Element>(u16(from_a >> 16 * (k & 1))))) *
             widen(as<Element>(u16(from_b >> 16 * (k & 1))));
    }
    d[i] = as<u32>(float(sum));
  }
}

inline void mma_m16n8k8_tf32(u32* d, const u32* a, const u32* b, const u32* c) {
  Fragment own{};
  std::memcpy(own.registers, a, 16);
  std::memcpy(own.registers + 4, b, 8);
  const Fragment* const warp = exchange(own, "mma.sync");
  const auto tf32 = [](u32 bits) { return as<float>(bits & 0xffffe000u); };
  const u32 group = lane() >> 2, member = lane() & 3;
  for (u32 i = 0; i < 4; ++i) {
    const u32 row = group + (i & 2) * 4, column = member * 2 + (i & 1);
    double sum = as<float>(c[i]);
    for (u32 k = 0; k < 8; ++k) {
      sum += double(tf32(warp[(row & 7) * 4 + (k & 3)].registers[(row >> 3) + 2 * (k >> 2)])) *
             tf32(warp[column * 4 + (k & 3)].registers[4 + (k >> 2)]);
    }
    d[i] = as<u32>(float(sum));
  }
}

// ldmatrix: `count` matrices of 8 x 8 16-bit elements; the lanes 8 i .. 8 i + 7 bring the addresses of the
// rows of matrix i.
inline void load_matrices(u32* d, int count, bool transposed, u32 address, int line) {
  Fragment own{};
  own.registers[0] = address;
  const Fragment* const warp = exchange(own, "ldmatrix");
  for (int i = 0; i < count; ++i) {
    d[i] = 0;
    for (u32 half = 0; half < 2; ++half) {
      const u32 slow = lane() >> 2, fast = (lane() & 3) * 2 + half;
      const u32 row = transposed ? fast : slow, column = transposed ? slow : fast;
      const u32 start = warp[8 * i + row].registers[0];
      if (start % 16) fault("misaligned row of ldmatrix", start, 16, line);
      d[i] |= u32(load<u16>(shared_at(start + 2 * column, 2, line, Read))) << 16 * half;
    }
  }
}

// stmatrix: the other way round.
inline void store_matrices(const u32* values, int count, bool transposed, u32 address, int line) {
  Fragment own{};
  own.registers[0] = address;
  const Fragment* const warp = exchange(own, "stmatrix");
  for (int i = 0; i < count; ++i) {
    for (u32 half = 0; half < 2; ++half) {
      const u32 slow = lane() >> 2, fast = (lane() & 3) * 2 + half;
      const u32 row = transposed ? fast : slow, column = transposed ? slow : fast;
      const u32 start = warp[8 * i + row].registers[0];
      if (start % 16) fault("misaligned row of stmatrix", start, 16, line);
      const u16 value = u16(values[i] >> 16 * half);
      std::memcpy(shared_at(start + 2 * column, 2, line, Write, &value), &value, 2);
    }
  }
}
