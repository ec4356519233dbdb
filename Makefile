# make demo    install imcat and run it on the tile in examples/
# make test    install what the tests need and run all of them
# make check   format, lint, types        make bench   peers side by side        make docs   the documentation
#
# PYTHON (3.11 or newer) makes the environment VENV, unless VENV is there already.

PYTHON ?= python3
VENV   ?= .venv
DEMO   ?= build/demo

PY      = $(VENV)/bin/python
PIP     = $(PY) -m pip install --disable-pip-version-check --quiet
SOURCES = $(shell find imcat weights -name '*.py')
TILE    = $(wildcard examples/tile/*)
BENCHMARKS = $(shell grep -l __main__ benchmarks/*.py)

# A stamp holds the folder that is installed: an environment that was last used from another checkout is not ours.
BASE    = $(VENV)/.imcat-base
ALL     = $(VENV)/.imcat-all
# What Numba compiles is kept beside the modules; one run compiles it once, tests side by side would each do it.
COMPILED = $(VENV)/.imcat-compiled
OTHERS  = $(filter-out $(CURDIR),$(shell cat $(1) 2>/dev/null))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check format bench docs clean FORCE

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

$(PY):
	@echo "creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: imcat needs Python 3.11 or newer; \
	this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: $(PYTHON) cannot make environments (Debian: install python3-venv), or give one: make VENV=..." >&2; exit 1; }

$(BASE): setup.cfg pyproject.toml $(if $(call OTHERS,$(BASE)),FORCE) | $(PY)
	@echo "installing imcat and what it needs (a few minutes and 6 GB the first time: torch is among it)"
	@$(PIP) --editable .
	@echo $(CURDIR) > $@

$(ALL): setup.cfg pyproject.toml $(if $(call OTHERS,$(ALL)),FORCE) | $(PY)
	@echo "installing imcat, its extras and what the tests need (a few minutes and 6 GB the first time)"
	@$(PIP) --editable '.[all]'
	@echo $(CURDIR) > $(BASE)
	@echo $(CURDIR) > $@

$(DEMO)/run.json: $(BASE) $(SOURCES) $(TILE)
	@rm -rf $(DEMO)
	@mkdir -p $(dir $(DEMO))
	$(VENV)/bin/imcat run examples/tile -o $(DEMO)

demo: $(DEMO)/run.json
	@echo
	@echo "catalogue: $$(ls $(DEMO)/sources/*.parquet)"
	@echo "overview:  $$(ls $(DEMO)/report/*.png)"

$(COMPILED): $(ALL) $(shell find imcat/measure imcat/psf imcat/noise imcat/detect -name '*.py') $(TILE)
	@echo "compiling what measures and fits (some minutes the first time)"
	@folder=$$(mktemp -d); if $(VENV)/bin/imcat run examples/tile -o $$folder/run --no-report > $$folder/log 2>&1; \
	  then echo $(CURDIR) > $@; else cat $$folder/log >&2; fi; rm -rf $$folder

test: $(ALL) $(COMPILED)
	@$(PY) -m pytest -n auto $(PYTEST)

check: $(ALL)
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy

format: $(ALL)
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

# QUICK=1 runs each once, on less; the peers source-extractor and swarp are Debian packages.
bench: $(ALL)
	@for script in $(BENCHMARKS); do $(PY) $$script $(if $(QUICK),--quick) || exit 1; done
	@$(PY) docs/readme_numbers.py

docs: $(ALL)
	@$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "documentation: docs/_build/html/index.html"

clean:
	rm -rf build docs/_build *.egg-info
