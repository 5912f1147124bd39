"""How far a result may be from float64, and why. One table for all tests."""

import torch

# Weights: max |w - w64| / max(1, w64); the division because fd sums over instances, so grows with crowding.
WEIGHT = {
    torch.float32: 1e-5,  # float32 arithmetic on distances of up to 64 px, through exp; the published promise
    torch.float64: 1e-10,  # the same steps in float64, with room for another order of summation
    torch.float16: 1e-3,  # computed in float32; the result rounds to 11 bits, 5e-4
    torch.bfloat16: 8e-3,  # computed in float32; the result rounds to 8 bits, 4e-3
}

# The median over random cases of the same measure: a typical case has no business near the limit.
WEIGHT_MEDIAN = 2e-6

# Weights by exact Euclidean distances: the distances are exact, the rest is float32 arithmetic through exp.
EUCLIDEAN = {torch.float32: 1e-5, torch.float64: 1e-10}

# Exact distances, as a fraction of themselves: squares of at most 5 roundings, and a root.
DISTANCE = {torch.float32: 1e-6, torch.float64: 1e-12}

# Convolution: max |y - y64| / max |y64|. The sum of up to 129 x 129 positive weights.
CONVOLUTION = {
    torch.float32: 1e-5,
    torch.float64: 1e-12,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}

# The reference computes in float64, also for float32 results: only the last rounding is left, 6e-8.
REFERENCE = {torch.float32: 1e-7, torch.float64: 1e-12}

# Kernels: relative to exp(-|x| / lmbda) in float64, where that is a normal float32; one rounding.
KERNEL = 1e-7

# deepflash2's own float32 kernels: its quotient |x| / lmbda is rounded before the exp, so exp(-103) is off by
# 103 half units of the last place.
KERNEL_GOLDEN = 1e-5
