"""Label image files to weight image files."""

import logging
import os
import sys
from collections import defaultdict

import numpy as np
import tifffile
import torch
from PIL import Image
from tqdm import tqdm

import fastlogconv


def run(masks, out, settings, output_format=None, overwrite=False, quiet=False):
    """Writes OUT/NAME.tif or .npy for every mask; returns 0, or 1 where one of them failed."""
    out.mkdir(parents=True, exist_ok=True)
    count = {"written": 0, "kept": 0, "failed": 0}
    with tqdm(plan(masks, out, output_format), unit="mask", disable=True if quiet else None) as progress:
        for mask, target, objection in progress:
            try:
                if objection:
                    raise ValueError(objection)
                if target.exists() and not overwrite:
                    count["kept"] += 1
                    if not quiet:
                        progress.write(f"kept {target} (--overwrite replaces it)")
                    continue
                labels = torch.from_numpy(read_labels(mask))
                write_atomically(target, fastlogconv.weight_map(labels, **settings).float().numpy())
                count["written"] += 1
            except Exception as problem:  # whatever is wrong with one file, the others go on
                count["failed"] += 1
                progress.write(f"{mask}: {reason(problem)}", file=sys.stderr)
    if not quiet:
        print(", ".join(f"{number} {what}" for what, number in count.items()))
    return 1 if count["failed"] else 0


def plan(masks, out, output_format):
    """[(mask, target, why it must not be written or None)]; a file that is named twice comes once."""
    masks = list({os.path.abspath(mask): mask for mask in masks}.values())
    inputs = {os.path.realpath(mask) for mask in masks}
    targets = []
    claims = defaultdict(list)
    for mask in masks:
        suffix = output_format or ("npy" if mask.suffix.lower() == ".npy" else "tif")
        targets.append(out / f"{mask.stem}.{suffix}")
        if mask.suffix.lower() in READERS:
            claims[os.path.normcase(targets[-1])].append(mask)

    def objection(mask, target):
        if mask.suffix.lower() not in READERS:
            return f"{mask.suffix or 'no suffix'}: only {', '.join(READERS)} can be read"
        others = [str(other) for other in claims[os.path.normcase(target)] if other != mask]
        if others:
            return f"its weights and those of {', '.join(others)} would both be {target}: neither is written"
        if os.path.realpath(target) in inputs:
            return f"its weights would overwrite {target}, a mask: choose another folder with --out"
        return None

    return [(mask, target, objection(mask, target)) for mask, target in zip(masks, targets, strict=True)]


def reason(problem):
    """One line for one exception, with its type where that says something."""
    text = " ".join(str(problem).split())
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return text if text and isinstance(problem, ValueError) else f"{type(problem).__name__}: {text}"


def read_labels(path):
    """Instance labels [H, W] or [B, H, W] in the machine's byte order, floats as float64."""
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    labels = READERS[path.suffix.lower()](path)
    if labels.ndim not in (2, 3):
        raise ValueError(f"its shape is {list(labels.shape)}: only [H, W] and [B, H, W] can be weighed")
    if labels.size == 0:
        raise ValueError(f"its shape is {list(labels.shape)}: there is no pixel in it")
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"its values are {labels.dtype}, not numbers of instances")
    dtype = np.float64 if labels.dtype.kind == "f" else labels.dtype.newbyteorder("=")
    return np.ascontiguousarray(labels, dtype=dtype)


def read_npy(path):
    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def read_png(path):
    Image.MAX_IMAGE_PIXELS = None  # large masks are no attack
    with Image.open(path, formats=["png"]) as image:
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
            raise ValueError(f"a picture in colour ({image.mode}), not one number of an instance per pixel")
        return np.array(image)  # of a palette image the ids, not the colours


def read_tif(path):
    heard = Complaints()
    logging.getLogger("tifffile").addHandler(heard)
    try:
        with tifffile.TiffFile(path) as tif:
            if len(tif.series) != 1:
                raise ValueError(f"{len(tif.series)} images of different shapes or types, not one batch")
            if "S" in tif.series[0].axes:
                raise ValueError("a picture in colour, not one number of an instance per pixel")
            labels = tif.series[0].asarray()
    finally:
        logging.getLogger("tifffile").removeHandler(heard)
    if heard.messages:
        raise ValueError(f"the file is damaged: {heard.messages[0]}")
    return labels


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


def write_atomically(path, array):
    """Under its name there is the whole file or none, whatever interrupts."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            if path.suffix == ".npy":
                np.save(file, array)
            else:
                tifffile.imwrite(file, array, photometric="minisblack")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
