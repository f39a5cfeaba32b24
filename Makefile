# `make run` and `make test` set up what they need first, and only when it changed.
# Another interpreter than python3: make run PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# When these files were made, the locked packages were installed: what serves, and what develops.
SERVING := $(VENV)/.serving
DEVELOPING := $(VENV)/.developing
PEERS := benchmarks/peers/.venv/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11
INSTALL = $(BIN)/pip install --quiet --require-hashes --requirement
INSTALL_OURSELVES = $(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
IS_ROOT = test "$$(id -u)" = 0 && command -v apt-get >/dev/null
APT_INSTALL = apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends

.PHONY: run test soak soak-model test-cluster bench bench-browser bench-storm bench-growth bench-delivery bench-persistence bench-runners screenshots lint format lock chromium fonts servers strace iproute board
.DELETE_ON_ERROR:

run: $(SERVING)
	@exec $(BIN)/initializer serve

# One test run a core: most tests wait for servers of their own.
test: $(DEVELOPING) chromium servers strace iproute board
	@$(BIN)/python -m pytest -n auto --dist worksteal $(TESTS)

# Histories of runs under faults in virtual time (docs/reliability.md).
HISTORIES ?= 20000
soak-model: $(DEVELOPING)
	@HISTORIES=$(HISTORIES) $(BIN)/python -m pytest -s tests/running/test_model.py

# Faults on real processes and servers, drawn from a seed; `make test` causes each once.
SEED ?= 1
MINUTES ?= 5
soak: $(DEVELOPING) servers
	@SEED=$(SEED) MINUTES=$(MINUTES) $(BIN)/python -m pytest -s tests/soak

# Hosts in network namespaces, one of them cut off and joined again; as root. `make test` does it with few projects.
PROJECTS ?= 200
test-cluster: $(DEVELOPING) servers iproute
	@PROJECTS=$(PROJECTS) $(BIN)/python -m pytest -s tests/cluster

# The figures of docs/performance.md, and the pictures of the README, from this checkout.
bench: $(DEVELOPING)
	@$(BIN)/python -m benchmarks.empty_runs
	@$(BIN)/python -m benchmarks.calls

# The live page in Chromium: event to DOM, the main thread, an hour of events time-lapsed: some five minutes.
bench-browser: $(DEVELOPING) chromium servers
	@$(BIN)/python -m benchmarks.browser

# Beside what people would use instead, which is installed apart from the app: some 20 minutes.
bench-delivery: $(DEVELOPING) $(PEERS) servers
	@$(BIN)/python -m benchmarks.delivery

# 1,000 viewers that lose their connections at once, beside the same: some four minutes.
bench-storm: $(DEVELOPING) $(PEERS) servers
	@$(BIN)/python -m benchmarks.storm

# How cost grows with viewers, projects, events and logs; draws the plots of docs/performance.md: some five minutes.
bench-growth: $(DEVELOPING) servers
	@command -v gcc >/dev/null || { echo "gcc is missing: the load program is C" >&2; exit 1; }
	@$(BIN)/python -m benchmarks.growth --plots docs/images

# What keeping progress costs and saves, beside five other designs: some two minutes.
bench-persistence: $(DEVELOPING) servers
	@$(BIN)/python -m benchmarks.persistence

# What a runner costs by itself, beside BullMQ and Celery: some six minutes.
bench-runners: $(DEVELOPING) $(PEERS) servers
	@$(BIN)/python -m benchmarks.runners

$(PEERS): benchmarks/peers/requirements.lock benchmarks/peers/package-lock.json | $(BIN)/pip
	@command -v gcc npm >/dev/null || { echo "gcc or npm is missing: the load program is C, some peers are Node" >&2; exit 1; }
	@$(PYTHON) -m venv benchmarks/peers/.venv
	@benchmarks/peers/.venv/bin/pip install --quiet --require-hashes --requirement $<
	@cd benchmarks/peers && npm ci --silent --ignore-scripts
	@touch $@

screenshots: $(DEVELOPING) chromium fonts
	@$(BIN)/python docs/screenshots.py

lint: $(DEVELOPING)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(DEVELOPING)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(DEVELOPING)
	$(COMPILE) --extra build pyproject.toml --output-file requirements.lock
	$(COMPILE) --extra build --extra bullmq pyproject.toml --output-file requirements-bullmq.lock
	$(COMPILE) --extra build --extra bullmq --extra test --extra dev pyproject.toml --output-file requirements-dev.lock
	$(COMPILE) benchmarks/peers/requirements.in --output-file benchmarks/peers/requirements.lock
	cd $(BOARD) && npm install --silent --package-lock-only --omit-lockfile-registry-resolved

$(SERVING): requirements.lock pyproject.toml | $(BIN)/pip
	@echo "Installing what serves the app (requirements.lock) ..."
	@$(INSTALL) requirements.lock
	@$(INSTALL_OURSELVES)
	@touch $@

$(DEVELOPING): requirements-dev.lock pyproject.toml | $(BIN)/pip
	@echo "Installing what tests and checks the app (requirements-dev.lock) ..."
	@$(INSTALL) requirements-dev.lock
	@$(INSTALL_OURSELVES)
	@touch $@

# Debian keeps what makes an environment with pip (ensurepip) in a package of its own.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11 or missing: name another one, for example make run PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		{ $(IS_ROOT); } || { echo "$(PYTHON) cannot make environments: install $$package, for example with: sudo apt-get install $$package" >&2; exit 1; }; \
		echo "Installing $$package ..."; $(APT_INSTALL) $$package >/dev/null; }
	@$(PYTHON) -m venv $(VENV)

