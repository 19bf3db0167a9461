# One .venv, made by whichever target runs first and made anew when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: quickstart test lint format bench clean
.DELETE_ON_ERROR:

quickstart: $(INSTALLED)  ## train a small VAE on sprites, score it, draw its traversals
	$(BIN)/disentangle train --config configs/quickstart.yaml --overwrite
	$(BIN)/disentangle evaluate runs/quickstart \
		--factor_vae_score.train_points 2000 --factor_vae_score.test_points 1000
	$(BIN)/disentangle traverse runs/quickstart --samples 2

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2

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

clean:  ## removes the environment and caches, never a run
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build *.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is needed, found %d.%d: make PYTHON=python3.12 …" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[test,dev]'
	@touch $@
