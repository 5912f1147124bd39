"""What the GPU kernels take, counted without a GPU: `python -m bench.gpu_counts`.

The kernels are compiled for several GPUs, for their registers, spills, shared memory and occupancy, and run
on the CPU from the PTX for sm_80, for the warp instructions that they execute and the global memory that
they move.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

import fastlogconv
from fastlogconv.rules import BORDERS, DISTANCES

from . import cases, volumes

BACKENDS = {"triton": "tests.gpu_on_cpu.triton_kernels", "cuda": "tests.gpu_on_cpu.cuda_kernels"}
TARGETS = (80, 90, 100, 120)
COUNTED_TARGET = 80
# In a batch, for where an image is alone CUDA's blocks share its tiles, which takes more instructions.
IMAGES = {"triton": 1, "cuda": 3}
WHOLE_PATH = "labels_to_weights"
SECTOR = 32  # bytes
FAST_MATRIX_PRODUCT = 16 * 8 * 16  # multiply-adds of one mma.m16n8k16


@dataclasses.dataclass(frozen=True)
class GPU:
    """What a GPU can do at most, by its maker's data sheet."""

    name: str
    processors: int  # SMs: each issues 4 warp instructions a cycle
    clock: float  # Hz, boost
    bandwidth: float  # bytes per second
    products: int  # multiply-adds of bfloat16 in float32 that an SM's tensor cores do in a cycle
    special: int = 16  # exponentials, logarithms and the like that an SM does in a cycle

    def bounds(self, by_class: Counter, sectors: int) -> dict[str, float]:
        """Seconds that each part of the GPU is busy at least."""
        cycles = {
            "issue": by_class.total() / 4,
            "special functions": by_class["special_function"] * 32 / self.special,
            "tensor cores": by_class["mma"] * FAST_MATRIX_PRODUCT / self.products,
        }
        seconds = {part: count / (self.processors * self.clock) for part, count in cycles.items()}
        return {"memory": sectors * SECTOR / self.bandwidth, **seconds}


GPUS = (
    GPU("A100 SXM 80 GB", 108, 1.410e9, 2.039e12, products=1024),
    GPU("H100 SXM", 132, 1.830e9, 3.35e12, products=1024),  # by mma.sync, about half of what wgmma does
    GPU("RTX 5090", 170, 2.407e9, 1.792e12, products=256),
)


@dataclasses.dataclass
class Count:
    """What running the kernels on one workload executed."""

    warp_instructions: int
    bytes_per_pixel: float
    races: int
    max_error: float
    by_class: Counter
    sectors: int
    by_kernel: dict[str, tuple[int, float]]  # warp instructions, bytes per pixel


def _error(result: Tensor, expected: Tensor) -> float:
    off = (result.double() - expected).abs() / expected.abs().clamp(min=1)
    return off.nan_to_num(nan=torch.inf).max().item()


