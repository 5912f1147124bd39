"""The demo: a photograph of coins, its instances, and their weights in three ways."""

import statistics
import time

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy import ndimage
from skimage import data, filters, measure, segmentation

import fastlogconv
from fastlogconv.backends import BACKENDS
from fastlogconv.settings import BY_PRESET, DEFAULTS

CAPTIONS = {  # by preset
    "deepflash2": "LogConv distances, no ridge where any instance is out of reach",
    "deepflash2_logconv": "LogConv distances, ridges between neighbours",
    "deepflash2_offline": "exact distances, ridges between neighbours, as published",
}
SETTINGS = {name: value for name, value in DEFAULTS.items() if name not in BY_PRESET}


MOST = 10  # the weight at the end of the colours


def run(out):
    """Prints the table and writes OUT/coins.png; returns the exit status."""
    image = data.coins()
    labels = segment(image)
    shape = " x ".join(map(str, labels.shape))
    print(
        f"skimage.data.coins(): {shape} pixels, {labels.max()} instances, {torch.get_num_threads()} threads\n"
    )
    weights = compare(torch.from_numpy(labels))
    draw(image, labels, weights).savefig(out / "coins.png")
    print(f"\nfigure: {out / 'coins.png'}")
    return 0


def segment(image):
    """Instance labels [H, W], int32: the gradient's watershed from what surely is background, surely coin."""
    markers = np.zeros(image.shape, dtype=np.int32)
    markers[image < 30] = 1
    markers[image > 150] = 2
    coins = ndimage.binary_fill_holes(segmentation.watershed(filters.sobel(image), markers) == 2)
    coins = ndimage.binary_opening(coins, iterations=2)  # no specks
    return measure.label(coins).astype(np.int32)


def compare(labels):
    """Prints one line per backend, device and preset; returns the float64 weights by preset."""
    transforms = {preset: fastlogconv.WeightTransform(preset=preset) for preset in CAPTIONS}
    with fastlogconv.use_backend("reference"):
        exact = {preset: transform(labels.double()) for preset, transform in transforms.items()}
    row = "{:<10}  {:<6}  {:<14}  {:>10}  {:>22}"
    print(row.format("backend", "device", "preset", "seconds", "|w - w64| / max(1, w64)"))
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in map(torch.device, devices):
        for backend, module in BACKENDS.items():
            why_not = module.why_not(device)
            if why_not:
                print(f"{backend:<10}  {device.type:<6}  {why_not}")
                continue
            for preset, w64 in exact.items():
                with fastlogconv.use_backend(backend):
                    seconds, weights = timed(transforms[preset], labels.to(device))
                error = ((weights.cpu() - w64).abs() / w64.clamp(min=1)).max().item()
                print(row.format(backend, device.type, preset, f"{seconds:.2g}", f"<= {error:.1e}"))
    return {preset: w64.numpy() for preset, w64 in exact.items()}


def timed(transform, labels):
    """(median seconds of one call, its result): the first call tells how often it is worth repeating."""
    times = []
    while len(times) < 2 or (len(times) < 21 and sum(times) < 1):
        start = time.perf_counter()
        weights = transform(labels)
        if labels.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        if times[0] > 0.5:
            break
    return statistics.median(times[1:] or times), weights


def draw(image, labels, weights, dpi=150, zoom=2):
    """The figure: the image with its instances, and the weights by preset on one colour scale.

    Panels are laid out to the pixel: a zoom by a whole number keeps them sharp and the file small.
    """
    height, width = (zoom * size for size in labels.shape)
    gap, head, caption, bar_height = 24, 124, 76, 28
    total_width, total_height = 2 * width + 3 * gap, head + 2 * height + caption + 130
    figure = Figure(figsize=(total_width / dpi, total_height / dpi), dpi=dpi)

    def axes_at(left, top, width, height):
        box = (
            left / total_width,
            1 - (top + height) / total_height,
            width / total_width,
            height / total_height,
        )
        return figure.add_axes(box)

    def panel(row, column, caption_text, pixels, **how):
        axes = axes_at(gap + column * (width + gap), head + row * (height + caption), width, height)
        axes.set_axis_off()
        axes.set_title(caption_text, size=11)
        return axes, axes.imshow(pixels, interpolation="nearest", **how)

    settings = ", ".join(f"{name}={value:g}" for name, value in SETTINGS.items())
    figure.suptitle(
        f"fastlogconv.WeightTransform(preset=..., {settings})", family="monospace", size=11, y=0.985
    )
    axes, _ = panel(0, 0, f"image with {labels.max()} instances", image, cmap="gray")
    axes.contour(labels > 0, [0.5], colors="tab:orange", linewidths=1.5)

    # From the least background, fbr, over the foreground, 1, to a pixel squeezed between two instances, bwf.
    how = {"cmap": colormaps["magma"].resampled(128), "norm": LogNorm(SETTINGS["fbr"], MOST)}
    for place, (preset, meaning) in enumerate(CAPTIONS.items(), start=1):
        row, column = divmod(place, 2)
        axes, picture = panel(row, column, f'preset="{preset}"\n{meaning}', weights[preset], **how)
        axes.contour(labels > 0, [0.5], colors="white", linewidths=0.7)
    place = axes_at(total_width // 5, total_height - 106, total_width * 3 // 5, bar_height)
    bar = figure.colorbar(picture, cax=place, orientation="horizontal", extend="max")
    bar.set_ticks([0.1, 0.3, 1, 3, 10], labels=["0.1", "0.3", "1", "3", "10"])
    bar.set_label("weight of a pixel in the loss (the outlined foreground: 1)")
    return figure
