PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOWEST := .venv-lowest
TORCH := $(shell sed -n 's/^\(torch==[0-9.]*\).*/\1/p' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help install demo demo-images test test-slow test-real test-lowest test-wheel check format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s%s\n", $$1, $$2 }'

install: $(INSTALLED) ## make .venv with the tested versions; the other targets do it by themselves

# The pinned torch goes first so that pip does not resolve another one.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install '$(TORCH)'
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

demo: $(INSTALLED) ## prune, recover and validate the small model that comes with the package
	$(BIN)/lightning-prune fit --config recipes/quickstart.yaml

demo-images: $(INSTALLED) ## train a small ViT on images that it draws, and prune it
	$(BIN)/lightning-prune fit --config recipes/train_shapes_model.yaml
	$(BIN)/lightning-prune fit --config recipes/shapes-structured.yaml

test: $(INSTALLED) ## run the tests (eight minutes on two cores)
	$(BIN)/python -m pytest -n auto --durations=10 -m 'not real and not slow'

test-slow: $(INSTALLED) ## run the tests that take long each: several processes, every recipe
	$(BIN)/python -m pytest -n auto --durations=10 -m 'slow and not real'

test-real: $(INSTALLED) ## run what takes a real language model (minutes)
	$(BIN)/python -m pytest --durations=10 -m real

test-lowest: $(LOWEST)/.installed ## run what knows other libraries with the lowest versions allowed
	$(LOWEST)/bin/python -m pytest -n auto -p no:anyio -m 'not real and not slow' tests/contract tests/commands tests/test_cli.py tests/models tests/export

$(LOWEST)/.installed: pyproject.toml constraints.txt .ci/lowest.py
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --upgrade pip
	$(LOWEST)/bin/python -m pip install '$(TORCH)'
	$(LOWEST)/bin/python -m pip install -e . '$(TORCH)' pytest pytest-timeout pytest-xdist \
		$$($(LOWEST)/bin/python .ci/lowest.py evaluation export)
	touch $@

test-wheel: $(INSTALLED) ## build the wheel and use it in an environment that has nothing else
	.ci/wheel $(BIN)/python '$(TORCH)'

check: $(INSTALLED) ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove caches and builds; .venv and runs stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +
