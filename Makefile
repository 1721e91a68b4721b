# containerd-shim-numa-v1. `make help` lists what there is to do.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
BIN := bin/containerd-shim-numa-v1
# no_grpc: containerd's API without its gRPC services. netgo and osusergo: a
# static binary must not need the C library's resolver and user database.
TAGS := $(strip no_grpc seccomp netgo osusergo $(EXTRA_TAGS))
export CGO_ENABLED := 1
# An interrupted go leaves its temporary directory; there `make clean` finds it.
GOTMP := GOTMPDIR='$(CURDIR)/bin'
GOBUILD := $(GOTMP) go build -trimpath -buildvcs=auto -tags '$(TAGS)' -ldflags '-s -w -extldflags "-static"'
GOTESTFLAGS ?=
GOTEST := go test $(GOTESTFLAGS) -tags '$(TAGS)'
TEST_TIMEOUT ?= 20m
FUZZTIME ?= 20s
# The Debian packages that a build needs, and those that tests and the demo need
# besides: a node that the shim is built and installed on gets the former only.
PACKAGES := gcc libc6-dev libseccomp-dev pkg-config git ca-certificates
TEST_PACKAGES := busybox-static erofs-utils crun iproute2
# What `make test` runs of `make test-engines`.
ENGINE_TESTS := Test(Exec$$|BadSpecs|ShimKilledAtRandom|Terminal|Pause|RootfsSettings|Ctr|Checkpoint|Restore)
OUTPUT := .output

.PHONY: help build install uninstall demo test test-unit test-e2e test-engines test-vm test-vm-quick vm-fetch test-kubernetes test-cri bench bench-create bench-placement bench-rootfs bench-cri capture fuzz lint fmt cover dev clean deps test-deps tools

help: ## what there is to do
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: deps ## the shim and the operator's tool, static, into bin/
	@mkdir -p bin
	$(GOBUILD) -o $(BIN) ./cmd/containerd-shim-numa-v1
	CGO_ENABLED=0 $(GOBUILD) -o bin/numashim ./cmd/numashim

install: build ## the shim and the tool into BINDIR (/usr/local/bin); those that run go on
	@for program in containerd-shim-numa-v1 numashim; do \
	  install -D -m 0755 bin/$$program $(DESTDIR)$(BINDIR)/.$$program.new && \
	  mv -f $(DESTDIR)$(BINDIR)/.$$program.new $(DESTDIR)$(BINDIR)/$$program || exit; \
	done

uninstall: ## remove them again, once the containers have ended
	rm -f $(DESTDIR)$(BINDIR)/containerd-shim-numa-v1 $(DESTDIR)$(BINDIR)/numashim

demo: build test-deps ## containers on a real containerd, beside the runc shim
	cd test && $(GOTMP) go run ./demo

test: ## everything: lint, unit tests, end-to-end tests
	@.ci/test

test-unit: tools ## unit tests, with the race detector; as root also real mounts, cgroups, processes
	$(GOTEST) -race -timeout $(TEST_TIMEOUT) ./...
	go test $(GOTESTFLAGS) -tags '$(TAGS) shim_pprof' -timeout $(TEST_TIMEOUT) -run DebugSocket ./shim

test-e2e: build tools ## end-to-end tests on containerd 2.4 and 1.7
	cd test && go test $(GOTESTFLAGS) -count=1 -short -timeout $(TEST_TIMEOUT) ./rig/... ./repo/... ./mountoptions ./vm/...
	cd test && go test $(GOTESTFLAGS) -count=1 -timeout $(TEST_TIMEOUT) ./e2e -containerd=2
	cd test && go test $(GOTESTFLAGS) -count=1 -timeout $(TEST_TIMEOUT) ./e2e -containerd=1.7
	for engine in runc crun; do (cd test && go test $(GOTESTFLAGS) -count=1 -timeout $(TEST_TIMEOUT) -run '$(ENGINE_TESTS)' ./e2e -engine=$$engine -shim-kills=5); done

test-engines: build tools ## the end-to-end tests with runc and with crun as the containers' runtime (8 minutes)
	cd test && go test $(GOTESTFLAGS) -count=1 -timeout $(TEST_TIMEOUT) ./e2e -engine=runc
	cd test && go test $(GOTESTFLAGS) -count=1 -timeout $(TEST_TIMEOUT) ./e2e -engine=crun

test-vm: build tools ## the same on other kernels, cgroup v2 and NUMA machines, in QEMU (half an hour)
	cd test && go test $(GOTESTFLAGS) -count=1 -timeout 2h ./vm

