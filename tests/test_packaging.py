"""What is built from the sources: sdist, wheel, library; and what is said where it cannot be."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import fastlogconv
from wheels.not_of_the_package import NOT_OF_THE_PACKAGE

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "libfastlogconv_cpu" + {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

# Builds with setuptools alone, whatever else is installed here.
BUILD = """
import sys
for absent in ("torch", "numpy", "scipy", "fastlogconv", *["ziglang"] * (len(sys.argv) < 4)):
    sys.modules[absent] = None
from wheels import backend
getattr(backend, "build_" + sys.argv[1])(sys.argv[2])
"""
REQUIRES = """
import sys
sys.modules["ziglang"] = None
from wheels import backend
print(backend.get_requires_for_build_wheel(), backend.get_requires_for_build_editable())
"""


def run(*command, cwd, **environment):
    """A process without the compiler settings of this one, and without nvcc, which takes its time."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CXX", "CXXFLAGS", "LDFLAGS")}
    kept["FASTLOGCONV_CUDA"] = "0"
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=kept | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def build(what, source, out, *with_ziglang, **environment):
    return run("-c", BUILD, what, out, *with_ziglang, cwd=source, **environment)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The sources as the sdist ships them, beside what was compiled from the very same here before."""
    folder = tmp_path_factory.mktemp("sdist")
    checkout = folder / "checkout"
    clutter = shutil.ignore_patterns(
        ".*", "build", "dist", "demo", "*.egg-info", "__pycache__", "*.so", "*.dylib", "*.dll"
    )
    shutil.copytree(ROOT, checkout, ignore=clutter)
    done = build("sdist", checkout, folder)
    assert done.returncode == 0, done.stdout
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    for objects in ROOT.glob("build/objects.*"):  # by content: a source or header that differs is compiled
        shutil.copytree(objects, source / "build" / objects.name)
    return source


@pytest.fixture(scope="module")
def wheel(unpacked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    done = build("wheel", unpacked, folder)
    assert done.returncode == 0, done.stdout
    (path,) = folder.glob("*.whl")
    return path


def files_under(root, *folders):
    return {path.relative_to(root).as_posix() for folder in folders for path in (root / folder).rglob("*.*")}


def test_sdist_has_what_building_and_testing_needs(unpacked):
    for file in ("setup.py", "Makefile", "README.md", "LICENSE", "tests/conftest.py"):
        assert (unpacked / file).is_file(), file
    assert files_under(unpacked, "csrc", "tests/data") == files_under(ROOT, "csrc", "tests/data")


def test_wheel_is_for_every_python_of_this_platform(wheel):
    name, version, python, abi, platform = wheel.stem.split("-")
    assert (name, python, abi) == ("fastlogconv", "py3", "none")
    assert platform != "any"
    with zipfile.ZipFile(wheel) as archive:
        assert f"Tag: py3-none-{platform}\n" in archive.read(f"{name}-{version}.dist-info/WHEEL").decode()
        assert "Root-Is-Purelib: false\n" in archive.read(f"{name}-{version}.dist-info/WHEEL").decode()
        files = set(archive.namelist())
        entry_points = archive.read(f"{name}-{version}.dist-info/entry_points.txt").decode()
    assert f"fastlogconv/{LIBRARY}" in files
    assert {Path(file).parts[0] for file in files} == {"fastlogconv", f"fastlogconv-{version}.dist-info"}
    assert "fastlogconv = fastlogconv.__main__:main" in entry_points
    modules = {file for file in files_under(ROOT, "fastlogconv") if file.endswith(".py")}
    modules |= {f"fastlogconv/{file}" for file in files_under(ROOT, "kernels") if file.endswith(".py")}
    assert {file for file in files if file.endswith(".py")} == modules


def test_wheel_works_where_it_is_unpacked(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    program = """
import fastlogconv, fastlogconv.kernels, torch
print(fastlogconv.__file__, fastlogconv.kernels.__file__, sep="\\n")
labels = torch.tensor([[1, 0, 0, 2]])
native, reference = (fastlogconv.weight_map(labels, backend=name) for name in ("native", "reference"))
print(torch.allclose(native, reference, rtol=1e-5, atol=0))
"""
    done = run("-c", program, cwd=tmp_path / "elsewhere", PYTHONPATH=str(tmp_path / "site"))
    site = tmp_path / "site" / "fastlogconv"
    expected = [str(site / "__init__.py"), str(site / "kernels" / "__init__.py"), "True"]
    assert done.stdout.splitlines() == expected


def test_python_started_in_a_source_tree_says_so(tmp_path):
    """It imports the tree in place of what is installed: the tree has no library."""
    tree = tmp_path / "fastlogconv-1.0"
    shutil.copytree(
        ROOT / "fastlogconv", tree / "fastlogconv", ignore=shutil.ignore_patterns("*.so", "*.dylib")
    )
    program = "import fastlogconv, torch; fastlogconv.weight_map(torch.ones(3, 3)); print(fastlogconv.info())"
    usual = r"libfastlogconv_cpu.so was not built: install fastlogconv with a C\+\+ compiler at hand"
    advice = f'Python was started in the source tree .*? Leave {tree}, or run "pip install -e ." in it'
    for is_source, expected, other in ((False, usual, advice), (True, advice, usual)):
        if is_source:
            shutil.copytree(ROOT / "csrc", tree / "csrc")
            shutil.copy(ROOT / "setup.py", tree)
        done = run("-c", program, cwd=tree, PYTHONPATH=str(tree))
        printed = re.sub(r"\s+", " ", done.stdout.replace(".dylib", ".so"))
        assert len(re.findall(expected, printed)) >= 2, printed  # info, and the warning
        assert not re.search(other, printed)


def test_installed_package_has_its_kernels(tmp_path):
    done = run("-c", "import fastlogconv.kernels; print('found')", cwd=tmp_path)
    assert done.stdout == "found\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF symbols with nm")
def test_no_instruction_set_lends_its_code_to_another(unpacked, tmp_path):
    """A function in two object files is linked once: an AVX-512 copy of a shared one would end older CPUs."""
    sources = {path.stem for path in (ROOT / "csrc" / "cpu" / "simd").glob("*.cpp")}
    done = build("wheel", unpacked, tmp_path, LDFLAGS="-Wl,--trace")  # the linker names what it takes
    linked = re.findall(r"build/objects\S+\.o$", done.stdout, re.MULTILINE)
    objects = [unpacked / name for name in linked if Path(name).stem.rsplit("-", 1)[0] in sources]
    assert objects, done.stdout
    for path in objects:
        symbols = subprocess.run(["nm", "--demangle", path], capture_output=True, text=True, check=True)
        shared = re.findall(r" [Wu] (.+)$", symbols.stdout, re.MULTILINE)
        named = [set(re.findall(r"\bflc::(baseline|avx2|avx512|neon)::", name)) for name in shared]
        assert all(named), [name for name, sets in zip(shared, named, strict=True) if not sets]
        assert len(set().union(*named)) <= 1, path


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"CXX": "/nonexistent/g++"}, "CXX is /nonexistent/g++, which is not there."),
        ({"CXX": "cl.exe"}, "CXX is cl.exe, which does not take GCC's options."),
        ({"PATH": "/nonexistent"}, "no c++, g++ (11 or newer) or clang++ on the PATH."),
    ],
)
def test_without_a_compiler_it_says_what_to_install(unpacked, tmp_path, environment, problem):
    done = build("wheel", unpacked, tmp_path, **environment)
    assert done.returncode == 1
    assert f"fastlogconv cannot be built: {problem}" in done.stdout
    assert "apt install g++" in done.stdout
    assert "Traceback" not in done.stdout
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_ziglang_is_a_requirement_of_the_build(unpacked):
    """pip installs it for the build alone."""
    said = "no C++ compiler on the PATH, so ziglang is installed for the build"
    done = run("-c", REQUIRES, cwd=unpacked, PATH="/nonexistent")
    assert done.stdout.count(said) == 2
    assert done.stdout.splitlines()[-1] == "['ziglang>=0.17'] ['ziglang>=0.17']"
    for environment in ({}, {"PATH": "/nonexistent", "CXX": "/opt/bin/g++"}):
        assert run("-c", REQUIRES, cwd=unpacked, **environment).stdout.splitlines()[-1] == "[] []"


def test_a_compiler_that_is_too_old_is_passed_over(unpacked, tmp_path):
    old = tmp_path / "g++"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = run("-c", REQUIRES, cwd=unpacked, PATH=str(tmp_path))
    assert "['ziglang>=0.17']" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="of the target's name")
def test_ziglang_builds_where_it_is_the_only_compiler(unpacked, tmp_path):
    """Which is said; here it is one that only tells what it was called with."""
    (tmp_path / "ziglang").mkdir()
    (tmp_path / "ziglang" / "__main__.py").write_text(
        "import sys; sys.exit('error: ' + ' '.join(sys.argv[1:]))"
    )
    out = tmp_path / "out"
    done = build("wheel", unpacked, out, "ziglang", PATH="/nonexistent", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    target = rf"-target {platform.machine()}-linux-gnu\.2\.17"
    assert re.search(
        rf"^fastlogconv: C\+\+ by .* -m ziglang c\+\+ {target} .*the package ziglang", done.stdout, re.M
    )
    assert re.search(rf"^error: c\+\+ {target} ", done.stdout, re.M)
    assert "cannot be built: ziglang failed as above" in done.stdout
    assert not list(out.glob("*.whl"))


def test_compiler_flags_of_the_environment_are_used_and_errors_are_shown(unpacked, tmp_path):
    """A failing build ends in what to do, in fewer than 20 lines: compilers may say thousands."""
    for environment, named in (
        ({"CXXFLAGS": "-include no_such_header.h"}, "no_such_header.h"),
        ({"LDFLAGS": "-lno_such_library"}, "no_such_library"),
    ):
        done = build("wheel", unpacked, tmp_path, **environment)
        assert done.returncode == 1
        ending = done.stdout.splitlines()
        assert len(ending) < 20 and named in done.stdout, done.stdout
        assert any(line.startswith("fastlogconv cannot be built: c++ failed as above") for line in ending)
        assert ending[-1].startswith("The environment variable CXX names the compiler to use")
        (log,) = re.findall(r"its whole message is in (.+)\.$", done.stdout, re.MULTILINE)
        assert named in (unpacked / log).read_text()
    assert not list(tmp_path.iterdir())


def test_cuda_is_left_out_of_a_tree_that_was_built_with_it(unpacked, wheel, tmp_path):
    (library,) = unpacked.glob(f"build/lib*/fastlogconv/{LIBRARY}")
    (library.parent / LIBRARY.replace("cpu", "cuda")).write_text("of an earlier build")
    done = build("wheel", unpacked, tmp_path, FASTLOGCONV_CUDA="0")
    assert done.returncode == 0, done.stdout
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        libraries = {Path(name).name for name in archive.namelist() if "libfastlogconv" in name}
    assert libraries == {LIBRARY}


def test_version_is_that_of_the_package(wheel):
    """What `fastlogconv.info()` names."""
    assert (
        wheel.name.split("-")[1] == fastlogconv.__version__ == fastlogconv.info()["versions"]["fastlogconv"]
    )
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (\S+)$", citation, re.MULTILINE).group(1) == fastlogconv.__version__
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == fastlogconv.__version__


def test_nvcc_that_is_demanded_but_missing(unpacked, tmp_path):
    done = build(
        "wheel", unpacked, tmp_path, FASTLOGCONV_CUDA="1", PATH="/nonexistent", CUDA_HOME="", CUDA_PATH=""
    )
    assert done.returncode == 1
    assert "nvcc was not found, and FASTLOGCONV_CUDA is 1." in done.stdout
    assert "Traceback" not in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the PATH")
def test_unknown_cuda_archs(unpacked, tmp_path):
    done = build("wheel", unpacked, tmp_path, FASTLOGCONV_CUDA="1", FASTLOGCONV_CUDA_ARCHS="1.2")
    assert done.returncode == 1
    assert re.search(r"knows compute capabilities \[.*\], not \[12\]", done.stdout)
    assert "Traceback" not in done.stdout
    assert not list(tmp_path.iterdir())


def test_tests_of_an_installed_wheel_need_no_sources(tmp_path):
    """Those that `make test-wheels` runs with the tests alone beside the wheel: no module of the others' is
    imported, and none of the files that they are about is read."""
    left_out = {f"{name}.py" for name in NOT_OF_THE_PACKAGE}
    tests = {path.name: path.read_text() for path in (ROOT / "tests").glob("test_*.py")}
    assert left_out <= tests.keys()
    sources = ["pages", "bench", "triton_interpreted", *sorted(NOT_OF_THE_PACKAGE)]
    imports = re.compile(rf"^(import|from) ({'|'.join(sources)})\b", re.MULTILINE)
    wrong = {name: imports.findall(text) for name, text in tests.items() if name not in left_out}
    assert not any(wrong.values()), wrong
    folders = re.compile(r"/ \"(bench|csrc|docs|kernels|wheels)\"")
    found = {name for name, text in tests.items() if name not in left_out and folders.search(text)}
    assert found == {"test_plotting.py"}  # of one test, which needs matplotlib
