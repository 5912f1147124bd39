"""Makes the figures of algorithm.md: each shows what it computes, on made-up labels.

Needs NumPy and matplotlib. What is computed is in algorithm_numpy.py; here it is drawn.

    python docs/make_algorithm_figures.py              # writes docs/algorithm/*.png
    python docs/make_algorithm_figures.py --out DIR --dpi 40
"""

import io
import math
from collections.abc import Callable
from pathlib import Path

import algorithm_numpy as alg
import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image  # matplotlib needs it, too

DOCS = Path(__file__).resolve().parent
DISTANCE_COLOURS, TERM_COLOURS = "viridis_r", "inferno"


# ----------------------------------------------------------------------------------------- how it is drawn


def panels(columns: int, width: float, height: float, rows: int = 1, **options) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1)
    return figure, np.atleast_1d(figure.subplots(rows, columns, **options)).ravel()


def image(axes, values: np.ndarray, title: str, bar: bool = False, **options):
    shown = axes.imshow(values, interpolation="nearest", **options)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title)
    if bar:
        axes.figure.colorbar(shown, ax=axes, shrink=0.8)
    return shown


def labels_image(axes, labels: np.ndarray, title: str, chosen=None) -> None:
    """Each instance in a colour of its own; all but the chosen ones in grey."""
    colours = 0.35 + 0.6 * np.random.default_rng(5).uniform(size=(labels.max() + 1, 3))
    if chosen is not None:
        colours[[i for i in range(1, len(colours)) if i not in chosen]] = 0.45
    colours[0] = 1
    image(axes, labels, title, cmap=ListedColormap(colours), vmin=0, vmax=labels.max())


def frame(axes, rows: slice, columns: slice, colour: str, style: str = "-", line: float = 1.5) -> None:
    size = columns.stop - columns.start, rows.stop - rows.start
    corner = columns.start - 0.5, rows.start - 0.5
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linestyle=style, linewidth=line))


def around() -> Figure:
    """What is looked at around an instance."""
    height, width, radius = 120, 150, 20
    labels = alg.tissue(height, width, 26, seed=4)
    chosen = labels[62, 70]
    box = alg.box_of(labels == chosen)
    near = alg.widened(box, radius, height, width)
    _, d = alg.logconv(labels == chosen, radius=radius)
    figure, axes = panels(3, 9, 2.7)
    labels_image(axes[0], labels, "an instance, its box, a pixel's window", {chosen})
    y, x = near[0].start + 6, near[1].stop - 13
    axes[0].plot(x, y, "x", color="tab:red")
    frame(axes[0], *alg.widened((y, y, x, x), radius, height, width), "tab:red", ":")
    image(axes[1], d, "d: infinite outside of the box widened by reach", bar=True, cmap=DISTANCE_COLOURS)
    for a in axes[:2]:
        frame(a, *alg.widened(box, 0, height, width), "black")
        frame(a, *near, "black", "--")
    boxes = [
        alg.widened(alg.box_of(labels == i), radius, height, width) for i in np.unique(labels[labels > 0])
    ]
    seen = np.zeros(labels.shape, int)
    for b in boxes:
        seen[b] += 1
    title = f"instances that reach a pixel:\n{seen.sum():,} of {len(boxes) * labels.size:,} pairs"
    image(axes[2], seen, title, bar=True, cmap="magma")
    return figure


