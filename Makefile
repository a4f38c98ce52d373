# `make help` lists the targets. Everything is installed into .venv, once: a stamp file
# for each set of extras is renewed when setup.cfg or pyproject.toml changes. The
# package is installed in editable mode, so that a change in the code needs no install.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
# Processes at a time, and parts of `make test-matrix`.
JOBS ?= 2
SHARDS ?= 40

export TF_CPP_MIN_LOG_LEVEL ?= 2
# Material for MkDocs prints a notice about its own future at every build.
export NO_MKDOCS_2_WARNING ?= 1

python := $(VENV)/bin/python
install := $(python) -m pip install --quiet --disable-pip-version-check --editable

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-matrix test-keras lint docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo  ## run examples/quickstart.py
	$(python) examples/quickstart.py

test: $(VENV)/.installed-test  ## run the tests (PYTEST_ARGS="-k name" to choose some)
	$(python) -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

# In many parts, each in a process of its own: TensorFlow keeps some of the memory of
# every model that it has trained.
test-matrix: $(VENV)/.installed-test  ## run the full matrix, hours (JOBS=2 at a time)
	seq $(SHARDS) | xargs -P $(JOBS) -I '{}' $(python) -m pytest tests/regimes -q \
		-m full --shard '{}/$(SHARDS)' $(PYTEST_ARGS)

test-keras: $(VENV)/.installed-test  ## run Keras's own tests on watched models (10 to 20 minutes)
	$(python) tests/keras_own/run.py $(PYTEST_ARGS)

lint: $(VENV)/.installed-lint  ## check the code with ruff
	$(python) -m ruff check .
	$(python) -m ruff format --check .

docs: $(VENV)/.installed-docs  ## build the documentation into site/
	$(python) -m mkdocs build --strict

clean:  ## delete what was built, and the caches; .venv stays
	rm -rf build dist site .pytest_cache .ruff_cache *.egg-info
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(VENV)/.installed-demo: extras := tensorflow,examples
$(VENV)/.installed-test: extras := tensorflow,examples,test
$(VENV)/.installed-lint: extras := lint
$(VENV)/.installed-docs: extras := docs

$(VENV)/.installed-%: $(VENV)/pyvenv.cfg setup.cfg pyproject.toml
	$(install) '.[$(extras)]'
	@touch $@

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)
