// Instances of far pieces, or of many scattered pixels, cut into parts that are weighed by themselves.
//
// Work on an instance grows with its bounding box; where that is nearly empty, parts with boxes of their own
// are cheaper. Each part speaks for the pixels of its zone; the zones of an instance do not overlap and leave
// no pixel out that the instance reaches. A part holds all runs of the instance that lie within `halo` rows
// and columns of its zone, so that distances from there are those to the whole instance.
#pragma once

#include <vector>

#include "cpu/plan.h"
#include "cpu/scratch.h"

namespace flc {

class Pieces {
 public:
  // halo: pixels of an instance that are farther along an axis do not show.
  // by_runs: work grows with the runs of a row, not with the box alone.
  Pieces(int32_t height, int32_t width, int32_t halo, bool by_runs)
      : height_(height), width_(width), halo_(halo), by_runs_(by_runs) {}

  // Whether the instance, whose box is known, is better cut. Its parts are appended to `parts`, then, with
  // their runs in `runs`.
  bool cut(const Instance& instance, const Run* begin, const Run* end);

  std::vector<Instance> parts;
  ScratchList<Run> runs;
  std::vector<Rectangle> empty;  // of an instance's zones those without a part, for nothing of it is in reach

 private:
  struct Box {
    int32_t top, bottom, left, right;
  };
  bool cut_at_gaps(const Instance& whole, const Rectangle& zone, const Run* begin, const Run* end, bool rows);
  bool cut_columns(const Instance& whole, const Rectangle& zone, const Run* begin, const Run* end);
  void cut_cells(const Instance& whole, const Rectangle& zone, const Run* begin, const Run* end);
  void add(const Instance& whole, const Rectangle& zone, const Run* begin, const Run* end);
  static Box box_of(const Run* begin, const Run* end);
  bool is_sparse(const Box& box, const Run* begin, const Run* end) const;

  const int32_t height_, width_, halo_;
  const bool by_runs_;
};

// Appends the parts of a rectangle, within `area`, that lie outside of another one.
void subtract(Rectangle from, const Rectangle& other, const Rectangle& area, std::vector<Rectangle>& to);

// Whether each pixel of a zone within the image has one of the runs in its window, and at most `steps` steps
// away. May be false where it is so.
bool always_near(const Rectangle& zone, const Run* begin, const Run* end, int32_t radius, int32_t steps);

}  // namespace flc
