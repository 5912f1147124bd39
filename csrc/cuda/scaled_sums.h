// Stage 1, distance, where a float can hold the scaled sums of an instance (see Scaling).
//
// With a = exp(-1 / lmbda), S(p) is the sum of a^|q - p| over the pixels q of an instance in the window
// around p. Sums along rows come first (scaled_rows.h): lane by lane the rows of the instance, all columns of
// the tile one after another. They are kept in a table, from which a warp forms the sums along columns for
// its strip of the tile (scaled_columns.h), lane by lane a column. Beside its bounding box a row's sums are
// those of the box's edge, but for what the window hides.
#pragma once

#include "cuda/numbers.h"
#include "cuda/tile.h"

namespace flc::cuda {

constexpr int TABLE_PITCH = TILE_W + 1;  // lanes side by side, in a row or a column, use different banks
constexpr int MOST_WORDS = 5;  // 32 bits each, of a row of an instance whose sums are scaled

// Sums below this are not accurate any more.
constexpr float TOO_SMALL = 0x1p-100f;

// Whether the factors of the sums of an instance can be scaled.
__host__ __device__ inline bool scalable(const Numbers<float>& numbers, const Box& box, int table_rows) {
  const Scaling& scaling = numbers.scaling;
  const int longest = smaller(larger(box.width(), box.height()) - 1 + STRIP_H, numbers.radius);
  const float bits = smaller(float(longest) * numbers.bits_per_step, scaling.bits_that_matter);
  return box.width() <= MOST_WORDS * 32 && box.height() <= table_rows && bits <= scaling.most_bits;
}

// Whether no sum can become too small.
__host__ __device__ inline bool always_accurate(const Numbers<float>& numbers) {
  const float bits = float(2 * numbers.radius + STRIP_H) * numbers.bits_per_step;
  return smaller(bits, numbers.scaling.bits_that_matter) <= numbers.scaling.most_bits_of_product;
}

}  // namespace flc::cuda
