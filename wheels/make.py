"""Makes the sdist and the wheels in dist/, on Linux: python -m wheels.make [--again] [SYSTEM ...]

--again makes everything a second time elsewhere, from nothing, and compares the bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

from . import check
from .systems import SYSTEMS

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
BUILD = "import sys; from wheels import backend; getattr(backend, 'build_' + sys.argv[1])(sys.argv[2])"


def source_date() -> int:
    """SOURCE_DATE_EPOCH, or when the last commit was made."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
        given = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return int(given or 1767225600)  # of a tree that is no checkout: 2026


def build(what: str, tree: Path, folder: Path, date: int, **environment: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if k not in ("CXX", "CXXFLAGS", "LDFLAGS")}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(folder)],
        cwd=tree,
        env=kept | {"SOURCE_DATE_EPOCH": str(date)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout)
    print(
        *(line for line in done.stdout.splitlines() if line.startswith("fastlogconv:")), sep="\n", flush=True
    )
    (made,) = folder.iterdir()
    return made


def same_zip(path: Path, date: int) -> None:
    """The same files in a zip that tells nothing of when and where: sorted, one date, plain modes."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files, key=lambda name: (".dist-info/" in name, name)):
            info = zipfile.ZipInfo(name, time.gmtime(max(date, 315619200))[:6])  # zips begin in 1980
            mode = 0o755 if name.endswith((".so", ".dylib", ".dll")) else 0o644
            info.external_attr, info.create_system = (stat.S_IFREG | mode) << 16, 3
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])


def same_tar(path: Path, date: int) -> None:
    """Likewise a tar.gz."""
    with tarfile.open(path) as archive:
        members = [(member, archive.extractfile(member)) for member in archive.getmembers()]
        files = [(member, content.read() if content else b"") for member, content in members]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in sorted(files, key=lambda each: each[0].name):
            entry = tarfile.TarInfo(member.name)
            entry.type, entry.size, entry.mtime = member.type, len(content), date
            entry.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            archive.addfile(entry, io.BytesIO(content))
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=date) as zipped:
        zipped.write(packed.getvalue())


def unpack(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    return tree


def make(names: list[str], work: Path, out: Path, objects: Path) -> list[Path]:
    """The sdist, and from it the wheels; compiled objects are looked for and left in `objects`."""
    date = source_date()
    shutil.rmtree(work, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    sdist = build("sdist", ROOT, work / "sdist", date)
    same_tar(sdist, date)
    made = [Path(shutil.copy2(sdist, out))]
    for name in names:
        tree = unpack(sdist, work / name / "tree")
        folder = objects / f"wheel-objects.{name}"
        folder.mkdir(parents=True, exist_ok=True)
        (tree / "build").mkdir()
        (tree / "build" / folder.name).symlink_to(folder.resolve())
        print(f"{name} ...", flush=True)
        wheel = build("wheel", tree, work / name / "wheel", date, FASTLOGCONV_TARGET=name)
        same_zip(wheel, date)
        made.append(Path(shutil.copy2(wheel, out)))
        check.wheel(made[-1], SYSTEMS[name])
    return made


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m wheels.make", description=__doc__.splitlines()[0])
    parser.add_argument(
        "systems", nargs="*", choices=[*SYSTEMS, []], metavar="SYSTEM", help=", ".join(SYSTEMS)
    )
    parser.add_argument("--again", action="store_true", help="make them twice, and compare")
    given = parser.parse_args()
    names, work = given.systems or list(SYSTEMS), ROOT / "build" / "wheels"
    made = make(names, work / "first", DIST, ROOT / "build")
    if given.again:
        for kept in ("objects", "zig"):
            shutil.rmtree(work / kept, ignore_errors=True)
        # ziglang too keeps what it compiled.
        os.environ |= dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(work / "zig"))
        for one, other in zip(
            made, make(names, work / "second", work / "dist", work / "objects"), strict=True
        ):
            if digest(one) != digest(other):
                sys.exit(f"{one.name} has other bytes when it is made again: {one}, {other}")
        print("made twice, the same bytes each")
    for path in made:
        print(f"{path.stat().st_size / 1e6:6.2f} MB  {digest(path)[:16]}  {path.name}")


if __name__ == "__main__":
    main()
