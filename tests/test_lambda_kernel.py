import numpy as np
import pytest
import torch
from cases import golden
from tolerances import KERNEL, KERNEL_GOLDEN

import fastlogconv

E1, E2, E4 = 0.36787944117144233, 0.1353352832366127, 0.01831563888873418  # exp(-1), exp(-2), exp(-4)


@pytest.mark.parametrize(
    "ks, lmbda, expected",
    [
        (1, 0.35, [1]),
        (2, 0.5, [E1, E1]),
        (3, 1, [E1, 1, E1]),
        (4, 0.25, [0.0024787521766663585, E2, E2, 0.0024787521766663585]),
        (5, 0.5, [E4, E2, 1, E2, E4]),
    ],
)
def test_by_hand(ks, lmbda, expected):
    kernel = fastlogconv.lambda_kernel(ks, lmbda)
    assert kernel.dtype == torch.float32
    np.testing.assert_allclose(kernel, expected, rtol=KERNEL)


def test_as_deepflash2():
    for name, expected in golden("lambda_kernel").items():
        ks, lmbda = name.split("_")
        kernel = fastlogconv.lambda_kernel(int(ks.removeprefix("ks")), float(lmbda.removeprefix("lmbda")))
        np.testing.assert_allclose(kernel, expected, rtol=KERNEL_GOLDEN, atol=1e-38, err_msg=name)


@pytest.mark.parametrize("ks", [1, 2, 73, 74, 129])
@pytest.mark.parametrize("lmbda", [0.1, 0.35, 10])
def test_against_float64(ks, lmbda):
    x = np.linspace(-(ks - 1) / 2, (ks - 1) / 2, ks)
    expected = np.exp(-abs(x) / lmbda)
    normal = expected > 1.2e-38
    np.testing.assert_allclose(fastlogconv.lambda_kernel(ks, lmbda)[normal], expected[normal], rtol=KERNEL)


def test_takes_numpy_scalars():
    kernel = fastlogconv.lambda_kernel(np.int32(5), np.float32(2))
    assert torch.equal(kernel, fastlogconv.lambda_kernel(5, 2.0))
