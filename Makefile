# `make help` lists what there is. Needs make and Python 3.11 or newer; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
# Address of a PyTorch wheel index (see pytorch.org), for another build of torch than the platform's usual one.
# Read when .venv is made; torch alone comes from there, what it depends on from the usual place.
TORCH_INDEX ?=
# Folder of a checkout of OfflineRL-Kit, for bench.
PEER ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench clean

help:
	@echo "make demo   learn a Hopper simulator and train a policy in it on a small budget, into runs/demo"
	@echo "make test   run the tests"
	@echo "make lint   check style (ruff) and types (mypy)"
	@echo "make bench  measure how fast training and simulation are, into benchmarks/results/speed.json"
	@echo "make clean  delete .venv, caches and build leftovers; runs/ is kept"
	@echo
	@echo "Variables: PYTHON=python3.12 picks the interpreter;"
	@echo "           TORCH_INDEX=ADDRESS takes torch from that PyTorch wheel index (see pytorch.org), e.g. for CPU only;"
	@echo "           PEER=FOLDER makes bench time that checkout of OfflineRL-Kit beside offsim"

demo: $(VENV)/.installed
	@echo "Training on Hopper, small budget, into runs/demo"
	@$(VENV)/bin/offsim train hopper --budget small --out runs/demo

test: $(VENV)/.installed-dev
	@echo "Running the tests"
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2 --dist worksteal

lint: $(VENV)/.installed-dev
	@echo "Checking style with ruff"
	@$(VENV)/bin/ruff check .
	@echo "Checking types with mypy"
	@$(VENV)/bin/mypy

bench: $(VENV)/.installed-dev
	@echo "Measuring speed (some minutes); ARGUMENTS=--help lists the options"
	@$(VENV)/bin/python -m benchmarks.speed $(if $(PEER),--peer '$(PEER)') $(ARGUMENTS)

clean:
	@echo "Deleting .venv, caches and build leftovers"
	@rm -rf $(VENV) .venv-lowest build dist offsim.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path ./.git -prune -o -name __pycache__ -prune -exec rm -rf {} +

# The environment is made once and brought up to date when pyproject.toml or constraints.txt change.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "offsim needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Creating the virtual environment .venv"
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "Python's venv module is missing (on Debian: the package python3-venv)" >&2; exit 1; }

$(VENV)/.torch: constraints.txt | $(VENV)/bin/python
ifneq ($(strip $(TORCH_INDEX)),)
	@echo "Installing torch from the given index"
	@$(PIP) install --quiet -c constraints.txt --no-deps torch --index-url $(TORCH_INDEX)
endif
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.torch
	@echo "Installing offsim and what it needs into .venv (some minutes the first time)"
	@$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.torch
	@echo "Installing offsim and the developer tools into .venv (some minutes the first time)"
	@$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.installed $@
