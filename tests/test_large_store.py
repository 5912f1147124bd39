"""Weights stored by `large.store`, and gone on with."""

import errno
import json
import os
import pathlib
import subprocess
import sys

import dask
import dask.array as da
import killed
import numpy as np
import pytest
import torch
import zarr
from tiles import EUCLIDEAN, LABELS, LOGCONV, NEAR, SHAPE, Rows, error, whole
from zarr.storage import LocalStore, MemoryStore, ZipStore

from fastlogconv import large


@pytest.fixture
def labels():
    return LABELS.copy()


def test_store(labels, tmp_path, capsys):
    array = large.store(da.from_array(labels, (64, 64)), tmp_path / "weights.zarr", **LOGCONV)
    assert "100% Completed" in capsys.readouterr().out
    assert array.chunks == (64, 64)
    expected = large.weight_map(da.from_array(labels, (64, 64)), **LOGCONV).compute()
    assert np.array_equal(zarr.open_array(tmp_path / "weights.zarr", mode="r")[:], expected)


@pytest.mark.parametrize("shape", [(150, 190), (2, 150, 190), (9, 40), (1, 1), (0, 9), (9, 0), (2, 0, 3)])
@pytest.mark.parametrize("settings", [LOGCONV, EUCLIDEAN], ids=["logconv", "euclidean"])
def test_store_of_every_shape(settings, shape, labels):
    array = np.resize(labels, shape)
    result = large.store(da.from_array(array, 37), MemoryStore(), progress=False, **settings)
    assert (result.shape, result.dtype) == (shape, np.float32)
    assert array.size == 0 or error(result[:], whole(array, **settings)) <= NEAR


def test_store_classes_and_ignore(labels):
    beside = dict(classes=np.where(labels > 0, labels % 3 + 1, 0), ignore=labels % 7 == 1)
    given = dict(beside, classes=da.from_array(beside["classes"], (50, 50)))
    result = large.store(da.from_array(labels, (64, 64)), MemoryStore(), progress=False, **given, **LOGCONV)
    tensors = {name: torch.from_numpy(array) for name, array in beside.items()}
    assert error(result[:], whole(labels, **tensors, **LOGCONV)) <= NEAR


def test_store_of_chunks_of_many_sizes(labels):
    chunks = ((40, 70, 40), (5, 90, 95))
    result = large.store(da.from_array(labels, chunks), MemoryStore(), progress=False, **LOGCONV)
    assert result.chunks == (70, 95)
    assert error(result[:], whole(labels, **LOGCONV)) <= NEAR


def test_chunks_smaller_than_the_surroundings(labels, tmp_path):
    result = large.store(
        da.from_array(labels, (10, 20)), tmp_path / "weights.zarr", progress=False, **LOGCONV
    )
    assert result.chunks == (20, 20)
    assert error(result[:], whole(labels, **LOGCONV)) <= NEAR


# ---------------------------------------------------------------------------------------------- resumed


@pytest.fixture
def computed(monkeypatch):
    """The shapes of the tiles that were computed, one at a time."""
    shapes, tile = [], large._tile

    def counted(transform, names, labels, *beside):
        shapes.append(labels.shape)
        return tile(transform, names, labels, *beside)

    monkeypatch.setattr(large, "_tile", counted)
    with dask.config.set(scheduler="synchronous"):
        yield shapes


@pytest.fixture
def stored(labels, tmp_path, computed):
    """The weights of 3 x 3 chunks, in a folder."""
    array = large.store(da.from_array(labels, (50, 64)), tmp_path / "s.zarr", progress=False, **LOGCONV)
    assert len(computed) == 9
    computed.clear()
    return array


def chunks_of(array):
    """Their files, in reading order."""
    folder = array.store.root
    return [folder / array.metadata.encode_chunk_key(index) for index in np.ndindex(array.cdata_shape)]


def record_of(chunk):
    column, row = chunk.name, chunk.parent.name
    return chunk.parents[2] / ".fastlogconv" / f"{row}.{column}"


def resumed(labels, path, **changes):
    settings = dict(progress=False, resume=True, **LOGCONV)
    return large.store(da.from_array(labels, (50, 64)), path, **settings | changes)


def test_going_on_must_be_asked_for(labels, stored, computed):
    path, before = stored.store.root, stored[:]
    other = labels[::-1].copy()
    with pytest.raises(
        FileExistsError, match=r"holds an array already: pass resume=True .* or remove .*s\.zarr"
    ):
        large.store(da.from_array(other, (50, 64)), path, progress=False, **LOGCONV)
    assert computed == []
    assert np.array_equal(stored[:], before)
    assert error(resumed(other, path)[:], whole(other, **LOGCONV)) <= NEAR
    assert len(computed) == 9


