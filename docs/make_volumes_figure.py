"""Makes volumes.png: touching cells in a volume, those of examples/train_volumes.py, and their weights.

    python docs/make_volumes_figure.py           # writes docs/volumes.png
    python docs/make_volumes_figure.py --out DIR --dpi 50

Needs what the demo needs: pip install ".[demo]".
"""

import sys
from pathlib import Path

import numpy as np
from make_walkthrough import DOCS, main
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

import fastlogconv

sys.path.append(str(DOCS.parent / "examples"))
import train_volumes

SHAPE = (12, 64, 80)
SLICES = (4, 5, 6)
ROW = 30  # of the section from slice to slice
PRESETS = ("unet2019", "unet2015", "deepflash2_offline")  # those with exact distances


def make(out: Path, dpi: int) -> list[Path]:
    """Saves the figure in `out`, and returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    images, labels = train_volumes.make_volumes(np.random.default_rng(3), 1, SHAPE)
    spacing = train_volumes.SPACING
    weights = [
        fastlogconv.weight_map(labels[0], preset=preset, spatial_dims=3, spacing=spacing).numpy()
        for preset in PRESETS
    ]
    figure = draw(images[0].numpy(), labels[0].numpy(), weights, spacing[0] / spacing[1])
    path = out / "volumes.png"
    figure.savefig(path, dpi=dpi, pil_kwargs={"optimize": True}, metadata={"Software": None})
    return [path]


def draw(image: np.ndarray, labels: np.ndarray, weights: list[np.ndarray], coarse: float) -> Figure:
    """A row for the image and for each preset: three slices, a section, and the maximum of all slices."""
    figure = Figure(figsize=(11, 7.1), layout="constrained")
    axes = figure.subplots(1 + len(weights), len(SLICES) + 2)
    views = [f"slice {z} of {len(image)}" for z in SLICES]
    views += [f"row {ROW}: a section", "maximum of all slices"]
    look = {"cmap": colormaps["magma"].resampled(64), "norm": LogNorm(0.1, 50)}
    rows = [("image, outlines", image, {"cmap": "gray"})]
    rows += [(preset, each, look) for preset, each in zip(PRESETS, weights, strict=True)]
    for ax, view in zip(axes[0], views, strict=True):
        ax.set_title(view, size=9)
    for row, (name, volume, how) in zip(axes, rows, strict=True):
        row[0].set_ylabel(name, size=9)
        for ax, view, plane, cells in zip(row, views, *map(views_of, (volume, labels)), strict=True):
            section = view.startswith("row")
            drawn = ax.imshow(plane, aspect=coarse if section else 1, interpolation="nearest", **how)
            if not view.startswith("maximum"):
                for cell in np.unique(cells[cells > 0]):
                    colour = "tab:orange" if volume is image else "white"
                    ax.contour(cells == cell, [0.5], colors=colour, linewidths=0.6)
            ax.set_xticks([])
            ax.set_yticks([])
    ticks = [0.1, 0.3, 1, 3, 10, 30]
    bar = figure.colorbar(drawn, ax=axes[1:], shrink=0.6, extend="max")
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.set_label("weight of a voxel in the loss")
    return figure


def views_of(volume: np.ndarray) -> list[np.ndarray]:
    return [*(volume[z] for z in SLICES), volume[:, ROW], volume.max(0)]


if __name__ == "__main__":
    main(make, __doc__, DOCS, 100)
