"""Tile by tile as in one piece."""

import importlib
import sys

import dask.array as da
import h5py
import numpy as np
import pytest
import tifffile
import torch
import zarr
from cases import scattered, two_cells, weight_error
from tiles import EUCLIDEAN, LABELS, LOGCONV, NEAR, SHAPE, Rows, error, whole

import fastlogconv
from fastlogconv import large
from fastlogconv.backends import native


@pytest.fixture
def labels():
    return LABELS.copy()


@pytest.mark.parametrize("chunks", [(64, 64), (40, 190), (150, 37), (150, 190)])
@pytest.mark.parametrize("settings", [LOGCONV, EUCLIDEAN], ids=["logconv", "euclidean"])
def test_tiles_are_the_whole(settings, chunks, labels):
    weights = large.weight_map(da.from_array(labels, chunks), **settings)
    assert isinstance(weights, da.Array)
    assert weights.shape == labels.shape
    result = weights.compute()
    assert result.dtype == weights.dtype == np.float32
    assert error(result, whole(labels, **settings)) <= NEAR


def test_defaults_are_those_of_weight_map(labels):
    result = large.weight_map(da.from_array(labels, (80, 100))).compute()
    assert error(result, whole(labels)) <= NEAR


def test_settings_in_one_object(labels):
    settings = fastlogconv.WeightSettings.preset("deepflash2_offline", bws=4, fds=5)
    result = large.weight_map(da.from_array(labels, (80, 100)), **settings.as_dict()).compute()
    assert error(result, whole(labels, settings=settings)) <= NEAR


@pytest.mark.parametrize("ks", [1, 2, 15, 16, 73])
def test_every_window(ks, labels):
    result = large.weight_map(da.from_array(labels, (50, 64)), ks=ks, fds=40, bws=40).compute()
    assert error(result, whole(labels, ks=ks, fds=40, bws=40)) <= NEAR


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float32", "float64", ">i4"])
@pytest.mark.parametrize("settings", [LOGCONV, EUCLIDEAN], ids=["logconv", "euclidean"])
def test_dtypes(settings, dtype, labels):
    array = labels.astype(dtype)
    weights = large.weight_map(da.from_array(array, (90, 100)), **settings)
    expected = whole(array.astype(array.dtype.newbyteorder("=")), **settings)
    assert weights.dtype == weights.compute().dtype == expected.dtype
    assert error(weights.compute(), expected) <= (1e-12 if dtype == "float64" else NEAR)


def test_batch(labels):
    batch = np.stack([labels, labels[::-1], np.zeros_like(labels)])
    weights = large.weight_map(da.from_array(batch, (2, 64, 64)), **LOGCONV).compute()
    assert error(weights, whole(batch, **LOGCONV)) <= NEAR


@pytest.mark.parametrize("shape", [(40, 9), (9, 40), (20, 20), (1, 1), (1, 60), (5, 12, 30)])
@pytest.mark.parametrize("settings", [LOGCONV, EUCLIDEAN], ids=["logconv", "euclidean"])
def test_images_smaller_than_the_surroundings(settings, shape):
    labels = np.random.default_rng(0).integers(0, 3, shape)
    result = large.weight_map(da.from_array(labels, 8), **settings).compute()
    assert result.shape == shape
    assert error(result, whole(labels, **settings)) <= NEAR


@pytest.mark.parametrize("shape", [(0, 9), (9, 0), (0, 9, 9), (2, 0, 3)])
def test_nothing_to_weigh(shape):
    result = large.weight_map(np.zeros(shape, np.uint8)).compute()
    assert (result.shape, result.dtype) == (shape, np.float32)


def test_classes_and_ignore(labels):
    classes = np.where(labels > 0, labels % 3 + 1, 0)
    ignore = np.random.default_rng(0).random(SHAPE) < 0.1
    settings = dict(EUCLIDEAN, ignore_index=7)
    weights = large.weight_map(
        da.from_array(labels, (64, 64)), classes=da.from_array(classes, (50, 50)), ignore=ignore, **settings
    )
    expected = whole(labels, classes=torch.from_numpy(classes), ignore=torch.from_numpy(ignore), **settings)
    assert error(weights.compute(), expected) <= NEAR
    assert (weights.compute()[ignore] == 0).all()


@pytest.mark.parametrize("settings", [dict(bws=10, fds=4, bwf=1000), dict(bws=2, fds=10, bwf=0)], ids=str)
def test_exact_distances_reach_far(settings, labels):
    """Instances far apart, with a seam between: what little they do to each other is there."""
    sparse = np.where(np.isin(labels, (5, 30, 60)), labels, 0)
    weights = large.weight_map(da.from_array(sparse, (64, 64)), distance="euclidean", **settings).compute()
    assert error(weights, whole(sparse, distance="euclidean", **settings)) <= NEAR


