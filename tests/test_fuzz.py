"""The C interface with random input under the sanitizers, for a few seconds: `make fuzz` takes its time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="built with the sanitizers of Linux compilers")
@pytest.mark.parametrize(
    "options",
    [
        ["FUZZ_SECONDS=5", "FUZZ_SETS=$(USUAL_SET)"],
        pytest.param(["FUZZ_SECONDS=20"], marks=pytest.mark.exhaustive),  # all instruction sets
    ],
    ids=" ".join,
)
def test_nothing_is_found_in_a_few_seconds(options):
    done = subprocess.run(
        ["make", "-j2", "fuzz", *options],
        cwd=Path(__file__).parents[1],
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"^(\d+) cases passed", done.stdout, re.MULTILINE).group(1)) > 20
