#include "cpu/pieces.h"

#include <algorithm>
#include <cstdlib>

namespace flc {
namespace {

// Zones of cells are so wide and high. Small ones fit scattered pixels closely, but each looks at what lies
// within `halo` of it, too: no gain where pixels lie everywhere.
constexpr int32_t CELL_BITS = 7, DENSE_CELL_BITS = 9, CELL = 1 << CELL_BITS;
static_assert(CELL % CHUNK == 0);

}  // namespace

Pieces::Box Pieces::box_of(const Run* begin, const Run* end) {
  Box box{begin->row, end[-1].row, begin->first, begin->last};
  for (const Run* run = begin; run != end; ++run) {
    box.left = std::min(box.left, run->first);
    box.right = std::max(box.right, run->last);
  }
  return box;
}

// Boxes that are mostly empty, or of many runs a row where that matters.
bool Pieces::is_sparse(const Box& box, const Run* begin, const Run* end) const {
  const int64_t height = box.bottom - box.top + 1, width = box.right - box.left + 1;
  if (by_runs_ && end - begin > 4 * height) return true;
  int64_t pixels = 0;
  for (const Run* run = begin; run != end; ++run) pixels += run->last - run->first + 1;
  return 8 * pixels < height * width;
}

bool Pieces::cut(const Instance& instance, const Run* begin, const Run* end) {
  const int32_t height = instance.bottom - instance.top + 1, width = instance.right - instance.left + 1;
  if (std::max(height, width) <= std::min(2 * int64_t(halo_), int64_t(CELL))) return false;
  const Box box{instance.top, instance.bottom, instance.left, instance.right};
  if (!is_sparse(box, begin, end)) return false;
  const size_t parts_before = parts.size(), empty_before = empty.size();
  const int64_t runs_before = runs.size();
  cut_at_gaps(instance, instance.zone, begin, end, true);
  if (parts.size() > parts_before + 1) return true;
  parts.resize(parts_before);
  runs.shrink(runs_before);
  empty.resize(empty_before);
  return false;
}

// Cuts at rows where the instance leaves a gap that no pixel sees both sides of, then each part at such
// columns, and again, until there are none. Whether there were any.
bool Pieces::cut_at_gaps(const Instance& whole, const Rectangle& zone, const Run* begin, const Run* end,
                         bool at_first) {
  const Run* from = begin;
  Rectangle part = zone;
  bool any = false;
  for (const Run* run = begin + 1; run != end; ++run) {
    const int32_t before = run[-1].row;
    if (int64_t(run->row) - before < 2 * int64_t(halo_) + 2) continue;
    part.bottom = before + (run->row - before) / 2;
    if (!cut_columns(whole, part, from, run)) add(whole, part, from, run);
    any = true;
    part.top = part.bottom + 1;
    part.bottom = zone.bottom;
    from = run;
  }
  if (!any && !at_first) return false;
  if (!cut_columns(whole, part, from, end)) add(whole, part, from, end);
  return true;
}

bool Pieces::cut_columns(const Instance& whole, const Rectangle& zone, const Run* begin, const Run* end) {
  const Box box = box_of(begin, end);
  const int32_t first_chunk = box.left / CHUNK, chunks = box.right / CHUNK - first_chunk + 1;
  std::vector<int32_t> group(chunks, 0);  // 1 where there are pixels, then the group of columns
  for (const Run* run = begin; run != end; ++run)
    for (int32_t chunk = run->first / CHUNK; chunk <= run->last / CHUNK; ++chunk)
      group[chunk - first_chunk] = 1;
  std::vector<Rectangle> zones(1, zone);
  for (int32_t chunk = 0, last = 0; chunk < chunks; ++chunk) {
    if (!group[chunk]) continue;
    const int64_t middle = (int64_t(last) + chunk + 1) / 2;  // the first chunk right of the cut
    // At least one chunk is empty, for no run may reach across.
    if (chunk - last > 1 && middle * CHUNK - (last * CHUNK + CHUNK - 1) > halo_ &&
        (chunk - middle) * CHUNK + 1 > halo_) {
      const int32_t x = static_cast<int32_t>(first_chunk + middle) * CHUNK;
      zones.push_back(zones.back());
      zones[zones.size() - 2].right = x - 1;
      zones.back().left = x;
    }
    group[chunk] = static_cast<int32_t>(zones.size()) - 1;
    last = chunk;
  }
  if (zones.size() == 1) return false;
  std::vector<int64_t> next(zones.size() + 1, 0);
  const auto group_of = [&](const Run& run) { return group[run.first / CHUNK - first_chunk]; };
  for (const Run* run = begin; run != end; ++run) ++next[group_of(*run) + 1];
  for (size_t i = 1; i < next.size(); ++i) next[i] += next[i - 1];
  std::vector<Run> grouped(end - begin);
  for (const Run* run = begin; run != end; ++run) grouped[next[group_of(*run)]++] = *run;
  const Run* from = grouped.data();
  for (size_t i = 0; i < zones.size(); ++i) {
    const Run* const to = grouped.data() + next[i];
    if (!cut_at_gaps(whole, zones[i], from, to, false)) add(whole, zones[i], from, to);
    from = to;
  }
  return true;
}

// Adds a part without gaps, or its cells where these are cheaper.
void Pieces::add(const Instance& whole, const Rectangle& zone, const Run* begin, const Run* end) {
  const Box box = box_of(begin, end);
  if (std::max(box.bottom - box.top, box.right - box.left) >= CELL + CELL / 2 && is_sparse(box, begin, end))
    return cut_cells(whole, zone, begin, end);
  Instance part = whole;
  part.zone = zone;
  part.first_run = runs.size();
  std::copy(begin, end, runs.extend(end - begin));
  part.last_run = runs.size();
  parts.push_back(part);
}

void Pieces::cut_cells(const Instance& whole, const Rectangle& zone, const Run* begin, const Run* end) {
  const Box box = box_of(begin, end);
  const bool dense = end - begin > 4 * (box.bottom - box.top + int64_t(1));
  const int32_t bits = dense ? DENSE_CELL_BITS : CELL_BITS, size = 1 << bits;
  const auto cell_of = [bits](int32_t x) { return x >> bits; };
  const int32_t top = cell_of(std::max({zone.top, 0, box.top - halo_}));
  const int32_t left = cell_of(std::max({zone.left, 0, box.left - halo_}));
  const int32_t rows = cell_of(std::min({zone.bottom, height_ - 1, box.bottom + halo_})) - top + 1;
  const int32_t columns = cell_of(std::min({zone.right, width_ - 1, box.right + halo_})) - left + 1;
  std::vector<int64_t> next(int64_t(rows) * columns + 1, 0);
  // Calls function(cell, x of the cell) for each cell that a run lies in or near.
  const auto for_cells = [&](const Run& run, const auto& function) {
    const int32_t last_row = std::min(cell_of(run.row + halo_) - top, rows - 1);
    const int32_t last_column = std::min(cell_of(run.last + halo_) - left, columns - 1);
    for (int32_t row = std::max(cell_of(run.row - halo_) - top, 0); row <= last_row; ++row)
      for (int32_t column = std::max(cell_of(run.first - halo_) - left, 0); column <= last_column; ++column)
        function(int64_t(row) * columns + column, (left + column) * size);
  };
  for (const Run* run = begin; run != end; ++run)
    for_cells(*run, [&](int64_t cell, int32_t) { ++next[cell + 1]; });
  for (size_t cell = 1; cell < next.size(); ++cell) next[cell] += next[cell - 1];
  const int64_t first = runs.size();
  Run* const sorted = runs.extend(next.back());
  for (const Run* run = begin; run != end; ++run) {
    for_cells(*run, [&](int64_t cell, int32_t x) {
      Run clipped = *run;
      clipped.first = std::max(run->first, x - halo_);
      clipped.last = std::min(run->last, x + size - 1 + halo_);
      sorted[next[cell]++] = clipped;
    });
  }
  const Rectangle image{0, height_ - 1, 0, width_ - 1};
  subtract(zone, {top * size, (top + rows) * size - 1, left * size, (left + columns) * size - 1}, image,
           empty);
  int64_t from = 0;
  for (int32_t row = 0; row < rows; ++row) {
    for (int32_t column = 0; column < columns; ++column) {
      const int64_t to = next[int64_t(row) * columns + column];
      Instance part = whole;
      const int32_t y = (top + row) * size, x = (left + column) * size;
      part.zone = {std::max(zone.top, y), std::min(zone.bottom, y + size - 1), std::max(zone.left, x),
                   std::min(zone.right, x + size - 1)};
      if (to == from) {
        empty.push_back(part.zone);
        continue;
      }
      part.first_run = first + from;
      part.last_run = first + to;
      parts.push_back(part);
      from = to;
    }
  }
}

void subtract(Rectangle from, const Rectangle& other, const Rectangle& area, std::vector<Rectangle>& to) {
  from = {std::max(from.top, area.top), std::min(from.bottom, area.bottom), std::max(from.left, area.left),
          std::min(from.right, area.right)};
  if (from.top > from.bottom || from.left > from.right) return;
  const int32_t top = std::clamp(other.top, from.top, from.bottom + 1);
  const int32_t end = std::clamp(other.bottom + 1, top, from.bottom + 1);  // of the rows that both have
  const auto add = [&to](const Rectangle& part) {
    if (part.top <= part.bottom && part.left <= part.right) to.push_back(part);
  };
  add({from.top, top - 1, from.left, from.right});
  add({end, from.bottom, from.left, from.right});
  add({top, end - 1, from.left, std::min(other.left - 1, from.right)});
  add({top, end - 1, std::max(other.right + 1, from.left), from.right});
}

// In squares of SIDE x SIDE pixels: 64 squares are the bits of a word.
bool always_near(const Rectangle& zone, const Run* begin, const Run* end, int32_t radius, int32_t steps) {
  constexpr int32_t SIDE = 4, BITS = 64;
  const int32_t reach = std::min((radius - (SIDE - 1)) / SIDE, 15);  // squares wholly in a pixel's window
  const int32_t most =
      std::min((steps - 2 * (SIDE - 1)) / SIDE, 2 * 15);  // and so near, whichever their pixels
  if (radius < SIDE - 1 || steps < 2 * (SIDE - 1)) return false;
  // The zone in the middle of the words.
  const int32_t columns = (zone.right - zone.left) / SIDE + 1, rows = (zone.bottom - zone.top) / SIDE + 1;
  if (columns + 2 * 15 > BITS || rows + 2 * 15 > BITS) return false;
  uint64_t taken[BITS] = {};
  for (const Run* run = begin; run != end; ++run) {
    const int32_t row = run->row - zone.top + 15 * SIDE;
    const int32_t first = std::max(run->first - zone.left + 15 * SIDE, 0);
    const int32_t last = std::min(run->last - zone.left + 15 * SIDE, BITS * SIDE - 1);
    if (row < 0 || row >= BITS * SIDE || first > last) continue;
    const uint64_t from = ~uint64_t(0) << first / SIDE, to = ~uint64_t(0) >> (BITS - 1 - last / SIDE);
    taken[row / SIDE] |= from & to;
  }
  const uint64_t wanted =
      (columns + 15 == BITS ? ~uint64_t(0) : (uint64_t(1) << (columns + 15)) - 1) & ~uint64_t(0) << 15;
  for (int32_t row = 15; row < 15 + rows; ++row) {
    uint64_t near = 0;
    for (int32_t dy = -reach; dy <= reach; ++dy) {
      const int32_t dx = std::min(reach, most - std::abs(dy));
      if (dx < 0) continue;
      uint64_t spread = taken[row + dy];
      for (int32_t done = 0; done < dx;) {
        const int32_t step = std::min(done + 1, dx - done);  // 1, 2, 4, ..
        spread |= spread << step | spread >> step;
        done += step;
      }
      near |= spread;
    }
    if ((near & wanted) != wanted) return false;
  }
  return true;
}

}  // namespace flc
