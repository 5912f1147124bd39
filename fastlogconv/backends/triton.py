"""The Triton kernels of `fastlogconv.kernels`: how they are launched, on the current stream of the device.

CUDA tensors only, and CPU tensors where Triton's interpreter is switched on (TRITON_INTERPRET=1). No function
here waits for the GPU or looks at the data, so all of them can be captured in a CUDA graph.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import math
import os

import torch
from torch import Tensor

from . import reference
from .reference import result_dtype


@functools.cache
def _kernels():
    """The kernels, imported when first needed: Triton takes a second."""
    from ..kernels import cells, weights

    return {"list_cells": cells.list_cells_kernel, "weigh_tiles": weights.weigh_tiles_kernel}


CELL, ROOM = 32, 1024  # as in kernels/cells.py


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@functools.cache
def _missing() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    return None


def why_not(device: torch.device) -> str | None:
    """Why this backend cannot serve `device`; None where it can."""
    if device.type == "cpu":
        if not _interpreted():
            return "its kernels run on CUDA devices (on the CPU only in Triton's interpreter, TRITON_INTERPRET=1)"
        return _missing()
    if device.type != "cuda":
        return f"its kernels run on CUDA devices, not on {device.type}"
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    if torch.version.hip is not None:
        return "its kernels are made for NVIDIA GPUs"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "its kernels need compute capability 8.0 or later"
    return _missing()


def describe() -> dict[str, str]:
    """What to print about this backend."""
    import triton

    return {"triton": triton.__version__, "interpreter": "on" if _interpreted() else "off"}


@dataclasses.dataclass
class Launch:
    """One kernel launch: arguments in order, then the constants it is compiled for."""

    kernel: str
    grid: tuple[int, ...]
    args: list
    constants: dict
    num_warps: int


def _launch(launch: Launch) -> None:
    _kernels()[launch.kernel][launch.grid](*launch.args, **launch.constants, num_warps=launch.num_warps)


def _on(tensor: Tensor):
    """Makes the device of `tensor` the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


# ------------------------------------------------------------------------------------------------ settings


