# Set-up of a fresh machine, checks and the demonstration. `make` alone shows what there is.

GOLANGCI_VERSION := v2.15.0
GOLANGCI := .cache/bin/$(GOLANGCI_VERSION)/golangci-lint
FUZZTIME ?= 5s
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)"
LAB := go run -buildvcs=false ./test/lab

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build cross setup vet fmt lint unit fuzz scenarios test demo demo-down conformance lab-incus model bench soak clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/pgpatrol
	$(BUILD) -o bin/pgpatrol ./cmd/pgpatrol

cross: ## Build for every platform that is claimed, into bin/
	GOOS=linux GOARCH=amd64 $(BUILD) -o bin/pgpatrol-linux-amd64 ./cmd/pgpatrol
	GOOS=linux GOARCH=arm64 $(BUILD) -o bin/pgpatrol-linux-arm64 ./cmd/pgpatrol
	GOOS=linux GOARCH=arm GOARM=7 $(BUILD) -o bin/pgpatrol-linux-armv7 ./cmd/pgpatrol
	GOOS=darwin GOARCH=arm64 $(BUILD) -o bin/pgpatrol-darwin-arm64 ./cmd/pgpatrol

demo: ## Break the real stack without and with pgpatrol, and show the difference (8 minutes)
	@test/setup/setup.sh go docker
	@$(LAB) demo

demo-down: ## Stop and remove what `make demo` left running
	@$(LAB) --stack demo down

test: ## Everything that CI checks, with the real stack in containers
	@test/setup/sections.sh $(MAKE) setup vet lint unit cross scenarios

setup: ## Install and start what the tests need (Debian and Ubuntu, as root; elsewhere: name it)
	@test/setup/setup.sh go cc docker

vet: ## Run go vet
	go vet ./...

lint: $(GOLANGCI) ## Run the linter
	$(GOLANGCI) run ./...

fmt: $(GOLANGCI) ## Format the source
	$(GOLANGCI) fmt ./...

unit: ## Run the tests that need no container, the layer test, and every crash point
	@test/setup/setup.sh go cc
	go test -race -shuffle=on ./...
	go test -tags planted ./agent/... ./test/sim
	go run ./test/sim -crashpoints

fuzz: ## Run each fuzz target for FUZZTIME (5s)
	@test/setup/fuzz.sh $(FUZZTIME)

scenarios: ## Run the real-stack scenarios that CI runs
	@test/setup/setup.sh go docker
	@$(LAB) run --suite ci

conformance: ## Run one suite against every service manager, the real one where it can run, and show a table (9 minutes)
	@test/setup/setup.sh go docker
	@go run ./test/managers

lab-incus: ## Patroni nodes as real Incus instances, looked after from the Incus host: break them without and with pgpatrol (12 minutes)
	@test/setup/setup.sh go docker
	@$(LAB) incus

model: ## Record fault scripts on the real stack, and compare the simulation's model with them (40 minutes)
	@test/setup/setup.sh go docker
	@$(LAB) conformance

bench: ## Measure what idle agents cost: memory, CPU, size, requests to etcd
	@test/setup/setup.sh go docker
	@$(LAB) bench

soak: ## Break the real stack again and again for a long time
	@test/setup/setup.sh go docker
	@$(LAB) run --suite soak

clean: ## Remove what was built
	rm -rf bin .cache

# The linter is a program of its own with some 200 dependencies: it stays out of go.mod.
$(GOLANGCI):
	@echo "install golangci-lint $(GOLANGCI_VERSION) (2 to 4 minutes on 2 cores, once)"
	GOFLAGS= GOBIN=$(abspath $(@D)) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
