"""Label images and settings that the tests share."""

import functools
import itertools
import json
import pathlib

import numpy as np
import torch

import fastlogconv
from fastlogconv import rules

DATA = pathlib.Path(__file__).parent / "data"
GOLDEN_SETTINGS = json.loads((DATA / "weight_transform_params.json").read_text())
DISTANCES, BORDERS = tuple(rules.DISTANCES), tuple(rules.BORDERS)
RULES = tuple(itertools.product(DISTANCES, BORDERS))


def golden(name):
    """A file of deepflash2's figures; see data/README.md."""
    return np.load(DATA / f"{name}.npz")


def disk(shape, y, x, radius):
    yy, xx = np.indices(shape)
    return (yy - y) ** 2 + (xx - x) ** 2 <= radius**2


def scattered(shape, count, largest_radius, rng):
    """Disks of radius 0 (one pixel) to `largest_radius`, drawn over one another: concave rests among them."""
    labels = np.zeros(shape, dtype=np.int64)
    for i in range(1, count + 1):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        labels[disk(shape, y, x, rng.integers(0, largest_radius + 1))] = i
    return labels


def two_cells(shape=(24, 30)):
    labels = np.zeros(shape, dtype=np.int64)
    labels[3:10, 4:11] = 1
    labels[12:20, 14:26] = 2
    return labels


