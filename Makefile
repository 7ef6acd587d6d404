# Each target makes what it needs on a fresh machine (a virtual environment, the install) and reuses it.
PYTHON ?= python3
VENV ?= .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
READY := $(VENV)/.ready
# Flower wants older packages than wardround does, so it has an environment of its own, where the tests look for it.
FLOWER := .venvs/flower

# Tests between processes wait as well as work: they run apart, one more of them than there are processors, the longest first.
PROCESSES := --no-loadscope-reorder $(foreach name,flower flower_faults flower_figures flower_revoked namespaces two_coordinators \
  questions,tests/deploy/test_$(name).py) tests/deploy
WORKERS = $(shell $(BIN)/python -c 'import os; print(1 + (os.cpu_count() or 1))')
PYTEST = $(BIN)/python -m pytest --dist loadfile

# What is imported is compiled then, and kept: tests begin hundreds of processes, each of which would compile it again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test all quick check bench flower clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("wardround needs Python 3.11 or newer, and this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY) ## train across five unlike hospitals on built-in data, and write a report
	$(BIN)/wardround run examples/wdbc.yaml --out runs/demo --overwrite

test: $(READY) ## the tests, but for the longest
	$(PYTEST) -n auto --ignore tests/deploy -m 'not long'
	$(PYTEST) -n $(WORKERS) $(PROCESSES) -m 'not long'

all: $(READY) ## every test
	$(PYTEST) -n auto --ignore tests/deploy
	$(PYTEST) -n $(WORKERS) $(PROCESSES)

quick: $(READY) ## the tests that take seconds
	$(BIN)/python -m pytest -m 'not slow and not long'

check: $(READY) ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(READY) ## speed and memory, as ratios to a baseline timed in the same run
	$(BIN)/python -m benchmarks.suite

flower: $(FLOWER)/.ready ## Flower in an environment of its own, for what runs between hospitals and its tests

$(FLOWER)/.ready: constraints-flower.txt
	test -x $(FLOWER)/$(notdir $(BIN))/python || $(PYTHON) -m venv $(FLOWER)
	$(FLOWER)/$(notdir $(BIN))/python -m pip install --quiet --disable-pip-version-check --constraint constraints-flower.txt flwr==1.41.0
	touch $(FLOWER)/.ready

clean: ## remove the environments and caches
	rm -rf $(VENV) $(FLOWER) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