def count(module, operator, input: Tensor, exact: str = "reference", images: int = 1, **settings) -> Count:
    """Runs `operator` by a backend's kernels, and in float64 by the backend `exact` to compare with.

    What is counted is divided by `images`, where `input` is a batch of as many that are alike.
    """
    result, records = module.run(operator, input, **settings)
    expected = operator(input.double(), **settings, backend=exact)
    by_class = sum((record.profile.by_class for record in records), Counter())
    sectors = sum(record.profile.sectors for record in records)
    by_kernel: dict[str, tuple[int, float]] = {}
    for record in records:
        instructions, traffic = by_kernel.get(record.kernel, (0, 0.0))
        instructions += record.profile.warp_instructions
        by_kernel[record.kernel] = instructions, traffic + record.profile.sectors * SECTOR / input.numel()
    return Count(
        by_class.total() // images,
        sectors * SECTOR / input.numel(),
        sum(record.races for record in records),
        _error(result, expected),
        Counter({kind: number // images for kind, number in by_class.items()}),
        sectors // images,
        {kernel: (number // images, traffic) for kernel, (number, traffic) in by_kernel.items()},
    )


def _print_resources(kernels: dict[int, dict]) -> None:
    print(f"{'kernel':<20}{'target':>8}{'registers':>11}{'spills':>8}{'shared bytes':>14}{'occupancy':>11}")
    for target, by_name in kernels.items():
        for name, used in by_name.items():
            line = f"{name:<20}{f'sm_{target}':>8}{used.registers:>11}{used.spills:>8}{used.shared_bytes:>14}"
            print(f"{line}{used.occupancy:>11.0%}")


def _print_count(name: str, counted: Count) -> None:
    print(f"\n{name}: {'warp instructions':>36}{'bytes per pixel':>17}{'races':>7}{'max error':>11}")
    for kernel, (instructions, traffic) in counted.by_kernel.items():
        print(f"  {kernel:<30}{instructions:>20,}{traffic:>17.1f}")
    total = f"  {'in all':<30}{counted.warp_instructions:>20,}{counted.bytes_per_pixel:>17.1f}"
    print(f"{total}{counted.races:>7}{counted.max_error:>11.1e}")
    print("  " + ", ".join(f"{kind} {number:,}" for kind, number in counted.by_class.most_common()))


def _print_bounds(counted: Count) -> None:
    print("\nA lower bound on the time, by roofline. Counted, not measured: no GPU ran this.")
    for gpu in GPUS:
        bounds = gpu.bounds(counted.by_class, counted.sectors)
        slowest = max(bounds, key=bounds.get)
        parts = ", ".join(f"{part} {1e6 * seconds:.1f}" for part, seconds in bounds.items())
        print(f"  {gpu.name:<16}{1e6 * bounds[slowest]:>6.1f} us, by its {slowest} ({parts})")


def _json_lines(kernels: dict[int, dict], counted: Count) -> list[dict]:
    lines = []
    for target, by_name in kernels.items():
        for name, used in by_name.items():
            lines.append(dict(kernel=name, target=f"sm_{target}", **dataclasses.asdict(used)))
    path = [kernels[COUNTED_TARGET][name] for name in counted.by_kernel]
    return [
        *lines,
        dict(
            kernel=WHOLE_PATH,
            target=f"sm_{COUNTED_TARGET}",
            registers=max(used.registers for used in path),
            spills=sum(used.spills for used in path),
            shared_bytes=max(used.shared_bytes for used in path),
            occupancy=min(used.occupancy for used in path),
            warp_instructions=counted.warp_instructions,
            bytes_per_pixel=counted.bytes_per_pixel,
            races=counted.races,
            max_error=counted.max_error,
        ),
    ]


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_counts", description=__doc__)
    parser.add_argument("--mask", type=Path, metavar="FILE", help="a label image; default: tissue")
    parser.add_argument("--size", type=int, default=512, metavar="N", help="of the tissue (default: 512)")
    parser.add_argument(
        "--volume",
        type=int,
        metavar="N",
        help="in place of an image, balls of radius 10 in N^3 voxels (128: 100)",
    )
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="counted in a batch of N that are alike, divided by N (default: 1; CUDA: 3, and alone)",
    )
    parser.add_argument("--backend", choices=BACKENDS, default="triton", help="default: triton")
    parser.add_argument("--border", choices=BORDERS, default="second_nearest")
    parser.add_argument("--distance", choices=DISTANCES, default="logconv")
    parser.add_argument("--classes", action="store_true", help="two of them, by odd and even ids")
    parser.add_argument("--ignore", action="store_true", help="the upper eighth")
    parser.add_argument(
        "--targets", type=int, nargs="+", choices=TARGETS, default=TARGETS, metavar="CC", help="default: all"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line in place of tables")
    return parser


def _settings(labels: Tensor, options: argparse.Namespace) -> dict:
    """The settings of `weight_map` that the options ask for."""
    settings = dict(distance=options.distance, border=options.border)
    if options.classes:
        settings["classes"] = 1 + labels % 2
    if options.ignore:
        settings["ignore"] = torch.arange(labels.shape[1])[:, None] < labels.shape[1] // 8
    return settings


def _count_volume(module, side: int, exact: str = "native") -> None:
    """Weights by the two nearest instances in a volume: preset "unet2019" without gaps."""
    labels = torch.from_numpy(volumes.balls(side, max(1, 100 * side**3 // 128**3), 10.0)()).int()
    settings = dict(preset="unet2019", gaps=False, spatial_dims=3)
    counted = count(module, fastlogconv.weight_map, labels, exact, **settings)
    _print_count(f"{WHOLE_PATH} {tuple(labels.shape)}", counted)
    _print_bounds(counted)


def main(argv: list[str] | None = None) -> int:
    """Runs it; returns 0, or 1 where nothing can be counted here."""
    options = build_parser().parse_args(argv)
    try:
        module = importlib.import_module(BACKENDS[options.backend])
        reason = module.why_not()
    except ImportError as error:
        reason = str(error)
    if reason is not None:
        print(f"cannot count the kernels of {options.backend} here: {reason}", file=sys.stderr)
        return 1
    if options.volume:
        _count_volume(module, options.volume)
        return 0
    case = cases.tissue_case(options.size) if options.mask is None else cases.all_cases(options.mask)["dsb"]
    labels = case.make().int()
    targets = sorted({COUNTED_TARGET, *options.targets})
    images = options.images or IMAGES[options.backend]
    batch = labels.expand(images, -1, -1).contiguous()
    settings = _settings(batch, options)
    kernels = {target: module.resources_by_kernel(batch, target, **settings) for target in targets}
    counted = count(module, fastlogconv.weight_map, batch, images=images, **settings)
    if options.json:
        for line in _json_lines(kernels, counted):
            print(json.dumps(line))
        return 0
    _print_resources(kernels)
    _print_count(f"{WHOLE_PATH} {tuple(batch.shape)}, for each image", counted)
    _print_bounds(counted)
    if images > 1:
        alone = count(module, fastlogconv.weight_map, labels, **_settings(labels, options))
        _print_count(f"{WHOLE_PATH} {tuple(labels.shape)}", alone)
    channels = labels.float()[:, None].expand(-1, 2, -1, -1).flatten(0, 1).contiguous()
    _print_count("convolution", count(module, fastlogconv.separable_conv2d, channels, lmbda=0.35))
    return 0


if __name__ == "__main__":
    sys.exit(main())