def _rings(n):
    labels = np.zeros((n + 20, n + 40), dtype=np.int64)
    center = (n // 2 + 10, n // 2 + 20)
    for i, radius in enumerate((n // 2, n // 3, n // 6), start=1):
        labels[disk(labels.shape, *center, radius) & ~disk(labels.shape, *center, radius - 1.5)] = i
    labels[center] = 4
    return labels


def _c_shapes(n):
    """Two Cs, each with its end inside the other."""
    labels = np.zeros((n + 20, n + 30), dtype=np.int64)
    labels[10 : n + 10, 10 : n // 2 + 30] = 1
    labels[10 + n // 5 : n + 10 - n // 5, 10 + n // 8 : n // 2 + 30] = 0
    labels[n // 2 - 10 : n // 2 + 30, n // 4 : n + 20] = 2
    labels[n // 2 : n // 2 + 20, n // 4 : n + 8] = 0
    return labels


def _diagonals(n):
    labels = np.zeros((n, n + 17), dtype=np.int64)
    i = np.arange(n)
    labels[i, i + 8] = 1  # joined at corners only
    labels[i, n - 1 - i] = 2
    labels[i[: n // 3], i[: n // 3] + n // 2] = 3
    return labels


def _interleaved(n):
    """Two combs, tooth between tooth, and a chequerboard of two instances."""
    labels = np.zeros((n, n), dtype=np.int64)
    labels[5 : n - 30 : 6, 5 : n - 12] = 1
    labels[5 : n - 30, 5:7] = 1
    labels[8 : n - 30 : 6, 12 : n - 5] = 2
    labels[8 : n - 30, n - 7 : n - 5] = 2
    yy, xx = np.indices((12, n - 10))
    labels[n - 17 : n - 5, 5 : n - 5] = np.where((yy + xx) % 2 == 0, 3, 4)
    return labels


def _large(n):
    """A square of n px and, around it, a frame, a one-pixel instance and a bar in its shadow."""
    labels = np.zeros((n + 70, n + 80), dtype=np.int64)
    labels[30 : n + 30, 40 : n + 40] = 1
    labels[:3], labels[-3:], labels[:, :2], labels[:, -2:] = 2, 2, 2, 2
    labels[15, n // 2] = 3
    labels[60 : n - 60, 20:26] = 4
    return labels


SHAPES = {
    "one pixel": lambda: np.pad(np.ones((1, 1), dtype=np.int64), ((40, 50), (70, 20))),
    "rings of 300 px": lambda: _rings(300),
    "thin ring of 60 px": lambda: _rings(60),
    "C shapes of 200 px": lambda: _c_shapes(200),
    "diagonals of 150 px": lambda: _diagonals(150),
    "interleaved": lambda: _interleaved(100),
    "square of 300 px": lambda: _large(300),
    "disks of up to 60 px": lambda: scattered((200, 230), 12, 30, np.random.default_rng(1)),
    "crowd": lambda: scattered((96, 128), 150, 4, np.random.default_rng(2)),
}

# From the narrowest kernel to the widest, the least decay to the most.
SHAPE_SETTINGS = (
    dict(lmbda=0.35, ks=73, bws=10, fds=10, bwf=10, fbr=0.1),
    dict(lmbda=0.1, ks=129, bws=40, fds=40, bwf=10, fbr=0.05),
    dict(lmbda=10, ks=129, bws=25, fds=25, bwf=5, fbr=0.1),
    dict(lmbda=1, ks=8, bws=2, fds=3, bwf=50, fbr=0.0),
)


def in_turn(choices, number):
    """One of the choices for each number: all of them come."""
    return choices[number % len(choices)]


def bwf_without_border(border, bwf=10):
    """The factor with which weights are those of `border` where an instance is absent."""
    return 0 if rules.BORDERS[border].every_instance else bwf


def random_case(seed):
    """(labels, settings) with everything drawn at random over the promised ranges."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(20, 140, 2))
    labels = scattered(shape, rng.integers(1, 40), rng.integers(1, 25), rng)
    _, labels = np.unique(labels, return_inverse=True)  # no id is absent: "farthest" stays alive
    settings = dict(
        border=in_turn(BORDERS, seed),
        lmbda=float(np.exp(rng.uniform(np.log(0.1), np.log(10)))),
        ks=int(rng.integers(1, 130)),
        bws=float(rng.uniform(1, 40)),
        fds=float(rng.uniform(1, 40)),
        bwf=float(rng.uniform(0, 50)),
        fbr=float(rng.uniform(0, 1)),
    )
    return labels.reshape(shape), settings


def settings_of(border="second_nearest", bws=10, fds=10, bwf=10, fbr=0.1, lmbda=0.35, ks=73):
    """All settings of `weight_map`, for the oracle."""
    return dict(border=border, bws=bws, fds=fds, bwf=bwf, fbr=fbr, lmbda=lmbda, ks=ks)


@functools.cache
def shape_weights64(name, setting, border):
    """The float64 weights of a case of SHAPES, by the reference."""
    labels = torch.from_numpy(SHAPES[name]())
    return fastlogconv.weight_map(
        labels.double(), border=border, **SHAPE_SETTINGS[setting], backend="reference"
    )


@functools.cache
def random_weights64(seed):
    """The float64 weights of a random case, by the reference."""
    labels, settings = random_case(seed)
    return fastlogconv.weight_map(torch.from_numpy(labels).double(), **settings, backend="reference")


def weight_error(weights, expected):
    """max |w - w64| / max(1, w64); NaN counts as inf."""
    expected = torch.as_tensor(expected, dtype=torch.float64, device="cpu")
    weights = weights.detach().to("cpu", torch.float64)
    assert weights.shape == expected.shape
    if expected.numel() == 0:
        return 0.0
    assert expected.isfinite().all()
    return ((weights - expected).abs() / expected.clamp(min=1)).nan_to_num(nan=torch.inf).max().item()


def relative_error(result, expected):
    """max |y - y64| / max |y64|; NaN counts as inf."""
    expected = torch.as_tensor(expected, dtype=torch.float64, device="cpu")
    result = result.detach().to("cpu", torch.float64)
    assert result.shape == expected.shape
    assert expected.isfinite().all()
    return ((result - expected).abs().nan_to_num(nan=torch.inf).max() / expected.abs().max()).item()


def surrounded(tensor, filling):
    """A view equal to `tensor` [.., H, W], strided, inside a larger buffer full of `filling`."""
    *lead, h, w = tensor.shape
    buffer = torch.full((*[2 * n + 1 for n in lead], 2 * h + 9, 3 * w + 11), filling, dtype=tensor.dtype)
    view = buffer[(*[slice(1, 2 * n, 2) for n in lead], slice(5, 5 + 2 * h, 2), slice(4, 4 + 3 * w, 3))]
    view.copy_(tensor)
    return view


def moved(view, device):
    """The same view of the same memory on a device: `to` leaves out what lies between the pixels."""
    memory = view.as_strided((view.untyped_storage().nbytes() // view.element_size(),), (1,), 0)
    return memory.to(device).as_strided(view.shape, view.stride(), view.storage_offset())


def tensor_type(name, module, base=torch.Tensor):
    """A stand-in for a tensor type of fastai."""
    return type(name, (base,), {"__module__": module})
