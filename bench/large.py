"""Weights of a label image that does not fit into memory: time, memory, and seams. Run once, by hand.

    python -m bench.large --side 20000 --folder /somewhere

Writes labels and weights as zarr arrays below the folder (1.6 GB each at a side of 20,000, less compressed),
in a process each, and compares windows around tile corners with the same windows computed in one piece.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dask
import numpy as np
import torch
import zarr

import fastlogconv
from fastlogconv import large

TILE = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--distance", default="logconv", choices=("logconv", "euclidean"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stage", choices=("labels", "weights", "seams"))
    args = parser.parse_args()
    if args.stage:
        return globals()[f"make_{args.stage}"](args)
    for stage in ("labels", "weights", "seams"):
        subprocess.run([sys.executable, "-m", "bench.large", *sys.argv[1:], "--stage", stage], check=True)


def make_labels(args) -> None:
    """Ellipses of up to 28 px on a jittered grid of 24 px, some of them touching; every id once."""
    labels = zarr.create_array(
        args.folder / "labels.zarr",
        shape=(args.side,) * 2,
        chunks=(TILE,) * 2,
        dtype=np.int32,
        overwrite=True,
    )
    rng, ids = np.random.default_rng(0), 0
    for top in range(0, args.side, TILE):
        for left in range(0, args.side, TILE):
            height, width = (min(TILE, args.side - start) for start in (top, left))
            tile = _tile(rng, height, width)
            labels[top : top + height, left : left + width] = np.where(tile > 0, tile + ids, 0)
            ids += tile.max()
    print(f"labels: {args.side} x {args.side}, int32, {ids:,} ids")


def _tile(rng, height: int, width: int) -> np.ndarray:
    tile, ids = np.zeros((height, width), np.int32), 0
    for y in range(0, height, 24):
        for x in range(0, width, 24):
            ids += 1
            radii = rng.uniform(6, 14, 2)
            center = rng.uniform(8, 16, 2)
            rows, columns = np.ogrid[: min(28, height - y), : min(28, width - x)]
            inside = ((rows - center[0]) / radii[0]) ** 2 + ((columns - center[1]) / radii[1]) ** 2 < 1
            window = tile[y : y + 28, x : x + 28]
            window[inside & (window == 0)] = ids
    return tile


def make_weights(args) -> None:
    labels = zarr.open_array(args.folder / "labels.zarr", mode="r")
    path = args.folder / f"{args.distance}.zarr"
    shutil.rmtree(path, ignore_errors=True)
    for what in ("weights", "resumed, all done"):
        started = time.perf_counter()
        with dask.config.set(scheduler="threads", num_workers=args.workers):
            large.store(labels, path, progress=False, resume=True, distance=args.distance)
        elapsed = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{what}: {elapsed:.0f} s on {args.workers} threads, {peak:.2f} GiB at most")


def make_seams(args) -> None:
    labels = zarr.open_array(args.folder / "labels.zarr", mode="r")
    weights = zarr.open_array(args.folder / f"{args.distance}.zarr", mode="r")
    worst = 0.0
    for row in range(TILE, args.side - 400, TILE):
        for column in range(TILE, args.side - 400, TILE):
            window = np.s_[row - 400 : row + 400, column - 400 : column + 400]
            whole = fastlogconv.weight_map(torch.from_numpy(labels[window]), distance=args.distance)
            inner = np.s_[200:-200, 200:-200]
            expected = whole.numpy()[inner]
            worst = max(worst, (np.abs(weights[window][inner] - expected) / np.maximum(1, expected)).max())
    print(f"seams: largest difference at {args.side // TILE} x {args.side // TILE} corners {worst:.1e}")


if __name__ == "__main__":
    main()
