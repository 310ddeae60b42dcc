# Two commands for a newcomer: `make run` and `make test`. Everything lives in .venv; nothing is installed elsewhere.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin

# The same source as native code: see setup.py.
COMPILED := $(CURDIR)/build/compiled
SOURCES  := $(shell find router -name '*.py')
CAN_COMPILE = command -v cc >/dev/null && test -e "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"
DATA_PLANE_TESTS := tests/test_core_decide.py tests/test_core_hashing.py tests/test_core_properties.py \
    tests/test_core_rules.py tests/test_heads.py tests/test_meters.py tests/test_journal.py tests/test_proxy.py tests/test_proxy_hunt.py tests/test_failing_parts.py \
    tests/test_pool.py tests/test_failing_endpoints.py tests/test_falling_outward.py tests/test_overload.py tests/test_breaker.py \
    tests/test_mirror.py tests/test_recovery.py tests/test_witness.py tests/test_access_log.py tests/test_access_log_ends.py tests/test_tracing.py tests/test_hot_path.py tests/test_end_to_end.py tests/test_conformance.py tests/test_oracle.py

# The stories start hundreds of processes: where bytecode is not kept, each of them compiles all of the sources first.
unexport PYTHONDONTWRITEBYTECODE

# Most stories wait for something most of the time. In the order of their names: files with few tests would else come
# last, and those are the long ones (faults), one of which two processes then wait for.
SPREAD := -n 4 --dist loadfile --no-loadscope-reorder

SCENARIOS := compare access_log seeing connections latency growth idle bodies propagation members widening envoy rollouts returning redis_faults outage disruption failing memory slow_clients scraping watching thousand soak

# `docs` is a directory too.
.PHONY: docs screenshots fuzz faults run test test-compiled test-slow lint compiled bench bench-all bench-build lock clean help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/ready: requirements-dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv --clear $(VENV) || { echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/bench-ready: $(VENV)/ready requirements-bench.txt
	@if $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
	        -r requirements-bench.txt 2>$(VENV)/bench.log; then touch $@; \
	    else echo "Going on without Envoy and plots: $$(grep ERROR $(VENV)/bench.log | tail -n 1)"; fi

run: $(VENV)/ready ## Redis, two demo versions, the router, a little traffic
	@exec $(BIN)/ring-router demo

lint: $(VENV)/ready ## ruff, mypy --strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## everything CI runs
	$(BIN)/pytest $(SPREAD)
	@$(MAKE) --no-print-directory test-compiled

test-compiled: $(VENV)/ready ## the data plane's tests on native code
	@if $(CAN_COMPILE); then \
	    $(MAKE) --no-print-directory compiled && RING_ROUTER_TESTS=compiled PYTHONPATH=$(COMPILED):$(CURDIR) \
	        $(BIN)/pytest $(SPREAD) --import-mode=append $(DATA_PLANE_TESTS); \
	else echo "skipped: the data plane as native code (it needs apt-get install gcc libc6-dev python3-dev)"; fi

$(COMPILED)/ready: $(VENV)/ready setup.py pyproject.toml $(SOURCES)
	rm -rf build
	RING_ROUTER_COMPILE=1 $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --target $(COMPILED) .
	@PYTHONPATH=$(COMPILED) $(BIN)/ring-router version | grep compiled
	@touch $@

docs: $(VENV)/ready ## docs/metrics.md, from the table that /metrics is made of
	$(BIN)/python -m router.telemetry.describe

fuzz: $(VENV)/ready ## any bytes from either side, for FUZZ_SECONDS (default 300)
	$(BIN)/python -m tests.fuzz.wire -max_total_time=$(or $(FUZZ_SECONDS),300)

faults: $(VENV)/ready ## the fault table: some forty minutes; writes docs/faults.md
	$(BIN)/python -m tests.faults

compiled: $(COMPILED)/ready ## the request's way as native code, in build/compiled (needs a C compiler)

test-slow: $(VENV)/ready ## what takes minutes
	$(BIN)/pytest -m slow
	RING_ROUTER_EXAMPLES=$(or $(EXAMPLES),5000) $(BIN)/pytest tests/test_oracle.py

bench-build: $(VENV)/bench-ready
	@if $(CAN_COMPILE); then $(MAKE) --no-print-directory compiled; \
	    else echo "Measuring the interpreted data plane: no C compiler, or no headers of Python."; fi

bench: bench-build ## this router beside nginx, HAProxy, Envoy and an aiohttp proxy; plots
	PYTHONPATH=$(COMPILED) $(BIN)/python -m loadtests.compare
	$(BIN)/python -m loadtests.plots

bench-all: bench-build ## every load test one after the other, more than half an hour; plots
	@export PYTHONPATH=$(COMPILED); trap 'exit 130' INT; failed=; for name in $(SCENARIOS); do \
	    echo; echo "== $$name"; $(BIN)/python -m loadtests.$$name || failed="$$failed $$name"; done; \
	    $(BIN)/python -m loadtests.plots; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

screenshots: $(VENV)/ready ## renew docs/screenshots (needs chromium and the extra bench)
	$(BIN)/python -m tests.browser.pictures

lock: ## renew the pinned, hashed requirements (needs uv)
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --python-version 3.11 --extra demo --extra jwt --extra otel --extra re2 pyproject.toml -o requirements.txt
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --python-version 3.11 --extra dev pyproject.toml -o requirements-dev.txt
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --python-version 3.11 --extra bench --constraint requirements-dev.txt pyproject.toml -o requirements-bench.txt

clean: ## remove what make made
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .ring-router *.egg-info
