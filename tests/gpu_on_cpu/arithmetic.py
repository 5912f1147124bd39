"""Instructions that compute: comparisons, conversions, arithmetic. See translate.py for the others.

Where an instruction says `.ftz`, subnormal numbers count as 0, with their sign, as inputs and as results:
those of float32, in instructions for float16 its own, in few for float64 its own, and none of bfloat16.
"""

from __future__ import annotations

import re

from .ptx_types import FLOATS, HALVES, WIDTHS, Unsupported, c_name, c_type, unsigned

COMPARISONS = {
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">",
    "hs": ">=",
}  # fmt: skip
HALF_OPERATIONS = {
    "add": "x + y", "sub": "x - y", "mul": "x * y", "fma": "x * y + z", "min": "minimum(x, y)",
    "max": "maximum(x, y)", "neg": "-x", "abs": "std::fabs(x)",
}  # fmt: skip

# What may stand between the name and the type of an instruction of `_arithmetic`.
MODIFIERS = {
    "rn", "approx", "full", "ftz", "sat", "NaN", "relu", "lo", "hi", "wide", "wrap", "clamp", "l", "r",
    "shiftamt", "nan", "infinite", "finite", *WIDTHS,
}  # fmt: skip


class Arithmetic:
    """Translates them; what reads and writes operands is Translator's."""

    # ------------------------------------------------------------------------------ comparison, conversion

    def _setp(self, parts, a):
        comparison, dtype = parts[1], parts[-1]
        if dtype.endswith("x2"):
            return self._setp_of_pairs(parts, a)
        combine = next((p for p in parts[2:-1] if p in ("and", "or", "xor")), None)
        x, y = (self.read(a[i], dtype, flush="ftz" in parts) for i in (1, 2))
        if dtype in HALVES:
            x, y = f"widen({x})", f"widen({y})"
        result = self._compared(comparison, x, y, dtype in (*FLOATS, *HALVES))
        destination, _, opposite = (part.strip() for part in a[0].partition("|"))
        operator = {"and": "&&", "or": "||", "xor": "!="}.get(combine)
        other = f"{operator} (bool){self.bits(a[3])}" if operator else ""
        code = f"const bool holds = {result} {other}, fails = !{result} {other};"
        if destination != "_":
            code += f" {c_name(destination)} = holds;"
        if opposite not in ("", "_"):
            code += f" {c_name(opposite)} = fails;"
        return code

    @staticmethod
    def _compared(comparison, x, y, floating):
        if comparison in COMPARISONS:
            result = f"({x} {COMPARISONS[comparison]} {y})"
            return f"({result} && {x} == {x} && {y} == {y})" if comparison == "ne" and floating else result
        if comparison == "num":
            return f"({x} == {x} && {y} == {y})"
        if comparison == "nan":
            return f"({x} != {x} || {y} != {y})"
        # Unordered: true with a NaN.
        return f"(({x} {COMPARISONS[comparison[:-1]]} {y}) || {x} != {x} || {y} != {y})"

    def _setp_of_pairs(self, parts, a):
        """A predicate for the lower half of a register and one for the upper half."""
        comparison, dtype, *options = parts[1], parts[-1], *parts[2:-1]
        if {"and", "or", "xor"} & set(options):
            raise NotImplementedError(".".join(parts))
        half, flush = dtype.removesuffix("x2"), "flushed" if "ftz" in options else ""
        code = " ".join(f"const u32 {n} = {self.read(v, 'u32')};" for n, v in zip("xy", a[1:], strict=True))
        for destination, shift in zip(a[0].split("|"), (0, 16), strict=True):
            x, y = (f"widen({flush}(as<{half}>((u16)({n} >> {shift}))))" for n in "xy")
            if destination.strip() != "_":
                code += f" {c_name(destination.strip())} = {self._compared(comparison, x, y, True)};"
        return code

    def _set(self, parts, a):
        wanted, dtype = parts[-2], parts[-1]
        x, y = (self.read(a[i], dtype, flush="ftz" in parts) for i in (1, 2))
        if dtype in HALVES:
            x, y = f"widen({x})", f"widen({y})"
        one = "1.0f" if wanted == "f32" else "~0u"
        return self.write(a[0], f"{x} {COMPARISONS[parts[1]]} {y} ? {one} : 0", wanted)

    def _selp(self, parts, a):
        dtype = parts[-1]
        return self.write(
            a[0], f"{self.bits(a[3])} ? {self.read(a[1], dtype)} : {self.read(a[2], dtype)}", dtype
        )

    def _cvt(self, parts, a):
        rounding = next((p for p in parts[1:] if re.match(r"(r[nzmp]i?|rna)$", p)), "")
        to, source = parts[-2], parts[-1]
        if source == "f32" and to in ("f16x2", "bf16x2"):
            half = to[:-2]
            high, low = (f"narrow<{half}>({self.read(a[i], 'f32', flush='ftz' in parts)})" for i in (1, 2))
            return (
                f"const auto high = {high}, low = {low};"
                f" set({c_name(a[0])}, (u32)(as<u16>(high) << 16 | as<u16>(low)));"
            )
        if to == "tf32":
            return self.write(a[0], f"({self.read(a[1], 'b32')} + 0x1000u) & ~0x1fffu", "b32")
        if "x2" in to + source or to not in WIDTHS or source not in WIDTHS:
            raise Unsupported(".".join(parts))
        flush = "ftz" in parts  # of float32 alone: halves that are subnormal are normal in float32
        value = self.read(a[1], source, flush=flush and source == "f32")
        saturate = "sat" in parts
        from_float, to_float = (t in (*FLOATS, *HALVES) for t in (source, to))
        rounded = {"rzi": "std::trunc", "rni": "std::nearbyint", "rmi": "std::floor", "rpi": "std::ceil"}
        if from_float and not to_float:
            return self.write(a[0], f"to_integer<{to}>({rounded[rounding]}(widen({value})))", to)
        if from_float:
            wide = f"widen({value})"
            if rounding in rounded:
                wide = f"{rounded[rounding]}({wide})"
            if saturate:
                wide = f"std::fmin(std::fmax({wide}, 0.0), 1.0)"
            narrowed = f"narrow<{to}>({wide})"
            return self.write(a[0], f"flushed({narrowed})" if flush and to == "f32" else narrowed, to)
        if to_float:
            return self.write(
                a[0], f"narrow<{to}>((double){value})" if to in HALVES else f"({to}){value}", to
            )
        if saturate:
            limits = f"std::numeric_limits<{to}>"
            return self.write(
                a[0], f"std::clamp<s64>((s64){value}, (s64){limits}::min(), (s64){limits}::max())", to
            )
        return self.write(a[0], f"({c_type(to)}){value}", to)

    # ------------------------------------------------------------------------------------------ arithmetic

    def _halves(self, parts, a):
        name, dtype = parts[0], parts[-1]
        half, values = dtype.removesuffix("x2"), a[1:]
        flush = "flushed" if "ftz" in parts else ""
        result = f"{flush}(narrow<{half}>({HALF_OPERATIONS[name]}))"
        if "x2" not in dtype:
            given = " ".join(
                f"const double {n} = widen({self.read(v, dtype, flush='ftz' in parts)});"
                for n, v in zip("xyz", values, strict=False)
            )
            return f"{given} {self.write(a[0], result, dtype)}"
        given = " ".join(
            f"const u32 {n}2 = {self.read(v, 'u32')};" for n, v in zip("xyz", values, strict=False)
        )
        computed = []
        for shift in (16, 0):
            widened = " ".join(
                f"const double {n} = widen({flush}(as<{half}>((u16)({n}2 >> {shift}))));"
                for n in "xyz"[: len(values)]
            )
            computed.append(f"(u32)[&] {{ {widened} return as<u16>({result}); }}()")
        return f"{given} {self.write(a[0], f'{computed[0]} << 16 | {computed[1]}', 'u32')}"

    def _with_carry(self, name, parts, a):
        dtype = unsigned(parts[-1])
        wide, width = ("u128" if "64" in dtype else "u64"), WIDTHS[parts[-1]]
        carry_in = "carry" if name.endswith("c") else "0"
        keep = "carry = " if "cc" in parts else "(void)"
        if name.startswith("sub"):
            total = f"({wide}){self.read(a[1], dtype)} - {self.read(a[2], dtype)} - {carry_in}"
        elif name.startswith("add"):
            total = f"({wide}){self.read(a[1], dtype)} + {self.read(a[2], dtype)} + {carry_in}"
        else:
            product = f"({wide}){self.read(a[1], dtype)} * {self.read(a[2], dtype)}"
            half = f"({dtype})(({product}) >> {width if 'hi' in parts else 0})"
            total = f"({wide}){half} + {self.read(a[3], dtype)} + {carry_in}"
        store = self.write(a[0], f"({dtype})total", parts[-1])
        return f"const {wide} total = {total}; {keep}(bool)((total >> {width}) & 1); {store}"

    def _multiply(self, parts, a):
        """mul and mad of integers: the low half, the high half or all of the product."""
        dtype = parts[-1]
        signed, width = dtype[0] == "s", WIDTHS[dtype]
        wide = (
            {16: "s32", 32: "s64", 64: "s128"}[width] if signed else {16: "u32", 32: "u64", 64: "u128"}[width]
        )
        x, y = self.read(a[1], dtype), self.read(a[2], dtype)
        if "wide" in parts:
            added = f" + {self.read(a[3], wide)}" if parts[0] == "mad" else ""
            return self.write(a[0], f"({wide}){x} * {y}{added}", wide)
        if "hi" in parts:
            added = f" + {self.read(a[3], dtype)}" if parts[0] == "mad" else ""
            return self.write(a[0], f"({dtype})((({wide}){x} * {y}) >> {width}){added}", dtype)
        u = unsigned(dtype)
        added = f" + {self.read(a[3], u)}" if parts[0] == "mad" else ""
        return self.write(a[0], f"{self.read(a[1], u)} * {self.read(a[2], u)}{added}", dtype)

    def _arithmetic(self, parts, a):
        name, dtype = parts[0], parts[-1]
        kind, u = c_type(dtype), unsigned(dtype)
        floating = dtype in FLOATS
        flush = "ftz" in parts
        if not MODIFIERS.issuperset(parts[1:]):
            raise KeyError(name)
        if name in ("mul", "mad") and not floating:
            return self._multiply(parts, a)

        def read(i, dtype=dtype):
            return self.read(a[i], dtype, flush=flush)

        def result(value, dtype=dtype):
            if "relu" in parts:
                value = f"std::max<{kind}>({value}, 0)"
            if floating and "sat" in parts:
                value = f"std::clamp<{dtype}>({value}, 0, 1)"
            return self.write(a[0], f"flushed({value})" if flush else value, dtype)

        if floating:
            simple = {
                "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}",
                "fma": "std::fma({0}, {1}, {2})", "mad": "std::fma({0}, {1}, {2})", "neg": "-{0}",
                "abs": "std::fabs({0})", "min": "minimum({0}, {1})", "max": "maximum({0}, {1})",
                "sqrt": "std::sqrt({0})", "rsqrt": "1 / std::sqrt({0})", "rcp": "1 / {0}",
                "ex2": "std::exp2({0})", "lg2": "std::log2({0})", "sin": "std::sin({0})",
                "cos": "std::cos({0})", "tanh": "std::tanh({0})",
                "copysign": "std::copysign({1}, {0})",
            }  # fmt: skip
            if "NaN" in parts:
                simple |= {"min": "minimum_or_nan({0}, {1})", "max": "maximum_or_nan({0}, {1})"}
            if name == "testp":
                test = {"nan": "std::isnan", "infinite": "std::isinf", "finite": "std::isfinite"}[parts[1]]
                return f"{c_name(a[0])} = {test}({read(1)});"
            return result(simple[name].format(*(read(i) for i in range(1, len(a)))))

        if name in ("and", "or", "xor"):
            operator = {"and": "&", "or": "|", "xor": "^"}[name]
            if dtype == "pred":
                return f"{c_name(a[0])} = ({self.bits(a[1])} {operator} {self.bits(a[2])});"
            return result(f"{read(1, u)} {operator} {read(2, u)}")
        if name == "not":
            return f"{c_name(a[0])} = !{self.bits(a[1])};" if dtype == "pred" else result(f"~{read(1, u)}")
        if name in ("shl", "shr"):
            return result(
                f"shift_{'left' if name == 'shl' else 'right'}<{kind}>({read(1)}, {read(2, 'u32')})"
            )
        if name == "shf":
            x, y, n = (read(i, "u32") for i in (1, 2, 3))
            n = f"({n} & 31)" if "wrap" in parts else f"std::min<u32>({n}, 32)"
            both = f"((u64){y} << 32 | {x})"
            return result(f"(u32)({both} >> {n})" if "r" in parts else f"(u32)(({both} << {n}) >> 32)", "b32")
        if name == "lop3":
            return result(f"logic3({read(1, 'u32')}, {read(2, 'u32')}, {read(3, 'u32')}, {a[4]})", "b32")
        if name == "prmt":
            return result(f"permute_bytes({read(1, 'u32')}, {read(2, 'u32')}, {read(3, 'u32')})", "b32")
        if name == "bfe":
            return result(f"extract_bits<{kind}>({read(1)}, {read(2, 'u32')}, {read(3, 'u32')})")
        if name == "bfi":
            return result(f"insert_bits<{kind}>({read(1)}, {read(2)}, {read(3, 'u32')}, {read(4, 'u32')})")
        if name == "popc":
            return result(f"std::popcount({read(1)})", "u32")
        if name == "clz":
            return result(f"std::countl_zero({read(1, u)})", "u32")
        if name == "brev":
            return result(f"reverse_bits({read(1)})")
        if name == "bfind":
            leading = f"(u32)std::countl_zero({read(1, u)})"
            found = leading if "shiftamt" in parts else f"{WIDTHS[dtype] - 1} - {leading}"
            return result(f"{read(1, u)} ? {found} : ~0u", "u32")
        simple = {
            "add": f"{read(1, u)} + {read(2, u)}" if len(a) > 2 else "",
            "sub": f"{read(1, u)} - {read(2, u)}" if len(a) > 2 else "",
            "div": f"{read(2)} ? ({kind})({read(1)} / {read(2)}) : ({kind})-1" if len(a) > 2 else "",
            "rem": f"{read(2)} ? ({kind})({read(1)} % {read(2)}) : {read(1)}" if len(a) > 2 else "",
            "min": f"std::min<{kind}>({read(1)}, {read(2)})" if len(a) > 2 else "",
            "max": f"std::max<{kind}>({read(1)}, {read(2)})" if len(a) > 2 else "",
            "neg": f"-{read(1, u)}",
            "abs": f"{read(1)} < 0 ? -{read(1, u)} : {read(1, u)}",
            "cnot": f"{read(1, u)} == 0",
        }
        return result(simple[name])
