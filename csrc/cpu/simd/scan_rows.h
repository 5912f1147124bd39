// Finds the runs of equal labels, row by row.
#pragma once

#include "cpu/denormals.h"
#include "cpu/simd/elements.h"

namespace flc {
namespace FLC_ISA {

// A label as an id: 0 for background, -1 where it is no finite whole number up to 2^63 - 1.
template <class T>
FLC_INLINE int64_t whole_number(T value) {
  if constexpr (T(0.5) != T(0)) {
    if (!(value > T(-INFINITY) && value < T(0x1p63)) || value != T(floor(double(value)))) return -1;
    return value > 0 ? int64_t(value) : 0;
  } else if constexpr (T(-1) > T(0)) {
    return uint64_t(value) > uint64_t(INT64_MAX) ? -1 : int64_t(value);
  } else {
    return value > 0 ? int64_t(value) : 0;
  }
}

// Of types that C++ lacks, by their value.
FLC_INLINE int64_t whole_number(Bool value) {
  return value.bits != 0;
}
FLC_INLINE int64_t whole_number(Float16 value) {
  return whole_number(double(value));
}
FLC_INLINE int64_t whole_number(BFloat16 value) {
  return whole_number(double(value));
}

// The id that stands at a place, with its value.
FLC_INLINE int64_t label_id(int32_t dtype, const void* at, double* value) {
  return with_element(dtype, int64_t(-1), [at, value](auto type) {
    const auto label = element<decltype(type)>(at);
    *value = double(label);
    return whole_number(label);
  });
}

inline bool append_run(LabelRuns* runs, int32_t row, int32_t first, int32_t last, int64_t id) {
  if (runs->size == runs->capacity) {
    const int64_t capacity = larger<int64_t>(1024, 2 * runs->capacity);
    Run* const grown_runs = static_cast<Run*>(aligned_allocate(capacity * int64_t(sizeof(Run))));
    int64_t* const grown_ids = static_cast<int64_t*>(aligned_allocate(capacity * int64_t(sizeof(int64_t))));
    if (!grown_runs || !grown_ids) {
      aligned_free(grown_runs);
      aligned_free(grown_ids);
      return false;
    }
    if (runs->size) {
      memcpy(grown_runs, runs->runs, runs->size * sizeof(Run));
      memcpy(grown_ids, runs->ids, runs->size * sizeof(int64_t));
    }
    aligned_free(runs->runs);
    aligned_free(runs->ids);
    *runs = {grown_runs, grown_ids, runs->size, capacity};
  }
  runs->runs[runs->size] = {row, first, last, 0};
  runs->ids[runs->size] = id;
  ++runs->size;
  return true;
}

// Bit i of the result: row[i] differs in bits from row[i - 1], i in [0, 64).
template <class Bits>
FLC_INLINE uint64_t changes_of_64(const Bits* row) {
#if defined(__AVX512BW__)
  constexpr int lanes = 64 / sizeof(Bits);
  uint64_t changes = 0;
  for (int i = 0; i < 64; i += lanes) {
    const __m512i here = _mm512_loadu_si512(row + i), before = _mm512_loadu_si512(row + i - 1);
    uint64_t differ;
    if constexpr (sizeof(Bits) == 1)
      differ = _mm512_cmpneq_epi8_mask(here, before);
    else if constexpr (sizeof(Bits) == 2)
      differ = _mm512_cmpneq_epi16_mask(here, before);
    else if constexpr (sizeof(Bits) == 4)
      differ = _mm512_cmpneq_epi32_mask(here, before);
    else
      differ = _mm512_cmpneq_epi64_mask(here, before);
    changes |= differ << i;
  }
  return changes;
#else
  uint8_t differ[64];
  for (int i = 0; i < 64; ++i) differ[i] = row[i] != row[i - 1];
  uint64_t changes = 0;
  for (int i = 0; i < 64; i += 8) {
    uint64_t word;
    memcpy(&word, differ + i, 8);
    if (word) changes |= (word * 0x0102040810204080u >> 56) << i;  // eight bytes 0 or 1 to eight bits
  }
  return changes;
#endif
}

template <class Bits>
FLC_INLINE void clear_ignored(const flc_tensor& ignore, int64_t image, int32_t y, int32_t width, Bits* row) {
  const uint8_t* const ignored =
      static_cast<const uint8_t*>(ignore.data) + image * ignore.stride[0] + y * ignore.stride[1];
  const int64_t stride = ignore.stride[2];
  if (stride == 1)
    for (int32_t x = 0; x < width; ++x) row[x] = ignored[x] ? 0 : row[x];
  else
    for (int32_t x = 0; x < width; ++x) row[x] = ignored[x * stride] ? 0 : row[x];
}

// as_mask: values are those of a region mask, of which nonzero runs are kept with id 1; negative or
// non-finite ones are errors.
template <class Bits>
inline int32_t scan_rows_of(const flc_tensor* tensor, const flc_tensor* ignore, int64_t image, int32_t begin,
                            int32_t end, bool as_mask, LabelRuns* runs_out, ValueRange* values_out,
                            double* bad_value) {
  const int32_t width = int32_t(tensor->size[2]);
  const bool in_place = tensor->stride[2] == 1 && !ignore;
  Bits* const copy = in_place ? nullptr : static_cast<Bits*>(aligned_allocate(width * int64_t(sizeof(Bits))));
  if (!in_place && !copy) return FLC_OUT_OF_MEMORY;
  int32_t status = FLC_OK;
  // Copies, because those of other threads may lie in the same cache line.
  LabelRuns runs = *runs_out;
  ValueRange values = values_out ? *values_out : ValueRange{};
  for (int32_t y = begin; y < end && status == FLC_OK; ++y) {
    const Bits* row =
        static_cast<const Bits*>(tensor->data) + image * tensor->stride[0] + y * tensor->stride[1];
    if (!in_place) {
      for (int32_t x = 0; x < width; ++x) copy[x] = row[x * tensor->stride[2]];
      if (ignore) clear_ignored(*ignore, image, y, width, copy);
      row = copy;
    }
    int32_t first = 0;
    const auto close_run = [&](int32_t next) {
      double value = 1;
      if (row[first] == 0) return FLC_OK;
      int64_t id = label_id(tensor->dtype, row + first, &value);
      if (as_mask && tensor->dtype != FLC_BOOL) {
        id = value >= 0 && value < INFINITY ? value > 0 : -1;
        if (value > 0) values = {smaller(values.smallest, value), larger(values.largest, value)};
      }
      if (id < 0) {
        *bad_value = value;
        return FLC_NOT_AN_ID;
      }
      if (id > 0 && !append_run(&runs, y, first, next - 1, id)) return FLC_OUT_OF_MEMORY;
      return FLC_OK;
    };
    int32_t x = 1;
    for (; x < width && width > 64 && status == FLC_OK; x += 64) {
      const int32_t from = smaller(x, width - 64);  // the last 64 overlap those before them
      for (size_t byte = 0; byte < 64 * sizeof(Bits); byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(row + from) + 4096 + byte);
      uint64_t changes = changes_of_64(row + from) & ~uint64_t(0) << (x - from);
      for (; changes && status == FLC_OK; changes &= changes - 1) {
        const int32_t next = from + __builtin_ctzll(changes);
        status = close_run(next);
        first = next;
      }
    }
    for (; x < width && status == FLC_OK; ++x) {
      if (row[x] == row[x - 1]) continue;
      status = close_run(x);
      first = x;
    }
    if (status == FLC_OK) status = close_run(width);
  }
  aligned_free(copy);
  *runs_out = runs;
  if (values_out) *values_out = values;
  return status;
}

// Bits by the number of their bytes.
template <int bytes>
struct BitsOf;
template <>
struct BitsOf<1> {
  using type = uint8_t;
};
template <>
struct BitsOf<2> {
  using type = uint16_t;
};
template <>
struct BitsOf<4> {
  using type = uint32_t;
};
template <>
struct BitsOf<8> {
  using type = uint64_t;
};

inline int32_t scan_rows(const flc_tensor* tensor, const flc_tensor* ignore, int64_t image, int32_t begin,
                         int32_t end, bool as_mask, LabelRuns* runs, ValueRange* values, double* bad_value) {
  const DenormalsCount guard;
  return with_element(tensor->dtype, int32_t(FLC_UNSUPPORTED), [=](auto type) {
    using Bits = typename BitsOf<sizeof(type)>::type;
    return scan_rows_of<Bits>(tensor, ignore, image, begin, end, as_mask, runs, values, bad_value);
  });
}

}  // namespace FLC_ISA
}  // namespace flc