def test_large_ids(labels):
    ids = np.where(labels > 0, labels + 2**62, 0)
    result = large.weight_map(da.from_array(ids, (64, 64)), **LOGCONV).compute()
    assert error(result, whole(ids, **LOGCONV)) <= NEAR


def test_nothing_is_read_before_it_is_needed(labels):
    source = Rows(labels)
    weights = large.weight_map(da.from_array(source, (50, 64), meta=labels[:0, :0]), **LOGCONV)
    assert source.reads == []
    corner = weights[:40, :50].compute()
    assert 0 < len(source.reads) <= 4
    assert error(corner, whole(labels, **LOGCONV)[:40, :50]) <= NEAR


def test_each_tile_takes_one_thread(labels, with_threads, monkeypatch):
    taken = []
    original = native._threads
    monkeypatch.setattr(native, "_threads", lambda: (taken.append(original()), original())[1])
    with_threads(2)
    large.weight_map(da.from_array(labels, (50, 64)), **LOGCONV).compute(scheduler="threads")
    whole(labels)
    assert taken[-10:] == [1] * 9 + [2]


def test_from_files(labels, tmp_path):
    expected = whole(labels.astype(np.int32), **LOGCONV)
    array = zarr.create_array(tmp_path / "labels.zarr", data=labels.astype(np.int32), chunks=(64, 64))
    assert error(large.weight_map(array, **LOGCONV).compute(), expected) <= NEAR
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        data = file.create_dataset("labels", data=labels.astype(np.int32), chunks=(64, 64))
        assert error(large.weight_map(data, **LOGCONV).compute(), expected) <= NEAR
    tifffile.imwrite(tmp_path / "labels.tif", labels.astype(np.int32), tile=(64, 64))
    with tifffile.imread(tmp_path / "labels.tif", aszarr=True) as tiles:
        assert (
            error(large.weight_map(zarr.open_array(tiles, mode="r"), **LOGCONV).compute(), expected) <= NEAR
        )


# ----------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(border="farthest"), "depends on every instance of the image"),
        (dict(preset="deepflash2"), "depends on every instance of the image"),
        (dict(ks=None), "depend on the whole image"),
        (dict(bws=0), "bws must be"),
    ],
)
def test_settings_that_are_refused(settings, message, labels):
    with pytest.raises(ValueError, match=message):
        large.weight_map(da.from_array(labels), **settings)


def test_exact_distances_need_no_ks(labels):
    result = large.weight_map(da.from_array(labels, (75, 64)), ks=None, **EUCLIDEAN).compute()
    assert error(result, whole(labels, **EUCLIDEAN)) <= NEAR


def test_arrays_that_are_refused(labels):
    with pytest.raises(ValueError, match=r"array must have the shape \[H, W\] or \[B, H, W\]"):
        large.weight_map(da.zeros((2, 3, 4, 5)))
    with pytest.raises(TypeError, match="array must be a Dask array or have shape"):
        large.weight_map([[0, 1]])
    for dtype in (object, "U1"):
        with pytest.raises(TypeError, match="array must be bool, integer or floating-point up to float64"):
            large.weight_map(np.zeros((9, 9), dtype))
    with pytest.raises(TypeError, match="complex64"):
        large.weight_map(da.zeros((9, 9), dtype=np.complex64))
    with pytest.raises(ValueError, match="ignore must have the shape"):
        large.weight_map(da.from_array(labels), ignore=np.zeros((3, 4), bool))
    with pytest.raises(TypeError, match="ignore must"):
        large.weight_map(da.from_array(labels), ignore=np.zeros(labels.shape, int))
    with pytest.raises(TypeError, match="classes must"):
        large.weight_map(da.from_array(labels), classes=np.zeros(labels.shape, complex))
    with pytest.raises(ValueError, match="array has chunks of unknown sizes"):
        large.weight_map(da.from_array(labels)[da.from_array(labels[:, 0] > 0)])
    with pytest.raises(ValueError, match="whole numbers"):
        large.weight_map(da.from_array(labels + 0.5)).compute()


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.delitem(sys.modules, "fastlogconv.large")
    with pytest.raises(ImportError, match=r'needs Dask: pip install "fastlogconv\[large\]"'):
        importlib.import_module("fastlogconv.large")


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(
    "terms",
    [
        dict(preset="unet2019", bws=3, fds=4),
        dict(preset="unet2019", border_everywhere=True, bws=3, fds=1),
        dict(falloff="none", distance="euclidean", bws=4),
        dict(falloff="nearest", gaps=True, ks=5),
        dict(gaps=True, ks=1),
    ],
    ids=str,
)
def test_published_terms(terms, beside):
    rng = np.random.default_rng(12)
    labels = scattered((70, 90), 60, 8, rng)
    given = dict(
        classes=rng.integers(0, 3, (7, 9)).repeat(10, 0).repeat(10, 1), ignore=rng.random((70, 90)) < 0.05
    )
    given = given if beside else {}
    expected = fastlogconv.weight_map(
        torch.from_numpy(labels), **{k: torch.from_numpy(v) for k, v in given.items()}, **terms
    )
    tiles = large.weight_map(da.from_array(labels, (20, 30)), **given, **terms).compute()
    assert weight_error(torch.from_numpy(tiles), expected) <= 2e-5


