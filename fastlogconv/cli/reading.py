"""Label image files: what is taken of them for ids, and in words what is refused."""

import contextlib
import dataclasses
import logging
from typing import NamedTuple

import numpy as np

from fastlogconv.arrays import plain_array
from fastlogconv.cli.grids import Grid, arranged, grid_of
from fastlogconv.masks import check_half, ids_from_colours

NEEDS = {".tif": "tifffile", ".tiff": "tifffile", ".png": "PIL", ".npy": None}  # modules, by suffix
SHAPES = {2: "[H, W] and [B, H, W]", 3: "[D, H, W] and [B, D, H, W]"}


class Source(NamedTuple):
    """What a file holds. `grid` is None where it names no axes."""

    labels: np.ndarray
    grid: Grid | None = None


def read_labels(path, colour_ids=False, spatial_dims=None):
    """The instance labels [H, W] or [B, H, W] of a file, those of an .npy perhaps with one channel behind.

    In the machine's byte order, floats as float64. `colour_ids`: pictures in colour hold 24-bit ids.
    `spatial_dims`: 3 for [D, H, W] or [B, D, H, W]; None for images, but no stack of slices.
    """
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    dims = spatial_dims or 2
    read, grid = READERS[path.suffix.lower()](path, colour_ids, spatial_dims)
    labels = plain_array(read, "labels")
    if labels.ndim - has_channel(path, labels, dims) not in (dims, dims + 1):
        raise ValueError(f"its shape is {list(labels.shape)}: only {SHAPES[dims]} can be weighed")
    if labels.size == 0:
        raise ValueError(f"its shape is {list(labels.shape)}: there is no pixel in it")
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"its values are {labels.dtype}, not numbers of instances")
    check_half(labels)
    dtype = np.float64 if labels.dtype.kind == "f" else labels.dtype
    return Source(np.ascontiguousarray(labels, dtype=dtype), grid)


def has_channel(path, labels, dims=2):
    """Whether the last axis is that of one channel: no image is one column wide."""
    return path.suffix.lower() == ".npy" and labels.ndim > dims and labels.shape[-1] == 1


def read_npy(path, colour_ids, spatial_dims):
    dims = spatial_dims or 2
    with decoding(), path.open("rb") as file:
        labels = np.lib.format.read_array(file, allow_pickle=False)
    if labels.ndim in (dims + 1, dims + 2) and labels.shape[-1] in (3, 4):
        labels = ids_of_channels(labels, colour_ids)
    return Source(labels)


def read_png(path, colour_ids, spatial_dims):
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # large masks are no attack
    with decoding(), Image.open(path, formats=["png"]) as image:
        deep = "16" in str(image.tile[0][3])
        if image.mode == "P" and colour_ids:
            image = image.convert("RGB")
        pixels = np.array(image)  # of a palette image the ids, not the colours
    if pixels.ndim == 3 and deep:
        raise ValueError(f"a picture in colour ({image.mode}) of 16 bits a channel: save it as a grey one")
    return Source(ids_of_channels(pixels, colour_ids) if pixels.ndim == 3 else pixels)


def read_tif(path, colour_ids, spatial_dims):
    import tifffile

    heard = Complaints()
    logging.getLogger("tifffile").addHandler(heard)
    try:
        with decoding(), tifffile.TiffFile(path) as tif:
            count, series = len(tif.series), tif.series[0]
            axes, page = series.axes, series.keyframe
            labels = series.asarray() if count == 1 else None
            grid = grid_of(tif, axes)
    finally:
        logging.getLogger("tifffile").removeHandler(heard)
    if count != 1:
        raise ValueError(f"{count} images of different shapes or types, not one batch")
    if heard.messages:
        raise ValueError(f"the file is damaged: {heard.messages[0]}")
    if "S" in axes:
        labels, axes = without_samples(labels, axes, page, colour_ids)
    labels, axes = arranged(labels, axes, spatial_dims)
    return Source(labels, dataclasses.replace(grid, axes=axes) if axes else None)


def without_samples(labels, axes, page, colour_ids):
    """(labels, axes) without the samples of a pixel, S, that are no images of their own."""
    photometric = int(page.photometric)
    last = np.moveaxis(labels, axes.index("S"), -1)
    if photometric == RGB:
        try:
            return ids_of_channels(last, colour_ids), axes.replace("S", "")
        except ValueError as problem:
            raise ValueError(
                f"{problem}. Its photometric tag says RGB: where these are pages of ids, write them with "
                'tifffile.imwrite(..., photometric="minisblack")'
            ) from None
    if photometric not in GREY:
        raise ValueError(f"a picture in colour, by its photometric tag ({photometric})")
    if page.extrasamples and all(int(sample) in ALPHA for sample in page.extrasamples):
        return last[..., 0], axes.replace("S", "")
    return labels, axes


RGB, GREY, ALPHA = 2, (0, 1, 3), (1, 2)  # values of the tags PhotometricInterpretation and ExtraSamples


def ids_of_channels(image, colour_ids):
    """Ids [..., H, W] of [..., H, W, 2 to 4] channels: grey, or coded by colour; alpha does not matter."""
    if image.shape[-1] == 2:
        return image[..., 0]
    if image.shape[-1] > 4:
        raise ValueError(f"a picture of {image.shape[-1]} channels, not one number of an instance per pixel")
    if colour_ids:
        return ids_from_colours(image)
    if (image[..., 1:3] == image[..., :1]).all():
        return image[..., 0]
    raise ValueError(
        "a picture in colour, not one number of an instance per pixel; --colour-ids takes its colours for "
        "ids R + 256 G + 65536 B"
    )


@contextlib.contextmanager
def decoding():
    """Whatever a library raises about a file, in words."""
    try:
        yield
    except (MemoryError, ModuleNotFoundError):
        raise
    except Exception as problem:
        text = " ".join(str(problem).split()) or type(problem).__name__
        if isinstance(problem, OSError) and problem.strerror:
            raise
        if "allow_pickle" in text:
            raise ValueError(f"its values are Python objects, not numbers of instances ({text})") from problem
        if "imagecodecs" in text:
            raise ValueError(text) from problem
        raise ValueError(f"the file is damaged, cut off or of a kind that is not read: {text}") from problem


class Complaints(logging.Handler):
    """Hears of missing pages: tifffile logs them and goes on with fewer. Bad tags do not matter here."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.messages = []

    def emit(self, record):
        message = record.getMessage()
        if "page" in message or "series" in message:
            self.messages.append(message)


READERS = {".tif": read_tif, ".tiff": read_tif, ".png": read_png, ".npy": read_npy}
