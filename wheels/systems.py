"""The systems that wheels are made for, and what a library is called and made of on each."""

from __future__ import annotations

import os
import platform
import sys
from typing import NamedTuple


class System(NamedTuple):
    name: str
    zig: str  # the target in ziglang's words
    tag: str  # of a wheel: what its name ends in

    @property
    def family(self) -> str:
        return self.name.split("-")[0]

    @property
    def machine(self) -> str:
        return self.name.split("-")[1]

    @property
    def suffix(self) -> str:
        """As in fastlogconv/backends/c_interface.py."""
        return {"windows": ".dll", "macos": ".dylib"}.get(self.family, ".so")

    @property
    def instruction_sets(self) -> dict[str, str]:
        """Compiler flags for each that csrc/cpu/simd is compiled for; csrc/cpu/dispatch.cpp chooses."""
        if self.machine in ("arm64", "aarch64"):
            return {"neon": ""}
        if self.machine != "x86_64":
            return {"baseline": ""}
        return {
            "baseline": "",
            "avx2": "-mavx2 -mfma",
            "avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512",
        }


SYSTEMS = {
    system.name: system
    for system in (
        # glibc 2.17 is what manylinux2014 has.
        System("linux-x86_64", "x86_64-linux-gnu.2.17", "manylinux2014_x86_64.manylinux_2_17_x86_64"),
        System("linux-aarch64", "aarch64-linux-gnu.2.17", "manylinux2014_aarch64.manylinux_2_17_aarch64"),
        System("macos-arm64", "aarch64-macos.11.0", "macosx_11_0_arm64"),
        System("macos-x86_64", "x86_64-macos.11.0", "macosx_11_0_x86_64"),
        System("windows-x86_64", "x86_64-windows-gnu", "win_amd64"),
    )
}


def this_system() -> System:
    """This machine's, in SYSTEMS or not."""
    family = {"win32": "windows", "darwin": "macos"}.get(sys.platform, sys.platform)
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "i386": "x86"}.get(machine, machine)
    if machine == "x86_64" and sys.maxsize < 2**32:  # a Python of 32 bits
        machine = "x86"
    name = f"{family}-{machine}"
    return SYSTEMS.get(name, System(name, "native", ""))


def wanted_system() -> System | None:
    """The one of SYSTEMS that FASTLOGCONV_TARGET names: ziglang builds for it. None: it is not set."""
    name = os.environ.get("FASTLOGCONV_TARGET", "")
    if not name:
        return None
    if name not in SYSTEMS:
        sys.exit(f"FASTLOGCONV_TARGET is {name!r}, which is none of {', '.join(SYSTEMS)}.")
    return SYSTEMS[name]
