"""What the backends for GPUs ask of a device."""

from __future__ import annotations

import torch


def why_no_gpu(device: torch.device, least: tuple[int, int]) -> str | None:
    """Why kernels for NVIDIA GPUs of compute capability `least` on cannot run on the CUDA device `device`."""
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device"
    if torch.version.hip is not None:
        return "its kernels are written for NVIDIA GPUs"
    if torch.cuda.get_device_capability(device) < least:
        return f"its kernels need compute capability {least[0]}.{least[1]} or higher"
    return None
