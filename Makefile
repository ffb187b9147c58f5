# Every target sets up what it needs by itself, in a virtual environment of its own interpreter:
# .venv for python3, .venv-python3.12 for PYTHON=python3.12, and so on.

PYTHON ?= python3
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
ARGS ?=
PARTS ?=
MINUTES ?= 60

BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt
DEMO_STORE := build/demo-store
METAFLOW := build/metaflow
AZURITE := build/azurite
AZURITE_VERSION := 3.37.0
METAFLOW_PINS := tests/compatibility/metaflow/constraints.txt
CHECKED = $(wildcard asyncflow tests examples benchmarks docs_site)

# The two variables pin the build backend as well, for pip before and since 25.3.
INSTALL = PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:  # two installations into one environment would trip over each other
.PHONY: azurite pyright help setup demo test test-long test-slow test-cluster test-cluster-slow test-metaflow check chaos soak mutants bench bench-peers browser docs docs-pictures test-all-pythons clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PYTHON=python3.12 chooses the interpreter; ARGS='…' goes to pytest and to the benchmarks:"
	@echo "  make test ARGS='-n 0 -k journal'"

setup: $(VENV)/.setup ## Everything for developing: examples, tests, linters

demo: $(VENV)/.demo ## Run two example flows, then read their artifacts from another process
	rm -rf $(DEMO_STORE)
	mkdir -p $(dir $(DEMO_STORE))
	ASYNCFLOW_STORE=$(DEMO_STORE) $(BIN)/asyncflow run examples/artifact_flow.py
	ASYNCFLOW_STORE=$(DEMO_STORE) $(BIN)/asyncflow run examples/digits_sweep.py
	ASYNCFLOW_STORE=$(DEMO_STORE) $(BIN)/python examples/read_back.py

# The tests start some thousand processes. Each would compile asyncflow anew if none may keep bytecode.
test test-slow test-cluster test-cluster-slow: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.test ## The tests, warnings as errors: all that take less than a second
	$(BIN)/python -m pytest -m "not long and not slow and not cluster" $(ARGS)

test-long: $(VENV)/.test ## The tests that take longer: every page of the docs, storms, browsers
	$(BIN)/python -m pytest -m "long and not slow and not cluster" $(ARGS)

test-metaflow: $(VENV)/.test $(METAFLOW)/.ready ## Compare with Metaflow itself, which it installs below build/
	$(BIN)/python -m pytest -n 0 tests/compatibility/metaflow
	$(METAFLOW)/bin/python -m tests.compatibility.metaflow $(ARGS)

test-slow: $(VENV)/.test ## The slow tests alone: every byte, every fault, every commit point
	$(BIN)/python -m pytest -m "slow and not cluster" -o faulthandler_timeout=1800 $(ARGS)

test-cluster: $(VENV)/.cluster azurite ## The tests with Dask, Ray and object stores, which it installs
	$(BIN)/python -m pytest -m "cluster and not slow" -n 2 --dist=loadgroup $(or $(ARGS),tests/cluster)

test-cluster-slow: $(VENV)/.cluster ## The slow ones of them alone: every request, every commit point, lost hosts
	$(BIN)/python -m pytest -m "cluster and slow" -n 2 --dist=loadgroup $(or $(ARGS),tests/cluster)

check: $(VENV)/.setup ## Lint, format, types and floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CHECKED)
	$(BIN)/lint-imports

chaos: $(VENV)/.test ## Show that nothing is lost: kills, faults, random graphs, in full
	$(BIN)/python -m tests.durability.chaos $(PARTS)

soak: $(VENV)/.test ## Work for MINUTES (60), and see that nothing grows
	$(BIN)/python -m tests.durability.chaos.soak $(MINUTES)

mutants: $(VENV)/.mutants ## Change the code in small ways, and see whether a test notices
	$(BIN)/python -m tests.mutants $(PARTS) $(ARGS)

pyright: $(VENV)/.pyright ## Check the examples with the type checker of other editors
	$(BIN)/pyright --pythonpath $(BIN)/python examples

bench: $(VENV)/.test ## Measure; the numbers are printed
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(VENV)/.test ## The same small flow in its peers, which it installs below build/; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks.peers $(ARGS)

browser: ## Install the browser that some tests use, from Debian's packages
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends chromium chromium-driver

