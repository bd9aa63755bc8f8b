# Everything is installed in .venv/ from the lock files; nothing else on the machine is changed.
#
#   make demo    show the targets of the homelab example; write target files to .demo/
#   make demo-page    show the status page with a real Prometheus and node exporter, on loopback, until Ctrl-C
#   make test    run the tests in parallel, with the real servers that are installed
#   make test-tailnet    test with real tailscaled and headscale in network namespaces; needs root and Go
#   make test-web     test what is served over HTTP with newer scrapers and a browser; builds the scrapers once, with Go
#   make test-stack   test what reads the targets with six scrapers; builds the newer ones once, with Go
#   make test-fronts  test with real reverse proxies; builds Caddy, oauth2-proxy and Traefik once, with Go
#   make test-systemd    test the NixOS module's units in a real systemd; needs root, and for the agent's Go
#   make test-nixos      run the tests that need checkouts or a newer Nix: paths in NIXPKGS_LIB, CLAN_CORE,
#                        CLAN_INPUTS, NIXPKGS and CLAN_DISCOVERY_NIX_NEWER
#   make check   check lint, types, and that generated files are current
#   make bench-web        measure `web`: memory, and the time of requests
#   make bench-resident   measure `run`: latency, idle cost, memory growth
#   make bench-incremental    measure a cycle of `run` after one node's change, at 100,000 machines
#   make bench   measure time and memory, compared with other programs
#   make bench-split      measure what one change writes with several files for each job; part of `bench`
#   make bench-scale      measure how time and memory grow from 10,000 to 100,000 machines; part of `bench`
#   make bench-shard      compare the computation of shares with a refresh, 100,000 machines; part of `bench`
#   make bench-rules     measure the alert rules with 10,000 machines in Prometheus and vmalert
#   make bench-verify    measure `verify` with 10,000 targets, compared with curl | jq
#   make bench-fronts  measure the config of a reverse proxy with 1,000 fronts
#   make bench-agents     measure what receives from 1,000 agents, and how soon an agent that was away has caught up; root
#   make bench-compose    measure 500 Compose services, compared with `docker-compose config`
#   make bench-stack    measure the stack of examples/stack: memory of each part, and how soon a mail arrives; root
#   make bench-page    measure the status page with 10,000 machines
#   make bench-tailnet    measure joins and faults on a real tailnet, compared with tailscalesd (20 minutes)
#   make tailnet          start a real tailnet and a shell in it
#   make lock    update the lock files from pyproject.toml
#   make docs    write generated files: schemas/, docs/cli.md, docs/config.md, expected outputs, the recording
#   make recording    write only docs/recording.svg
#   make screenshots  write the pictures of the status page, docs/*.png; needs Chromium

# The first Python of 3.11 or newer; `make PYTHON=...` takes another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest
export PYTHONDONTWRITEBYTECODE :=

# Paths to programs and checkouts that Debian does not package, and the tests that need them.
NIXOS_VARIABLES := NIXPKGS_LIB CLAN_CORE CLAN_INPUTS NIXPKGS CLAN_DISCOVERY_NIX_NEWER
NIXOS_TESTS := tests/nixos $(wildcard tests/test_nix_*.py) tests/test_clan_core.py tests/test_dump.py tests/test_emit_nix.py \
  tests/test_exports.py tests/test_flake.py tests/stack/test_migrating.py tests/test_settings.py tests/test_typos.py

.PHONY: demo demo-page test test-tailnet test-web test-stack test-fronts test-systemd test-nixos check bench bench-scale bench-shard bench-split bench-resident bench-incremental bench-web bench-rules bench-verify bench-compose bench-page bench-fronts bench-agents bench-stack bench-tailnet tailnet lock docs recording screenshots clean
.DEFAULT_GOAL := demo

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "clan-discovery needs Python 3.11 or newer, but none is on PATH" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module: on Debian, apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.runtime: requirements.lock pyproject.toml | .venv/bin/python
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.runtime
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

demo: .venv/.runtime
	@echo "\$$ clan-discovery show --config examples/homelab/config.yaml"
	@$(BIN)/clan-discovery show --config examples/homelab/config.yaml
	@echo
	@echo "\$$ clan-discovery refresh --config examples/homelab/config.yaml --output .demo/targets"
	@$(BIN)/clan-discovery refresh --config examples/homelab/config.yaml --output .demo/targets
	@echo
	@echo "\$$ clan-discovery explain attic --config examples/homelab/config.yaml"
	@$(BIN)/clan-discovery explain attic --config examples/homelab/config.yaml

# One worker more than cores, because many tests wait for servers. The tests of test-nixos are skipped here, whatever
# the environment says.
WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
test: .venv/.dev
	@env $(NIXOS_VARIABLES:%=-u %) CLAN_DISCOVERY_PROMETHEUS_NEWER=$$CLAN_DISCOVERY_PROMETHEUS_NEWER \
	  CLAN_DISCOVERY_VMAGENT_NEWER=$$CLAN_DISCOVERY_VMAGENT_NEWER $(PYTEST) -n $(WORKERS) --dist worksteal \
	  --ignore=tests/tailnet --ignore=tests/web --ignore=tests/stack --ignore=tests/fronts \
	  --ignore=tests/test_units.py --ignore=tests/test_front_units.py --ignore=tests/test_agent_units.py \
	  --ignore=tests/test_receive_units.py $(ARGS)

