"""Label images beyond memory: `weight_map` of Dask arrays, tile by tile. Needs Dask, and zarr to store."""

from __future__ import annotations

import contextlib
import functools
import math

import numpy as np
import torch

from .arrays import check_no_trailing_channel, plain_array
from .backends import native
from .integrations import weight_transform, weights_like
from .numerics import gaussian_reach
from .rules import BORDERS, DISTANCES
from .settings import WeightSettings
from .transforms import WeightTransform

try:
    import dask
    import dask.array as da
    from dask.diagnostics import ProgressBar
except ImportError as error:
    raise ImportError(
        'fastlogconv.large needs Dask: pip install "fastlogconv[large]"', name="dask"
    ) from error

TILE = "16MiB"  # of labels, where the array has no chunks of its own; a task needs about five times as much


def weight_map(array, *, classes=None, ignore=None, **settings) -> da.Array:
    """`fastlogconv.weight_map` of a label image of any size, lazily and tile by tile.

    Each tile is computed with as much of its surroundings as its weights can depend on, with these settings:

        distance="logconv"      ks // 2 pixels, all that the window holds
        distance="euclidean"    as far as an instance changes a weight at all, about 7 times the larger of bws
                                and fds

    The result is that of the whole image up to rounding (float32: 1e-6, relative to weights above 1). Refused
    are settings with which a weight depends on the whole image: `border="farthest"`, where every instance of
    the image has a say, and LogConv with `ks=None`, whose window is unbounded.

    Args:
        array: instance ids [H, W] or [B, H, W], the same in all tiles: a Dask array, or what has `shape`,
            `dtype` and slices, such as zarr, h5py and NumPy arrays.
        classes, ignore: None, or arrays of the shape of `array`, for `fastlogconv.weight_map`.
        settings: those of `fastlogconv.WeightTransform`, by keyword, with the defaults of
            `fastlogconv.weight_map`.

    Returns:
        A Dask array of weights of the same shape, chunked as `array` is (chunks smaller than the
        surroundings are merged); float32 for integer and bool labels, else the labels' dtype. Nothing is read
        before it is computed, and one thread computes each tile, so Dask's schedulers, distributed ones
        included, decide how many run at once.

    Raises:
        TypeError, ValueError: at once for settings, shapes and dtypes that are wrong, or settings that are
            refused; for a tensor, a masked array and one of the shape [H, W, 1]; for labels that are no ids,
            as `fastlogconv.weight_map`, when computed.
    """
    transform = weight_transform(settings)
    labels = _as_dask(array, "array")
    if labels.ndim not in (2, 3):
        raise ValueError(f"array must have the shape [H, W] or [B, H, W], got {labels.shape}")
    check_no_trailing_channel(labels.shape, "array", "[H, W] or [B, H, W]")
    beside = {"classes": classes, "ignore": ignore}
    beside = {name: _beside(value, name, labels) for name, value in beside.items() if value is not None}
    pixels = {name: np.zeros((1, 1), value.dtype) for name, value in beside.items()}
    meta = weights_like(transform, np.zeros((1, 1), labels.dtype), **pixels)
    reach = _reach(transform.settings, meta)
    if labels.size == 0:
        return da.empty(labels.shape, dtype=meta.dtype, chunks=labels.chunks)
    return da.map_overlap(
        functools.partial(_tile, transform, tuple(beside)),
        labels,
        *beside.values(),
        depth={axis: min(reach, labels.shape[axis]) for axis in (labels.ndim - 2, labels.ndim - 1)},
        boundary="none",
        dtype=meta.dtype,
        meta=meta[:0, :0],
    )


def store(array, path, *, classes=None, ignore=None, progress: bool = True, **settings):
    """Computes `weight_map` into a zarr array, and goes on where an earlier call was interrupted.

    A chunk that is there is not computed again: zarr writes whole chunks or none. It goes on with an array
    that was begun with the same settings, wherever its labels came from: remove it when labels have changed.

    Args:
        array, classes, ignore, settings: as for `weight_map`.
        path: where the zarr array is, or is to be: a folder or a store of zarr.
        progress: True shows a progress bar, with the schedulers of this machine (a distributed one has its
            dashboard).

    Returns:
        The `zarr.Array`, complete, chunked as the result of `weight_map`.

    Raises:
        TypeError, ValueError: as for `weight_map`; ValueError also if there is an array of another shape,
            dtype or chunks, one that was begun with other settings, or a group of arrays.
    """
    import zarr

    weights = weight_map(array, classes=classes, ignore=ignore, **settings)
    weights = weights.rechunk(weights.chunksize)
    beside = ["classes"] * (classes is not None) + ["ignore"] * (ignore is not None)
    description = ", ".join([repr(weight_transform(settings)), *beside])
    target = _open(zarr, path, weights, description)
    missing = [index for index in np.ndindex(weights.numblocks) if not _is_stored(zarr, target, index)]
    if missing:
        with ProgressBar() if progress else contextlib.nullcontext():
            da.store(
                [weights.blocks[index] for index in missing],
                [target] * len(missing),
                regions=[_region(weights, index) for index in missing],
                lock=False,
            )
    return target


