# The two commands a reader needs:   make demo   make test
# Another interpreter:               make demo PYTHON=python3.12
# Another place for packages:        pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, ...) hold

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS := 2
ARGS :=

# Only errors are printed; the constraints decide the versions, torch's above all.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input -qq -c constraints.txt
DECLARED := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test quick lint types format lowest clean

help:
	@echo "make demo    set up, then fine-tune and show what ships with the package"
	@echo "make test    set up, then every check and the whole test suite"
	@echo "make quick   the tests of an inner loop, a minute or two: all but golden numbers at full"
	@echo "             size, short trainings, several processes, compiled graphs and documentation"
	@echo "make lint    ruff (lint and format)    make types   mypy"
	@echo "make format  let ruff rewrite the sources                 make clean   remove what make made"
	@echo "make lowest  the test suite on the lowest versions that pyproject.toml declares"

demo: $(VENV)/package.stamp
	$(BIN)/samtune demo $(ARGS)

# One thread a worker: two workers with torch's default would fight over two cores. Some tests start
# interpreters of their own: all keep their bytecode, whatever the environment says. One worker runs
# a whole file, so that what its tests share is made once.
SUITE := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1
WORKERS := -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: lint types
	$(SUITE) $(BIN)/python -m pytest $(WORKERS) $(ARGS)

quick: $(VENV)/dev.stamp
	$(SUITE) $(BIN)/python -m pytest $(WORKERS) -m "not slow" $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamps make a second call do nothing until the declared dependencies change.
$(VENV)/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is missing or older than Python 3.11, which samtune needs: name another, as in" \
	    " make $(or $(MAKECMDGOALS),demo) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/package.stamp: $(VENV)/made.stamp $(DECLARED)
	@echo "Installing samtune into $(VENV) (a minute or two)"
	@$(PIP) -e '.[instances]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/made.stamp $(DECLARED)
	@echo "Installing samtune and its development tools into $(VENV) (a minute or two)"
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps pysodmetrics==1.6.2 # it declares numpy and OpenCV older than those it runs with
	@touch $(VENV)/package.stamp $@

# torch is held at the pinned CPU build: its own lowest version exists only as a large GPU build.
# Old releases warn of what has gone since, so here a warning is no error.
$(VENV)-lowest/lowest.stamp: constraints-lowest.txt pyproject.toml
	@echo "Installing the lowest declared versions into $(VENV)-lowest (a minute or two)"
	@$(PYTHON) -m venv $(VENV)-lowest
	@$(VENV)-lowest/bin/python -m pip install --disable-pip-version-check --no-input -qq \
	  -c constraints-lowest.txt -e '.[hf,metrics]' hypothesis pytest pytest-xdist
	@touch $@

lowest: $(VENV)-lowest/lowest.stamp
	$(SUITE) $(VENV)-lowest/bin/python -m pytest $(WORKERS) -W default --ignore tests/quality $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-lowest build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
