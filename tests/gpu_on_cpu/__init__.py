"""Runs what the GPU compilers produce on the CPU: PTX, translated to C++, one fiber for each GPU thread.

- `ptx.Module(text)` translates a PTX module, builds it with g++ and launches its kernels on tensors in
  memory. Every access is checked: a pointer may reach the tensors that were passed and nothing else, and two
  warps that touch one word of shared memory without a barrier between them are counted as a race. Shared
  memory begins poisoned, subnormal numbers are 0 where an instruction says so (`.ftz`), and an asynchronous
  copy takes place only when it is waited for. With `profile=True` it counts warp instructions and 32-byte
  sectors of global memory.
- `resources.measure` reads registers, spills, shared memory and occupancy from a compiled kernel.
- `triton_kernels.Emulator` runs the launches of the package's Triton backend, compiled for sm_80 or
  another GPU just as it would get them.
A module that `bench.gpu_counts` can take for a backend has `why_not()`, `resources_by_kernel(labels,
capability, **settings)` and `run(operator, *arguments, **settings)`; see triton_kernels.py.

What such counts may claim: a lower bound on the time, and that one version executes fewer instructions or
moves fewer bytes than another. Never a time. Approximate functions (ex2, lg2, rcp) are the C library's, so
results agree with a GPU's within a tolerance; races between blocks are not seen; a divergent warp is counted
as if its lanes met again at the end of each basic block.
"""

import importlib.util
import platform
import shutil
import sys


def why_not() -> str | None:
    """Why PTX cannot be run here; None where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"PTX runs on x86-64 Linux only, not on {platform.machine()} {sys.platform}"
    if shutil.which("g++") is None:
        return "PTX is run by way of g++, which is not on the PATH"
    return None


def why_no_triton() -> str | None:
    """Why Triton's kernels cannot be compiled and run here; None where they can."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    from fastlogconv.backends.triton_launch import why_too_old

    return why_too_old() or why_not()


def why_no_nvcc() -> str | None:
    """Why CUDA's kernels cannot be compiled for a GPU; None where they can."""
    return None if shutil.which("nvcc") else "nvcc, of the CUDA toolkit, is not on the PATH"
