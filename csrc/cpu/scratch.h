// An array in memory that the thread keeps for the next call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <new>
#include <utility>

#include "cpu/plan.h"

namespace flc {

// Not initialised, neither when it grows.
template <class T>
class ScratchArray {
 public:
  ScratchArray() = default;
  ScratchArray(const ScratchArray&) = delete;
  ScratchArray& operator=(const ScratchArray&) = delete;
  ~ScratchArray() { aligned_free(data_); }

  // Room for `size` values; throws where memory ran out.
  T* reserve(int64_t size) {
    if (size <= size_) return data_;
    aligned_free(data_);
    size_ = 0;
    data_ = static_cast<T*>(aligned_allocate(size * static_cast<int64_t>(sizeof(T))));
    if (!data_) throw std::bad_alloc();
    size_ = size;
    return data_;
  }
  // More room, behind the first `used` values.
  T* grow(int64_t used, int64_t size) {
    if (size <= size_) return data_;
    ScratchArray larger;
    larger.reserve(size);
    std::copy_n(data_, used, larger.data_);
    std::swap(data_, larger.data_);
    std::swap(size_, larger.size_);
    return data_;
  }
  T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace flc
