# `make help` lists what can be made. Every target that runs Python first makes $(VENV) from
# requirements/constraints.txt when it is missing or out of date; that check takes a fraction of a second.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
ARGS ?=

PY = "$(VENV)/bin/python"
# One thread each, so that the test processes do not fight for the cores.
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS)

.DEFAULT_GOAL := help
PARTS = cases engine tools stacks rest  # of `make test-all`
# $(call add,docs): add the packages of requirements/docs.txt to the environment, unless they are there
add = @cmp -s requirements/$(1).txt "$(VENV)/$(1).txt" || { \
	  $(PY) -m pip install -qq --no-deps -r requirements/$(1).txt && cp requirements/$(1).txt "$(VENV)/$(1).txt"; }

.PHONY: help env demo demo-attention app docs browser notebooks test test-all $(PARTS:%=test-all-%) bench lint format release-check clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' Makefile
	@echo "  VENV=$(VENV) PYTHON=$(PYTHON) WORKERS=$(WORKERS); ARGS='...' is passed on to the command"

env:  ## the environment alone
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo 'make: no "$(PYTHON)" here; install Python 3.10 to 3.13, or name one with PYTHON=...' >&2; exit 1; }
	@"$(PYTHON)" requirements/make_env.py "$(VENV)"

demo: env  ## write Moving Shapes, train and test a tiny TimeSformer on it (minutes)
	$(PY) tools/demo.py $(ARGS)

demo-attention: env  ## the same with all three attention schemes, as a table and a plot
	$(PY) tools/demo.py --all-schemes $(ARGS)

app: env  ## a page in the browser to try the model of make demo
	@$(PY) -c 'import gradio' 2>/dev/null || $(PY) -m pip install -qq --no-deps -r requirements/demo.txt
	$(PY) tools/demo_app.py $(ARGS)

docs: env  ## the documentation site, in build/site/html; a warning is an error
	$(call add,docs)
	$(PY) docs/site/build.py $(ARGS)

browser: env  ## Chromium, Gradio and axe-core, without which tests of pages are skipped
	$(PY) requirements/make_browser.py

notebooks: env  ## execute the notebooks and write their outputs (minutes)
	$(call add,notebooks)
	$(PY) tools/dev/run_notebooks.py $(ARGS)

test: env  ## what every change must pass (minutes)
	$(PYTEST) -m "not slow" $(ARGS)

test-all: env  ## also the slow tests, in the five parts below, one after the other (hours)
	@failed=; for part in $(PARTS); do \
	  $(MAKE) --no-print-directory "test-all-$$part" || failed="$$failed test-all-$$part"; done; \
	if [ "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

# $(call timed,PATHS): run pytest, print the seconds, end with its exit code
timed = @begin=$$(date +%s); code=0; $(PYTEST) $(1) $(ARGS) || code=$$?; \
	echo "$@: $$(($$(date +%s) - begin)) s, exit code $$code"; exit $$code

test-all-cases: env  ## inputs that once gave a wrong result, a hang or a stack trace
	$(call timed,tests/cases)

test-all-engine: env  ## training: resume, signals, disks, several processes
	$(call timed,tests/engine)

test-all-tools: env  ## the tools as a user starts them
	$(call timed,tests/tools)

test-all-stacks: env  ## wheels, other versions of MMEngine and MMAction2, notebooks
	$(call add,notebooks)
	$(call timed,tests/packaging)

test-all-rest: env  ## all other folders: models at full size, checkpoints, data, pages
	$(call timed,tests $(patsubst %,--ignore=tests/%,cases engine tools packaging))

# Long clips and large pictures by divided attention alone: of 96 frames, a peer's joint attention
# would form 17 GB of weights in every layer.
bench: env  ## us and the peers in turn, into benchmarks/results (an hour or two; a quiet machine)
	$(PY) benchmarks/peers.py --threads 2 --memory --out benchmarks/results $(ARGS)
	$(PY) benchmarks/peers.py --threads 1 --rows eval --out benchmarks/results $(ARGS)
	$(PY) benchmarks/peers.py --threads 2 --rows eval --sizes 16x448 96x224 \
	  --schemes divided_space_time --out benchmarks/results $(ARGS)
	$(PY) benchmarks/speeds.py --threads 2 --out benchmarks/results --schemes divided_space_time joint_space_time \
	  space_only --speeds bf16 int8 merged:8+bf16 merged:8+int8
	$(PY) benchmarks/data.py --out benchmarks/results
	$(PY) benchmarks/readers.py --install --out benchmarks/results

lint: env  ## ruff and mypy
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

format: env  ## let ruff repair what it can
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

release-check: env  ## build sdist and wheel, check them, install the wheel and use it; uploads nothing
	$(PY) requirements/release.py check $(ARGS)

clean:  ## remove builds and caches; environments, data and work_dirs stay
	rm -rf build dist mmtimesformer.egg-info .pytest_cache .ruff_cache .mypy_cache
	find configs mmtimesformer requirements tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
