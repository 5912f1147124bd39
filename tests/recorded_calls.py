"""Calls of the C interface as a file, with what they have to return, for replay_calls.cpp on another system.

    python tests/recorded_calls.py FILE [SEEDS]

The calls are those that the public functions make; weights, distances and convolutions are compared with the
reference in float64, everything else with what the library of this machine returned.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from cases import random_case, scattered
from tolerances import CONVOLUTION, DISTANCE, EUCLIDEAN, WEIGHT

import fastlogconv
from fastlogconv import codes
from fastlogconv.backends import c_interface, native

# By name: how many tensors come first, and the bytes of what follows them up to the result.
FUNCTIONS = {
    "flc_cpu_weight_map": (4, lambda params: bytes(params)),
    "flc_cpu_region_weight_map": (2, lambda params: bytes(params)),
    "flc_cpu_distance_to_weight": (2, lambda params: bytes(params)),
    "flc_cpu_nearest_weight_map": (
        4,
        lambda params, balanced: bytes(params) + struct.pack("<q", balanced),
    ),
    "flc_cpu_nearest_instances": (2, lambda spacing, count: bytes(spacing) + struct.pack("<q", count)),
    "flc_cpu_separable_conv2d": (
        1,
        lambda length, radius, padding: struct.pack("<dqq", length, radius, padding),
    ),
    "flc_cpu_class_labels": (2, bytes),
    "flc_cpu_foreground_with_gaps": (2, bytes),
}
_CODES = {name: code for code, name in enumerate(codes.DTYPES)}
_ITEMSIZE = [getattr(torch, name).itemsize for name in codes.DTYPES]
_FLOATS = {_CODES["float32"]: np.float32, _CODES["float64"]: np.float64}


class Call:
    """One call: what goes in, and what came out."""

    def __init__(self, name: str, arguments: tuple):
        self.function = list(FUNCTIONS).index(name)
        n_tensors, packed = FUNCTIONS[name]
        self.tensors = [_tensor(view) for view in arguments[:n_tensors]]
        first, rest = arguments[0] or arguments[1], list(arguments[n_tensors:])
        pixels = int(np.prod(first.size[: first.axes]))
        if name in ("flc_cpu_region_weight_map", "flc_cpu_distance_to_weight"):
            pixels //= max(first.size[0], 1)
        self.ids_at, self.n_ids = None, 0
        if packed is bytes:
            self.params, self.dtype = b"", _CODES["int32" if "labels" in name else "uint8"]
            self.out_at = rest[0]
        else:
            n_params = packed.__code__.co_argcount
            self.params = packed(*rest[:n_params])
            self.out_at, self.dtype = rest[n_params], rest[n_params + 1]
            if name == "flc_cpu_nearest_instances":
                self.ids_at, self.n_ids = rest[n_params + 2], pixels
                pixels *= rest[1]
        self.n_out = pixels
        self.tolerance, self.floor = 0.0, 0.0

    def done(self) -> None:
        self.out = ctypes.string_at(self.out_at, self.n_out * _ITEMSIZE[self.dtype])
        self.ids = ctypes.string_at(self.ids_at, 8 * self.n_ids) if self.n_ids else b""
        if self.dtype in _FLOATS:
            self.wanted = np.frombuffer(self.out, _FLOATS[self.dtype]).astype(np.float64)

    def compare_with(self, expected: torch.Tensor, tolerance: float, floor: float) -> None:
        """|result - expected| <= tolerance max(floor, |expected|), as it is for this machine's result."""
        values, found = expected.double().numpy().ravel(), self.wanted
        assert values.shape == found.shape
        finite = np.isfinite(values)
        assert np.array_equal(finite, np.isfinite(found))
        error = np.abs(found - values)[finite] / np.maximum(floor, np.abs(values[finite])).clip(1e-300)
        assert not error.size or error.max() <= tolerance
        self.wanted, self.tolerance, self.floor = values, tolerance, floor

    def packed(self) -> bytes:
        head = struct.pack("<qqqqqdd", self.function, self.dtype, self.n_out, self.n_ids, len(self.params),
                           self.tolerance, self.floor)  # fmt: skip
        wanted = self.wanted.tobytes() if self.dtype in _FLOATS else b""
        return b"".join([head, *self.tensors, self.params, self.out, wanted, self.ids])


def _tensor(view) -> bytes:
    """dtype, axes, sizes and strides, and the memory that they span; of no tensor a dtype of -1."""
    if view is None:
        return struct.pack("<q", -1)
    axes = range(view.axes)
    span = (
        1 + sum((view.size[i] - 1) * view.stride[i] for i in axes) if all(view.size[i] for i in axes) else 0
    )
    data = ctypes.string_at(view.data, span * _ITEMSIZE[view.dtype]) if span else b""
    return struct.pack("<qq4q4qq", view.dtype, view.axes, *view.size, *view.stride, len(data)) + data


