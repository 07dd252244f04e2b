# Everything a fresh machine needs is Python 3.11+ and make: the first target that
# runs makes the virtual environment, all others use it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready

.PHONY: help demo quick test check docs promises simulate soak fuzz celery-suite bench bench-million clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo      scheduler and worker on examples/schedules/, Ctrl-C stops'
	@echo 'make quick     the tests of the pure part: schedules, messages, timetable'
	@echo 'make test      the tests'
	@echo 'make check     ruff and mypy'
	@echo 'make docs      the documentation as a site, in build/site'
	@echo 'make promises  the long fault suite'
	@echo 'make fuzz      bad input of all kinds (MINUTES=10)'
	@echo 'make simulate  hours of faults under simulated time (HOURS=2000, or SEEDS=0-1999)'
	@echo 'make soak      schedulers, workers and Redis under faults (MINUTES=20, SEED=drawn)'
	@echo 'make celery-suite  Celery'\''s integration tests, by its workers and by ours'
	@echo 'make bench     what is claimed about speed, beside the peers (ONLY=at_once)'

# beatd alone, for who looks at it for the first time: the tests' packages take minutes.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(READY): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group test --group lint --group type
	@touch $@

demo: $(INSTALLED)
	@mkdir -p demo
	@echo 'scheduler and worker on examples/schedules/basic.py, files in demo/; stop: Ctrl-C'
	@$(BIN)/beatd worker -B --config examples/schedules/basic.py -l INFO \
		--schedule-filename demo/schedule.db

# What needs no clock, no file and no server, in under 30 s. pytest refuses
# a path that is not there: a file that is renamed has to be renamed here.
QUICK := tests/test_layers.py tests/test_text.py tests/test_ids.py tests/test_routing.py \
	tests/schedules \
	tests/test_ledger.py tests/test_policy.py tests/test_timetable.py tests/test_preview.py \
	tests/test_codec.py tests/test_message.py tests/test_canvas.py \
	tests/wire/test_message_vectors.py \
	tests/worker/test_in_flight.py tests/pools/test_child_state.py

quick: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup $(QUICK)

# Three processes for two cores: many tests wait for a program that they have started.
test: $(READY)
	$(BIN)/python -m pytest -n 3 --dist loadgroup -m 'not promise'

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# In an environment of its own, which neither the tests nor beatd need.
SITE := build/docs-venv

$(SITE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(SITE)/bin/python -m pip install --quiet --group docs
	@touch $@

docs: $(SITE)/.ready
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/python -m mkdocs build --strict --quiet
	@echo 'build/site/index.html'

promises: $(READY)
	$(BIN)/python -m pytest -m promise tests/promises
	$(BIN)/python -m pytest -m promise -n 2 tests/simulation

simulate: $(READY)
	$(BIN)/python -m tests.simulation --hours $(or $(HOURS),300) $(if $(SEEDS),--seeds $(SEEDS)) \
		$(if $(REPLAY),--replay)

soak: $(READY)
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),20) $(if $(SEED),--seed $(SEED))

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10)

# In an environment of its own: what these tests need is not for all others.
SUITE := build/celery-suite/venv

$(SUITE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(SUITE)
	$(SUITE)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(SUITE)/bin/python -m pip install --quiet --editable . --group celery-suite
	@touch $@

celery-suite: $(SUITE)/.ready
	$(SUITE)/bin/python -m tests.celery_suite $(if $(ONLY),--only $(ONLY))

# The peers, in environments of their own. Two, as taskiq wants a newer redis-py than
# saq and arq do.
PEERS := build/bench-venv build/bench-older-venv

build/bench-venv/.ready: GROUP := bench
build/bench-older-venv/.ready: GROUP := bench-older
$(PEERS:%=%/.ready): pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(@D)/bin/python -m pip install --quiet --group $(GROUP)
	@touch $@

BENCHMARKS := next_run at_once lateness start takeover worker sending commands

bench: $(READY) $(PEERS:%=%/.ready)
	@set -e; for name in $(or $(ONLY),$(BENCHMARKS)); do $(BIN)/python -m benchmarks.$$name; done

# A million entries: some minutes, and a gigabyte.
bench-million: $(READY)
	$(BIN)/python -m benchmarks.start --entries 1000000 --schedules 5000 --runs 1 --only beatd

clean:
	rm -rf $(VENV) build dist demo
