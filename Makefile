PYTHON ?= python

.PHONY: test lint format doc benchmarks

test:
	$(PYTHON) -m pytest

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

doc:
	$(MAKE) -C doc html SPHINXBUILD="$(abspath $(shell command -v $(PYTHON))) -m sphinx"

benchmarks:
	$(PYTHON) -m benchmarks.references
	$(PYTHON) -m benchmarks.solver --json benchmarks/results/solver.json
