"""Times on a CUDA device: `python -m bench.run --gpu`, within two minutes.

Every result is held against its float64 oracle before it is timed. Who is estimated to take too long, from
what it took on smaller inputs, is left out with the reason. The other libraries are imported when it is their
turn.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import fastlogconv
from fastlogconv import backends

from . import cases, dense, report, verify
from .cases import CONVOLUTION, REGION_WEIGHTS, WEIGHTS, Case, Workload
from .competitors import DENSE_TOLERANCE, TOLERANCE
from .gpu_timing import Stopwatch, Times
from .verify import FARTHEST, KERNEL, SECOND

# What is not installed, only built in its folder, finds the Triton kernels in theirs.
if importlib.util.find_spec("fastlogconv.kernels") is None:
    fastlogconv.__path__.append(str(Path(__file__).parents[1]))

Compute = Callable[[Tensor], Tensor]
DISTANCES = "distances"

KINDS = {
    "logconv-second": SECOND,
    "exact-second": dict(SECOND, distance="euclidean"),
    "logconv-farthest": FARTHEST,
}


# ------------------------------------------------------------------------------------------------ the ways


@dataclass(frozen=True)
class Way:
    """One way to one class of result on a GPU."""

    name: str
    computes: str
    result: str
    tolerance: float
    prepare: Callable[[], Compute]
    why_not: Callable[[], str | None] = lambda: None
    per_instance: bool = False  # whether it takes as long again for each instance
    bytes_per_unit: int = 0  # of memory, for each pixel (and instance), where that may be too much
    in_graph: bool = False  # whether it waits for nothing

    @property
    def ours(self) -> bool:
        return self.name.startswith("fastlogconv")

    def units(self, workload: Workload) -> float:
        """What its time is about proportional to."""
        if not self.per_instance or self.computes != WEIGHTS:
            return workload.pixels
        return workload.pixels * workload.instances / len(workload.input)

    def memory(self, workload: Workload) -> float:
        """Bytes: it takes image after image."""
        return self.bytes_per_unit * self.units(workload) / len(workload.input)


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


def _peers(device: torch.device) -> list[Way]:
    found = [
        Way(
            name, WEIGHTS, "exact-second", TOLERANCE, prepare, functools.partial(_missing, name),
            per_instance=True,
        )
        for name, prepare in (("cucim", _cucim), ("cupy", _cupy))
    ]  # fmt: skip
    for name, convolve in (("dense conv1d", dense.conv1d), ("dense matmul", dense.matmul)):
        for result, settings in (("logconv-farthest", FARTHEST), ("logconv-second", SECOND)):
            compute = functools.partial(dense.weights, convolve=convolve, **settings, **KERNEL)
            prepare = functools.partial(lambda run: run, _on(device, compute))
            found.append(
                Way(
                    name, WEIGHTS, result, DENSE_TOLERANCE, prepare, per_instance=True, bytes_per_unit=16
                )
            )  # fmt: skip
        compute = functools.partial(convolve, **KERNEL, denormals=False)
        prepare = functools.partial(lambda run: run, _on(device, compute))
        found.append(Way(name, CONVOLUTION, "convolution", TOLERANCE, prepare))
    return found


def _ours(name: str, reason: str | None) -> list[Way]:
    common = dict(KERNEL, backend=name)
    computes: list[tuple[str, str, Compute]] = [
        (of, kind, functools.partial(function, **settings, **common))
        for of, function in (
            (WEIGHTS, fastlogconv.weight_map),
            (REGION_WEIGHTS, fastlogconv.region_weight_map),
        )
        for kind, settings in KINDS.items()
    ]
    computes.append((CONVOLUTION, "convolution", functools.partial(fastlogconv.separable_conv2d, **common)))
    weigh = functools.partial(fastlogconv.distance_to_weight, backend=name)
    computes.append((DISTANCES, "distances-second", weigh))
    return [
        Way(
            f"fastlogconv {name}",
            of,
            kind,
            TOLERANCE,
            functools.partial(lambda run: run, compute),
            functools.partial(lambda why: why, reason),
            per_instance=name == "reference",
            in_graph=name != "reference",
        )
        for of, kind, compute in computes
    ]


def ways(device: torch.device) -> list[Way]:
    """All of them; fastlogconv's backends last."""
    found = _peers(device)
    for name, reason in backends.reasons(device).items():
        found += _ours(name, reason)
    return found


# ----------------------------------------------------------------------------------------------- the cases


def gpu_cases(mask: Path | None) -> dict[str, Case]:
    """Those of the CPU, and batches and distances; by name."""
    known = cases.all_cases(mask)
    base = "tissue-512" if mask is None else "dsb"

    def repeated(count: int) -> Tensor:
        return known[base].make().repeat(count, 1, 1)

    for count in (16, 64):
        about = f"{known[base].about}, {count} times"
        known[f"{base}-x{count}"] = Case(
            f"{base}-x{count}", WEIGHTS, about, functools.partial(repeated, count)
        )
    for name, shape in (("distances-125", (125, 512, 512)), ("quick-distances", (3, 48, 56))):
        known[name] = Case(
            name,
            DISTANCES,
            "random distances of up to 60 px",
            lambda shape=shape: torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 60,
        )
    return known


def default_cases(mask: Path | None) -> list[str]:
    """From small to large, so that what takes long is known in time."""
    base = "tissue-512" if mask is None else "dsb"
    return [
        "tissue-256", base, f"{base}-x16", f"{base}-x64", "batch-16x512", "tissue-2048",
        "distances-125", "regions-125", "conv-125",
    ]  # fmt: skip


QUICK = (*cases.QUICK, "quick-distances")