test-tailnet: .venv/.dev
	@$(BIN)/python -m tests.support.builds tailnet
	@$(PYTEST) -o faulthandler_timeout=600 tests/tailnet $(ARGS)

# Nearly all tests of test-stack wait for servers.
test-stack: WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 2)
# Loki and Thanos take minutes to build, and are only for test-stack: not where CLAN_DISCOVERY_LOKI or
# CLAN_DISCOVERY_THANOS is set, to a path or to nothing.
test-web test-stack: .venv/.dev
	@$(BIN)/python -m tests.support.builds scrapers
	@$(BIN)/python -m tests.support.builds agents
	@test $@ = test-web || $(BIN)/python -m tests.support.builds exporters
	@test $@ = test-web -o -n "$${CLAN_DISCOVERY_LOKI+set}" || $(BIN)/python -m tests.support.builds loki
	@test $@ = test-web -o -n "$${CLAN_DISCOVERY_THANOS+set}" || $(BIN)/python -m tests.support.builds thanos
	@$(PYTEST) -o faulthandler_timeout=600 -n $(WORKERS) --dist worksteal $(@:test-%=tests/%) $(ARGS)

# Traefik takes minutes to build: not where CLAN_DISCOVERY_TRAEFIK is set, to a path or to nothing.
test-fronts: .venv/.dev
	@$(BIN)/python -m tests.support.builds fronts
	@test -n "$${CLAN_DISCOVERY_TRAEFIK+set}" || $(BIN)/python -m tests.support.builds traefik
	@$(PYTEST) -n $(WORKERS) --dist worksteal tests/fronts $(ARGS)

test-systemd: .venv/.dev
	@$(BIN)/python -m tests.support.builds scrapers
	@$(BIN)/python -m tests.support.builds agents
	@$(PYTEST) tests/test_units.py tests/test_front_units.py tests/test_agent_units.py tests/test_receive_units.py $(ARGS)

test-nixos: .venv/.dev
ifeq ($(strip $(foreach name,$(NIXOS_VARIABLES),$($(name)))),)
	@echo "test-nixos: skipped, none of these is set: $(NIXOS_VARIABLES)"
else
	@$(BIN)/python -m tests.support.builds scrapers
	@$(BIN)/python -m tests.support.builds alerting
	@$(BIN)/python -m tests.support.builds agents
	@$(BIN)/python -m tests.support.builds exporters
	@$(PYTEST) -n auto --dist worksteal $(NIXOS_TESTS) $(ARGS)
endif

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --warnings
	$(BIN)/python docs/generate.py --check

bench: .venv/.dev
	@$(BIN)/python -m bench.refresh $(ARGS)
	@$(BIN)/python -m bench.tailscalesd
	@$(BIN)/python -m bench.dns
	@$(BIN)/python -m bench.dns --large
	@$(BIN)/python -m bench.scale
	@$(BIN)/python -m bench.split
	@$(BIN)/python -m bench.shard

bench-resident: .venv/.dev
	@$(BIN)/python -m bench.resident $(ARGS)
	@$(BIN)/python -m bench.dns_changes

bench-incremental: .venv/.dev
	@$(BIN)/python -m bench.resident_scale $(ARGS)

bench-shard: .venv/.dev
	@$(BIN)/python -m bench.shard $(ARGS)

bench-scale: .venv/.dev
	@$(BIN)/python -m bench.scale $(ARGS)

bench-split: .venv/.dev
	@$(BIN)/python -m bench.split $(ARGS)

bench-rules: .venv/.dev
	@$(BIN)/python -m tests.support.builds scrapers
	@$(BIN)/python -m bench.rules $(ARGS)

bench-verify: .venv/.dev
	@$(BIN)/python -m bench.verify $(ARGS)

bench-compose: .venv/.dev
	@$(BIN)/python -m bench.compose

bench-page: .venv/.dev
	@$(BIN)/python -m bench.status_page

bench-agents: .venv/.dev
	@$(BIN)/python -m tests.support.builds scrapers
	@$(BIN)/python -m tests.support.builds agents
	@$(BIN)/python -m bench.receiver
	@$(BIN)/python -m bench.agent_fleet
	@$(BIN)/python -m bench.agent_outages

bench-stack: .venv/.dev
	@$(BIN)/python -m tests.support.builds scrapers
	@$(BIN)/python -m tests.support.builds agents
	@$(BIN)/python -m bench.stack

bench-fronts: .venv/.dev
	@$(BIN)/python -m bench.fronts

bench-web: .venv/.dev
	@$(BIN)/python -m bench.web $(ARGS)

bench-tailnet: .venv/.dev
	@$(BIN)/python -m bench.tailnet $(ARGS)

tailnet: .venv/.dev
	@$(BIN)/python -m tests.tailnet $(ARGS)

docs: .venv/.dev
	$(BIN)/python docs/generate.py

recording: .venv/.dev
	$(BIN)/python docs/recording.py

demo-page: .venv/.runtime
	@$(BIN)/python examples/page/demo.py $(ARGS)

screenshots: .venv/.dev
	PYTHONPATH=. $(BIN)/python docs/screenshots.py

# uv resolves for all platforms at once. Hashes are pinned; index URLs are not.
lock: .venv/.dev
	$(PIP) install uv
	$(BIN)/uv pip compile pyproject.toml --group build --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --group build --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --output-file requirements-dev.lock

clean:
	rm -rf .venv .demo .bench
