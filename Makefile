# The three commands of the README. Each makes what it needs of the virtual environment in .venv first;
# nothing else must be installed on a machine with Python ≥ 3.11 and make.
#
#   make demo    compile, verify and run a real CNN, and compare it with ONNX Runtime
#   make test    the whole test suite
#   make lint    formatting, lint, types and layering
#
# PYTHON=python3.12 picks the interpreter that .venv is made with; PYTEST_ARGS is handed to pytest.

PYTHON      ?= python3
VENV        ?= .venv
PYTEST_ARGS ?=

BIN     := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INPUTS  := pyproject.toml constraints.txt

.PHONY: demo test lint format clean
.DELETE_ON_ERROR:

demo: $(VENV)/.stamp-demo
	$(BIN)/python -m bench.demo

test: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.stamp-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.stamp-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "egc needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-demo: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e '.[verify]'
	@$(BIN)/python -m compileall -q egc  # as pip does for what it copies: the first run need not wait for it
	@touch $@

$(VENV)/.stamp-test: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e '.[test]'
	@touch $@

$(VENV)/.stamp-lint: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	@touch $@
