# Every verb sets up what it needs, once, in .venv:
#   make demo    a picture and a prompt become runs/demo/penguin.mp4 (installs what running takes)
#   make test    the tests, on PyTorch and on MindSpore (installs the tools of development too)
#   make check   style, types, and who may import whom
#   make env     the environment for running alone
#   make clean   remove what make has made, except runs/

# The first of these that longtake runs on; another one: make demo PYTHON=/path/to/python3.12
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
DEMO := runs/demo
# What holds on either framework.
BOTH := tests/backend tests/compat tests/jobs tests/models tests/pipeline tests/plan tests/processors tests/sampling tests/weights

.PHONY: env dev demo test check clean

env: $(VENV)/.env
dev: $(VENV)/.dev

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "longtake needs Python 3.10, 3.11 or 3.12; none was found."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps say which set is installed, so that each is installed once for each change of these two files.
$(VENV)/.env: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what running takes into $(VENV) (PyTorch is large; this takes minutes)"
	$(PIP) -e ".[torch]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what development takes into $(VENV) (this takes minutes)"
	$(PIP) -e ".[torch,mindspore,dev]"
	@touch $@ $(VENV)/.env

demo: $(VENV)/.env
	@mkdir -p $(DEMO)
	$(BIN)/longtake scene "a penguin in the snow" -o $(DEMO)/penguin.png
	$(BIN)/longtake generate $(DEMO)/penguin.png "A penguin dances in the snow." --frames 145 \
		-o $(DEMO)/penguin.mp4 --sheet $(DEMO)/penguin-sheet.png

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q
	LONGTAKE_BACKEND=mindspore $(BIN)/python -m pytest -q $(BOTH)

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
