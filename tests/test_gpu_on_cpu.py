"""PTX run on the CPU: right results, and faults that were put in are found."""

import subprocess
import sys
from pathlib import Path

import gpu_on_cpu
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(gpu_on_cpu.why_not() is not None, reason=str(gpu_on_cpu.why_not()))

# Each thread stores 2 x[i] + 1 into shared memory; another thread of the block, 32 away, takes it from there.
KERNEL = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry neighbour(.param .u64 x, .param .u64 y, .param .u32 n)
{
    .reg .pred %p<3>;
    .reg .b32 %r<9>;
    .reg .f32 %f<3>;
    .reg .b64 %rd<7>;
    .shared .align 4 .b8 values[256];
    ld.param.u64 %rd1, [x];
    ld.param.u64 %rd2, [y];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %ctaid.x;
    mad.lo.s32 %r4, %r3, 64, %r2;
    setp.ge.s32 %p1, %r4, %r1;
    mul.wide.s32 %rd3, %r4, 4;
    add.s64 %rd4, %rd1, %rd3;
    mov.f32 %f1, 0f00000000;
    @!%p1 ld.global.f32 %f1, [%rd4];
    fma.rn.f32 %f1, %f1, 0f40000000, 0f3F800000;
    shl.b32 %r5, %r2, 2;
    mov.u32 %r6, values;
    add.s32 %r7, %r6, %r5;
    st.shared.f32 [%r7], %f1;
    bar.sync 0;
    xor.b32 %r8, %r5, 128;
    add.s32 %r8, %r6, %r8;
    ld.shared.f32 %f2, [%r8];
    add.s64 %rd5, %rd2, %rd3;
    @!%p1 st.global.f32 [%rd5], %f2;
    ret;
}
"""
FAULTS = {
    "race": ("bar.sync 0;", ""),
    "global": ("add.s64 %rd5, %rd2, %rd3;", "add.s64 %rd5, %rd2, %rd3; add.s64 %rd5, %rd5, 4;"),
    "shared": ("xor.b32 %r8, %r5, 128;", "add.s32 %r8, %r5, 256;"),
    "misaligned": ("add.s64 %rd4, %rd1, %rd3;", "add.s64 %rd4, %rd1, %rd3; add.s64 %rd4, %rd4, 2;"),
    "deadlock": (
        "bar.sync 0;",
        "@%p1 ret; setp.eq.s32 %p2, %r2, 0; @!%p2 bar.sync 0; @%p2 bar.warp.sync 1023;",
    ),
    "wrong result": ("0f3F800000", "0f3F801000"),
    "uninitialised": ("st.shared.f32 [%r7], %f1;", ""),
    "nothing written": ("@!%p1 st.global.f32 [%rd5], %f2;", ""),
}
EXPECTED_MESSAGES = {
    "global": "out-of-bounds access of global memory",
    "shared": "out-of-bounds access of shared memory",
    "misaligned": "misaligned access of global memory",
    "deadlock": "deadlock",
}


def run(text, x, **options):
    from gpu_on_cpu.ptx import Module

    module = Module(text, profile=options.pop("profile", False))
    y = np.full_like(x, np.nan)
    blocks = -(-len(x) // 64)
    races = module.launch("neighbour", (blocks,), (64,), [x, y, len(x)], **options)
    return module, y, races


def expected(x):
    return (2 * x + 1).reshape(-1, 2, 32)[:, ::-1].reshape(-1)


@pytest.mark.parametrize("threads", [1, 2])
def test_result(threads):
    x = np.arange(256, dtype=np.float32)
    _, y, races = run(KERNEL, x, threads=threads)
    assert races == 0
    np.testing.assert_array_equal(y, expected(x))


def test_only_some_blocks():
    x = np.arange(256, dtype=np.float32)
    _, y, _ = run(KERNEL, x, step=2)
    np.testing.assert_array_equal(np.isnan(y).reshape(4, 64).all(axis=1), [False, True, False, True])


def test_profile():
    module, _, races = run(KERNEL, np.arange(256, dtype=np.float32), profile=True)
    profile = module.profile("neighbour")
    assert races == 0
    assert profile.warp_instructions == 8 * 23  # by 8 warps
    assert profile.sectors == 2 * 256 * 4 // 32  # each value read once and written once
    assert profile.wavefronts == 2 * 8
    assert profile.by_class["barrier"] == 8
    assert profile.lane_use == 1


@pytest.mark.parametrize("jump_below", [0, 32], ids=["not taken", "taken by one warp"])
def test_profile_counts_what_follows_a_branch_once(jump_below):
    """Where a label follows the branch, both begin a block of instructions."""
    text = KERNEL.replace(
        "bar.sync 0;", f"setp.lt.s32 %p2, %r2, {jump_below}; @%p2 bra AFTER; AFTER: bar.sync 0;"
    )
    module, _, _ = run(text, np.arange(256, dtype=np.float32), profile=True)
    assert module.profile("neighbour").warp_instructions == 8 * (23 + 2)


def test_a_missing_barrier_is_a_race(capfd):
    x = np.arange(64, dtype=np.float32)
    _, _, races = run(KERNEL.replace(*FAULTS["race"]), x)
    assert races > 0
    assert "race in shared memory" in capfd.readouterr().err


def test_neighbouring_bytes_of_a_word_are_no_race():
    by_bytes = KERNEL.replace("st.shared.f32 [%r7], %f1;", "st.shared.u8 [%r7], %r2;")
    index = (
        "and.b32 %r5, %r2, 31; shr.u32 %r8, %r2, 5; mad.lo.s32 %r5, %r5, 2, %r8;"  # the two warps alternate
    )
    alternating = by_bytes.replace("shl.b32 %r5, %r2, 2;", index).replace(
        "xor.b32 %r8, %r5, 128;", "and.b32 %r8, %r5, 60;"
    )
    x = np.arange(64, dtype=np.float32)
    assert run(alternating, x)[2] == 0
    assert (
        run(alternating.replace("mad.lo.s32 %r5, %r5, 2, %r8;", ""), x)[2] > 0
    )  # both write the same 32 bytes


@pytest.mark.parametrize("fault", ["wrong result", "uninitialised", "nothing written"])
def test_wrong_results_show(fault):
    x = np.arange(64, dtype=np.float32)
    _, y, _ = run(KERNEL.replace(*FAULTS[fault]), x)
    assert not (y == expected(x)).any()


def test_asynchronous_copies_take_place_when_they_are_waited_for():
    copying = KERNEL.replace(
        "st.shared.f32 [%r7], %f1;", "cp.async.ca.shared.global [%r7], [%rd4], 4; cp.async.wait_all;"
    )
    x = np.arange(64, dtype=np.float32)
    swapped = np.concatenate([x[32:], x[:32]])
    np.testing.assert_array_equal(run(copying, x)[1], swapped)
    assert not (run(copying.replace("cp.async.wait_all;", ""), x)[1] == swapped).any()


@pytest.mark.parametrize("fault", EXPECTED_MESSAGES)
def test_faults_end_the_process(fault):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np, test_gpu_on_cpu as here
here.run(here.KERNEL.replace(*here.FAULTS[{fault!r}]), np.arange(64, dtype=np.float32))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert EXPECTED_MESSAGES[fault] in done.stderr


def test_unknown_instructions_are_refused():
    from gpu_on_cpu.ptx_types import Unsupported

    for unknown in ("wgmma.fence.sync.aligned;", "add.other.s32 %r5, %r5, %r5;"):
        with pytest.raises(Unsupported, match=unknown.split()[0].rstrip(";")):
            run(KERNEL.replace("bar.sync 0;", unknown), np.zeros(64, np.float32))


@pytest.mark.parametrize("first, second, largest", [(-7, -3, 0), (-7, 3, 3), (5, 3, 5)])
def test_integers_that_are_cut_off_below_zero(first, second, largest):
    from gpu_on_cpu.ptx import Module

    text = HEAD + f"max.relu.s32 %r4, {first}, {second}; st.global.u32 [%rd2], %r4; ret; }}"
    numbers, result = np.zeros(1, np.int32), np.zeros(1, np.int32)
    Module(text).launch("compute", (1,), (1,), [numbers, result])
    assert result[0] == largest


def test_matrices_go_to_shared_memory_and_come_back():
    """By stmatrix and, transposed, by ldmatrix."""
    from gpu_on_cpu.ptx import Module

    text = """
