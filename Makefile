# Everything a newcomer runs. Each target sets up .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check docs bench clean

demo: .venv/ready  ## everything on a generated sample, offline
	$(BIN)/spg-pipe demo

test: .venv/ready  ## all tests; those that need real samples, S3 or a GPU skip with a reason
	$(BIN)/pytest

check: .venv/ready  ## format, lint, types, layers, generated pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/reference.py --check

docs: .venv/ready  ## write docs/cli.md from the commands
	$(BIN)/python tools/reference.py

bench: .venv/ready  ## the benchmarks that need nothing but this checkout
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv spg-demo spg-store

.venv/ready: pyproject.toml constraints.txt
	@echo "Setting up .venv: torch and the rest, about 7 GB; a few minutes the first time"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
