"""Which backend computes, and for every other one why not.

A backend is a module with `weight_map`, `region_weight_map`, `distance_to_weight`, `nearest_instances` and
`separable_conv2d` as `reference` defines them, `why_not(device)` and `describe()`. A new one needs one entry
in `BACKENDS`; what it does not compute yet it names in `LACKS`, by device type a set of what `ops._features`
names, and "nearest instances".
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import warnings
from collections.abc import Iterator
from types import ModuleType

import torch

from . import native, reference, triton

BACKENDS: dict[str, ModuleType] = {"triton": triton, "native": native, "reference": reference}
# In which "auto" tries them. On a GPU, the first of two that can run is the one that was measured to be
# faster: see docs/speed.md. (In weight_map Triton is ahead by a tenth where one small image is
# alone in a CUDA graph; with many or large ones it takes twice as long.)
ORDER = ("native", "triton", "reference")
ORDER_OF_OPERATOR = {"distance_to_weight": ("triton", "native", "reference")}
OPERATORS = ("weight_map", "region_weight_map", "distance_to_weight", "separable_conv2d")
NAMES = ("auto", *BACKENDS)
ENVIRONMENT_VARIABLE = "FASTLOGCONV_BACKEND"

_override: contextvars.ContextVar[str | None] = contextvars.ContextVar("fastlogconv_backend", default=None)
_warned = _warned_of_the_cpu = False
_NOTHING: dict[str, frozenset[str]] = {}


def check_name(name: object, where: str = "backend") -> None:
    """Raises ValueError unless `name` is the name of a backend or "auto"."""
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"{where} must be one of {', '.join(map(repr, NAMES))}, got {name!r}")


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within it, `name` computes whatever was left to "auto".

    It wins over the environment variable FASTLOGCONV_BACKEND, which does the same for a whole process; an
    explicit `backend=` argument wins over both. It is looked up when an operator runs, so compiled code
    follows it, and holds for the current thread (more exactly: the current `contextvars` context).

    Args:
        name: "auto", "triton", "native" or "reference".

    Raises:
        ValueError: for any other name.
    """
    check_name(name, "use_backend: name")
    token = _override.set(name)
    try:
        yield
    finally:
        _override.reset(token)


def lacks(backend: ModuleType, device: torch.device) -> frozenset[str]:
    """What `backend` does not compute on `device` yet."""
    return getattr(backend, "LACKS", _NOTHING).get(device.type, frozenset())


def why_not(backend: ModuleType, device: torch.device, features: tuple[str, ...] = ()) -> str | None:
    """Why `backend` cannot serve `device` with all of `features`; None where it can."""
    reason = backend.why_not(device)
    if reason is None and features:
        lacking = lacks(backend, device).intersection(features)
        if lacking:
            return f"it does not compute {', '.join(f for f in features if f in lacking)} yet"
    return reason


def reasons(device: torch.device, features: tuple[str, ...] = ()) -> dict[str, str | None]:
    """For every backend by name: why it cannot serve `device` with all of `features`, or None."""
    return {name: why_not(backend, device, features) for name, backend in BACKENDS.items()}


def first(device: torch.device, features: tuple[str, ...] = (), operator: str = "weight_map") -> str | None:
    """The backend that "auto" takes; None: none can serve the device with all of `features`.

    Triton's interpreter is never taken: it is for tests, and slow.
    """
    for name in ORDER_OF_OPERATOR.get(operator, ORDER):
        backend = BACKENDS[name]
        interpreter = backend is triton and device.type == "cpu"
        if not interpreter and why_not(backend, device, features) is None:
            return name
    return None


def select(
    name: str, device: torch.device, features: tuple[str, ...] = (), operator: str = "weight_map"
) -> ModuleType:
    """The backend that computes `operator` on `device` where the caller asked for `name`.

    `features` are those that it needs to compute, by their names in `LACKS`.

    Raises:
        ValueError: unknown name, or "auto" and no backend can serve the device.
        RuntimeError: the named backend cannot serve the device; the message says why.
    """
    name = asked_for(name)
    if name != "auto":
        check_name(name)
        reason = why_not(BACKENDS[name], device, features)
        if reason is not None:
            raise RuntimeError(f"backend {name!r} cannot run on {device.type}: {reason}")
        return BACKENDS[name]
    chosen = first(device, features, operator)
    if chosen == "reference":
        _warn_of_reference(device, features)
    if chosen is not None:
        return BACKENDS[chosen]
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons(device, features).items())
    raise ValueError(f"no backend can run on {device.type} ({listed})")


def asked_for(name: str) -> str:
    """`name`, or where that is "auto" what `use_backend` or the environment says."""
    return (_override.get() or _from_environment()) if name == "auto" else name


def warn_of_the_cpu(device: torch.device) -> None:
    """Says once per process that tensors of a device without backends are computed on the CPU."""
    global _warned_of_the_cpu
    if not _warned_of_the_cpu:
        _warned_of_the_cpu = True
        warnings.warn(
            f"fastlogconv has no backend for {device.type}: tensors there are copied to the CPU, computed by "
            "its kernels and copied back. Weights made in a DataLoader's workers need no copy to the CPU",
            RuntimeWarning,
            stacklevel=3,
        )


def _from_environment() -> str:
    name = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
    if name != "auto":
        check_name(name, f"the environment variable {ENVIRONMENT_VARIABLE}")
    return name


def _warn_of_reference(device: torch.device, features: tuple[str, ...]) -> None:
    """Says once per process that "auto" found nothing faster than the reference."""
    global _warned
    if not _warned:
        _warned = True
        listed = "; ".join(
            f"{name}: {reason}" for name, reason in reasons(device, features).items() if reason
        )
        warnings.warn(
            f"fastlogconv computes on {device.type} with its slow reference in plain PyTorch, because no "
            f"other backend can run ({listed}). To accept that silently, pass backend='reference'.",
            RuntimeWarning,
            stacklevel=3,
        )
