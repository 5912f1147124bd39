"""Which compilers build the libraries, and what to say where there are none."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple, NoReturn

from .systems import System, this_system, wanted_system

NO_NVCC = """\
fastlogconv's CUDA library cannot be built: {problem}
It needs nvcc of the CUDA toolkit, 12 or newer, on the PATH or in CUDA_HOME. With FASTLOGCONV_CUDA=0 it is
left out, and CUDA tensors are served by Triton alone."""

NO_COMPILER = """\
fastlogconv cannot be built: {problem}
Its native code needs a C++20 compiler with GCC's vector extensions, GCC >= 11 or Clang:
  any system       pip install ziglang (pip does so by itself where it finds no compiler)
  Debian, Ubuntu   apt install g++
  Fedora           dnf install gcc-c++
  macOS            xcode-select --install
  Windows          LLVM's clang++ or MinGW-w64's g++ (Microsoft's cl cannot compile it)
The environment variable CXX names the compiler to use where it is not on the PATH."""

# Whether a compiler knows what the sources need; on macOS, whether there is one behind the name.
PROBE = """
#if !defined(__clang__) && (!defined(__GNUC__) || __GNUC__ < 11)
#error too old
#endif
"""
CAUSES = re.compile(r"error|undefined|cannot find|not found|no such", re.IGNORECASE)
CAUSES_SHOWN = 5
_first_failure = threading.Lock()


class Compiler(NamedTuple):
    command: list[str]
    system: System
    found: str  # where: for people
    is_zig: bool = False


def zig(system: System, found: str) -> Compiler:
    target = ["-mcpu=baseline"] if system.zig == "native" else ["-target", system.zig]
    # Which sanitizers and debugging symbols it adds of its own accord depends on its version.
    command = [sys.executable, "-m", "ziglang", "c++", *target, "-fno-sanitize=all", "-g0"]
    return Compiler(command, system, found, is_zig=True)


def has_zig() -> bool:
    try:
        return importlib.util.find_spec("ziglang") is not None
    except ValueError:  # a module that was made unavailable
        return False


def on_path() -> list[str] | None:
    """The first C++ compiler on the PATH that is new enough, as an argument list."""
    for name in ("c++", "g++", "clang++"):
        command = [name, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
        if shutil.which(name):
            done = subprocess.run(command, input=PROBE, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return [name]
    return None


def find_compiler() -> Compiler:
    """For FASTLOGCONV_TARGET ziglang; else what CXX names, the first on the PATH, or ziglang."""
    wanted = wanted_system()
    if wanted is not None:
        if not has_zig():
            stop(NO_COMPILER, f"FASTLOGCONV_TARGET is {wanted.name}, which takes the package ziglang.")
        return zig(wanted, f"for {wanted.name}")
    here = this_system()
    named = shlex.split(os.environ.get("CXX", ""), posix=os.name == "posix")
    if named:
        if Path(named[0]).stem.lower() in ("cl", "clang-cl"):
            stop(NO_COMPILER, f"CXX is {named[0]}, which does not take GCC's options.")
        if not shutil.which(named[0]):
            stop(NO_COMPILER, f"CXX is {named[0]}, which is not there.")
        return Compiler(named, here, "named by CXX")
    there = on_path()
    if there is not None:
        return Compiler(there, here, f"found as {shutil.which(there[0])}")
    if has_zig():
        return zig(here, "the package ziglang: no c++, g++ or clang++ on the PATH is new enough")
    stop(NO_COMPILER, "no c++, g++ (11 or newer) or clang++ on the PATH.")


def requires_zig() -> bool:
    """Whether the build takes ziglang, which is still to be installed."""
    if wanted_system() is not None:
        return not has_zig()
    return not os.environ.get("CXX") and not has_zig() and on_path() is None


def find_nvcc() -> str | None:
    """nvcc, where the CUDA library is to be built."""
    wanted = os.environ.get("FASTLOGCONV_CUDA", "")
    target = wanted_system()
    if wanted == "0" or (target is not None and target.name != "linux-x86_64"):
        return None
    folders = [
        os.environ.get("PATH", ""),
        *(os.path.join(os.environ.get(v, ""), "bin") for v in ("CUDA_HOME", "CUDA_PATH")),
    ]
    nvcc = shutil.which("nvcc", path=os.pathsep.join(folders))
    if nvcc is None and wanted == "1":
        stop(NO_NVCC, "nvcc was not found, and FASTLOGCONV_CUDA is 1.")
    return nvcc


def stop(advice: str, problem: str) -> NoReturn:
    sys.exit(advice.format(problem=problem))


def run(command: list[str], advice: str, log: Path) -> None:
    """Runs a compiler. Where it fails, `log` gets all that it said, and people the first causes of it."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode == 0:
        if done.stdout:
            print(shlex.join(command), done.stdout, sep="\n", file=sys.stderr, flush=True)
        return
    log.write_text(f"{shlex.join(command)}\n{done.stdout}")
    if not _first_failure.acquire(blocking=False):  # another thread has said why
        sys.exit(1)
    lines = done.stdout.splitlines()
    causes = [line for line in lines if CAUSES.search(line)] or lines[-CAUSES_SHOWN:]
    print(*(line[:300] for line in causes[:CAUSES_SHOWN]), sep="\n", file=sys.stderr, flush=True)
    name = "ziglang" if "ziglang" in command else Path(command[0]).name
    problem = f"{name} failed as above; its whole message is in {log}."
    print(advice.format(problem=problem), file=sys.stderr, flush=True)
    sys.exit(1)
