"""PTX modules: parsed, translated to C++, built with g++, launched."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import json
import re
import struct
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from .build import built
from .ptx_types import WIDTHS, Unsupported, c_name, register_type
from .translate import Translator

RUNTIME = Path(__file__).parent / "runtime"
# Optimised no further than -Og: building takes longer than running.
FLAGS = (
    "-std=c++20", "-Og", "-march=native", "-ffp-contract=off", "-mtls-dialect=gnu2", "-w", "-fPIC",
    "-pthread", "-fno-gnu-unique",  # else all libraries share the runtime of the first, with its PROFILE
)  # fmt: skip


def _key(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


@functools.cache
def _precompiled_runtime(flags: tuple[str, ...]) -> Path:
    """A folder with runtime.h as g++ has read it: otherwise that takes longer than most of the kernels."""
    key = _key(*flags, *(path.read_text() for path in sorted(RUNTIME.glob("*.h"))))

    def precompile(target: Path) -> None:
        command = ["g++", *flags, "-x", "c++-header", str(RUNTIME / "runtime.h"), "-o", str(target)]
        subprocess.run(command, check=True, timeout=600)

    return built(f"{key}/runtime.h.gch", precompile).parent


def split_operands(text: str) -> list[str]:
    """Operands at the commas that are in no bracket."""
    operands, depth, current = [], 0, ""
    for character in text:
        depth += (character in "{[(") - (character in "}])")
        if character == "," and depth == 0:
            operands.append(current.strip())
            current = ""
        else:
            current += character
    return operands + [current.strip()] if current.strip() else operands


def instruction_class(opcode: str) -> str:
    """What an instruction is counted as."""
    parts = opcode.replace("::", ".").split(".")
    name, dtype = parts[0], parts[-1]
    if name in ("ld", "st", "atom", "red"):
        if "param" in parts or "const" in parts:
            return "constant"
        space = "shared" if "shared" in parts else "global"
        return {"ld": "load_", "st": "store_"}.get(name, "atomic_") + space
    if name in ("ex2", "lg2", "sin", "cos", "rcp", "rsqrt", "sqrt", "tanh"):
        return "special_function"
    if name in ("shfl", "vote", "redux", "mma", "ldmatrix", "stmatrix", "cvt", "mov"):
        return name
    for names, kind in (
        (("bar", "barrier"), "barrier"),
        (("bra", "ret", "exit"), "branch"),
        (("cp",), "copy"),
    ):
        if name in names:
            return kind
    if dtype == "f64":
        return "double"
    floating = dtype in ("f32", "f16", "bf16", "f16x2", "bf16x2") and name != "selp"
    return "float" if floating else "integer"


@dataclasses.dataclass
class Profile:
    """What was executed."""

    by_class: Counter  # instructions of whole warps, by `instruction_class`
    lanes: int  # the same by single threads
    sectors: int  # of 32 bytes, of global memory
    wavefronts: int  # of shared memory

    @property
    def warp_instructions(self) -> int:
        return self.by_class.total()

    @property
    def lane_use(self) -> float:
        """From 0 to 1: 1 where no warp diverges."""
        return self.lanes / (32 * self.warp_instructions)


@dataclasses.dataclass
class Record:
    """One launch that was run, and what came of it."""

    kernel: str
    races: int
    profile: Profile | None  # None: it was not counted


class Function:
    """One kernel: parameters, statements in C++, and the classes of its instructions by basic block."""

    def __init__(self, name: str, parameters: str, body: str, line: int, symbols: dict) -> None:
        self.name, self.symbols = name, symbols
        self.parameters: list[tuple[int, int]] = []  # (offset, size)
        self.parameter_offsets: dict[str, int] = {}
        self.parameter_bytes = 0
        self.declarations: list[str] = []
        self.statements: list[str] = []
        self.blocks: list[Counter] = [Counter()]
        self.registers: dict[str, str] = {}
        self.shared: dict[str, int] = {}
        self.local: dict[str, int] = {}
        self.shared_bytes = self.local_bytes = 0
        for symbol, (alignment, size) in symbols["shared"].items():
            self._place_shared(symbol, alignment, size)
        self._parse_parameters(parameters)
        self.translator = Translator(self)
        self._parse(body, line)

    @property
    def fixed_shared(self) -> int:
        """Bytes of shared memory before the part whose size the launch gives."""
        return -(-self.shared_bytes // 128) * 128

    def _place_shared(self, symbol: str, alignment: int, size: int) -> None:
        start = -(-self.shared_bytes // alignment) * alignment
        self.shared[symbol], self.shared_bytes = start, start + size

    def _parse_parameters(self, text: str) -> None:
        pattern = (
            r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+"
            r"(?:\.ptr\s*(?:\.\w+\s+)*(?:\.align\s+\d+\s+)?)?([\w$]+)(?:\[(\d+)\])?$"
        )
        for parameter in split_operands(text):
            found = re.match(pattern, parameter)
            if not found:
                raise Unsupported(f"parameter {parameter}")
            size = WIDTHS[found[2]] // 8 * int(found[4] or 1)
            alignment = int(found[1] or WIDTHS[found[2]] // 8)
            offset = -(-self.parameter_bytes // alignment) * alignment
            self.parameter_offsets[found[3]] = offset
            self.parameters.append((offset, size))
            self.parameter_bytes = offset + size

    def _parse(self, body: str, line: int) -> None:
        pending = ""
        for piece in re.split(r"(?<=[;{}\n])", body):
            line += piece.count("\n")
            self.translator.line = line
            text = re.sub(r"//.*", "", piece)
            statement = f"{pending} {text.strip().rstrip(';').strip()}".strip()
            pending = ""
            while label := re.match(r"([\w$]+):\s*", statement):
                self.statements.append(f"{c_name(label[1])}: ;")
                self._begin_block()
                statement = statement[label.end() :]
            if not statement or re.match(
                r"\.(loc|file|pragma|maxntid|minnctapersm|reqntid|maxnreg|noreturn|section)\b", statement
            ):
                continue
            if statement in ("{", "}"):
                self.statements.append(statement)
                continue
            complete = text.rstrip().endswith(";") or statement.endswith("}")
            if text.rstrip().endswith("}") and not statement.startswith("."):
                complete = False
            if statement.count("{") != statement.count("}") or not complete:
                if statement.startswith("{"):  # opens a scope
                    self.statements.append("{")
                    statement = statement[1:].strip()
                pending = statement
                continue
            self._statement(statement)

    def _begin_block(self) -> None:
        self.blocks.append(Counter())  # another where the last is empty: both may be entered, one by a jump
        self.statements.append(f"COUNT_BLOCK({len(self.blocks) - 1});")

    def _statement(self, text: str) -> None:
        if text.startswith("{"):
            self.statements.append("{")
            text = text[1:].strip()
        if found := re.match(r"\.reg\s+\.(\w+)\s+(.*)$", text, re.S):
            self._declare_registers(found[1], found[2])
            return
        if found := re.match(
            r"\.(shared|local)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?$", text
        ):
            size = WIDTHS[found[3]] // 8 * int(found[5] or 1)
            alignment = int(found[2] or WIDTHS[found[3]] // 8)
            if found[1] == "shared":
                self._place_shared(found[4], alignment, size)
            else:
                start = -(-self.local_bytes // alignment) * alignment
                self.local[found[4]], self.local_bytes = start, start + size
            return
        guard = ""
        if found := re.match(r"@(!?)(%?[\w$]+)\s+", text):
            guard = f"if ({found[1]}{c_name(found[2])}) "
            text = text[found.end() :]
        opcode, *rest = text.split(None, 1)
        operands = split_operands(rest[0]) if rest else []
        self.blocks[-1][instruction_class(opcode)] += 1
        self.statements.append(f"{guard}{{ {self.translator.translate(opcode, operands)} }}")
        if opcode.split(".")[0] in ("bra", "ret", "exit"):
            self._begin_block()

    def _declare_registers(self, dtype: str, names: str) -> None:
        """Scoped registers are declared where they stand, others at the top, so that gotos may pass them."""
        depth = self.statements.count("{") - self.statements.count("}")
        for name in names.split(","):
            numbered = re.match(r"(%?[\w$]+)<(\d+)>", name.strip())
            all_names = [f"{numbered[1]}{i}" for i in range(int(numbered[2]))] if numbered else [name.strip()]
            self.registers.update(dict.fromkeys(all_names, dtype))
            declaration = f"{register_type(dtype)} {', '.join(map(c_name, all_names))};"
            (self.statements if depth else self.declarations).append(declaration)

    def source(self) -> str:
        """The kernel as C++."""
        name = c_name(self.name)
        lines = [
            f"static void kernel_{name}(const u8* parameters) {{",
            f"constexpr u64 dynamic_shared = {self.fixed_shared};",
            f"alignas(16) u8 local[{max(16, self.local_bytes)}];",
            "bool carry = false;",
            *self.declarations,
            "COUNT_BLOCK(0);",
            *self.statements,
            "}",
            f'extern "C" void run_{name}(const u32* grid, const u32* block, u64 shared,'
            " const u8* parameters, int threads, u64 step) {",
            f"launch(grid, block, {self.fixed_shared} + shared, threads, step,"
            f" [=] {{ kernel_{name}(parameters); }});",
            "}",
        ]
        return "\n".join(lines) + "\n"


class Module:
    """A PTX module, ready to be launched on the CPU."""

    def __init__(self, text: str, profile: bool = False) -> None:
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        self.symbols = {"shared": {}, "dynamic_shared": set(), "data": {}}
        tables = self._parse_symbols(text)
        self.functions: dict[str, Function] = {}
        for found in re.finditer(r"\.entry\s+([\w$]+)\s*\((.*?)\)([^{]*)\{", text, re.S):
            end, depth = found.end(), 1
            while depth:
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
            parameters = re.sub(r"//.*", "", found[2])
            line = text.count("\n", 0, found.end()) + 1
            body = text[found.end() : end - 1]
            self.functions[found[1]] = Function(found[1], parameters, body, line, self.symbols)
        self.profiled = profile
        self._library = self._build(tables, profile)

    def _parse_symbols(self, text: str) -> str:
        """Notes what stands outside of the kernels; returns its tables as C++."""
        for found in re.finditer(
            r"^\s*\.extern\s+\.shared\s+(?:\.align\s+\d+\s+)?\.\w+\s+([\w$]+)\[\]", text, re.M
        ):
            self.symbols["dynamic_shared"].add(found[1])
        outside = re.sub(r"(?<![=\s])\s*\{[^{}]*(\{[^{}]*\}[^{}]*)*\}", "", text)
        for found in re.finditer(
            r"^\s*(?:\.visible\s+|\.weak\s+)?\.shared\s+(?:\.align\s+(\d+)\s+)?"
            r"\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?\s*;",
            outside,
            re.M,
        ):
            size = WIDTHS[found[2]] // 8 * int(found[4] or 1)
            self.symbols["shared"][found[3]] = (int(found[1] or 4), size)
        tables = ""
        for found in re.finditer(
            r"^\s*(?:\.visible\s+|\.weak\s+)?\.(?:global|const)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)"
            r"(?:\[(\d*)\])?\s*(?:=\s*(\{[^}]*\}|[^;]+))?;",
            text,
            re.M,
        ):
            kind, count = register_type(found[2]), int(found[4] or 1)
            values = re.findall(r"-?0[fFdD]?x?[0-9a-fA-F]+|-?\d+", found[5] or "")
            values = [re.sub(r"^0[fFdD](?=[0-9a-fA-F]{8})", "0x", value) for value in values]
            listed = ", ".join(f"({kind}){value}" for value in values)
            tables += f"alignas(16) static {kind} table_{c_name(found[3])}[{count}] = {{{listed}}};\n"
            self.symbols["data"][found[3]] = count * WIDTHS[found[2]] // 8
        return tables

    def _build(self, tables: str, profile: bool) -> ctypes.CDLL:
        data = "".join(
            f" allow((u64)table_{c_name(name)}, {size});" for name, size in self.symbols["data"].items()
        )
        code = '#include "runtime.h"\n' + tables
        code += "".join(function.source() for function in self.functions.values())
        code += f'extern "C" void allow_tables() {{{data} }}\n'
        flags = [*FLAGS, *(["-DPROFILE"] if profile else [])]
        runtime = _precompiled_runtime(tuple(flags))
        key = _key(code, str(runtime))

        def compile_library(target: Path) -> None:
            source = target.with_name(f"{key}.cpp")
            source.write_text(code)
            includes = [f"-I{runtime}", f"-I{RUNTIME}"]
            command = ["g++", *flags, *includes, "-shared", str(source), "-o", str(target)]
            subprocess.run(command, check=True, timeout=600)

        return ctypes.CDLL(str(built(f"{key}.so", compile_library)))

    def launch(
        self, name: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: list, shared: int = 0,
        threads: int = 1, step: int = 1, reachable: Iterable = (),
    ) -> int:  # fmt: skip
        """Runs a kernel; returns the number of races in shared memory.

        Args:
            name: of the kernel.
            grid, block: up to three sizes each.
            arguments: tensors or arrays (the kernel may reach their memory), ints, floats, or bytes.
            shared: bytes of dynamic shared memory.
            threads: blocks that run at a time, each in a CPU thread.
            step: 1 to run all blocks, n to run every n-th of them.
            reachable: tensors or arrays that the kernel may reach through pointers within its arguments.

        An access out of bounds or a deadlock ends the process, with the line of the PTX in the message.
        """
        function = self.functions[name]
        packed = bytearray(max(function.parameter_bytes, 1))
        self._library.forbid_all()
        self._library.allow_tables()
        # Triton adds parameters for scratch memory that is not used here.
        arguments = list(arguments) + [0] * (len(function.parameters) - len(arguments))
        for (offset, size), argument in zip(function.parameters, arguments, strict=True):
            packed[offset : offset + size] = self._pack(argument, size)
        for argument in reachable:
            self._pack(argument, 8)
        run = getattr(self._library, f"run_{c_name(name)}")
        three = ctypes.c_uint32 * 3
        run(
            three(*(*grid, 1, 1)[:3]),
            three(*(*block, 1, 1)[:3]),
            ctypes.c_uint64(shared),
            (ctypes.c_uint8 * len(packed)).from_buffer(packed),
            threads,
            ctypes.c_uint64(step),
        )
        return self._library.race_count()

    def _pack(self, argument, size: int) -> bytes:
        """An argument as the kernel gets it; the memory of a tensor becomes reachable."""
        if hasattr(argument, "untyped_storage"):  # a view may reach all of what it is a view of
            storage = argument.untyped_storage()
            self._library.allow(ctypes.c_uint64(storage.data_ptr()), ctypes.c_uint64(storage.nbytes()))
            return struct.pack("<Q", argument.data_ptr())
        if hasattr(argument, "ctypes"):
            self._library.allow(ctypes.c_uint64(argument.ctypes.data), ctypes.c_uint64(argument.nbytes))
            return struct.pack("<Q", argument.ctypes.data)
        if isinstance(argument, (bytes, bytearray)):
            return bytes(argument)
        if isinstance(argument, float):
            return struct.pack("<f" if size == 4 else "<d", argument)
        return (int(argument) & ((1 << 8 * size) - 1)).to_bytes(size, "little")

    def profile(self, name: str) -> Profile:
        """What the launches of a kernel since the last call executed; `Module(text, profile=True)` counts."""
        assert self.profiled
        self._library.take_profile.restype = ctypes.c_char_p
        measured = json.loads(self._library.take_profile())
        by_class: Counter = Counter()
        lanes = 0
        for block, warps, threads in measured["blocks"]:
            for kind, count in self.functions[name].blocks[block].items():
                by_class[kind] += count * warps
                lanes += count * threads
        return Profile(by_class, lanes, measured["sectors"], measured["wavefronts"])
