"""Files of tests about sources, compilers and benchmarks, not about what a wheel installs."""

from pathlib import Path

OF_THE_SOURCES = (
    "test_algorithm_page", "test_bench", "test_bench_gpu", "test_bench_training", "test_codes",
    "test_examples", "test_fuzz", "test_gpu_on_cpu", "test_launches", "test_packaging", "test_pages",
    "test_recipes", "test_recorded_calls",
)  # fmt: skip
# Kernels for GPUs, compiled here and run on the CPU, but for one that only plans.
TESTS = Path(__file__).resolve().parents[1] / "tests"
OF_KERNELS = {path.stem for kind in ("cuda", "triton") for path in TESTS.glob(f"test_{kind}_*.py")}
NOT_OF_THE_PACKAGE = (*OF_THE_SOURCES, *sorted(OF_KERNELS - {"test_triton_plans"}))
OPTIONS = [f"--ignore=tests/{name}.py" for name in NOT_OF_THE_PACKAGE]
OPTIONS.append("--deselect=tests/test_without_extras.py::test_everything_is_collected_or_skipped")

if __name__ == "__main__":
    print(*OPTIONS)
