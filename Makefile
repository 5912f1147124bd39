# Each target does its own set-up: Python >= 3.10 with venv and a C++ compiler are all it needs.
PYTHON ?= python3
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
BENCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
CSRC := $(shell find csrc -name '*.h' -o -name '*.cpp')
GPU_ON_CPU := $(wildcard tests/gpu_on_cpu/runtime/*.h)

.PHONY: test demo bench lint clean FORCE

test: lint $(VENV)/built
	$(BIN)/python -m pytest $(PYTEST_ARGS)

demo: $(VENV)/built
	$(BIN)/python -m fastlogconv demo --out demo

# MASK=FILE adds a label image of your own. Best on a machine that does nothing else.
bench: $(VENV)/bench $(VENV)/built
	$(BIN)/python -m bench.run --figures $(BENCH_ARGS) $(if $(MASK),--mask "$(MASK)")
	$(BIN)/python -m bench.run $(BENCH_ARGS) $(if $(MASK),--mask "$(MASK)")

lint: $(VENV)/packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CSRC) $(GPU_ON_CPU)

# The package itself is installed here too, editable; `built` then only follows the C++ sources.
$(VENV)/packages: pyproject.toml setup.py $(VENV)/torch
	$(BIN)/pip install --quiet "$(TORCH)" --editable ".[cli,test,dev]"
	@touch $@

$(VENV)/bench: $(VENV)/packages
	$(BIN)/pip install --quiet "$(TORCH)" --editable ".[bench]"
	@touch $@

$(VENV)/built: $(VENV)/packages $(CSRC)
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

$(VENV)/torch: FORCE
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "$(TORCH)" | cmp -s - $@ || echo "$(TORCH)" > $@

clean:
	rm -rf $(VENV) build dist demo *.egg-info fastlogconv/*.so fastlogconv/*.dylib
