// Instances to class labels, with a ridge of background between touching instances of a class.
//
// A class's grey closing (3x3, of the instance ids) tells which instances are candidates: those whose id it
// writes somewhere else. Only pixels that touch another instance can become ridge; those of candidates are
// visited by ascending id, so that everything drawn before is final. Ids are replaced by their ranks, which
// keeps their order and lets any id fit 32 bits.
#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/class_instances.h"
#include "cpu/dispatch.h"
#include "cpu/id_numbering.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/work.h"

namespace flc {
namespace {

constexpr int32_t NEIGHBOURS[8][2] = {{-1, -1}, {-1, 0}, {-1, 1}, {0, -1}, {0, 1}, {1, -1}, {1, 0}, {1, 1}};

// The part of an image that holds a class, and a margin of what its closing may change.
struct Box {
  int32_t top, left, height, width;
};

Box box_around(const OwnedRuns& runs, int32_t height, int32_t width) {
  constexpr int32_t margin = 2;
  int32_t left = width, right = 0;
  for (const Run& run : runs) {
    left = std::min(left, run.first);
    right = std::max(right, run.last);
  }
  const int32_t top = std::max(runs.begin()->row - margin, 0);
  const int32_t bottom = std::min(runs.end()[-1].row + margin, height - 1);
  left = std::max(left - margin, 0);
  right = std::min(right + margin, width - 1);
  return {top, left, bottom - top + 1, right - left + 1};
}

// Sets run.instance to 1 + the rank of its id among the ids; returns the number of ids.
int32_t rank_ids(OwnedRuns& runs) {
  const int64_t* const ids = runs.ids();
  IdNumbering numbering(runs.size() ? *std::max_element(ids, ids + runs.size()) : 0, runs.size());
  std::vector<int64_t> id_of;
  for (int64_t i = 0; i < runs.size(); ++i) {
    const int32_t number = numbering.number(ids[i]);
    if (number == static_cast<int32_t>(id_of.size())) id_of.push_back(ids[i]);
    runs.begin()[i].instance = number;
  }
  std::vector<int32_t> ascending(id_of.size()), rank(id_of.size());
  for (size_t i = 0; i < id_of.size(); ++i) ascending[i] = static_cast<int32_t>(i);
  std::sort(ascending.begin(), ascending.end(), [&](int32_t a, int32_t b) { return id_of[a] < id_of[b]; });
  for (size_t i = 0; i < ascending.size(); ++i) rank[ascending[i]] = static_cast<int32_t>(i) + 1;
  for (Run& run : runs) run.instance = rank[run.instance];
  return static_cast<int32_t>(id_of.size());
}

// What every class works with, allocated once.
struct Canvas {
  ScratchArray<int32_t> ranks;     // of the box, 0 = background
  ScratchArray<uint8_t> touches;   // pixels of the box that touch another instance
  std::vector<uint8_t> candidate;  // by rank
  std::vector<int64_t> unsorted, pixels, next;
};

int32_t draw_class(ClassInstances& instances, int32_t height, int32_t width, int64_t threads, Canvas& canvas,
                   int32_t* out) {
  const int32_t count = rank_ids(instances.runs);
  const Box box = box_around(instances.runs, height, width);
  const int64_t pixels = int64_t(box.height) * box.width;
  int32_t* const ranks = canvas.ranks.reserve(pixels);
  uint8_t* const touches = canvas.touches.reserve(pixels);
  prefer_huge_pages(ranks, pixels * int64_t(sizeof(int32_t)));
  std::fill(ranks, ranks + pixels, 0);
  canvas.candidate.assign(count + 1, 0);
  const int32_t drawn = static_cast<int32_t>(instances.class_id);
  for (const Run& run : instances.runs) {
    int32_t* const row_ranks = ranks + int64_t(run.row - box.top) * box.width - box.left;
    std::fill(row_ranks + run.first, row_ranks + run.last + 1, run.instance);
    int32_t* const row = out + int64_t(run.row) * width;
    std::fill(row + run.first, row + run.last + 1, drawn);
  }
  const int32_t rows = rows_per_part(box.height, threads);
  const int32_t status = parallel_for(divide_up(box.height, rows), threads, [&](int64_t part) {
    const int32_t begin = static_cast<int32_t>(part) * rows;
    return kernels().compare_with_closing(ranks, box.height, box.width, begin,
                                          std::min(begin + rows, box.height), canvas.candidate.data(),
                                          touches);
  });
  if (status != FLC_OK) return status;

  // The pixels of candidates that touch another instance, by ascending id: a counting sort.
  canvas.unsorted.clear();
  for (int64_t i = 0; i < pixels;) {
    uint64_t eight = 1;
    if (i + 8 <= pixels) std::memcpy(&eight, touches + i, 8);
    const int64_t end = std::min(i + 8, pixels);
    for (; eight && i < end; ++i)
      if (touches[i] && canvas.candidate[ranks[i]]) canvas.unsorted.push_back(i);
    i = end;
  }
  canvas.next.assign(count + 2, 0);
  for (const int64_t pixel : canvas.unsorted) ++canvas.next[ranks[pixel] + 1];
  for (int32_t rank = 0; rank <= count; ++rank) canvas.next[rank + 1] += canvas.next[rank];
  canvas.pixels.resize(canvas.unsorted.size());
  for (const int64_t pixel : canvas.unsorted) canvas.pixels[canvas.next[ranks[pixel]]++] = pixel;

  for (const int64_t pixel : canvas.pixels) {
    const int32_t rank = ranks[pixel];
    const int32_t y = static_cast<int32_t>(pixel / box.width), x = static_cast<int32_t>(pixel % box.width);
    int32_t* const at = out + int64_t(y + box.top) * width + x + box.left;
    const bool at_edge = y == 0 || x == 0 || y == box.height - 1 || x == box.width - 1;
    for (const auto [dy, dx] : NEIGHBOURS) {
      if (at_edge && (y + dy < 0 || y + dy >= box.height || x + dx < 0 || x + dx >= box.width)) continue;
      const int32_t other = ranks[pixel + int64_t(dy) * box.width + dx];
      if (other == 0 || other == rank || (canvas.candidate[other] && other > rank)) continue;
      if (at[int64_t(dy) * width + dx] == 0) continue;
      *at = 0;
      break;
    }
  }
  return FLC_OK;
}

}  // namespace
}  // namespace flc

