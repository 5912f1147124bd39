"""Runs triton_interpreted.py in a process where Triton's interpreter is switched on."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastlogconv.backends.triton_launch import why_too_old

CASES = Path(__file__).with_name("triton_interpreted.py")


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="the package triton is not installed")
@pytest.mark.skipif(why_too_old() is not None, reason=str(why_too_old()))
def test_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", str(CASES)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
