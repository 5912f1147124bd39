"""What Python, Triton and C have to agree on, read from the sources of each."""

import ctypes
import re
from pathlib import Path

import pytest

from fastlogconv import codes, rules
from fastlogconv.backends import c_interface
from fastlogconv.backends.triton_launch import why_too_old

ROOT = Path(__file__).parents[1]
HEADER = (ROOT / "csrc" / "fastlogconv.h").read_text()


def without_comments(text):
    return re.sub(r"//[^\n]*", "", text)


def enumeration(name):
    """{name of an enumerator: its number} of an enum of the header."""
    body = re.search(rf"enum {name} {{(.*?)}};", without_comments(HEADER), re.DOTALL)[1]
    numbers, number = {}, -1
    for entry in filter(None, map(str.strip, body.split(","))):
        enumerator, _, value = map(str.strip, entry.partition("="))
        number = int(value) if value else number + 1
        numbers[enumerator] = number
    return numbers


def named(names):
    return {f"FLC_{name.upper()}": code for code, name in enumerate(names)}


def test_enumerations_of_the_header():
    assert enumeration("flc_status") == named(codes.STATUSES)
    assert enumeration("flc_dtype") == named(codes.DTYPES)
    assert enumeration("flc_padding") == named(codes.PADDING_MODES)


@pytest.mark.parametrize("enum, table", [("flc_distance", rules.DISTANCES), ("flc_border", rules.BORDERS)])
def test_rules_of_the_header(enum, table):
    assert enumeration(enum) == {f"FLC_{name.upper()}": rule.code for name, rule in table.items()}
    assert all(rule.name == name for name, rule in table.items())


def test_numbers_of_the_header():
    defined = dict(re.findall(r"#define (FLC_\w+) (\d+)\n", HEADER))
    assert defined["FLC_ABI_VERSION"] == str(codes.ABI_VERSION)
    assert defined["FLC_MOST_AXES"] == str(codes.MOST_AXES)


C_TYPES = {
    "double": ctypes.c_double,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "const void*": ctypes.c_void_p,
}


@pytest.mark.parametrize(
    "struct, twin",
    [
        ("flc_weight_params", c_interface.WeightParams),
        ("flc_nearest_params", c_interface.NearestParams),
        ("flc_tensor", c_interface.TensorView),
    ],
)
def test_structs_of_the_header(struct, twin):
    body = re.search(rf"typedef struct {struct} {{(.*?)}}", without_comments(HEADER), re.DOTALL)[1]
    fields = []
    for kind, name, count in re.findall(r"([\w ]+\*?) (\w+)(?:\[(\w+)\])?;", body):
        ctype = C_TYPES[kind.strip()]
        counts = {"": 1, "FLC_MOST_AXES": codes.MOST_AXES} | {str(n): n for n in range(2, 9)}
        fields.append((name, ctype * counts[count] if count else ctype))
    assert fields == list(twin._fields_)


@pytest.mark.parametrize("name, value", [("CELL", codes.CELL)])
def test_constants_are_written_once_in_c(name, value):
    written = [
        number
        for path in (ROOT / "csrc").rglob("*.*")
        for number in re.findall(rf"constexpr int {name} = (\d+);", path.read_text())
    ]
    assert written == [str(value)]


def test_rules_of_c_are_those_of_the_table():
    """Each type of csrc/rules.h says of itself what the table says."""
    text = without_comments((ROOT / "csrc" / "rules.h").read_text())
    found = {}
    for code, fewest, every in re.findall(
        r"CODE = FLC_(\w+);\s+static constexpr int FEWEST_INSTANCES = (\d+);\s+"
        r"static constexpr bool EVERY_INSTANCE = (\w+);",
        text,
    ):
        found[code.lower()] = (int(fewest), every == "true")
    assert found == {
        rule.name: (rule.fewest_instances, rule.every_instance) for rule in rules.BORDERS.values()
    }


def test_triton_takes_them_from_here():
    pytest.importorskip("triton")
    if reason := why_too_old():
        pytest.skip(reason)
    from fastlogconv.kernels import cells, convolution, stages

    assert cells.CELL.value == codes.CELL
    paddings = (convolution.ZEROS, convolution.REFLECT, convolution.REPLICATE, convolution.CIRCULAR)
    assert [padding.value for padding in paddings] == list(range(len(codes.PADDING_MODES)))
    ways = {way: getattr(stages, way.upper()).value for way in codes.WAYS if way != "mixed"}  # CUDA's alone
    assert all(code == codes.WAYS.index(way) for way, code in ways.items())
