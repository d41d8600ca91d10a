# What one does with this checkout; `make` alone lists it. Needs nothing but make and sh: `make setup` finds Python.

.DEFAULT_GOAL := help
.ONESHELL:
.SHELLFLAGS := -eu -c
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
PYTHON ?=# The Python to build on; without it the first of PYTHONS that runs and is 3.11 or newer.
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3
UV ?= uv

# Where there is no home (some containers), tools keep their caches beside the environment.
ifeq ($(strip $(HOME)),)
export HOME := $(CURDIR)/$(VENV)
endif

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
FAST := -q -m "not slow and not heavy" --ignore=tests/laws# The laws run over every operator and take a minute or more.

.PHONY: help setup servers watching demo check test heavy lint types docs bench lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | while IFS='	' read -r name what; do printf '  make %-8s %s\n' "$$name" "$$what"; done

setup: $(STAMP) ## make .venv with what requirements.lock names; the second time takes no time

$(STAMP): requirements.lock pyproject.toml
	@new_enough() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
	can_make_venv() { "$$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }
	find_python() {
	    for candidate in $(or $(PYTHON),$(PYTHONS)); do
	        if new_enough "$$candidate" && { [ "$$1" = any ] || can_make_venv "$$candidate"; }; then echo "$$candidate"; return; fi
	    done
	}
	python=$$(find_python venv)
	if [ -z "$$python" ]; then
	    found=$$(find_python any)
	    missing=$${found:+"$$found has no venv and ensurepip"}
	    missing=$${missing:-"there is no Python 3.11 or newer among: $(or $(PYTHON),$(PYTHONS))"}
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	        echo "$$missing: installing python3-venv"
	        apt-get update -q
	        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3 python3-venv
	        python=$$(find_python venv)
	    fi
	    if [ -z "$$python" ]; then
	        echo "make setup: $$missing." >&2
	        echo "On Debian 12, Ubuntu 24.04 or newer: sudo apt-get install -y python3 python3-venv" >&2
	        echo "Elsewhere: install Python 3.11 or newer and say where it is: make setup PYTHON=/path/to/python3" >&2
	        exit 1
	    fi
	fi
	echo "making $(VENV) with $$("$$python" -V)"
	rm -rf $(BIN) $(VENV)/lib
	"$$python" -m venv $(VENV)
	pip="$(BIN)/python -m pip --disable-pip-version-check --no-input"
	$$pip install -q --require-hashes -r requirements.lock
	$$pip install -q --no-deps --no-build-isolation -e .
	touch $@

servers: watching ## install what tests start for themselves, where it is missing: PostgreSQL, Prometheus, docker-compose
	@if command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then exit 0; fi
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	    echo "there is no PostgreSQL: installing it, without a server that runs by itself"
	    mkdir -p /etc/postgresql-common/createcluster.d
	    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/no-server-of-its-own.conf
	    apt-get update -q
	    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql
	else
	    echo "There is no PostgreSQL, and the tests that need it are skipped." >&2
	    echo "On Debian and Ubuntu: sudo apt-get install -y postgresql. Or name a running one: ASOF_TEST_POSTGRES=postgresql://..." >&2
	fi

# Prometheus comes with promtool; docker-compose reads the files of the deployment and needs no engine for it.
watching:
	@missing=
	command -v promtool >/dev/null && command -v prometheus >/dev/null || missing="$$missing prometheus"
	command -v docker-compose >/dev/null || missing="$$missing docker-compose"
	if [ -z "$$missing" ]; then exit 0; fi
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	    echo "missing:$$missing: installing, without a server that runs by itself"
	    if [ ! -e /etc/systemd/system/prometheus.service ]; then
	        mkdir -p /etc/systemd/system
	        ln -s /dev/null /etc/systemd/system/prometheus.service
	    fi
	    apt-get update -q
	    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing
	else
	    echo "There is no$$missing, and the tests that need it are skipped. On Debian and Ubuntu: sudo apt-get install -y$$missing" >&2
	fi

demo: $(STAMP) ## show asof at work on made-up data
	@$(BIN)/asof demo

check: $(STAMP) servers ## what to run before a commit: format, lint, types and the fast tests
	@$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) $(FAST)

test: $(STAMP) servers ## every test but the heavy ones, and the examples in the docstrings
	@$(PYTEST) -m "not heavy" --doctest-modules src/asof tests

heavy: $(STAMP) servers ## the heavy tests: each benchmark tried small, the kernels of the image
	@$(PYTEST) --dist load -m heavy tests

lint: $(STAMP) ## ruff: rules and format
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	@$(BIN)/mypy

docs: $(STAMP) ## build the documentation into site/; a warning fails it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(STAMP) ## the benchmarks, beside their peers
	@$(BIN)/python benchmarks/run.py --markdown docs/performance.md

lock: ## resolve requirements.lock anew (needs uv); LOCK="--upgrade" takes newer versions
	@command -v $(UV) >/dev/null || { echo "make lock: there is no $(UV); pip install uv, or say where it is: make lock UV=/path/to/uv" >&2; exit 1; }
	$(UV) pip compile pyproject.toml --all-extras --group test --group lint --group docs --group bench --group build --group dashboards \
	    --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-header --no-emit-index-url --quiet \
	    $(LOCK) --output-file requirements.lock >/dev/null

clean: ## remove the environment and everything that is built
	@rm -rf $(VENV) site dist build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -type d -name __pycache__ -prune -exec rm -rf {} +
