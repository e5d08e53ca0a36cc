# Every target sets up what it needs; a second time that takes a moment. Logic lives in scripts/, this file is the list.
PYTHON_BIN := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help run test check bench faults services fmt clean signin
export PYTHON

help: ## Show this list
	@echo "OpenVibe: the control room for AI operators."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# exec, so that Ctrl-C and SIGTERM reach the supervisor itself.
run: ## Set up everything and serve http://127.0.0.1:8000
	@sh scripts/setup.sh && exec $(PYTHON_BIN) -m openvibe_site.supervisor

signin: ## Print a fresh sign-in link for the first administrator
	@sh scripts/setup.sh && $(PYTHON_BIN) manage.py signin

test: ## Set up everything that pip can and run the tests
	@sh scripts/setup.sh --dev
	.venv/bin/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: ## Check format, style, types, layers, migrations and sizes
	@sh scripts/setup.sh --dev
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTHON_BIN) manage.py makemigrations --check --dry-run
	$(PYTHON_BIN) manage.py check
	$(PYTHON_BIN) scripts/tail_guard.py

bench: ## Measure; print one JSON line per figure
	@sh scripts/setup.sh --dev
	$(PYTHON_BIN) -m benchmarks

faults: ## Kill and freeze everything, in a flood of messages and at random; print one JSON line each
	@sh scripts/setup.sh --dev
	$(PYTHON_BIN) -m tests.faults.flood
	$(PYTHON_BIN) -m tests.faults

services: ## Install PostgreSQL, Redis and Chromium with apt (root)
	@sh scripts/services.sh

fmt: ## Format the code and repair what ruff can
	@sh scripts/setup.sh --dev
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

clean: ## Remove caches and build output; keep .venv and .openvibe
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache staticfiles build dist *.egg-info
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