azurite: $(AZURITE)/.ready ## Install Azurite, Azure's emulator, for the tests with Azure; needs npm

docs: $(VENV)/.docs ## Build the documentation into build/docs
	$(BIN)/zensical build --strict --clean

docs-pictures: $(VENV)/.test ## Make the pictures of the documentation from real runs; needs Graphviz and Chromium
	@command -v dot >/dev/null || { echo "Graphviz draws the graphs: install it (Debian: apt-get install graphviz)"; exit 1; }
	@command -v chromedriver >/dev/null || { echo "Chromium shows the page: make browser"; exit 1; }
	$(BIN)/python -m docs_site.pictures

test-all-pythons: ## All tests on each supported Python that this machine has
	@failed=; \
	for version in 3.11 3.12 3.13 3.14; do \
	  found=; \
	  for candidate in python$$version "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python$$version; do \
	    if "$$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$version')" 2>/dev/null; \
	    then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "Python $$version: not found, skipped"; continue; fi; \
	  echo "Python $$version: $$found"; \
	  $(MAKE) --no-print-directory test PYTHON="$$found" VENV=.venv-python$$version || failed="$$failed $$version"; \
	done; \
	if [ -n "$$failed" ]; then echo "Failed on Python$$failed"; exit 1; fi

clean: ## Remove all that make has made, the environments included
	rm -rf build dist .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments ---------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "asyncflow needs Python 3.11 or newer, and '$(PYTHON)' is not; name another: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.demo: $(PINS) | $(BIN)/python
	@echo "Installing asyncflow and what its examples need into $(VENV) …"
	$(INSTALL) '.[examples]'
	@touch $@

$(VENV)/.test: $(PINS) | $(BIN)/python
	@echo "Installing asyncflow and what its tests need into $(VENV) …"
	$(INSTALL) '.[examples,test]'
	@touch $(VENV)/.demo $@

$(VENV)/.setup: $(PINS) | $(BIN)/python
	@echo "Installing asyncflow with everything for developing it into $(VENV) …"
	$(INSTALL) '.[examples,test,dev]'
	@touch $(VENV)/.demo $(VENV)/.test $@

$(VENV)/.cluster: $(PINS) | $(BIN)/python
	@echo "Installing asyncflow with Dask, Ray and what its cluster tests need into $(VENV) …"
	$(INSTALL) '.[examples,test,cluster-test]'
	@touch $(VENV)/.demo $(VENV)/.test $@

$(VENV)/.mutants: $(PINS) | $(BIN)/python
	@echo "Installing asyncflow and what changes it for its tests into $(VENV) …"
	$(INSTALL) '.[examples,test,mutants]'
	@touch $(VENV)/.demo $(VENV)/.test $@

$(VENV)/.pyright: $(PINS) | $(BIN)/python
	@echo "Installing asyncflow and pyright into $(VENV) …"
	$(INSTALL) '.[examples,pyright]'
	@touch $(VENV)/.demo $@

$(VENV)/.docs: $(PINS) | $(BIN)/python
	@echo "Installing asyncflow and what its documentation needs into $(VENV) …"
	$(INSTALL) '.[docs]'
	@touch $@

# Without npm, the tests that need it are skipped.
$(AZURITE)/.ready: Makefile
	@if command -v npm >/dev/null; then \
	  echo "Installing Azurite into $(AZURITE) …"; mkdir -p $(AZURITE) && \
	  npm install --prefix $(AZURITE) --no-audit --no-fund --silent azurite@$(AZURITE_VERSION) && touch $@; \
	else echo "npm is not installed, so the tests with Azurite are skipped"; fi

# Metaflow excludes some of the versions that the gate runs with, so it has pins of its own.
$(METAFLOW)/.ready: pyproject.toml $(METAFLOW_PINS)
	@echo "Installing Metaflow and asyncflow into $(METAFLOW) …"
	$(PYTHON) -m venv --clear $(METAFLOW)
	PIP_CONSTRAINT=$(METAFLOW_PINS) PIP_BUILD_CONSTRAINT=$(METAFLOW_PINS) \
	$(METAFLOW)/bin/python -m pip install --quiet --disable-pip-version-check \
	  metaflow editdistance PyYAML -e .
	@touch $@
