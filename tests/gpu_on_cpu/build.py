"""What is built to run GPU code on the CPU is built once and kept, by content."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def build_folder() -> Path:
    """Where it is kept; the environment variable GPU_ON_CPU_BUILD names another place."""
    return Path(os.environ.get("GPU_ON_CPU_BUILD", Path(tempfile.gettempdir()) / f"gpu_on_cpu-{os.getuid()}"))


def built(name: str, make: Callable[[Path], None]) -> Path:
    """The file `name` of the build folder: where it is missing, `make(path)` writes it.

    Processes and threads that want the same file wait for the first of them.
    """
    target = build_folder() / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f"{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                unfinished = target.with_name(f"unfinished-{target.name}")
                make(unfinished)
                unfinished.replace(target)
    return target
