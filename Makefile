# Two commands matter: `make run` and `make test`. Everything else serves them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SHELL  := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test check bench chaos screens sbom audit fuzz clean lock web setup setup-dev format

help:                ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: setup           ## everything on this machine, with simulated residents; Ctrl-C ends it
	@exec $(BIN)/anxin demo

test: setup-dev      ## the whole test suite, against a real Postgres and real MQTT clients
	@$(BIN)/python -m pytest --numprocesses=4 --dist=loadfile

check: setup-dev     ## format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix web run --silent check

format: setup-dev    ## write the one format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: setup-dev     ## measure, and write docs/benchmarks.md
	@$(BIN)/python -m bench

chaos: setup-dev     ## kill things under load and count what was lost
	@$(BIN)/python -m chaos

screens: setup-dev   ## pictures of every page in both languages: build/screens
	@$(BIN)/python -m tests.acceptance.screens

sbom: setup-dev      ## write build/sbom.json: what Anxin is made of, CycloneDX 1.6
	@$(BIN)/python -m supply sbom build/sbom.json

audit: setup-dev     ## licences, secrets, dangerous code, known vulnerabilities
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m supply audit

fuzz: setup-dev      ## generated requests to every route as every role, 200 of each; takes long
	@ANXIN_FUZZ_CASES=200 $(BIN)/python -m pytest --timeout=0 tests/integration/test_api_schema.py

clean:               ## forget everything that set-up and runs made
	rm -rf $(VENV) data build bench/build api/static web/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

lock:                ## choose new versions of the dependencies
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

web: api/static/.built  ## build the pages, when their sources changed

# Node.js from PATH where it is new enough for Vite, else from PyPI into this environment.
NODE_PATH_FIRST := PATH="$(CURDIR)/$(BIN):$$PATH"
WEB_SOURCES := $(shell find web -name node_modules -prune -o -type f -print)

api/static/.built: $(WEB_SOURCES) requirements-node.lock | $(VENV)/.created
	@$(NODE_PATH_FIRST) node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null \
	  && $(NODE_PATH_FIRST) npm --version >/dev/null 2>&1 \
	  || { echo "Setting up: Node.js"; $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-node.lock; }
	@echo "Setting up: web pages"
	@$(NODE_PATH_FIRST) npm --prefix web ci --silent
	@$(NODE_PATH_FIRST) npm --prefix web run --silent build -- --logLevel warn
	@touch $@

# Set-up is a chain of stamps, so that a second run starts at once.
setup: $(VENV)/.product web
setup-dev: $(VENV)/.dev web

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Anxin needs Python 3.11 or newer: set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up: Python environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.product: $(VENV)/.created requirements.lock
	@echo "Setting up: Python packages (a minute or two, the first time only)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@echo "$(CURDIR)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/anxin.pth"
	@printf '#!%s\nfrom anxin.cli import main\n\nraise SystemExit(main())\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/anxin
	@chmod +x $(BIN)/anxin
	@touch $@

$(VENV)/.dev: $(VENV)/.product requirements-dev.lock
	@echo "Setting up: tools for tests and checks"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@touch $@
