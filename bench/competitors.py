"""Who competes: each with what it computes, what it needs, and what it is likely to cost."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import fastlogconv
from fastlogconv.backends import native, reference

from . import dense, exact
from .cases import CONVOLUTION, REGION_WEIGHTS, WEIGHTS, Workload
from .verify import FARTHEST, KERNEL, SECOND

Compute = Callable[[Tensor], Tensor]

TOLERANCE = 1e-5  # the promise of fastlogconv; nobody else's float32 is to be worse
# The dense way's sums underflow where an instance is more than 36 pixels away by city block. That costs up to
# bwf exp(-36^2 / (2 bws^2)) = 0.015 of the border term and 0.0015 for each such instance.
DENSE_TOLERANCE = 2e-2


@dataclass(frozen=True)
class Competitor:
    """One way to one class of result.

    `prepare(threads)` imports, sets threads and returns what is timed; `select` runs before each turn,
    untimed. `work` is what the time is about proportional to, `memory` bytes at its peak: both to estimate
    beforehand.
    """

    name: str
    label: str
    computes: str
    result: str
    tolerance: float
    prepare: Callable[[int], Compute]
    work: Callable[[Workload], float]
    memory: Callable[[Workload], float]
    select: Callable[[], None] = lambda: None
    why_not: Callable[[], str | None] = lambda: None

    @property
    def ours(self) -> bool:
        return self.name.startswith(("native", "reference"))


# --------------------------------------------------------------------------------------- what it may cost
# Pixels that a call is worth, in the unit of its pixel: the interpreter's share for each instance.
PER_INSTANCE = 10_000


def _one_hot_pixels(workload: Workload) -> float:
    _, height, width = workload.input.shape
    channels = workload.channels if workload.case.computes == WEIGHTS else [len(workload.input)]
    return sum(max(n, 1) * height * width for n in channels)


def _one_hot_bytes(workload: Workload, buffers: float) -> float:
    _, height, width = workload.input.shape
    channels = workload.channels if workload.case.computes == WEIGHTS else [len(workload.input)]
    return buffers * 4 * max(channels) * height * width


def _result_bytes(workload: Workload) -> float:
    _, height, width = workload.input.shape
    return workload.input.nbytes if workload.case.computes != REGION_WEIGHTS else 4 * height * width


def _image_bytes(workload: Workload, buffers: float) -> float:
    _, height, width = workload.input.shape
    return buffers * 4 * height * width + _result_bytes(workload)


def _pixels(workload: Workload) -> float:
    return workload.pixels


def _whole_images(workload: Workload) -> float:
    _, height, width = workload.input.shape
    return max(workload.instances, 1) * (height * width + PER_INSTANCE)


def _boxes(workload: Workload, margin: int) -> float:
    return workload.pixels + sum(h * w + PER_INSTANCE for h, w in workload.dilated_boxes(margin))


def _reference_work(workload: Workload) -> float:
    if workload.case.computes == WEIGHTS:
        return _boxes(workload, KERNEL["ks"] // 2)
    return workload.pixels


def _cascade_work(workload: Workload, crop: bool) -> float:
    if crop:
        return sum(
            (h * w + PER_INSTANCE) * max(h, w)
            for h, w in workload.dilated_boxes(exact.reach(max(SECOND["fds"], SECOND["bws"])))
        )
    return _whole_images(workload) * max(workload.input.shape[1:])


# ----------------------------------------------------------------------------------------------- the table


def _missing(package: str) -> str | None:
    return None if importlib.util.find_spec(package) else f"{package} is not installed"


def _no_native(instruction_set: str | None = None) -> str | None:
    reason = native.why_not(torch.device("cpu"))
    if reason is None and instruction_set is not None:
        in_use = best_instruction_set()
        if instruction_set == in_use:
            return "it is what `native` uses here"
        try:
            native.use_instruction_set(instruction_set)
        except ValueError as error:
            return str(error)
        native.use_instruction_set(in_use)
    return reason


@functools.cache
def best_instruction_set() -> str:
    """The one that the native library chooses by itself; asked for before any other is set."""
    return native.describe().get("instruction set", "none")


def _ours(computes: str, backend: str, settings: dict) -> Callable[[int], Compute]:
    def prepare(threads: int) -> Compute:
        if computes == WEIGHTS:
            return fastlogconv.WeightTransform(**settings, **KERNEL, backend=backend)
        if computes == REGION_WEIGHTS:
            return fastlogconv.WeightTransformSingle(**settings, **KERNEL, backend=backend)
        return fastlogconv.SeparableConv2D(**KERNEL, backend=backend)

    return prepare


def _exact(library: Callable[[int], exact.SquaredDistance], crop: bool) -> Callable[[int], Compute]:
    settings = {name: value for name, value in SECOND.items() if name != "border"}

    def prepare(threads: int) -> Compute:
        squared_distance = library(threads)
        return lambda labels: exact.weights(labels, squared_distance, crop, **settings)

    return prepare


def _our_competitors(computes: str) -> list[Competitor]:
    if computes == CONVOLUTION:
        results = {"": ("convolution", {})}
    else:
        results = {"": ("logconv-farthest", FARTHEST), "-second": ("logconv-second", SECOND)}
    if computes == WEIGHTS:
        results["-exact"] = ("exact-second", {**SECOND, "distance": "euclidean"})
    found = []
    for suffix, (result, settings) in results.items():
        common = dict(computes=computes, result=result, tolerance=TOLERANCE)
        for name, instruction_set in (
            ("", best_instruction_set()),
            ("-avx2", "avx2"),
            ("-baseline", "baseline"),
        ):
            found.append(
                Competitor(
                    f"native{name}{suffix}",
                    f"fastlogconv native ({instruction_set})",
                    prepare=_ours(computes, "native", settings),
                    work=_pixels,
                    memory=_result_bytes,
                    select=functools.partial(native.use_instruction_set, instruction_set),
                    why_not=functools.partial(_no_native, instruction_set) if name else _no_native,
                    **common,
                )
            )
        found.append(
            Competitor(
                f"reference{suffix}",
                "fastlogconv reference (float64)",
                prepare=_ours(computes, "reference", settings),
                work=_whole_images if result == "exact-second" else _reference_work,
                memory=functools.partial(_image_bytes, buffers=30),
                why_not=lambda: reference.why_not(torch.device("cpu")),
                **common,
            )
        )
    return found


def _dense_competitors() -> list[Competitor]:
    found = []
    for suffix, convolve, buffers in (("", dense.conv1d, 3), ("-matmul", dense.matmul, 3)):
        label = f"dense, PyTorch {convolve.__name__}"
        cost = dict(work=_one_hot_pixels, memory=functools.partial(_one_hot_bytes, buffers=buffers))
        for computes, way in ((WEIGHTS, dense.weights), (REGION_WEIGHTS, dense.region_weights)):
            for border, result, settings in (
                ("", "logconv-farthest", FARTHEST),
                ("-second", "logconv-second", SECOND),
            ):
                compute = functools.partial(way, convolve=convolve, **settings, **KERNEL)
                found.append(
                    Competitor(
                        f"dense{suffix}{border}",
                        label,
                        computes,
                        result,
                        DENSE_TOLERANCE,
                        prepare=lambda threads, compute=compute: compute,
                        **cost,
                    )
                )
        compute = functools.partial(convolve, **KERNEL, denormals=False)
        found.append(
            Competitor(
                f"dense{suffix}",
                label,
                CONVOLUTION,
                "convolution",
                TOLERANCE,
                prepare=lambda threads, compute=compute: compute,
                **cost,
            )
        )
    return found


def _exact_competitors() -> list[Competitor]:
    libraries = [
        ("opencv", "OpenCV DIST_MASK_PRECISE", "cv2", exact.opencv),
        ("scipy", "SciPy distance_transform_edt", "scipy", exact.scipy),
        ("edt", "seung-lab edt", "edt", exact.edt),
        ("kornia", "kornia distance_transform", "kornia", exact.kornia),
    ]
    margin = exact.reach(max(SECOND["fds"], SECOND["bws"]))
    found = []
    for name, label, package, library in libraries:
        for crop in (False, True):
            if name == "kornia":
                work = functools.partial(_cascade_work, crop=crop)
            else:
                work = functools.partial(_boxes, margin=margin) if crop else _whole_images
            found.append(
                Competitor(
                    name + "-crop" * crop,
                    f"{label}, {'cropped' if crop else 'whole image'}",
                    WEIGHTS,
                    "cascade-second" if name == "kornia" else "exact-second",
                    TOLERANCE,
                    _exact(library, crop),
                    work=work,
                    memory=functools.partial(_image_bytes, buffers=10),
                    why_not=functools.partial(_missing, package),
                )
            )
    return found


def _sep_filter(threads: int) -> Compute:
    import cv2

    cv2.setNumThreads(threads)
    r = KERNEL["ks"] // 2
    taps = dense.kernel(torch.arange(-r, r + 1.0).abs(), **KERNEL, denormals=False).numpy()

    def convolve(input: Tensor) -> Tensor:
        out = torch.empty_like(input)
        for channel, result in zip(input.numpy(), out.numpy(), strict=True):
            cv2.sepFilter2D(channel, cv2.CV_32F, taps, taps, dst=result, borderType=cv2.BORDER_CONSTANT)
        return out

    return convolve


def _copy(threads: int) -> Compute:
    room: list[Tensor] = []

    def copy(input: Tensor) -> Tensor:
        if not room or room[0].shape != input.shape:
            room[:] = [torch.empty_like(input)]
        return room[0].copy_(input)

    return copy


def _pass_competitors() -> list[Competitor]:
    common = dict(computes=CONVOLUTION, work=_pixels, memory=_result_bytes)
    return [
        Competitor(
            "opencv",
            "OpenCV sepFilter2D",
            result="convolution",
            tolerance=TOLERANCE,
            prepare=_sep_filter,
            why_not=functools.partial(_missing, "cv2"),
            **common,
        ),
        Competitor(
            "copy", "copy_ to where there is room", result="copy", tolerance=0, prepare=_copy, **common
        ),
        Competitor(
            "clone",
            "clone: a copy to fresh memory",
            result="copy",
            tolerance=0,
            prepare=lambda threads: torch.clone,
            **common,
        ),
    ]


def all_competitors(computes: str) -> list[Competitor]:
    """Those that compute this kind of case, ours last."""
    others = [*_dense_competitors(), *_exact_competitors(), *_pass_competitors()]
    found = [competitor for competitor in others if competitor.computes == computes]
    return found + _our_competitors(computes)
