"""One PTX instruction to one C++ statement.

Registers become unsigned integers of their width (predicates: bool). `as<T>(bits)` reads bits as a T and
`set(register, value)` stores a value's bits; the functions used are those of runtime/*.h.
"""

from __future__ import annotations

import re

from .arithmetic import HALF_OPERATIONS, Arithmetic
from .ptx_types import FLOATS, HALVES, WIDTHS, Unsupported, c_name, c_type, register_type

SPECIAL = {
    "%laneid": "lane()", "%warpid": "(thread_index() / 32)", "%clock": "0u", "%clock64": "0ull",
    "%globaltimer": "0ull", "%smid": "0u", "WARP_SZ": "32u", "%lanemask_lt": "((1u << lane()) - 1)",
    "%lanemask_eq": "(1u << lane())",
}  # fmt: skip
ADDRESS = re.compile(r"\[\s*([^\]\+]+?)\s*(?:\+\s*(-?\w+))?\s*\]$")
# What has no effect where blocks run one after another and memory is coherent.
NOTHING = ("membar", "fence", "prefetch", "nanosleep", "griddepcontrol", "discard", "setmaxnreg")


def _elements(text: str) -> list[str]:
    return [element.strip() for element in text.strip()[1:-1].split(",")]


class Translator(Arithmetic):
    """Translates the instructions of one kernel, whose names it looks up."""

    def __init__(self, function) -> None:
        self.function = function
        self.line = 0  # of the PTX, for messages

    def translate(self, opcode: str, operands: list[str]) -> str:
        """The statement for an instruction without its guard."""
        parts = opcode.replace("::", ".").split(".")
        name = parts[0]
        if name in NOTHING:
            return ";"
        dtype = parts[-1]
        if name in HALF_OPERATIONS and dtype.removesuffix("x2") in HALVES:
            return self._halves(parts, operands)
        if "cc" in parts or name in ("addc", "subc", "madc"):
            return self._with_carry(name, parts, operands)
        method = getattr(self, f"_{name}", None)
        try:
            if method is not None:
                return method(parts, operands)
            return self._arithmetic(parts, operands)
        except (KeyError, IndexError) as error:
            raise Unsupported(f"{opcode} {', '.join(operands)}") from error

    # ------------------------------------------------------------------------------------------ operands

    def bits(self, operand: str) -> str:
        """The raw bits of an operand."""
        operand = operand.strip()
        if operand.startswith("!"):
            return f"(!{self.bits(operand[1:])})"
        if found := re.match(r"%(tid|ntid|ctaid|nctaid)\.([xyz])$", operand):
            variable = {"tid": "thread_id", "ntid": "block_size", "ctaid": "block_id", "nctaid": "grid_size"}
            return f"{variable[found[1]]}.{found[2]}"
        if operand in SPECIAL:
            return SPECIAL[operand]
        if operand in self.function.registers or operand.startswith("%"):
            return c_name(operand)
        if re.match(r"0[fF][0-9a-fA-F]{8}$", operand):
            return f"0x{operand[2:]}u"
        if re.match(r"0[dD][0-9a-fA-F]{16}$", operand):
            return f"0x{operand[2:]}ull"
        if self._is_integer(operand):
            value = operand.rstrip("U")
            return f"((u64){value}{'ll' if int(value, 0) < 2**63 else 'ull'})"
        if found := re.match(r"([\w$]+)\s*\+\s*(-?\d+)$", operand):
            return f"({self.bits(found[1])} + {found[2]})"
        if operand in self.function.shared:
            return f"(u64){self.function.shared[operand]}"
        if operand in self.function.symbols["dynamic_shared"]:
            return "dynamic_shared"
        if operand in self.function.local:
            return f"(u64){self.function.local[operand]}"
        if operand in self.function.parameter_offsets:
            return f"(u64)(parameters + {self.function.parameter_offsets[operand]})"
        if operand in self.function.symbols["data"]:
            return f"(u64)table_{c_name(operand)}"
        raise Unsupported(f"operand {operand}")

    @staticmethod
    def _is_integer(operand: str) -> bool:
        return re.match(r"-?(0x[0-9a-fA-F]+|\d+)U?$", operand.strip()) is not None

    def read(self, operand: str, dtype: str, flush: bool = False) -> str:
        """An operand as a value of `dtype`; subnormal numbers as 0 if `flush`."""
        if dtype == "pred":
            return self.bits(operand)
        if dtype in FLOATS and self._is_integer(operand):
            return f"({dtype})({operand})"
        value = f"as<{c_type(dtype)}>({self.bits(operand)})"
        return f"flushed({value})" if flush and dtype in (*FLOATS, *HALVES) else value

    def write(self, destination: str, value: str, dtype: str) -> str:
        """`value` into a register."""
        destination = destination.strip().strip("{} ")
        if destination == "_":
            return f"(void)({value});"
        if dtype == "pred":
            return f"{c_name(destination)} = ({value});"
        return f"set({c_name(destination)}, ({c_type(dtype)})({value}));"

    def _address(self, operand: str) -> str:
        found = ADDRESS.match(operand)
        if not found:
            raise Unsupported(f"address {operand}")
        return f"((u64)({self.bits(found[1])}) + (s64)({found[2] or 0}))"

    def _pointer(self, operand: str, parts: list[str], size: int, access: str) -> str:
        """A checked pointer to `size` bytes; `access` is Read, Write or Atomic."""
        space = next((p for p in parts if p in ("param", "shared", "global", "local", "const")), "generic")
        if space == "param":
            found = ADDRESS.match(operand)
            if found[1] not in self.function.parameter_offsets:  # an address that was computed
                return f"parameter_at(parameters, {self.function.parameter_bytes}, {self._address(operand)})"
            return f"(parameters + {self.function.parameter_offsets[found[1]]} + ({found[2] or 0}))"
        if space == "shared":
            return f"shared_at({self._address(operand)}, {size}, {self.line}, {access})"
        if space == "local":
            return f"local_at(local, sizeof local, {self._address(operand)}, {size}, {self.line})"
        return f"global_at({self._address(operand)}, {size}, {self.line})"

    # ----------------------------------------------------------------------------------- control, barriers

    def _bra(self, parts, a):
        return f"goto {c_name(a[0])};"

    def _ret(self, parts, a):
        return "return;"

    _exit = _ret

    def _trap(self, parts, a):
        return 'die("trap");'

    def _bar(self, parts, a):
        if "warp" in parts:
            return f"warp_barrier({self.read(a[0], 'u32')});"
        if "arrive" in parts:
            raise Unsupported("bar.arrive")
        if "red" in parts:
            kind = next(p for p in ("popc", "and", "or") if p in parts)
            return self.write(
                a[0], f"barrier_{kind}({self.bits(a[-1])})", parts[-1] if kind == "popc" else "pred"
            )
        return f"barrier({self.bits(a[0])}, {self.read(a[1], 'u32') if len(a) > 1 else 0});"

    _barrier = _bar

    def _activemask(self, parts, a):
        return self.write(a[0], "~0u", "b32")

    # --------------------------------------------------------------------------------------- moves, memory

    def _mov(self, parts, a):
        dtype = parts[-1]
        if a[0].startswith("{"):  # unpack
            registers = _elements(a[0])
            width = WIDTHS[dtype] // len(registers)
            part = register_type(f"b{width}")
            stores = (
                f"set({c_name(r)}, ({part})(value >> {width * i}));"
                for i, r in enumerate(registers)
                if r != "_"
            )
            return f"auto value = {self.read(a[1], dtype)}; {' '.join(stores)}"
        if a[1].startswith("{"):  # pack
            values = _elements(a[1])
            width = WIDTHS[dtype] // len(values)
            part, whole = register_type(f"b{width}"), c_type(dtype)
            packed = (f"({whole})as<{part}>({self.bits(v)}) << {width * i}" for i, v in enumerate(values))
            return self.write(a[0], " | ".join(packed), dtype)
        return self.write(a[0], self.read(a[1], dtype), dtype)

    def _cvta(self, parts, a):
        sign = "-" if "to" in parts else "+"
        value = self.read(a[1], parts[-1])
        if "shared" in parts:
            return self.write(a[0], f"{value} {sign} (u64)shared.data()", "u64")
        if "local" in parts:
            return self.write(a[0], f"{value} {sign} (u64)local", "u64")
        return self.write(a[0], value, parts[-1])

    def _vector(self, parts) -> int:
        return next((n for n in (2, 4, 8) if f"v{n}" in parts), 1)

    def _ld(self, parts, a):
        dtype, count = parts[-1], self._vector(parts)
        size, kind = WIDTHS[dtype] // 8, c_type(dtype)
        registers = _elements(a[0]) if a[0].startswith("{") else [a[0]]
        loads = (
            self.write(register, f"load<{kind}>(at + {size * i})", dtype)
            for i, register in enumerate(registers)
        )
        return f"const u8* at = {self._pointer(a[1], parts, size * count, 'Read')}; {' '.join(loads)}"

    _ldu = _ld

    def _st(self, parts, a):
        dtype, count = parts[-1], self._vector(parts)
        size, kind = WIDTHS[dtype] // 8, c_type(dtype)
        values = _elements(a[1]) if a[1].startswith("{") else [a[1]]
        listed = ", ".join(self.read(value, dtype) for value in values)
        if "shared" in parts:
            target = f"shared_at({self._address(a[0])}, {size * count}, {self.line}, Write, values)"
        else:
            target = self._pointer(a[0], parts, size * count, "Write")
        return f"{kind} values[] = {{{listed}}}; std::memcpy({target}, values, sizeof values);"

    def _atom(self, parts, a, returns=True):
        dtype = parts[-1]
        kind = next(
            p for p in parts if p in ("add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec")
        )
        destination, rest = (a[0], a[1:]) if returns else ("_", a)
        value = self.read(rest[1], dtype)
        new = {
            "add": f"old + {value}",
            "min": f"old < {value} ? old : {value}",
            "max": f"old > {value} ? old : {value}",
            "exch": value,
            "and": f"old & {value}",
            "or": f"old | {value}",
            "xor": f"old ^ {value}",
            "inc": f"old >= {value} ? 0 : old + 1",
            "dec": f"old == 0 || old > {value} ? {value} : old - 1",
            "cas": f"old == {value} ? {self.read(rest[2], dtype) if len(rest) > 2 else 0} : old",
        }[kind]
        if kind == "add" and dtype == "f32" and "shared" not in parts:  # which says nothing of it
            new = f"flushed(flushed(old) + flushed({value}))"
        elif dtype in HALVES:
            new = f"narrow<{dtype}>(widen(old) + widen({value}))"
        elif "x2" in dtype:
            raise Unsupported(".".join(parts))
        pointer = self._pointer(rest[0], parts, WIDTHS[dtype] // 8, "Atomic")
        change = f"[&]({c_type(dtype)} old) -> {c_type(dtype)} {{ return {new}; }}"
        return self.write(destination, f"atomic<{c_type(dtype)}>({pointer}, {change})", dtype)

    def _red(self, parts, a):
        return self._atom(parts, a, returns=False)

    def _cp(self, parts, a):
        if parts[1] != "async" or "bulk" in parts or "mbarrier" in parts:
            raise Unsupported(".".join(parts))
        if "commit_group" in parts:
            return "copy_commit();"
        if "wait_all" in parts:
            return "copy_commit(); copy_wait(0);"
        if "wait_group" in parts:
            return f"copy_wait({a[0]});"
        given = self.bits(a[3]) if len(a) > 3 else a[2]
        target, source = self._address(a[0]), self._address(a[1])
        return f"copy_start((u32){target}, {source}, {a[2]}, (int)({given}), {self.line});"

    # ----------------------------------------------------------------------------- across the lanes of a warp

    def _shfl(self, parts, a):
        destination, _, valid = a[0].partition("|")
        mode = {"up": 0, "down": 1, "bfly": 2, "idx": 3}[parts[2]]
        mask, value, b, c = (self.read(a[i], "u32") for i in (4, 1, 2, 3))
        store = f"{c_name(valid.strip())} = there;" if valid.strip() not in ("", "_") else ""
        shuffled = f"bool there; const u32 value = shuffle({mask}, {value}, {b}, {c}, {mode}, there);"
        return f"{shuffled} {self.write(destination, 'value', 'b32')} {store}"

    def _vote(self, parts, a):
        kind = parts[2]
        value = f"vote_{kind}({self.read(a[2], 'u32')}, {self.bits(a[1])})"
        return self.write(a[0], value, "b32" if kind == "ballot" else "pred")

    def _redux(self, parts, a):
        dtype = parts[-1]
        combine = {
            "add": "x + y", "min": "x < y ? x : y", "max": "x > y ? x : y", "and": "x & y", "or": "x | y",
            "xor": "x ^ y",
        }[parts[2]]  # fmt: skip
        function = f"[](auto x, auto y) {{ return (decltype(x))({combine}); }}"
        return self.write(
            a[0], f"reduce_lanes({self.read(a[2], 'u32')}, {self.read(a[1], dtype)}, {function})", dtype
        )

    def _elect(self, parts, a):
        return f"{c_name(a[0].partition('|')[2].strip())} = lane() == 0;"

    def _ldmatrix(self, parts, a):
        count = int(parts[parts.index("m8n8") + 1][1])
        transposed = "true" if "trans" in parts else "false"
        stores = " ".join(f"{c_name(r)} = d[{i}];" for i, r in enumerate(_elements(a[0])))
        given = f"{count}, {transposed}, (u32){self._address(a[1])}, {self.line}"
        return f"u32 d[4]; load_matrices(d, {given}); {stores}"

    def _stmatrix(self, parts, a):
        count = int(parts[parts.index("m8n8") + 1][1])
        transposed = "true" if "trans" in parts else "false"
        values = ", ".join(self.read(r, "u32") for r in _elements(a[1]))
        given = f"{count}, {transposed}, (u32){self._address(a[0])}, {self.line}"
        return f"const u32 values[] = {{{values}}}; store_matrices(values, {given});"

    def _mma(self, parts, a):
        shape, types = parts[3], parts[6:]
        if shape == "m16n8k16" and types in (["f32", "f16", "f16", "f32"], ["f32", "bf16", "bf16", "f32"]):
            function = f"mma_m16n8k16<{types[1]}>"
        elif shape == "m16n8k8" and types == ["f32", "tf32", "tf32", "f32"]:
            function = "mma_m16n8k8_tf32"
        else:
            raise Unsupported(".".join(parts))
        fragments = (", ".join(self.read(r, "u32") for r in _elements(operand)) for operand in a[1:4])
        declared = " ".join(f"u32 {n}[] = {{{f}}};" for n, f in zip("abc", fragments, strict=True))
        stores = " ".join(f"{c_name(r)} = d[{i}];" for i, r in enumerate(_elements(a[0])))
        return f"{declared} u32 d[4]; {function}(d, a, b, c); {stores}"
