"""Masks and weights in files, for the tests of the command line."""

import numpy as np
import tifffile
import torch
from PIL import Image

import fastlogconv
from fastlogconv.__main__ import main


def cells(height=40, width=52, ids=(3, 200, 7)):
    """Three rectangles close together, int64 [H, W]."""
    labels = np.zeros((height, width), dtype=np.int64)
    labels[4:14, 5:15], labels[6:20, 18:30], labels[25:38, 10:40] = ids
    return labels


def save(path, labels, **how):
    if path.suffix == ".npy":
        np.save(path, labels)
    elif path.suffix == ".png":
        Image.fromarray(labels).save(path)
    else:
        tifffile.imwrite(path, labels, photometric="minisblack", **how)
    return path


def load(path):
    return np.load(path) if path.suffix == ".npy" else tifffile.imread(path)


def weigh(labels, **settings):
    return fastlogconv.weight_map(torch.from_numpy(labels), **settings).numpy()


def outputs(folder):
    """The weight images of a folder, without the records beside those that have no room for one."""
    paths = sorted(folder.iterdir())
    records = [path for path in paths if path.name.endswith(".npy.json")]
    assert {path.with_suffix("") for path in records} <= set(paths)
    return [path for path in paths if path not in records]


def run(*arguments):
    return main(["weights", *map(str, arguments)])


STACK = np.stack([cells(), cells(ids=(1, 2, 3)), np.zeros((40, 52), dtype=np.int64)])
