"""The operators: schema, kernel per device, fake kernel, and the derivatives of the convolution.

They are private: `functional` documents and checks, the operators assume. The backend is chosen when an
operator runs, so one compiled graph serves them all. `torch.library.Library` is used in place of
`torch.library.custom_op` for its lower cost per call.
"""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch._C import _AutoDispatchBelowAutograd as _below_autograd
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.utils._pytree import tree_map

from . import backends, engines
from .backends.reference import result_dtype
from .checks import DEVICES, positive
from .errors import LARGEST_CLASS, LARGEST_HALF_IDS, class_error, half_error
from .labels import separated
from .numerics import SMALLEST_DECAY_LENGTH
from .settings import SETTINGS, WeightSettings

_WITHIN_INT32 = (torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32)

_HALF = {getattr(torch, name): name for name in LARGEST_HALF_IDS}

_library = torch.library.Library("fastlogconv", "DEF")


def _define(schema: str, kernel, fake):
    """Defines an operator, for devices not in `DEVICES` by way of the CPU; returns what to call."""
    name = schema[: schema.index("(")]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for device in DEVICES:
        _library.impl(name, kernel, device.upper())
    _library.impl(name, _by_way_of_the_cpu(kernel), "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastlogconv::{name}", fake, lib=_library)
    return getattr(torch.ops.fastlogconv, name).default


def _by_way_of_the_cpu(kernel):
    """`kernel` for tensors on a device without backends, unless the caller names one: that says why not."""

    def run(tensor, *others):
        device, named = tensor.device, others[-1] if isinstance(others[-1], str) else "auto"
        if backends.asked_for(named) != "auto":
            return kernel(tensor, *others)
        backends.warn_of_the_cpu(device)
        moved = [each.cpu() if isinstance(each, Tensor) else each for each in others]
        results = kernel(tensor.cpu(), *moved)
        return tree_map(lambda result: result.to(device), results)

    return run


def _new(like: Tensor, shape) -> Tensor:
    return torch.empty(shape, dtype=result_dtype(like), device=like.device)


# ------------------------------------------------------------------------------------------------ weights


# The settings travel through PyTorch as the plain values that they consist of.
_SCHEMA_TYPES: dict[Any, str] = {
    "DistanceName": "str", "BorderName": "str", "FalloffName": "str", "BalanceName": "str",
    "float": "float", "int | None": "int?", "bool": "bool",
    "tuple[float, ...] | None": "float[]?",
}  # fmt: skip
_SCHEMA = ", ".join(f"{_SCHEMA_TYPES[field.type]} {name}" for name, field in SETTINGS.items())
_remembered_settings = functools.lru_cache(1024, typed=True)(WeightSettings)


def _settings(*values) -> WeightSettings:
    *others, spacing = values  # which comes as a list
    return _remembered_settings(*others, spacing if spacing is None else tuple(spacing))


def _weight_map(labels, classes, ignore, foreground, *values_and_backend):
    *values, backend = values_and_backend
    settings = _settings(*values)
    if labels.dtype in _HALF:
        _check_half(labels, ignore)
    features = _features(settings, ignore, classes, foreground, labels.dim() == 4)
    classes = None if classes is None else _class_labels(classes)
    chosen = backends.select(backend, labels.device, features)
    return chosen.weight_map(labels, classes, ignore, foreground, settings)


def _region_weight_map(masks, ignore, *values_and_backend):
    *values, backend = values_and_backend
    settings = _settings(*values)
    volumes = masks.dim() == 4
    features = _features(settings, ignore, volumes=volumes) + _features_of_regions(settings, volumes)
    chosen = backends.select(backend, masks.device, features, "region_weight_map")
    return chosen.region_weight_map(masks, ignore, settings)


def _distance_to_weight(distance, foreground, *values_and_backend):
    *values, backend = values_and_backend
    settings = _settings(*values)
    chosen = backends.select(backend, distance.device, (), "distance_to_weight")
    return chosen.distance_to_weight(distance, foreground, settings)


def _features(
    settings: WeightSettings, ignore, classes=None, foreground=None, volumes: bool = False
) -> tuple[str, ...]:
    """What is asked for beyond what every backend computes."""
    plain = settings.distance == "logconv" and settings.falloff == "sum" and not settings.border_everywhere
    if plain and ignore is None and classes is None and foreground is None:
        return ()
    features: list[str] = [] if settings.distance == "logconv" else [settings.distance]
    if classes is not None:
        features.append("classes")
    if ignore is not None:
        features.append("ignore")
    if settings.falloff == "nearest":
        features.append("nearest falloff")
    if foreground is not None or settings.border_everywhere:
        features.append("foreground")
    if volumes or settings.spacing is not None:
        every = "" if engines.choose(settings).name == "two nearest" else " by every instance"
        features += [f"volumes{every}"] * volumes + [f"spacing{every}"] * (settings.spacing is not None)
    return tuple(features)


