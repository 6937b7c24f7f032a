# The whole interface of the repository; CI calls nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Optional rules of flake8-async that do not fit: documented `timeout` parameters, functions for
# `nursery.start`, async functions that only implement an async interface.
ASYNC_OFF := ASYNC109,ASYNC114,ASYNC124
# Tests poll what they cannot await, and pass fixtures across nurseries on purpose.
ASYNC_OFF_IN_TESTS := ASYNC110,ASYNC111,ASYNC112,ASYNC128
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install run test check check-format check-async check-layers check-types fmt bench bench-check mutants fuzz fuzz-parsers audit soak

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(VENV)/.installed ## make .venv from the lock file

$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "Installing Pipelit into $(VENV) (about a minute the first time) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: install ## start a server on 127.0.0.1:8000 with a scripted model, and say what to do next
	@$(BIN)/pipelit demo --serve --data-dir .demo

test: install ## run the tests
	@$(BIN)/pytest -q -n 2 --dist loadgroup

check: install ## format, lint, layers, types
	@$(MAKE) --no-print-directory -j 2 check-types check-async check-format check-layers

check-format:
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

# The slowest check: it reads only what can hold a mistake of its kind.
check-async:
	@git ls-files -z "pipelit/*.py" "ops/*.py" | xargs -0 grep -lZE "async|trio" \
		| xargs -0 -n 60 $(BIN)/flake8-async --enable ASYNC1,ASYNC2 --disable $(ASYNC_OFF)
	@git ls-files -z "tests/*.py" | xargs -0 grep -lZE "async|trio" \
		| xargs -0 -n 60 $(BIN)/flake8-async --enable ASYNC1,ASYNC2 --disable $(ASYNC_OFF),$(ASYNC_OFF_IN_TESTS)

check-layers:
	@$(BIN)/lint-imports --no-cache

check-types:
	@$(BIN)/mypy

fmt: install ## format and sort
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: install ## benchmarks of the runtime, the store and the server; their table goes into docs/performance.md
	@$(BIN)/python ops/bench/actors.py
	@$(BIN)/python ops/bench/store.py
	@$(BIN)/python ops/bench/all.py --write docs/performance.md $(BENCH)

bench-check: install ## fail when something costs a fifth more than is recorded
	@$(BIN)/python ops/bench/all.py --check $(BENCH)

fuzz: install ## let Schemathesis call every endpoint of a fresh server; about two minutes
	@$(BIN)/python ops/fuzz/run.py

fuzz-parsers: install ## let Hypothesis send rubbish to parsers and a server for MINUTES (5)
	@$(BIN)/python ops/fuzz/parsers.py $(or $(MINUTES),5)

audit: install ## look for known vulnerabilities of the locked dependencies; needs the network
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock

mutants: install ## plant each known bug in the actor runtime: its test must fail
	@$(BIN)/python ops/mutants/run.py

soak: install ## simulate 300 whole servers from seeds, and audit each
	@$(BIN)/python ops/soak/simulate.py --seeds 300
