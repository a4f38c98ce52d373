# `make help` lists the targets. Everything is installed into .venv, and what is run on
# JAX, PyTorch or other packages into .venv-jax, .venv-torch and .venv-clients, once: a
# stamp file for each set of extras is renewed when setup.cfg or pyproject.toml changes. The
# package is installed in editable mode, so that a change in the code needs no install.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
# What `make test-torch` installs before the package: the tests need no GPU's build.
TORCH ?= torch==2.13.0
# Processes at a time, one more than cores, since some wait; parts of `make test-matrix`.
JOBS ?= 3
SHARDS ?= 40

export TF_CPP_MIN_LOG_LEVEL ?= 2
# Material for MkDocs prints a notice about its own future at every build.
export NO_MKDOCS_2_WARNING ?= 1

python := $(VENV)/bin/python
pip_install := -m pip install --quiet --disable-pip-version-check
pytest := -m pytest -n $(JOBS) --dist loadfile

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-jax test-torch test-thorough test-matrix test-clients test-keras lint docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo  ## run examples/quickstart.py
	$(python) examples/quickstart.py

test: $(VENV)/.installed-test  ## run the tests (PYTEST_ARGS="-k name" to choose some)
	KERAS_BACKEND=tensorflow $(python) $(pytest) $(PYTEST_ARGS)

test-jax: $(VENV)-jax/.installed-test  ## run the tests on JAX
	KERAS_BACKEND=jax $(VENV)-jax/bin/python $(pytest) $(PYTEST_ARGS)

test-torch: $(VENV)-torch/.installed-test  ## run the tests on PyTorch
	KERAS_BACKEND=torch $(VENV)-torch/bin/python $(pytest) $(PYTEST_ARGS)

# Cases that `make test` leaves to PyTorch, where no step is traced.
test-thorough: $(VENV)/.installed-test  ## run the tests that `make test` leaves out
	KERAS_BACKEND=tensorflow $(python) $(pytest) -m thorough $(PYTEST_ARGS)

# In many parts, each in a process of its own: TensorFlow keeps some of the memory of
# every model that it has trained.
test-matrix: $(VENV)/.installed-test  ## run the full matrix, hours (JOBS=2 at a time)
	seq $(SHARDS) | xargs -P $(JOBS) -I '{}' $(python) -m pytest tests/regimes -q \
		-m full --shard '{}/$(SHARDS)' $(PYTEST_ARGS)

# In an environment of its own: the clients bring a hundred packages with them.
test-clients: $(VENV)-clients/.installed-test  ## run the tests and recipes of other packages (TensorFlow)
	KERAS_BACKEND=tensorflow $(VENV)-clients/bin/python -m pytest tests/clients $(PYTEST_ARGS)

test-keras: $(VENV)/.installed-test  ## run Keras's own tests on watched models (10 to 20 minutes)
	$(python) tests/keras_own/run.py $(PYTEST_ARGS)

lint: $(VENV)/.installed-lint  ## check the code with ruff, and its types with mypy
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy

docs: $(VENV)/.installed-docs  ## build the documentation into site/
	$(python) -m mkdocs build --strict

clean:  ## delete what was built, and the caches; .venv stays
	rm -rf build dist site .pytest_cache .ruff_cache *.egg-info
	find . -path './$(VENV)*' -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(VENV)/.installed-demo: extras := tensorflow,examples
$(VENV)/.installed-test: extras := tensorflow,examples,test
$(VENV)/.installed-lint: extras := lint
$(VENV)/.installed-docs: extras := docs
$(VENV)-jax/.installed-test: extras := jax,examples,test
$(VENV)-torch/.installed-test: extras := torch,examples,test
$(VENV)-clients/.installed-test: extras := tensorflow,examples,test,clients
$(VENV)-torch/.installed-test: first := $(TORCH)

stamps := $(addprefix $(VENV)/.installed-,demo test lint docs)
stamps += $(addsuffix /.installed-test,$(VENV)-jax $(VENV)-torch $(VENV)-clients)

.SECONDEXPANSION:
$(stamps): $$(@D)/pyvenv.cfg setup.cfg pyproject.toml
	$(if $(first),$(@D)/bin/python $(pip_install) '$(first)')
	$(@D)/bin/python $(pip_install) --editable '.[$(extras)]'
	@touch $@

%/pyvenv.cfg:
	$(PYTHON) -m venv $(@D)