@pytest.mark.parametrize("preset", ["unet2019", "deepflash2_offline"])
@pytest.mark.parametrize("spacing", [None, (3.0, 1.0, 0.5)], ids=str)
def test_volumes(spacing, preset):
    rng = np.random.default_rng(13)
    labels = np.stack([scattered((40, 36), 12, 4, rng) for _ in range(20)])
    settings = dict(preset=preset, bws=2, fds=1.5, spacing=spacing, spatial_dims=3)
    expected = fastlogconv.weight_map(torch.from_numpy(labels), **settings)
    tiles = large.weight_map(da.from_array(labels, (10, 20, 18)), **settings).compute()
    assert weight_error(torch.from_numpy(tiles), expected) <= 2e-5
    with pytest.raises(ValueError, match=r"array must have the shape \[D, H, W\] or \[B, D, H, W\]"):
        large.weight_map(labels[0], **settings)


def test_stored_volumes(tmp_path):
    labels = np.zeros((2, 12, 20, 16), np.int32)
    labels[:, 2:5, 3:9, 3:9], labels[:, 2:5, 9:14, 3:9] = 1, 2
    settings = dict(preset="unet2019", bws=1, fds=1, spacing=(2.0, 1.0, 1.0), spatial_dims=3)
    stored = large.store(da.from_array(labels, (1, 6, 10, 8)), tmp_path / "w", progress=False, **settings)
    expected = fastlogconv.weight_map(torch.from_numpy(labels), **settings)
    assert weight_error(torch.from_numpy(stored[:]), expected) <= 2e-5


def test_balance_counts_the_whole():
    with pytest.raises(ValueError, match="balance='frequency' counts the pixels of the whole image"):
        large.weight_map(two_cells(), preset="unet2015")
    labels = two_cells()  # the way that the error tells
    terms = large.weight_map(labels, preset="unet2015", balance="none", fbr=0).compute()
    inside, n = labels > 0, (labels > 0).sum()
    weights = np.where(inside, labels.size / (2 * n), terms + labels.size / (2 * (labels.size - n)))
    expected = fastlogconv.weight_map(torch.from_numpy(labels), preset="unet2015")
    assert weight_error(torch.from_numpy(weights), expected) <= 2e-5


def test_what_is_refused_at_once():
    labels = two_cells()
    with pytest.raises(TypeError, match=r"array of fastlogconv.large must be .*Tensor: pass array.numpy"):
        large.weight_map(torch.from_numpy(labels))
    with pytest.raises(TypeError, match=r"classes of fastlogconv.large must be"):
        large.weight_map(labels, classes=torch.from_numpy(labels))
    with pytest.raises(TypeError, match=r"array must not be a masked array"):
        large.weight_map(np.ma.masked_array(labels))
    with pytest.raises(TypeError, match=r"array must not be masked, .*: pass da.ma.filled\(array, 0\)"):
        large.weight_map(da.from_array(np.ma.masked_array(labels)))
    with pytest.raises(TypeError, match=r"ignore must not be masked"):
        large.weight_map(labels, ignore=da.ma.masked_equal(da.from_array(labels > 0), 0))
    with pytest.raises(ValueError, match=r"images are one column wide: .* pass array\[..., 0\]"):
        large.weight_map(labels[..., None])


@pytest.mark.parametrize("dtype", ["Q", ">i4", ">f8"])
def test_dtypes_of_files(dtype):
    labels = two_cells()
    weights = large.weight_map(da.from_array(labels.astype(dtype), chunks=9)).compute(scheduler="sync")
    np.testing.assert_allclose(weights, fastlogconv.weight_map(torch.from_numpy(labels)), rtol=1e-5)


def test_several_labels_to_ignore():
    labels = np.where(two_cells() == 0, 255, two_cells())
    weights = large.weight_map(labels, ignore_index=[255, 1]).compute(scheduler="sync")
    np.testing.assert_array_equal(weights, labels == 2)
