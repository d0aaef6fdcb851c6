# Everything a newcomer runs. Each target sets up .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin

# The maths, the layouts, the store and every option: what a change most often breaks.
SLOWER := %_compiling.py %_faults.py %_hostile.py %_remote.py %_remote_store.py
QUICK := $(filter-out $(SLOWER), $(wildcard tests/test_spg_core_*.py tests/test_manifests_*.py \
	tests/test_cache_*.py)) $(addprefix tests/test_pipeline_, configs.py options.py tables.py)

.PHONY: help demo test quick check docs bench gpu clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

demo: .venv/ready  ## everything on a generated sample, offline
	$(BIN)/spg-pipe demo

test: .venv/ready  ## all tests; those that need real samples, S3 or a GPU skip with a reason
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

quick: .venv/ready  ## the fast tests, under two minutes
	$(BIN)/pytest -q -m "not slow" $(QUICK)

check: .venv/ready  ## format, lint, types, layers, generated pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/reference.py --check

docs: .venv/ready  ## write the generated pages: commands, Python, formats
	$(BIN)/python tools/reference.py

bench: .venv/ready  ## the benchmarks that need nothing but this checkout
	$(BIN)/python -m benchmarks

gpu: .venv/ready  ## on a machine with a GPU: its tests and benchmarks, written to gpu.json
	$(BIN)/python -m benchmarks.gpu --out gpu.json

clean:  ## remove .venv and what demo and test leave
	rm -rf .venv spg-demo spg-store

.venv/ready: pyproject.toml constraints.txt
	@echo "Setting up .venv: torch and the rest, about 7 GB; a few minutes the first time"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
