# Every command of this repository. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UV_VERSION := 0.13.9
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := $(if $(CI),1,0)
export PYTHONPATH := $(CURDIR)/plugins:$(CURDIR)
# Set in many container images. Without compiled modules every Airflow process starts three times slower.
unexport PYTHONDONTWRITEBYTECODE
RUN := .venv/bin/python

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

.PHONY: setup
setup: .venv/.installed ## Make the environment (.venv) from the lock

.venv/.installed: requirements-dev.lock dev/setup.sh
	@UV_VERSION=$(UV_VERSION) PYTHON=$(PYTHON) dev/setup.sh

.PHONY: demo
demo: setup ## Run every DAG for last night's data on a throw-away stack, print what each wrote
	@$(RUN) -m dev demo

.PHONY: up
up: setup ## Start the local stack with the Airflow UI, and keep it running
	@$(RUN) -m dev up

.PHONY: down
down: setup ## Stop the local stack
	@$(RUN) -m dev down

.PHONY: shell
shell: setup ## Open a shell in which plain `airflow …` commands use the local stack
	@$(RUN) -m dev shell

.PHONY: migrate
migrate: setup ## Bring the databases of the local stack (or of the AIRFLOW_CONN_* that are set) up to date
	@$(RUN) -m dev migrate

.PHONY: doctor
doctor: setup ## Check every connection, right, setting and webhook that the DAGs of the local stack need
	@$(RUN) -m dev doctor

.PHONY: dead-letters
dead-letters: setup ## List the runs of the local stack that failed after their retries
	@$(RUN) -m dev dead-letters

.PHONY: kpi-registry
kpi-registry: setup ## Validate a KPI registry, FILE=…, or show that of the local stack, or DO="apply FILE", "enable ID", …
	@$(if $(FILE),$(RUN) -m aggregator.kpi.registry validate "$(FILE)",$(RUN) -m dev kpi-registry $(or $(DO),show))

.PHONY: test
test: setup ## Lint, type-check, run every test, and those of PostgreSQL on the oldest version, too
	@$(MAKE) --no-print-directory lint
	@$(RUN) -m pytest -n 2 --dist loadfile -m "not e2e"
	@$(RUN) -m dev.postgres_versions --pooler --oldest
	@$(RUN) -m pytest -m e2e

.PHONY: test-postgres
test-postgres: setup ## The tests that use PostgreSQL on 15 to 18, old minor releases included, or on VERSION="16.2 17.0"
	@$(RUN) -m dev.postgres_versions $(VERSION)

.PHONY: test-fast
test-fast: setup ## The tests that need less than a minute together
	@$(RUN) -m pytest -n 2 --dist loadfile -m "not slow and not e2e"

.PHONY: test-airflow
test-airflow: setup ## All but the end-to-end tests on another Airflow, VERSION=3.4.0b2, in an environment of its own
	@: $(if $(VERSION),,$(error Say which Airflow: make test-airflow VERSION=3.4.0b2))
	@.uv/bin/uv venv --quiet --allow-existing --python $(RUN) .local/airflow-$(VERSION)
	@.uv/bin/uv pip install --quiet --python .local/airflow-$(VERSION)/bin/python --prerelease allow \
		--override <(echo "apache-airflow[statsd]==$(VERSION)") --requirement requirements-dev.txt
	@.local/airflow-$(VERSION)/bin/python -m pytest -n 2 --dist loadfile -m "not e2e"

.PHONY: lint
lint: setup ## Check style, types, imports, SQL, shell scripts, workflows, prose and links
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo --no-cache
	@.venv/bin/sqlfluff lint --disable-progress-bar --nocolor include/sql
	@.venv/bin/shellcheck deploy/*.sh deploy/image/healthcheck dev/*.sh .ci/run
	@.venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@.venv/bin/check-jsonschema --quiet --builtin-schema vendor.renovate renovate.json
	@.venv/bin/codespell
	@$(RUN) -m dev.prose
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet

.PHONY: format
format: setup ## Rewrite Python and SQL in the one style
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .
	@.venv/bin/sqlfluff fix --disable-progress-bar --nocolor include/sql

.PHONY: bench
bench: setup ## Measure against peers, as ratios in one run
	@$(RUN) -m dev.bench

.PHONY: scale-out
scale-out: setup ## Prove that Celery workers, one of them killed, write what one machine writes (needs redis-server)
	@$(RUN) -m dev scale-out

.PHONY: drills
drills: setup ## Prove in real time what alerts say when a month is backfilled, their receiver or the scheduler is down
	@$(RUN) -m dev drills

.PHONY: deploy
deploy: ## Deploy IMAGE to ENV=stage by SSH, as CI does: deploy/stage.env has its HOST and FOLDER
	@: $(if $(and $(ENV),$(IMAGE)),,$(error Say where and what: make deploy ENV=stage IMAGE=ghcr.io/…@sha256:…))
	@set -a && . deploy/$(ENV).env && deploy/deploy.sh "$$HOST" "$$FOLDER" "$(IMAGE)"

.PHONY: docs
docs: setup ## Renew what of the documents is made from code
	@$(RUN) -m dev.docs

.PHONY: docs-site
docs-site: setup ## Build the documents as a site with search and an API reference, in .local/site
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet
	@echo "Open .local/site/index.html, or serve it: .venv/bin/mkdocs serve"

.PHONY: lock
lock: .uv/bin/uv ## Renew the locks after a change to requirements*.txt
	@.uv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header requirements.txt -o requirements.lock
	@.uv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header requirements-dev.txt -c requirements.lock -o requirements-dev.lock

LIGHTWEIGHT_CHARTS := 5.2.0
VENDOR := plugins/aggregator/web/static/vendor

.PHONY: vendor
vendor: ## Renew the chart library of the Operations page from npm (needs npm)
	@package=$$(mktemp -d) && trap 'rm -rf "$$package"' EXIT && cd "$$package" \
		&& tar -xzf "$$(npm pack --silent lightweight-charts@$(LIGHTWEIGHT_CHARTS))" \
		&& cp package/dist/lightweight-charts.standalone.production.mjs "$(CURDIR)/$(VENDOR)/lightweight-charts.js" \
		&& cp package/LICENSE "$(CURDIR)/$(VENDOR)/LICENSE"
	@sha256sum $(VENDOR)/lightweight-charts.js

.PHONY: screenshots
screenshots: setup ## Renew the screenshots of the README from the end-to-end tests (needs Chromium)
	@$(RUN) -m pytest -q tests/e2e/test_operations_page.py -k "both_themes and (overview or market)"
	@mkdir -p docs/images && cp .local/screenshots/operations-overview.png .local/screenshots/operations-market-dark.png docs/images/

.uv/bin/uv:
	@UV_VERSION=$(UV_VERSION) PYTHON=$(PYTHON) dev/setup.sh uv