QUICK_KERNELS := 6.1 6.12
# Fails where there is no QEMU or kernel to be had, in at most this long.
vm-fetch: deps
	@$(MAKE) --no-print-directory deps PACKAGES="e2fsprogs xz-utils"
	cd test && timeout 15m go run ./vm/cmd/vmfetch $(QUICK_KERNELS)

test-vm-quick: vm-fetch ## package rootfs on two kernels that are older than most hosts', in QEMU (minutes)
	cd test && go test $(GOTESTFLAGS) -count=1 -timeout 1h ./vm -run '^TestRootfs$$' -kernels $(subst $() ,$(,),$(QUICK_KERNELS)) -quick

test-kubernetes: build tools ## pods through a real kubelet and API server (the first time builds them: 15 minutes)
	@$(MAKE) --no-print-directory deps PACKAGES=etcd-server
	cd test && go test $(GOTESTFLAGS) -count=1 -timeout 1h ./kubernetes

# ALL=1: by every way to register the shim, and on containerd 2.2 as well.
CRI_VERSIONS := 2 1.7$(if $(ALL), 2.2)
CRI_REGISTRATIONS := numa$(if $(ALL), configpath inline runc)

test-cri: build tools ## pods and containers as a kubelet runs them, through CRI (ALL=1: every registration)
	cd test && for version in $(CRI_VERSIONS); do for registration in $(CRI_REGISTRATIONS); do \
	  go test $(GOTESTFLAGS) -count=1 -timeout $(TEST_TIMEOUT) ./cri -containerd=$$version -registration=$$registration; \
	done; done

bench: build test-deps ## runc's shim against this one, in one interleaved run
	cd test && go run ./bench

bench-create: build test-deps ## what placing a container costs, in one interleaved run
	cd test && go run ./bench -layers 2 -serial 60 -runtimes "io.containerd.numa.v1,io.containerd.numa.v1+placement.policy='none'"

bench-placement: deps ## where containers are put, against kubelet and others, simulated (minutes)
	cd test && go run ./bench-placement

bench-rootfs: deps ## ways to assemble a root filesystem, in one interleaved run
	cd test && go run ./bench-rootfs

bench-cri: build test-deps ## a burst of pods through CRI, by runc's shim and by this one
	cd test && go run ./bench-cri

capture: ## this machine's CPUs and nodes as a text for numa/machines/sys, on standard output
	@cd test && go run ./capture

fuzz: deps ## each fuzz target for FUZZTIME (20s)
	@go list -tags '$(TAGS)' ./... | while read -r pkg; do \
	  $(GOTEST) -list '^Fuzz' $$pkg | { grep '^Fuzz' || true; } | while read -r target; do \
	    echo "== $$pkg $$target"; $(GOTEST) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done

lint: deps ## gofmt, go vet and staticcheck; no warnings
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "gofmt: $$out"; exit 1; }
	go vet -tags '$(TAGS)' ./...
	cd test && go vet ./...
	cd test && GOFLAGS= go build -o ../$(OUTPUT)/staticcheck honnef.co/go/tools/cmd/staticcheck
	$(OUTPUT)/staticcheck -tags '$(subst $() ,$(,),$(TAGS))' ./...
	cd test && ../$(OUTPUT)/staticcheck ./...

fmt: ## gofmt all of it
	gofmt -w .

cover: tools ## unit test coverage, as HTML in .output/
	@mkdir -p $(OUTPUT)
	$(GOTEST) -timeout $(TEST_TIMEOUT) -coverprofile $(OUTPUT)/cover.out ./...
	go tool cover -html $(OUTPUT)/cover.out -o $(OUTPUT)/cover.html
	go tool cover -func $(OUTPUT)/cover.out | tail -1

dev: build test-deps ## a shell with a private containerd and this shim
	cd test && go run ./dev

tools: test-deps # the pinned containerds, ctr, runc shims and runc, into the cache; demo and benchmarks build what they need
	cd test && go run ./rigbuild

test-deps: deps
	@$(MAKE) --no-print-directory deps PACKAGES='$(TEST_PACKAGES)'

deps: # the Debian packages that are missing
	@if command -v dpkg-query >/dev/null; then \
	  missing=; for p in $(PACKAGES); do dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; done; \
	  if [ -n "$$missing" ]; then \
	    [ "$$(id -u)" = 0 ] || { echo "not installed, and only root may:$$missing" >&2; exit 1; }; \
	    echo "installing$$missing" >&2; apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  fi; \
	fi

clean: ## what building has made here
	rm -rf bin $(OUTPUT)

, := ,