def test_without_a_path(labels):
    with pytest.raises(TypeError, match="path must be a folder or a store of zarr, got None"):
        large.store(labels, None)


def test_nothing_to_go_on_with(labels, tmp_path):
    result = resumed(labels, tmp_path / "s.zarr")
    assert error(result[:], whole(labels, **LOGCONV)) <= NEAR


def test_all_is_done(labels, stored, computed):
    before = {file: file.stat().st_mtime_ns for file in stored.store.root.rglob("*")}
    resumed(labels, stored.store.root)
    assert computed == []
    assert before == {file: file.stat().st_mtime_ns for file in stored.store.root.rglob("*")}


class FullDisk(LocalStore):
    """Leaves half of the eighth value that it is given, and raises an error."""

    room = 7

    async def set(self, key, value):
        if self.room == 0:
            (self.root / key).write_bytes(value.to_bytes()[: len(value) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= not key.endswith("zarr.json")
        await super().set(key, value)


def test_full_disk(labels, tmp_path, computed):
    with pytest.raises(OSError, match="No space left"):
        resumed(labels, FullDisk(tmp_path / "s.zarr"))
    assert len(computed) == 4  # of 9; the fourth has no record
    assert error(resumed(labels, tmp_path / "s.zarr")[:], whole(labels, **LOGCONV)) <= NEAR
    assert len(computed) == 10


def test_unreadable_labels(labels, tmp_path, computed):
    def store(broken=None):
        tiles = da.from_array(Rows(labels, broken), (30, 38), meta=labels[:0, :0])
        return large.store(tiles, tmp_path / "s.zarr", progress=False, resume=True, **LOGCONV)

    with pytest.raises(OSError, match="disk is gone"):
        store(broken=(0, 0))
    assert len(computed) < 25
    assert error(store()[:], whole(labels, **LOGCONV)) <= NEAR
    assert len(computed) == 25


def _halved(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _with_another_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


DAMAGES = {
    "missing": pathlib.Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "truncated": _halved,
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "another bit": _with_another_bit,
    "no json": lambda file: file.write_bytes(b"\xff{"),
    "other json": lambda file: file.write_bytes(b"[1]"),
}


@pytest.mark.parametrize("of", ["chunk", "record"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_mended(damage, of, labels, stored, computed):
    expected = stored[:]
    for chunk in (chunks_of(stored)[i] for i in (1, 3, 8)):
        DAMAGES[damage](chunk if of == "chunk" else record_of(chunk))
    for count in (3, 0):
        computed.clear()
        assert np.array_equal(resumed(labels, stored.store.root)[:], expected)
        assert len(computed) == count


def test_a_chunk_in_the_place_of_another(labels, stored, computed):
    expected = stored[:]
    chunks = chunks_of(stored)
    chunks[0].write_bytes(chunks[4].read_bytes())
    assert np.array_equal(resumed(labels, stored.store.root)[:], expected)
    assert len(computed) == 1


def test_no_metadata(labels, stored, computed):
    """What is left of an array of other settings is not taken for its own."""
    (stored.store.root / "zarr.json").unlink()
    settings = dict(LOGCONV, bws=8)
    result = large.store(da.from_array(labels, (50, 64)), stored.store.root, progress=False, **settings)
    assert error(result[:], whole(labels, **settings)) <= NEAR


@pytest.mark.parametrize("name", ["array", "classes", "ignore"])
def test_what_has_changed_is_computed_again(name, labels, tmp_path, computed):
    """A pixel changes: all chunks that it is in the surroundings of, and no others."""
    given = dict(array=labels, classes=labels % 3 + 1, ignore=labels < 0)

    def store():
        tiles = {name: da.from_array(array.copy(), (50, 64)) for name, array in given.items()}
        return large.store(**tiles, path=tmp_path / "s.zarr", progress=False, resume=True, **LOGCONV)

    store()
    for (row, column), count in {
        (40, 40): 2,
        (40, 55): 4,
        (2, 2): 1,
        (120, 170): 1,
        (75, 128 + 15): 1,
    }.items():
        computed.clear()
        given[name] = given[name].copy()
        given[name][row, column] = not given[name][row, column]
        beside = {name: torch.from_numpy(given[name]) for name in ("classes", "ignore")}
        assert error(store()[:], whole(given["array"], **beside, **LOGCONV)) <= NEAR
        assert len(computed) == count


def test_labels_of_another_dtype(labels, stored, computed):
    """Ids of another dtype may mean something else, NaN for example: they are computed."""
    resumed(labels.astype(np.int32), stored.store.root)
    assert len(computed) == 9


def test_another_array_is_refused(labels, stored, computed):
    path, tiles = stored.store.root, da.from_array(labels, (50, 64))
    for array, changes, what in (
        (tiles, dict(bws=8), "settings"),
        (tiles, dict(distance="euclidean"), "settings"),
        (tiles, dict(ignore_index=3), "settings"),
        (tiles, dict(ignore=labels == 1), "settings"),
        (tiles, dict(classes=labels), "settings"),
        (da.from_array(labels, (75, 64)), {}, "chunks"),
        (da.from_array(labels[1:], (50, 64)), {}, "shape"),
        (tiles.astype(float), {}, "dtype"),
    ):
        with pytest.raises(ValueError, match=f"an array of other {what}: .* remove .*s.zarr, or choose"):
            large.store(array, path, progress=False, resume=True, **LOGCONV | changes)
    assert computed == []
    array = zarr.create_array(path / "of another library", shape=SHAPE, chunks=(50, 64), dtype="f4")
    for resume in (True, False):  # it may be the labels themselves
        with pytest.raises(ValueError, match=r"that fastlogconv did not store: choose another path$"):
            large.store(tiles, array.store_path, progress=False, resume=resume, **LOGCONV)
    assert computed == []


@pytest.mark.parametrize("resume", [False, True])
def test_no_array(resume, labels, tmp_path):
    path = tmp_path / "s.zarr"
    zarr.create_group(path)
    for metadata in ((path / "zarr.json").read_bytes(), b"", b'{"zarr_format": 3', b'{"node_type": "array"}'):
        (path / "zarr.json").write_bytes(metadata)
        with pytest.raises(ValueError, match=r"s\.zarr holds something else than an array .* remove"):
            large.store(labels, path, progress=False, resume=resume)


def test_zip(labels, tmp_path, computed):
    """Closed after half of the work, and opened again."""
    path, tiles = tmp_path / "s.zip", da.from_array(Rows(labels, (149, 189)), (50, 64), meta=labels[:0, :0])
    with ZipStore(path, mode="w") as zipped, pytest.raises(OSError, match="disk is gone"):
        large.store(tiles, zipped, progress=False, **LOGCONV)
    with ZipStore(path, mode="a") as zipped:
        resumed(labels, zipped)
    assert len(computed) == 9
    with ZipStore(path, mode="r") as zipped:
        assert error(zarr.open_array(zipped, mode="r")[:], whole(labels, **LOGCONV)) <= NEAR


def test_in_a_group(labels, tmp_path, computed):
    group = zarr.create_group(tmp_path / "s.zarr")
    for count in (9, 0):
        computed.clear()
        result = resumed(labels, group.store_path / "weights")
        assert len(computed) == count
    assert list(group) == ["weights"]
    assert error(result[:], whole(labels, **LOGCONV)) <= NEAR


KILLS = 20


@pytest.mark.parametrize("atomic", [True, False])
def test_killed_while_writing(atomic, labels, tmp_path):
    """In a store that renames what it has written, and in one that writes in place, as some disks do."""
    np.save(tmp_path / "labels.npy", labels)
    expected = resumed(labels, tmp_path / "expected.zarr")[:]
    command = [
        sys.executable,
        killed.__file__,
        tmp_path,
        json.dumps(LOGCONV),
        str(KILLS),
        *["atomic"] * atomic,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["killed"] * KILLS
    unfinished = list((tmp_path / "s.zarr").rglob("*.partial"))
    assert bool(unfinished) == atomic
    result = resumed(labels, tmp_path / "s.zarr")
    assert result[:].tobytes() == expected.tobytes()
    assert not list((tmp_path / "s.zarr").rglob("*.partial"))


def test_on_a_cluster(labels, tmp_path):
    from distributed import Client, LocalCluster

    tiles = da.from_array(labels, (64, 64))
    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster,
        Client(cluster),
    ):
        result = large.store(tiles, tmp_path / "weights.zarr", **LOGCONV)
        for chunk in chunks_of(result)[:3]:
            chunk.unlink()
        result = large.store(tiles, tmp_path / "weights.zarr", resume=True, **LOGCONV)
        weights = large.weight_map(tiles, **EUCLIDEAN).compute()
    assert error(result[:], whole(labels, **LOGCONV)) <= NEAR
    assert error(weights, whole(labels, **EUCLIDEAN)) <= NEAR
