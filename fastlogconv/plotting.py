"""Seeing masks and weights: needs matplotlib, the extra `fastlogconv[plot]`."""

from __future__ import annotations

import functools

import numpy as np
import torch

from .arrays import plain_array
from .masks import calculate_weights


def show(*arrays, titles=None, colorbar: bool = False, size: float = 4, **imshow):
    """Shows arrays side by side: one row, no axes. In a notebook it is drawn once, with its cell.

    Args:
        arrays: images [H, W] or [H, W, 1], or [H, W, 3 or 4] in colour; NumPy arrays, tensors on any device,
            or what `np.asarray` takes. What a masked array masks is left empty.
        titles: one string for each array; None for no titles.
        colorbar: True draws a colour bar beside each array [H, W].
        size: width of each panel in inches.
        imshow: passed on to matplotlib's `imshow`, such as `cmap`, `vmin`, `vmax`.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: there is no array, one is no image, or there are not as many titles.
    """
    plt = _pyplot()
    if not arrays:
        raise TypeError("show needs at least one array")
    images = [_image(array, f"array {i}") for i, array in enumerate(arrays)]
    titles = [None] * len(images) if titles is None else titles
    if isinstance(titles, str) or len(titles) != len(images):
        raise ValueError(f"titles must hold one string for each of {len(images)} arrays, got {titles!r}")
    highest = max(image.shape[0] / max(image.shape[1], 1) for image in images)
    figsize = (size * len(images), size * min(max(highest, 0.1), 4))
    figure, axes = plt.subplots(1, len(images), figsize=figsize, squeeze=False, layout="constrained")
    for ax, image, title in zip(axes[0], images, titles, strict=True):
        _draw(figure, ax, image, title, colorbar, imshow)
    return _drawn_once(figure, plt)


def plot_weight_parameters(
    mask, fds=(1, 5, 10, 20), bwf=(0, 1, 5, 10), *, log: bool = True, cmap=None, size: float = 2.5, **settings
):
    """The exact weights of a mask for a grid of settings: a row for each `fds`, a column for each `bwf`.

    Args:
        mask: instance labels [H, W], as for `calculate_weights`.
        fds: foreground distance sigmas in pixels.
        bwf: border weight factors.
        log: True for logarithmic colours, which keep the low weights apart. One scale serves all panels.
        cmap: a colour map of matplotlib; None for its default.
        size: width and height of each panel in inches.
        settings: further arguments of `calculate_weights`, such as `bws`, `fbr`, `clabels`.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: a grid without rows or columns, or as for `calculate_weights`.
    """
    plt = _pyplot()
    from matplotlib.colors import LogNorm, Normalize

    fds, bwf = list(fds), list(bwf)
    if not fds or not bwf:
        raise ValueError(f"fds and bwf must hold at least one value each, got {fds} and {bwf}")
    grid = [[calculate_weights(instlabels=mask, fds=f, bwf=b, **settings)[1] for b in bwf] for f in fds]
    smallest = min(weights[weights > 0].min(initial=1) for row in grid for weights in row)
    largest = max(weights.max(initial=1) for row in grid for weights in row)
    norm = (LogNorm if log else Normalize)(smallest, max(largest, 1.01 * smallest))
    figure, axes = plt.subplots(
        len(fds), len(bwf), figsize=(size * len(bwf) + 0.8, size * len(fds)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for i, row in enumerate(grid):
        for j, weights in enumerate(row):
            title = f"fds = {fds[i]:g}, bwf = {bwf[j]:g}"
            drawn = _draw(figure, axes[i][j], weights, title, False, dict(norm=norm, cmap=cmap))
    figure.colorbar(drawn, ax=axes, label="weight", shrink=0.6)
    return _drawn_once(figure, plt)


def _drawn_once(figure, plt):
    """The figure, which a notebook draws with its cell, and closes: not a second time as the cell's value."""
    if "inline" in plt.get_backend():
        figure._ipython_display_ = functools.partial(_display, figure)
    return figure


def _display(figure):
    """Called by IPython, by the end of a cell, too: nothing while a cell runs at whose end it is drawn."""
    from IPython import get_ipython
    from matplotlib._pylab_helpers import Gcf

    running = getattr(getattr(get_ipython(), "displayhook", None), "exec_result", None) is not None
    if not (running and any(manager.canvas.figure is figure for manager in Gcf.get_all_fig_managers())):
        raise NotImplementedError  # IPython goes on to its other ways to display


def _draw(figure, ax, image, title, colorbar, imshow):
    drawn = ax.imshow(image, **{"interpolation": "nearest", **imshow})
    ax.set_axis_off()
    if title is not None:
        ax.set_title(title)
    if colorbar and image.ndim == 2:
        figure.colorbar(drawn, ax=ax, shrink=0.8)
    return drawn


def _image(array, name: str) -> np.ndarray:
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    image = array if isinstance(array, np.ma.MaskedArray) else plain_array(array, name)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.dtype.kind not in "buif":
        raise TypeError(f"{name} must hold numbers, got {image.dtype}")
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ValueError(f"{name} must have the shape [H, W] or [H, W, 3 or 4], got {list(image.shape)}")
    return image.astype(np.float32) if image.dtype == np.float16 else image


def _pyplot():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('plotting needs matplotlib: pip install "fastlogconv[plot]"') from error
    return plt
