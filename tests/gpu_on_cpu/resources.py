"""What a compiled kernel takes of a GPU: read from its machine code, without a GPU."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

# Of an SM, by compute capability: threads, registers, bytes of shared memory, blocks. (CUDA C++ Programming Guide,
# "Compute Capabilities".)
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
    folders = Path(sysconfig.get_path("purelib"))
    for path in [*folders.glob(f"nvidia/*/bin/{name}"), folders / f"triton/backends/nvidia/bin/{name}"]:
        if path.exists():
            return str(path)
    raise FileNotFoundError(f"{name}: it comes with the CUDA toolkit and with the package triton")


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def measure(cubin: bytes, threads: int, dynamic_shared: int = 0) -> Resources:
    """Reads a cubin of one kernel, to be launched with `threads` a block and so much dynamic shared memory."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        header = _output(_tool("cuobjdump"), "-elf", file.name)
        usage = _output(_tool("cuobjdump"), "--dump-resource-usage", file.name)
        code = _output(_tool("nvdisasm"), "-c", file.name)
    registers, static_shared = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "SHARED"))
    capability = int(re.search(r"sm_(\d+)", header)[1])
    spills = len(re.findall(r"\b(?:LDL|STL)\b", code))
    most_threads, most_registers, most_shared, most_blocks = LIMITS[capability]
    warps = -(-threads // 32)
    per_warp = -(-registers * 32 // 256) * 256
    # CUDA counts RESERVED_SHARED among the static shared memory from compute capability 9.0 on.
    shared = max(static_shared, RESERVED_SHARED) + dynamic_shared
    blocks = min(most_threads // threads, most_registers // (per_warp * warps), most_shared // shared, most_blocks)
    occupancy = blocks * warps * 32 / most_threads
    shared_bytes = dynamic_shared + (static_shared if capability < 90 else static_shared - RESERVED_SHARED)
    return Resources(registers, spills, shared_bytes, occupancy)
