#include "cpu/distances.h"

#include "cpu/work.h"
#include "rules.h"

namespace flc {
namespace {

// Fewer than with LogConv: instances reach further, so that more columns are held at a time.
constexpr int32_t ROWS_PER_EUCLIDEAN_PASS = 256;

constexpr Distance LOGCONV{
    .weigh_rows = &Kernels::weigh_rows,
    .most_rows = ROWS_PER_PASS,
    .uses_tables = true,
    .weighs_foreground = true,
};
constexpr Distance EUCLIDEAN{
    .weigh_rows = &Kernels::weigh_euclidean_rows,
    .most_rows = ROWS_PER_EUCLIDEAN_PASS,
    .uses_tables = false,
    .weighs_foreground = false,
};

}  // namespace

const Distance* find_distance(int32_t code) {
  switch (static_cast<flc_distance>(code)) {
    case FLC_LOGCONV:
      return &LOGCONV;
    case FLC_EUCLIDEAN:
      return &EUCLIDEAN;
  }
  return nullptr;
}

bool rules_known(const flc_weight_params& params) {
  return find_distance(params.distance) && with_border(params.border, false, [](auto) { return true; });
}

}  // namespace flc