INSTANCE_SCALED, CHUNK_SCALED, LOGARITHMIC = range(3)  # as in kernels/stages.py
ROWS, COLUMNS = 16, 16


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The numbers that the kernels compute with; see weigh_tiles_kernel."""

    double: bool
    sums: int
    precise: bool
    radius: int
    reach: int
    limit: float
    log2_decay: float
    exponent: float
    step_scale: float
    log_scale: float
    border_scale: float

    def numbers(self, fbr: float, bwf: float) -> list[float]:
        scales = [self.limit, self.log2_decay, self.exponent, self.step_scale, self.log_scale]
        return [*scales, fbr, bwf, self.border_scale]


def _farthest(fds: float, bws: float, bwf: float, epsilon: float) -> float:
    """Beyond this distance the terms of the weight are below epsilon."""
    foreground = fds * math.sqrt(2 * math.log(1 / epsilon))
    return max(foreground, bws * math.sqrt(2 * math.log(max(bwf, 1.0) / epsilon)))


def _clamp(x: float) -> float:
    return min(max(x, 1e-30), 1e30)


@functools.lru_cache(256)
def _settings(
    double: bool, height: int, width: int, bws: float, fds: float, bwf: float, lmbda: float, ks: int
) -> _Settings:
    radius = min(ks // 2, max(height, width) - 1)
    lmbda = max(lmbda, 1e-12)
    bits_per_step = 1 / (lmbda * math.log(2))
    # Sums of float32 err by 1e-7 (two pieces: 1e-5) of themselves, a distance by lmbda times that.
    narrowest = min(fds, bws)
    double = double or lmbda > 0.7 * narrowest
    precise = lmbda > 0.1 * narrowest
    terms = 1 + min(radius, 1 / math.expm1(1 / lmbda) if lmbda > 0.01 else 0.0)  # at least 1 + a + .. + a^radius
    widest_sum = 2 * terms  # along one axis
    slack = 2 * lmbda * math.log(widest_sum)  # distances are no smaller than -slack
    limit = _farthest(fds, bws, bwf, 2.0**-60 if double else 2.0**-36) + slack
    # What lies beyond `reach` does not even show in the sum of an instance that is `limit` away.
    tail = lmbda * ((40 if double else 20) + 3 * math.log1p(lmbda))
    reach = int(min(radius, math.ceil(min(limit + tail, 1e9)) + 1))

    # A scaled sum may grow to widest_sum^2 2^(2 exponent) and has to stay below 2^128; what falls below 2^-126
    # counts as 0, which must not happen at a distance that matters. Both axes have their own share in that.
    # More scale than that takes would cost precision.
    room = 127 - math.ceil(2 * math.log2(widest_sum))
    matters = _farthest(fds, bws, bwf, 5e-7) + slack

    def exponent_for(steps: float, steps_along: float) -> int | None:
        """The exponent with which sums of terms down to a^steps, a^steps_along on one axis, can be formed."""
        steps, steps_along = (min(s, matters) * bits_per_step for s in (steps, steps_along))
        exponent = max(math.ceil((steps - 125) / 2), math.ceil(steps_along - 125), 0)
        return exponent if 2 * exponent <= room else None

    instance = exponent_for(2 * radius, radius)
    chunk = exponent_for(min(2 * radius, ROWS + CELL - 2), min(radius, CELL - 1))
    if double or (instance is None and chunk is None):
        sums, exponent = LOGARITHMIC, 0
    elif instance is not None:
        sums, exponent = INSTANCE_SCALED, instance
    else:
        sums, exponent = CHUNK_SCALED, chunk
    step_scale = _clamp(math.sqrt(0.5 / math.log(2)) / fds)
    return _Settings(
        double=double,
        sums=sums,
        precise=precise and sums != LOGARITHMIC,
        radius=radius,
        reach=reach,
        limit=min(limit, 1e30),
        log2_decay=-bits_per_step,
        exponent=float(exponent),
        step_scale=step_scale,
        log_scale=step_scale / bits_per_step,
        border_scale=_clamp((fds / bws) ** 2),
    )


# ------------------------------------------------------------------------------------------------- weights


TILE_H, TILE_W = 16, 32
TILE_WARPS = 2
LARGEST_LISTS = 4096

_SHORT_KEYS = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.float16, torch.bfloat16)


def _lists(height: int, width: int, reach: int) -> int:
    """Cells within reach of a tile, at most, rounded up to a power of 2."""
    around = 2 * -(-reach // CELL)
    rows = min(around + TILE_H // CELL, -(-height // CELL))
    columns = min(around + TILE_W // CELL, -(-width // CELL))
    return 1 << max(rows * columns - 1, 1).bit_length()


def weight_map(
    labels: Tensor, *, border: str, bws: float, fds: float, bwf: float, fbr: float, lmbda: float, ks: int
) -> Tensor:
    """Weights [B, H, W] of instance labels [B, H, W]."""
    import triton.language as tl

    if labels.dtype == torch.bool:
        labels = labels.view(torch.uint8)
    images, height, width = labels.shape
    out = torch.empty(labels.shape, dtype=result_dtype(labels), device=labels.device)
    if out.numel() == 0:
        return out
    s = _settings(labels.dtype == torch.float64, height, width, bws, fds, bwf, lmbda, ks)
    lists = _lists(height, width, s.reach)
    farthest = border == "farthest"
    short = labels.dtype in _SHORT_KEYS
    cells_y, cells_x = -(-height // CELL), -(-width // CELL)
    cells = images * cells_y * cells_x

    def scratch(count, dtype=torch.int32):
        return torch.empty(count, dtype=dtype, device=labels.device)

    counts = scratch(cells)
    entries = scratch(cells * ROOM * 2, torch.int64)
    words = scratch(cells * ROOM)
    largest = torch.zeros(images if farthest else 1, dtype=torch.int64, device=labels.device)
    listed = [labels, *labels.stride(), counts, entries, words, largest]
    key = tl.int32 if short else tl.int64
    with _on(labels):
        _launch(
            Launch(
                "list_cells",
                (cells_x, cells_y, images),
                [*listed, height, width, cells_y, cells_x],
                dict(KEY=key, FIND_LARGEST=farthest),
                num_warps=1,
            )
        )
        _launch(
            Launch(
                "weigh_tiles",
                (-(-width // TILE_W), -(-height // TILE_H), images),
                [
                    *listed, out, height, width, cells_y, cells_x, s.radius, s.reach, *s.numbers(fbr, bwf),
                ],
                dict(
                    KEY=key,
                    COMPUTE=tl.float64 if s.double else tl.float32,
                    FARTHEST=farthest,
                    SUMS=s.sums,
                    PRECISE=s.precise,
                    LISTS=lists,
                    ROWS=ROWS,
                    COLUMNS=COLUMNS,
                    TILE_H=TILE_H,
                    TILE_W=TILE_W,
                ),
                num_warps=TILE_WARPS,
            )
        )  # fmt: skip
    return out
