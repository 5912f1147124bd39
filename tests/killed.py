"""Stores weights in a child that is killed inside a write, again and again. Run by test_large.py.

    python tests/killed.py FOLDER SETTINGS KILLS [atomic]

Kill number i comes in the write of a chunk or of its record, by turns, after another part of its bytes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import dask
import dask.array as da
import numpy as np
from zarr.storage import LocalStore, _local

from fastlogconv import large

PARTS = (0.5, 0.0, 1.0, 0.9, 0.1)


class Killed(LocalStore):
    """Is killed while it writes value number `last`, zarr.json not counted, after `part` of its bytes."""

    last, part, atomic, count = 0, 0.0, True, 0

    async def set(self, key, value):
        if key.endswith("zarr.json"):
            return await super().set(key, value)
        number, Killed.count = Killed.count, Killed.count + 1
        if number < self.last:
            return await super().set(key, value)
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        content = value.to_bytes()
        with _local._atomic_write(path, "wb") if self.atomic else path.open("wb") as file:
            file.write(content[: round(self.part * len(content))])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, settings: dict, kills: int, atomic: bool) -> None:
    labels = np.load(folder / "labels.npy")
    Killed.atomic = atomic
    for i in range(kills):
        child = os.fork()  # zarr has not started its thread yet
        if child == 0:
            Killed.last, Killed.part = i % 3, PARTS[i % len(PARTS)]
            with dask.config.set(scheduler="synchronous"):
                tiles = da.from_array(labels, (50, 64))
                large.store(tiles, Killed(folder / "s.zarr"), resume=True, progress=False, **settings)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else status)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]), "atomic" in sys.argv[4:])