extern "C" int32_t flc_cpu_class_labels(const flc_tensor* instances, const flc_tensor* classes, int32_t* out,
                                        int32_t threads, double* bad_value) {
  using namespace flc;
  if (!are_images({instances, classes})) return FLC_UNSUPPORTED;
  const flc_tensor& shape = instances ? *instances : *classes;
  const int64_t images = shape.size[0], pixels = shape.size[1] * shape.size[2];
  if (images * pixels == 0) return FLC_OK;
  if (!can_be_held(shape)) return FLC_UNSUPPORTED;
  prefer_huge_pages(out, images * pixels * int64_t(sizeof(int32_t)));
  return caught([&]() -> int32_t {
    const int64_t useful = useful_threads(threads, pixels);
    std::fill(out, out + images * pixels, 0);
    Canvas canvas;
    for (int64_t image = 0; image < images; ++image) {
      std::vector<ClassInstances> found;
      int32_t status = find_class_instances(instances, classes, nullptr, image, useful, found, bad_value);
      for (ClassInstances& class_instances : found) {
        if (status != FLC_OK) break;
        status = draw_class(class_instances, static_cast<int32_t>(shape.size[1]),
                            static_cast<int32_t>(shape.size[2]), useful, canvas, out + image * pixels);
      }
      if (status != FLC_OK) return status;
    }
    return FLC_OK;
  });
}
