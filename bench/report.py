"""What is written: Markdown, CSV, JSON and plots."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from . import competitors
from .suite import TIMED, Checked, Row
from .verify import RESULT_CLASSES

PACKAGES = ("fastlogconv", "torch", "numpy", "scipy", "opencv-python-headless", "edt", "kornia", "matplotlib")

METHOD = """\
One process; the competitors of a case take turns, so that a disturbance meets them all. A turn is one call,
or as many as fit into 50 ms, after one untimed call where a call is short. Times are medians of all calls, in
brackets the quartiles. "x dense" is the time of the dense way with the same border, over this time. Memory is
the peak of the resident set above what it was before the call, the result included, in a fresh process for
each line. The error is max |w - w64| / max(1, w64), of convolutions max |y - y64| / max |y64|, in three
windows of the result; who exceeds its tolerance there or on the small inputs below is not timed."""


# ------------------------------------------------------------------------------------------------ numbers


def duration(seconds: float | None) -> str:
    """Three digits and a unit."""
    if seconds is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds / 1e-6)} µs"


def size(bytes: float | None) -> str:
    """Three digits and a unit."""
    if bytes is None:
        return ""
    for unit, unit_size in (("GB", 1e9), ("MB", 1e6)):
        if bytes >= unit_size:
            return f"{_digits(bytes / unit_size)} {unit}"
    return f"{_digits(bytes / 1e3)} kB"


def factor(value: float | None) -> str:
    """A ratio, with three digits."""
    return "" if value is None else f"{_digits(value)} x"


def _digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def table(header: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
    """Markdown; all columns but the first `left` are aligned to the right."""
    header = list(header)
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *map(list, rows)])


# ------------------------------------------------------------------------------------------------ machine


def machine(threads: int) -> dict:
    """The machine and the versions, for JSON."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": f"{platform.system()} {platform.machine()}",
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "fastlogconv_instruction_set": competitors.best_instruction_set(),
        "commit": _commit(),
        "threads": threads,
        "load_average": os.getloadavg()[0],
        "versions": versions,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit that was measured, marked where the sources differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def machine_line(about: dict) -> str:
    """The machine and the versions, in words."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    return (
        f"{about['processor']}, {about['cores']} cores, {about['memory_bytes'] / 2**30:.0f} GiB; "
        f"{about['threads']} thread{'s' * (about['threads'] != 1)}; {versions}; "
        f"commit {about['commit'] or 'unknown'}; load before {about['load_average']:.1f}."
    )


# --------------------------------------------------------------------------------------------- the tables


def checks_table(checks: Iterable[Checked]) -> str:
    """Who computes what, and how far from the oracle on the small inputs."""
    return table(
        ["competitor", "computes", "result", "error", "allowed", ""],
        (
            [
                check.competitor.label,
                check.competitor.computes,
                check.competitor.result,
                "" if check.error is None else f"{check.error:.1e}",
                f"{check.competitor.tolerance:.0e}",
                check.reason,
            ]
            for check in checks
        ),
        left=3,
    )


def classes_table() -> str:
    """What each result class is."""
    return table(["result", "definition"], ([c.name, c.definition] for c in RESULT_CLASSES.values()), left=2)


def case_table(rows: list[Row]) -> str:
    """All competitors on one case."""
    lines = []
    for row in rows:
        if row.status == TIMED:
            first, third = row.times.quartiles
            cells = [
                duration(row.median),
                f"[{duration(first)}, {duration(third)}]",
                f"{row.median / row.pixels * 1e9:.2f}",
                factor(row.speedup),
                size(row.extra_bytes),
                f"{row.error:.0e}",
                row.reason,
            ]
        else:
            cells = ["", "", "", "", "", "", row.reason]
        lines.append([row.competitor.label, row.competitor.result, *cells])
    header = ["competitor", "result", "time", "quartiles", "ns/pixel", "x dense", "memory", "error", ""]
    return table(header, lines, left=2)


# Of all that is timed what a reader wants to see side by side.
OVERVIEW = {
    "dense": "dense, farthest",
    "native": "**ours, farthest**",
    "dense-second": "dense, second",
    "dense-matmul-second": "dense by matmul, second",
    "native-second": "**ours, second**",
    "opencv-crop": "OpenCV*",
    "scipy-crop": "SciPy*",
    "edt-crop": "edt*",
}


def overview(rows: list[Row]) -> str:
    """Times only, one line for each case of labels or regions."""
    lines = []
    for name, of_case in by_case(rows).items():
        if of_case[0].case.computes == "convolution" or not of_case[0].shape:
            continue
        found = {row.competitor.name: row for row in of_case}
        shape = " x ".join(map(str, of_case[0].shape))
        times = [duration(found[c].median) or "-" if c in found else "-" for c in OVERVIEW]
        lines.append([f"{name}, {shape}", f"{of_case[0].instances:,}", *times])
    note = (
        "\\* Euclidean instead of LogConv distance, per instance, in its bounding box grown to the reach of "
        'the weights. "-": too long, too large, or not computed; results.md tells which.'
    )
    return table(["case", "instances", *OVERVIEW.values()], lines) + "\n\n" + note


def by_case(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each case."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.case.name, []).append(row)
    return found


def markdown(rows: list[Row], checks: Iterable[Checked], about: dict, plots: list[Path]) -> str:
    """The whole report."""
    parts = ["# Results", machine_line(about), METHOD, "## Overview", overview(rows)]
    parts += [f"![{plot.stem.replace('-', ' ')}]({plot.name})" for plot in plots]
    parts += ["## Who computes what", classes_table(), checks_table(checks)]
    for name, of_case in by_case(rows).items():
        first = of_case[0]
        if not first.shape:
            parts += [f"## {name}", first.reason]
            continue
        shape = " x ".join(map(str, first.shape))
        parts += [
            f"## {name}",
            f"{first.case.about}: {first.case.computes} of {shape}, {first.instances:,} instances",
        ]
        parts.append(case_table(of_case))
    return "\n\n".join(parts) + "\n"


COLUMNS = (
    "case", "computes", "shape", "pixels", "instances", "competitor", "label", "result", "status", "reason",
    "median_s", "quartile1_s", "quartile3_s", "calls", "x_dense", "peak_extra_bytes", "error",
)  # fmt: skip


def write_csv(rows: list[Row], path: Path) -> None:
    """One line for each competitor on each case."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            case, competitor, timed = row.case, row.competitor, row.times
            first, third = timed.quartiles if timed else (None, None)
            calls = len(timed.seconds) if timed else 0
            numbers = (row.median, first, third, calls, row.speedup, row.extra_bytes, row.error)
            writer.writerow(
                [
                    case.name, case.computes, "x".join(map(str, row.shape)), row.pixels, row.instances,
                    competitor.name, competitor.label, competitor.result, row.status, row.reason,
                    *(f"{n:.6g}" if isinstance(n, float) else n for n in numbers),
                ]
            )  # fmt: skip


