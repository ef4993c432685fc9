# demo, test and check each do all of the set-up that they need; a second run finds the stamps and
# starts at once. What is too long for a recipe is in scripts/.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# The recipes print what matters themselves.
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# More compilers at once than this need more memory than a small machine has.
JOBS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))

# In the environment, so that they go with it; with the directory in the name, because an environment
# does not survive being copied or moved.
STAMPS := $(VENV)/stamps-$(shell pwd -P | cksum | cut -d' ' -f1)
NATIVE := $(shell find zcfuse/datapath/native zcfuse/bench/transfer/native -path '*/tests' -prune -o -type f -print 2>/dev/null)

HOSTILE_SECONDS ?= 600
FUZZ_SECONDS ?= 600
.PHONY: help demo test check docs setup bench coherence writers survive kills remote-kills conformance proof hostile fuzz sanitize clean
.PHONY: dist test-install
.PHONY: packages-build packages-test packages-check packages-bench packages-coherence packages-proof
.PHONY: packages-dist packages-install
.PHONY: FORCE

help:
	@printf '%s\n' \
	  'make demo     build, mount a sample tree and read it by every serving path' \
	  'make test     build, run the tests (PYTEST_ARGS="-k name" for some of them)' \
	  'make check    ruff, mypy, clang-format, native tests under ASan+UBSan and under TSan' \
	  'make docs     the documentation as a site, in build/site' \
	  'make setup    packages, virtual environment, build' \
	  'make bench    compare with the backing tree and with mergerfs and bindfs' \
	  'make survive    kill the daemon of a mount under load: SURVIVE_KILLS=500 SURVIVE_ARGS="--kind union --by inject"' \
	  'make remote-kills  kill mounts of a server in the middle of fetches: REMOTE_KILLS=100' \
	  'make kills    kill the daemon of a writable mount in the middle of changes: KILLS=200' \
	  'make coherence  change a backing tree at random while its mount is read: ROUNDS=10000' \
	  'make writers  what a mount costs who writes to its backing tree: WRITERS_ARGS="--files 100000 --rounds 3"' \
	  'make conformance  run external suites and programs that are installed (pjdfstest, fsx, PostgreSQL, ...) on writable mounts' \
	  'make proof    run real programs on the mount, the large ones too, and print what served them' \
	  'make hostile  for 10 minutes one user attacks a mount, and another one must get answers' \
	  'make fuzz     change archives at random and index them, for 10 minutes' \
	  'make sanitize  the daemon and clients under ASan+UBSan and under TSan' \
	  'make dist     packages for pip and Debian in dist/; SUITES="bookworm trixie" for these' \
	  'make test-install  install them in bare systems and use them there, as root' \
	  'make clean    remove what the above made inside the checkout'

setup: $(STAMPS)/build

demo: $(STAMPS)/build
	@scripts/demo

test: $(STAMPS)/build $(STAMPS)/develop packages-test
	@scripts/tests $(PYTEST_ARGS)

check: $(STAMPS)/build $(STAMPS)/develop packages-check
	@scripts/check $(JOBS)

# What the theme says about its successor is no warning about these pages. With --quiet mkdocs would
# not count warnings. Nothing of the data path is asked, so it need not be built.
docs: $(STAMPS)/develop
	@PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo 'open build/site/index.html; to search it: $(PY) -m http.server -b localhost -d build/site'

coherence: $(STAMPS)/build $(STAMPS)/develop packages-test packages-coherence
	@ZCFUSE_COHERENCE_ROUNDS=$(or $(ROUNDS),10000) $(PY) -m pytest tests/coherence $(PYTEST_ARGS)

writers: $(STAMPS)/build $(STAMPS)/develop packages-test
	@$(PY) -m tests.coherence.writers $(WRITERS_ARGS)

survive: $(STAMPS)/build $(STAMPS)/develop packages-test
	@$(PY) -m tests.survive.load --kills $(or $(SURVIVE_KILLS),500) --kind $(or $(SURVIVE_KINDS),mirror) $(SURVIVE_ARGS)

remote-kills: $(STAMPS)/build $(STAMPS)/develop packages-test
	@$(PY) -m tests.remote.kills --kills $(or $(REMOTE_KILLS),100)

kills: $(STAMPS)/build $(STAMPS)/develop packages-test
	@$(PY) -m tests.layers.kills --kills $(or $(KILLS),200)

bench: $(STAMPS)/build $(STAMPS)/develop packages-bench
	@scripts/bench $(BENCH_ARGS)

conformance: $(STAMPS)/build
	@scripts/conformance $(CONFORMANCE_ARGS)

proof: $(STAMPS)/build $(STAMPS)/develop $(STAMPS)/proof packages-test packages-proof
	@scripts/proof $(PROOF_ARGS)

hostile: $(STAMPS)/build $(STAMPS)/develop packages-test
	@ZCFUSE_HOSTILE_SECONDS=$(HOSTILE_SECONDS) $(PY) -m pytest -q -rP tests/integration/test_other_users.py

fuzz: $(STAMPS)/build $(STAMPS)/develop packages-test
	@PYTHONPATH=. $(PY) -m tests.tree.archive.fuzz $(FUZZ_SECONDS)

sanitize: $(STAMPS)/build $(STAMPS)/develop packages-test packages-check
	@scripts/sanitize $(JOBS)

dist: packages-dist $(if $(SUITES),packages-install)
	@JOBS=$(JOBS) scripts/dist $(SUITES)

test-install: packages-dist packages-install
	@JOBS=$(JOBS) scripts/test-install $(SUITES)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find zcfuse tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

# No stamps: what is installed is the machine's business, and asking takes a tenth of a second.
packages-build packages-test packages-check packages-bench packages-coherence packages-proof packages-dist packages-install:
	@scripts/packages $(@:packages-%=%)

$(STAMPS)/venv: pyproject.toml scripts/venv | packages-build
	@scripts/venv $(PYTHON) $(VENV)
	@mkdir -p $(@D) && touch $@

# What developers use, and a demonstration does not.
$(STAMPS)/develop: pyproject.toml scripts/venv | $(STAMPS)/venv
	@scripts/venv $(PYTHON) $(VENV) test check plots docs
	@touch $@

$(STAMPS)/proof: pyproject.toml scripts/venv | $(STAMPS)/venv
	@scripts/venv $(PYTHON) $(VENV) proof
	@touch $@

$(STAMPS)/build: $(STAMPS)/venv CMakeLists.txt $(NATIVE) $(STAMPS)/files
	@touch $@.began
	@scripts/build $(JOBS)
	@mv $@.began $@

# The names of the sources: a file that was added or removed is no newer than any stamp.
$(STAMPS)/files: FORCE | $(STAMPS)/venv
	@find zcfuse -path '*/__pycache__' -prune -o -path '*/native/tests' -prune -o -type f -print \
	  | LC_ALL=C sort >$@.new
	@if cmp --silent $@.new $@; then rm $@.new; else mv $@.new $@; fi

FORCE:
