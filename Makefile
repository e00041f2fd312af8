# Everything a person or CI does with this checkout. `make` alone lists it.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
AGENT := $(VENV)/.agent
TOOLS := $(VENV)/.tools

# Where the agent is installed, and the Python that it runs under there: the distribution's, because
# the service sees no home folders.
PREFIX ?= /opt/belatwist
SYSTEM ?= /usr/local
SYSTEM_PYTHON ?= /usr/bin/python3
DIST ?= dist

# The Debian of test-debian. Its testing suite has Python 3.14.
SUITE ?= forky

PIP := $(BIN)/pip --quiet --disable-pip-version-check
LOCK := packaging/lock

.DEFAULT_GOAL := help
.PHONY: help tools run test test-fast test-process test-debian13 test-debian soak lint format docs lock bench install deb victoria browser systemd screenshots clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

# The pip of Ubuntu 22.04 has no --python, which packaging/install.sh takes.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "belatwist needs Python 3.11 or newer; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install 'pip>=22.3'

$(AGENT): pyproject.toml $(LOCK)/agent.txt $(LOCK)/build.txt | $(BIN)/pip
	$(PIP) install --require-hashes --requirement $(LOCK)/build.txt
	$(PIP) install --require-hashes --requirement $(LOCK)/agent.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(TOOLS): $(AGENT) $(LOCK)/tools.txt
	$(PIP) install --require-hashes --requirement $(LOCK)/tools.txt
	@touch $@

tools: $(TOOLS) ## make the virtual environment with everything that the other targets use

run: $(AGENT) ## collect this machine's metrics and receive them, in one process; data goes to var/
	@exec $(BIN)/twistd --nodaemon --pidfile= bela --config configs/config.dev.yaml --with-receiver

FAST := -m 'not process and not soak' --numprocesses=auto --dist=worksteal

test: test-fast test-process ## run every test

test-fast: $(TOOLS) ## run the tests that start no process, on all processors: about a minute
	$(BIN)/pytest $(FAST)

test-process: $(TOOLS) ## run the tests that start processes: the agent, servers, a browser, a systemd
	$(BIN)/pytest -m 'process and not soak'

test-debian13: ## run the tests of test-fast on the Python of Debian 13, as root
	tests/debian.sh trixie $(FAST)

test-debian: ## run them on the Python of another Debian, SUITE=forky, as root
	tests/debian.sh $(SUITE) $(FAST)

soak: $(TOOLS) ## the long fault tests against the real server: minutes of kills and bad networks
	$(BIN)/pytest -m soak

lint: $(TOOLS) ## ruff, its formatter, mypy, and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(TOOLS) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(TOOLS) ## measure speed, bytes and memory, here and now
	$(BIN)/python -m benchmarks

docs: $(TOOLS) ## write what the documentation has from the code: keys, events, import rules
	$(BIN)/python -m tests.docs.generated

# What is locked stays as it is where pyproject.toml allows; `make lock UPGRADE=--upgrade` takes the
# newest versions. Nothing in the files names an index.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock' $(UPGRADE)
lock: | $(BIN)/pip ## write packaging/lock/: the version and hashes of every dependency
	$(PIP) install 'uv>=0.9'
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' | \
		$(COMPILE) --no-annotate --output-file $(LOCK)/build.txt -
	$(COMPILE) --output-file $(LOCK)/agent.txt --constraint $(LOCK)/build.txt pyproject.toml
	$(COMPILE) --output-file $(LOCK)/tools.txt --constraint $(LOCK)/build.txt --constraint $(LOCK)/agent.txt \
		--extra dev pyproject.toml

screenshots: $(TOOLS) ## take the pictures of the status page in docs/images/
	$(BIN)/python -m tests.web.page.screenshots

install: | $(BIN)/pip ## install the agent in PREFIX=/opt/belatwist, with its unit and user; see docs/installation.md
	packaging/install.sh $(BIN)/pip $(SYSTEM_PYTHON) "$(DESTDIR)" "$(PREFIX)" "$(SYSTEM)"

deb: | $(BIN)/pip ## build the Debian package in dist/, for this machine's architecture
	packaging/deb.sh $(BIN)/pip $(SYSTEM_PYTHON) "$(DIST)"

victoria: ## install what the tests against the real servers take, from Debian's packages
	apt-get update -qq
	apt-get install -qq -y victoria-metrics sqlite3 faketime
	apt-get install -qq -y --no-install-recommends prometheus prometheus-node-exporter docker-compose curl nut-server

browser: ## install the browser that the tests of the status page use, from Debian's packages
	apt-get update -qq
	apt-get install -qq -y --no-install-recommends chromium chromium-driver fonts-dejavu-core

systemd: ## install what the tests as root take (a real systemd, a disk, Debian 13), from Debian's packages
	apt-get update -qq
	apt-get install -qq -y --no-install-recommends systemd iproute2 python3-venv e2fsprogs mmdebstrap debian-archive-keyring

clean: ## remove what the above has made
	rm -rf $(VENV) var dist build
