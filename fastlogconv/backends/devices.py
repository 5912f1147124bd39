"""What the backends for GPUs ask of a device: whether it can serve, and where to queue work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

_able: set[tuple[torch.device, tuple[int, int]]] = set()  # asking takes longer than small images do


def why_no_gpu(device: torch.device, least: tuple[int, int]) -> str | None:
    """Why kernels for NVIDIA GPUs of compute capability `least` on cannot run on the CUDA device `device`."""
    if (device, least) in _able:
        return None
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device"
    if torch.version.hip is not None:
        return "its kernels are written for NVIDIA GPUs"
    if torch.cuda.get_device_capability(device) < least:
        return f"its kernels need compute capability {least[0]}.{least[1]} or higher"
    if device.index is not None:  # without one it is whichever device is current
        _able.add((device, least))
    return None


# What `torch.cuda.current_device` and `current_stream` ask in the end, where PyTorch has it.
_current_device = getattr(torch._C, "_cuda_getDevice", None) or torch.cuda.current_device
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None) or (
    lambda index: torch.cuda.current_stream(index).cuda_stream
)


def queue_of(tensor: Tensor) -> contextlib.AbstractContextManager[tuple[int, int]]:
    """(device, stream) for launches that concern a CUDA tensor; within it, its device is the current one."""
    index = tensor.get_device()
    if _current_device() == index:
        return contextlib.nullcontext((index, _raw_stream(index)))
    return _on_other_device(index)


@contextlib.contextmanager
def _on_other_device(index: int) -> Iterator[tuple[int, int]]:
    with torch.cuda.device(index):
        yield index, _raw_stream(index)