# --------------------------------------------------------------------------------------------------- plots

# competitor: (legend, colour, line): a dashed line is the same library on the instances' grown boxes.
LINES = {
    "native": ("fastlogconv, farthest", "#d62728", "-"),
    "native-second": ("fastlogconv, second nearest", "#ff7f0e", "-"),
    "native-exact": ("fastlogconv exact, second nearest", "#e377c2", "-"),
    "reference-second": ("fastlogconv reference", "#bcbd22", "-"),
    "dense": ("dense PyTorch conv1d, farthest", "black", "-"),
    "dense-matmul": ("dense PyTorch matmul, farthest", "#7f7f7f", "-"),
    "opencv": ("OpenCV exact, whole image", "#1f77b4", "-"),
    "opencv-crop": ("OpenCV exact, cropped", "#1f77b4", "--"),
    "scipy": ("SciPy exact, whole image", "#2ca02c", "-"),
    "scipy-crop": ("SciPy exact, cropped", "#2ca02c", "--"),
    "edt": ("edt exact, whole image", "#9467bd", "-"),
    "edt-crop": ("edt exact, cropped", "#9467bd", "--"),
    "kornia": ("kornia, whole image", "#8c564b", "-"),
    "kornia-crop": ("kornia, cropped", "#8c564b", "--"),
}
QUANTITIES = {
    "time": ("median", "time of a call", "s"),
    "memory": ("extra_bytes", "peak memory of a call, its result included", "B"),
}


def write_plots(rows: list[Row], folder: Path, about: dict) -> list[Path]:
    """time and memory against pixels and against instances: one PNG each, where there is anything to show."""
    written = []
    footer = f"{about['processor']}, {about['threads']} thread{'s' * (about['threads'] != 1)}"
    for quantity, (attribute, y_label, unit) in QUANTITIES.items():
        for series in ("pixels", "instances"):
            points = [row for row in rows if row.case.series == series and getattr(row, attribute)]
            if points:
                figure = draw(points, series, attribute)
                (axes,) = figure.axes
                axes.set_ylabel(y_label)
                axes.yaxis.set_major_formatter(EngFormatter(unit))
                figure.supxlabel(f"{footer}; a line ends where a call takes too long or too much", fontsize=8)
                written.append(folder / f"{quantity}-{series}.png")
                figure.savefig(written[-1])
    return written


def draw(points: list[Row], x: str, y: str) -> Figure:
    """One line for each competitor; the legend is in the order of the lines, if they all went on."""
    figure = Figure(figsize=(9, 5.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    largest = max(getattr(row, x) for row in points)
    lines = []
    for name, (legend, colour, style) in LINES.items():
        of_name = sorted((getattr(row, x), getattr(row, y)) for row in points if row.competitor.name == name)
        if of_name:
            width, size = (2.6, 6) if name.startswith("native") else (1.3, 4)
            (line,) = axes.plot(
                *zip(*of_name, strict=True),
                style,
                color=colour,
                linewidth=width,
                marker="o",
                markersize=size,
                label=legend,
            )
            end_x, end_y = of_name[-1]
            lines.append((end_y * largest / end_x, line))
    lines.sort(key=lambda line: line[0], reverse=True)
    axes.legend(
        handles=[line for _, line in lines],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=9,
    )
    axes.set(xscale="log", yscale="log")
    first = points[0]
    ticks = {getattr(row, x): row for row in points}
    if x == "pixels":
        labels = [f"{row.shape[1]}x{row.shape[2]}" for row in ticks.values()]
        axes.set_title("U-Net weights: tissue of constant density", loc="left", fontsize=11)
        axes.set_xlabel("pixels")
    else:
        labels = [f"{row.instances:,}" for row in ticks.values()]
        axes.set_title(f"U-Net weights: {first.shape[1]} x {first.shape[2]} pixels", loc="left", fontsize=11)
        axes.set_xlabel("instances")
    axes.set_xticks(list(ticks), labels)
    axes.minorticks_off()
    axes.grid(color="0.88", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


# ------------------------------------------------------------------------------------------------ all files


def write(rows: list[Row], checks: Iterable[Checked], about: dict, folder: Path) -> list[Path]:
    """Everything into `folder`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = write_plots(rows, folder, about)
    (folder / "results.md").write_text(markdown(rows, checks, about, plots), encoding="utf-8")
    write_csv(rows, folder / "results.csv")
    (folder / "machine.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return [folder / "results.md", folder / "results.csv", folder / "machine.json", *plots]