.version 8.0
.target sm_90
.address_size 64
.visible .entry transpose(.param .u64 x, .param .u64 y)
{
    .reg .b32 %r<5>;
    .reg .b64 %rd<5>;
    .shared .align 16 .b8 values[128];
    ld.param.u64 %rd1, [x];
    ld.param.u64 %rd2, [y];
    mov.u32 %r1, %tid.x;
    mul.wide.s32 %rd3, %r1, 4;
    add.s64 %rd1, %rd1, %rd3;
    add.s64 %rd2, %rd2, %rd3;
    ld.global.u32 %r2, [%rd1];
    and.b32 %r3, %r1, 7;
    shl.b32 %r3, %r3, 4;
    mov.u32 %r4, values;
    add.s32 %r3, %r3, %r4;
    stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r3], {%r2};
    ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r2}, [%r3];
    st.global.u32 [%rd2], %r2;
    ret;
}
"""
    matrix, result = np.arange(64, dtype=np.uint16).reshape(8, 8), np.zeros((8, 8), np.uint16)
    assert Module(text).launch("transpose", (1,), (32,), [matrix, result]) == 0
    np.testing.assert_array_equal(result, matrix.T)


# ------------------------------------------------------------------------------------- subnormal numbers

HEAD = """
.version 8.0
.target sm_90
.address_size 64
.visible .entry compute(.param .u64 x, .param .u64 y)
{
    .reg .pred %p<3>;
    .reg .b16 %h<4>;
    .reg .b32 %r<9>;
    .reg .f32 %f<4>;
    .reg .b64 %rd<7>;
    .reg .f64 %fd<2>;
    ld.param.u64 %rd1, [x];
    ld.param.u64 %rd2, [y];
"""
# The numbers in %r2 and %r3 by their bits, as every type; the result in %r4.
STEP = """
    ld.global.v2.u32 {%r2, %r3}, [%rd1+{eight}];
    mov.b32 %f1, %r2;
    mov.b32 %f2, %r3;
    cvt.u16.u32 %h1, %r2;
    cvt.u16.u32 %h2, %r3;
    cvt.f64.f32 %fd1, %f1;
    {instruction}
    st.global.u32 [%rd2+{four}], %r4;
"""
FROM_FLOAT = " mov.b32 %r4, %f3;"
FROM_HALF = " cvt.u32.u16 %r4, %h3;"
FROM_PREDICATE = " selp.b32 %r4, 1, 0, %p1;"
TINY, NEGATIVE_TINY, SMALLEST_NORMAL, ONE = 714, 0x80000000 + 714, 0x00800000, 0x3F800000  # TINY is 1e-42
TINY_HALF, NEGATIVE_TINY_HALF, ONE_HALF = 0x0001, 0x8001, 0x3C00
TINY_BFLOAT = 0x0005
ZERO, NEGATIVE_ZERO, NEGATIVE_INFINITY = 0, 0x80000000, 0xFF800000
# Instruction, its two numbers, the result without `.ftz` and with it (None: the bits differ by some).
FLUSHED = {
    "comparison": ("setp.gt.FTZ.f32 %p1, %f1, %f2;" + FROM_PREDICATE, TINY, ZERO, 1, 0),
    "comparison, equal": ("setp.eq.FTZ.f32 %p1, %f1, %f2;" + FROM_PREDICATE, TINY, NEGATIVE_ZERO, 0, 1),
    "comparison, unordered": ("setp.neu.FTZ.f32 %p1, %f1, %f2;" + FROM_PREDICATE, TINY, ZERO, 1, 0),
    "set": ("set.gt.FTZ.u32.f32 %r4, %f1, %f2;", TINY, ZERO, 0xFFFFFFFF, 0),
    "sum": ("add.FTZ.f32 %f3, %f1, %f2;" + FROM_FLOAT, TINY, TINY, 2 * TINY, ZERO),
    "sum with its sign": ("add.FTZ.f32 %f3, %f1, %f2;" + FROM_FLOAT, NEGATIVE_TINY, NEGATIVE_ZERO)
    + (NEGATIVE_TINY, NEGATIVE_ZERO),
    "difference of normal numbers": ("sub.FTZ.f32 %f3, %f1, %f2;" + FROM_FLOAT, SMALLEST_NORMAL + 5)
    + (SMALLEST_NORMAL, 5, ZERO),
    "normal numbers stay": ("add.FTZ.f32 %f3, %f1, %f2;" + FROM_FLOAT, SMALLEST_NORMAL, ZERO)
    + (SMALLEST_NORMAL, SMALLEST_NORMAL),
    "product": ("mul.FTZ.f32 %f3, %f1, %f2;" + FROM_FLOAT, TINY, ONE, TINY, ZERO),
    "product of what is flushed": ("mul.FTZ.f32 %f3, %f1, 0f5F800000;" + FROM_FLOAT, TINY, ZERO, None, ZERO),
    "product and sum": ("fma.rn.FTZ.f32 %f3, %f1, 0f3F800000, %f2;" + FROM_FLOAT, TINY, TINY, 2 * TINY, ZERO),
    "largest": ("max.FTZ.f32 %f3, %f1, %f2;" + FROM_FLOAT, TINY, ZERO, TINY, ZERO),
    "smallest": ("min.FTZ.f32 %f3, %f1, %f2;" + FROM_FLOAT, NEGATIVE_TINY, ONE, NEGATIVE_TINY, NEGATIVE_ZERO),
    "magnitude": ("abs.FTZ.f32 %f3, %f1;" + FROM_FLOAT, NEGATIVE_TINY, ZERO, TINY, ZERO),
    "negative": ("neg.FTZ.f32 %f3, %f1;" + FROM_FLOAT, TINY, ZERO, NEGATIVE_TINY, NEGATIVE_ZERO),
    "logarithm": ("lg2.approx.FTZ.f32 %f3, %f1;" + FROM_FLOAT, TINY, ZERO, None, NEGATIVE_INFINITY),
    "power": ("ex2.approx.FTZ.f32 %f3, %f1;" + FROM_FLOAT, 0xC3050000, ZERO, 0x00010000, ZERO),  # 2^-133
    "root": ("sqrt.approx.FTZ.f32 %f3, %f1;" + FROM_FLOAT, TINY, ZERO, None, ZERO),
    "inverse": ("rcp.approx.FTZ.f32 %f3, %f1;" + FROM_FLOAT, 0x7F000000, ZERO, 0x00400000, ZERO),  # 2^-127
    "selection": (
        "setp.ne.u32 %p1, %r2, 0; selp.f32 %f3, %f1, %f2, %p1;" + FROM_FLOAT,
        TINY,
        ONE,
        TINY,
        TINY,
    ),
    "to float64": (
        "cvt.FTZ.f64.f32 %fd1, %f1; cvt.rn.f32.f64 %f3, %fd1;" + FROM_FLOAT,
        TINY,
        ZERO,
        TINY,
        ZERO,
    ),
    "from float64": ("cvt.rn.FTZ.f32.f64 %f3, %fd1;" + FROM_FLOAT, NEGATIVE_TINY, ZERO)
    + (NEGATIVE_TINY, NEGATIVE_ZERO),
    "to an integer, upwards": ("cvt.rpi.FTZ.s32.f32 %r4, %f1;", TINY, ZERO, 1, 0),
    "to bfloat16": ("cvt.rn.FTZ.bf16.f32 %h3, %f1;" + FROM_HALF, TINY_BFLOAT << 16, ZERO, TINY_BFLOAT, 0),
    "from float16": ("cvt.FTZ.f32.f16 %f3, %h1;" + FROM_FLOAT, TINY_HALF, ZERO, 0x33800000, 0x33800000),
    "comparison of float16": ("setp.gt.FTZ.f16 %p1, %h1, %h2;" + FROM_PREDICATE, TINY_HALF, ZERO, 1, 0),
    "sum of float16": ("add.FTZ.f16 %h3, %h1, %h2;" + FROM_HALF, NEGATIVE_TINY_HALF, 0x8000)
    + (NEGATIVE_TINY_HALF, 0x8000),
    "product of pairs": (
        "mul.FTZ.f16x2 %r4, %r2, %r3;",
        ONE_HALF << 16 | TINY_HALF,
        ONE_HALF << 16 | ONE_HALF,
    )
    + (ONE_HALF << 16 | TINY_HALF, ONE_HALF << 16),
    "comparison of pairs": (
        "setp.gt.FTZ.f16x2 %p1|%p2, %r2, %r3; selp.b32 %r4, 1, 0, %p1; @%p2 or.b32 %r4, %r4, 2;",
        ONE_HALF << 16 | TINY_HALF,
        ZERO,
        3,
        2,
    ),
    "comparison of bfloat16": ("setp.gt.bf16 %p1, %h1, %h2;" + FROM_PREDICATE, TINY_BFLOAT, ZERO, 1, 1),
    "comparison of float64": (
        "setp.gt.f64 %p1, %fd1, 0d0000000000000000;" + FROM_PREDICATE,
        TINY,
        ZERO,
        1,
        1,
    ),
}


@pytest.fixture(scope="module")
def results_by_instruction():
    """Results without `.ftz` and with it."""
    from gpu_on_cpu.ptx import Module

    text, numbers = HEAD, []
    for replacement in ("", ".ftz"):
        for instruction, x, y, *_ in FLUSHED.values():
            step = STEP.replace("{eight}", str(8 * len(numbers))).replace("{four}", str(4 * len(numbers)))
            text += step.replace("{instruction}", instruction.replace(".FTZ", replacement))
            numbers.append((x, y))
    results = np.zeros(len(numbers), np.uint32)
    Module(text + "    ret;\n}\n").launch("compute", (1,), (1,), [np.array(numbers, np.uint32), results])
    return dict(zip(FLUSHED, results.reshape(2, -1).T.tolist(), strict=True))


@pytest.mark.parametrize("name", FLUSHED)
def test_subnormal_numbers(name, results_by_instruction):
    *_, as_they_are, flushed = FLUSHED[name]
    result = results_by_instruction[name]
    assert result[1] == flushed
    assert result[0] == as_they_are or (as_they_are is None and result[0] != flushed)


@pytest.mark.parametrize("space", ["global", "shared"])
def test_sums_of_atomics_flush_in_global_memory_only(space):
    from gpu_on_cpu.ptx import Module

    address = "%rd1" if space == "global" else "values"
    text = f"""{HEAD}
    .shared .align 4 .b8 values[4];
    ld.global.u32 %r2, [%rd1];
    st.shared.u32 [values], %r2;
    atom.{space}.add.f32 %f1, [{address}], 0f{TINY:08X};
    ld.{space}.u32 %r4, [{address}];
    st.global.u32 [%rd2], %r4;
    ret;
}}
"""
    numbers, result = np.array([TINY], np.uint32), np.zeros(1, np.uint32)
    Module(text).launch("compute", (1,), (1,), [numbers, result])
    assert result[0] == (0 if space == "global" else 2 * TINY)
