"""What weights do for touching cells: one small U-Net, trained without weights and with two kinds of them.

Makes its own images of textured cells that touch, trains on them on the CPU in a few minutes, and counts on
others how many cells come out as objects of their own. Needs matplotlib and scipy: pip install ".[demo]".

    python examples/train_cells.py            # three seeds for each way, a few minutes
    python examples/train_cells.py --quick    # seconds: to see that it runs
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

try:
    import matplotlib
    from scipy import ndimage

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    import fastlogconv
except ModuleNotFoundError as missing:
    raise SystemExit(
        f'train_cells.py needs {missing.name}: pip install ".[demo]" in the source tree, or '
        '"fastlogconv[demo]", has all that it needs'
    ) from None

WEIGHTS = {
    "no weights": lambda cells: torch.ones(cells.shape),
    "deepflash2": fastlogconv.WeightTransform(preset="deepflash2"),
    "U-Net": fastlogconv.WeightTransform(preset="deepflash2_logconv"),
}


def main(argv: list[str] | None = None) -> dict[str, list[dict[str, float]]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, few steps, small images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250, help="of training, for each seed and each way")
    parser.add_argument("--out", type=Path, default=Path("train_cells.png"), help="the figure")
    args = parser.parse_args(argv)
    try:  # before minutes of training
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.open("ab").close()
    except OSError as problem:
        parser.error(f"--out {args.out} cannot be written: {problem.strerror}")
    size, tiles = 96, 64
    if args.quick:
        args.seeds, args.steps, size, tiles = 1, 4, 48, 8

    scores, shown = {name: [] for name in WEIGHTS}, {}
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        training, test = make_cells(rng, tiles, size), make_cells(rng, tiles // 2, size)
        for name in WEIGHTS:
            started = time.perf_counter()
            model = train(name, *training, steps=args.steps, seed=seed)
            found = segment(model, test[0])
            scores[name].append(score(found, test[1].numpy()))
            shown.setdefault(name, found[0])
            report(f"{name}, seed {seed} ({time.perf_counter() - started:.0f} s)", scores[name][-1:])
    print(f"\nMean over {args.seeds} seeds, and the spread (standard deviation)")
    for name in WEIGHTS:
        report(name, scores[name])
    rng = np.random.default_rng(0)
    make_cells(rng, tiles, size)
    draw(*make_cells(rng, tiles // 2, size), shown, args.out)
    print(f"Figure: {args.out}")
    return scores


# ---------------------------------------------------------------------------------------------------- data


def make_cells(rng: np.random.Generator, n: int, size: int) -> tuple[Tensor, Tensor]:
    """Images [n, H, W] of cells, and instance labels [n, H, W], where touching cells have no gap."""
    images, labels = zip(*(_make_tile(rng, size) for _ in range(n)), strict=True)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


def _make_tile(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices((size, size))
    labels, nearest = np.zeros((size, size), np.int32), np.ones((size, size))
    image = 0.15 + 0.1 * _texture(rng, size, 16)
    for cell in range(1, size * size // 230 + 1):
        y, x = rng.uniform(0, size, 2)
        long, short, angle = rng.uniform(8, 12), rng.uniform(6, 9), rng.uniform(0, math.pi)
        along = (rows - y) * math.cos(angle) + (columns - x) * math.sin(angle)
        across = (columns - x) * math.cos(angle) - (rows - y) * math.sin(angle)
        distance = np.hypot(along / long, across / short)
        if labels[min(int(y), size - 1), min(int(x), size - 1)] == 0:  # centres lie outside of other cells
            inside = distance < nearest
            labels[inside], nearest[inside] = cell, distance[inside]
            image[inside] = rng.uniform(0.5, 0.7) + 0.12 * _texture(rng, size, 2)[inside]
    image[touching(labels)] -= 0.15
    image = ndimage.gaussian_filter(image, 1) + rng.normal(0, 0.06, image.shape)
    return image.astype(np.float32), labels


def _texture(rng: np.random.Generator, size: int, sigma: float) -> np.ndarray:
    """Smooth noise of standard deviation 1."""
    noise = ndimage.gaussian_filter(rng.normal(size=(size, size)), sigma, mode="wrap")
    return noise / noise.std()


def touching(labels: np.ndarray) -> np.ndarray:
    """Where a pixel of a cell touches a pixel of another cell."""
    highest = ndimage.maximum_filter(labels, 3)
    lowest = ndimage.minimum_filter(np.where(labels > 0, labels, labels.max() + 1), 3)
    return (labels > 0) & (highest != lowest)


# ------------------------------------------------------------------------------------------------ training


class UNet(nn.Module):
    """Three levels, 12 to 48 channels. [B, H, W], multiples of 4 -> logits [B, 2, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([_block(1, 12), _block(12, 24), _block(24, 48)])
        self.up = nn.ModuleList([_block(48 + 24, 24), _block(24 + 12, 12)])
        self.out = nn.Conv2d(12, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x, skipped = image[:, None], []
        for block in self.down:
            x = block(x if not skipped else F.max_pool2d(x, 2))
            skipped.append(x)
        for block, skip in zip(self.up, skipped[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), skip], 1))
        return self.out(x)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def train(name: str, images: Tensor, labels: Tensor, *, steps: int, seed: int) -> UNet:
    """A U-Net that separates cells from background, with one kind of weights.

    Touching cells get a background ridge between them, the target that a network can learn to cut along.
    """
    cells = torch.stack([_with_ridges(label) for label in labels])
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = UNet()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (4,), generator=generator)
        turns = int(torch.randint(4, (), generator=generator))
        image, cell = (batch[chosen].rot90(turns, (1, 2)) for batch in (images, cells))
        weight = WEIGHTS[name](cell)  # of the augmented labels
        loss = fastlogconv.weighted_cross_entropy(model(image), (cell > 0).long(), weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def _with_ridges(labels: Tensor) -> Tensor:
    foreground = fastlogconv.preprocess_mask(instlabels=labels.numpy())
    return labels * torch.from_numpy(foreground)


# -------------------------------------------------------------------------------------------------- result


@torch.no_grad()
def segment(model: UNet, images: Tensor) -> np.ndarray:
    """The connected components of what the network takes for cells, int [n, H, W]."""
    return np.stack([ndimage.label(classes)[0] for classes in model(images).argmax(1).numpy()])


def score(found: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The objects' F1 at an intersection over union of 0.5, and the share of touching pairs that were merged.

    A pair is merged where one object covers more than half of both of its cells.
    """
    matched = objects = cells = merged = pairs = 0
    for object_of, cell_of in zip(found, labels, strict=True):
        overlap = np.zeros((object_of.max() + 1, cell_of.max() + 1))
        np.add.at(overlap, (object_of.ravel(), cell_of.ravel()), 1)
        object_area, cell_area = overlap.sum(1), overlap.sum(0)
        union = object_area[1:, None] + cell_area[None, 1:] - overlap[1:, 1:]
        matched += (overlap[1:, 1:] > 0.5 * union).sum()
        objects, cells = objects + (object_area[1:] > 0).sum(), cells + (cell_area[1:] > 0).sum()
        covered = np.vstack([np.zeros(len(cell_area)), overlap[1:]]) > 0.5 * cell_area
        owner = covered.argmax(0)  # 0: none
        for a, b in touching_pairs(cell_of):
            pairs, merged = pairs + 1, merged + (owner[a] == owner[b] > 0)
    return {"F1": 2 * matched / max(objects + cells, 1), "merged pairs": merged / max(pairs, 1)}


def touching_pairs(labels: np.ndarray) -> set[tuple[int, int]]:
    """The ids of every two cells that have neighbouring pixels."""
    pairs = set()
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        meet = (a != b) & (a > 0) & (b > 0)
        pairs |= set(zip(np.minimum(a, b)[meet].tolist(), np.maximum(a, b)[meet].tolist(), strict=True))
    return pairs


def report(name: str, scores: list[dict[str, float]]) -> None:
    columns = []
    for measure in scores[0]:
        values = [each[measure] for each in scores]
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        columns.append(f"{measure} {np.mean(values):.3f}{spread}")
    print(f"{name:<26} {'   '.join(columns)}", flush=True)


def draw(images: Tensor, labels: Tensor, shown: dict[str, np.ndarray], path: Path) -> None:
    """The first test image, its cells, their U-Net weights, and what each network makes of it."""
    shuffled = np.random.default_rng(1).permutation(np.linspace(0.1, 0.95, 255))
    colors = np.vstack([[0, 0, 0, 1], matplotlib.colormaps["nipy_spectral"](shuffled)])
    colors = matplotlib.colors.ListedColormap(colors)
    figure, axes = plt.subplots(2, 3, figsize=(9, 6.3), layout="constrained")
    panels = [
        ("image", images[0], dict(cmap="gray")),
        ("cells", labels[0], dict(cmap=colors, vmin=0, vmax=255, interpolation="nearest")),
        ("U-Net weights", WEIGHTS["U-Net"](_with_ridges(labels[0])), dict(cmap="viridis")),
    ]
    panels += [(f"found: {name}", found, panels[1][2]) for name, found in shown.items()]
    for ax, (title, panel, look) in zip(axes.flat, panels, strict=True):
        ax.imshow(panel, **look)
        ax.set_title(title)
        ax.set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
