# Each target does its own set-up: Python >= 3.10 with venv and a C++ compiler are all it needs.
PYTHON ?= python3
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
BENCH_ARGS ?=

INTEGRATIONS_TORCH ?= torch==2.14.1 torchvision==0.29.1

VENV := .venv
INTEGRATIONS_VENV := .venv-integrations
BIN := $(VENV)/bin
CSRC := $(shell find csrc -name '*.h' -o -name '*.cpp')
GPU_ON_CPU := $(wildcard tests/gpu_on_cpu/runtime/*.h)

.PHONY: test test-integrations demo bench lint clean FORCE

test: lint $(VENV)/built
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# torchvision and fastai, which need a torch of several GB.
test-integrations: $(INTEGRATIONS_VENV)/packages $(VENV)/built
	$(INTEGRATIONS_VENV)/bin/python -m pytest tests/integrations $(PYTEST_ARGS)

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

$(INTEGRATIONS_VENV)/packages: pyproject.toml
	test -x $(INTEGRATIONS_VENV)/bin/pip || $(PYTHON) -m venv $(INTEGRATIONS_VENV)
	$(INTEGRATIONS_VENV)/bin/pip install --quiet $(INTEGRATIONS_TORCH) --editable ".[test-integrations]"
	@touch $@

$(VENV)/torch: FORCE
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "$(TORCH)" | cmp -s - $@ || echo "$(TORCH)" > $@

clean:
	rm -rf $(VENV) $(INTEGRATIONS_VENV) build dist demo *.egg-info fastlogconv/*.so fastlogconv/*.dylib
