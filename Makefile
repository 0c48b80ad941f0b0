# Every target creates .venv and installs what it needs; `make help` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cgagent needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing into $(VENV), once" >&2
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { echo "no virtual environment: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@# Where PYTHONDONTWRITEBYTECODE is set, each start would compile anew: 10 ms.
	@$(BIN)/python -m compileall -q agent
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.PHONY: run
run: $(VENV)/.run ## the main job: explain, write an env file, start a program with it
	@deploy/demo $(BIN)/cgagent

.PHONY: test
test: $(VENV)/.dev ## the default tests
	pytest

.PHONY: test-kernel-v1 test-kernel-v2
test-kernel-v1: $(VENV)/.dev ## real cgroups v1, here or in an emulated machine; needs root
	tests/machine/tier v1
test-kernel-v2: $(VENV)/.dev ## real cgroups v2, here or in an emulated machine; needs root
	tests/machine/tier v2

.PHONY: bench
bench: $(VENV)/.dev ## what it costs, as ratios to a baseline of the same run
	$(BIN)/python -m compileall -q agent
	python tests/bench/bench_start.py
	python tests/bench/bench_growth.py

.PHONY: lint
lint: $(VENV)/.dev ## ruff and mypy --strict
	ruff check
	ruff format --check
	mypy

.PHONY: clean
clean: ## remove what the targets made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
