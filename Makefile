# One .venv, made by whichever target runs first and made anew when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
LOWEST := .venv-lowest

.PHONY: quickstart test soak test-install test-lowest lint format bench gpu clean
.DELETE_ON_ERROR:

quickstart: $(INSTALLED)  ## train a small VAE on a 3D scene, score it, draw its traversals
	$(BIN)/disentangle train --config configs/quickstart.yaml --overwrite
	$(BIN)/disentangle evaluate runs/quickstart \
		--factor_vae_score.train_points 2000 --factor_vae_score.test_points 1000
	$(BIN)/disentangle traverse runs/quickstart --sort --samples 2

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2

soak: $(INSTALLED)  ## what may fail once in many times, tried many times: half an hour
	$(BIN)/python -m pytest -m soak

test-install: $(INSTALLED)  ## build the wheel, install it in a fresh environment and use it there
	tests/install/check $(BIN)/python

test-lowest: $(LOWEST)/.installed  ## the tests with the oldest versions that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest --numprocesses 2 --override-ini filterwarnings=default

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks

gpu: $(INSTALLED)  ## checks that all computes right on a GPU, and how fast, in at most eight minutes
	$(BIN)/python -m tests.gpu

clean:  ## removes the environment and caches, never a run
	rm -rf .venv $(LOWEST) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build *.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is needed, found %d.%d: make PYTHON=python3.12 …" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[test,dev]'
	@touch $@

$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --resolution lowest-direct \
		--editable '.[test]'
	@touch $@
