"""What is installed, what was built, and which backend can run where."""

from __future__ import annotations

import importlib.metadata
import platform
from types import ModuleType

import torch

from . import backends
from .checks import DEVICES


class Info(dict):
    """A dict that prints as a readable report."""

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    __repr__ = __str__


def info() -> Info:
    """The environment: versions, what was built, which backends can run where, and why the others cannot.

    Returns:
        A dict that prints as a report: "versions" (name to version or None), "backends" (name to what the
        backend tells of itself), "devices" (device to backend to None or the reason why it cannot run there)
        and "auto" (device to the backend that "auto" takes there now, or "none"; where operators differ, with
        theirs: on GPUs it takes for each the one that was measured to be faster).
    """
    from . import __version__

    devices = {name: torch.device(name) for name in ("cpu", "cuda", *_other_accelerators())}
    return Info(
        versions={
            "fastlogconv": __version__,
            "torch": torch.__version__,
            "triton": _version("triton"),
            "numpy": _version("numpy"),
            "scipy": _version("scipy"),
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        backends={name: _description(backend) for name, backend in backends.BACKENDS.items()},
        devices={name: _serving(device) for name, device in devices.items()},
        auto={name: _auto(device) for name, device in devices.items()},
    )


def _description(backend: ModuleType) -> dict[str, str]:
    lacks = {device: ", ".join(sorted(names)) for device, names in getattr(backend, "LACKS", {}).items()}
    return backend.describe() | {f"lacks on {device}": names for device, names in lacks.items() if names}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _serving(device: torch.device) -> dict[str, str | None]:
    if device.type == "cuda" and not torch.cuda.is_available():
        built = "no CUDA device" if torch.version.cuda else "a torch built without CUDA"
        return dict.fromkeys(backends.BACKENDS, built)
    return backends.reasons(device)


def _other_accelerators() -> list[str]:
    found = torch.accelerator.current_accelerator() if hasattr(torch, "accelerator") else None
    return [found.type] if found is not None and found.type != "cuda" else []


def _auto(device: torch.device) -> str:
    if device.type == "cuda" and not torch.cuda.is_available():
        return "none"
    if device.type not in DEVICES:
        return f"{backends.first(torch.device('cpu'))} on the CPU"
    taken = {operator: backends.first(device, (), operator) or "none" for operator in backends.OPERATORS}
    usual = taken["weight_map"]
    others = [f"{name} for {operator}" for operator, name in taken.items() if name != usual]
    return ", ".join([usual, *others])


def _lines(info: Info) -> list[str]:
    lines = [f"{name:<12} {version or 'not installed'}" for name, version in info["versions"].items()]
    for name, description in info["backends"].items():
        lines.append(f"backend {name}")
        lines += [f"  {key:<16} {value}" for key, value in description.items()]
    for device, serving in info["devices"].items():
        lines.append(f"on {device} (auto: {info['auto'][device]})")
        lines += [f"  {name:<16} {reason or 'can run'}" for name, reason in serving.items()]
    return lines
