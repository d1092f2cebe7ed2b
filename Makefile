# Every target makes its own virtual environment first; only Python 3.10-3.13 and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder  # two processes of tests; a file's tests share what it prepares
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: setup demo test test-all check-pretrained mutants bench lint lab refresh lock clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else f"Python {v[0]}.{v[1]} found: TensorFlow 2.21 needs 3.10 to 3.13; say make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
	@if command -v nvidia-smi >/dev/null; then $(BIN)/python -m pip install --quiet 'tensorflow[and-cuda]==2.21.*'; fi

demo: setup  ## images -> shards -> trained, evaluated, measured ResNet-50, in a few minutes
	$(BIN)/python -m kit run --recipe demo

test: setup  ## unit and parity tests, a papermill run, then the committed notebooks' outputs
	$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE) tests
	$(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout=1200 notebooks

test-all: test $(VENV)/.ready-all $(VENV)/.ready-export $(VENV)/.ready-parity  ## and what takes long: kills, fuzz, S3, parquet, PyTorch, exports, Spark (needs Java 17)
	$(BIN)/python -m pytest -m slow $(SIDE_BY_SIDE) tests

$(VENV)/.ready-all: $(VENV)/.ready requirements-all.lock
	$(BIN)/python -m pip install --quiet --requirement requirements-all.lock
	@touch $@

# the lock leaves these out: none of them is needed to train, evaluate or classify
$(VENV)/.ready-export: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint requirements-all.lock --editable '.[export]'
	@touch $@

# torchvision and timm ask for more than the tests use of them
$(VENV)/.ready-parity: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet 'torch==2.13.0' 'safetensors==0.*'
	$(BIN)/python -m pip install --quiet --no-deps 'torchvision==0.28.*' 'timm==1.0.*'
	@touch $@

check-pretrained: $(VENV)/.ready $(VENV)/.ready-export  ## published weights on your ImageNet validation images: make check-pretrained IMAGES=/path
	$(BIN)/python tests/check_pretrained.py "$(IMAGES)" $(WEIGHTS)

mutants: setup  ## small faults in the core, each against its fast tests; goes on where it was ended: make mutants SECONDS=600
	$(BIN)/python tests/mutation/mutate.py $(SECONDS)

bench: $(VENV)/.ready-bench $(VENV)/.ready-export  ## speed against others' ways, as ratios: make bench PART=prep
	$(BIN)/python tests/benchmarks/bench.py $(PART)

# what cannot be had is left out of the tables, and said
$(VENV)/.ready-bench: $(VENV)/.ready
	-$(BIN)/python -m pip install --quiet 'torch==2.13.0'
	-$(BIN)/python -m pip install --quiet 'nvidia-dali-cuda130==2.4.*'
	@touch $@

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

lab: setup  ## JupyterLab at the root, so that notebooks/, runs/ and params.yaml can be opened
	$(BIN)/python -m jupyter lab --ip=127.0.0.1 --notebook-dir=.

refresh: setup  ## run the notebooks in place, for outputs to commit
	cd notebooks && PYTEST_CURRENT_TEST=refresh ../$(BIN)/jupyter nbconvert --execute --inplace \
		--ExecutePreprocessor.record_timing=False --ExecutePreprocessor.kernel_name=python3 0*.ipynb

UV_COMPILE := uv pip compile pyproject.toml --extra demo --extra test --universal --python-version 3.10 \
	--no-header --no-annotate

lock:  ## needs uv; names no registry; both files hold the same versions
	$(UV_COMPILE) --extra test-all --output-file requirements-all.lock
	$(UV_COMPILE) --constraint requirements-all.lock --output-file requirements.lock

clean:
	rm -rf $(VENV) data/demo runs/demo
