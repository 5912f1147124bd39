"""Tensors on a device that no backend serves, as mps or xpu: computed on the CPU and brought back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastlogconv import ops

# In a process of its own: the device stays.
PROGRAM = """
import os, re, warnings
import torch
from other_device import Other
import fastlogconv
from fastlogconv import ops

labels = torch.zeros(2, 24, 28, dtype=torch.int32)
labels[:, 3:9, 4:9], labels[:, 9:15, 4:16], labels[1, 18:, 10:] = 1, 2, 7
classes, ignore = (labels > 1).int() + (labels > 0), labels == 7
masks = torch.stack([labels[0] == 1, labels[0] == 2]).float()
CALLS = {
    "weights": lambda on: fastlogconv.weight_map(on(labels)),
    "halves": lambda on: fastlogconv.weight_map(on(labels.to(torch.float16))),
    "doubles": lambda on: fastlogconv.weight_map(on(labels.double()), border="farthest"),
    "gaps": lambda on: fastlogconv.weight_map(on(labels), classes=on(classes), preset="unet2019"),
    "ignore": lambda on: fastlogconv.weight_map(on(labels), ignore=on(ignore), ignore_index=2),
    "one image": lambda on: fastlogconv.WeightTransform()(on(labels[0])),
    "regions": lambda on: fastlogconv.region_weight_map(on(masks)),
    "distances": lambda on: fastlogconv.distance_to_weight(on(10 * masks)),
    "nearest": lambda on: fastlogconv.nearest_instances(on(labels), 2),
    "signed": lambda on: fastlogconv.signed_distance_map(on(labels)),
    "convolution": lambda on: fastlogconv.separable_conv2d(on(masks), 0.7, 9),
}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name, call in CALLS.items():
        here, there = call(lambda tensor: tensor), call(Other)
        for one, other in zip(*((each if isinstance(each, tuple) else (each,)) for each in (here, there))):
            assert other.device.type == "other" and other.dtype == one.dtype, name
            assert torch.equal(other.inner, one), name
    for mode in ("constant", "reflect", "replicate"):
        gradients = []
        for on in (lambda tensor: tensor.clone().requires_grad_(), lambda tensor: Other(tensor, True)):
            leaf = on(masks)
            out = fastlogconv.separable_conv2d(leaf, 2.0, 9, padding_mode=mode)
            grad = masks + 1 if leaf.device.type == "cpu" else Other(masks + 1)
            gradients.append(torch.autograd.grad(out, leaf, grad)[0])
        assert torch.equal(gradients[1].inner, gradients[0]), mode
texts = [str(each.message) for each in caught if "fastlogconv" in str(each.message)]
assert len(texts) == 1 and "no backend for other: tensors there are copied to the CPU" in texts[0], texts

def refused(call, *what):
    try:
        call()
    except RuntimeError as error:
        assert re.search("backend '%s' cannot run on other: .*not on other" % what, str(error)), error
    else:
        raise AssertionError(what)

for backend in ("triton", "native", "reference"):
    refused(lambda: fastlogconv.weight_map(Other(labels), backend=backend), backend)
with fastlogconv.use_backend("native"):
    refused(lambda: fastlogconv.separable_conv2d(Other(masks), 0.7, 9), "native")
os.environ["FASTLOGCONV_BACKEND"] = "reference"
refused(lambda: fastlogconv.nearest_instances(Other(labels)), "reference")
del os.environ["FASTLOGCONV_BACKEND"]
try:
    fastlogconv.weight_map(Other(labels - 0.5 * (labels == 2)))
except ValueError as error:
    assert "1.5" in str(error), error
else:
    raise AssertionError("labels that are no whole numbers")
assert re.search("on other .auto: native on the CPU.", str(fastlogconv.info()))
print("all as on the CPU")
"""


@pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices that are written in Python",
)
def test_computed_on_the_cpu_and_brought_back():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "all as on the CPU\n", done.stderr


def test_every_operator_has_a_kernel_for_other_devices():
    """What the dispatcher takes there, with any torch."""
    for operator in ("weight_map", "region_weight_map", "distance_to_weight", "nearest_instances",
                     "separable_conv2d", "foreground_with_gaps"):  # fmt: skip
        name = f"fastlogconv::{operator}"
        assert getattr(ops, operator).name() == name
        for key in ("MPS", "XPU", "HPU", "PrivateUse1"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeExplicitAutograd"), key
            assert torch._C._dispatch_has_computed_kernel_for_dispatch_key(name, key), key
