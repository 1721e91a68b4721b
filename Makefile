# containerd-shim-numa-v1. `make help` lists what there is to do.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BINDIR ?= /usr/local/bin
BIN := bin/containerd-shim-numa-v1
# no_grpc: containerd's API without its gRPC services. netgo and osusergo: a
# static binary must not need the C library's resolver and user database.
TAGS := no_grpc seccomp runc_nocriu netgo osusergo
export CGO_ENABLED := 1
GOBUILD := go build -trimpath -buildvcs=auto -tags '$(TAGS)' -ldflags '-s -w -extldflags "-static"'
GOTESTFLAGS ?=
GOTEST := go test $(GOTESTFLAGS) -tags '$(TAGS)'
TEST_TIMEOUT ?= 20m
FUZZTIME ?= 20s
# The packages that `make deps` needs on Debian.
PACKAGES := gcc libc6-dev libseccomp-dev pkg-config git busybox-static erofs-utils ca-certificates
OUTPUT := .output

.PHONY: help build install demo test test-unit test-e2e test-vm bench bench-rootfs fuzz lint fmt cover dev clean deps tools

help: ## what there is to do
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: deps ## the shim and the operator's tool, static, into bin/
	@mkdir -p bin
	$(GOBUILD) -o $(BIN) ./cmd/containerd-shim-numa-v1
	CGO_ENABLED=0 $(GOBUILD) -o bin/numashim ./cmd/numashim

install: build ## the shim into $(BINDIR), replacing one that runs safely
	install -D -m 0755 $(BIN) $(DESTDIR)$(BINDIR)/.containerd-shim-numa-v1.new
	mv -f $(DESTDIR)$(BINDIR)/.containerd-shim-numa-v1.new $(DESTDIR)$(BINDIR)/containerd-shim-numa-v1

demo: build tools ## containers on a real containerd, beside the runc shim
	cd test && go run ./demo

test: ## everything: lint, unit tests, end-to-end tests
	@.ci/test

test-unit: deps ## unit tests, with the race detector; as root also real mounts, cgroups, processes
	$(GOTEST) -race -timeout $(TEST_TIMEOUT) ./...

test-e2e: build tools ## end-to-end tests on containerd 2.4 and 1.7
	cd test && go test $(GOTESTFLAGS) -count=1 -short -timeout $(TEST_TIMEOUT) ./rig/... ./repo/... ./vm/...
	cd test && go test $(GOTESTFLAGS) -count=1 -timeout $(TEST_TIMEOUT) ./e2e -containerd=2
	cd test && go test $(GOTESTFLAGS) -count=1 -timeout $(TEST_TIMEOUT) ./e2e -containerd=1.7

test-vm: build tools ## the same on other kernels, cgroup v2 and NUMA machines, in QEMU (half an hour)
	cd test && go test $(GOTESTFLAGS) -count=1 -timeout 2h ./vm

bench: build tools ## runc's shim against this one, in one interleaved run
	cd test && go run ./bench

bench-rootfs: deps ## ways to assemble a root filesystem, in one interleaved run
	cd test && go run ./bench-rootfs

fuzz: deps ## each fuzz target for $(FUZZTIME)
	@go list -tags '$(TAGS)' ./... | while read -r pkg; do \
	  $(GOTEST) -list '^Fuzz' $$pkg | { grep '^Fuzz' || true; } | while read -r target; do \
	    echo "== $$pkg $$target"; $(GOTEST) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done

lint: deps ## gofmt, go vet and staticcheck; no warnings
	@out=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); [ -z "$$out" ] || { echo "gofmt: $$out"; exit 1; }
	go vet -tags '$(TAGS)' ./...
	cd test && go vet ./...
	cd test && GOFLAGS= go build -o ../$(OUTPUT)/staticcheck honnef.co/go/tools/cmd/staticcheck
	$(OUTPUT)/staticcheck -tags '$(subst $() ,$(,),$(TAGS))' ./...
	cd test && ../$(OUTPUT)/staticcheck ./...

fmt: ## gofmt all of it
	gofmt -w $$(git ls-files -co --exclude-standard '*.go')

cover: deps ## unit test coverage, as HTML in .output/
	@mkdir -p $(OUTPUT)
	$(GOTEST) -timeout $(TEST_TIMEOUT) -coverprofile $(OUTPUT)/cover.out ./...
	go tool cover -html $(OUTPUT)/cover.out -o $(OUTPUT)/cover.html
	go tool cover -func $(OUTPUT)/cover.out | tail -1

dev: build tools ## a private containerd with this shim, and the line to paste
	cd test && go run ./dev

tools: deps # the pinned containerd, ctr, runc shim and runc, into the cache
	cd test && go run ./rigbuild

deps: # the Debian packages that are missing, if root may install them
	@if command -v dpkg-query >/dev/null; then \
	  missing=; for p in $(PACKAGES); do dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; done; \
	  if [ -n "$$missing" ]; then echo "installing$$missing" >&2; apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi; \
	fi

clean: ## what building has made here
	rm -rf bin $(OUTPUT)

, := ,
