"""Tries the wheels of dist/ as far as a Linux machine can: python -m wheels.try_out PYTHON [SYSTEM ...]

linux-x86_64    installed in PYTHON's environment, with no compiler on the PATH: the package's tests
linux-aarch64   its library under qemu-user, against figures of this machine
windows-x86_64  likewise under Wine
linux-x86_64    and under qemu-user with CPUs that lack AVX-512, AVX2, or a system that keeps their registers
macOS           is not run: `make wheels` has looked at symbols and load commands
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from .make import DIST, ROOT, unpack
from .not_of_the_package import OPTIONS
from .systems import SYSTEMS, System

WORK = ROOT / "build" / "try-wheels"

# CPUs as QEMU knows them, and the instruction set that has to be chosen on them.
CPUS = {"Nehalem": "baseline", "Haswell": "avx2", "Haswell,-fma": "baseline", "Haswell,-xsave": "baseline"}
CPUS["Skylake-Server"] = "avx2"  # QEMU keeps no registers of AVX-512
RUNNERS = {
    "linux-aarch64": ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
    "windows-x86_64": ["wine"],
}
NEEDED = "apt-get install qemu-user libc6-arm64-cross wine64 wine"


def wheel_of(system: System) -> Path:
    found = sorted(DIST.glob(f"fastlogconv-*-py3-none-{system.tag}.whl"))
    if len(found) != 1:
        sys.exit(f"dist/ has {len(found)} wheels for {system.name}: run make wheels")
    return found[0]


def run(command: list[str], **options) -> None:
    print("$", *command, flush=True)
    if subprocess.run(command, check=False, **options).returncode:
        sys.exit(f"failed: {' '.join(command)}")


def tests_of_the_package(python: str, sources: Path, arguments: list[str]) -> None:
    """With the wheel and the tests alone: no sources beside them, no compiler."""
    wheel = wheel_of(SYSTEMS["linux-x86_64"])
    run([python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", str(wheel)])
    alone = WORK / "alone"
    shutil.rmtree(alone, ignore_errors=True)
    alone.mkdir(parents=True)
    shutil.copytree(sources / "tests", alone / "tests")
    shutil.copy2(sources / "pyproject.toml", alone)
    environment = os.environ | {"PATH": str(Path(python).parent), "CXX": "", "PYTHONSAFEPATH": "1"}
    where = "import fastlogconv; print(fastlogconv.__file__); print(fastlogconv.info())"
    run([python, "-c", where], cwd=WORK, env=environment)
    run([python, "-m", "pytest", "-q", *OPTIONS, *arguments], cwd=alone, env=environment)


def same_figures(system: System, sources: Path, recorded: Path) -> None:
    folder = WORK / system.name
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(wheel_of(system)) as archive:
        library = archive.extract(f"fastlogconv/libfastlogconv_cpu{system.suffix}", folder)
    program = folder / ("replay.exe" if system.family == "windows" else "replay")
    compiler = [sys.executable, "-m", "ziglang", "c++", "-target", system.zig, "-fno-sanitize=all", "-g0"]
    source = str(sources / "tests" / "replay_calls.cpp")
    run([*compiler, "-std=c++20", "-O2", f"-I{sources / 'csrc'}", source, "-o", str(program)])
    relative = [os.path.relpath(path, folder) for path in (library, recorded)]
    if system.name == "linux-x86_64":
        for name in system.instruction_sets:
            run([str(program), *relative, name], cwd=folder)
        for cpu, expected in CPUS.items():
            command = ["qemu-x86_64", "-cpu", cpu, str(program), *relative]
            print("$", *command, flush=True)
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            print(done.stdout, end="", flush=True)
            if done.returncode or not done.stdout.startswith(f"{expected}: "):
                sys.exit(f"on {cpu} it should have been {expected}: {done.stdout}{done.stderr}")
        return
    environment = os.environ | {"WINEDEBUG": "-all", "WINEPREFIX": str(WORK / "wine")}
    run(
        [*RUNNERS[system.name], str(program), *relative],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m wheels.try_out", description=__doc__.splitlines()[0])
    parser.add_argument(
        "python", help="of an environment with torch and pytest, for the tests of the package"
    )
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help="default: all that can be tried")
    parser.add_argument("--pytest", default="", help="further arguments for it; 'no' leaves these tests out")
    given = parser.parse_args()
    given.python = os.path.abspath(given.python)  # run in other folders; a link, as virtual environments have
    names = given.systems or ["linux-x86_64", *RUNNERS]
    missing = [tool for tool in ("qemu-aarch64", "qemu-x86_64", "wine") if not shutil.which(tool)]
    if missing:
        sys.exit(f"{', '.join(missing)} not found: {NEEDED}")
    WORK.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(WORK / "sources", ignore_errors=True)
    (sdist,) = DIST.glob("fastlogconv-*.tar.gz")
    sources = unpack(sdist, WORK / "sources")
    if "linux-x86_64" in names and given.pytest != "no":
        tests_of_the_package(given.python, sources, shlex.split(given.pytest))
    recorded = WORK / "calls"
    run(
        [given.python, "-W", "ignore", str(sources / "tests" / "recorded_calls.py"), str(recorded), "6"],
        cwd=WORK,
    )
    for name in names:
        same_figures(SYSTEMS[name], sources, recorded)
    print("macOS: not run; make wheels has looked at symbols and load commands")


if __name__ == "__main__":
    main()
