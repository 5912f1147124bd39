"""The demo: a photograph of coins, its instances, and their weights by each preset."""

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
from fastlogconv import backends, ops
from fastlogconv.settings import DEFAULTS, PRESETS

CAPTIONS = {  # by preset: whose weights these are
    "unet2019": "Falk et al. 2019, the authors' Fiji plugin",
    "unet2015": "Ronneberger et al. 2015, with its class balance",
    "deepflash2_offline": "deepflash2's calculate_weights, exact distances",
    "deepflash2_logconv": "ours: the same with LogConv distances",
    "deepflash2": "deepflash2's real-time transform",
}
LEAST, MOST = DEFAULTS["fbr"], PRESETS["unet2019"]["bwf"]  # the weights at the ends of the colours


def run(out):
    """Prints the table and writes OUT/coins.png; returns the exit status."""
    image = data.coins()
    labels = segment(image)
    shape = " x ".join(map(str, labels.shape))
    print(
        f"skimage.data.coins(): {shape} pixels, {labels.max()} instances, {torch.get_num_threads()} threads\n"
    )
    weights = compare(torch.from_numpy(labels))
    draw(image, labels, weights).savefig(out / "coins.png", pil_kwargs={"optimize": True})
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
    features = {preset: ops._features(transform.settings, None) for preset, transform in transforms.items()}
    with fastlogconv.use_backend("reference"):
        exact = {preset: transform(labels.double()) for preset, transform in transforms.items()}
    row = "{:<10}  {:<6}  {:<18}  {:>10}  {:>22}"
    print(row.format("backend", "device", "preset", "seconds", "|w - w64| / max(1, w64)"))
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in map(torch.device, devices):
        for backend, module in backends.BACKENDS.items():
            why_not = backends.why_not(module, device)
            if why_not:
                print(f"{backend:<10}  {device.type:<6}  {why_not}")
                continue
            for preset, w64 in exact.items():
                why_not = backends.why_not(module, device, features[preset])
                if why_not:
                    print(f"{backend:<10}  {device.type:<6}  {preset:<18}  {why_not}")
                    continue
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


def draw(image, labels, weights, zoom=2, dpi=150):
    """The figure: the image with its instances, and the weights by preset on one colour scale.

    Panels are laid out to the pixel: a zoom by a whole number keeps them sharp and the file small.
    """
    height, width = (zoom * size for size in labels.shape)
    gap, head, caption, bar_height, columns = 24, 136, 76, 28, 2
    rows = -(-(1 + len(weights)) // columns)
    total_width = columns * width + (columns + 1) * gap
    total_height = head + rows * height + (rows - 1) * caption + 130
    figure = Figure(figsize=(total_width / dpi, total_height / dpi), dpi=dpi)

    def axes_at(left, top, width, height):
        box = (
            left / total_width,
            1 - (top + height) / total_height,
            width / total_width,
            height / total_height,
        )
        return figure.add_axes(box)

    def panel(place, caption_text, pixels, colour, **how):
        row, column = divmod(place, columns)
        axes = axes_at(gap + column * (width + gap), head + row * (height + caption), width, height)
        axes.set_axis_off()
        axes.set_title(caption_text, size=11)
        picture = axes.imshow(pixels, interpolation="nearest", **how)
        for instance in np.unique(labels[labels > 0]):
            axes.contour(labels == instance, [0.5], colors=colour, linewidths=0.8)
        return picture

    figure.suptitle("fastlogconv.weight_map(labels, preset=...)", family="monospace", size=12, y=0.985)
    panel(0, f"image with {len(np.unique(labels[labels > 0]))} instances", image, "tab:orange", cmap="gray")
    how = {"cmap": colormaps["magma"].resampled(64), "norm": LogNorm(LEAST, MOST)}
    for place, (preset, pixels) in enumerate(weights.items(), start=1):
        picture = panel(place, f'preset="{preset}"\n{CAPTIONS[preset]}', pixels, "white", **how)
    place = axes_at(total_width // 5, total_height - 106, total_width * 3 // 5, bar_height)
    bar = figure.colorbar(picture, cax=place, orientation="horizontal", extend="max")
    ticks = [0.1, 0.3, 1, 3, 10, 30]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.set_label("weight of a pixel in the loss (outlines: the instances)")
    return figure
