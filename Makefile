# shelfwise: two commands do everything, `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO := serving/proto/shelfwise/v1

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test lint types imports proto proto-check check clean

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/bin/python:
	@echo "== creating $(VENV)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "== installing shelfwise and what it needs into $(VENV)"
	$(BIN)/python -m pip install -q --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[demo,baselines,sweep]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "== installing what the tests need"
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[demo,baselines,sweep,dev]'
	@touch $@

install: $(VENV)/.installed ## Create .venv with a working .venv/bin/shelfwise

install-dev: $(VENV)/.installed-dev ## The same plus test and lint tools

demo: install ## From real purchases to personalised lists from a running server (15 to 20 minutes on 2 cores)
	@echo "== training on the Complete Journey purchases"
	$(BIN)/shelfwise run data=completejourney experiment=demo work_dir=work/demo
	@echo "== asking a running server"
	$(BIN)/shelfwise demo work_dir=work/demo

test: install-dev ## The whole test suite (at most 10 minutes)
	$(BIN)/python -m pytest

lint: install-dev ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev ## mypy, strict
	$(BIN)/mypy .

imports: install-dev ## Import contracts between the rooms
	$(BIN)/lint-imports

proto: install-dev ## Regenerate the gRPC code
	$(BIN)/python -m grpc_tools.protoc -I . -I third_party --python_out=. --pyi_out=. --grpc_python_out=. $(PROTO)/*.proto

proto-check: proto ## Fail when the checked-in gRPC code is not what the proto gives
	git diff --exit-code -- serving/proto

check: lint types imports proto-check test ## Everything CI checks

clean: ## Remove work/ and caches (not .venv)
	rm -rf work .mypy_cache .ruff_cache .pytest_cache build *.egg-info