def _as_dask(array, name: str) -> da.Array:
    if isinstance(array, da.Array):
        if any(map(math.isnan, array.shape)):
            raise ValueError(f"{name} has chunks of unknown sizes: call its compute_chunk_sizes() first")
        return array
    if isinstance(array, torch.Tensor):
        raise TypeError(
            f"{name} of fastlogconv.large must be a Dask, zarr, h5py or NumPy array, got a torch.Tensor: "
            f"pass {name}.numpy(), or take fastlogconv.weight_map"
        )
    if isinstance(array, np.ma.MaskedArray):
        plain_array(array, name)
    if not all(hasattr(array, attribute) for attribute in ("shape", "dtype", "__getitem__")):
        raise TypeError(
            f"{name} must be a Dask array or have shape, dtype and slices, got {type(array).__name__}"
        )
    with dask.config.set({"array.chunk-size": TILE}):
        return da.from_array(array)


def _beside(array, name: str, labels: da.Array) -> da.Array:
    array = _as_dask(array, name)
    if array.shape != labels.shape:
        raise ValueError(f"{name} must have the shape {labels.shape} of the labels, got {array.shape}")
    return array


def _reach(settings: WeightSettings, weights: np.ndarray) -> int:
    """How many pixels away, along an axis, an instance can change a weight."""
    if BORDERS[settings.border].every_instance:
        raise ValueError(
            f"border={settings.border!r} depends on every instance of the image, so that tiles cannot be "
            "computed by themselves: choose border='second_nearest'"
        )
    if DISTANCES[settings.distance].windowed:
        if settings.ks is None:
            raise ValueError(
                "ks=None makes each weight depend on the whole image: choose a ks, or distance='euclidean'"
            )
        return settings.radius
    # A hundred such instances leave no trace.
    smallest = np.finfo(np.promote_types(weights.dtype, np.float32)).eps / 128
    foreground = gaussian_reach(settings.fds, 1, smallest)
    return math.ceil(max(foreground, gaussian_reach(settings.bws, settings.bwf, smallest)))


def _tile(transform: WeightTransform, names: tuple[str, ...], labels: np.ndarray, *beside) -> np.ndarray:
    with native.one_thread():  # Dask runs a task on each core
        return weights_like(transform, labels, **dict(zip(names, beside, strict=True)))


# ---------------------------------------------------------------------------------------------------- zarr


def _open(zarr, path, weights: da.Array, description: str):
    """The zarr array of these weights, with what is in it already."""
    try:
        target = zarr.open_array(path, mode="r+", config={"write_empty_chunks": True})
    except FileNotFoundError:
        return zarr.create_array(
            path, shape=weights.shape, chunks=weights.chunksize, dtype=weights.dtype, fill_value=math.nan,
            attributes={"fastlogconv": description}, config={"write_empty_chunks": True},
        )  # fmt: skip
    except zarr.errors.NodeTypeValidationError as error:
        raise ValueError(f"{path} holds something else than an array: {error}") from error
    for what, stored, wanted in (
        ("shape", target.shape, weights.shape),
        ("dtype", target.dtype, weights.dtype),
        ("chunks", target.chunks, weights.chunksize),
        ("settings", target.attrs.get("fastlogconv"), description),
    ):
        if stored != wanted:
            raise ValueError(f"{path} holds an array of other {what}: {stored}, not {wanted}")
    return target


def _is_stored(zarr, target, index: tuple[int, ...]) -> bool:
    key = (target.store_path / target.metadata.encode_chunk_key(index)).path
    return zarr.core.sync.sync(target.store.exists(key))


def _region(weights: da.Array, index: tuple[int, ...]) -> tuple[slice, ...]:
    starts = [sum(chunks[:i]) for chunks, i in zip(weights.chunks, index, strict=True)]
    sizes = [chunks[i] for chunks, i in zip(weights.chunks, index, strict=True)]
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
