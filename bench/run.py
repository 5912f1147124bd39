"""The command line of the benchmark: `python -m bench.run`. See NOTES.md for how it measures."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Libraries read these when they are loaded, so nothing that computes is imported before they are set.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.run", description="Benchmarks fastlogconv on the CPU or on a GPU."
    )
    parser.add_argument(
        "--mask", type=Path, metavar="FILE", help="a label image for the case dsb: .tif or .npy"
    )
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only these; --list tells their names")
    parser.add_argument(
        "--competitors", nargs="+", metavar="NAME", help="only these; --list tells their names"
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of every competitor (default: 1)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: bench/results, build/bench with --quick"
    )
    parser.add_argument("--quick", action="store_true", help="tiny inputs, under a minute: does it all work?")
    parser.add_argument("--figures", action="store_true", help="the figures to reach, instead of the cases")
    parser.add_argument(
        "--max-seconds", type=float, default=20, metavar="S", help="skip calls estimated longer (default: 20)"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out: a process per line")
    parser.add_argument(
        "--gpu", action="store_true", help="on the current CUDA device: a table, in two minutes"
    )
    parser.add_argument(
        "--volumes", action="store_true", help="volumes, instead of the cases; --mask may be one"
    )
    parser.add_argument("--list", action="store_true", help="print the names of cases and competitors")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs it; returns 0, or 1 where one of fastlogconv's own results is wrong."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.threads < 1:
        parser.error("--threads must be at least 1")
    if options.figures and options.threads != 1:
        parser.error("--figures are defined for one thread")
    if options.mask is not None and not options.mask.is_file():
        parser.error(f"--mask {options.mask}: no such file")
    if options.out is None:
        options.out = Path("build", "bench") if options.quick else Path("bench", "results")
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(options.threads)))

    import torch

    from . import cases, competitors, figures, report, suite, timing, volumes

    def make_suite(kinds: list[str], names: list[str] | None) -> suite.Suite:
        limits = suite.Limits(options.max_seconds)
        made = suite.Suite(kinds, names, options.threads, limits, say=lambda text: print(text, flush=True))
        for check in made.wrong:
            name, kind = check.competitor.name, check.competitor.computes
            print(f"{name} ({kind}) is not timed, {check.reason}", flush=True)
        if any(check.competitor.ours for check in made.wrong):
            raise SystemExit("fastlogconv's own results are wrong: nothing is timed")
        return made

    if options.gpu:
        return _run_on_gpu(options, parser)

    if options.volumes:
        torch.set_num_threads(options.threads)
        rows = volumes.measure(options.mask, options.quick, lambda text: print(text, flush=True))
        print(volumes.write(rows, options.threads, options.out))
        return 0

    if options.figures:
        about = report.machine(options.threads)
        found = figures.measure(options.mask, options.quick, make_suite)
        text = f"# Figures\n\n{report.machine_line(about)}\n\n{figures.table(found)}\n"
        print(f"\n{text}")
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "figures.md").write_text(text, encoding="utf-8")
        return 0

    known = cases.all_cases(options.mask)
    kinds = (cases.WEIGHTS, cases.REGION_WEIGHTS, cases.CONVOLUTION)
    if options.list:
        for case in known.values():
            print(f"{case.name:<24} {case.computes}: {case.about}")
        for kind in kinds:
            print(f"\n{kind}:")
            for competitor in competitors.all_competitors(kind):
                print(f"{competitor.name:<24} {competitor.label}, {competitor.result}")
        return 0
    names = options.cases or (cases.QUICK if options.quick else [n for n in known if n not in cases.QUICK])
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}: --list tells the names")
    chosen = [known[name] for name in names]
    kinds = [kind for kind in kinds if any(case.computes == kind for case in chosen)]
    every = {competitor.name for kind in kinds for competitor in competitors.all_competitors(kind)}
    unknown = [name for name in options.competitors or [] if name not in every]
    if unknown:
        parser.error(f"no competitor {', '.join(unknown)}: --list tells the names")

    about = report.machine(options.threads)
    made = make_suite(kinds, options.competitors)
    effort = timing.QUICK if options.quick else timing.Effort()
    rows = []
    for case in chosen:
        rows += made.run(case, effort, options.mask, memory=not options.no_memory)
        print(report.case_table([row for row in rows if row.case is case]), "\n", flush=True)
    for path in report.write(rows, made.checks.values(), about, options.out):
        print(path)
    return int(any(row.status == suite.WRONG and row.competitor.ours for row in rows))


def _run_on_gpu(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    import torch

    from . import gpu

    if not torch.cuda.is_available():
        parser.error("--gpu: PyTorch finds no CUDA device")
    known = gpu.gpu_cases(options.mask)
    names = options.cases or (gpu.QUICK if options.quick else gpu.default_cases(options.mask))
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}: --list tells the names")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        print(text, flush=True)

    device = torch.device("cuda", torch.cuda.current_device())
    right = gpu.measure([known[name] for name in names], device, say)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "gpu.md"
    path.write_text("\n".join(said) + "\n", encoding="utf-8")
    print(path)
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
