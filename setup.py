"""Builds the native libraries: plain C++ and CUDA behind a C interface, without torch and Python's headers.

The CUDA library is built where nvcc is found, on the PATH or in CUDA_HOME. Environment variables:
FASTLOGCONV_CUDA        0: not even then; 1: it has to be
FASTLOGCONV_CUDA_ARCHS  compute capabilities to compile for, "80;90" say; default: those of CUDA_ARCHS
"""

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# fastlogconv/backends/native.py loads the libraries by these names from beside the package's Python files.
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
OBJECTS = Path("build", f"objects.{sysconfig.get_platform()}")  # named by content: all builds share them
FLAGS = (
    "-std=c++20 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -fvisibility=hidden -pthread "
    "-Wall -Wextra -Icsrc"
)
LINK_FLAGS = "-shared -pthread"
if sys.platform == "win32":
    LINK_FLAGS += " -static"
else:
    FLAGS += " -fPIC"

# csrc/cpu/*.cpp is compiled once; csrc/cpu/simd/*.cpp once for each of these, among which the former chooses.
INSTRUCTION_SETS = {"baseline": ""}
if platform.machine().lower() in ("x86_64", "amd64") and sys.maxsize > 2**32:
    INSTRUCTION_SETS["avx2"] = "-mavx2 -mfma"
    INSTRUCTION_SETS["avx512"] = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512"

# A GPU runs what was compiled for its own capability, or for a lower one of the same major number; newer GPUs
# compile the PTX of the newest for themselves.
CUDA_ARCHS = (75, 80, 90, 100, 120)
NVCC_FLAGS = "-std=c++17 -O3 --threads 0 -cudart static -Icsrc"
if sys.platform != "win32":
    NVCC_FLAGS += " -Xcompiler -fPIC,-fvisibility=hidden"

NO_NVCC = """\
fastlogconv's CUDA library cannot be built: {problem}
It needs nvcc of the CUDA toolkit, 12 or newer, on the PATH or in CUDA_HOME. With FASTLOGCONV_CUDA=0 it is
left out, and CUDA tensors are served by Triton alone."""

NO_COMPILER = """\
fastlogconv cannot be built: {problem}
Its native code needs a C++20 compiler with GCC's vector extensions, GCC >= 12 or Clang:
  Debian, Ubuntu   apt install g++
  Fedora           dnf install gcc-c++
  macOS            xcode-select --install
  Windows          LLVM's clang++ or MinGW-w64's g++ (Microsoft's cl cannot compile it)
The environment variable CXX names the compiler to use where it is not on the PATH."""


def find_compiler():
    """The command in CXX, else the first C++ compiler on the PATH, as an argument list."""
    named = shlex.split(os.environ.get("CXX", ""), posix=os.name == "posix")
    for command in [named] if named else [["c++"], ["g++"], ["clang++"]]:
        if Path(command[0]).stem.lower() in ("cl", "clang-cl"):
            sys.exit(NO_COMPILER.format(problem=f"CXX is {command[0]}, which does not take GCC's options."))
        if shutil.which(command[0]):
            return command
    looked = f"CXX is {named[0]}, which is not there." if named else "no c++, g++ or clang++ on the PATH."
    sys.exit(NO_COMPILER.format(problem=looked))


def find_nvcc():
    """nvcc, where the CUDA library is to be built; else None."""
    wanted = os.environ.get("FASTLOGCONV_CUDA", "")
    if wanted == "0":
        return None
    folders = [
        os.environ.get("PATH", ""),
        *(os.path.join(os.environ.get(v, ""), "bin") for v in ("CUDA_HOME", "CUDA_PATH")),
    ]
    nvcc = shutil.which("nvcc", path=os.pathsep.join(folders))
    if nvcc is None and wanted == "1":
        sys.exit(NO_NVCC.format(problem="nvcc was not found, and FASTLOGCONV_CUDA is 1."))
    return nvcc


def run(command, message):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.stdout or done.returncode:
        print(shlex.join(command), done.stdout, sep="\n", file=sys.stderr, flush=True)
    if done.returncode:
        sys.exit(message.format(problem=f"{command[0]} failed; its message stands above."))


