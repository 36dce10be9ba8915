# Everything here works in a fresh clone: system packages come when root, the rest goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: run test check bench format clean

run: .venv/ready
	$(BIN)/agentd demo

test: check
	$(BIN)/pytest -n 2 --dist loadfile tests

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_house.py

bench: .venv/ready
	for bench in tests/bench/*.py; do $(BIN)/python $$bench; done

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/ready: pyproject.toml
	units/prepare
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,systemd]'
	touch $@

clean:
	rm -rf .venv build dist
