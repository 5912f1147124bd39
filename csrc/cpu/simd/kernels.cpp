// The kernels of one instruction set: compiled once for each, with FLC_ISA naming it.
#include "cpu/simd/closing.h"
#include "cpu/simd/distance_to_weight.h"
#include "cpu/simd/nearest_along.h"
#include "cpu/simd/nearest_in_rows.h"
#include "cpu/simd/scan_rows.h"
#include "cpu/simd/separable_conv.h"
#include "cpu/simd/weigh_euclidean_rows.h"
#include "cpu/simd/weigh_rows.h"

#define FLC_STRING_OF(name) #name
#define FLC_STRING(name) FLC_STRING_OF(name)
#define FLC_JOIN_OF(left, right) left##right
#define FLC_JOIN(left, right) FLC_JOIN_OF(left, right)

namespace flc {

extern const Kernels FLC_JOIN(kernels_, FLC_ISA);
const Kernels FLC_JOIN(kernels_, FLC_ISA) = {
    FLC_STRING(FLC_ISA),         FLC_ISA::VECTOR_BYTES,         FLC_ISA::scan_rows,
    FLC_ISA::weigh_rows,         FLC_ISA::weigh_euclidean_rows, FLC_ISA::compare_with_closing,
    FLC_ISA::distance_to_weight, FLC_ISA::separable_conv2d,     FLC_ISA::nearest_in_rows,
    FLC_ISA::nearest_along,
};

}  // namespace flc
