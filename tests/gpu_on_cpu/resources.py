"""What a compiled kernel takes of a GPU: read from its machine code, without a GPU."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

# Of an SM, by compute capability: threads, registers, bytes of shared memory, blocks. (CUDA C++ Programming
# Guide, "Compute Capabilities".)
LIMITS = {
    80: (2048, 65536, 167936, 32),
    86: (1536, 65536, 102400, 16),
    89: (1536, 65536, 102400, 24),
    90: (2048, 65536, 233472, 32),
    100: (2048, 65536, 233472, 32),
    120: (1536, 65536, 102400, 24),
}
RESERVED_SHARED = 1024  # bytes that every block takes


@dataclasses.dataclass(frozen=True)
class Resources:
    """Of one kernel on one GPU."""

    registers: int  # of a thread
    spills: int  # instructions that load or store what did not fit into registers
    shared_bytes: int
    occupancy: float  # warps that an SM can hold of this kernel, as a part of those it can hold at all


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found:
        return found
    triton = importlib.util.find_spec("triton")
    if triton is not None:
        path = Path(triton.origin).parent / "backends/nvidia/bin" / name
        if path.exists():
            return str(path)
    raise FileNotFoundError(f"{name}: it comes with the CUDA toolkit and with the package triton")


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _occupancy(capability: int, registers: int, threads: int, shared_bytes: int) -> float:
    most_threads, most_registers, most_shared, most_blocks = LIMITS[capability]
    warps = -(-threads // 32)
    registers_of_warp = -(-registers * 32 // 256) * 256
    warps_by_registers = most_registers // registers_of_warp // 4 * 4
    shared_of_block = -(-(shared_bytes + RESERVED_SHARED) // 128) * 128
    blocks = min(
        most_threads // (32 * warps), warps_by_registers // warps, most_shared // shared_of_block, most_blocks
    )
    return blocks * warps * 32 / most_threads


def measure(cubin: bytes, kernel: str, capability: int, threads: int, dynamic_shared: int = 0) -> Resources:
    """What a kernel takes.

    Args:
        cubin: machine code for compute capability `capability` / 10.
        kernel: its name therein, as the linker sees it.
        capability: a key of LIMITS.
        threads: of a block.
        dynamic_shared: bytes of shared memory that the launch adds.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _output(_tool("cuobjdump"), "--dump-resource-usage", file.name)
        code = _output(_tool("nvdisasm"), "-c", file.name)
    found = re.search(rf"Function {re.escape(kernel)}:\s+REG:(\d+).*?SHARED:(\d+)", usage)
    registers, static_shared = int(found[1]), int(found[2])
    if capability >= 90:  # newer assemblers count what is reserved there
        static_shared = max(static_shared - RESERVED_SHARED, 0)
    own_code = next(part for part in code.split("\t.section\t.text.")[1:] if part.startswith(f"{kernel},"))
    spills = len(re.findall(r"\b(?:LDL|STL)\b", own_code))
    shared_bytes = static_shared + dynamic_shared
    return Resources(
        registers, spills, shared_bytes, _occupancy(capability, registers, threads, shared_bytes)
    )
