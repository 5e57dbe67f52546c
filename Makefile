# SPDX-License-Identifier: Apache-2.0
#
# make demo   a digit classifier fine-tunes itself in an emulated microcontroller
# make test   everything that CI checks
#
# Both install what they need into .venv. As root, `make test` also installs the Arm compiler and
# QEMU by apt; otherwise it says what is missing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SYSTEM_PACKAGES := gcc libc6-dev gcc-arm-none-eabi libnewlib-arm-none-eabi clang libclang-rt-dev \
	qemu-system-arm openocd cmake ninja-build python3-venv

HAS_ARM_GCC = echo '\#include <string.h>' | arm-none-eabi-gcc -fsyntax-only -x c - 2>/dev/null
HAS_VENV = $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null
HAS_TOOLS = (for tool in clang qemu-system-arm openocd cmake ninja; do \
	command -v $$tool >/dev/null || exit 1; done)
HAS_HOST_CC = echo '\#include <stdio.h>' | cc -fsyntax-only -x c - 2>/dev/null

.PHONY: demo test system clean

demo: $(VENV)/.demo
	$(BIN)/tte demo

test: system $(VENV)/.test $(VENV)/.tflite-runtime
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

# Without an Arm compiler there is one to be had from PyPI.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	extras=examples; if ! $(HAS_ARM_GCC); then extras=examples,zig; fi; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$$extras]"
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	touch $@

# It wants numpy 1, so it gets an environment of its own; there is none for newer Pythons.
$(VENV)/.tflite-runtime: | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/tflite-runtime && \
	$(VENV)/tflite-runtime/bin/python -m pip install --quiet --disable-pip-version-check \
	  'tflite-runtime==2.14.0' 'numpy<2' || { rm -rf $(VENV)/tflite-runtime; \
	  echo "tflite-runtime cannot be installed; its tests will be skipped" >&2; }
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "tte needs Python 3.10 or newer; choose one with: make PYTHON=python3.11" >&2; exit 1; }
	@$(HAS_VENV) || \
	  { echo "Python's venv module is missing: sudo apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

system:
	@if $(HAS_ARM_GCC) && $(HAS_HOST_CC) && $(HAS_VENV) && $(HAS_TOOLS); then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    $(SYSTEM_PACKAGES); \
	else \
	  echo "some tests need system packages that are missing:" >&2; \
	  echo "  sudo apt install --no-install-recommends $(SYSTEM_PACKAGES)" >&2; \
	fi

clean:
	rm -rf $(VENV) build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache
