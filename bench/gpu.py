"""Times on a CUDA device: `python -m bench.run --gpu`.

Medians by `triton.testing.do_bench`, which empties the L2 cache before each call. Every result is held
against its float64 oracle first. The other libraries are imported when it is their turn.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

import fastlogconv
from fastlogconv import backends

from . import dense, verify
from .cases import CONVOLUTION, WEIGHTS, Case
from .competitors import DENSE_TOLERANCE, TOLERANCE
from .verify import FARTHEST, KERNEL, SECOND

Compute = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Competitor:
    """One way to one class of result on a GPU."""

    name: str
    computes: str
    result: str
    tolerance: float
    prepare: Callable[[], Compute]
    why_not: Callable[[], str | None] = lambda: None


def _on(device: torch.device, compute: Compute) -> Compute:
    def run(input: Tensor) -> Tensor:
        with device:  # what it makes itself is to be there, too
            return compute(input)

    return run


def euclidean_weights(distance_transform, labels: Tensor) -> Tensor:
    """Weights by exact distances: one transform of CuPy arrays for each instance, sums in PyTorch."""
    import cupy

    out = torch.empty_like(labels)
    for image, result in zip(labels, out, strict=True):
        near, second = torch.full_like(image, math.inf), torch.full_like(image, math.inf)
        fd = torch.zeros_like(image)
        for i in image.unique():
            if i == 0:
                continue
            d = torch.from_dlpack(distance_transform(cupy.from_dlpack((image != i).to(torch.uint8)))).to(fd)
            second = torch.minimum(second, torch.maximum(near, d))
            near = torch.minimum(near, d)
            fd += torch.exp(-0.5 * (d / SECOND["fds"]) ** 2)
        border = torch.exp(-0.5 * ((near + second) / SECOND["bws"]) ** 2)
        background = SECOND["fbr"] + (1 - SECOND["fbr"]) * fd + SECOND["bwf"] * border
        result.copy_(torch.where(image > 0, 1.0, background))
    return out


def _cucim() -> Compute:
    from cucim.core.operations.morphology import distance_transform_edt

    return functools.partial(euclidean_weights, distance_transform_edt)


def _cupy() -> Compute:
    from cupyx.scipy.ndimage import distance_transform_edt

    return functools.partial(euclidean_weights, distance_transform_edt)


def _missing(package: str) -> str | None:
    return None if importlib.util.find_spec(package) else f"{package} is not installed"


def competitors(device: torch.device) -> list[Competitor]:
    """All of them; fastlogconv's backends last."""
    found = [
        Competitor("cucim", WEIGHTS, "exact-second", TOLERANCE, _cucim, lambda: _missing("cucim")),
        Competitor("cupy", WEIGHTS, "exact-second", TOLERANCE, _cupy, lambda: _missing("cupy")),
    ]
    for name, convolve in (("dense conv1d", dense.conv1d), ("dense matmul", dense.matmul)):
        for result, settings in (("logconv-farthest", FARTHEST), ("logconv-second", SECOND)):
            compute = functools.partial(dense.weights, convolve=convolve, **settings, **KERNEL)
            prepare = functools.partial(_on, device, compute)
            found.append(Competitor(name, WEIGHTS, result, DENSE_TOLERANCE, prepare))
        prepare = functools.partial(_on, device, functools.partial(convolve, **KERNEL, denormals=False))
        found.append(Competitor(name, CONVOLUTION, "convolution", TOLERANCE, prepare))
    for name, reason in backends.reasons(device).items():
        ours = functools.partial(fastlogconv.weight_map, **KERNEL, backend=name)
        convolution = functools.partial(fastlogconv.separable_conv2d, **KERNEL, backend=name)
        for computes, result, compute in (
            (WEIGHTS, "logconv-farthest", functools.partial(ours, **FARTHEST)),
            (WEIGHTS, "logconv-second", functools.partial(ours, **SECOND)),
            (CONVOLUTION, "convolution", convolution),
        ):
            found.append(
                Competitor(
                    f"fastlogconv {name}",
                    computes,
                    result,
                    TOLERANCE,
                    lambda compute=compute: compute,
                    lambda reason=reason: reason,
                )
            )
    return found


def median_ms(call: Callable[[], object]) -> float:
    """Milliseconds of a call on the current CUDA device."""
    from triton.testing import do_bench

    return do_bench(call, return_mode="median")


def measure(
    cases: Iterable[Case],
    device: torch.device,
    say: Callable[[str], None] = print,
    time: Callable[[Callable[[], object]], float] = median_ms,
) -> bool:
    """Prints a Markdown table, case by case; returns whether all of fastlogconv's results were right."""
    right = True
    for case in cases:
        workload = case.workload()
        input = workload.input.to(device)
        expected = verify.Expected(workload, verify.some(workload))
        say(f"\n{case.name}, {tuple(input.shape)}: {case.about}\n")
        say("| | result | median | error |\n|---|---|---:|---:|")
        for competitor in competitors(device):
            if competitor.computes != case.computes:
                continue
            line = f"| {competitor.name} | {competitor.result}"
            if reason := competitor.why_not():
                say(f"{line} | {reason} | |")
                continue
            try:
                compute = competitor.prepare()
                error = expected.error(competitor.result, compute(input).cpu())
                if error > competitor.tolerance:
                    say(f"{line} | wrong | {error:.1e} |")
                    right &= not competitor.name.startswith("fastlogconv")
                    continue
                median = time(functools.partial(compute, input))
            except torch.OutOfMemoryError:
                say(f"{line} | out of memory | |")
                continue
            say(f"{line} | {median:.3f} ms | {error:.1e} |")
    return right
