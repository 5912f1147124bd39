"""What weights do for touching cells in volumes: a small 3-D U-Net, trained without weights and with them.

Makes its own volumes of textured cells that touch, four times as coarse from slice to slice as in the plane,
trains on them on the CPU, and counts on others how many cells come out as objects of their own. Needs
matplotlib and scipy, as train_cells.py does, whose network, loop and scores it takes.

    python examples/train_volumes.py            # four ways, about a minute each on one core
    python examples/train_volumes.py --quick    # seconds: to see that it runs
"""

from __future__ import annotations

import argparse
import functools
import time

import numpy as np
import torch
from torch import Tensor, nn
from train_cells import UNet, fit, ndimage, report, score, segment, texture, touching

import fastlogconv

SPACING = (4.0, 1.0, 1.0)  # of slices, rows and columns
WEIGHTS = {
    "no weights": None,
    "no weights, gaps": None,
    **{
        f"unet2019, bwf={bwf}": fastlogconv.WeightTransform(
            preset="unet2019", bwf=bwf, spatial_dims=3, spacing=SPACING
        )
        for bwf in (3, 10)
    },
}
WITHOUT_GAPS = ("no weights",)  # between cells that touch, in what the network learns
make_model = functools.partial(UNet, nn.Conv3d, channels=(8, 16, 32), pools=((1, 2, 2), (2, 2, 2)))


def main(argv: list[str] | None = None) -> dict[str, list[dict[str, float]]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, few steps, small volumes")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=350, help="of training, for each seed and each way")
    args = parser.parse_args(argv)
    shape, count = (12, 48, 48), 32
    if args.quick:
        args.seeds, args.steps, shape, count = 1, 3, (8, 32, 32), 4

    scores = {name: [] for name in WEIGHTS}
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        training, test = make_volumes(rng, count, shape), make_volumes(rng, count, shape)
        for name in WEIGHTS:
            started = time.perf_counter()
            learn = functools.partial(target_and_weight, name)
            model = fit(make_model, *training, learn, steps=args.steps, seed=seed, batch_size=2)
            found = segment(model, test[0])
            scores[name].append(score(found if name in WITHOUT_GAPS else grown(found), test[1].numpy()))
            report(f"{name}, seed {seed} ({time.perf_counter() - started:.0f} s)", scores[name][-1:])
    if args.seeds > 1:
        print(f"\nMean over {args.seeds} seeds, and the spread (standard deviation)")
        for name in WEIGHTS:
            report(name, scores[name])
    return scores


def target_and_weight(name: str, cells: Tensor) -> tuple[Tensor, Tensor]:
    """What a network learns, int64 0 or 1, and the weight of each voxel. cells: labels [B, D, H, W]."""
    gaps = name not in WITHOUT_GAPS
    target = fastlogconv.separate_touching(cells, spatial_dims=3) if gaps else cells
    weights = WEIGHTS[name]
    return (target > 0).long(), torch.ones(cells.shape) if weights is None else weights(cells)


def grown(found: np.ndarray) -> np.ndarray:
    """Objects [B, D, H, W] that take back the gap: every voxel beside one goes to the nearest."""
    (distance,), ids = fastlogconv.nearest_instances(torch.from_numpy(found), k=1, spatial_dims=3)
    return torch.where(distance < 2, ids, 0).numpy()


def make_volumes(rng: np.random.Generator, n: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Volumes [n, D, H, W] of cells, and instance labels [n, D, H, W], where touching cells have no gap."""
    volumes, labels = zip(*(_make_volume(rng, shape) for _ in range(n)), strict=True)
    return torch.from_numpy(np.stack(volumes)), torch.from_numpy(np.stack(labels))


def _make_volume(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    places = np.indices(shape) * np.array(SPACING)[:, None, None, None]
    size = np.array(shape) * SPACING
    fine, coarse = (np.array([4, 4, 4]) * k / SPACING for k in (0.5, 4))
    labels, nearest = np.zeros(shape, np.int32), np.ones(shape)
    image = 0.15 + 0.1 * texture(rng, shape, coarse)
    for cell in range(1, int(size.prod() // 8000) + 1):
        center, radii = rng.uniform(0, size), rng.uniform(10, 14, 3)
        distance = np.sqrt(
            (((places - center[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(0)
        )
        if labels[tuple((center / SPACING).astype(int))] == 0:  # centres lie outside of other cells
            inside = distance < nearest
            labels[inside], nearest[inside] = cell, distance[inside]
            image[inside] = rng.uniform(0.5, 0.7) + 0.12 * texture(rng, shape, fine)[inside]
    image[touching(labels)] -= 0.15
    image = ndimage.gaussian_filter(image, (0.4, 1, 1)) + rng.normal(0, 0.06, shape)
    return image.astype(np.float32), labels


if __name__ == "__main__":
    main()
