# Everything from a bare clone: each target creates .venv and installs what it
# needs first. `make PYTHON=python3.12 demo` picks another interpreter.

PYTHON ?= python3
FLOOR_PYTHON ?= python3.11
VENV := .venv
FLOOR := .venv-floor
BIN := $(VENV)/bin
RUN ?= runs/digits

export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-tensorflow test-jax test-all test-floor lint format \
  bench docs clean

demo: $(VENV)/.demo
	$(BIN)/python -m training.train images --variant digits --out $(RUN)
	$(BIN)/python -m training.demo $(RUN)
	$(BIN)/python -m training.train nodes --data karate --out runs/karate
	$(BIN)/python -m training.train graphs --data motif-cycle \
	  --epochs 5 --warmup-epochs 1 --out runs/motif-cycle
	$(BIN)/python -m training.demo runs/motif-cycle

test: test-tensorflow test-jax

# Also slow tests, other runtimes, guides and the site: over half an hour.
test-all: $(VENV)/.runtimes $(VENV)/.docs
	KERAS_TOPO_SLOW=1 $(MAKE) test

# Two processes of one thread: most of the time goes into tracing and compiling,
# which use one core. Each process takes one half of the files, in order, so that
# most fixtures are made once, and then takes remaining tests from the other.
TWO := -n 2 --dist worksteal --durations=15 --durations-min=3
ONE_THREAD := OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1

# The tests and the examples of docstrings.
test-tensorflow: $(VENV)/.dev
	KERAS_BACKEND=tensorflow $(ONE_THREAD) $(BIN)/python -m pytest \
	  --doctest-modules tests keras_topo models training $(TWO)

# The backend-neutral part once more on JAX (CPU), examples with `make test-all`.
EXAMPLES := $(if $(KERAS_TOPO_SLOW),--doctest-modules keras_topo models)
test-jax: $(VENV)/.dev
	KERAS_BACKEND=jax JAX_PLATFORMS=cpu $(ONE_THREAD) $(BIN)/python -m pytest \
	  tests $(EXAMPLES) $(TWO) -m "not tensorflow_only"

# The lowest versions that setup.cfg allows, with the tests that depend on them.
FLOOR_TESTS := tests/test_floor.py tests/test_backend.py \
  tests/test_export_models.py tests/test_presets.py \
  tests/test_preset_folders.py tests/test_preset_kinds.py \
  tests/layers/test_run_layer.py
FLOOR_JAX_TESTS := tests/test_backend.py tests/layers/test_masks_of_inputs.py

test-floor: $(FLOOR)/.dev
	KERAS_BACKEND=tensorflow $(ONE_THREAD) $(FLOOR)/bin/python -m pytest \
	  $(FLOOR_TESTS) $(TWO)
	KERAS_BACKEND=jax JAX_PLATFORMS=cpu $(ONE_THREAD) \
	  $(FLOOR)/bin/python -m pytest $(FLOOR_JAX_TESTS) $(TWO) \
	  -m "not tensorflow_only"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.attention

# Builds the site in site/. Once installed, it loads nothing from elsewhere.
docs: $(VENV)/.docs $(if $(shell command -v npm),docs/play/model.json)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The model of the interactive demo, and its runtime from npm.
docs/play/model.json: docs/play/build.py | $(VENV)/.runtimes
	$(BIN)/python docs/play/build.py

clean:
	rm -rf $(VENV) $(FLOOR) runs build site *.egg-info

$(BIN)/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and \
	  'keras_topo needs Python 3.11 or newer; found ' + sys.version)"
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras, so the demo does not install developer tools.
$(VENV)/.demo: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing keras_topo into $(VENV) ..."
	$(BIN)/python -m pip install --quiet -e ".[training]"
	@touch $@

$(VENV)/.dev: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing keras_topo and its test tools into $(VENV) ..."
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $@

$(FLOOR)/.dev: setup.cfg pyproject.toml tests/floor.txt
	@$(FLOOR_PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11) \
	  and 'make test-floor needs Python 3.11, FLOOR_PYTHON=...; found ' \
	  + sys.version)"
	@echo "Installing the lowest versions into $(FLOOR) ..."
	$(FLOOR_PYTHON) -m venv --clear $(FLOOR)
	$(FLOOR)/bin/python -m pip install --quiet -c tests/floor.txt \
	  -e ".[jax]" scikit-learn networkx pillow pytest pytest-xdist hypothesis
	@touch $@

$(VENV)/.runtimes: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[dev,runtimes]"
	@touch $@

$(VENV)/.docs: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	@touch $@

$(VENV)/.bench: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[bench]"
	@touch $@
