"""Label image files to weight image files."""

import dataclasses
import importlib
import os
import sys
import warnings
from collections import defaultdict

import torch

import fastlogconv
from fastlogconv import checks
from fastlogconv.cli import reading, writing
from fastlogconv.cli.grids import Grid
from fastlogconv.cli.reading import read_labels

READERS = reading.READERS


def import_what_is_needed(masks, output_format=None):
    """Raises ModuleNotFoundError where a library for one of these files is missing."""
    suffixes = {suffix_of(mask, output_format) for mask in masks} | {mask.suffix.lower() for mask in masks}
    for suffix in sorted(suffixes):
        if reading.NEEDS.get(suffix):
            importlib.import_module(reading.NEEDS[suffix])


def run(masks, out, options, backend="auto", output_format=None, overwrite=False, quiet=False):
    """Writes OUT/NAME.tif or .npy for every mask; returns 0, or 1 where one of them failed.

    `options`: settings, ignore_index, colour_ids, spatial_dims and spacing, as for `writing.record_of`.
    """
    count = {"written": 0, "kept": 0, "failed": 0}
    with progress_bar(plan(masks, out, output_format), quiet) as progress:
        for mask, target, objection in progress:
            with warnings.catch_warnings(record=True) as complaints:
                warnings.filterwarnings("ignore", "labels are")  # said of the first mask only: see weigh
                try:
                    if objection:
                        raise ValueError(objection)
                    what, said = one(mask, target, options, backend, overwrite)
                except Exception as problem:  # whatever is wrong with one file, the others go on
                    what, said = "failed", reason(problem)
            count[what] += 1
            for complaint in complaints:
                progress.write(f"{mask}: {' '.join(str(complaint.message).split())}", file=sys.stderr)
            if what == "failed":
                progress.write(f"{mask}: {said}", file=sys.stderr)
            elif said and not quiet:
                progress.write(f"{what} {target} ({said})")
    if not quiet:
        print(", ".join(f"{number} {what}" for what, number in count.items()))
    return 1 if count["failed"] else 0


def one(mask, target, options, backend, overwrite):
    """Writes the weights of one mask, or keeps them; returns ("written" or "kept", what to say of it)."""
    record, said = writing.record_of(mask, **options), []
    if os.path.lexists(target) and not target.is_file():
        raise ValueError(f"{target} is there and is no file")
    if target.exists() and not overwrite:
        stored = writing.read_record(target)
        changed = stored and writing.differences(stored, record)
        if changed:
            raise ValueError(
                f"{target} is there, made from something else ({changed}): --overwrite replaces it"
            )
        whole = writing.is_whole(target, stored)
        if not stored:
            state = "is there" if whole else "is there, is no whole image"
            raise ValueError(
                f"{target} {state}, and what it was made from is not known: --overwrite replaces it"
            )
        if whole:
            return "kept", "--overwrite replaces it"
        said.append("what was there is damaged")
    weights, grid, about_spacing = weigh(mask, target, options, backend)
    writing.write(target, weights, record, grid)
    return "written", "; ".join([*said, *about_spacing])


def weigh(mask, target, options, backend):
    """(the weights of a mask file, float32; their grid; what to say of its spacing, in a list)."""
    settings, dims = options["settings"], options["spatial_dims"]
    labels, grid = read_labels(mask, options["colour_ids"], dims)
    dims = dims or 2
    one_channel = reading.has_channel(mask, labels, dims)
    if one_channel:
        labels = labels[..., 0]
    axes = "ZYX"[-dims:]
    if grid is None:
        grid = Grid("Q" * (labels.ndim - dims) + axes if dims == 3 else "")
    said = []
    if options["spacing"]:
        spacing, about = grid.spacing(axes, options["spacing"])
        settings, said = settings.replace(spacing=spacing), [about]
    if settings.spacing and grid.along(axes) is None:
        grid = dataclasses.replace(grid, lengths=dict(zip(axes, settings.spacing, strict=True)), unit="pixel")
    if options["ignore_index"] is None and (doubt := checks.doubt_of_masks(torch.from_numpy(labels))):
        warnings.warn(doubt.replace("labels", "its values", 1), stacklevel=1)
    weights = fastlogconv.weight_map(
        torch.from_numpy(labels),
        settings=settings,
        ignore_index=options["ignore_index"],
        spatial_dims=dims,
        backend=backend,
    )
    weights = weights.float().numpy()
    if grid.axes[:1] == "Z" and weights.ndim == 4:
        weights = weights.swapaxes(0, 1)
    return weights[..., None] if one_channel and target.suffix == ".npy" else weights, grid, said


def plan(masks, out, output_format):
    """[(mask, target, why it must not be written or None)]; a file that is named twice comes once."""
    masks = list({os.path.abspath(mask): mask for mask in masks}.values())
    inputs = {os.path.realpath(mask) for mask in masks}
    targets = []
    claims = defaultdict(list)
    for mask in masks:
        targets.append(out / f"{mask.stem}{suffix_of(mask, output_format)}")
        if mask.suffix.lower() in READERS:
            claims[os.path.normcase(targets[-1])].append(mask)

    def objection(mask, target):
        if mask.is_dir():
            return f"a directory: name the files in it, such as {mask / '*.tif'}"
        if mask.suffix.lower() not in READERS:
            return f"{mask.suffix or 'no suffix'}: only {', '.join(READERS)} can be read"
        if mask.exists() and not mask.is_file():  # it may never end
            return "no file: a pipe or a device"
        others = [str(other) for other in claims[os.path.normcase(target)] if other != mask]
        if others:
            return f"its weights and those of {', '.join(others)} would both be {target}: neither is written"
        if os.path.realpath(target) in inputs:
            return f"its weights would overwrite {target}, a mask: choose another folder with --out"
        return None

    return [(mask, target, objection(mask, target)) for mask, target in zip(masks, targets, strict=True)]


def suffix_of(mask, output_format):
    """That of the weights of a mask."""
    return f".{output_format or ('npy' if mask.suffix.lower() == '.npy' else 'tif')}"


def reason(problem):
    """One line for one exception, with its type where that says something."""
    text = " ".join(str(problem).split())
    if isinstance(problem, OSError):
        return problem.strerror or text
    return text if text and isinstance(problem, ValueError) else f"{type(problem).__name__}: {text}"


def progress_bar(steps, quiet):
    """A bar on terminals, where tqdm is there to draw one."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return WithoutBar(steps)
    return tqdm(steps, unit="mask", disable=True if quiet else None)


class WithoutBar(list):
    """What is used of tqdm, but for the bar."""

    write = staticmethod(print)

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        pass
