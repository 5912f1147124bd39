"""What tests libraries for other systems, tried on this one's: see recorded_calls.py."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from recorded_calls import record

from fastlogconv.backends import c_interface, native

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def replay(tmp_path_factory):
    """The program, to be run with a file, maybe an instruction set."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if sys.platform == "win32" or compiler is None or not (ROOT / "csrc").is_dir():
        pytest.skip("takes the sources and g++ or clang++")
    program = tmp_path_factory.mktemp("replay") / "replay_calls"
    source = ROOT / "tests" / "replay_calls.cpp"
    flags = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc'}"]
    libraries = ["-ldl"] if sys.platform == "linux" else []
    subprocess.run([compiler, *flags, source, "-o", program, *libraries], check=True)

    def run(*arguments):
        command = [program, c_interface.CPU_LIBRARY, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "calls"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # labels of type bool
        assert record(path, seeds=1) > 50
    return path


def test_this_library_returns_what_it_returned(replay, recorded, instruction_set):
    done = replay(recorded, instruction_set)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{instruction_set}: ") and ", 0 wrong, " in done.stdout


def test_a_result_that_differs_is_noticed(replay, recorded, tmp_path):
    """Of the last call of the file, `calculate_weights`: the last of its float64 weights."""
    content = bytearray(recorded.read_bytes())
    content[-1] ^= 0x40
    changed = tmp_path / "changed"
    changed.write_bytes(content)
    done = replay(changed)
    assert done.returncode == 1
    assert " 1 wrong, " in done.stdout


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="asks Linux")
def test_instruction_set_is_the_best_that_linux_finds():
    """Which names what the CPU has and the system keeps the registers of."""
    flags = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), ""
    )
    flags = set(flags.split())
    avx2 = {"avx2", "fma"} <= flags
    avx512 = avx2 and {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags
    expected = "avx512" if avx512 else "avx2" if avx2 else "baseline" if flags else "neon"
    assert native.describe()["instruction set"] == expected
