# make sweep: set up and run the main matrix.   make test: set up and check everything.   make ui: look at results.
# make setup: only set up. All set-ups are the same and are skipped when they are done.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3.10 || echo python3)
ARGS ?= -m allocator=ptmalloc,jemalloc ipex=off,on

# A recipe fails if any part of its pipe does.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

PY := .venv/bin/python
READY := .venv/.ready
DEBIAN := libjemalloc2 libgoogle-perftools4 libtcmalloc-minimal4 libmimalloc2.0 numactl linux-perf g++ default-jre-headless apache2-utils nghttp2-client

.PHONY: sweep setup test ui system clean help

help:
	@sed -n '1,2p' Makefile

sweep: setup
	$(PY) -m runner $(ARGS)

setup: system $(READY)

# A browser, for the pages of MLflow that sweeps save; Slurm and PostgreSQL, for what is past one machine. Real jobs on a
# shared machine may be held up: a test that fails is run twice more, and the summary names it.
test: DEBIAN += chromium slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins postgresql
test: system $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	$(PY) -m pytest -q -n 2 --no-loadscope-reorder --reruns 2 --reruns-delay 5 -rfER $(PYTEST_ARGS)

ui: $(READY)
	$(PY) -m runner ui

$(READY): requirements.lock requirements-toplev.lock pyproject.toml setup.py runner/worker/itt_collector.c runner/worker/machine_peak.c
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else \
	    f"Python {v[0]}.{v[1]} is not supported: install Python 3.10 to 3.13 and run: make $(MAKECMDGOALS) PYTHON=/path/to/python")'
	@echo "installing into .venv from requirements.lock: about 8 GB, several minutes, once"
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@PYTHONUNBUFFERED=1 $(PY) -m pip install --disable-pip-version-check --require-hashes -r requirements.lock | \
	    awk '/^Collecting/ && ++n % 25 == 0 { print "  " n " packages fetched"; fflush() } \
	     /^Installing/ { print "  unpacking them: a minute or two"; fflush() }'
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps --require-hashes --upgrade \
	    --target .venv/pmu-tools -r requirements-toplev.lock
	@touch $@

# Shared libraries of the allocators, numactl and perf. Without root or password-less sudo the line to run is
# printed; cells that need a missing library then fail before they are launched, with the same advice. One by one,
# so that a package this system has not does not keep the others away.
system:
	@missing=; for p in $(DEBIAN); do \
	    dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
	    echo "note: install what your system calls these Debian packages:$$missing"; exit 0; \
	fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=; \
	elif sudo -n true 2>/dev/null; then as_root="sudo -n"; \
	else echo "note: some cells can't run until you run: sudo apt-get install$$missing"; exit 0; fi; \
	$$as_root apt-get update -qq || true; \
	for p in $$missing; do \
	    $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$p >/dev/null || echo "note: could not install $$p"; \
	done

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
