"""Builds the native libraries: plain C++ and CUDA behind a C interface, without torch and Python's headers.

The CUDA library is built where nvcc is found, on the PATH or in CUDA_HOME. Environment variables:
FASTLOGCONV_CUDA        0: not even then; 1: it has to be
FASTLOGCONV_CUDA_ARCHS  compute capabilities to compile for, "80;90" say; default: those of CUDA_ARCHS
FASTLOGCONV_TARGET      a system of wheels/systems.py to build a wheel for, by the package ziglang
CXX, CXXFLAGS, LDFLAGS  the compiler, and what it and the linker are told beside what they need
"""

import os
import platform
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

from wheels import libraries, systems

TARGET = systems.wanted_system()
LIBRARIES = libraries.wanted_libraries()


class BuildLibraries(build_ext):
    """Each "extension" is a shared library for ctypes: no Python headers, no ABI tag in its name."""

    def run(self):
        super().run()
        for name in set(libraries.ALL_LIBRARIES) - set(LIBRARIES):  # of an earlier build with other settings
            for folder in [self.build_lib] + ["."] * bool(self.inplace):
                Path(folder, self.get_ext_filename(f"fastlogconv.{name}")).unlink(missing_ok=True)

    def get_ext_filename(self, fullname):
        return os.path.join(*fullname.split(".")) + (TARGET or systems.this_system()).suffix

    def build_extension(self, ext):
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:  # linkers note the name
            libraries.ALL_LIBRARIES[ext.name.split(".")[-1]](os.path.join(folder, library.name))
            # Never written in place: a running process may have it mapped.
            Path(folder, library.name).replace(library)


class PlatformWheel(bdist_wheel):
    """One wheel for every Python: the library depends on the platform alone."""

    def get_tag(self):
        if TARGET is not None:
            return "py3", "none", TARGET.tag
        return "py3", "none", super().get_tag()[2].replace("universal2", platform.machine())


setup(
    ext_modules=[Extension(f"fastlogconv.{name}", sources=[]) for name in LIBRARIES],
    cmdclass={"build_ext": BuildLibraries, "bdist_wheel": PlatformWheel},
)
