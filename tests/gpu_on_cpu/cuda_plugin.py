"""A pytest plugin: backend "native" is the CUDA kernels, built for the CPU. `-p gpu_on_cpu.cuda_plugin`

Tensors that a test sends to a device are copied, as they are from the CPU to a GPU: they are new in memory
and in the autograd graph, and without the gaps that a view has between its pixels.
"""

import contextlib

import torch

from .cuda_kernels import load_host_library, serving

_served = contextlib.ExitStack()


def _names_a_device(arguments, options):
    return any(isinstance(value, (str, torch.device)) for value in (*arguments, *options.values()))


def sent(to):
    """Tensor.to, by which tensors sent to a device are new ones."""

    def sending(tensor, *arguments, **options):
        result = to(tensor, *arguments, **options)
        if result is tensor and _names_a_device(arguments, options):
            result = tensor.clone(memory_format=torch.preserve_format)
        return result

    return sending


@contextlib.contextmanager
def copies():
    """Within it, tensors are copied when they are sent to a device."""
    to = torch.Tensor.to
    torch.Tensor.to = sent(to)
    try:
        yield
    finally:
        torch.Tensor.to = to


def pytest_configure():
    _served.enter_context(serving(load_host_library()))
    _served.enter_context(copies())


def pytest_unconfigure():
    _served.close()
