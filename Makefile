# Each target does its own set-up: Python >= 3.10 with venv and a C++ compiler are all it needs.
PYTHON ?= python3
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
BENCH_ARGS ?=

INTEGRATIONS_TORCH ?= torch==2.14.1 torchvision==0.29.1

VENV := .venv
INTEGRATIONS_VENV := .venv-integrations
BIN := $(VENV)/bin
CSRC := $(shell find csrc -name '*.h' -o -name '*.c*')

# Where nvcc is found, for one GPU only: the tests compile for the others themselves.
export FASTLOGCONV_CUDA_ARCHS ?= 80
GPU_ON_CPU := $(wildcard tests/gpu_on_cpu/runtime/*.h)

# By files, in the order of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: test test-kernels test-all test-gpu test-integrations fuzz demo bench docs lint wheels test-wheels clean FORCE

# Everything that is promised, but for what takes compilers of GPU code.
test: lint $(VENV)/built
	$(PYTEST) -m "not compiled and not exhaustive" $(PYTEST_ARGS)

# The GPUs' kernels without a GPU: as compiled for one, on the CPU.
test-kernels: $(VENV)/built
	$(PYTEST) -m "compiled and not exhaustive" $(PYTEST_ARGS)

# All of it, and the proofs again: for more GPUs, under AddressSanitizer, with more settings.
test-all: lint $(VENV)/built
	$(PYTEST) $(PYTEST_ARGS)

# The tests on CUDA tensors, with the Python and the torch at hand. Kernels are built for the GPU that is there;
# what runs the tests and the build is installed where it is missing, and nothing else.
define GPU_ARCH
import sys, torch
if not torch.cuda.is_available(): sys.exit("make test-gpu: PyTorch finds no CUDA device")
print("%d%d" % torch.cuda.get_device_capability())
endef
export GPU_ARCH

test-gpu:
	@arch=$$($(PYTHON) -c "$$GPU_ARCH") && set -x && \
	  { $(PYTHON) -c "import pytest, xdist" || $(PYTHON) -m pip install pytest pytest-xdist; } && \
	  { $(PYTHON) -c "import setuptools.command.bdist_wheel" || $(PYTHON) -m pip install "setuptools>=77"; } && \
	  FASTLOGCONV_CUDA_ARCHS=$$arch $(PYTHON) setup.py --quiet build_ext --inplace && \
	  OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m gpu --numprocesses logical --maxprocesses 16 \
	    --dist worksteal $(PYTEST_ARGS)

# torchvision, fastai, nnU-Net and segmentation_models.pytorch, which need a torch of several GB.
test-integrations: $(INTEGRATIONS_VENV)/packages $(VENV)/built
	$(INTEGRATIONS_VENV)/bin/python -m pytest tests/integrations $(PYTEST_ARGS)

# The C interface with random input under AddressSanitizer and UBSan; the compiler takes minutes.
FUZZ_SECONDS ?= 60
USUAL_SET := $(if $(filter aarch64 arm64,$(shell uname -m)),neon,baseline)
FUZZ_SETS ?= $(USUAL_SET) $(if $(filter x86_64,$(shell uname -m)),avx2 avx512)
FUZZ := build/fuzz$(subst $() ,,$(FUZZ_SETS:%=-%))
FUZZ_FLAGS := -std=c++20 -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -ffp-contract=off \
  -fno-math-errno -fno-trapping-math -pthread -Wall -Wextra -Icsrc \
  $(if $(filter avx2,$(FUZZ_SETS)),-DFLC_HAVE_AVX2) $(if $(filter avx512,$(FUZZ_SETS)),-DFLC_HAVE_AVX512)
avx2_FLAGS := -mavx2 -mfma
avx512_FLAGS := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512

fuzz: $(FUZZ)/fuzz
	$(FUZZ)/fuzz $(FUZZ_SECONDS)

$(FUZZ)/fuzz: $(patsubst csrc/cpu/%.cpp,$(FUZZ)/%.o,$(wildcard csrc/cpu/*.cpp)) \
  $(FUZZ_SETS:%=$(FUZZ)/kernels-%.o) $(FUZZ)/main.o
	$(CXX) $(FUZZ_FLAGS) $^ -o $@

$(FUZZ)/main.o: tests/fuzz.cpp tests/fuzz_input.h $(CSRC)
	@mkdir -p $(@D)
	$(CXX) $(FUZZ_FLAGS) -c $< -o $@

$(FUZZ)/kernels-%.o: csrc/cpu/simd/kernels.cpp $(CSRC)
	@mkdir -p $(@D)
	$(CXX) $(FUZZ_FLAGS) $($*_FLAGS) -DFLC_ISA=$* -c $< -o $@

$(FUZZ)/%.o: csrc/cpu/%.cpp $(CSRC)
	@mkdir -p $(@D)
	$(CXX) $(FUZZ_FLAGS) -c $< -o $@

demo: $(VENV)/demo
	@echo "make demo: segmenting the coins, weighing them with every backend that can run here"
	@$(BIN)/python -m fastlogconv demo --out demo

# What the demo needs, and no more.
$(VENV)/demo: pyproject.toml setup.py $(VENV)/torch $(CSRC)
	@echo "make demo: installing $(TORCH), matplotlib, scikit-image and scipy into $(VENV), building the C++ kernels"
	@$(BIN)/pip install --quiet "$(TORCH)" --editable ".[demo]"
	@touch $@

# MASK=FILE adds a label image of your own. Best on a machine that does nothing else.
bench: $(VENV)/bench $(VENV)/built
	$(BIN)/python -m bench.run --figures $(BENCH_ARGS) $(if $(MASK),--mask "$(MASK)")
	$(BIN)/python -m bench.run $(BENCH_ARGS) $(if $(MASK),--mask "$(MASK)")
	$(BIN)/python -m bench.run --volumes $(BENCH_ARGS)

# README.md, docs/ and the reference as a site, in build/site; a warning or a link that leads nowhere fails.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: $(VENV)/packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CSRC) $(GPU_ON_CPU) tests/fuzz.cpp tests/fuzz_input.h

# The package itself is installed here too, editable; `built` then only follows the C++ sources.
$(VENV)/packages: pyproject.toml setup.py $(VENV)/torch
	$(BIN)/pip install --quiet "$(TORCH)" --editable ".[cli,test,dev]"
	@touch $@

$(VENV)/bench: $(VENV)/packages
	$(BIN)/pip install --quiet "$(TORCH)" --editable ".[bench]"
	@touch $@

$(VENV)/docs: $(VENV)/packages
	$(BIN)/pip install --quiet "$(TORCH)" --editable ".[docs]"
	@touch $@

$(VENV)/built: $(VENV)/packages $(CSRC)
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

$(INTEGRATIONS_VENV)/packages: pyproject.toml
	test -x $(INTEGRATIONS_VENV)/bin/pip || $(PYTHON) -m venv $(INTEGRATIONS_VENV)
	$(INTEGRATIONS_VENV)/bin/pip install --quiet $(INTEGRATIONS_TORCH) --editable ".[test-integrations]"
	@touch $@

$(VENV)/torch: FORCE
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "$(TORCH)" | cmp -s - $@ || echo "$(TORCH)" > $@

# dist/: the sdist, and wheels for Linux, macOS and Windows, from Linux on x86-64; with the CUDA library where nvcc is.
WHEEL_TOOLS := auditwheel==6.8.2 lief==1.0.0 setuptools==84.2.1 ziglang==0.17.1
WHEELS_VENV := .venv-wheels
WHEELS_ARGS ?=

wheels: $(WHEELS_VENV)/tools
	FASTLOGCONV_CUDA_ARCHS= $(WHEELS_VENV)/bin/python -m wheels.make $(WHEELS_ARGS)

# As far as a Linux machine can: needs qemu-user, libc6-arm64-cross and Wine, and says so.
TRY_VENV := .venv-try
test-wheels: $(WHEELS_VENV)/tools $(TRY_VENV)/tests
	$(WHEELS_VENV)/bin/python -m wheels.try_out $(TRY_VENV)/bin/python --pytest="-m 'not exhaustive' $(PYTEST_ARGS)"

$(WHEELS_VENV)/tools: Makefile
	test -x $(WHEELS_VENV)/bin/pip || $(PYTHON) -m venv $(WHEELS_VENV)
	$(WHEELS_VENV)/bin/pip install --quiet $(WHEEL_TOOLS)
	@touch $@

# What the tests of an installed wheel take.
$(TRY_VENV)/tests: Makefile
	test -x $(TRY_VENV)/bin/pip || $(PYTHON) -m venv $(TRY_VENV)
	$(TRY_VENV)/bin/pip install --quiet "$(TORCH)" numpy pytest scipy hypothesis
	@touch $@

clean:
	rm -rf $(WHEELS_VENV) $(TRY_VENV) $(VENV) $(INTEGRATIONS_VENV) build dist demo *.egg-info fastlogconv/*.so fastlogconv/*.dylib
