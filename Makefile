# shelfwise: two commands do everything, `make demo` and `make test`; `make taste` is the demo in two minutes.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO := proto/shelfwise/v1
GENERATED := shelfwise_client/v1
# google/api/field_behavior.proto comes with googleapis-common-protos.
GOOGLE_PROTOS = $(BIN)/python -c 'import google.api, pathlib; print(pathlib.Path(google.api.__path__[0]).parents[1])'
RETAIL := data=online_retail split=global_time
# FAISS has two builds that cannot be installed together: selected by the machine, or by FAISS=cpu, FAISS=gpu.
CARD := $(shell nvidia-smi -L 2>/dev/null | grep -m1 '^GPU')
WHY := $(if $(FAISS),FAISS=$(FAISS) says so,nvidia-smi -L lists $(if $(CARD),$(CARD),no card))
FAISS ?= $(if $(CARD),gpu,cpu)
CONSTRAINTS = $(if $(filter gpu,$(FAISS)),constraints-gpu.txt,constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo taste reports test coverage test-gpu lint types imports screenshots bench proto proto-check proto-release docs check clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/bin/python:
	@echo "== creating $(VENV)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt constraints-gpu.txt | $(VENV)/bin/python
	@echo "== installing shelfwise[$(FAISS)] and what it needs into $(VENV), because $(WHY)"
	$(BIN)/python -m pip install -q --upgrade pip -c $(CONSTRAINTS)
	@if $(BIN)/python -m pip show -q faiss-$(if $(filter gpu,$(FAISS)),cpu,gpu) 2>/dev/null; then \
	  echo "== removing the other build of FAISS"; $(BIN)/python -m pip uninstall -q -y faiss-cpu faiss-gpu; fi
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) torch
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e '.[$(FAISS),xlsx,baselines,sweep,map,explorer,experiments]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "== installing what the tests need"
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e '.[$(FAISS),xlsx,baselines,sweep,map,explorer,experiments,openvino,spark,mlflow,wandb,slurm,docs,dev,$(if $(filter gpu,$(FAISS)),milvus,milvus-lite)]'
	@touch $@

install: $(VENV)/.installed ## Create .venv with a working .venv/bin/shelfwise, for a GPU if there is one

install-dev: $(VENV)/.installed-dev ## The same plus test and lint tools

demo: install ## Train on real purchases, start a server, and show its answers (4 minutes on 2 cores)
	@echo "== training on a year of a gift shop's invoices"
	$(BIN)/shelfwise run $(RETAIL) data.events=examples/data/online_retail.parquet experiment=demo work_dir=work/demo
	@echo "== asking a running server"
	$(BIN)/shelfwise demo work_dir=work/demo

taste: install ## A short version of the demo in two minutes on a shop of 300 items, without meaningful metrics
	@echo "== cutting 300 products and 1,200 customers out of a gift shop's invoices"
	$(BIN)/python examples/small_shop.py work/taste/invoice_lines.parquet
	@echo "== training for seconds: this shop is tiny, and so is what can be learnt from it"
	$(BIN)/shelfwise run $(RETAIL) data.events=work/taste/invoice_lines.parquet experiment=taste work_dir=work/taste
	@echo "== asking a running server"
	$(BIN)/shelfwise demo work_dir=work/taste 'scenes=[shoppers,product,erasure]' shoppers=1
	@echo "A taste of a tiny shop: its numbers say nothing about quality. The real thing, in four minutes: make demo"

reports: install ## Measure the demo and, with BEAUTY=folder, Amazon Beauty, and put their reports into docs/reports (3 to 15 minutes)
	$(BIN)/shelfwise run $(RETAIL) data.events=examples/data/online_retail.parquet experiment=demo work_dir=work/demo
	cp work/demo/evaluation/report.html docs/reports/online_retail.html
	$(if $(BEAUTY),$(BIN)/shelfwise run data=amazon_reviews data.items=$(BEAUTY)/items.parquet data.events=$(BEAUTY)/events.parquet \
	  'data.text_fields=[title]' split=leave_one_out experiment=quick work_dir=work/beauty)
	$(if $(BEAUTY),cp work/beauty/evaluation/report.html docs/reports/amazon_beauty.html)

# With bytecode, whatever the environment says: the suite starts hundreds of processes of the same modules.
test: install-dev ## The whole test suite (a quarter of an hour on two fast cores)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --durations=30

coverage: install-dev ## The suite with coverage of all its processes, at least the floor in pyproject.toml (half as long again)
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term

test-gpu: install-dev ## The tests that need a CUDA GPU, alone (at most 3 minutes)
	$(BIN)/python -m pytest tests/gpu -m gpu -rs

lint: install-dev ## Style, formatting and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/pre-commit validate-config

types: install-dev ## mypy, strict
	$(BIN)/mypy .

imports: install-dev ## Import contracts between and inside the packages
	$(BIN)/lint-imports

screenshots: install-dev ## Take the pictures of docs/explorer.md from the run of `make demo`
	$(BIN)/python -m docs.screenshots work/demo

bench: install-dev ## Speed beside other projects, with BEAUTY=folder on Amazon Beauty; ROWS=encode,prepare; SCALE=0.01 for a trial (an hour on 2 cores)
	$(BIN)/python -m benchmarks.bench $(if $(ROWS),--rows $(ROWS)) $(if $(BEAUTY),--beauty $(BEAUTY)) $(if $(SCALE),--scale $(SCALE)) --folder work/bench

proto: install-dev ## Regenerate the gRPC code
	$(BIN)/python -m grpc_tools.protoc -I $(GENERATED)=$(PROTO) -I $$($(GOOGLE_PROTOS)) \
	  --python_out=clients/python --pyi_out=clients/python --grpc_python_out=clients/python $(PROTO)/*.proto

proto-check: proto ## Fail if the gRPC code is stale, or buf finds a lint error or a breaking change
	git diff --exit-code -- clients/python/$(GENERATED)
	SHELFWISE_ALL_TESTS=1 $(BIN)/python -m pytest tests/serving/test_proto.py

docs: install-dev ## Generate the reference pages, and build the documentation site in work/site
	$(BIN)/python -m docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

proto-release: install-dev ## Store the proto of a release, for the comparison of proto-check: VERSION=0.2.0
	$(if $(VERSION),,$(error VERSION=... names the release))
	$(BIN)/python -m grpc_tools.protoc -I proto -I $$($(GOOGLE_PROTOS)) --include_imports \
	  --descriptor_set_out=proto/released/v$(VERSION).binpb $(PROTO)/*.proto

check: lint types imports proto-check test docs ## Everything CI checks

clean: ## Remove work/ and caches (not .venv)
	rm -rf work .mypy_cache .ruff_cache .pytest_cache build *.egg-info
