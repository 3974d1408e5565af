# Everything a developer types. `make` alone lists it. Nothing is installed outside .venv.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# The first interpreter that is new enough; PYTHON=... chooses another.
SUITABLE := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(name) $(SUITABLE) >/dev/null 2>&1 && echo $(name))) python3)

.DEFAULT_GOAL := help
.PHONY: help setup run dev demo test e2e fuzz faults attacks bench check rules lint format fmt migrate upgrade lock coverage clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.development ## install everything into .venv; the other commands do it when needed

run: $(VENV)/.runtime ## serve the API; HOST and PORT choose where
	@exec $(BIN)/kit run

dev: $(VENV)/.development ## serve the API and start again when the code changes
	@exec $(BIN)/kit run --reload

demo: $(VENV)/.runtime ## walk every call of the README against a server of its own
	@exec $(BIN)/kit demo

test: $(VENV)/.development ## test on SQLite, and on PostgreSQL and Redis where they are given; ARGS goes to pytest
	@$(call halves,$(BIN)/pytest $(ARGS),Tested)

UPGRADE_ROUNDS ?= 20

e2e: $(VENV)/.development ## generate modules, models and packages in clones and run everything on them; 20 rounds of upgrades
	@export E2E=1 UPGRADE_ROUNDS=$(UPGRADE_ROUNDS); $(call halves,$(BIN)/pytest tests/e2e $(ARGS),Tried)

FUZZ_EXAMPLES ?= 10000

fuzz: $(VENV)/.development ## try 10,000 hostile list queries and bodies and all of the API document; FUZZ_SEED=... replays
	@seed="$${FUZZ_SEED:-$$(date +%s)}"; echo "FUZZ_SEED=$$seed"; export FUZZ_SEED="$$seed" FUZZ_EXAMPLES=$(FUZZ_EXAMPLES); \
	TEST_BACKEND=embedded $(BIN)/pytest -q tests/fuzz $(ARGS) || exit; \
	if [ -n "$$TEST_DATABASE_URL" ] && [ -n "$$TEST_REDIS_URL" ]; then \
		TEST_BACKEND=served $(BIN)/pytest -q tests/fuzz $(ARGS); \
	else \
		echo 'Fuzzed embedded only: TEST_DATABASE_URL and TEST_REDIS_URL add PostgreSQL and Redis.'; \
	fi

FAULT_ROUNDS ?= 100

faults: $(VENV)/.development ## kill processes 100 times amid work, break PostgreSQL, Redis, mail and disk; nothing may be lost
	@export FAULT_ROUNDS=$(FAULT_ROUNDS); \
	TEST_BACKEND=embedded $(BIN)/pytest -s tests/faults $(ARGS) || exit; \
	if [ -n "$$TEST_DATABASE_URL" ] && [ -n "$$TEST_REDIS_URL" ]; then \
		TEST_BACKEND=served $(BIN)/pytest -s tests/faults $(ARGS); \
	else \
		echo 'Killed embedded only: TEST_DATABASE_URL and TEST_REDIS_URL add workers, PostgreSQL and Redis.'; \
	fi

# With URL against a service that runs, and nothing is started: tests/attacks/__main__.py names the variables of accounts.
attacks: $(VENV)/.development ## attack one process and two of this service, or the one at URL=https://...; ARGS=--help says more
	@if [ -n "$$URL" ] || [ -n "$(filter --help,$(ARGS))" ]; then exec $(BIN)/python -m tests.attacks $${URL:+"$$URL"} $(ARGS); fi; \
	TEST_BACKEND=embedded $(BIN)/python -m tests.attacks $(ARGS) || exit; \
	if [ -n "$$TEST_DATABASE_URL" ] && [ -n "$$TEST_REDIS_URL" ]; then \
		TEST_BACKEND=served $(BIN)/python -m tests.attacks $(ARGS); \
	else \
		echo 'Attacked embedded only: TEST_DATABASE_URL and TEST_REDIS_URL add PostgreSQL, Redis and a second process.' >&2; \
	fi

bench: $(VENV)/.development ## measure against a bare application on PostgreSQL at TEST_DATABASE_URL; ARGS=jobs measures jobs, --json is for programs
	@$(BIN)/python -m benchmarks $(ARGS)

check: lint rules ## lint, format, types, boundaries, locked dependencies, migrations, routes, generated documents

