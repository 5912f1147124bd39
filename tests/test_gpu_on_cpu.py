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


def test_who_does_not_take_a_branch_to_the_next_line_is_counted_once():
    text = KERNEL.replace("bar.sync 0;", "setp.lt.s32 %p2, %r2, 32; @%p2 bra next;\nnext:\n bar.sync 0;")
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
    from gpu_on_cpu.translate import Unsupported

    with pytest.raises(Unsupported, match=r"wgmma"):
        run(KERNEL.replace("bar.sync 0;", "wgmma.fence.sync.aligned;"), np.zeros(64, np.float32))