class _ExpectedOfDistances:
    """As verify.Expected."""

    def __init__(self, workload: Workload) -> None:
        _, height, width = workload.input.shape
        self.rows, self.columns = (slice(n // 2, n // 2 + 32) for n in (height, width))
        d = workload.input[:, self.rows, self.columns].double()
        near, second = d.topk(2, dim=0, largest=False).values
        fd = torch.exp(-0.5 * (d / SECOND["fds"]) ** 2).sum(0)
        border = torch.exp(-0.5 * ((near + second) / SECOND["bws"]) ** 2)
        self.value = (SECOND["fbr"] + (1 - SECOND["fbr"]) * fd + SECOND["bwf"] * border).numpy()

    def error(self, result: str, output: Tensor) -> float:
        off = abs(output[self.rows, self.columns].double().numpy() - self.value)
        return float(np.nan_to_num(off / np.maximum(self.value, 1), nan=math.inf).max())


def expected_of(workload: Workload) -> verify.Expected | _ExpectedOfDistances:
    """What results are held against."""
    if workload.case.computes == DISTANCES:
        return _ExpectedOfDistances(workload)
    return verify.Expected(workload, verify.some(workload, count=2))


# --------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Limits:
    """Seconds: of one call, and of all together. Compiling is not foreseen, so all ends well before 120."""

    call: float = 0.25
    total: float = 95
    calls: int = 12  # that measuring takes, at least: checked, warmed, three times each
    memory: float = 40e9  # bytes


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    way: Way
    error: float | None = None
    times: Times | None = None
    reason: str = ""  # why there are no times

    @property
    def wrong(self) -> bool:
        return self.error is not None and self.times is None


@dataclass
class Measurement:
    """Takes case after case, and remembers what each way took."""

    device: torch.device
    stopwatch: Stopwatch
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.perf_counter
    seconds_per_unit: dict[tuple[str, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def why_too_long(self, way: Way, workload: Workload) -> str | None:
        """Why a way is not even tried; None where it may be."""
        units = way.units(workload)
        if way.memory(workload) > self.limits.memory:
            return f"left out: {way.memory(workload) / 1e9:.0f} GB of memory"
        left = self.limits.total - (self.clock() - self.started)
        if left <= 0:
            return "left out: the time is up"
        rate = self.seconds_per_unit.get((way.name, way.result))
        if rate is None:
            return None
        estimate = rate * units
        if estimate > self.limits.call:
            return f"left out: estimated to take {report.duration(estimate)}"
        if estimate * self.limits.calls > left:
            return f"left out: no time for {self.limits.calls} times {report.duration(estimate)}"
        return None

    def row(self, way: Way, workload: Workload, input: Tensor, expected) -> Row:
        """One line: checked, then timed."""
        if reason := way.why_not() or self.why_too_long(way, workload):
            return Row(way, reason=reason)
        try:
            compute = way.prepare()
            output = compute(input)  # compiles
            error = expected.error(way.result, output.cpu())
            if error > way.tolerance:
                return Row(way, error=error, reason="wrong")
            call = functools.partial(compute, input)
            once = self.stopwatch.once(call)
            self.seconds_per_unit[way.name, way.result] = once / way.units(workload)
            if once > self.limits.call:
                return Row(way, error, Times(None, once, None))
            return Row(way, error, self.stopwatch.times(call, way.in_graph))
        except torch.OutOfMemoryError:
            return Row(way, reason="out of memory")

    def rows(self, case: Case) -> Iterable[Row]:
        """All lines of a case."""
        workload = case.workload()
        input = workload.input.to(self.device)
        expected = expected_of(workload)
        for way in ways(self.device):
            if way.computes == case.computes:
                labels = way.ours and case.computes == WEIGHTS
                yield self.row(way, workload, input.to(torch.int32) if labels else input, expected)


# ----------------------------------------------------------------------------------------------- reporting


HEADER = "| | result | GPU, by graph | a call | host | error |\n|---|---|---:|---:|---:|---:|"


def line(row: Row) -> str:
    """Of the table."""
    start = f"| {row.way.name} | {row.way.result} |"
    error = "" if row.error is None else f"{row.error:.1e}"
    if row.times is None:
        return f"{start} {row.reason} | | | {error} |"
    graph, eager, host = (
        "" if seconds is None else report.duration(seconds)
        for seconds in (row.times.graph, row.times.eager, row.times.host)
    )
    return f"{start} {graph} | {eager} | {host} | {error} |"


def machine_line(device: torch.device) -> str:
    """The card and the versions."""
    found = [torch.cuda.get_device_name(device) if device.type == "cuda" else device.type]
    found.append(f"torch {torch.__version__}")
    for package in ("triton", "cupy-cuda13x", "cupy-cuda12x", "cucim-cu13", "cucim-cu12"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([*found, f"fastlogconv {fastlogconv.__version__}"])


def measure(
    chosen: Sequence[Case],
    device: torch.device,
    say: Callable[[str], None] = print,
    stopwatch: Stopwatch | None = None,
    limits: Limits = Limits(),
    clock: Callable[[], float] = time.perf_counter,
) -> bool:
    """Says a Markdown table, case by case; returns whether all of fastlogconv's results were right."""
    measurement = Measurement(device, stopwatch or Stopwatch(), limits, clock)
    right = True
    say(f"# Times on a GPU\n\n{machine_line(device)}. Medians; the L2 cache is emptied before each call.")
    for case in chosen:
        say(f"\n{case.name}: {case.about}\n\n{HEADER}")
        for row in measurement.rows(case):
            say(line(row))
            right &= not (row.wrong and row.way.ours)
    return right