rules: $(VENV)/.development
	$(BIN)/pytest -q tests/architecture tests/contract/test_locked.py tests/contract/test_settings_sample.py
	cd examples/shop_reviews && ../../$(BIN)/mypy .
	$(BIN)/kit openapi --check
	$(BIN)/kit module docs --check
	$(BIN)/kit module validate
	$(BIN)/kit migrate check --scratch
	$(BIN)/kit routes --check >/dev/null

lint: $(VENV)/.development ## lint, format and types alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.development ## repair what can be repaired, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fmt: format ## the same

migrate: $(VENV)/$(if $(m),.development,.runtime) ## bring the database up to date; m="add orders" writes a revision instead
	@if [ -n "$$m" ]; then exec $(BIN)/kit migrate revision --message "$$m"; else exec $(BIN)/kit migrate; fi

upgrade: $(VENV)/.runtime ## bring the database up to date
	@exec $(BIN)/kit migrate

# pip before 23.3 wants the newest uvicorn unless it is pinned with the extra that fastapi-cli asks for.
lock: ## lock the dependencies and export them; needs Poetry 2 with its export plug-in
	poetry lock
	poetry export --with build -o requirements.txt
	poetry export --with build,dev | sed 's/^uvicorn==/uvicorn[standard]==/' >requirements-dev.txt

coverage: $(VENV)/.development ## test with branch coverage, and fail below the limit in pyproject.toml
	@$(BIN)/coverage erase
	@TEST_BACKEND=embedded $(BIN)/coverage run -m pytest $(ARGS)
	@if [ -n "$$TEST_DATABASE_URL" ] && [ -n "$$TEST_REDIS_URL" ]; then \
		TEST_BACKEND=served $(BIN)/coverage run -m pytest $(ARGS); \
	else \
		echo 'Measured embedded only: without TEST_DATABASE_URL and TEST_REDIS_URL the code for PostgreSQL and Redis counts as missed.'; \
	fi
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

clean: ## remove .venv and everything generated; var/ and .env stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis .coverage .coverage.* htmlcov build dist *.egg-info
	find app tools tests migrations -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.runtime: requirements.txt pyproject.toml
	@$(call install,requirements.txt)
	@touch $@

$(VENV)/.development: requirements-dev.txt pyproject.toml
	@$(call install,requirements-dev.txt)
	@touch $(VENV)/.runtime $@

# $(1) is the file of requirements. With uv where there is one (UV= goes without), else with pip, which in a terminal
# shows what it does; in a pipe it speaks only when it fails.
UV ?= $(shell command -v uv)

define install
	$(PYTHON) $(SUITABLE) 2>/dev/null || { \
		echo 'Python 3.11 or newer is needed; $(PYTHON) is' "$$($(PYTHON) --version 2>&1 || true)." \
			'Name another one: make PYTHON=/path/to/python3' >&2; exit 1; }; \
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { \
		echo 'The environment could not be made; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }; \
	echo 'Installing $(1) into $(VENV), once ...'; \
	quiet=$$(test -t 1 || echo --quiet); \
	if [ -n '$(UV)' ]; then set -- $(UV) pip install $$quiet --python $(BIN)/python; \
	else set -- $(BIN)/pip install $$quiet --disable-pip-version-check; fi; \
	"$$@" --require-hashes -r $(1) && "$$@" --no-deps --no-build-isolation -e .
endef

# $(1) on SQLite and, where they are given, beside it on PostgreSQL and Redis; $(2) is what was done then.
define halves
	if [ -z "$$TEST_DATABASE_URL" ] || [ -z "$$TEST_REDIS_URL" ]; then \
		TEST_BACKEND=embedded $(1) || exit; \
		echo '$(2) embedded (SQLite, in-process stores). Skipped served (PostgreSQL, Redis): to have it too, set'; \
		echo '  TEST_DATABASE_URL=postgresql://user:password@host/kit_tests TEST_REDIS_URL=redis://host:6379/0'; \
		echo 'The user must be allowed to create databases; none but those the tests make is touched.'; \
		exit; \
	fi; \
	log=$$(mktemp); trap 'kill $$served 2>/dev/null; rm -f "$$log"' EXIT; trap 'exit 130' INT TERM; \
	TEST_BACKEND=served $(1) >"$$log" 2>&1 & served=$$!; \
	echo 'The served half (PostgreSQL, Redis) runs beside this one; what it says comes after it.'; \
	TEST_BACKEND=embedded $(1); embedded=$$?; \
	wait $$served; second=$$?; cat "$$log"; \
	[ $$embedded = 0 ] && [ $$second = 0 ] || exit 1; \
	echo '$(2) twice: embedded (SQLite, in-process stores) and served (PostgreSQL, Redis).'
endef
