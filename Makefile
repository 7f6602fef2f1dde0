# The front door: `make` lists what there is to do.
# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BUILD ?= build
JOBS ?= $(shell nproc)
BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# $(call configure,FOLDER,OPTIONS): CMake once, and when libraries were installed; what else changes,
# ninja notices by itself.
define configure
	@if [ ! -f $(1)/build.ninja ] || [ .venv/installed -nt $(1)/build.ninja ] || \
	    [ .venv-cuda12/installed -nt $(1)/build.ninja ]; then \
	  echo "build: configuring $(1)"; \
	  $(BIN)/cmake -S . -B $(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
	    $$(command -v ccache >/dev/null && echo -DCMAKE_C_COMPILER_LAUNCHER=ccache \
	      -DCMAKE_CXX_COMPILER_LAUNCHER=ccache) $(2) >$(1).configure.log 2>&1 \
	  || { cat $(1).configure.log >&2; exit 1; }; \
	  rm -f $(1).configure.log; \
	fi
endef

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build-all ## build everything and run matrixMul through Outboard
	@tools/demo.sh $(BUILD)

.PHONY: build
build: build-all ## build the shims, the worker, the software GPU and the test programs

.PHONY: setup-build setup-test build-all
setup-build:
	@tools/setup.sh build
setup-test:
	@tools/setup.sh test

build-all: setup-build
	$(call configure,$(BUILD),)
	@echo "build: compiling in $(BUILD) with $(JOBS) jobs"
	@$(BIN)/ninja -C $(BUILD) -j $(JOBS) --quiet

.PHONY: test
test: setup-test ## what has to pass: lint, native and Python tests, sanitizers, bounded fuzzing
	@tools/test.sh $(BUILD) $(JOBS)

.PHONY: lint
lint: setup-test build-all ## format, style, types, layers, the generator's own checks
	@tools/lint.sh $(BUILD) $(JOBS)

.PHONY: format
format: setup-test ## rewrite the sources the way lint wants them
	@git ls-files '*.cpp' '*.hpp' '*.cu' | xargs $(BIN)/clang-format -i
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

.PHONY: sanitize
sanitize: setup-test build-all ## the native suite on AddressSanitizer + UBSan and ThreadSanitizer
	@tools/sanitize.sh $(JOBS)

.PHONY: fuzz
fuzz: setup-test build-all ## hostile bytes against the decoder and whole workers, bounded
	@tools/fuzz.sh $(BUILD)

.PHONY: soak
soak: package ## for hours: a million operations on the ledger, controllers killed, 20 boots in a row
	@OUTBOARD_LEDGER_SEEDS=$${OUTBOARD_LEDGER_SEEDS:-1000} \
	 OUTBOARD_LEDGER_OPERATIONS=$${OUTBOARD_LEDGER_OPERATIONS:-1000000} \
	 OUTBOARD_HAMMER_SECONDS=$${OUTBOARD_HAMMER_SECONDS:-60} \
	 $(BIN)/python -m pytest -q -s tests/unit/ledger/test_model.py tests/unit/controller/test_hammer.py
	@tools/machines.sh --boots $${OUTBOARD_TEST_BOOTS:-20}
	@tools/machines.sh --real-times

.PHONY: bench
bench: setup-build build-all ## measure calls, bandwidth and whole programs beside native
	@$(BIN)/python -m bench

.PHONY: package
package: setup-test build-all ## build the packages for Debian and for Fedora and its kin
	@tools/package.sh $(BUILD)

.PHONY: machines
machines: package ## boot machines with a real systemd and use the package there (root)
	@tools/machines.sh --setup
	@tools/machines.sh

.PHONY: machine-qemu
machine-qemu: package ## the same story in a full virtual machine with a kernel of its own (root, QEMU)
	@tools/machines.sh --setup
	@tools/machines.sh --vm

.PHONY: docs
docs: setup-test build-all ## write the generated pages (coverage of the driver API)
	@$(BIN)/python -m codegen docs

.PHONY: clean
clean: ## remove what was built (not the virtual environments)
	@rm -rf $(BUILD) build-asan build-tsan *.configure.log
