"""What weights cost in a training step, and what they change, on images and labels that others have made.

    python -m bench.training --stardist FOLDER     # stardist/data/images of the package stardist
    python -m bench.training --quick               # does it all work? coins alone

Cost: MONAI's BasicUNet with its default widths on one thread, CPU time, steps with and without weights by
turns.
Effect: the small U-Net of examples/train_cells.py, trained on one half of an image and tried on the other.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from skimage import data, segmentation
from torch import Tensor

import fastlogconv
from fastlogconv.cli.demo import segment as coins_of

WAYS = {"no weights, gaps": None, "unet2019, bwf=10": 10.0, "unet2019": 50.0}
NEAR = 3  # pixels: cells at most so far apart are a pair that can be merged


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--stardist", type=Path, help="folder of img2d.tif, mask2d.tif, img3d.tif, mask3d.tif"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--turns", type=int, default=7, help="of the cost")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    if args.quick:
        args.seeds, args.steps, args.turns = 1, 2, 1
    torch.set_num_threads(1)
    image = data.coins()
    images = {"coins": (image, coins_of(image))}
    if args.stardist:
        images["StarDist 2-D"] = _read(args.stardist, "2d")
    for name, (image, labels) in images.items():
        size = 64 if args.quick else 256
        cost(name, image[:size, :size], labels[:size, :size], args.turns)
    if args.stardist:
        image, labels = _read(args.stardist, "3d")
        padding = [(0, -size % 16) for size in image.shape]
        cost("StarDist 3-D", *(np.pad(each, padding, mode="reflect") for each in (image, labels)), args.turns)
    for name, pair in reversed(images.items()):
        effect(name, *pair, args.seeds, args.steps)


def _read(folder: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    import tifffile

    return tifffile.imread(folder / f"img{kind}.tif"), tifffile.imread(folder / f"mask{kind}.tif").astype(
        np.int32
    )


def _normalized(image: np.ndarray) -> Tensor:
    low, high = np.percentile(image, (1, 99.8))
    return torch.from_numpy(((image - low) / (high - low)).astype(np.float32))


# ---------------------------------------------------------------------------------------------------- cost


def cost(name: str, image: np.ndarray, labels: np.ndarray, turns: int) -> None:
    """Prints the CPU time of a step without and with weights, and of the weights alone, medians."""
    from monai.networks.nets import BasicUNet

    dims, batch = image.ndim, 2 if image.ndim == 2 else 1
    torch.manual_seed(0)
    model = BasicUNet(dims, 1, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    inputs = torch.stack([_normalized(image)[None]] * batch)
    ids = torch.stack([torch.from_numpy(labels)] * batch)

    def weigh() -> tuple[Tensor, Tensor]:
        target = (fastlogconv.separate_touching(ids, spatial_dims=dims) > 0).long()
        return target, fastlogconv.weight_map(ids, preset="unet2019", spatial_dims=dims)

    def step(weighted: bool) -> None:
        logits = model(inputs)
        if weighted:
            loss = fastlogconv.weighted_cross_entropy(logits, *weigh())
        else:
            loss = F.cross_entropy(logits, (ids > 0).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    calls = {"plain": lambda: step(False), "weighted": lambda: step(True), "weights": weigh}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for call, function in calls.items():
            started = time.process_time()
            function()
            if turn:  # the first one warms up
                times[call].append(time.process_time() - started)
    plain, weighted, weights = (1e3 * statistics.median(values) for values in times.values())
    cells = len(np.unique(labels)) - 1
    print(
        f"cost, {name}: {batch} x {' x '.join(map(str, image.shape))}, {cells} instances: step {plain:.0f} "
        f"ms, with weights {weighted:.0f} ms; weights and gaps {weights:.2f} ms, {weights / plain:.2%} of it",
        flush=True,
    )


# -------------------------------------------------------------------------------------------------- effect


def effect(name: str, image: np.ndarray, labels: np.ndarray, seeds: int, steps: int) -> None:
    """Prints, for each way, F1 and merged pairs over seeds, either half for the training in each."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    import train_cells

    middle, height = image.shape[1] // 8 * 4, image.shape[0] // 4 * 4
    halves = [np.s_[:height, :middle], np.s_[:height, middle : 2 * middle]]
    scores: dict[str, list[tuple[float, int, int]]] = {way: [] for way in WAYS}
    for seed in range(seeds):
        for way, factor in WAYS.items():
            f1, merged, pairs = [], 0, 0
            for here, there in (halves, halves[::-1]):
                model = _train(image[here], labels[here], factor, steps, seed)
                found = train_cells.segment(model, _normalized(image[there])[None])
                cells = labels[there][None]
                f1.append(train_cells.score(found, cells)["F1"])
                more = _merged(found[0], cells[0])
                merged, pairs = merged + more[0], pairs + more[1]
            scores[way].append((statistics.mean(f1), merged, pairs))
            print(
                f"  {name}, {way}, seed {seed}: F1 {scores[way][-1][0]:.3f}, {merged} of {pairs}", flush=True
            )
    for way, values in scores.items():
        f1, merged, pairs = (np.array(each, float) for each in zip(*values, strict=True))
        spread = np.std(f1, ddof=1) if seeds > 1 else 0
        shares = merged / np.maximum(pairs, 1)
        spread_of_shares = np.std(shares, ddof=1) if seeds > 1 else 0
        print(
            f"effect, {name}, {way}: F1 {f1.mean():.2f} ± {spread:.2f}, merged {shares.mean():.0%} ± "
            f"{spread_of_shares:.0%} of {pairs[0]:.0f} near pairs",
            flush=True,
        )


def _train(image: np.ndarray, labels: np.ndarray, factor: float | None, steps: int, seed: int):
    from train_cells import UNet, fit_batches

    pixels, ids = _normalized(image), torch.from_numpy(np.ascontiguousarray(labels))
    size = min(96, *(side // 4 * 4 for side in image.shape))

    def draw(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        inputs, cells = [], []
        for _ in range(2):
            row, column = (
                int(torch.randint(side - size + 1, (), generator=generator)) for side in image.shape
            )
            turns = int(torch.randint(4, (), generator=generator))
            crop = np.s_[row : row + size, column : column + size]
            inputs.append(pixels[crop].rot90(turns))
            cells.append(ids[crop].rot90(turns))
        return torch.stack(inputs), torch.stack(cells)

    def target_and_weight(cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        target = (fastlogconv.separate_touching(cells) > 0).long()
        if factor is None:
            return target, torch.ones(cells.shape)
        return target, fastlogconv.weight_map(cells, preset="unet2019", bwf=factor)

    return fit_batches(UNet, draw, target_and_weight, steps=steps, seed=seed)


def _merged(found: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """How many pairs of near cells have more than half of each in one object, and how many there are."""
    from train_cells import touching_pairs

    pairs = touching_pairs(segmentation.expand_labels(labels, NEAR / 2))
    overlap = np.zeros((found.max() + 1, labels.max() + 1))
    np.add.at(overlap, (found.ravel(), labels.ravel()), 1)
    area = overlap.sum(0)
    overlap[0] = 0
    owner = (overlap > 0.5 * area).argmax(0)  # 0: none
    return sum(int(owner[a] == owner[b] > 0) for a, b in pairs), len(pairs)


if __name__ == "__main__":
    main()
