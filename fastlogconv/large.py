"""Label images beyond memory: `weight_map` of Dask arrays, tile by tile. Needs Dask, and zarr to store."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import re
import uuid
from typing import NamedTuple

import numpy as np
import torch

from .arrays import check_no_trailing_channel, plain_array
from .backends import native
from .integrations import weight_transform, weights_like
from .numerics import crowd_beyond, gaussian_reach
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
RECORDS = ".fastlogconv"  # in a stored array's folder; a record of each chunk that is done


def weight_map(array, *, classes=None, ignore=None, **settings) -> da.Array:
    """`fastlogconv.weight_map` of a label image of any size, lazily and tile by tile.

    Each tile is computed with as much of its surroundings as its weights can depend on, with these settings:

        distance="logconv"      ks // 2 pixels, all that the window holds
        distance="euclidean"    as far as an instance changes a weight at all: about 8 times the larger of bws
                                and fds, in float64 10 times; divided by the spacing along each axis

    The result is that of the whole image up to rounding. Each of the two is as near to the exact weights as
    `fastlogconv.weight_map` promises, 1e-5 max(1, w) in float32 and 1e-10 max(1, w) in float64, so that they
    differ by at most 2e-5 max(1, w) and 2e-10 max(1, w); docs/large.md says what was measured. Refused are
    settings with which a weight depends on the whole image: `border="farthest"`, where every instance of the
    image has a say, `balance="frequency"`, which counts all pixels, and LogConv with `ks=None`, whose window
    is unbounded.

    Args:
        array: instance ids [H, W] or [B, H, W], with `spatial_dims=3` [D, H, W] or [B, D, H, W], the same in
            all tiles: a Dask array, or what has `shape`,
            `dtype` and slices, such as zarr, h5py and NumPy arrays.
        classes, ignore: None, or arrays of the shape of `array`, for `fastlogconv.weight_map`.
        settings: those of `fastlogconv.WeightTransform`, by keyword, with the defaults of
            `fastlogconv.weight_map`; those of a `WeightSettings` as `**settings.as_dict()`.

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
    job = _job(array, classes, ignore, settings)
    labels, *beside = job.arrays
    if labels.size == 0:
        return da.empty(labels.shape, dtype=job.meta.dtype, chunks=labels.chunks)
    return da.map_overlap(
        functools.partial(_tile, job.transform, job.beside),
        labels,
        *beside,
        depth={axis: min(reach, labels.shape[axis]) for axis, reach in enumerate(job.reach)},
        boundary="none",
        dtype=job.meta.dtype,
        meta=job.meta[:0, :0],
    )