def _features_of_regions(settings: WeightSettings, volumes: bool) -> tuple[str, ...]:
    """And beyond what every backend computes of labels."""
    return ("volumes of regions",) * volumes + ("spacing of regions",) * (settings.spacing is not None)


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
    if classes.dtype is torch.int32:
        return classes
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


def _foreground_with_gaps(labels, classes):
    if labels.device.type == "cpu" and backends.native.why_not(labels.device) is None:
        classes = None if classes is None else _class_labels(classes)
        return backends.native.foreground_with_gaps(labels, classes)
    foreground = positive(separated(labels, classes, labels.dim() - 1))
    return foreground if classes is None else foreground & (_class_labels(classes) > 0)


foreground_with_gaps = _define(
    "foreground_with_gaps(Tensor labels, Tensor? classes) -> Tensor",
    _foreground_with_gaps,
    lambda labels, classes: torch.empty(labels.shape, dtype=torch.bool, device=labels.device),
)
weight_map = _define(
    f"weight_map(Tensor labels, Tensor? classes, Tensor? ignore, Tensor? foreground, {_SCHEMA}, str backend) "
    "-> Tensor",
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


# ---------------------------------------------------------------------------------- the nearest instances


def _nearest_instances(labels, ignore, k, spacing, backend):
    if labels.dtype in _HALF:
        _check_half(labels, ignore)
    chosen = backends.select(backend, labels.device, ("nearest instances",))
    return chosen.nearest_instances(labels, ignore, k, spacing)


def _new_nearest(labels, ignore, k, spacing, backend):
    dtype = torch.float64 if labels.dtype == torch.float64 else torch.float32
    distances = torch.empty((k, *labels.shape), dtype=dtype, device=labels.device)
    return distances, torch.empty(labels.shape, dtype=torch.int64, device=labels.device)


nearest_instances = _define(
    "nearest_instances(Tensor labels, Tensor? ignore, int k, float[] spacing, str backend)"
    " -> (Tensor distances, Tensor ids)",
    _nearest_instances,
    _new_nearest,
)


# -------------------------------------------------------------------------------------- the convolution


def _separable_conv2d(input, lmbda, ks, padding_mode, backend):
    chosen = backends.select(backend, input.device, (), "separable_conv2d")
    return chosen.separable_conv2d(input, lmbda, ks, padding_mode)


separable_conv2d = _define(
    "separable_conv2d(Tensor input, float lmbda, int ks, str padding_mode, str backend) -> Tensor",
    _separable_conv2d,
    lambda input, *settings: _new(input, input.shape),
)


@contextlib.contextmanager
def _switched(reverse: bool, forward: bool):
    """Either mode of differentiation on or off.

    PyTorch switches both off around `forward` and `jvp`. But the other levels of nested transforms are
    reached from there, and a tangent may depend on what is differentiated by.
    """
    with torch.set_grad_enabled(reverse), forward_ad._set_fwd_grad_enabled(forward):
        yield


class _Convolution(torch.autograd.function._SingleLevelFunction):
    """`separable_conv2d` with its derivatives: it is linear, so forwards they are itself."""

    @staticmethod
    def forward(ctx, input, settings, modes):
        ctx.settings, ctx.modes = settings, modes
        with _switched(*modes), _below_autograd():
            return separable_conv2d(input, *settings)

    @staticmethod
    def jvp(ctx, tangent, *_):
        with _switched(*ctx.modes):
            return separable_conv2d(tangent, *ctx.settings)

    @staticmethod
    def backward(ctx, grad):
        return _adjoint(grad, *ctx.settings), None, None


def _differentiable(input, *settings):
    """Adds a node to the graph, as PyTorch's own operators do.

    `torch.library.register_autograd` would drop the tangents of forward mode, and refuses `torch.func`. There
    each level of a transform comes by here by itself, which has to be said.
    """
    in_transform = torch._C._are_functorch_transforms_active()
    if not (in_transform or input.requires_grad or forward_ad._current_level >= 0):
        with _below_autograd():
            return separable_conv2d(input, *settings)
    modes = torch.is_grad_enabled(), torch._C._is_fwd_grad_enabled()
    with enable_single_level_autograd_function() if in_transform else contextlib.nullcontext():
        return _Convolution.apply(input, settings, modes)


def _vmapped(info, in_dims, input, *settings):
    """One more batch dim [B, N, H, W]: N is one already."""
    input = input.movedim(in_dims[0], 0)
    return separable_conv2d(input.flatten(0, 1), *settings).unflatten(0, input.shape[:2]), 0


_library.impl("separable_conv2d", _differentiable, "Autograd")
if hasattr(torch.library, "register_vmap"):  # before torch 2.5 vmap is a loop
    torch.library.register_vmap("fastlogconv::separable_conv2d", _vmapped, lib=_library)


# What follows is made of differentiable parts, so the second derivative is theirs.


def _adjoint(grad: Tensor, lmbda: float, ks: int, padding_mode: str, backend: str) -> Tensor:
    """The transposed convolution, in memory of the order of `grad`'s.

    The kernel is symmetric, so that only the padding makes a difference, and none where it is with zeros or
    circular.
    """
    if padding_mode in ("constant", "circular") or ks == 1 or grad.numel() == 0:
        return separable_conv2d(grad, lmbda, ks, padding_mode, backend)
    # In several roundings: for half types this is done in float32, as the convolution itself is.
    exact = grad.to(torch.promote_types(grad.dtype, torch.float32))
    if padding_mode == "reflect":
        return _adjoint_of_reflect(exact, lmbda, ks, backend).to(grad.dtype)
    return _adjoint_of_replicate(exact, lmbda, ks, backend).to(grad.dtype)


def _adjoint_of_reflect(grad: Tensor, lmbda: float, ks: int, backend: str) -> Tensor:
    """An edge shows once where all else shows twice, by itself and mirrored in it.

    So with all counted twice, C diag(m) is symmetric, m being 2 on the edges and 1 elsewhere, and the adjoint
    of C is diag(1 / m) C diag(m).
    """

    def multiplicity(n: int) -> Tensor:
        i = torch.arange(n, device=grad.device)
        return torch.where((i == 0) | (i == n - 1), 2, 1).to(grad.dtype)

    m = multiplicity(grad.shape[1])[:, None] * multiplicity(grad.shape[2])  # [H, W]
    return separable_conv2d(grad * m, lmbda, ks, "reflect", backend) / m


def _adjoint_of_replicate(grad: Tensor, lmbda: float, ks: int, backend: str) -> Tensor:
    """As with zeros beyond the edges, and for the edges what their copies show: lines and corners."""
    n, h, w = grad.shape

    def convolve(images: Tensor) -> Tensor:
        return separable_conv2d(images, lmbda, ks, "constant", backend)

    rows = _of_copies(grad, lmbda, ks, dim=1)  # [N, 2, W]: of the first and of the last row
    columns = _of_copies(grad, lmbda, ks, dim=2).transpose(1, 2)  # [N, 2, H]
    corners = _of_copies(columns, lmbda, ks, dim=2)  # [N, 2, 2]
    rows = convolve(rows.reshape(2 * n, 1, w)).reshape(n, 2, w)
    columns = convolve(columns.reshape(2 * n, h, 1)).reshape(n, 2, h)
    first_and_last = torch.arange(2, device=grad.device)  # times n - 1
    columns = columns.index_add(2, first_and_last * (h - 1), corners)
    out = convolve(grad).index_add(1, first_and_last * (h - 1), rows)
    return out.index_add(2, first_and_last * (w - 1), columns.transpose(1, 2))


def _of_copies(grad: Tensor, lmbda: float, ks: int, dim: int) -> Tensor:
    """What the copies of the first and of the last position along `dim` make of the gradient."""
    n, r, lmbda = grad.shape[dim], ks // 2, max(lmbda, SMALLEST_DECAY_LENGTH)
    reached = min(r, n)  # from so many positions at either end
    device = grad.device if grad.device.type in DEVICES else "cpu"  # others may lack float64
    steps = torch.arange(1, reached + 1, dtype=torch.float64, device=device)  # to the nearest copy
    # a^steps + ... + a^r
    weights = torch.exp(-steps / lmbda) * torch.expm1((steps - 1 - r) / lmbda) / math.expm1(-1 / lmbda)
    weights = weights.to(grad).reshape(-1, *[1] * (2 - dim))
    first = (grad.narrow(dim, 0, reached) * weights).sum(dim)
    last = (grad.narrow(dim, n - reached, reached) * weights.flip(0)).sum(dim)
    return torch.stack([first, last], dim)
