"""The C interface with random input under the sanitizers, for a few seconds: `make fuzz` takes its time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="built with the sanitizers of Linux compilers")
def test_nothing_is_found_in_a_few_seconds():
    done = subprocess.run(
        ["make", "-j2", "fuzz", "FUZZ_SETS=baseline", "FUZZ_SECONDS=5"],
        cwd=Path(__file__).parents[1],
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"^(\d+) cases passed", done.stdout, re.MULTILINE).group(1)) > 20