def store(array, path, *, classes=None, ignore=None, resume: bool = False, progress: bool = True, **settings):
    """Computes `weight_map` into a zarr array, and can go on where an earlier call was interrupted.

    When a chunk has been written, a record of it is put beside it (`.fastlogconv` in the array's folder): a
    fingerprint of what its weights depend on, which is the settings and its part of `array`, `classes` and
    `ignore` with its surroundings, and a checksum of its weights. `resume=True` reads both again and keeps
    the chunks that agree with their records. All others are computed: those that are missing, truncated or
    damaged, that have no record, or whose labels have changed since. So the result is the same as that of a
    new store, but all of `array` is read.

    That holds however a call ended, on a local folder as on any store of zarr that keeps what it was given;
    a `zarr.storage.ZipStore` can be read only if it was closed. Folders lose the unfinished files of calls
    that were killed. Only one call at a time may write to an array.

    Args:
        array, classes, ignore, settings: as for `weight_map`.
        path: where the zarr array is to be: a folder or a store of zarr (with Dask's distributed scheduler,
            one that its workers can reach).
        resume: True goes on with an array that is there, if it was begun with the same settings; without
            one it begins. False refuses to.
        progress: True shows a progress bar, with the schedulers of this machine (a distributed one has its
            dashboard).

    Returns:
        The `zarr.Array`, complete, chunked as `array` is, but with chunks of one size, no smaller than the
        surroundings.

    Raises:
        TypeError, ValueError: as for `weight_map`; ValueError also if there is something else than an array
            that this function stored, or, with `resume=True`, an array of another shape, dtype or chunks, or
            one that was begun with other settings, with or without `classes` or `ignore`.
        FileExistsError: there is an array, and `resume` is False.
        OSError: what the store raises, where it cannot be written. Chunks that are done stay.
    """
    import zarr

    if path is None:
        raise TypeError(
            "path must be a folder or a store of zarr, got None: take weight_map for a Dask array"
        )
    job = _job(array, classes, ignore, settings)
    axes = _axes(job)
    target = _open(zarr, path, job, tuple(intervals.size for intervals in axes), resume)
    if target.size == 0:
        return target
    done = da.map_blocks(
        functools.partial(_store_tile, job.transform, job.beside, job.description, target, axes),
        *(_with_surroundings(array, axes) for array in job.arrays),
        chunks=[(1,) * len(intervals.inner) for intervals in axes],
        dtype=bool,
        meta=np.empty((0,) * target.ndim, bool),
        name=f"store-{uuid.uuid4().hex}",  # a cluster must not take it for a call that it remembers
    )
    with ProgressBar() if progress else contextlib.nullcontext():
        done.compute()
    return target


# --------------------------------------------------------------------------------------------------- inputs


class _Job(NamedTuple):
    """What there is to compute."""

    transform: WeightTransform
    arrays: tuple[da.Array, ...]  # labels, and what is beside them
    beside: tuple[str, ...]  # of "classes" and "ignore" those that there are
    meta: np.ndarray  # weights of one pixel
    reach: tuple[int, ...]  # how many pixels away, along each axis, an instance can change a weight
    description: str  # settings, and what is beside the labels


def _job(array, classes, ignore, settings: dict) -> _Job:
    transform = weight_transform(settings)
    labels = _as_dask(array, "array")
    dims = transform.spatial_dims
    shape = "[H, W] or [B, H, W]" if dims == 2 else "[D, H, W] or [B, D, H, W]"
    if labels.ndim not in (dims, dims + 1):
        raise ValueError(f"array must have the shape {shape}, got {labels.shape}")
    if dims == 2:
        check_no_trailing_channel(labels.shape, "array", shape)
    given = {"classes": classes, "ignore": ignore}
    beside = {name: _beside(value, name, labels) for name, value in given.items() if value is not None}
    pixels = {name: np.zeros((1,) * dims, value.dtype) for name, value in beside.items()}
    meta = weights_like(transform, np.zeros((1,) * dims, labels.dtype), **pixels)
    reach = _reach(transform.settings, meta.dtype, labels.shape[labels.ndim - dims :])
    reach = (0,) * (labels.ndim - dims) + reach
    description = ", ".join([repr(transform), *beside])
    return _Job(transform, (labels, *beside.values()), tuple(beside), meta, reach, description)


def _as_dask(array, name: str) -> da.Array:
    if isinstance(array, da.Array):
        if any(map(math.isnan, array.shape)):
            raise ValueError(f"{name} has chunks of unknown sizes: call its compute_chunk_sizes() first")
        if isinstance(array._meta, np.ma.MaskedArray):
            raise TypeError(
                f"{name} must not be masked, for its mask would be lost: pass da.ma.filled(array, 0)"
            )
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
    if np.dtype(array.dtype).kind not in "biufc":
        raise TypeError(f"{name} must be bool, integer or floating-point up to float64, got {array.dtype}")
    with dask.config.set({"array.chunk-size": TILE}):
        return da.from_array(array)


def _beside(array, name: str, labels: da.Array) -> da.Array:
    array = _as_dask(array, name)
    if array.shape != labels.shape:
        raise ValueError(f"{name} must have the shape {labels.shape} of the labels, got {array.shape}")
    return array


