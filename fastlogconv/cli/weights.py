"""Label image files to weight image files."""

import importlib
import os
import sys
from collections import defaultdict

import torch

import fastlogconv
from fastlogconv.cli import reading, writing
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

    `options`: settings, ignore_index and colour_ids, as for `writing.record_of`.
    """
    count = {"written": 0, "kept": 0, "failed": 0}
    with progress_bar(plan(masks, out, output_format), quiet) as progress:
        for mask, target, objection in progress:
            try:
                if objection:
                    raise ValueError(objection)
                record = writing.record_of(mask, **options)
                if target.exists() and not overwrite:
                    why = why_kept(target, record)
                    count["kept"] += 1
                    if not quiet:
                        progress.write(f"kept {target} ({why}--overwrite replaces it)")
                    continue
                writing.write(target, weigh(mask, target, options, backend), record)
                count["written"] += 1
            except BrokenPipeError:  # of what is printed
                raise
            except Exception as problem:  # whatever is wrong with one file, the others go on
                count["failed"] += 1
                progress.write(f"{mask}: {reason(problem)}", file=sys.stderr)
    if not quiet:
        print(", ".join(f"{number} {what}" for what, number in count.items()))
    return 1 if count["failed"] else 0


def weigh(mask, target, options, backend):
    """The weights of a mask file, float32."""
    labels = read_labels(mask, options["colour_ids"])
    one_channel = reading.has_channel(mask, labels)
    if one_channel:
        labels = labels[..., 0]
    weights = fastlogconv.weight_map(
        torch.from_numpy(labels),
        settings=options["settings"],
        ignore_index=options["ignore_index"],
        backend=backend,
    )
    weights = weights.float().numpy()
    return weights[..., None] if one_channel and target.suffix == ".npy" else weights


def why_kept(target, record):
    """What to say about an output that is there and kept.

    Raises:
        ValueError: it was made from something else than what is asked for now.
    """
    stored = writing.read_record(target)
    if stored is None:
        return "what it was made from is not known; "
    changed = writing.differences(stored, record)
    if changed:
        raise ValueError(f"{target} is there, made from something else ({changed}): --overwrite replaces it")
    return ""


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
