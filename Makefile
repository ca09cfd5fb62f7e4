# Everything that a newcomer or CI runs. `make` alone says what there is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_OP := tests/op/node
SBOM := build/nightporter.cdx.json
OPS := build/ops
BENCH_ENV := build/bench-python

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint format docs lock bench bench-tools bench-replicas bench-storm bench-redis-down bench-sessions bench-warm bench-settings pressure profile fuzz clean test-tools test-ops image sbom chart

help:
	@echo "make demo    a provider, a sample app and Nightporter in front of it; prints the URL to visit"
	@echo "             STORE=redis://127.0.0.1:6379/0: two Nightporters behind a tiny balancer"
	@echo "make test    install what the tests need, then lint, type check and test"
	@echo "make lint    formatting, lint, types, import layers"
	@echo "make format  format the code, fix what can be fixed"
	@echo "make docs    write docs/configuration.md and docs/providers/ from the declarations"
	@echo "make lock    resolve the dependencies anew into requirements/"
	@echo "make image   build the container image (needs an engine; makes the bases where no registry is)"
	@echo "make chart   write what the charts generate: schemas, tables of values, golden manifests"
	@echo "make sbom    write $(SBOM), a CycloneDX list of what the image installs"
	@echo "make bench   measure beside nginx and the peers that packages carry; QUICK=1: nginx only, three minutes"
	@echo "make bench-settings   what the event loop, the collector, buffers and socket options are worth"
	@echo "make pressure  10,000 idle connections, slow and stalled clients: memory, and who is closed"
	@echo "make profile where the microseconds of a request go"
	@echo "make fuzz    SECONDS=60: head parser, chunk reader, cookie opener against their oracles"
	@echo "make bench-replicas   several replicas on Redis: storms, Redis away, 100,000 sessions, warm requests"
	@echo "make clean   remove the environment and what tools left behind"

demo: $(VENV)/.runtime
	@$(BIN)/nightporter demo $(if $(STORE),--store '$(STORE)') $(ARGS)

# pytest comes last, so that its last lines are the run's.
test: test-tools test-ops $(VENV)/.test
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.runtime
	@mkdir -p build
	$(BIN)/nightporter config docs > build/configuration.md
	mv build/configuration.md docs/configuration.md
	$(BIN)/python -m proxy.importing.page docs/from-oauth2-proxy.md
	$(BIN)/python -m proxy.guide docs/providers

bench: bench-tools $(VENV)/.test $(BENCH_ENV)/.installed
	$(BIN)/python -m bench.run $(if $(QUICK),--quick) $(ARGS)

# What is measured runs on the distribution's Python where there is one, as in the image: it is built with profiles,
# which not every build of CPython is.
BENCH_PYTHON = $(shell /usr/bin/python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo /usr/bin/python3 || echo $(PYTHON))

$(BENCH_ENV)/.installed: requirements/runtime.txt | bench-tools
	rm -rf $(@D)
	$(BENCH_PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

pressure: $(VENV)/.test
	$(BIN)/python -m bench.pressure $(ARGS)

profile: $(VENV)/.test
	$(BIN)/python -m bench.profile $(ARGS)

SECONDS ?= 60
fuzz: $(VENV)/.test
	$(BIN)/python -m bench.fuzz $(SECONDS) $(SEED)

bench-settings: bench-tools $(VENV)/.test
	$(BIN)/python -m bench.settings $(ARGS)

bench-tools:
	@scripts/install-test-tools bench

bench-replicas: bench-storm bench-redis-down bench-sessions bench-warm

bench-storm: $(VENV)/.test test-tools
	$(BIN)/python -m bench.storm $(ARGS)

bench-redis-down: $(VENV)/.test test-tools
	$(BIN)/python -m bench.redis_down $(ARGS)

bench-sessions: $(VENV)/.test test-tools
	$(BIN)/python -m bench.sessions $(ARGS)

bench-warm: $(VENV)/.test test-tools
	$(BIN)/python -m bench.warm $(ARGS)

image:
	@scripts/build-image $(TAGS)

chart: $(VENV)/.test
	PYTHONPATH=. $(BIN)/python charts/generate.py

sbom: $(VENV)/.test
	@mkdir -p build
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible -o $(SBOM) requirements/runtime.txt

# The oldest supported Python resolves: it needs the most (backports), newer ones nothing else.
LOCK_PYTHON ?= python3.11
COMPILE := build/lock/bin/pip-compile --quiet --upgrade --generate-hashes --strip-extras --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links
HEAD = '\# Made by `make lock`: everything %s, with hashes.\n\# Resolved on Python %s, the oldest supported one; newer ones need nothing beyond this.\n'

lock:
	$(LOCK_PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet pip-tools
	$(COMPILE) --extra demo --output-file build/runtime.txt pyproject.toml
	$(COMPILE) --extra demo --extra test --output-file build/test.txt pyproject.toml
	$(COMPILE) --only-build-deps --all-build-deps --allow-unsafe --output-file build/build.txt pyproject.toml
	@version=$$(build/lock/bin/python -c 'import platform; print(platform.python_version())'); \
	{ printf $(HEAD) '`nightporter serve` and `make demo` need' "$$version"; cat build/runtime.txt; } \
		> requirements/runtime.txt; \
	{ printf $(HEAD) '`make test` needs' "$$version"; cat build/test.txt; } > requirements/test.txt; \
	{ printf $(HEAD) 'that building the package needs' "$$version"; cat build/build.txt; } > requirements/build.txt
	$(COMPILE) --output-file build/op-django.txt requirements/op-django.in
	$(COMPILE) --output-file build/op-canaille.txt requirements/op-canaille.in
	@version=$$(build/lock/bin/python -c 'import platform; print(platform.python_version())'); \
	for op in django canaille; do \
		{ printf $(HEAD) "the $$op test provider needs" "$$version"; cat build/op-$$op.txt; } > requirements/op-$$op.txt; \
	done
	cd $(NODE_OP) && npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund

clean:
	rm -rf $(VENV) build .demo .pytest_cache .ruff_cache .import_linter_cache .hypothesis $(NODE_OP)/node_modules

test-tools:
	@scripts/install-test-tools

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed. Install it, or name it: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements/runtime.txt pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.txt
	@touch $@

# The real providers that the tests sign in at, each where nothing of ours depends on it.
test-ops: test-tools $(NODE_OP)/node_modules/.installed $(OPS)/django/.installed $(OPS)/canaille/.installed \
	$(OPS)/keycloak/.installed

$(OPS)/%/.installed: requirements/op-%.txt | test-tools
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(OPS)/keycloak/.installed: scripts/install-keycloak | test-tools
	scripts/install-keycloak $(@D)
	@touch $@

$(NODE_OP)/node_modules/.installed: $(NODE_OP)/package-lock.json | test-tools
	cd $(NODE_OP) && npm ci --no-audit --no-fund
	@touch $@
