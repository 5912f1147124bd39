"""What tensors and arguments may be: errors that name the argument, its value and what is allowed.

Cheap when all is well: plain comparisons that torch.compile can trace. The errors are built elsewhere.
Settings check themselves, see settings.py.
"""

from __future__ import annotations

import contextlib
import numbers
import warnings
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from . import backends
from .codes import DTYPES, PADDING_MODES
from .settings import (
    DEFAULTS,
    NAMES,
    OF_LABELS,
    check_kernel_size,
    check_length,
    check_spacing,
    choice_error,
    spacing_error,
)

# With backends of their own; tensors of any other are computed on the CPU. To ROCm, AMD's GPUs are "cuda".
DEVICES = ("cpu",) if torch.version.hip else ("cpu", "cuda")
_DTYPES = frozenset(getattr(torch, name) for name in DTYPES)


def check_backend(name: str) -> None:
    if not isinstance(name, str) or name not in backends.NAMES:
        backends.check_name(name)


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def comparable(values: Tensor) -> Tensor:
    """The same bits in a type that PyTorch compares, as hardly any of the larger unsigned ones."""
    signed = _SIGNED.get(values.dtype)
    return values if signed is None else values.view(signed)


def positive(values: Tensor) -> Tensor:
    """Where a tensor is > 0: bool."""
    signed = comparable(values)
    return values > 0 if signed is values else signed != 0


def values_are_looked_at(tensor: Tensor) -> bool:
    """On the CPU only, and not in compiled code: nothing waits for a GPU."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def refuse_values(values: Tensor, wrong: Tensor, error: Callable[[float], Exception]) -> None:
    """Raises `error` of the first of the values that are `wrong`, where they can be looked at."""
    with contextlib.suppress(RuntimeError):  # under vmap they cannot
        if wrong.any():
            value = values[wrong][0].item()
            raise error(value)


IgnoreIndex = int | Collection[int]  # a label to ignore, or several


def check_ignore_labels(value: IgnoreIndex) -> int | tuple[int, ...]:
    """The labels to ignore as a plain int, or as a tuple of them where they come in a sequence.

    Raises:
        TypeError, ValueError: as for `check_ignore_index`.
    """
    if isinstance(value, int) or not isinstance(value, Collection) or isinstance(value, str | bytes):
        return check_ignore_index(value)  # type: ignore[arg-type]
    return tuple([check_ignore_index(label) for label in value])


def check_ignore_index(value: int) -> int:
    """The value as a plain int.

    Raises:
        TypeError: it is no integer.
        ValueError: it does not fit 64 bits.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"ignore_index must be an integer, got {value!r} of type {type(value).__name__}")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"ignore_index must be from -2**63 to 2**63 - 1, got {value}")
    return int(value)


def check_kernel(lmbda: float, ks: int) -> tuple[float, int]:
    """The settings of a lambda kernel, checked, as plain float and int.

    Raises:
        TypeError, ValueError: one is of the wrong type or out of its range.
    """
    lmbda, size = check_length("lmbda", lmbda), check_kernel_size("ks", ks)
    if size is None:
        raise TypeError("ks must be an integer, got None of type NoneType")
    return lmbda, size


def check_convolution(lmbda: float, ks: int, padding_mode: str, backend: str) -> tuple[float, int]:
    """Checks the settings of `separable_conv2d`; returns lmbda and ks as plain float and int.

    Raises:
        TypeError, ValueError: one is of the wrong type or out of its range.
    """
    if not isinstance(padding_mode, str) or padding_mode not in PADDING_MODES:
        raise choice_error("padding_mode", padding_mode, PADDING_MODES)
    check_backend(backend)
    return check_kernel(lmbda, ks)


def check_tensor(tensor, name: str, ranks: tuple[int, ...], shape: str) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor {shape}, got {type(tensor).__name__}{_hint(tensor)}")
    if tensor.dtype not in _DTYPES:
        raise TypeError(
            f"{name} must be bool, integer, float16, bfloat16, float32 or float64, got {tensor.dtype}"
        )
    if tensor.is_nested:
        raise nested_error(name)
    if tensor.dim() not in ranks:
        got = tuple(tensor.shape)
        has_channel = tensor.dim() == max(ranks) + 1 and got[1] == 1
        advice = f": pass {name}[:, 0], without the axis of one channel" if has_channel else ""
        raise ValueError(f"{name} must have the shape {shape}, got {got}{advice}")
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be dense, got layout {tensor.layout}: pass {name}.to_dense()")
    if tensor.device.type == "meta":
        raise ValueError(f"{name} must be on cpu or cuda, got the meta device, which holds no values")


