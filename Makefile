# Every verb sets up what it needs, once, in .venv:
#   make demo      a picture and a prompt become runs/demo/penguin.mp4 (installs what running takes)
#   make test      the tests, on PyTorch and on MindSpore (installs the tools of development too)
#   make check     style, types, and who may import whom
#   make pythons   what needs no framework, on the other Pythons that are here
#   make numpy2    the tests on PyTorch with numpy 2
#   make env       the environment for running alone
#   make clean     remove what make has made, except runs/

# The first of these that both frameworks run on (MindSpore: 3.10 to 3.12); another one: make demo PYTHON=/path/to/python3.14
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
DEMO := runs/demo
# A process for each core, each of one thread: most of a test is Python.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal
# What holds on either framework.
BOTH := tests/backend tests/compat tests/jobs tests/models tests/pipeline tests/plan tests/processors tests/sampling tests/weights
# What compares the two, or is MindSpore's alone, and takes it minutes.
MINDSPORE := tests/test_agreement.py "tests/test_examples.py::test_the_pages_scripts[vanilla-mindspore-2]"
# What needs no framework: the pure rooms with their examples, jobs, configurations, pictures, help and refusals.
PURE := tests/plan tests/toyworld tests/test_config.py tests/test_job.py tests/test_picture.py \
	tests/test_without_a_framework.py src/longtake/plan src/longtake/sampling src/longtake/toyworld src/longtake/job.py
PYTHONS := 3.10 3.12 3.13

.PHONY: env dev demo test check numpy2 pythons clean

env: $(VENV)/.env
dev: $(VENV)/.dev

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make sets longtake up with Python 3.10, 3.11 or 3.12, and none was found; make demo PYTHON=/path/to/python takes another."; exit 1; }
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
	$(TESTS)
	LONGTAKE_BACKEND=mindspore $(TESTS) $(BOTH) $(MINDSPORE)

# numpy 2 lies before the environment's own, which MindSpore needs, so that PyTorch is not installed twice.
numpy2: $(VENV)/.dev
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --upgrade --target build/numpy2 "numpy>=2"
	PYTHONPATH=build/numpy2 LONGTAKE_BACKEND=torch $(TESTS)

pythons: $(PYTHONS:%=python%)

# PYENV_VERSION lets pyenv's python3.13 be one; where there is no pyenv it says nothing.
python%: export PYENV_VERSION = $*
python%:
	@if ! python$* -c "" 2>/dev/null; then \
		echo "Python $* is not here, so nothing was tested on it."; exit 0; \
	elif python$* -m venv build/python$* \
		&& build/python$*/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e . hypothesis pytest; then \
		echo "Python $*"; build/python$*/bin/python -m pytest -q $(PURE); \
	else echo "Python $* has no environment, for its packages cannot be installed."; exit 1; fi

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
