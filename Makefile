# `make` shows what there is. Everything is installed into .venv and nothing outside this folder, except that `make test`
# and `make chaos` as root install with apt-get what tests/prerequisites.sh names and the machine lacks.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The newest Python that really runs; name another with `make PYTHON=/path/to/python3 …`.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
    "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && { echo "$$name"; break; }; done)
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALLED := .venv/installed
INSTALLED_DEV := .venv/installed-dev
DEMO := .demo/bookstore
SEEDS ?= 20
FIRST ?= 1
JOBS ?= 1
IMAGE_PYTHON ?= 3.13
WHEELS ?= deploy/wheels

.PHONY: help install demo secrets wheels bench test test-agents test-compose chaos prerequisites lint format types docs docs-check clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## the command line with its local stack, into .venv

demo: $(INSTALLED) ## examples/bookstore, live: two agents at once, a merge, then the tests
	@examples/bookstore/new_repository.sh $(DEMO)
	@$(BIN)/orchestrator run examples/bookstore/plan.yaml --repo $(DEMO)
	@branch=$$(git -C $(DEMO) for-each-ref --format='%(refname:short)' refs/heads/orchestrator/); \
	printf '\n$$ git -C $(DEMO) log --graph --oneline %s\n' "$$branch"; \
	git -C $(DEMO) --no-pager log --graph --oneline "$$branch"; \
	printf '\n$$ git -C $(DEMO) show %s:TEST_REPORT.txt\n' "$$branch"; \
	git -C $(DEMO) --no-pager show "$$branch:TEST_REPORT.txt"; \
	printf '\nWhat happened stays: %s/orchestrator status, %s/orchestrator logs %s\n' $(BIN) $(BIN) "$${branch#orchestrator/}"

secrets: ## the passwords of docker-compose.yml, into .env; what is there stays
	@deploy/make-secrets

# pip judges by this Python, not by the image's, who needs what: redis needs async-timeout below 3.11.3.
wheels: | .venv ## what the image needs, into deploy/wheels, for a build without a registry: make wheels IMAGE_PYTHON=3.13
	@requirements=$$(mktemp) && trap 'rm -f "$$requirements"' EXIT && \
	$(BIN)/python -c 'import tomllib; d = tomllib.load(open("pyproject.toml", "rb")); \
	    print(*d["build-system"]["requires"], *d["project"]["dependencies"], "async-timeout", sep="\n")' > "$$requirements" && \
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --only-binary=:all: \
	    --python-version '$(IMAGE_PYTHON)' --dest '$(WHEELS)' --requirement "$$requirements"

test: $(INSTALLED_DEV) prerequisites lint types docs-check ## everything that CI runs
	@mkdir -p .pytest_cache
	@$(BIN)/pytest tests/unit -n 2 | tee .pytest_cache/unit.txt
	@$(BIN)/pytest tests/integration tests/acceptance tests/browser -m 'not agents' -n 2 --dist loadfile | tee .pytest_cache/stack.txt
	@$(BIN)/pytest tests/compose | tee .pytest_cache/compose.txt
	@tail -qn 1 .pytest_cache/unit.txt .pytest_cache/stack.txt .pytest_cache/compose.txt

test-compose: $(INSTALLED_DEV) ## build docker-compose.yml and start it for real, where a Docker engine answers or can be started
	@$(BIN)/pytest tests/compose

test-agents: $(INSTALLED_DEV) prerequisites ## real agents' programs, installed into .agents, against a scripted model; needs npm
	@tests/integration/agents/install.sh
	@$(BIN)/pytest tests/integration/agents

chaos: $(INSTALLED_DEV) prerequisites ## seeded faults over a real fleet, what failed into .chaos: make chaos SEEDS=20 JOBS=2
	@$(BIN)/python -m tests.chaos --seeds $(SEEDS) --first $(FIRST) --jobs $(JOBS) --keep-logs .chaos

prerequisites:
	@tests/prerequisites.sh

lint: $(INSTALLED_DEV) ## ruff, and who may import whom
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports

format: $(INSTALLED_DEV) ## let ruff mend what it can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

types: $(INSTALLED_DEV) ## mypy --strict
	@$(BIN)/mypy

docs: $(INSTALLED_DEV) ## write the pages that are generated from the code
	@$(BIN)/python docs/generate.py

docs-check: $(INSTALLED_DEV)
	@$(BIN)/python docs/generate.py --check

bench: $(INSTALLED_DEV) prerequisites ## measure the queue on this machine, into docs/benchmarks.md; some minutes
	@$(BIN)/python -m benchmarks.run --write

clean: ## remove .venv, the demo's repository and caches; the state folder stays
	rm -rf .venv .agents .demo .chaos .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist

$(INSTALLED): pyproject.toml | .venv
	@echo "Installing into .venv; the first time takes a minute or two."
	@$(PIP_INSTALL) --editable '.[local,examples]'
	@touch $@

$(INSTALLED_DEV): pyproject.toml | .venv
	@echo "Installing into .venv, with what the tests need; the first time takes a minute or two."
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(INSTALLED)

.venv:
	@python="$(PYTHON)"; \
	[ -n "$$python" ] || { echo "error: no Python 3.11 or newer was found: install one, or name it with PYTHON=." >&2; exit 1; }; \
	"$$python" -m venv .venv || { rm -rf .venv; exit 1; }
