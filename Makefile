# Every target sets up what it needs; Python 3.11+, make and a C compiler are all a machine must have.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help race race-quick test test-all bench lint types format conformance pages wheel-twice clean

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[race,test]'
	@touch $@

race: $(READY)   ## the main job: six recipes on three workloads, about five minutes on two cores
	$(BIN)/slalom race

race-quick: $(READY)  ## the same, smaller: under a minute
	$(BIN)/slalom race --quick

# One torch thread per worker: two workers with one thread each beat one worker with two.
test: $(READY)   ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow'

test-all: $(READY)  ## the test suite with its long and heavy checks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

bench: $(READY)  ## step times against torch.optim and pytorch_optimizer: dense, matrices, sparse rows; a few minutes
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/matrix_step.py
	$(BIN)/python benchmarks/sparse_step.py

lint: $(READY)   ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## strict types
	$(BIN)/mypy

format: $(READY) ## put the code into its one form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch's LBFGS, Muon and SparseAdam take only some closures, shapes or gradients, and are no part of the comparison.
TORCH  := Adadelta Adafactor Adagrad Adam AdamW Adamax ASGD NAdam RAdam RMSprop Rprop SGD
OTHERS := ADOPT AdaBelief AdaFactor AdEMAMix Adan AdaNorm CAME DiffGrad FTRL Lamb LaProp LARS Lion MADGRAD NovoGrad \
          PNM Prodigy QHAdam ScheduleFreeAdamW SGDW SM3 SOAP StableAdamW Tiger Yogi

conformance: $(READY)  ## check every method, torch.optim and a rival; write docs/conformance.md (a few minutes)
	-OMP_NUM_THREADS=1 $(BIN)/slalom check --all $(TORCH:%=torch.optim:%) $(OTHERS:%=pytorch_optimizer:%) \
		--markdown > docs/conformance.md

pages: $(READY)  ## write what is written from the code: the type stub, docs/methods.md, docs/contracts.md
	$(BIN)/python -m slalom.named
	$(BIN)/slalom list --markdown > docs/methods.md
	$(BIN)/slalom check --list --markdown > docs/contracts.md

wheel-twice: $(READY)  ## build the wheel twice, compare the bytes, leave it in dist/ (fetches hatchling)
	$(BIN)/python scripts/wheel_twice.py dist

clean:           ## forget the environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
