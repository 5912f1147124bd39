"""A pytest plugin: backend "native" is the CUDA kernels, built for the CPU. `-p gpu_on_cpu.cuda_plugin`"""

import contextlib

from .cuda_kernels import load_host_library, serving

_served = contextlib.ExitStack()


def pytest_configure():
    _served.enter_context(serving(load_host_library()))


def pytest_unconfigure():
    _served.close()
