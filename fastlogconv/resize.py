"""Labels and weights in the sizes of deep supervision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import nested_error


def resize_nearest(tensor: Tensor, sizes: Sequence[Tensor | Sequence[int]]) -> list[Tensor]:
    """Labels or weights in the sizes of several outputs of a network, each pixel that of the nearest centre.

    Pixel i of m takes that of index floor((2 i + 1) n / (2 m)) of n, found in integers: the one that mode
    "nearest-exact" of `torch.nn.functional.interpolate` takes, by which nnU-Net and MONAI resize targets for
    deep supervision. Of two centres equally near it is the later one. Values are copied: ids of any size
    stay what they are.

    Args:
        tensor: labels, weights or a soft target, [B, ...] or [B, C, ...] with any number of spatial axes, any
            dtype.
        sizes: for each output either itself, [B, channels, ...], or its spatial size, such as
            `output.shape[2:]`.

    Returns:
        For each size a tensor with these as its last axes, the others as they were; `tensor` itself where the
        size is its own. Differentiable.

    Raises:
        TypeError: `tensor` is no tensor, `sizes` no list of tensors or sizes.
        ValueError: a size that does not fit `tensor`, or is not positive, or is of an empty axis.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor must be a torch.Tensor [B, ...], got {type(tensor).__name__}")
    if tensor.is_nested:
        raise nested_error("tensor")
    if isinstance(sizes, Tensor) or not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise TypeError(f"sizes must be a list of outputs or of sizes, got {type(sizes).__name__}")
    return [_resized(tensor, _spatial(tensor, size)) for size in sizes]


def _spatial(tensor: Tensor, size) -> tuple[int, ...]:
    if isinstance(size, Tensor):
        spatial = tuple(size.shape[2:])
    elif isinstance(size, Sequence) and all(isinstance(n, int) and not isinstance(n, bool) for n in size):
        spatial = tuple(size)
    else:
        raise TypeError(
            f"sizes must be tensors or sizes of integers, got {size!r}: pass the outputs or output.shape[2:]"
        )
    if not spatial or tensor.dim() - len(spatial) not in (1, 2):
        raise ValueError(
            f"sizes must be of all spatial axes of tensor [B, ...] or [B, C, ...] {tuple(tensor.shape)}, got "
            f"{tuple(size.shape) if isinstance(size, Tensor) else spatial}: pass the outputs or "
            "output.shape[2:], and for one image tensor[None]"
        )
    there = tensor.shape[-len(spatial) :]
    if any(m < 1 or n < 1 for n, m in zip(there, spatial, strict=True) if n != m):
        raise ValueError(f"sizes must be positive, got {spatial} for tensor {tuple(tensor.shape)}")
    return spatial


def _resized(tensor: Tensor, size: tuple[int, ...]) -> Tensor:
    for axis, m in enumerate(size, tensor.dim() - len(size)):
        n = tensor.shape[axis]
        if n != m:
            nearest = (2 * torch.arange(m, device=tensor.device) + 1) * n // (2 * m)
            tensor = tensor.index_select(axis, nearest)
    return tensor
