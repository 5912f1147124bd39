"""Compiles and links the libraries: plain C++, and CUDA, behind the C interface of csrc/fastlogconv.h."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .compilers import NO_COMPILER, NO_NVCC, Compiler, find_compiler, find_nvcc, run, stop, zig
from .systems import System, wanted_system

FLAGS = (
    "-std=c++20 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -fvisibility=hidden -pthread "
    "-Wall -Wextra -Icsrc"
)

# A GPU runs what was compiled for its own capability, or for a lower one of the same major number; newer GPUs
# compile the PTX of the newest for themselves.
CUDA_ARCHS = (75, 80, 90, 100, 120)
NVCC_FLAGS = "-std=c++17 -O3 --threads 0 -cudart static -Icsrc"


def objects_folder() -> Path:
    """Objects are named by content: all builds for a system share them."""
    target = wanted_system()
    name = f"objects.{sysconfig.get_platform()}" if target is None else f"wheel-objects.{target.name}"
    folder = Path("build", name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def compile_object(command: list[str], source: Path, advice: str) -> str:
    """Compiles one source, unless the same text was compiled in the same way before."""
    command = [*command, "-c", source.as_posix()]
    headers = [*Path("csrc").glob("*.h"), *Path(*source.parts[:2]).rglob("*.h")]  # csrc/cpu, or csrc/cuda
    texts = [path.read_bytes() for path in (source, *sorted(headers))]
    key = hashlib.sha256(b"\0".join([shlex.join(command).encode(), *texts])).hexdigest()[:16]
    target = objects_folder() / f"{source.stem}-{key}.o"
    if not target.exists():
        unfinished = target.with_suffix(f".{os.getpid()}.o")
        run([*command, "-o", str(unfinished)], advice, target.with_suffix(".failed.log"))
        unfinished.replace(target)
    return str(target)


def _flags_of(system: System) -> str:
    return FLAGS if system.family == "windows" else f"{FLAGS} -fPIC"


def _link_flags_of(compiler: Compiler) -> str:
    flags = "-shared -pthread"
    if compiler.system.family == "windows" and not compiler.is_zig:
        flags += " -static"  # as ziglang does by itself
    elif compiler.system.family == "windows":
        flags += " -s"  # else the library names its debugging symbols, by another number each time
    elif compiler.system.family == "macos":
        # Else it names the folders that it and its objects were made in.
        flags += " -Wl,-install_name,@rpath/libfastlogconv_cpu.dylib -Wl,-S"
    elif compiler.is_zig and compiler.system.family == "linux":
        flags += f" {' '.join(_only_ours())}"
    return flags


def _only_ours() -> list[str]:
    """For ziglang's linker: no symbols but the interface, for its C++ library comes along."""
    script = objects_folder() / "exported.map"
    script.write_text("{ global: flc_*; local: *; };\n")
    return [f"-Wl,--version-script={script.as_posix()}", "-Wl,--strip-all"]


def build_cpu(library: str) -> None:
    compiler = find_compiler()
    taken = f"{shlex.join(compiler.command)} ({compiler.found})"
    print(f"fastlogconv: C++ by {taken}", file=sys.stderr, flush=True)
    sets = compiler.system.instruction_sets
    have = " ".join(f"-DFLC_HAVE_{name.upper()}" for name in sets if name not in ("baseline", "neon"))
    jobs = [(source, have) for source in sorted(Path("csrc/cpu").glob("*.cpp"))]
    for source in sorted(Path("csrc/cpu/simd").glob("*.cpp")):
        jobs += [(source, f"-DFLC_ISA={name} {flags}") for name, flags in sets.items()]

    def compile_job(job):
        source, flags = job
        options = [_flags_of(compiler.system), flags, os.environ.get("CXXFLAGS", "")]
        return compile_object([*compiler.command, *shlex.split(" ".join(options))], source, NO_COMPILER)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_job, jobs))
    link_flags = shlex.split(f"{_link_flags_of(compiler)} {os.environ.get('LDFLAGS', '')}")
    link([*compiler.command, *objects, *link_flags], library, NO_COMPILER)


def link(command: list[str], library: str, advice: str) -> None:
    run([*command, "-o", library], advice, objects_folder() / "link.failed.log")


def cuda_archs(nvcc: str) -> list[int]:
    """The compute capabilities to compile for, ascending."""
    listed = subprocess.run([nvcc, "--list-gpu-arch"], stdout=subprocess.PIPE, text=True, check=False).stdout
    known = {int(number) for number in re.findall(r"compute_(\d+)", listed)}
    named = re.findall(r"\d+", os.environ.get("FASTLOGCONV_CUDA_ARCHS", "").replace(".", ""))
    archs = sorted(map(int, named)) or [arch for arch in CUDA_ARCHS if arch in known]
    unknown = set(archs) - known
    if unknown or not archs:
        wrong = sorted(unknown) or list(CUDA_ARCHS)
        stop(NO_NVCC, f"{nvcc} knows compute capabilities {sorted(known)}, not {wrong}.")
    return archs


def static_runtime(nvcc: str) -> str:
    """libcudart_static.a of the toolkit that `nvcc` belongs to."""
    command = [nvcc, "--dryrun", "-x", "cu", os.devnull]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    top = re.search(r"^#\$ TOP=(.+)$", said, re.MULTILINE)
    folders = [Path(top[1]) / name for name in ("lib64", "targets/x86_64-linux/lib", "lib")] if top else []
    for folder in folders:
        if (folder / "libcudart_static.a").is_file():
            return str((folder / "libcudart_static.a").resolve())
    stop(NO_NVCC, f"libcudart_static.a is in none of {', '.join(map(str, folders)) or 'nvcc --dryrun'}.")


def build_cuda(library: str) -> None:
    nvcc = find_nvcc()
    assert nvcc is not None
    archs = cuda_archs(nvcc)
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    targets.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    hidden = [] if sys.platform == "win32" else ["-Xcompiler", "-fPIC,-fvisibility=hidden"]
    command = [nvcc, *shlex.split(NVCC_FLAGS), *hidden, *targets]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sources = sorted(Path("csrc/cuda").glob("*.c*"))
        objects = list(pool.map(lambda source: compile_object(command, source, NO_NVCC), sources))
    target = wanted_system()
    if target is None:
        link([*command, "-shared", *objects], library, NO_NVCC)
    else:  # ziglang links for an old glibc
        flags = ["-shared", "-pthread", "-ldl", "-lrt", *_only_ours()]
        link([*zig(target, "").command, *objects, static_runtime(nvcc), *flags], library, NO_NVCC)


# By the names that fastlogconv/backends/c_interface.py loads them by, from beside the package's Python files.
ALL_LIBRARIES = {"libfastlogconv_cpu": build_cpu, "libfastlogconv_cuda": build_cuda}


def wanted_libraries() -> list[str]:
    return [name for name in ALL_LIBRARIES if name != "libfastlogconv_cuda" or find_nvcc() is not None]
