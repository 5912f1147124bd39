"""What weights do for touching cells: one small U-Net, trained without weights and with those of each preset.

Makes its own images of textured cells that touch, trains on them on the CPU in some minutes, and counts on
others how many cells come out as objects of their own. Needs matplotlib and scipy: pip install ".[demo]".

    python examples/train_cells.py            # three seeds for each way, some ten minutes
    python examples/train_cells.py --quick    # seconds: to see that it runs
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Sequence
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
        f'the example needs {missing.name}: pip install ".[demo]" in the source tree, or '
        '"fastlogconv[demo]", has all that it needs'
    ) from None

PRESETS = ("deepflash2", "deepflash2_logconv", "deepflash2_offline", "unet2015", "unet2019")
WEIGHTS = {
    "no weights": None,
    "no weights, gaps": None,
    **{name: fastlogconv.WeightTransform(preset=name) for name in PRESETS},
    "unet2019, bwf=10": fastlogconv.WeightTransform(preset="unet2019", bwf=10),
}
# Trained with a gap between all cells that touch; the others with deepflash2's ridges, which some pairs lack.
WITH_GAPS = ("no weights, gaps", "unet2019", "unet2019, bwf=10")


def main(argv: list[str] | None = None) -> dict[str, list[dict[str, float]]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, few steps, small images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help="of training, for each seed and each way")
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
    draw(*make_cells(rng, tiles // 2, size), shown, scores, args.out)
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
    image = 0.15 + 0.1 * texture(rng, labels.shape, 16)
    for cell in range(1, size * size // 230 + 1):
        y, x = rng.uniform(0, size, 2)
        long, short, angle = rng.uniform(8, 12), rng.uniform(6, 9), rng.uniform(0, math.pi)
        along = (rows - y) * math.cos(angle) + (columns - x) * math.sin(angle)
        across = (columns - x) * math.cos(angle) - (rows - y) * math.sin(angle)
        distance = np.hypot(along / long, across / short)
        if labels[min(int(y), size - 1), min(int(x), size - 1)] == 0:  # centres lie outside of other cells
            inside = distance < nearest
            labels[inside], nearest[inside] = cell, distance[inside]
            image[inside] = rng.uniform(0.5, 0.7) + 0.12 * texture(rng, labels.shape, 2)[inside]
    image[touching(labels)] -= 0.15
    image = ndimage.gaussian_filter(image, 1) + rng.normal(0, 0.06, image.shape)
    return image.astype(np.float32), labels


def texture(rng: np.random.Generator, shape: tuple[int, ...], sigma: float | Sequence[float]) -> np.ndarray:
    """Smooth noise of standard deviation 1."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), sigma, mode="wrap")
    return noise / noise.std()


def touching(labels: np.ndarray) -> np.ndarray:
    """Where a pixel of a cell touches a pixel of another cell."""
    highest = ndimage.maximum_filter(labels, 3)
    lowest = ndimage.minimum_filter(np.where(labels > 0, labels, labels.max() + 1), 3)
    return (labels > 0) & (highest != lowest)


# ------------------------------------------------------------------------------------------------ training


class UNet(nn.Module):
    """[B, ...] -> logits [B, 2, ...]; a level more than `pools`, which tell by how much sides shrink."""

    def __init__(
        self,
        convolution: type[nn.Module] = nn.Conv2d,
        channels: Sequence[int] = (12, 24, 48),
        pools: Sequence[tuple[int, ...]] = ((2, 2), (2, 2)),
    ) -> None:
        super().__init__()
        self.pools = pools
        self.down = nn.ModuleList([_block(convolution, *each) for each in itertools.pairwise((1, *channels))])
        self.up = nn.ModuleList(
            [_block(convolution, low + up, up) for up, low in reversed(list(itertools.pairwise(channels)))]
        )
        self.out = convolution(channels[0], 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        pool = F.max_pool2d if image.dim() == 3 else F.max_pool3d
        x, skipped = image[:, None], []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else pool(x, self.pools[i - 1]))
            skipped.append(x)
        for block, skip in zip(self.up, skipped[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, skip.shape[2:]), skip], 1))
        return self.out(x)


