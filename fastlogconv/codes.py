"""Numbers that Python, Triton and C have to agree on. Triton's kernels take them from here; a test holds
csrc/fastlogconv.h and csrc/formulas.h against them. Those of distances and border rules are in rules.py.
"""

ABI_VERSION = 10  # FLC_ABI_VERSION
MOST_AXES = 4  # FLC_MOST_AXES: of a tensor
BAND_BITS = 24  # Triton: values of a region that are as far apart as 2^24 at most are summed together
CELL = 32  # pixels on a side of a cell: a row of one is a 32-bit word

# Enumerations of csrc/fastlogconv.h: the place of a name is its code.
STATUSES = ("ok", "out_of_memory", "not_an_id", "unsupported")
DTYPES = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "bfloat16", "float32", "float64",
)  # fmt: skip
PADDING_MODES = ("constant", "reflect", "replicate", "circular")

# How sums of an instance, or its distance, are held by the kernels for GPUs: see docs/algorithm.md.
WAYS = ("scaled", "chunk_scaled", "mixed", "logarithmic", "euclidean")