# The link to the other language is Chinese.
fonts:
	@fc-list :lang=zh 2>/dev/null | grep -q . || { \
		{ $(IS_ROOT); } || { echo "No font has Chinese characters: install one, for example with: sudo apt-get install fonts-wqy-microhei" >&2; exit 1; }; \
		echo "Installing fonts-wqy-microhei ..."; $(APT_INSTALL) fontconfig fonts-wqy-microhei >/dev/null; }

chromium:
	@command -v chromium >/dev/null || { \
		{ $(IS_ROOT); } || { echo "The tests drive Chromium, which is not installed: install it, for example with: sudo apt-get install chromium" >&2; exit 1; }; \
		echo "Installing chromium ..."; $(APT_INSTALL) chromium >/dev/null; }

# The tests start servers of their own; without the programs those tests are skipped, loudly.
servers:
	@{ command -v redis-server && { command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; }; } >/dev/null 2>&1 || { \
		{ $(IS_ROOT); } || { echo "redis-server or PostgreSQL is not installed, and what needs them is not tested: sudo apt-get install redis-server postgresql" >&2; exit 0; }; \
		echo "Installing redis-server and postgresql ..."; $(APT_INSTALL) redis-server postgresql >/dev/null; }

# Shows a test that what survives a loss of power is synced; without it that test is skipped, loudly.
strace:
	@command -v strace >/dev/null || { \
		{ $(IS_ROOT); } || { echo "strace is not installed, and what survives a loss of power is not tested: sudo apt-get install strace" >&2; exit 0; }; \
		echo "Installing strace ..."; $(APT_INSTALL) strace >/dev/null; }

# Makes hosts of their own for the test that cuts one off; without it that test is skipped, loudly.
iproute:
	@command -v ip >/dev/null || { \
		{ $(IS_ROOT); } || { echo "ip is not installed, and a host that is cut off is not tested: sudo apt-get install iproute2" >&2; exit 0; }; \
		echo "Installing iproute2 ..."; $(APT_INSTALL) iproute2 >/dev/null; }

# Bull Board, for the test that looks at it; without node and npm that test is skipped, loudly.
BOARD := examples/bull-board
board:
	@command -v node >/dev/null && command -v npm >/dev/null || { \
		{ $(IS_ROOT); } || { echo "node or npm is not installed, and Bull Board is not tested: sudo apt-get install nodejs npm" >&2; exit 0; }; \
		echo "Installing nodejs and npm ..."; $(APT_INSTALL) nodejs npm >/dev/null; }
	@installed=$(BOARD)/node_modules/.package-lock.json; \
	if command -v npm >/dev/null && { [ ! -e $$installed ] || [ $(BOARD)/package-lock.json -nt $$installed ]; }; then \
		echo "Installing Bull Board ($(BOARD)/package-lock.json) ..."; \
		cd $(BOARD) && npm ci --silent --no-audit --no-fund && touch node_modules/.package-lock.json; fi
