"""Makes presets.png: the weights of every preset on touching cells, those of examples/train_cells.py.

    python docs/make_presets_figure.py           # writes docs/presets.png
    python docs/make_presets_figure.py --out DIR --dpi 75

Needs what the demo needs: pip install ".[demo]".
"""

import sys
from pathlib import Path

import numpy as np
from make_walkthrough import DOCS, main

import fastlogconv
from fastlogconv.cli import demo

sys.path.append(str(DOCS.parent / "examples"))
import train_cells

PIECE = np.s_[16:80, 8:88]  # of a tile of 96 x 96 pixels


def make(out: Path, dpi: int) -> list[Path]:
    """Saves the figure in `out`, and returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    images, labels = train_cells.make_cells(np.random.default_rng(0), 1, 96)
    weights = {
        preset: fastlogconv.weight_map(labels, preset=preset)[0].numpy()[PIECE] for preset in demo.CAPTIONS
    }
    figure = demo.draw(images[0].numpy()[PIECE], labels[0].numpy()[PIECE], weights, zoom=8)
    path = out / "presets.png"
    figure.savefig(path, dpi=dpi, pil_kwargs={"optimize": True}, metadata={"Software": None})
    return [path]


if __name__ == "__main__":
    main(make, __doc__, DOCS, 150)