SPATIAL_SHAPES = {
    2: ((2, 3), "[H, W] or [B, H, W] (spatial_dims=2)"),
    3: ((3, 4), "[D, H, W] or [B, D, H, W] (spatial_dims=3)"),
}


def check_spatial_dims(spatial_dims: int) -> None:
    if isinstance(spatial_dims, bool) or not isinstance(spatial_dims, int) or spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 (images) or 3 (volumes), got {spatial_dims!r}")


def check_spatial_labels(labels, spatial_dims: int) -> None:
    """Labels of images or, with three spatial dims, of volumes; one or a batch."""
    check_spatial_dims(spatial_dims)
    check_tensor(labels, "labels", *SPATIAL_SHAPES[spatial_dims])
    if labels.requires_grad:
        raise grad_error("labels")


def check_region_masks(masks, spatial_dims: int) -> None:
    check_spatial_dims(spatial_dims)
    if spatial_dims == 2:  # constants: PyTorch 2.4's compiler finds no number in a tuple of symbolic ones
        check_tensor(masks, "masks", (3, 4), "[N, H, W] or [B, N, H, W]")
    else:
        check_tensor(masks, "masks", (4, 5), "[N, D, H, W] or [B, N, D, H, W]")


OF_MASKS = (torch.bool, torch.uint8)  # what binary masks come in
_warned_of_masks = False


def warn_of_masks(labels: Tensor) -> None:
    """Says once per process that labels look like a binary mask: see `doubt_of_masks`.

    On the CPU alone, and not in compiled code: nothing waits for a GPU.
    """
    global _warned_of_masks
    if _warned_of_masks or torch.compiler.is_compiling() or labels.device.type != "cpu":
        return
    doubt = doubt_of_masks(labels)
    if doubt is not None:
        _warned_of_masks = True
        warnings.warn(doubt, UserWarning, stacklevel=3)


def doubt_of_masks(labels: Tensor) -> str | None:
    """What to say of labels that look like a binary mask, bool, or uint8 of 0 and 255 alone; else None."""
    if labels.dtype not in OF_MASKS:
        return None
    if labels.dtype is torch.uint8:
        inside = labels != 0
        if not inside.any() or (inside & (labels != 255)).any():
            return None
    kind = "bool" if labels.dtype is torch.bool else "0 and 255 alone"
    return (
        f"labels are {kind}, so one instance: without instance ids there is no border between cells. If this "
        "is a binary mask, pass fastlogconv.binary_to_instances(mask), or ids from your own annotation"
    )


def check_axes_of_spacing(spacing, spatial_dims: int) -> list[float]:
    """The length of a pixel along each spatial axis; all 1 for None.

    Raises:
        TypeError, ValueError: they are no numbers in their range, or not one for each axis.
    """
    checked = check_spacing("spacing", spacing)
    if checked is None:
        return [1.0, 1.0] if spatial_dims == 2 else [1.0, 1.0, 1.0]  # for compilers: a fixed length
    if len(checked) != spatial_dims:
        raise spacing_error(spatial_dims, checked)
    return list(checked)


def check_classes(classes, labels: Tensor) -> None:
    check_tensor(classes, "classes", (2, 3, 4), "[H, W] or [B, H, W]")
    if classes.requires_grad:
        raise grad_error("classes")
    if classes.shape != labels.shape or classes.device != labels.device:
        raise ValueError(
            f"classes must have the shape and device of labels, {tuple(labels.shape)} on {labels.device}, "
            f"got {tuple(classes.shape)} on {classes.device}"
        )


def check_region_classes(classes, regions: int) -> list[int]:
    """The class of each region as plain int.

    Raises:
        TypeError, ValueError: they are no whole numbers, or not one for each region.
    """
    values = classes.tolist() if isinstance(classes, Tensor | np.ndarray) else classes
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise TypeError(
            f"classes must be a list, tuple or tensor of {regions} integers, got {type(classes).__name__}"
        )
    for value in values:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"classes must be integers, one for each region, got {value!r}")
    if len(values) != regions:
        raise ValueError(f"classes must be one for each of {regions} regions, got {len(values)}")
    return [int(value) for value in values]