def terms() -> Figure:
    """Why sums may be cut."""
    figure, axes = panels(2, 9, 3.1)
    steps = np.arange(0, 111)
    slack = 2 * alg.LMBDA * math.log(alg.largest_sum(alg.LMBDA, alg.RADIUS))
    for name, sigma, factor, slacks in [("foreground term", alg.FDS, 1, 1), ("border term", alg.BWS, 50, 2)]:
        exponent = -(np.maximum(steps - slacks * slack, 0) ** 2) / (2 * sigma**2)
        axes[0].plot(steps, (exponent + math.log(factor)) / math.log(2), label=f"{name}")
    for name, epsilon, colour in [("CPU", 2.0**-60, "0.25"), ("GPU, float32", 2.0**-36, "0.55")]:
        limit = alg.limit_of(epsilon)
        axes[0].plot([0, limit, limit], [math.log2(epsilon)] * 2 + [-75], ":", color=colour)
        axes[0].annotate(f"{name}:\nlimit {limit:.1f}", (2, math.log2(epsilon) + 1), color=colour)
    axes[0].axvline(alg.RADIUS, color="tab:red", linewidth=1)
    axes[0].annotate("window's\nradius 36", (alg.RADIUS + 1, -72), color="tab:red")
    axes[0].set(xlabel="steps to the instance's box", ylabel="log2", ylim=(-75, 10), xlim=(0, 110))
    axes[0].set_title("what an instance can still add, at most (defaults)")
    axes[0].legend(loc="upper right")

    lmbda, radius, size = 3.0, 40, 101
    y, x = np.indices((size, size)) - size // 2
    slack = 2 * lmbda * math.log(alg.largest_sum(lmbda, radius))
    shapes = {"one pixel": (y == 0) & (x == 0), "a disk": np.hypot(y, x + 12) <= 12, "a half plane": x <= 0}
    for name, mask in shapes.items():
        _, d = alg.logconv(mask, lmbda, radius)
        axes[1].plot(x[0, size // 2 :], d[size // 2, size // 2 :], ".-", markersize=3, label=name)
    axes[1].plot([0, radius], [-slack, radius - slack], "k--", label="steps - slack")
    axes[1].set(xlabel="steps", ylabel="d", xlim=(0, radius + 1))
    axes[1].set_title(f"no d is below steps - slack (lmbda = {lmbda:g}, slack {slack:.1f})")
    axes[1].legend(loc="upper left")
    return figure


def convolution() -> Figure:
    """LogConv: rows, then columns; outside the box d grows by one per step."""
    lmbda, radius, size, margin = 2.0, 16, 24, 18
    mask = np.pad(alg.hook(size), margin)
    rows, d = alg.logconv(mask, lmbda, radius)
    box = alg.box_of(mask)
    figure, axes = panels(4, 10, 2.7, width_ratios=[0.8, 1, 1, 1.25])
    image(axes[0], mask, "an instance", cmap="gray_r", vmax=2)
    with np.errstate(divide="ignore"):
        image(axes[1], np.log2(rows), "sums along rows (log2)", bar=True, cmap="viridis")
    image(axes[2], d, "then along columns: d", bar=True, cmap=DISTANCE_COLOURS)
    for a in axes[:3]:
        frame(a, *alg.widened(box, 0, *mask.shape), "black", line=1)
    k = np.arange(radius + 1)
    for column, colour in [(box[2] + 3, "tab:blue"), (box[3] - 2, "tab:orange")]:
        sums = np.cumsum(rows[box[0] :, column] * np.exp(-np.arange(len(rows) - box[0]) / lmbda))
        prefix = [k_ - lmbda * np.log(sums[radius - k_]) for k_ in k[1:]]  # the first radius + 1 - k rows
        axes[3].plot(k, d[box[0] - k, column] - k, "o", color=colour, markersize=4, mfc="none")
        name = f"column {column - box[2]} of the box"
        axes[3].plot(k[1:], prefix - k[1:], ".", color=colour, markersize=3, label=name)
        axes[2].plot([column] * 2, [box[0] - radius, box[0]], color=colour, linewidth=1)
    axes[3].set(xlabel="k rows above the box", ylabel="d - k")
    axes[3].set_title("d - k (circles); so by prefix sums (dots)")
    axes[3].legend()
    return figure


def panel() -> Figure:
    """The CPU's way: runs, a panel of columns, prefix rows."""
    lmbda, radius = 1.5, 24
    mask = np.pad(alg.hook(40), ((26, 26), (34, 34)))
    top, bottom, left, right = alg.box_of(mask)
    near = alg.widened((top, bottom, left, right), radius, *mask.shape)
    begin = near[1].start // alg.CHUNK * alg.CHUNK
    figure, axes = panels(3, 10, 3.0, width_ratios=[1.25, 1, 1])
    starts = np.diff(mask.astype(int), axis=1, prepend=0) == 1
    runs = np.where(mask, np.cumsum(starts.ravel()).reshape(mask.shape) % 7 + 1, 0)
    labels_image(axes[0], runs, f"{starts.sum()} runs; chunks of 16 columns of a panel")
    frame(axes[0], slice(top, bottom + 1), slice(left, right + 1), "black")
    frame(axes[0], *near, "black", "--")
    for x in range(begin, near[1].stop, alg.CHUNK):
        beside = x + alg.CHUNK <= left or x > right
        chunk = slice(x, min(x + alg.CHUNK, near[1].stop))
        frame(axes[0], near[0], chunk, "tab:green" if beside else "tab:red", line=0.8)
    rows, d = alg.logconv(mask, lmbda, radius)
    m = np.arange(min(bottom - top + 1, radius))
    columns = {"beside the box": left - 9, "across it": (left + right) // 2, "in the mouth": right - 2}
    tolerance = np.clip(2e-7 * 10 / lmbda, 2.0**-22, 2.0**-12)
    for (name, x), colour in zip(columns.items(), ["tab:blue", "tab:orange", "tab:purple"], strict=True):
        prefix = np.cumsum(rows[top : top + len(m), x] * np.exp(-m / lmbda))
        with np.errstate(divide="ignore"):
            above = -lmbda * np.log(prefix)
        settled = np.flatnonzero(prefix * (1 + tolerance) >= prefix[-1])[0]
        axes[1].plot(m, above, ".-", color=colour, markersize=3, label=name)
        axes[1].plot(settled, above[settled], "o", color=colour, mfc="none")
        k = np.arange(1, radius + 1)
        d_above = np.where(radius - k >= settled, above[settled], above[np.minimum(radius - k, m[-1])]) + k
        axes[2].plot(k, d_above, "-", color=colour)
        axes[2].plot(k, d[top - k, x], ".", color=colour)
        axes[0].plot([x] * 2, [near[0].start, top], color=colour, linewidth=1.2)
    axes[1].set(xlabel="m")
    axes[1].set_title("above[m]: d at row 0 of rows 0..m\n(circle: settled)")
    axes[1].legend()
    axes[2].set(xlabel="k rows above the box")
    axes[2].set_title("k + above[radius - k] (lines),\nd by the whole sums (dots)")
    return figure


def cells() -> Figure:
    """What a cell list holds."""
    labels = alg.tissue(128, 160, 40, seed=3)
    cell_y, cell_x = 1, 2
    cell = labels[cell_y * alg.CELL :, cell_x * alg.CELL :][: alg.CELL, : alg.CELL]
    figure, axes = panels(3, 10, 3.1, width_ratios=[1.15, 0.95, 1.3])
    labels_image(axes[0], labels, "entries of each cell of 32 x 32 pixels")
    for y in range(0, labels.shape[0], alg.CELL):
        for x in range(0, labels.shape[1], alg.CELL):
            frame(axes[0], slice(y, y + alg.CELL), slice(x, x + alg.CELL), "0.5", line=0.7)
            count = len(np.unique(labels[y : y + alg.CELL, x : x + alg.CELL])) - 1
            axes[0].text(x + 2, y + 2, count, va="top", fontsize=8, weight="bold")
    frame(axes[0], *[slice(i * alg.CELL, (i + 1) * alg.CELL) for i in (cell_y, cell_x)], "tab:red")
    everywhere = np.where(labels > 0, labels, 0)
    everywhere[: alg.CELL, : alg.CELL] = cell
    labels_image(axes[1], everywhere, "the cell in red, and its entries' boxes")
    axes[1].set(xlim=(-0.5, alg.CELL - 0.5), ylim=(alg.CELL - 0.5, -0.5))
    listed = alg.entries_of(cell)
    lines = ["id   box (y, x)       row_set   word"]
    for entry in listed:
        top, bottom, left, right = entry["box"]
        frame(axes[1], slice(top, bottom + 1), slice(left, right + 1), "black", line=1)
        box = f"{top:>2}..{bottom:<2} {left:>2}..{right:<2}"
        lines.append(f"{entry['id']:<3}  {box}   {entry['row_set']:08x}  {entry['first_word']:>3}")
    lines += ["", f"words (of {sum(len(e['words']) for e in listed)}), leftmost pixel = bit 0:"]
    for number, word in enumerate(listed[0]["words"][:10]):
        lines.append(f"{number:>3}  " + f"{word:032b}"[::-1].replace("0", "."))
    axes[2].axis("off")
    axes[2].text(0, 0.98, "\n".join(lines), family="monospace", fontsize=9, va="top")
    return figure


def tile() -> Figure:
    """How a tile is weighed."""
    labels = alg.tissue(256, 224, 95, seed=8)
    y0, x0 = 96, 96
    window = alg.widened((y0, y0 + alg.TILE_H - 1, x0, x0 + alg.TILE_W - 1), alg.RADIUS, *labels.shape)
    met = [slice(s.start // alg.CELL * alg.CELL, -(-s.stop // alg.CELL) * alg.CELL) for s in window]
    candidates = np.unique(labels[window][labels[window] > 0])
    table, near = [], np.full((alg.TILE_H, alg.TILE_W), np.inf)
    for id_ in candidates:
        shown = np.zeros(labels.shape, bool)
        shown[window] = labels[window] == id_
        top, bottom, left, right = alg.box_of(shown)
        rows, d = alg.logconv(shown)
        x = np.arange(x0, x0 + alg.TILE_W)
        away = np.maximum(np.maximum(left - x, x - right), 0)
        with np.errstate(divide="ignore"):
            table.append(
                np.log2(rows[top : bottom + 1, x0 : x0 + alg.TILE_W]) + away / alg.LMBDA / math.log(2)
            )
        near = np.minimum(near, d[y0 : y0 + alg.TILE_H, x0 : x0 + alg.TILE_W])
    ends = np.cumsum([len(rows) for rows in table[: alg.CANDIDATES]])
    batch = int(np.searchsorted(ends, alg.TABLE_ROWS, side="right"))
    figure = Figure(figsize=(10, 3.3), layout="constrained")
    axes = figure.subplot_mosaic("abc", width_ratios=[1, 1.75, 0.55])
    title = f"a tile, its {met[0].stop // alg.CELL - met[0].start // alg.CELL} x "
    title += (
        f"{met[1].stop // alg.CELL - met[1].start // alg.CELL} cells,\n{len(candidates)} candidates in colour"
    )
    labels_image(axes["a"], labels, title, set(candidates))
    frame(axes["a"], *met, "tab:green")
    frame(axes["a"], *window, "black", ":")
    frame(axes["a"], slice(y0, y0 + alg.TILE_H), slice(x0, x0 + alg.TILE_W), "tab:red")
    shown = np.vstack(table[:batch])
    title = f"table of row sums (log2), batch 1: {batch} candidates,\n{len(shown)} of {alg.TABLE_ROWS} rows; "
    title += "each column here is a row of an instance"
    image(axes["b"], shown.T, title, cmap="viridis", aspect="auto")
    axes["b"].set_ylabel("32 columns of the tile")
    for end in ends[: batch - 1]:
        axes["b"].axvline(end - 0.5, color="white", linewidth=1)
    image(axes["c"], near, "nearest d,\n8 strips", bar=True, cmap=DISTANCE_COLOURS)
    for y in range(0, alg.TILE_H, alg.STRIP_H):
        frame(axes["c"], slice(y, y + alg.STRIP_H), slice(0, alg.TILE_W), "black", line=0.7)
    return figure


def ways() -> Figure:
    """Where scaled sums end and logarithms begin."""
    figure, axes = panels(3, 10, 3.1, width_ratios=[1.1, 1, 1])
    steps = np.arange(1, 401)
    for lmbda in (0.1, 0.35, 1.0, 3.0):
        axes[0].plot(steps, steps / lmbda / math.log(2), label=f"lmbda {lmbda:g}")
    ranges = [("float32: 125", 125), ("SINGLE: 235", 235), ("DOUBLE: 1812", 1812)]
    for name, bits in ranges:
        axes[0].axhline(bits, color="0.4", linestyle=":", linewidth=1)
        axes[0].text(1.1, bits * 1.07, name, color="0.3")
    axes[0].set(xscale="log", yscale="log", xlabel="steps", ylim=(5, 6000), xlim=(1, 400))
    axes[0].set_title("bits that a sum loses")
    axes[0].legend(loc="lower right")
    lmbdas, radii = np.geomspace(0.05, 20, 70), np.unique(np.geomspace(2, 300, 70).astype(int))
    maps: list[tuple[str, Callable[[float, int], str]]] = [
        ("CUDA, sigmas 10", alg.gpu_way),
        (
            "CPU, an instance of 60 x 60 with holes",
            lambda lmbda, radius: alg.cpu_arithmetic(lmbda, radius, 60),
        ),
    ]
    for a, (title, find) in zip(axes[1:], maps, strict=True):
        found = np.array([[find(lmbda, radius) for lmbda in lmbdas] for radius in radii])
        names = [n for n in ("SCALED", "MIXED", "LOGARITHMIC, float64", "SINGLE", "DOUBLE", "LOGARITHMIC")
                 if (found == n).any()]  # fmt: skip
        codes = np.array([names.index(n) for n in found.ravel()]).reshape(found.shape)
        colours = ["#9ecae1", "#fdd0a2", "#c994c7"][: len(names)]
        a.pcolormesh(lmbdas, radii, codes, cmap=ListedColormap(colours), vmin=0, vmax=len(names) - 1)
        a.set(xscale="log", yscale="log", xlabel="lmbda", ylabel="window's radius")
        for colour, name in zip(colours, names, strict=True):
            a.plot([], [], "s", color=colour, label=name)
        a.plot(alg.LMBDA, alg.RADIUS, "k+", label="the defaults")
        a.legend(loc="lower right", fontsize=7)
        a.set_title(title)
    return figure


def exact() -> Figure:
    """How exact distances are found."""
    mask = np.pad(alg.hook(26), ((14, 12), (14, 14)))
    top, bottom, left, right = alg.box_of(mask)
    g = alg.along_columns(mask)[:, left : right + 1]
    by_row = alg.along_columns(mask.T).T ** 2
    x = np.arange(mask.shape[1])
    squares = np.min((x[None, :, None] - np.arange(left, right + 1)) ** 2 + g[:, None, :] ** 2, axis=-1)
    y = np.arange(len(mask))[:, None]
    from_rows = np.min((y - np.arange(top, bottom + 1)) ** 2 + by_row[top : bottom + 1].T[:, None], axis=-1)
    assert np.array_equal(squares, from_rows.T)  # both ways give the same whole numbers
    figure, axes = panels(4, 10, 2.8, width_ratios=[0.8, 1, 1, 1.3])
    columns_only = np.full(mask.shape, np.inf)
    columns_only[:, left : right + 1] = g
    image(axes[0], columns_only, "CPU: g, to the nearest\npixel of each column", cmap=DISTANCE_COLOURS)
    rows_only = np.full(mask.shape, np.inf)
    rows_only[top : bottom + 1] = np.sqrt(by_row[top : bottom + 1])
    image(axes[1], rows_only, "GPU: dx, to the nearest\npixel of each row", cmap=DISTANCE_COLOURS)
    image(axes[2], np.sqrt(squares), "both: d", bar=True, cmap=DISTANCE_COLOURS)
    for a in axes[:3]:
        a.contour(mask, [0.5], colors="black", linewidths=0.8)
    y = top + 3
    axes[2].axhline(y, color="tab:red", linewidth=1)
    for c in range(left, right + 1):
        axes[3].plot(x, (x - c) ** 2 + g[y, c - left] ** 2, color="0.8", linewidth=0.7)
    axes[3].plot(x, squares[y], ".-", color="tab:red", markersize=3)
    axes[3].set(ylim=(-8, 300), xlabel="x")
    axes[3].set_title("in the red row: (x - c)^2 + g^2\nof each column c, and the least")
    return figure


def compose() -> Figure:
    """Accumulate and compose."""
    labels = alg.tissue(96, 128, 12, seed=21)
    ids = np.unique(labels[labels > 0])
    d = np.sort([alg.logconv(labels == i)[1] for i in ids], axis=0)
    near, second, far = d[0], d[1], d[-1]
    fd = np.exp(-(d**2) / (2 * alg.FDS**2)).sum(axis=0)
    border = np.exp(-((near + second) ** 2) / (2 * alg.BWS**2))
    weights = np.where(labels > 0, 1, alg.FBR + (1 - alg.FBR) * fd + alg.BWF * border)
    reached = np.isfinite(d).sum(axis=0)
    figure, axes = panels(3, 9.5, 4.4, rows=2)
    image(axes[0], near, "near", bar=True, cmap=DISTANCE_COLOURS)
    image(axes[1], second, "second", bar=True, cmap=DISTANCE_COLOURS)
    everywhere = f"far is finite in {np.isfinite(far).mean():.0%} of the pixels"
    image(axes[2], reached, f"instances in reach, of {len(ids)}:\n{everywhere}", bar=True, cmap="magma")
    off = np.where(labels > 0, np.nan, 1)
    image(axes[3], fd * off, "fd", bar=True, cmap=TERM_COLOURS)
    image(axes[4], border * off, "border, second_nearest", bar=True, cmap=TERM_COLOURS)
    image(axes[5], weights, "weight", bar=True, cmap=TERM_COLOURS)
    return figure


FIGURES = (around, terms, convolution, panel, cells, tile, ways, exact, compose)


def save(figure: Figure, path: Path, dpi: int) -> None:
    """As a PNG of few colours, which is a third of the size."""
    whole = io.BytesIO()
    figure.savefig(whole, dpi=dpi, format="png")
    picture = Image.open(whole).convert("RGB").quantize(224, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def make(out: Path, dpi: int) -> list[Path]:
    """Writes the figures below `out`, and returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context({"font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7}):
        for draw in FIGURES:
            path = out / f"{draw.__name__}.png"
            save(draw(), path, dpi)
            written.append(path)
    return written


if __name__ == "__main__":
    from make_walkthrough import main

    main(make, __doc__, DOCS / "algorithm", 120)
