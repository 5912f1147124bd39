"""Where people train: workers of a DataLoader, compiled, exported and autocast models, several processes."""

import datetime
import io

import numpy as np
import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from cases import scattered
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from fastlogconv import WeightTransform, weight_map

SIZES = ((2, 24, 30), (2, 25, 30), (3, 40, 21), (5, 36, 41))


def cells(n, height, width):
    """Label images [n, H, W]."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.stack([scattered((height, width), 6, 9, rng) for _ in range(n)]))


class Cells(Dataset):
    """Label images and their weights, computed in the process that asks for them."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.labels[index], weight_map(self.labels[index], backend="native")


def use_two_threads(worker):
    torch.set_num_threads(2)


@pytest.fixture
def used_threads(with_threads):
    """This process has computed with two threads of PyTorch and of the kernels."""
    with_threads(2)
    weight_map(torch.arange(1024 * 1024, dtype=torch.int32).reshape(1024, 1024) // 4096, backend="native")
    torch.rand(1000, 1000) @ torch.rand(1000, 1000)


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("workers", [1, 2])
def test_data_loader(workers, start, used_threads):
    labels = cells(6, 50, 70)
    loader = DataLoader(
        Cells(labels), 2, num_workers=workers, multiprocessing_context=start, persistent_workers=True,
        timeout=120,
    )  # fmt: skip
    for _ in range(2):
        check_epoch(loader, labels)


def test_data_loader_without_workers(used_threads):
    labels = cells(6, 50, 70)
    check_epoch(DataLoader(Cells(labels), 2), labels)


def test_threads_in_forked_workers(used_threads):
    """The kernels start theirs anew. PyTorch's own would hang there, so nothing is collated."""
    labels = cells(4, 300, 200)
    loader = DataLoader(
        Cells(labels), None, num_workers=2, multiprocessing_context="fork", worker_init_fn=use_two_threads,
        timeout=120,
    )  # fmt: skip
    for (_, weights), expected in zip(loader, weight_map(labels, backend="native"), strict=True):
        assert torch.equal(weights, expected)


def check_epoch(loader, labels):
    seen, weights = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(seen, labels)
    assert torch.equal(weights, weight_map(labels, backend="native"))


def test_pinned_memory(device):
    """Pages are pinned where there is a GPU to copy to."""
    labels = cells(4, 50, 70)
    loader = DataLoader(Cells(labels), 2, num_workers=1, pin_memory=device == "cuda")
    for seen, weights in loader:
        assert weights.is_pinned() == (device == "cuda")
        expected = weight_map(seen, backend="native")
        assert torch.equal(weights.to(device, non_blocking=True).cpu(), expected)


# ------------------------------------------------------------------------------------------------ compiled


@pytest.fixture
def compilations():
    """A function that tells how many graphs were compiled in this test."""
    torch._dynamo.reset()
    counters.clear()
    return lambda: counters["stats"]["unique_graphs"]


def weighted_loss(logits, labels, transform):
    return F.binary_cross_entropy_with_logits(logits, (labels > 0).to(logits.dtype), transform(labels))


def test_compiled_once_for_all_sizes(compilations, backend, device):
    transform = WeightTransform(border="second_nearest", backend=backend)
    compiled = torch.compile(weighted_loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in SIZES:
        labels = cells(*size).to(device)
        logits = torch.randn(size, device=device, requires_grad=True)
        loss = compiled(logits, labels, transform)
        torch.testing.assert_close(loss, weighted_loss(logits, labels, transform))
        loss.backward()
    assert compilations() == 1


def test_compiled_twice_where_sizes_turn_out_to_change(compilations, backend, device):
    """Without `dynamic`, PyTorch takes the first size as fixed; from the second on it does not."""
    compiled = torch.compile(WeightTransform(backend=backend), fullgraph=True, backend="aot_eager")
    for size in ((7, 40, 60), *SIZES):
        labels = cells(*size).to(device)
        assert torch.equal(compiled(labels), WeightTransform(backend=backend)(labels))
    assert compilations() == 2


def test_exported_with_free_sizes(backend, device):
    transform = WeightTransform(border="second_nearest", bwf=10, backend=backend)
    sizes = {axis: torch.export.Dim(name) for axis, name in enumerate(("batch", "height", "width"))}
    exported = torch.export.export(transform, (cells(2, 24, 30).to(device),), dynamic_shapes=(sizes,))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    for program in (exported, torch.export.load(file)):
        for size in SIZES:
            labels = cells(*size).to(device)
            assert torch.equal(program.module()(labels), transform(labels))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype, backend, device):
    """Weights are not computed in less than float32 because the model is."""
    labels = cells(2, 24, 30).to(device)
    expected = weight_map(labels, backend=backend)
    model = torch.nn.Conv2d(1, 1, 3, padding=1).to(device)
    with torch.autocast(device, dtype=dtype):
        weights = weight_map(labels, backend=backend)
        assert weights.dtype == torch.float32
        assert torch.equal(weights, expected)
        logits = model(labels[:, None].float())[:, 0]
        assert logits.dtype == dtype
        loss = F.binary_cross_entropy_with_logits(logits, (labels > 0).float(), weights)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# --------------------------------------------------------------------------------------- several processes


def model_and_labels():
    torch.manual_seed(0)
    return torch.nn.Conv2d(1, 1, 3, padding=1).double(), cells(4, 50, 70)


def gradients(model, labels):
    """Those of one training step."""
    transform = WeightTransform(border="second_nearest", bwf=10, backend="native")
    weighted_loss(model(labels[:, None].double())[:, 0], labels, transform).backward()
    return [parameter.grad for parameter in model.parameters()]


def distributed_step(rank, folder):
    """One of two processes, with every second label image; writes the gradients that they agree on."""
    timeout = datetime.timedelta(seconds=120)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", timeout, 2, rank)
    model, labels = model_and_labels()
    torch.save(gradients(DistributedDataParallel(model), labels[rank::2]), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel(used_threads, tmp_path):
    torch.multiprocessing.spawn(distributed_step, (str(tmp_path),), nprocs=2)
    expected = gradients(*model_and_labels())
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected)
