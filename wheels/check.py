"""What a wheel's libraries ask of a system and offer: auditwheel for Linux, lief for macOS and Windows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from .systems import System

ROOT = Path(__file__).resolve().parents[1]
FUNCTION = re.compile(r"^FLC_API .*?\b(flc_\w+)\(", re.MULTILINE)

# What every system of its kind has. auditwheel knows those of Linux.
MACOS_LIBRARIES = {"/usr/lib/libSystem.B.dylib"}
WINDOWS_LIBRARIES = re.compile(r"(KERNEL32|ntdll|api-ms-win-crt-[a-z0-9-]+|ucrtbase)\.dll", re.IGNORECASE)
NEWEST_MACOS = (11, 0)
# What ziglang's linker for macOS cannot hide: the weak operators new and delete of its C++ library.
UNHIDDEN = re.compile(r"__Z(da|dl)Pv|__Zn[aw]m|___dso_handle$|__mh_dylib_header$")


def require(holds: object, what: str) -> None:
    if not holds:
        sys.exit(f"wheels: {what}")


def functions(of: str) -> set[str]:
    """Those of the C interface that the library for `of`, cpu or cuda, exports."""
    names = set(FUNCTION.findall((ROOT / "csrc" / "fastlogconv.h").read_text()))
    cuda = {name for name in names if name.startswith("flc_cuda_")}
    return cuda if of == "cuda" else names - cuda


def wheel(path: Path, system: System) -> None:
    """Ends the program where the wheel is not what its name says, and prints what it holds."""
    name, _, *tag = path.stem.split("-")
    require(
        (name, tag) == ("fastlogconv", ["py3", "none", system.tag]), f"{path.name} is not for {system.name}"
    )
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        found = [each for each in archive.namelist() if each.endswith((".so", ".dylib", ".dll"))]
        expected = {f"fastlogconv/libfastlogconv_cpu{system.suffix}"}
        wanted = expected | {f"fastlogconv/libfastlogconv_cuda{system.suffix}"}
        require(set(found) in (expected, wanted), f"{path.name} holds {found}")
        metadata = next(each for each in archive.namelist() if each.endswith(".dist-info/WHEEL"))
        tags = set(re.findall(r"^Tag: py3-none-(\S+)$", archive.read(metadata).decode(), re.MULTILINE))
        require(tags == set(system.tag.split(".")), f"{path.name} says that it is for {tags}")
        for each in sorted(found):
            library = Path(archive.extract(each, folder))
            require(
                os.fsencode(ROOT) not in library.read_bytes(),
                f"{library.name} names folders of the machine that made it",
            )
            said = {"linux": _elf, "macos": _mach_o, "windows": _pe}[system.family](library, system)
            print(f"  {library.name:<24} {library.stat().st_size / 1e6:6.2f} MB  {said}", flush=True)
    if system.family == "linux":
        print(f"  auditwheel: {_auditwheel(path, system)}", flush=True)


def _auditwheel(path: Path, system: System) -> str:
    command = [sys.executable, "-m", "auditwheel", "show", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = " ".join(done.stdout.split())
    found = re.search(r'consistent with the following platform tag: "(\w+)"', said)
    require(found, f"auditwheel on {path.name}: {said} {done.stderr}")
    require(
        found and found[1] in system.tag.split("."), f"auditwheel says {found and found[1]} of {path.name}"
    )
    return found[1] if found else ""


def _exported(names: set[str], library: Path) -> None:
    expected = functions("cuda" if "cuda" in library.name else "cpu")
    ours = {name.removeprefix("_") for name in names}
    require(
        ours == expected, f"{library.name} exports {sorted(ours ^ expected)} beside or without what it has to"
    )


def _elf(library: Path, system: System) -> str:
    import lief

    binary = lief.ELF.parse(str(library))
    machine = {"x86_64": lief.ELF.ARCH.X86_64, "aarch64": lief.ELF.ARCH.AARCH64}[system.machine]
    require(binary.header.machine_type == machine, f"{library.name} is for {binary.header.machine_type}")
    _exported({symbol.name for symbol in binary.exported_symbols}, library)
    versions = [
        aux.name for need in binary.symbols_version_requirement for aux in need.get_auxiliary_symbols()
    ]
    newest = max([int(n) for n in each[6:].split(".")] for each in versions if each.startswith("GLIBC_"))
    return f"glibc {'.'.join(map(str, newest))}"


def _mach_o(library: Path, system: System) -> str:
    import lief

    fat = lief.MachO.parse(str(library))
    require(fat.size == 1, f"{library.name} has {fat.size} parts")
    binary = fat.at(0)
    types = lief.MachO.Header.CPU_TYPE
    machine = {"arm64": types.ARM64, "x86_64": types.X86_64}[system.machine]
    require(binary.header.cpu_type == machine, f"{library.name} is for {binary.header.cpu_type}")
    needed = {each.name for each in binary.libraries} - {f"@rpath/{library.name}"}
    require(needed <= MACOS_LIBRARIES, f"{library.name} needs {needed}")
    _exported({each.name for each in binary.exported_symbols if not UNHIDDEN.match(each.name)}, library)
    oldest = tuple(binary.build_version.minos if binary.has_build_version else binary.version_min.version)
    require(oldest[:2] <= NEWEST_MACOS, f"{library.name} is for macOS {oldest}")
    require(binary.has_code_signature or system.machine != "arm64", f"{library.name} has no signature")
    signed = "signed ad hoc" if binary.has_code_signature else "not signed"
    return f"macOS {'.'.join(map(str, oldest))}, {signed}; load commands: {len(binary.commands)}"


def _pe(library: Path, system: System) -> str:
    import lief

    binary = lief.PE.parse(str(library))
    require(
        binary.header.machine == lief.PE.Header.MACHINE_TYPES.AMD64,
        f"{library.name}: {binary.header.machine}",
    )
    needed = sorted(each.name for each in binary.imports)
    unknown = [each for each in needed if not WINDOWS_LIBRARIES.fullmatch(each)]
    require(not unknown, f"{library.name} needs {unknown}")
    _exported({entry.name for entry in binary.get_export().entries}, library)
    return f"imports {', '.join(sorted({each.split('-')[0] for each in needed}))}"
