# Everything a developer or an operator of one machine types; `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
PYTHON ?= python3
# uv trusts what the system trusts, as pip does: behind a company's proxy nothing else works.
export UV_SYSTEM_CERTS := 1
# Each of Airflow's processes would else compile what it imports anew: 5 s.
unexport PYTHONDONTWRITEBYTECODE
# One day after Airflow 3.3.2: stands in for Airflow's constraints file (docs/decisions/0002-libraries.md).
LOCK_CUTOFF := 2026-09-18

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: env
env: $(VENV)/.complete ## Build the locked environment in .venv

$(VENV)/.complete: requirements-uv.txt requirements-dev.txt pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { \
	  echo "python3 cannot make a virtual environment: on Debian, 'apt-get install python3-venv' first." >&2; exit 1; }
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip sync --quiet --require-hashes requirements-dev.txt requirements-uv.txt
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: run
run: env ## Archive six hours of the sandbox with Airflow and show the result (EXIT=1: stop by itself)
	@$(PY) -m tools.run_locally $(if $(EXIT),--exit)

.PHONY: verify
verify: env ## Verify an archive from its bucket alone (FROM= TO= PERCENT= HASH= BUCKET= PREFIX= SENSITIVE_PREFIX= ENDPOINT_URL=)
	@$(PY) -m tools.verify_bucket $(if $(FROM),--from "$(FROM)") $(if $(TO),--to "$(TO)") \
	  $(if $(PERCENT),--percent "$(PERCENT)") $(if $(HASH),--hash "$(HASH)") $(if $(BUCKET),--bucket "$(BUCKET)") \
	  $(if $(PREFIX),--prefix "$(PREFIX)") \
	  $(if $(SENSITIVE_PREFIX),--sensitive-prefix "$(SENSITIVE_PREFIX)") $(if $(ENDPOINT_URL),--endpoint-url "$(ENDPOINT_URL)")

.PHONY: test
test: env ## Run every check: lint, types, layers, unit, DAG, S3, end-to-end tests, coverage
	@$(PY) -m tools.run_checks

.PHONY: benchmark
benchmark: env ## Measure the archive beside rclone, curl and boto3 (docs/benchmarks.md; WHAT= SETS= ROUNDS= PROTOCOL= PEERS= REPORT=)
	@$(PY) -m benchmarks $(if $(WHAT),--what "$(WHAT)") $(if $(SETS),--sets "$(SETS)") $(if $(ROUNDS),--rounds "$(ROUNDS)") \
	  $(if $(PROTOCOL),--protocol "$(PROTOCOL)") $(if $(PEERS),--peers "$(PEERS)") $(if $(REPORT),--report "$(REPORT)")

.PHONY: lock
lock: env ## Resolve the dependencies again (nothing newer than LOCK_CUTOFF)
	@echo uv | $(UV) pip compile - -o requirements-uv.txt $(LOCK_OPTIONS)
	@$(UV) pip compile pyproject.toml -o requirements.txt $(LOCK_OPTIONS)
	@$(UV) pip compile pyproject.toml --extra celery -c requirements.txt -o requirements-celery.txt $(LOCK_OPTIONS)
	@$(UV) pip compile pyproject.toml --extra dev -c requirements.txt -o requirements-dev.txt $(LOCK_OPTIONS)
LOCK_OPTIONS := --universal --python-version 3.11 --exclude-newer $(LOCK_CUTOFF) --generate-hashes --quiet --custom-compile-command "make lock"

.PHONY: clean
clean: ## Remove the environment and what `make run` keeps
	@rm -rf $(VENV) .airflow .local