def _block(convolution: type[nn.Module], inputs: int, outputs: int) -> nn.Sequential:
    layers = []
    for channels in (inputs, outputs):
        layers += [convolution(channels, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def train(name: str, images: Tensor, labels: Tensor, *, steps: int, seed: int) -> UNet:
    """A U-Net that separates cells from background, in one of the ways of `WEIGHTS`."""
    cells = labels if name in WITH_GAPS else torch.stack([with_ridges(label) for label in labels])
    return fit(UNet, images, cells, lambda cell: target_and_weight(name, cell), steps=steps, seed=seed)


def fit(
    make_model: Callable[[], UNet],
    images: Tensor,
    labels: Tensor,
    target_and_weight: Callable[[Tensor], tuple[Tensor, Tensor]],
    *,
    steps: int,
    seed: int,
    batch_size: int = 4,
) -> UNet:
    """A trained network; what it learns, and with which weights, is found from each batch of labels."""

    def draw(generator: torch.Generator) -> tuple[Tensor, ...]:
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        turns = int(torch.randint(4, (), generator=generator))
        return tuple(batch[chosen].rot90(turns, (-2, -1)) for batch in (images, labels))

    return fit_batches(make_model, draw, target_and_weight, steps=steps, seed=seed)


def fit_batches(
    make_model: Callable[[], UNet],
    draw: Callable[[torch.Generator], tuple[Tensor, ...]],
    target_and_weight: Callable[[Tensor], tuple[Tensor, Tensor]],
    *,
    steps: int,
    seed: int,
) -> UNet:
    """The same for batches of images and labels that `draw` makes."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, max(steps, 2))
    for _ in range(steps):
        image, label = draw(generator)
        target, weight = target_and_weight(label)
        loss = fastlogconv.weighted_cross_entropy(model(image), target, weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def target_and_weight(name: str, cells: Tensor) -> tuple[Tensor, Tensor]:
    """What a network learns, int64 0 or 1, and the weight of each pixel. cells: instance labels [B, H, W]."""
    target = fastlogconv.separate_touching(cells) if name in WITH_GAPS else cells
    weights = WEIGHTS[name]
    return (target > 0).long(), torch.ones(cells.shape) if weights is None else weights(cells)


def with_ridges(labels: Tensor) -> Tensor:
    """deepflash2's labels [H, W]: a ridge of background between touching cells, where a closing fills it."""
    foreground = fastlogconv.preprocess_mask(instlabels=labels.numpy())
    return labels * torch.from_numpy(foreground)


# -------------------------------------------------------------------------------------------------- result


@torch.no_grad()
def segment(model: UNet, images: Tensor) -> np.ndarray:
    """The connected components of what the network takes for cells, int, of the shape of the images."""
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
    for axis in range(labels.ndim):
        along = np.moveaxis(labels, axis, 0)
        a, b = along[1:], along[:-1]
        meet = (a != b) & (a > 0) & (b > 0)
        pairs |= set(zip(np.minimum(a, b)[meet].tolist(), np.maximum(a, b)[meet].tolist(), strict=True))
    return pairs


def report(name: str, scores: list[dict[str, float]]) -> None:
    columns = []
    for measure in scores[0]:
        values = [each[measure] for each in scores]
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        columns.append(f"{measure} {np.mean(values):.3f}{spread}")
    print(f"{name:<35} {'   '.join(columns)}", flush=True)


def draw(
    images: Tensor,
    labels: Tensor,
    shown: dict[str, np.ndarray],
    scores: dict[str, list[dict[str, float]]],
    path: Path,
) -> None:
    """The first test image, its cells, the scores of each way, and what its network finds."""
    shuffled = np.random.default_rng(1).permutation(np.linspace(0.1, 0.95, 255))
    colors = np.vstack([[0, 0, 0, 1], matplotlib.colormaps["nipy_spectral"](shuffled)])
    ids = dict(cmap=matplotlib.colors.ListedColormap(colors), vmin=0, vmax=255, interpolation="nearest")
    figure = plt.figure(figsize=(11, 9.2), layout="constrained")
    top, below = figure.subfigures(2, 1, height_ratios=[1, 2])
    axes, axes_below = top.subplots(1, 4), below.subplots(2, 4)
    panels = [("image", images[0], dict(cmap="gray")), ("cells", labels[0], ids)]
    panels += [(f"found: {name}", found, ids) for name, found in shown.items()]
    for ax, (title, panel, look) in zip([*axes[:2], *axes_below.flat], panels, strict=True):
        ax.imshow(panel, **look)
        ax.set_title(title, size=11)
        ax.set_axis_off()
    for ax, measure in zip(axes[2:], ("F1", "merged pairs"), strict=True):
        draw_scores(ax, scores, measure)
    axes[3].set_yticklabels([])  # those of the chart beside it
    figure.savefig(path, dpi=100, pil_kwargs={"optimize": True}, metadata={"Software": None})
    plt.close(figure)


def draw_scores(ax, scores: dict[str, list[dict[str, float]]], measure: str) -> None:
    """A dot for each seed and a bar for the mean, a row for each way."""
    for row, of_way in enumerate(scores.values()):
        values = [each[measure] for each in of_way]
        ax.barh(row, np.mean(values), color="tab:blue", alpha=0.35)
        ax.plot(values, [row] * len(values), ".", color="tab:blue")
    ax.set_yticks(range(len(scores)), labels=scores)
    ax.set_ylim(len(scores) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.set_title(measure, size=11)


if __name__ == "__main__":
    main()
