"""Weight image files, each with a record of what it was made from."""

import contextlib
import hashlib
import json
import os
import tempfile

import numpy as np

import fastlogconv

KEY = "fastlogconv"  # of the record, in the description of a .tif


def check_writable(folder):
    """Makes the folder, and raises OSError where no file can be written in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def record_of(mask, settings, ignore_index, colour_ids):
    """What decides about the weights of a mask file, as JSON has it."""
    digest = hashlib.blake2b(digest_size=16)
    with mask.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return {
        "version": fastlogconv.__version__,
        "settings": settings.as_dict(),
        "ignore_index": sorted(set(ignore_index or ())),
        "colour_ids": colour_ids,
        "mask": digest.hexdigest(),
    }


def differences(stored, wanted):
    """In words, what of a record is not as wanted now; empty where nothing is."""
    found = []
    old, new = stored.get("settings", {}), wanted["settings"]
    found += [f"{name} was {old.get(name)}, now {new[name]}" for name in new if old.get(name) != new[name]]
    for name in ("ignore_index", "colour_ids"):
        if stored.get(name) != wanted[name]:
            found.append(f"{name} was {stored.get(name)}, now {wanted[name]}")
    if stored.get("mask") != wanted["mask"]:
        found.append("the mask was another one")
    return ", ".join(found)


def read_record(path):
    """The record of a weight image, or None where it has none."""
    with contextlib.suppress(Exception):  # whatever file lies there
        if path.suffix == ".npy":
            record = json.loads(beside(path).read_text())
        else:
            import tifffile

            with tifffile.TiffFile(path) as tif:
                record = tif.shaped_metadata[0][KEY]
        return record if isinstance(record, dict) else None
    return None


def beside(path):
    """Where the record of an .npy is, which has no room for one."""
    return path.with_name(f"{path.name}.json")


def write(path, weights, record):
    """Writes weights and their record: under each name there is the whole file or none."""
    if path.suffix == ".npy":
        beside(path).unlink(missing_ok=True)  # never the record of other weights
        with written_whole(path) as file:
            np.save(file, weights)
        with written_whole(beside(path)) as file:
            file.write(json.dumps(record, indent=1).encode())
    else:
        import tifffile

        with written_whole(path) as file:
            tifffile.imwrite(file, weights, photometric="minisblack", metadata={KEY: record})


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