def compile_object(command, source, message=NO_COMPILER):
    """Compiles one source, unless the same text was compiled in the same way before."""
    command = [*command, "-c", str(source)]
    texts = [source.read_bytes(), *(header.read_bytes() for header in sorted(Path("csrc").rglob("*.h")))]
    key = hashlib.sha256(b"\0".join([shlex.join(command).encode(), *texts])).hexdigest()[:16]
    target = OBJECTS / f"{source.stem}-{key}.o"
    if not target.exists():
        unfinished = target.with_suffix(f".{os.getpid()}.o")
        run([*command, "-o", str(unfinished)], message)
        unfinished.replace(target)
    return str(target)


def build_cpu(library):
    compiler = find_compiler()
    have = " ".join(f"-DFLC_HAVE_{name.upper()}" for name in INSTRUCTION_SETS if name != "baseline")
    jobs = [(source, have) for source in sorted(Path("csrc/cpu").glob("*.cpp"))]
    for source in sorted(Path("csrc/cpu/simd").glob("*.cpp")):
        jobs += [(source, f"-DFLC_ISA={name} {flags}") for name, flags in INSTRUCTION_SETS.items()]
    OBJECTS.mkdir(parents=True, exist_ok=True)

    def compile_job(job):
        source, flags = job
        options = shlex.split(" ".join([FLAGS, flags, os.environ.get("CXXFLAGS", "")]))
        return compile_object([*compiler, *options], source)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_job, jobs))
    link_flags = shlex.split(" ".join([LINK_FLAGS, os.environ.get("LDFLAGS", "")]))
    run([*compiler, *objects, *link_flags, "-o", library], NO_COMPILER)


def cuda_archs(nvcc):
    """The compute capabilities to compile for, ascending."""
    listed = subprocess.run([nvcc, "--list-gpu-arch"], stdout=subprocess.PIPE, text=True, check=False).stdout
    known = {int(number) for number in re.findall(r"compute_(\d+)", listed)}
    named = re.findall(r"\d+", os.environ.get("FASTLOGCONV_CUDA_ARCHS", "").replace(".", ""))
    archs = sorted(map(int, named)) or [arch for arch in CUDA_ARCHS if arch in known]
    unknown = set(archs) - known
    if unknown or not archs:
        problem = (
            f"{nvcc} knows compute capabilities {sorted(known)}, not {sorted(unknown) or list(CUDA_ARCHS)}."
        )
        sys.exit(NO_NVCC.format(problem=problem))
    return archs


def build_cuda(library):
    nvcc = find_nvcc()
    archs = cuda_archs(nvcc)
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    targets.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    command = [nvcc, *shlex.split(NVCC_FLAGS), *targets]
    OBJECTS.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sources = sorted(Path("csrc/cuda").glob("*.c*"))
        objects = list(pool.map(lambda source: compile_object(command, source, NO_NVCC), sources))
    run([*command, "-shared", *objects, "-o", library], NO_NVCC)


LIBRARIES = {"fastlogconv.libfastlogconv_cpu": build_cpu}
if find_nvcc() is not None:
    LIBRARIES["fastlogconv.libfastlogconv_cuda"] = build_cuda


class BuildLibraries(build_ext):
    """Each "extension" is a shared library for ctypes: no Python headers, no ABI tag in its name."""

    def get_ext_filename(self, fullname):
        return os.path.join(*fullname.split(".")) + SUFFIX

    def build_extension(self, ext):
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_name(library.name + ".unfinished")
        LIBRARIES[ext.name](str(unfinished))
        unfinished.replace(library)  # never written in place: a running process may have it mapped


class PlatformWheel(bdist_wheel):
    """One wheel for every Python: the library depends on the platform alone."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2].replace("universal2", platform.machine())


setup(
    ext_modules=[Extension(name, sources=[]) for name in LIBRARIES],
    cmdclass={"build_ext": BuildLibraries, "bdist_wheel": PlatformWheel},
)
