import pytest
import torch
import torch.nn.functional as F
from conftest import DEVICES

from fastlogconv import resize_nearest

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64]
SPATIAL = {
    1: [(9,), (5,), (1,), (18,)],
    2: [(9, 7), (4, 3), (1, 7), (20, 2)],
    3: [(9, 7, 5), (4, 3, 2), (5, 9, 1)],
}


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.mark.parametrize("axes", SPATIAL)
def test_as_nearest_exact(axes, device):
    """Weights and small labels: what PyTorch does for floating point."""
    sizes = SPATIAL[axes]
    tensor = torch.rand(2, 3, *sizes[0], generator=torch.Generator().manual_seed(1)).to(device)
    outputs = [torch.zeros(2, 4, *size, device=device) for size in sizes]
    expected = [F.interpolate(tensor, size, mode="nearest-exact") for size in sizes]
    for given in (
        outputs,
        tuple(outputs),
        sizes,
        [output.shape[2:] for output in outputs],
        [[*s] for s in sizes],
    ):
        for resized, wanted in zip(resize_nearest(tensor, given), expected, strict=True):
            assert torch.equal(resized, wanted)
    for resized, wanted in zip(resize_nearest(tensor[:, 0], outputs), expected, strict=True):
        assert torch.equal(resized, wanted[:, 0])


def test_every_size_as_nearest_exact():
    for n in range(1, 80):
        row = torch.arange(n, dtype=torch.float64)[None]
        for m, resized in enumerate(resize_nearest(row, [(m,) for m in range(1, 161)]), 1):
            assert torch.equal(resized, F.interpolate(row[None], m, mode="nearest-exact")[0]), (n, m)


@pytest.mark.parametrize("dtype", INTEGERS + [torch.bool, torch.float16, torch.float64], ids=str)
def test_values_are_copied(dtype, device):
    """The largest ids of each type, which float32 cannot tell apart."""
    rows = torch.tensor([[0, 1, 0, 1]]) if dtype.is_floating_point or dtype is torch.bool else None
    if rows is None:
        largest = torch.iinfo(dtype).max
        rows = torch.tensor([[largest - 3, largest - 2, largest - 1, largest]])
    labels = rows.to(device, dtype)
    (resized,) = resize_nearest(labels, [(2,)])
    assert resized.dtype == dtype and resized.tolist() == [labels[0].tolist()[1::2]]


def test_large_ids():
    labels = 100_000_000 + torch.arange(64, dtype=torch.int32).reshape(1, 8, 8)
    (resized,) = resize_nearest(labels, [(4, 4)])
    assert torch.equal(resized, labels[:, 1::2, 1::2])


def test_its_own_size_is_no_copy():
    labels = torch.zeros(2, 6, 4)
    assert resize_nearest(labels, [(6, 4)])[0] is labels
    assert resize_nearest(labels, []) == []
    assert resize_nearest(torch.zeros(0, 6, 4), [(3, 2)])[0].shape == (0, 3, 2)


def test_batchgeneratorsv2(device):
    """nnU-Net's transform in a data loader, [C, H, W] -> the same pixels."""
    module = pytest.importorskip(
        "batchgeneratorsv2.transforms.utils.deep_supervision_downsampling",
        reason="compared with nnU-Net's transform where it is installed",
    )
    labels = torch.randint(0, 99, (1, 40, 28), generator=torch.Generator().manual_seed(2), dtype=torch.int16)
    scales = [(1, 1), (0.5, 0.5), (0.25, 0.5), (0.3, 0.7)]
    transform = module.DownsampleSegForDSTransform(scales)
    expected = transform(segmentation=labels)["segmentation"]
    resized = resize_nearest(labels.to(device), [each.shape[1:] for each in expected])
    for mine, other in zip(resized, expected, strict=True):
        assert torch.equal(mine.cpu(), other)


def test_gradients(device):
    weights = torch.rand(1, 1, 3, 5, dtype=torch.float64, device=device, requires_grad=True)
    torch.autograd.gradcheck(lambda w: resize_nearest(w, [(2, 2), (6, 5)]), weights)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(dynamic, device):
    compiled = torch.compile(resize_nearest, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for h, w in ((16, 12), (10, 14)):
        labels = torch.arange(h * w, device=device).reshape(1, h, w)
        outputs = [torch.zeros(1, 2, h // s, w // s, device=device) for s in (1, 2, 4)]
        for mine, other in zip(compiled(labels, outputs), resize_nearest(labels, outputs), strict=True):
            assert torch.equal(mine, other)


@pytest.mark.parametrize(
    "tensor, sizes, error, message",
    [
        ([[1]], [(1,)], TypeError, r"tensor must be a torch.Tensor \[B, ...\], got list"),
        (
            torch.nested.nested_tensor([torch.ones(3)]),
            [(1,)],
            TypeError,
            "tensor must be a tensor of one shape",
        ),
        (
            torch.ones(1, 4, 4),
            torch.ones(1, 2, 2, 2),
            TypeError,
            "sizes must be a list of outputs .* got Tensor",
        ),
        (torch.ones(1, 4, 4), 2, TypeError, "sizes must be a list of outputs or of sizes, got int"),
        (
            torch.ones(1, 4, 4),
            (2, 2),
            TypeError,
            r"sizes must be tensors or sizes .* got 2: pass the outputs",
        ),
        (
            torch.ones(1, 4, 4),
            [(2.0, 2)],
            TypeError,
            r"sizes must be tensors or sizes of integers, got \(2.0, 2\)",
        ),
        (
            torch.ones(1, 4, 4),
            [(1, 2, 2, 2)],
            ValueError,
            r"sizes must be of all spatial .* got \(1, 2, 2, 2\): pass",
        ),
        (torch.ones(1, 1, 4, 4), [(1, 1, 2, 2)], ValueError, r"sizes must be of all .* output.shape\[2:\]"),
        (torch.ones(4, 4), [(2, 2)], ValueError, r"sizes must be of all .*for one image tensor\[None\]"),
        (
            torch.ones(1, 4, 4),
            [torch.ones(2, 2)],
            ValueError,
            r"sizes must be of all spatial .* got \(2, 2\)",
        ),
        (
            torch.ones(1, 4, 4),
            [(2, 0)],
            ValueError,
            r"sizes must be positive, got \(2, 0\) for tensor \(1, 4, 4\)",
        ),
        (
            torch.ones(1, 0, 4),
            [(2, 2)],
            ValueError,
            r"sizes must be positive, got \(2, 2\) for tensor \(1, 0, 4\)",
        ),
    ],
)
def test_refused(tensor, sizes, error, message):
    with pytest.raises(error, match=f"^{message}"):
        resize_nearest(tensor, sizes)
