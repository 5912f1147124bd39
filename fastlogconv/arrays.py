"""Arrays from files and other libraries, in the form in which PyTorch and the native code read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def plain_array(values: Any, name: str) -> np.ndarray:
    """`values` as an array in the machine's byte order, of the one dtype of its kind that PyTorch knows.

    NumPy has two types for 64-bit integers without sign on most machines, and files come in either.

    Raises:
        TypeError: it is a masked array: what is below the mask would count.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array, whose mask would be lost: pass {name}.filled(0)")
    array = np.asarray(values)
    if array.dtype.kind not in "biufc":
        return array
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    known = np.dtype(native.dtype.str)
    return native if native.dtype.num == known.num else native.view(known)


def as_tensor(values: Any, name: str) -> Tensor:
    """An array of any strides and byte order as a tensor, without a copy where that is possible.

    Raises:
        TypeError: as for `plain_array`, or PyTorch has no such dtype.
    """
    return torch.from_numpy(np.require(plain_array(values, name), requirements=["C", "W"]))


def check_no_trailing_channel(shape: tuple[int, ...], name: str, wanted: str) -> None:
    """Refuses [H, W, 1] where three axes are `wanted`: it would be a batch of images one column wide.

    Raises:
        ValueError: it looks like that.
    """
    if len(shape) >= 3 and shape[-1] == 1 and shape[-3] > 1:
        raise ValueError(
            f"{name} must have the shape {wanted}, got {tuple(shape)}, whose images are one column wide: "
            f"if the last axis is the channel, pass {name}[..., 0]"
        )
