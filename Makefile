# Two commands do all the set-up on a machine that has only Python 3.11+, pip and make:
#   make demo    runs the main job on a real network
#   make test    passes the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench notebooks clean

demo: $(VENV)/.installed
	$(BIN)/accelsim run configs/int8_ws.yaml traces/digits_cnn_int8.npz

test: $(VENV)/.installed-test
	$(BIN)/pytest -q -n auto

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# runs the notebooks and stores what they show; NOTEBOOKS names some, else all of them
notebooks: $(VENV)/.installed-test
	$(BIN)/python notebooks/make_notebooks.py $(NOTEBOOKS)

# CASES names some; else all of them, which takes about half an hour with SCALE-Sim's own run
bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks --install-peers || true
	$(BIN)/python -m benchmarks $(CASES)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "accelsim needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.installed-test $(VENV)/.installed
