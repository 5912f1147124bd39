"""Tests of what is not installed are skipped with the reason; none breaks the collection."""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(*options):
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "without_extras", *options],
        env=os.environ | {"PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=HERE.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_everything_is_collected_or_skipped():
    done = run("--collect-only", str(HERE))
    assert done.returncode == 0, done.stdout[-3000:]
    for package, file in (("dask", "test_large"), ("zarr", "test_sampling"), ("tifffile", "test_cli")):
        assert re.search(rf"{file}\.py:1: needs {package}, which is not installed", done.stdout)
    assert "test_separable_conv2d.py::test_views[" in done.stdout


def test_a_test_that_needs_one_is_skipped():
    done = run(f"{HERE / 'test_separable_conv2d.py'}", "-k", "against_scipy and native-cpu or by_hand")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "needs scipy, which is not installed" in done.stdout
