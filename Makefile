# Every target installs what it needs: only Go and Python have to be there.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

# The race detector needs a C compiler.
RACE := $(if $(shell command -v cc),-race)
# It empties pools at random, so budgets of allocations are tested without it.
BUDGETS := -run Allocations ./internal/groupcommit ./metrics ./queue/httpapi
# The seconds that each fuzz target gets.
FUZZ_SECONDS ?= 20

.PHONY: help build test race bench fuzz-short lint demo compat cover docker-test clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/aglq
	go build -o bin/aglq ./cmd/aglq

test: ## run every test, on memory and on MongoDB, and the reference's Python parts
	scripts/test $(RACE) ./... $(if $(RACE),-- $(BUDGETS))

race: ## run the Go packages' tests with the race detector, several times over
	scripts/test -race -count 3 $$(go list ./... | grep -v -e /cmd/ -e /compat)

bench: ## run each micro-benchmark once, then whole lives of rollouts on memory
	go test -run '^$$' -bench . -benchtime 1x ./...
	go run ./cmd/aglq bench compare --rounds 2

fuzz-short: ## fuzz each target for FUZZ_SECONDS (20)
	scripts/fuzz-short $(FUZZ_SECONDS)

lint: ## check format, vet and staticcheck
	scripts/lint

demo: ## run a job that learns: digits, on the memory backend, about a minute
	@scripts/demo

compat: ## run the reference's Python client, runner and trainer against aglq store
	scripts/test -v ./queue/httpapi/compat

cover: ## measure the coverage of the tests, in coverage.out
	scripts/test -coverpkg=./... -coverprofile=coverage.out ./...
	go tool cover -func coverage.out | tail -n 1

docker-test: ## build the image with a Docker engine of its own and run three stores behind the proxy
	scripts/docker-test

clean: ## remove what the other targets made
	rm -rf bin .cache .venv coverage.out
