# Needs python3 (>= 3.11), pip and make; everything else is installed into .venv.
# Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test lint check clean venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

demo: venv ## search, evaluate, predict and report on the built-in Toy City (two to four minutes on 2 cores)
	@PYTHON=$(VENV_PYTHON) scripts/demo

test: venv ## the test suite
	@PYTHON=$(VENV_PYTHON) scripts/test

lint: venv ## ruff: rules and formatting
	@PYTHON=$(VENV_PYTHON) scripts/lint

check: venv ## lint, strict types, import rules
	@PYTHON=$(VENV_PYTHON) scripts/check

clean: ## remove .venv, build outputs and caches; run directories stay
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +

venv: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "hrnas needs Python 3.11 or newer; '$(PYTHON)' is $$({ command -v "$(PYTHON)" >/dev/null && "$(PYTHON)" --version 2>&1; } || echo missing)." \
	    "Name another: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	"$(PYTHON)" -m venv .venv
	$(VENV_PYTHON) -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