def _reach(settings: WeightSettings, dtype: np.dtype, shape: tuple[int, ...]) -> tuple[int, ...]:
    """How many pixels away, along each axis of an image or volume, an instance can change a weight."""
    if BORDERS[settings.border].every_instance:
        raise ValueError(
            f"border={settings.border!r} depends on every instance of the image, so that tiles cannot be "
            "computed by themselves: choose border='second_nearest'"
        )
    if settings.balance == "frequency":
        raise ValueError(
            "balance='frequency' counts the pixels of the whole image, so that tiles cannot be computed by "
            "themselves: compute with balance='none' and fbr=0, then add the background's balance where the "
            "background is, and put the foreground's in the place of 1"
        )
    least = 1 if settings.gaps else 0  # a gap is a matter of neighbours
    if DISTANCES[settings.distance].windowed:
        if settings.ks is None:
            raise ValueError(
                "ks=None makes each weight depend on the whole image: choose a ks, or distance='euclidean'"
            )
        return (max(settings.radius, least),) * len(shape)
    # All instances beyond, and the border terms of all classes, leave no trace together.
    smallest = np.finfo(np.promote_types(dtype, np.float32)).eps / 128

    def reach(sigma: float, factor: float) -> float:
        if len(shape) == 2 and settings.spacing is None:
            crowd = crowd_beyond(sigma, *shape)
        else:
            crowd = float(max(math.prod(shape), 1))  # an instance in every voxel
        return gaussian_reach(sigma, factor, smallest / crowd)

    of_falloff = 0.0 if settings.falloff == "none" else reach(settings.fds, abs(1 - settings.fbr))
    farthest = max(of_falloff, reach(settings.bws, settings.bwf))
    lengths = settings.spacing or (1.0,) * len(shape)
    return tuple(
        max(math.ceil(min(farthest / length, size)), least)
        for length, size in zip(lengths, shape, strict=True)
    )


def _tile(transform: WeightTransform, names: tuple[str, ...], labels: np.ndarray, *beside) -> np.ndarray:
    with native.one_thread():  # Dask runs a task on each core
        return weights_like(transform, labels, **dict(zip(names, beside, strict=True)))


# ----------------------------------------------------------------------------- chunks and their surroundings


class _Intervals(NamedTuple):
    """The chunks of an array along an axis."""

    size: int
    inner: list[tuple[int, int]]  # start and stop of each
    outer: list[tuple[int, int]]  # and with its surroundings


def _axes(job: _Job) -> list[_Intervals]:
    labels = job.arrays[0]
    axes = []
    for axis, (length, chunks) in enumerate(zip(labels.shape, labels.chunks, strict=True)):
        reach = job.reach[axis]
        size = max(*chunks, 1)
        size = max(1, min(size * math.ceil(max(reach, 1) / size), length))
        inner = [(start, min(start + size, length)) for start in range(0, length, size)]
        outer = [(max(start - reach, 0), min(stop + reach, length)) for start, stop in inner]
        axes.append(_Intervals(size, inner, outer))
    return axes


def _with_surroundings(array: da.Array, axes: list[_Intervals]) -> da.Array:
    """The outer intervals one behind the other, a chunk each."""
    for axis, intervals in enumerate(axes):
        before = (slice(None),) * axis
        array = da.concatenate([array[(*before, slice(*outer))] for outer in intervals.outer], axis)
        array = array.rechunk({axis: tuple(stop - start for start, stop in intervals.outer)})
    return array


# ---------------------------------------------------------------------------------------------------- zarr


