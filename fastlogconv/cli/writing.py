"""Weight image files, each with a record of what it was made from."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile

import numpy as np

import fastlogconv
from fastlogconv.cli.grids import IMAGEJ_AXES

KEY = "fastlogconv"  # of the record, in the description of a .tif


def check_writable(folder):
    """Makes the folder, and raises OSError where no file can be written in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def record_of(mask, settings, ignore_index, colour_ids, spatial_dims=None, spacing=None):
    """What decides about the weights of a mask file, as JSON has it.

    `spacing`: how to take that of the file, see `grids.Grid.spacing`; None: not at all.
    """
    digest = hashlib.blake2b(digest_size=16)
    with mask.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    settings = {
        name: list(value) if isinstance(value, tuple) else value for name, value in settings.as_dict().items()
    }
    return {
        "version": fastlogconv.__version__,
        "settings": settings,
        "ignore_index": sorted(set(ignore_index or ())),
        "colour_ids": colour_ids,
        "spatial_dims": spatial_dims or 2,
        "spacing of the file": spacing,
        "mask": digest.hexdigest(),
    }


def differences(stored, wanted):
    """In words, what of a record is not as wanted now; empty where nothing is."""
    found = []
    old, new = stored.get("settings", {}), wanted["settings"]
    found += [f"{name} was {old.get(name)}, now {new[name]}" for name in new if old.get(name) != new[name]]
    for name in ("ignore_index", "colour_ids", "spatial_dims", "spacing of the file"):
        if stored.get(name) != wanted[name]:
            found.append(f"{name} was {stored.get(name)}, now {wanted[name]}")
    if stored.get("mask") != wanted["mask"]:
        found.append("the mask was another one")
    return ", ".join(found)


def read_record(path):
    """The record of a weight image, or None where it has none."""
    with contextlib.suppress(Exception), no_complaints():  # whatever file lies there
        if path.suffix == ".npy":
            record = json.loads(beside(path).read_text()) if beside(path).is_file() else None
        else:
            import tifffile

            with tifffile.TiffFile(path) as tif:
                record = tif.imagej_metadata if tif.is_imagej else tif.shaped_metadata[0]
                record = record[KEY]
                record = json.loads(record) if tif.is_imagej else record
        return record if isinstance(record, dict) else None
    return None


def beside(path):
    """Where the record of an .npy is, which has no room for one."""
    return path.with_name(f"{path.name}.json")


def is_whole(path, record):
    """Whether a weight image can be read, and is the one that its record is of."""
    try:
        with no_complaints():
            weights = read_weights(path)
        return record is None or "weights" not in record or digest_of(weights) == record["weights"]
    except Exception:  # of whatever lies there
        return False


@contextlib.contextmanager
def no_complaints():
    """tifffile logs what it finds wrong with a file; what is done about it is told in our words."""
    logger, handler = logging.getLogger("tifffile"), logging.NullHandler()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


def read_weights(path):
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    import tifffile

    return tifffile.imread(path)


def digest_of(weights):
    flat = np.ascontiguousarray(weights, dtype="<f4").reshape(-1)
    return hashlib.blake2b(flat.view(np.uint8).data, digest_size=16).hexdigest()


def write(path, weights, record, grid):
    """Writes weights and their record: under each name there is the whole file or none."""
    record = {**record, "weights": digest_of(weights)}
    if path.suffix == ".npy":
        beside(path).unlink(missing_ok=True)  # never the record of other weights
        with written_whole(path) as file:
            np.save(file, weights)
        with written_whole(beside(path)) as file:
            file.write(json.dumps(record, indent=1).encode())
    else:
        import tifffile

        with written_whole(path) as file:
            tifffile.imwrite(file, weights, photometric="minisblack", **tif_options(weights, record, grid))


IMAGEJ_BYTES = 2**32 - 2**20  # what tifffile lets such a file hold


def tif_options(weights, record, grid):
    """How to write them: for ImageJ where there are axes or lengths that it knows, else as tifffile does."""
    lengths = dict(grid.lengths)
    about = {}
    if "Z" in lengths and "Z" in grid.axes:
        about |= dict(spacing=lengths["Z"])
    if about or {"X", "Y"} <= set(lengths):
        about |= dict(unit=grid.unit)
    how = {}
    if {"X", "Y"} <= set(lengths):
        how = dict(resolution=(1 / lengths["X"], 1 / lengths["Y"]), resolutionunit="NONE")
    beside_image = grid.axes[:-2]
    in_order = list(beside_image) == [axis for axis in IMAGEJ_AXES if axis in beside_image]
    if (about or beside_image) and in_order and weights.nbytes < IMAGEJ_BYTES:
        about |= {"axes": grid.axes, KEY: json.dumps(record)}
        return dict(imagej=True, byteorder="=", metadata=about, **how)
    if about or "Z" in beside_image:
        about |= dict(axes=grid.axes)
    return dict(metadata={KEY: record, **about}, **how)


@contextlib.contextmanager
def written_whole(path):
    """A file to write in, which takes its place when all is written, whatever interrupts."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            yield file
        os.replace(unfinished, path)
    except OSError as problem:
        if problem.strerror is None:  # NumPy's, of a write that was cut short
            raise OSError(f"it could not be written to its end, is the disk full? ({problem})") from problem
        raise
    finally:
        unfinished.unlink(missing_ok=True)
