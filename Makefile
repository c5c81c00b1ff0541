# asyncnet: everything that a person does in this checkout. `make` alone explains itself.
#
# The tools live in a virtual environment in .venv, made by the first target that needs it and made again when
# pyproject.toml changes. PYTHON names the interpreter that makes it: `make setup PYTHON=python3.13`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.asyncnet

.DEFAULT_GOAL := help
.PHONY: help setup run test faults check format bench clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make the virtual environment with everything in it

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "asyncnet needs Python 3.11 or newer: make setup PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv --clear $(VENV) \
		|| { echo "no venv module: on Debian and Ubuntu, apt install python3-venv" >&2; exit 2; }
	@echo "setting up $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: $(STAMP)  ## run every service on loopback, until Ctrl-C
	@$(BIN)/python examples/all_services.py

test: $(STAMP)  ## run the tests
	@$(BIN)/python -m pytest -n auto --quiet

faults: $(STAMP)  ## run the tests of faults at full length: a hundred kills, a crash at every step; takes minutes
	@ASYNCNET_FAULTS=all $(BIN)/python -m pytest -n auto --quiet tests/faults

check: $(STAMP)  ## lint, formatting, types, and the rules between the rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP)  ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP)  ## measure against the peers; takes minutes, and wants the machine for itself
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@$(BIN)/python -m benchmarks

clean:  ## remove the virtual environment and everything that was built
	@rm -rf $(VENV) build dist benchmarks/bin .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