def broadcast_ignore(ignore, shape: torch.Size, device: torch.device, like: str) -> Tensor:
    """`ignore`, checked, as a view of `shape`, that of the weights."""
    if not isinstance(ignore, Tensor) or ignore.dtype is not torch.bool:
        kind = ignore.dtype if isinstance(ignore, Tensor) else type(ignore).__name__
        raise TypeError(f"ignore must be a bool tensor or None, got {kind}: pass mask > 0")
    if ignore.is_nested:
        raise nested_error("ignore")
    if ignore.layout is not torch.strided or ignore.device != device:
        raise ValueError(
            f"ignore must be dense and on the device of {like}, {device}, "
            f"got layout {ignore.layout} on {ignore.device}"
        )
    if ignore.shape == shape:
        return ignore
    trailing = shape[len(shape) - ignore.dim() :] if ignore.dim() <= len(shape) else None
    if trailing is None or any(n != 1 and n != m for n, m in zip(ignore.shape, trailing, strict=True)):
        raise ValueError(
            f"ignore must have a shape that broadcasts to {tuple(shape)}, got {tuple(ignore.shape)}"
        )
    return ignore.expand(shape)


def with_ignore_index(ignore: Tensor | None, labels: Tensor, value: int | tuple[int, ...]) -> Tensor | None:
    """`ignore`, and with it the pixels whose label is `value`, or one of several."""
    for label in value if isinstance(value, tuple) else (value,):
        if _can_hold(labels.dtype, label):  # else comparing would wrap around, or round
            here = labels == label
            ignore = here if ignore is None else ignore | here
    return ignore


def _can_hold(dtype: torch.dtype, value: int) -> bool:
    if dtype is torch.bool:
        return value in (0, 1)
    if not dtype.is_floating_point:
        return torch.iinfo(dtype).min <= value <= torch.iinfo(dtype).max
    limits, odd_part = torch.finfo(dtype), value // (value & -value or 1)
    return limits.min <= value <= limits.max and abs(odd_part) <= 2 / limits.eps


def check_of_regions(values: tuple) -> None:
    """Whether settings are those of region masks."""
    given = dict(zip(NAMES, values, strict=True))
    for name in OF_LABELS:
        if given[name] != DEFAULTS[name]:
            raise ValueError(
                f"region masks have {name}={DEFAULTS[name]!r} alone, got {given[name]!r}: where no regions "
                "overlap, make labels of them for weight_map"
            )


def check_foreground(foreground, shape: torch.Size, device: torch.device, like: str) -> None:
    if not isinstance(foreground, Tensor) or foreground.dtype is not torch.bool:
        kind = foreground.dtype if isinstance(foreground, Tensor) else type(foreground).__name__
        raise TypeError(f"foreground must be a bool tensor or None, got {kind}: pass mask > 0")
    if foreground.is_nested:
        raise nested_error("foreground")
    if foreground.shape != shape:
        raise ValueError(
            f"foreground must have the shape {tuple(shape)} of {like}, got {tuple(foreground.shape)}"
        )
    if foreground.layout is not torch.strided or foreground.device != device:
        raise ValueError(
            f"foreground must be dense and on the device of {like}, {device}, "
            f"got layout {foreground.layout} on {foreground.device}"
        )


def check_padding(input: Tensor, r: int, padding_mode: str) -> None:
    _, h, w = input.shape
    if h == 0 or w == 0:
        return
    if padding_mode == "reflect" and not (r < h and r < w):
        raise ValueError(
            f"padding_mode='reflect' needs ks // 2 < H and W, got ks // 2 = {r} for H = {h}, W = {w}"
        )
    if padding_mode == "circular" and not (r <= h and r <= w):
        raise ValueError(
            f"padding_mode='circular' needs ks // 2 <= H and W, got ks // 2 = {r} for H = {h}, W = {w}"
        )


def _hint(value) -> str:
    if isinstance(value, np.ma.MaskedArray):
        return ": fill it first, torch.from_numpy(array.filled(0))"
    if isinstance(value, np.ndarray):
        channel = (
            "[..., 0]" if value.ndim == 3 and value.shape[-1] == 1 else ""
        )  # no image is one column wide
        return f": pass torch.from_numpy({_for_torch(value)}){channel}"
    return ": pass torch.as_tensor(...)" if isinstance(value, (list, tuple, int, float)) else ""


def _for_torch(array: np.ndarray) -> str:
    """What `torch.from_numpy` takes in place of an array: it refuses some byte orders, strides and dtypes."""
    plain = np.dtype(array.dtype.newbyteorder("=").str)
    if array.dtype.num != plain.num and array.dtype.kind in "iu":
        return f"array.astype(np.{plain.name})"
    if not array.dtype.isnative:
        return 'np.ascontiguousarray(array, array.dtype.newbyteorder("="))'
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        return "np.ascontiguousarray(array)"
    return "array"


def nested_error(name: str) -> TypeError:
    return TypeError(
        f"{name} must be a tensor of one shape, got a nested tensor: pass its parts one by one, or "
        f"{name}.to_padded_tensor(0)"
    )


def grad_error(name: str) -> ValueError:
    return ValueError(f"{name} must not require grad, got requires_grad=True: pass {name}.detach()")
