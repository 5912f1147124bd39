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
    swap(larger);
    return data_;
  }
  void swap(ScratchArray& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// A sequence in such memory.
template <class T>
class ScratchList {
 public:
  // Room for `count` more values at its end, which it takes in.
  T* extend(int64_t count) {
    if (size_ + count > room_) array_.grow(size_, room_ = std::max(size_ + count, 2 * room_));
    size_ += count;
    return array_.data() + size_ - count;
  }
  void shrink(int64_t size) { size_ = size; }
  int64_t size() const { return size_; }
  ScratchArray<T>& array() { return array_; }

 private:
  ScratchArray<T> array_;
  int64_t size_ = 0, room_ = 0;
};

}  // namespace flc
