# Needs Go alone; `contract` also uses Node, and `test` PostgreSQL, when they can be had.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

TOOL    := go tool -modfile=tools.mod
TAGS    := disable_grpc_modules
LDFLAGS := -s -w -X main.version=$(VERSION)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 30s
# What the contract is compared with: main's common ancestor, else the commit before.
BASE ?= $(shell git merge-base HEAD origin/main 2>/dev/null | grep -v "^$$(git rev-parse HEAD)$$" || git rev-parse -q --verify HEAD~1 2>/dev/null || true)

.DEFAULT_GOAL := help
.PHONY: help build run test race check format vet lint generate generate-diff contract bench soak chaos broadcast fuzz

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

build: ## the release binary, ./rouse
	CGO_ENABLED=0 go build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o rouse ./cmd/rouse

run: ## everything in one process, on this machine alone
	go run ./cmd/rouse dev

# The tests' PostgreSQL: the server of ROUSE_TEST_POSTGRES; else the programs on this machine, with which tests start
# their own; else Debian's package, where it may be installed; else a container, gone with the tests. See internal/testkit.
PG_PROGRAMS := command -v initdb || ls /usr/lib/postgresql/*/bin/initdb
PG_INSTALL  := [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get -qq update && \
	DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends postgresql
PG_COMPOSE  := docker compose -f internal/testkit/compose.yml
define with_postgres
if [ -n "$${ROUSE_TEST_POSTGRES:-}" ] || { $(PG_PROGRAMS); } >/dev/null 2>&1 || { $(PG_INSTALL); } >/dev/null 2>&1; then :; \
elif $(PG_COMPOSE) up --detach --wait >/dev/null 2>&1; then \
	trap '$(PG_COMPOSE) down --volumes >/dev/null 2>&1' EXIT; \
	export ROUSE_TEST_POSTGRES="postgres://postgres@$$($(PG_COMPOSE) port postgres 5432)/postgres"; \
else echo "PostgreSQL is neither here nor to be had, so ITS TESTS ARE SKIPPED: install it, or set ROUSE_TEST_POSTGRES"; fi
endef

# What `test` and `race` run.
PACKAGES ?= ./...

# The race detector needs a C compiler; without one the tests run without it. It leaves SQLite out, which is translated C under
# locks of its own: with it the tests take twice as long.
RACE := -race '-gcflags=modernc.org/...=-race=false -d=checkptr=0'

test: ## all tests, with the race detector where it can be had, and on PostgreSQL where that can be had
	@$(with_postgres); set -x; \
	go test $(if $(filter 1,$(shell go env CGO_ENABLED)),$(RACE)) -tags $(TAGS) -timeout 15m $(PACKAGES)

race: ## all tests with the race detector, or a complaint
	@$(with_postgres); set -x; go test $(RACE) -tags $(TAGS) -timeout 15m $(PACKAGES)

check: format vet lint generate-diff contract test ## all that a change must pass

format:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt these:"; echo "$$out"; exit 1; fi

vet:
	go vet -tags $(TAGS) ./...

lint: ## golangci-lint with .golangci.yml
	$(TOOL) golangci-lint run ./...

generate: ## server types and client from openapi.yaml
	go generate ./...

generate-diff: generate
	@git diff --exit-code -- '*gen.go' || { echo "generated code differs from openapi.yaml: commit the outcome of 'make generate'"; exit 1; }

contract: ## lint openapi.yaml, refuse changes that break its users
	@if command -v npx >/dev/null; then npx --yes @redocly/cli@2.77 lint openapi.yaml; \
	else echo "contract: Node is not installed, so openapi.yaml was not linted"; fi
	@if [ -n "$(BASE)" ] && git cat-file -e "$(BASE):openapi.yaml" 2>/dev/null; then \
	  old=$$(mktemp); trap 'rm -f "$$old"' EXIT; git show "$(BASE):openapi.yaml" > "$$old"; \
	  $(TOOL) oasdiff breaking --fail-on ERR "$$old" openapi.yaml; \
	else echo "contract: no earlier openapi.yaml to compare with"; fi

bench: ## benchmarks against their ceilings
	go test -tags $(TAGS) -run '^$$' -bench . -benchtime 1x ./bench
	go run -tags $(TAGS) ./bench/serve

SOAK ?= 10m
RATE ?= 500
soak: ## ten minutes of all that can go wrong at Apple and Google, with a kill in the middle; SOAK=30m RATE=200 SEED=7 change it
	go test -tags $(TAGS) -run '^TestSoak$$' -count 1 -timeout 24h -v ./cmd/rouse -soak $(SOAK) -soak-rate $(RATE) $(if $(SEED),-soak-seed $(SEED))

# Faults to choose from are in cmd/rouse/chaos_blows_test.go.
CHAOS ?= all
chaos: ## three nodes and everything that may break them, a quarter of an hour for each bus; CHAOS="kill-node cut-silent" BUS=nats SEED=7 change it
	@$(with_postgres); set -x; \
	go test -tags $(TAGS) -run '^TestChaos$$' -count 1 -timeout 24h -v ./cmd/rouse -chaos '$(CHAOS)' $(if $(BUS),-chaos-bus '$(BUS)') $(if $(SEED),-chaos-seed $(SEED))

BROADCAST ?= 100000
broadcast: ## a broadcast to 100,000 devices, the node that fans it out killed twice, on SQLite and on two nodes; BROADCAST=1000000 changes it
	@$(with_postgres); set -x; \
	go test -tags $(TAGS) -run 'Broadcast(SurvivesKills|NeedsNoMemory)$$' -count 1 -parallel 1 -timeout 1h -v ./cmd/rouse -broadcast $(BROADCAST)

fuzz: ## every fuzz target for FUZZTIME
	@for pkg in $$(go list ./...); do \
	  dir=$$(go list -f '{{.Dir}}' $$pkg); \
	  for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go 2>/dev/null | sed 's/func //'); do \
	    echo "$$pkg $$target"; go test -tags $(TAGS) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done
