# Builds, demonstrates and tests kvredis. `make` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# nats-server, if the system's is too old.
export PATH := $(CURDIR)/.tools/bin:$(PATH)

LATTICE := lattice/target/debug/lattice
# Reproducible builds: the program must not contain the path of the sources.
CARGO_FOLDER := $(or $(CARGO_HOME),$(HOME)/.cargo)
RELEASE := RUSTFLAGS="$${RUSTFLAGS-} --remap-path-prefix=$(CURDIR)=kvredis --remap-path-prefix=$(CARGO_FOLDER)=cargo"
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

.PHONY: help demo test soak fuzz bench readme lint doc test-servers audit advisories package tools build clean FORCE

help: ## List the targets
	@sed -n 's/^\([a-z./-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
		printf '  %-24s %s\n' "make $$target" "$$text"; done

demo: tools build ## Count in a real lattice (CHECK=1: assert the counts and exit)
	@$(LATTICE) demo --manifest local.wadm.yaml $(if $(CHECK),--check)

test: tools ## Run all tests
	@scripts/test

soak: tools ## Run the long reliability tests and write docs/reliability.md (15 minutes)
	@scripts/soak

fuzz: ## Fuzz the decoder of calls for a minute (FUZZ_SECONDS=n: for n seconds)
	@scripts/fuzz

bench: tools ## Compare the performance of kvredis with that of the SDK baseline (5 minutes)
	$(RELEASE) cargo bench --locked

readme: ## Write the generated tables of the settings into the pages
	@scripts/readme

lint: ## Check format, clippy with warnings denied, layers, language, and workflows
	cargo fmt --all --check
	cd lattice && cargo fmt --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cd lattice && cargo clippy --all-targets --locked -- -D warnings
	scripts/lint-layers
	scripts/lint-language
	scripts/lint-workflows

doc: ## Build the documentation with warnings denied
	RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --locked
	cd lattice && RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --locked --lib

test-servers: tools ## Run the tests that need no wasmCloud host, with the first redis-server on the PATH
	cargo test --workspace --locked --no-fail-fast

audit: ## Check licenses and sources of all dependencies (installs cargo-deny the first time)
	@scripts/install-tools cargo-deny
	@scripts/audit

advisories: ## Check the dependencies for known vulnerabilities (needs GitHub)
	@scripts/install-tools cargo-deny
	@scripts/audit advisories

# With RELEASED="x86_64-linux aarch64-linux", an architecture that cannot be built is an error.
package: build ## Build all release artifacts in build/package
	@scripts/install-tools cargo-cyclonedx
	@$(RELEASE) scripts/package

tools: ## Install missing tools
	@scripts/install-tools

build: build/kvredis.par.gz build/http-server.par.gz ## Build the provider archives of the demo

# Cargo tracks changes; the archive is written only if the program is newer.
target/release/kvredis: FORCE
	@[ -e $@ ] || echo 'building kvredis: 2 to 4 minutes on two cores'
	$(RELEASE) cargo build --release --locked --bin kvredis

$(LATTICE) lattice/target/debug/http-server-provider &: FORCE
	@[ -e $(LATTICE) ] || echo 'building the host, wadm and the HTTP server: about 9 minutes on two cores'
	cd lattice && cargo build --locked --bins

# The schema in the archive comes from the program that is in it.
build/kvredis.schema.json: target/release/kvredis
	@mkdir -p build
	$< settings --json >$@

build/kvredis.par.gz: target/release/kvredis build/kvredis.schema.json wit/world.wit | $(LATTICE)
	$(LATTICE) pack --binary $< --schema build/kvredis.schema.json --wit wit --out $@ \
		--name kvredis --vendor kvredis --version $(VERSION)

build/http-server.par.gz: lattice/target/debug/http-server-provider
	$(LATTICE) pack --binary $< --out $@ --name http-server --vendor wasmCloud --version 0.27.1

clean: ## Remove all build output
	rm -rf build
	cargo clean
	cd lattice && cargo clean
