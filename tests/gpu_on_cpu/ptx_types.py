"""The types of PTX as C++ has them, and its names."""

from __future__ import annotations

import re

WIDTHS = {
    "pred": 1, "b8": 8, "u8": 8, "s8": 8, "b16": 16, "u16": 16, "s16": 16, "f16": 16, "bf16": 16, "b32": 32,
    "u32": 32, "s32": 32, "f32": 32, "tf32": 32, "f16x2": 32, "bf16x2": 32, "b64": 64, "u64": 64, "s64": 64,
    "f64": 64, "b128": 128,
}  # fmt: skip
FLOATS = ("f32", "f64")
HALVES = ("f16", "bf16")


class Unsupported(Exception):
    """PTX that this translation does not know."""


def c_name(name: str) -> str:
    """A PTX name as a C++ name."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name.replace("%", "r_").replace("$", "L_"))


def c_type(dtype: str) -> str:
    """The C++ type of values of a PTX type."""
    return {"b8": "u8", "b16": "u16", "b32": "u32", "b64": "u64", "b128": "u128", "tf32": "f32"}.get(
        dtype, dtype
    )


def register_type(dtype: str) -> str:
    """The C++ type of registers of a PTX type."""
    return {1: "bool", 8: "u8", 16: "u16", 32: "u32", 64: "u64", 128: "u128"}[WIDTHS[dtype]]


def unsigned(dtype: str) -> str:
    """The unsigned type of the same width: it wraps around without undefined behaviour."""
    return c_type(dtype.replace("s", "u") if dtype in ("s16", "s32", "s64") else dtype)
