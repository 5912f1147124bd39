"""What depends on the version of Triton: the same results, to the bit, with each."""

import re
import subprocess
import sys
from pathlib import Path

import gpu_on_cpu
import numpy as np
import pytest
import torch
from cases import scattered

from fastlogconv import region_weight_map, separable_conv2d, weight_map

pytestmark = pytest.mark.skipif(
    gpu_on_cpu.why_no_triton() is not None, reason=str(gpu_on_cpu.why_no_triton())
)

CALLS = {
    "second nearest": lambda labels, masks, **by: weight_map(labels, **by),
    "unscaled": lambda labels, masks, **by: weight_map(labels, fds=25, classes=1 + labels % 2, **by),
    "regions": lambda labels, masks, **by: region_weight_map(masks, **by),
}


def results():
    """Of each call, as Triton compiles it for a GPU, run on the CPU."""
    from gpu_on_cpu.triton_kernels import Emulator

    rng = np.random.default_rng(44)
    labels = torch.from_numpy(scattered((45, 70), 9, 8, rng)).int()
    masks = torch.stack([(labels == i) * torch.from_numpy(rng.random(labels.shape)) for i in (1, 2, 3)])
    emulator = Emulator()
    with emulator.serving():
        found = {name: call(labels, masks.float(), backend="triton") for name, call in CALLS.items()}
    assert emulator.races == 0
    return found


OTHER_VERSION = """
import sys
import torch, triton
triton.__version__ = sys.argv[1]
from fastlogconv.backends import triton_launch
import test_triton_versions
assert triton_launch.pads_products() == (sys.argv[2] == "pads")
torch.save(test_triton_versions.results(), sys.argv[3])
"""


@pytest.mark.parametrize(
    "version, pads", [("3.7.1", "pads"), pytest.param("3.10.0", "does not", marks=pytest.mark.exhaustive)]
)
def test_small_products(version, pads, tmp_path):
    """Before 3.8 there are none; what they would give is had of larger ones, with zeros."""
    script = [sys.executable, "-c", OTHER_VERSION, version, pads, str(tmp_path / "results.pt")]
    subprocess.run(script, check=True, cwd=Path(__file__).parent)
    expected = results()
    for name, found in torch.load(tmp_path / "results.pt").items():
        assert torch.equal(found, expected[name]), name


def test_no_sum_is_added_up_as_threads_hold_it():
    """How they hold it differs from version to version. Of logarithms, all so far hold them alike."""
    from gpu_on_cpu.triton_kernels import collected, compile_launch

    labels = torch.zeros(1, 64, 64, dtype=torch.int32)
    with collected() as launches:
        for call in CALLS.values():
            call(labels, labels.float(), backend="triton")
        weight_map(labels, preset="unet2019", backend="triton")
        separable_conv2d(labels.float(), 20.0, 301, backend="triton")
    for launch in launches:
        code = compile_launch(launch, 80).asm["ttir"]
        reductions = re.findall(r'"tt.reduce".*?tt.reduce.return', code, re.DOTALL)
        assert not any("arith.addf" in body for body in reductions), launch.name
