"""Files of tests about sources, compilers and benchmarks, not about what a wheel installs."""

NOT_OF_THE_PACKAGE = (
    "test_algorithm_page", "test_bench", "test_bench_gpu", "test_bench_training", "test_codes",
    "test_cuda_compiled", "test_cuda_nearest", "test_cuda_terms", "test_examples", "test_fuzz",
    "test_gpu_on_cpu", "test_launches", "test_packaging", "test_pages", "test_recipes", "test_recorded_calls",
    "test_triton_compiled", "test_triton_interpreted", "test_triton_nearest", "test_triton_terms",
)  # fmt: skip
OPTIONS = [f"--ignore=tests/{name}.py" for name in NOT_OF_THE_PACKAGE]

if __name__ == "__main__":
    print(*OPTIONS)