class Recorder:
    """Stands in for the library, and keeps what goes through it."""

    def __init__(self, library):
        self._library, self.calls = library, []

    def __getattr__(self, name):
        function = getattr(self._library, name)
        if name not in FUNCTIONS:
            return function

        def recorded(*arguments):
            call = Call(name, arguments)
            status = function(*arguments)
            assert status == c_interface.OK
            call.done()
            self.calls.append(call)
            return status

        return recorded


def _cases(seeds: int):
    """(call, tolerance, floor): a call takes `backend`; the floor of None is the largest value."""
    rng = np.random.default_rng(18)
    weigh = functools.partial(functools.partial, fastlogconv.weight_map)
    for seed in range(seeds):
        labels, settings = random_case(seed)
        for dtype in (torch.float32, torch.float64):
            yield weigh(torch.from_numpy(labels).to(dtype), **settings), WEIGHT[dtype], 1.0
    labels = torch.from_numpy(np.stack([scattered((67, 93), 14, 9, rng) for _ in range(2)]))
    classes, ignore = (labels % 3).int(), labels == 4
    distances = 40 * torch.rand(5, 30, 41, generator=torch.Generator().manual_seed(5))
    for dtype in (torch.float32, torch.float64):
        images = labels.to(dtype)
        for options in (
            dict(classes=classes, ignore=ignore),
            dict(classes=classes, ignore=ignore, border="farthest", lmbda=5.0, ks=None, bws=30.0),
            dict(distance="euclidean"),
            dict(distance="euclidean", border="farthest", classes=classes, ignore=ignore),
            dict(preset="unet2019", classes=classes, spacing=(2.0, 0.7)),
        ):
            yield weigh(images, **options), EUCLIDEAN[dtype], 1.0
        yield weigh(images.transpose(1, 2)), WEIGHT[dtype], 1.0
        volumes, unequal = (
            images.reshape(2, 67, 31, 3).transpose(2, 3),
            dict(spacing=(3.0, 1.0, 1.0), spatial_dims=3),
        )
        yield weigh(volumes, preset="unet2019", **unequal), EUCLIDEAN[dtype], 1.0
        nearest = functools.partial(fastlogconv.nearest_instances, volumes, 2, **unequal)
        yield lambda backend, call=nearest: call(backend=backend)[0], DISTANCE[dtype], 0.0
        masks = torch.stack([labels[0] == i for i in range(1, 9)]).to(dtype) * torch.linspace(0.3, 1, 93).to(
            dtype
        )
        yield functools.partial(fastlogconv.region_weight_map, masks), WEIGHT[dtype], 1.0
        far = distances.to(dtype)
        yield functools.partial(fastlogconv.distance_to_weight, far, far[0] < 4), WEIGHT[dtype], 1.0
        for mode in codes.PADDING_MODES:
            for kernel in ((0.35, 73), (10.0, 41), (2.0, 8)):
                call = functools.partial(fastlogconv.separable_conv2d, masks - 0.4, *kernel, mode)
                yield call, CONVOLUTION[dtype], None
    for name in ("bool", "uint8", "int16", "uint32", "int64", "float16", "bfloat16"):
        yield weigh(labels.to(getattr(torch, name))), WEIGHT[torch.float32], 1.0


def record(path: Path, seeds: int = 24) -> int:
    """Writes the file; returns how many calls it holds."""
    recorder = Recorder(native._load())
    load, native._load = native._load, lambda: recorder
    try:
        for call, tolerance, floor in _cases(seeds):
            before = len(recorder.calls)
            call(backend="native")
            expected = call(backend="reference")
            floats = [each for each in recorder.calls[before:] if each.dtype in _FLOATS]
            if (
                len(floats) == 1 and floats[0].wanted.size == expected.numel() and expected.dtype.itemsize > 2
            ):  # not rounded
                floor = float(expected.abs().max()) if floor is None else floor
                floats[0].compare_with(expected.double(), tolerance, floor)
        rng = np.random.default_rng(7)
        fastlogconv.calculate_weights(scattered((50, 60), 9, 8, rng), scattered((50, 60), 3, 20, rng))
    finally:
        native._load = load
    calls = recorder.calls
    for call in calls:
        if call.dtype in _FLOATS and not call.tolerance:  # a part of a result
            dtype = torch.float32 if call.dtype == _CODES["float32"] else torch.float64
            call.tolerance, call.floor = WEIGHT[dtype], 1.0
    path.write_bytes(struct.pack("<qq", codes.ABI_VERSION, len(calls)) + b"".join(c.packed() for c in calls))
    return len(calls)


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(record(Path(sys.argv[1]), *map(int, sys.argv[2:])), "calls")
