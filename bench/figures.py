"""The figures that fastlogconv is to reach on one thread, each with what was wanted and what was measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import cases, exact, host_cost, report, timing, verify, volumes
from .cases import CONVOLUTION, REGION_WEIGHTS, WEIGHTS, Workload
from .competitors import Competitor, best_instruction_set
from .competitors import native as kernels
from .suite import Suite
from .timing import Contestant, Effort
from .wanted import Figure, at_least, at_most


@dataclass(frozen=True)
class Sizes:
    """On what the figures are taken."""

    growth: Sequence[int] = (512, 1024, 2048, 4096, 8192)
    threads: int = 2048
    regions: str = "regions-125"
    convolutions: Sequence[str] = ("conv-125", "conv-125-random")
    accuracy: Sequence[str] = (
        "tissue-2048", "tissue-512-diameter-8", "tissue-512-diameter-40", "instances-1", "instances-4096",
        "batch-16x512", "giant-ring", "giant-blob", "tiny-40000",
    )  # fmt: skip


QUICK_SIZES = Sizes((64, 128), 128, "quick-regions", ("quick-conv",), ("quick-few", "giant-ring"))


class Figures:
    """Measures them on competitors that a suite has found right."""

    def __init__(self, suite: Suite, mask: Path | None, effort: Effort, sizes: Sizes) -> None:
        self.suite = suite
        self.effort = effort
        self.sizes = sizes
        self.cases = cases.all_cases(mask)

    def measure(self) -> list[Figure]:
        """All of them."""
        groups = (
            self.mask, self.exact_distances, self.tile, self.growth, self.two_threads, self.regions,
            self.convolution, self.accuracy, self.thread_counts, self.instruction_sets, self.volumes,
            self.host_cost,
        )  # fmt: skip
        figures = []
        for group in groups:
            self.suite.say(f"figures: {group.__name__.replace('_', ' ')}")
            figures += group()
        return figures

    # ---------------------------------------------------------------------------------------------- times

    def _medians(self, workload: Workload, *names: str, **others: Contestant) -> dict[str, float]:
        """Times of the named competitors that can run, and of others, taken by turns."""
        found = {name: self.suite.find(workload.case.computes, name) for name in names}
        contestants = {
            name: self.suite.contestant(competitor, workload)
            for name, competitor in found.items()
            if competitor
        } | others
        timing.alternate(list(contestants.values()), self.effort)
        return {name: contestant.times.median for name, contestant in contestants.items()}

    def mask(self) -> list[Figure]:
        wanted = {
            "mask: speed-up of WeightTransform over dense": "at least 3,500 x, goal 5,000 x",
            "mask: second_nearest over farthest": "at most 1.7 x",
            "mask: AVX2 over AVX-512": "at most 2 x",
        }
        try:
            workload = self.cases["dsb"].workload()
        except cases.Unavailable as missing:
            return [Figure(what, aim, f"not measured: {missing}", None) for what, aim in wanted.items()]
        median = self._medians(workload, "dense", "native", "native-second", "native-avx2")
        (speed, speed_aim), (second, second_aim), (avx2, avx2_aim) = wanted.items()
        times = f"{report.duration(median['dense'])} / {report.duration(median['native'])}"
        figures = [
            at_least(speed, speed_aim, 3500, median["dense"] / median["native"], times),
            at_most(
                second,
                second_aim,
                1.7,
                median["native-second"] / median["native"],
                f"{report.duration(median['native-second'])} / {report.duration(median['native'])}",
            ),
        ]
        if best_instruction_set() != "avx512":
            figures.append(Figure(avx2, avx2_aim, "not measured: this CPU has no AVX-512", None))
        else:
            times = f"{report.duration(median['native-avx2'])} / {report.duration(median['native'])}"
            figures.append(at_most(avx2, avx2_aim, 2, median["native-avx2"] / median["native"], times))
        return figures

    def exact_distances(self) -> list[Figure]:
        opencv, logconv = "mask: exact distances over OpenCV's transforms alone", "mask: exact over LogConv"
        wanted = {opencv: "at least 150 x", logconv: "at most 5 x"}
        try:
            workload = self.cases["dsb"].workload()
        except cases.Unavailable as missing:
            return [Figure(what, aim, f"not measured: {missing}", None) for what, aim in wanted.items()]
        others = {}
        if self.suite.find(WEIGHTS, "opencv"):
            others["transforms"] = Contestant(lambda: _transforms(exact.opencv(1), workload))
        median = self._medians(workload, "native-exact", "native-second", **others)
        ours = median["native-exact"]
        if others:
            times = f"{report.duration(median['transforms'])} / {report.duration(ours)}"
            first = at_least(opencv, wanted[opencv], 150, median["transforms"] / ours, times)
        else:
            first = Figure(opencv, wanted[opencv], "not measured: OpenCV is not installed", None)
        times = f"{report.duration(ours)} / {report.duration(median['native-second'])}"
        return [first, at_most(logconv, wanted[logconv], 5, ours / median["native-second"], times)]

    def tile(self) -> list[Figure]:
        seconds = self._medians(self.cases["tile-32"].workload(), "native")["native"]
        return [
            Figure("a call on a 32 x 32 tile", "at most 30 µs", report.duration(seconds), seconds <= 30e-6)
        ]

    def growth(self) -> list[Figure]:
        native = self.suite.find(WEIGHTS, "native")
        workloads = {size: cases.tissue_case(size).workload() for size in self.sizes.growth}
        contestants = {size: self.suite.contestant(native, workload) for size, workload in workloads.items()}
        timing.alternate(list(contestants.values()), self.effort)
        per_pixel = {
            size: contestants[size].times.median / workloads[size].pixels * 1e9 for size in workloads
        }
        first, *_ = per_pixel.values()
        times = ", ".join(f"{size}: {ns:.2f}" for size, ns in per_pixel.items()) + " ns"
        return [
            at_most(
                f"tissue: time per pixel, {self.sizes.growth[0]}^2 to {self.sizes.growth[-1]}^2",
                "grows by at most 1.3 x",
                1.3,
                max(per_pixel.values()) / first,
                times,
            )
        ]

    def two_threads(self) -> list[Figure]:
        what, wanted = f"tissue {self.sizes.threads}^2: two threads over one", "at least 1.7 x"
        if (os.cpu_count() or 1) < 2:
            return [Figure(what, wanted, "not measured: one core", None)]
        workload = cases.tissue_case(self.sizes.threads).workload()
        native = self.suite.find(WEIGHTS, "native")
        one, two = (self.suite.contestant(native, workload) for _ in range(2))
        one.select = lambda: (native.select(), torch.set_num_threads(1))
        two.select = lambda: (native.select(), torch.set_num_threads(2))
        timing.alternate([one, two], self.effort)
        torch.set_num_threads(self.suite.threads)
        times = f"{report.duration(one.times.median)} / {report.duration(two.times.median)}"
        return [at_least(what, wanted, 1.7, one.times.median / two.times.median, times)]

    def regions(self) -> list[Figure]:
        workload = self.cases[self.sizes.regions].workload()
        median = self._medians(workload, "dense", "native")
        return [
            at_least(
                f"WeightTransformSingle {list(workload.input.shape)} over dense",
                "at least 60 x",
                60,
                median["dense"] / median["native"],
                f"{report.duration(median['dense'])} / {report.duration(median['native'])}",
            )
        ]

    def convolution(self) -> list[Figure]:
        figures = []
        for name in self.sizes.convolutions:
            case = self.cases[name]
            workload = case.workload()
            median = self._medians(workload, "dense", "native", "copy", "clone")
            ours = report.duration(median["native"])
            what = f"separable_conv2d {list(workload.input.shape)}, {case.about}"
            figures += [
                at_least(
                    f"{what}: over conv1d",
                    "at least 10 x",
                    10,
                    median["dense"] / median["native"],
                    f"{report.duration(median['dense'])} / {ours}",
                ),
                at_most(
                    f"{what}: time of a copy",
                    "at most 4 x",
                    4,
                    median["native"] / median["copy"],
                    f"{ours} / {report.duration(median['copy'])}; clone {report.duration(median['clone'])}",
                ),
            ]
        return figures

    # -------------------------------------------------------------------------------------------- results

    def _ours(self, computes: str) -> list[Competitor]:
        """The native backend with every instruction set and border that this machine can run."""
        names = [f"native{variant}" for variant in ("", "-avx2", "-baseline")]
        found = [self.suite.find(computes, name + border) for border in ("", "-second") for name in names]
        return [competitor for competitor in found if competitor]

    def _workloads(self) -> list[Workload]:
        names = ["dsb", *self.sizes.accuracy, self.sizes.regions, *self.sizes.convolutions]
        found = []
        for name in names:
            try:
                found.append(self.cases[name].workload())
            except cases.Unavailable:
                continue
        return found

    def accuracy(self) -> list[Figure]:
        worst, where = 0.0, ""
        for workload in self._workloads():
            windows = verify.whole(workload) if workload.case.name == "dsb" else verify.some(workload)
            expected = verify.Expected(workload, windows)
            for competitor in self._ours(workload.case.computes):
                error = expected.error(competitor.result, self.suite.compute(competitor, workload))
                if error >= worst:
                    worst, where = error, f"{competitor.name} on {workload.case.name}"
        what = "error against float64, all cases, instruction sets and borders"
        return [Figure(what, "at most 1e-5", f"{worst:.1e} ({where})", worst <= 1e-5)]

    def thread_counts(self) -> list[Figure]:
        different = []
        for workload in self._workloads():
            for competitor in self._ours(workload.case.computes):
                results = []
                for threads in (1, 2, 3, 7):
                    torch.set_num_threads(threads)
                    results.append(self.suite.compute(competitor, workload))
                torch.set_num_threads(self.suite.threads)
                if not all(torch.equal(results[0], other) for other in results[1:]):
                    different.append(f"{competitor.name} on {workload.case.name}")
        measured = "different: " + ", ".join(different) if different else "bitwise the same"
        return [
            Figure("results of 1, 2, 3 and 7 threads, all cases", "bitwise the same", measured, not different)
        ]

    def instruction_sets(self) -> list[Figure]:
        what, wanted = (
            "difference between instruction sets, all cases, as the error is measured",
            "at most 1e-6",
        )
        if self.suite.find(WEIGHTS, "native-baseline") is None:
            return [Figure(what, wanted, "not measured: one instruction set only", None)]
        worst, where = 0.0, "no difference"
        for workload in self._workloads():
            first: dict[str, Tensor] = {}  # of each result class
            for competitor in self._ours(workload.case.computes):
                output = self.suite.compute(competitor, workload)
                best = first.setdefault(competitor.result, output)
                off = ((best - output).abs() / best.abs().clamp(min=1)).max().item()
                if not off <= worst:
                    worst, where = off, f"{competitor.name} on {workload.case.name}"
        return [Figure(what, wanted, f"{worst:.1e} ({where})", worst <= 1e-6)]

    # ------------------------------------------------------------------------------------------- volumes

    def volumes(self) -> list[Figure]:
        kernels.use_instruction_set(best_instruction_set())
        return volumes.figures(self.effort is timing.QUICK, self.suite.threads)

    # ---------------------------------------------------------------------------------------------- GPU

    def host_cost(self) -> list[Figure]:
        """What a call on a CUDA tensor costs the host, by launches that do nothing."""
        figures = []
        for backend, wanted in host_cost.WANTED.items():
            what = f"weight_map on a GPU, {host_cost.NAMES[backend]}: the host, launches left out"
            aim = f"at most {report.duration(wanted)}"
            if reason := host_cost.why_not(backend):
                figures.append(Figure(what, aim, f"not measured: {reason}", None))
                continue
            calls = 2000 if self.effort.rounds > timing.QUICK.rounds else 50
            median, _ = host_cost.measure(backend, calls, ["weight_map"])["weight_map"]
            figures.append(Figure(what, aim, report.duration(median), median <= wanted))
        return figures


def _transforms(squared_distance: exact.SquaredDistance, workload: Workload) -> None:
    """The distance to each instance, from the whole image, and nothing else."""
    for image in workload.input.numpy():
        for i in np.unique(image[image > 0]):
            squared_distance(image, i)


COMPETITORS = (
    "dense", "opencv", "copy", "clone",
    *(f"native{isa}{result}" for isa in ("", "-avx2", "-baseline") for result in ("", "-second", "-exact")),
)  # fmt: skip


def measure(
    mask: Path | None, quick: bool, make_suite: Callable[[list[str], list[str]], Suite]
) -> list[Figure]:
    """All figures, after the competitors they need were found right."""
    suite = make_suite([WEIGHTS, REGION_WEIGHTS, CONVOLUTION], list(COMPETITORS))
    missing = suite.checks[WEIGHTS, "native"].reason
    if missing:
        raise SystemExit(f"no figures without the native backend: {missing}")
    effort, sizes = (timing.QUICK, QUICK_SIZES) if quick else (Effort(), Sizes())
    return Figures(suite, mask, effort, sizes).measure()


def table(figures: list[Figure]) -> str:
    """figure | wanted | measured | reached."""
    said = {True: "yes", False: "no", None: "-"}
    lines = ([f.what, f.wanted, f.measured, said[f.reached]] for f in figures)
    return report.table(["figure", "wanted", "measured", "reached"], lines, left=4)
