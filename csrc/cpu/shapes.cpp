#include "cpu/shapes.h"

#include <algorithm>

namespace flc {
namespace {

constexpr int64_t FEWEST_INSTANCES = 1024;  // of an image, before anything is looked at
constexpr int64_t FEWEST_PER_PIXEL = 16;    // that reach a pixel in the mean; in tissue 4 to 8 do
constexpr int64_t FEWEST_OF_A_SHAPE = 16;
constexpr int64_t MOST_BYTES = 16 << 20;

bool may_have_one(const Instance& instance) {
  return instance.bottom - instance.top < SHAPE_SIDE && instance.right - instance.left < SHAPE_SIDE &&
         !instance.is_part && !instance.soft_mask;
}

uint64_t pixels_of(const Instance& instance, const Run* runs) {
  uint64_t pixels = 0;
  for (int64_t i = instance.first_run; i < instance.last_run; ++i) {
    const Run& run = runs[i];
    const uint64_t ones = ~uint64_t(0) >> (63 - (run.last - run.first));
    pixels |= ones << ((run.row - instance.top) * SHAPE_SIDE + run.first - instance.left);
  }
  return pixels;
}

// Numbers sets of pixels by first appearance, the first MOST of them.
class PixelSets {
 public:
  struct Set {
    uint64_t pixels;
    int64_t count;
    Arithmetic arithmetic;
  };

  // The number of a set; -1 where there are too many.
  int32_t number(uint64_t pixels, Arithmetic arithmetic) {
    uint64_t slot = pixels * 0x9e3779b97f4a7c15u >> (64 - BITS);
    for (; slots_[slot]; slot = (slot + 1) & ((1 << BITS) - 1))
      if (sets[slots_[slot] - 1].pixels == pixels) return slots_[slot] - 1;
    if (sets.size() == MOST) return -1;
    sets.push_back({pixels, 0, arithmetic});
    slots_[slot] = static_cast<int32_t>(sets.size());
    return slots_[slot] - 1;
  }

  std::vector<Set> sets;

 private:
  static constexpr int BITS = 13;
  static constexpr size_t MOST = 1 << (BITS - 1);
  std::vector<int32_t> slots_ = std::vector<int32_t>(1 << BITS, 0);
};

Shape shape_of(const PixelSets::Set& set) {
  Shape shape{set.pixels, 0, 0, set.arithmetic};
  uint64_t columns = 0;
  for (int32_t row = 0; row < SHAPE_SIDE; ++row) {
    const uint64_t of_row = set.pixels >> (row * SHAPE_SIDE) & ((1 << SHAPE_SIDE) - 1);
    if (of_row) shape.height = row + 1;
    columns |= of_row;
  }
  while (columns >> shape.width) ++shape.width;
  return shape;
}

}  // namespace

std::vector<Shape> common_shapes(std::vector<Instance>& instances, const Run* runs, int32_t height,
                                 int32_t width, int32_t reach, int64_t bytes_per_shape) {
  if (static_cast<int64_t>(instances.size()) < FEWEST_INSTANCES) return {};
  const int64_t most_shapes = MOST_BYTES / bytes_per_shape;
  const int64_t reached = std::min<int64_t>(2 * int64_t(reach) + 1, height) *
                          std::min<int64_t>(2 * int64_t(reach) + 1, width);  // pixels, by an instance
  const int64_t small = std::count_if(instances.begin(), instances.end(), may_have_one);
  if (small * reached < FEWEST_PER_PIXEL * height * width) return {};

  PixelSets found;
  for (Instance& instance : instances) {
    if (!may_have_one(instance)) continue;
    instance.shape = found.number(pixels_of(instance, runs), instance.arithmetic);
    if (instance.shape >= 0) ++found.sets[instance.shape].count;
  }
  std::vector<int32_t> common, kept(found.sets.size(), -1);
  for (size_t i = 0; i < found.sets.size(); ++i)
    if (found.sets[i].count >= FEWEST_OF_A_SHAPE) common.push_back(static_cast<int32_t>(i));
  std::stable_sort(common.begin(), common.end(),
                   [&](int32_t a, int32_t b) { return found.sets[a].count > found.sets[b].count; });
  if (static_cast<int64_t>(common.size()) > most_shapes) common.resize(most_shapes);
  std::vector<Shape> shapes;
  for (const int32_t set : common) {
    kept[set] = static_cast<int32_t>(shapes.size());
    shapes.push_back(shape_of(found.sets[set]));
  }
  for (Instance& instance : instances)
    if (instance.shape >= 0) instance.shape = kept[instance.shape];
  return shapes;
}

}  // namespace flc
