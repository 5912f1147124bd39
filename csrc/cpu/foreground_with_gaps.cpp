// The foreground with gaps where instances touch: what separate_touching of fastlogconv/labels.py leaves.
//
// Labels are compared as the bits that they are: equal ids have equal bits, and a label is positive where its
// bits, as a signed integer, are (unsigned labels: where they are not 0), for floating-point numbers, too.
#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/work.h"

namespace flc {
namespace {

constexpr int AXES = 3;  // of a volume, behind that of the batch

int64_t first_of_row(const flc_tensor& tensor, int64_t volume, int64_t z, int64_t y) {
  return volume * tensor.stride[0] + z * tensor.stride[1] + y * tensor.stride[2];
}

// Rows y - 1, y and y + 1 of a plane, 0 where they are not positive, with a margin of zeros: a plane that does
// not exist holds nothing else.
template <class Value>
class Rows {
 public:
  using Key = std::make_unsigned_t<Value>;
  Rows(const flc_tensor* tensor, int64_t volume, int64_t z, int64_t width)
      : tensor_(z >= 0 ? tensor : nullptr),
        volume_(volume),
        z_(z),
        width_(width),
        pitch_(width + 2),
        keys_(tensor_ ? 3 * pitch_ : pitch_) {}

  // To be called for y = 0, 1, 2, ...; a row beyond the last holds nothing.
  void read(int64_t y) {
    if (!tensor_) return;
    Key* const to = keys_.data() + place(y);
    if (y >= tensor_->size[2]) {
      std::fill_n(to, width_, Key(0));
      return;
    }
    const Value* from = static_cast<const Value*>(tensor_->data) + first_of_row(*tensor_, volume_, z_, y);
    const int64_t stride = tensor_->stride[AXES];
    if (stride == 1) {
      for (int64_t x = 0; x < width_; ++x) to[x] = from[x] > 0 ? from[x] : 0;
    } else {
      for (int64_t x = 0; x < width_; ++x) to[x] = from[x * stride] > 0 ? from[x * stride] : 0;
    }
  }
  // x from -1 to the width.
  const Key* row(int64_t y) const { return keys_.data() + (tensor_ ? place(y) : 1); }

 private:
  int64_t place(int64_t y) const { return (y + 3) % 3 * pitch_ + 1; }

  const flc_tensor* const tensor_;
  const int64_t volume_, z_, width_, pitch_;
  std::vector<Key> keys_;
};

// A row of labels and, where there are classes, theirs.
template <class Key>
struct Row {
  const Key* labels;
  const uint32_t* classes;
};

// Whether there is no other label at `there`, beside one at `here`; of the same class if there are classes.
template <bool with_classes, class Key>
inline Key apart(const Row<Key>& here, int64_t x, const Row<Key>& there, int64_t other_x) {
  const Key other = there.labels[other_x];
  Key is_apart = Key(other == 0) | Key(other == here.labels[x]);
  if constexpr (with_classes) is_apart |= Key(there.classes[other_x] != here.classes[x]);
  return is_apart;
}

template <bool with_classes, class Key>
inline Key apart_from_three(const Row<Key>& here, int64_t x, const Row<Key>& there) {
  return apart<with_classes>(here, x, there, x - 1) & apart<with_classes>(here, x, there, x) &
         apart<with_classes>(here, x, there, x + 1);
}

template <class Value, bool with_classes>
void separate_rows(const flc_tensor& labels, const flc_tensor* classes, int64_t volume, int64_t z,
                   uint8_t* out) {
  using Key = std::make_unsigned_t<Value>;
  const int64_t height = labels.size[2], width = labels.size[3];
  Rows<Value> here(&labels, volume, z, width), below(&labels, volume, z - 1, width);
  Rows<int32_t> classes_here(classes, volume, z, width), classes_below(classes, volume, z - 1, width);
  const auto row = [&](int64_t y) { return Row<Key>{here.row(y), classes_here.row(y)}; };
  below.read(0);
  classes_below.read(0);
  for (int64_t y = 0; y < height; ++y, out += width) {
    here.read(y);
    classes_here.read(y);
    const Row<Key> current = row(y), before = row(y - 1);
    for (int64_t x = 0; x < width; ++x) {
      const Key label = current.labels[x];
      Key kept = Key(label != 0) & apart<with_classes>(current, x, current, x - 1) &
                 apart_from_three<with_classes>(current, x, before);
      if constexpr (with_classes) kept &= Key(current.classes[x] != 0);
      out[x] = uint8_t(kept);
    }
    if (z == 0) continue;
    below.read(y + 1);
    classes_below.read(y + 1);
    for (int64_t other_y = y - 1; other_y <= y + 1; ++other_y) {
      const Row<Key> other{below.row(other_y), classes_below.row(other_y)};
      for (int64_t x = 0; x < width; ++x)
        out[x] &= uint8_t(apart_from_three<with_classes>(current, x, other));
    }
  }
}

template <class Value>
void separate_plane(const flc_tensor& labels, const flc_tensor* classes, int64_t volume, int64_t z,
                    uint8_t* out) {
  if (classes)
    separate_rows<Value, true>(labels, classes, volume, z, out);
  else
    separate_rows<Value, false>(labels, classes, volume, z, out);
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
