# Every target does its own set-up: the only things needed are Python 3.11, make and a C compiler.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev
OPTUNA_STAMP := .venv-peers/.installed

.DEFAULT_GOAL := help
.PHONY: help setup lint format test demo bench-train bench-service bench-service-large bench-race bench-search fuzz chaos \
	chaos-short check check-containers clean

help: ## This list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(RUN_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[server,embedded,worker]'
	sh deploy/opencv-libraries.sh $(BIN)/python
	touch $@

$(DEV_STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup: $(DEV_STAMP) ## Create .venv with everything, at pinned versions

demo: $(RUN_STAMP) ## Evolve a real detector on the built-in data set, in about four minutes
	$(BIN)/hypevolve demo

lint: $(DEV_STAMP) ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV_STAMP) ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(DEV_STAMP) ## The whole test suite, by cost: unit, integration, end to end
	sh deploy/test-programs.sh
	$(BIN)/python -m pytest

bench-train: $(RUN_STAMP) ## Speed of a node: ours against the usual manner, taking turns, on BCCD where it is, else on the built-in data
	$(BIN)/python -m benchmarks.detector_train

bench-race: $(RUN_STAMP) ## A race of strategies on a real detector; resumes, takes about an hour of one idle core
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.race --folder runs/race --json docs/results/race.json

chaos-short: $(DEV_STAMP) ## The fault campaign, small: 1 000 candidates, 20 workers and 10 databases killed (part of make test)
	$(BIN)/python -m benchmarks.chaos --short

chaos: $(DEV_STAMP) ## The fault campaign: 10 000 candidates, 200 workers, kills of everything; then the long forms of the fault tests
	$(BIN)/python -m benchmarks.chaos --long --json runs/chaos.json
	HYPEVOLVE_LONG_TESTS=1 $(BIN)/python -m pytest tests/integration/test_protocol_model.py tests/integration/test_schedules.py

fuzz: $(DEV_STAMP) ## 10 000 requests made from the served OpenAPI with each scope; then every parser, guided by coverage
	$(BIN)/python -m benchmarks.fuzz_api --cases 10000 --json runs/schemathesis.json
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m benchmarks.fuzz_parsers --seconds 20 --json runs/fuzz-parsers.json

# Peers play where they are installed: pip install -c constraints.txt -e '.[peers]'
SEARCH := OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.search
PEERS := cma-es,ultralytics-2025,yolov3-2020 method=2 parent=weighted,cmaes-sep,optuna-tpe,optuna-cmaes,nevergrad-TBPSA,prototype

bench-search: $(RUN_STAMP) ## The tables of strategies in docs/STRATEGIES.md; resumes, takes an hour or two of one core
	mkdir -p runs
	$(SEARCH) --ids 130000:130040 --strategies "hybrid,prototype,yolov5-2021,cma-es" --runs runs/search-fresh.jsonl --record docs/results/search-confirm.json
	$(SEARCH) --ids 1000:1020 --seeds 1 --strategies "hybrid,yolov5-2021,$(PEERS)" --runs runs/search-public.jsonl --record docs/results/search-public.json
	-$(SEARCH) --recorded public --workers 8 --strategies "hybrid,yolov5-2021,$(PEERS)" --runs runs/search-recorded.jsonl --record docs/results/search-recorded.json

$(OPTUNA_STAMP): Makefile
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check optuna==5.0.0 psycopg2-binary==2.9.13 cmaes==0.13.1
	touch $@

bench-service: $(RUN_STAMP) $(OPTUNA_STAMP) ## Ask and tell against Optuna's RDB storage and against the goals, in about ten minutes
	$(BIN)/python -m benchmarks.service --rows 0,1000,10000,1e5,1e6 --clients 1,8,32 --seconds 6 --strategies yolov5-2021 --samplers nsga2 \
		--json docs/results/service.json
	$(BIN)/python -m benchmarks.service --rows 10000 --clients 1,8,32 --seconds 10 --strategies hybrid --samplers '' --heartbeats \
		--json docs/results/service-hybrid.json

bench-service-large: $(RUN_STAMP) ## The same of ours at 10^7 candidates, in runs/
	mkdir -p runs
	$(BIN)/python -m benchmarks.service --rows 1e7 --strategies yolov5-2021 --samplers '' --folder runs/bench-service-large

check: lint test ## What has to pass before a change lands

check-containers: ## Build and run docker-compose.yml for real, kill a worker, count the budget (needs podman or docker)
	sh deploy/check-containers.sh

clean: ## Remove the environment and caches (campaigns in runs/ stay)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