def _open(zarr, path, job: _Job, chunks: tuple[int, ...], resume: bool):
    """The zarr array of these weights, with what is in it already."""
    shape, dtype = job.arrays[0].shape, job.meta.dtype
    try:
        target = zarr.open_array(path, mode="r+", config={"write_empty_chunks": True})
    except FileNotFoundError:
        return zarr.create_array(
            path, shape=shape, chunks=chunks, dtype=dtype, fill_value=math.nan,
            attributes={"fastlogconv": job.description}, config={"write_empty_chunks": True},
        )  # fmt: skip
    except (ValueError, KeyError) as error:  # a group, or metadata that are damaged
        raise ValueError(
            f"{path} holds something else than an array that zarr can read ({error!r}): remove {path}, or "
            "choose another path"
        ) from error
    begun_with = target.attrs.get("fastlogconv")
    if begun_with is None:  # perhaps the labels themselves: nothing to be removed
        raise ValueError(f"{path} holds an array that fastlogconv did not store: choose another path")
    if not resume:
        raise FileExistsError(
            f"{path} holds an array already: pass resume=True to go on with it, where what is there and "
            f"right is kept, or remove {path}"
        )
    for what, stored, wanted in (
        ("settings", begun_with, job.description),  # the chunks depend on them
        ("shape", target.shape, shape),
        ("dtype", target.dtype, dtype),
        ("chunks", target.chunks, chunks),
    ):
        if stored != wanted:
            raise ValueError(
                f"{path} holds an array of other {what}: {stored}, not {wanted}; remove {path}, or choose "
                "another path"
            )
    if isinstance(target.store, zarr.storage.LocalStore):
        zarr.core.sync.sync(_remove_unfinished(target.store_path))
    return target


async def _remove_unfinished(path) -> None:
    """Removes the files that zarr would have renamed if it had not been killed."""
    async for key in path.store.list_prefix(path.path):
        if re.search(r"\.[0-9a-f]{32}\.partial$", key):
            await path.store.delete(key)


def _store_tile(
    transform: WeightTransform,
    names: tuple[str, ...],
    description: str,
    target,
    axes: list[_Intervals],
    labels: np.ndarray,
    *beside: np.ndarray,
    block_id: tuple[int, ...],
) -> np.ndarray:
    """Computes a chunk and writes it and its record, unless they are there; whether it did."""
    inner = [intervals.inner[i] for intervals, i in zip(axes, block_id, strict=True)]
    outer = [intervals.outer[i] for intervals, i in zip(axes, block_id, strict=True)]
    region = tuple(slice(*interval) for interval in inner)
    record = _Record(target, block_id)
    made_from = _fingerprint(description, labels, *beside)
    stored = record.read()
    if stored.get("made_from") == made_from and stored.get("weights") == _stored_weights(target, region):
        return np.zeros((1,) * labels.ndim, bool)
    weights = _tile(transform, names, labels, *beside)
    weights = weights[
        tuple(slice(start - at, stop - at) for (start, stop), (at, _) in zip(inner, outer, strict=True))
    ]
    target[region] = weights
    record.write({"made_from": made_from, "weights": _fingerprint("", weights)})
    return np.ones((1,) * labels.ndim, bool)


def _fingerprint(text: str, *arrays: np.ndarray) -> str:
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _stored_weights(target, region: tuple[slice, ...]) -> str | None:
    """The fingerprint of a chunk, None where it cannot be read."""
    try:
        return _fingerprint("", target[region])
    except Exception:  # of the store or of any codec; what is the matter shows when it is written again
        return None


class _Record:
    """What is known of a chunk that is done."""

    def __init__(self, target, index: tuple[int, ...]):
        self.path = target.store_path / RECORDS / ".".join(map(str, index))

    def read(self) -> dict:
        """Empty where there is none or it cannot be read."""
        from zarr.core.sync import sync

        try:
            record = json.loads(sync(self.path.get()).to_bytes())
        except Exception:  # as for `_stored_weights`
            return {}
        return record if isinstance(record, dict) else {}

    def write(self, record: dict) -> None:
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        sync(self.path.set(default_buffer_prototype().buffer.from_bytes(json.dumps(record).encode())))
