// The foreground with gaps where instances touch: what separate_touching of fastlogconv/labels.py leaves.
//
// Labels are compared as the bits that they are: equal ids have equal bits, and a label is positive where its
// bits, as a signed integer, are (unsigned labels: where they are not 0), for floating-point numbers, too.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/work.h"

namespace flc {
namespace {

constexpr int AXES = 3;  // of a volume, behind that of the batch

// A plane's labels, 0 where they are not positive, with a margin of zeros.
template <class Key>
class Plane {
 public:
  Plane(int64_t height, int64_t width) : pitch_(width + 2), keys_((height + 1) * pitch_) {}
  // Of row y, from -1 on; x from -1 to the width.
  Key* row(int64_t y) { return keys_.data() + (y + 1) * pitch_ + 1; }

 private:
  const int64_t pitch_;
  std::vector<Key> keys_;
};

template <class Value>
void read_row(const flc_tensor& tensor, int64_t first, int64_t width, std::make_unsigned_t<Value>* to) {
  const Value* from = static_cast<const Value*>(tensor.data) + first;
  const int64_t stride = tensor.stride[AXES];
  if (stride == 1) {
    for (int64_t x = 0; x < width; ++x) {
      const Value value = from[x];
      to[x] = value > 0 ? value : 0;
    }
  } else {
    for (int64_t x = 0; x < width; ++x) {
      const Value value = from[x * stride];
      to[x] = value > 0 ? value : 0;
    }
  }
}

int64_t first_of_row(const flc_tensor& tensor, int64_t volume, int64_t z, int64_t y) {
  return volume * tensor.stride[0] + z * tensor.stride[1] + y * tensor.stride[2];
}

// touching[x] |= whether another label lies at `other`, of the same class if there are classes.
template <class Key>
void find_touching(const Key* here, const Key* other, const uint32_t* class_here, const uint32_t* class_other,
                   int64_t width, uint8_t* touching) {
  if (class_here) {
    for (int64_t x = 0; x < width; ++x)
      touching[x] |= uint8_t((other[x] != 0) & (other[x] != here[x]) & (class_other[x] == class_here[x]));
  } else {
    for (int64_t x = 0; x < width; ++x) touching[x] |= uint8_t((other[x] != 0) & (other[x] != here[x]));
  }
}

template <class Value>
void read_plane(const flc_tensor& tensor, int64_t volume, int64_t z,
                Plane<std::make_unsigned_t<Value>>& plane) {
  for (int64_t y = 0; y < tensor.size[2]; ++y)
    read_row<Value>(tensor, first_of_row(tensor, volume, z, y), tensor.size[3], plane.row(y));
}

template <class Value>
void separate_plane(const flc_tensor& labels, const flc_tensor* classes, int64_t volume, int64_t z,
                    uint8_t* out) {
  using Key = std::make_unsigned_t<Value>;
  const int64_t height = labels.size[2], width = labels.size[3];
  Plane<Key> here(height, width), below(z > 0 ? height : 0, width);
  Plane<uint32_t> class_here(classes ? height : 0, width), class_below(classes && z > 0 ? height : 0, width);
  read_plane<Value>(labels, volume, z, here);
  if (z > 0) read_plane<Value>(labels, volume, z - 1, below);
  if (classes) read_plane<int32_t>(*classes, volume, z, class_here);
  if (classes && z > 0) read_plane<int32_t>(*classes, volume, z - 1, class_below);

  std::vector<uint8_t> touching(width);
  for (int64_t y = 0; y < height; ++y) {
    std::fill(touching.begin(), touching.end(), uint8_t(0));
    const Key* const row = here.row(y);
    const uint32_t* const class_row = classes ? class_here.row(y) : nullptr;
    const auto compare = [&](Plane<Key>& plane, Plane<uint32_t>& class_plane, int64_t other_y, int64_t step) {
      find_touching(row, plane.row(other_y) + step, class_row,
                    classes ? class_plane.row(other_y) + step : nullptr, width, touching.data());
    };
    compare(here, class_here, y, -1);
    for (int64_t step = -1; step <= 1; ++step) {
      if (y > 0) compare(here, class_here, y - 1, step);
      for (int64_t other_y = y - 1; z > 0 && other_y <= y + 1; ++other_y)
        if (other_y >= 0 && other_y < height) compare(below, class_below, other_y, step);
    }
    uint8_t* const to = out + y * width;
    if (classes) {
      for (int64_t x = 0; x < width; ++x) to[x] = uint8_t((row[x] != 0) & (class_row[x] != 0) & !touching[x]);
    } else {
      for (int64_t x = 0; x < width; ++x) to[x] = uint8_t((row[x] != 0) & !touching[x]);
    }
  }
}

using Separate = void(const flc_tensor&, const flc_tensor*, int64_t, int64_t, uint8_t*);

Separate* separate_for(int32_t dtype) {
  switch (static_cast<flc_dtype>(dtype)) {
    case FLC_BOOL:
    case FLC_UINT8:
      return separate_plane<uint8_t>;
    case FLC_INT8:
      return separate_plane<int8_t>;
    case FLC_UINT16:
      return separate_plane<uint16_t>;
    case FLC_INT16:
    case FLC_FLOAT16:
    case FLC_BFLOAT16:
      return separate_plane<int16_t>;
    case FLC_UINT32:
      return separate_plane<uint32_t>;
    case FLC_INT32:
    case FLC_FLOAT32:
      return separate_plane<int32_t>;
    case FLC_UINT64:
      return separate_plane<uint64_t>;
    case FLC_INT64:
    case FLC_FLOAT64:
      return separate_plane<int64_t>;
  }
  return nullptr;
}

}  // namespace
}  // namespace flc

extern "C" int32_t flc_cpu_foreground_with_gaps(const flc_tensor* labels, const flc_tensor* classes,
                                                uint8_t* out, int32_t threads) {
  using namespace flc;
  Separate* const separate = separate_for(labels->dtype);
  if (!separate || labels->axes != 4 || (classes && (classes->axes != 4 || classes->dtype != FLC_INT32)))
    return FLC_UNSUPPORTED;
  const int64_t planes = labels->size[0] * labels->size[1], pixels = labels->size[2] * labels->size[3];
  if (planes * pixels == 0) return FLC_OK;
  return caught([&] {
    return parallel_for(planes, useful_threads(threads, planes * pixels), [&](int64_t plane) {
      return caught([&] {
        separate(*labels, classes, plane / labels->size[1], plane % labels->size[1], out + plane * pixels);
        return int32_t(FLC_OK);
      });
    });
  });
}
