"""The operators: schema, kernel per device, fake kernel, and the gradient of the convolution.

They are private: `functional` documents and checks, the operators assume. The backend is chosen when an
operator runs, so one compiled graph serves them all. `torch.library.Library` is used in place of
`torch.library.custom_op` for its lower cost per call.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import backends
from .backends.reference import result_dtype
from .checks import DEVICES
from .errors import LARGEST_CLASS, LARGEST_HALF_IDS, class_error, half_error
from .settings import SETTINGS, WeightSettings

_WITHIN_INT32 = (torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32)

_HALF = {getattr(torch, name): name for name in LARGEST_HALF_IDS}

_library = torch.library.Library("fastlogconv", "DEF")


def _define(schema: str, kernel, fake):
    """Defines an operator for every device of `DEVICES`; returns what to call."""
    name = schema[: schema.index("(")]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for device in DEVICES:
        _library.impl(name, kernel, device.upper())
    torch.library.register_fake(f"fastlogconv::{name}", fake, lib=_library)
    return getattr(torch.ops.fastlogconv, name).default


def _new(like: Tensor, shape) -> Tensor:
    return torch.empty(shape, dtype=result_dtype(like), device=like.device)


# ------------------------------------------------------------------------------------------------ weights


# The settings travel through PyTorch as the plain values that they consist of.
_SCHEMA_TYPES: dict[Any, str] = {
    "DistanceName": "str", "BorderName": "str", "float": "float", "int | None": "int?",
}  # fmt: skip
_SCHEMA = ", ".join(f"{_SCHEMA_TYPES[field.type]} {name}" for name, field in SETTINGS.items())
_settings = functools.lru_cache(1024, typed=True)(WeightSettings)


def _weight_map(labels, classes, ignore, *values_and_backend):
    *values, backend = values_and_backend
    settings = _settings(*values)
    if labels.dtype in _HALF:
        _check_half(labels, ignore)
    features = _features(settings, ignore, classes)
    classes = None if classes is None else _class_labels(classes)
    return backends.select(backend, labels.device, features).weight_map(labels, classes, ignore, settings)


def _region_weight_map(masks, ignore, *values_and_backend):
    *values, backend = values_and_backend
    settings = _settings(*values)
    features = _features(settings, ignore)
    return backends.select(backend, masks.device, features).region_weight_map(masks, ignore, settings)


def _distance_to_weight(distance, foreground, *values_and_backend):
    *values, backend = values_and_backend
    settings = _settings(*values)
    return backends.select(backend, distance.device).distance_to_weight(distance, foreground, settings)


def _features(settings: WeightSettings, ignore, classes=None) -> tuple[str, ...]:
    """What is asked for beyond what every backend computes."""
    if settings.distance == "logconv" and ignore is None and classes is None:
        return ()
    features: list[str] = [] if settings.distance == "logconv" else [settings.distance]
    if classes is not None:
        features.append("classes")
    if ignore is not None:
        features.append("ignore")
    return tuple(features)


def _check_half(labels: Tensor, ignore: Tensor | None) -> None:
    """Refuses ids that a half type cannot tell apart, on the CPU: nothing waits for a GPU."""
    name = _HALF[labels.dtype]
    if labels.device.type != "cpu":
        return
    wrong = (labels > LARGEST_HALF_IDS[name]) & labels.isfinite()
    if ignore is not None:
        wrong &= ~ignore
    if wrong.any():
        raise half_error(labels[wrong][0].item(), name)


def _class_labels(classes: Tensor) -> Tensor:
    """`classes` as int32. They are checked on the CPU alone: elsewhere it would have to be waited for."""
    if classes.dtype in _WITHIN_INT32:
        return classes.to(torch.int32)
    exact = classes.to(torch.float64 if classes.is_floating_point() else torch.int64)
    if classes.device.type == "cpu":
        wrong = ~(exact <= LARGEST_CLASS)  # NaN compares false
        if classes.is_floating_point():
            wrong |= exact.isinf() | (exact != exact.floor())
        elif classes.dtype == torch.uint64:
            wrong |= exact < 0
        if wrong.any():
            value = exact[wrong][0].item()
            raise class_error(value + 2**64 if classes.dtype == torch.uint64 and value < 0 else value)
    return exact.clamp(-1, LARGEST_CLASS).to(torch.int32)


weight_map = _define(
    f"weight_map(Tensor labels, Tensor? classes, Tensor? ignore, {_SCHEMA}, str backend) -> Tensor",
    _weight_map,
    lambda labels, *settings: _new(labels, labels.shape),
)
region_weight_map = _define(
    f"region_weight_map(Tensor masks, Tensor? ignore, {_SCHEMA}, str backend) -> Tensor",
    _region_weight_map,
    lambda masks, *settings: _new(masks, masks.shape[1:]),
)
distance_to_weight = _define(
    f"distance_to_weight(Tensor distances, Tensor? foreground, {_SCHEMA}, str backend) -> Tensor",
    _distance_to_weight,
    lambda distance, *settings: _new(distance, distance.shape[1:]),
)


# -------------------------------------------------------------------------------------- the convolution


def _separable_conv2d(input, lmbda, ks, padding_mode, backend):
    return backends.select(backend, input.device).separable_conv2d(input, lmbda, ks, padding_mode)


separable_conv2d = _define(
    "separable_conv2d(Tensor input, float lmbda, int ks, str padding_mode, str backend) -> Tensor",
    _separable_conv2d,
    lambda input, *settings: _new(input, input.shape),
)


def _source(n: int, r: int, padding_mode: str, device: torch.device) -> Tensor:
    """For each of the n + 2 r positions of a padded axis: the one of the n that its value came from."""
    i = torch.arange(-r, n + r, device=device)
    if padding_mode == "replicate":
        return i.clamp(0, n - 1)
    if padding_mode == "circular":
        return i % n
    return (n - 1) - ((n - 1) - i.abs()).abs()  # reflect, r < n


def _adjoint(grad: Tensor, lmbda: float, ks: int, padding_mode: str, backend: str) -> Tensor:
    """The transposed convolution. The kernel is symmetric, so only the padding has to be undone."""
    if padding_mode == "constant":
        return separable_conv2d(grad, lmbda, ks, "constant", backend)
    _, h, w = grad.shape
    r = ks // 2
    padded = separable_conv2d(F.pad(grad, (r, r, r, r)), lmbda, ks, "constant", backend)
    rows = padded.new_zeros(padded.shape[0], h, w + 2 * r)
    rows = rows.index_add(1, _source(h, r, padding_mode, grad.device), padded)
    return grad.new_zeros(grad.shape).index_add(2, _source(w, r, padding_mode, grad.device), rows)


def _setup_context(ctx, inputs, output):
    ctx.settings = inputs[1:]


def _backward(ctx, grad):
    return _adjoint(grad, *ctx.settings), None, None, None, None


torch.library.register_autograd(
    "fastlogconv::separable_conv2d", _backward, setup_context=_setup_context, lib=_library
)
