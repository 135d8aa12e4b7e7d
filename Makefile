# Two commands matter: `make demo` and `make test`. `make` alone lists the rest.

# The profile of `make demo`. Unoptimized builds come first to the result: on a new machine compiling is nearly all of
# the wait, the demo's reaction times are Redis round trips rather than computation, and `make test` reuses the build.
# `make demo PROFILE=release` shows the optimized program.
PROFILE ?= dev
CARGO   ?= cargo
# What incremental compilation keeps takes 3 GB more; set it to 1 while you work on the code.
export CARGO_INCREMENTAL ?= 0
# Cargo.lock decides; a build never changes it.
LOCKED  := --locked
# Arguments for the demo and for chaos: `make demo ARGS="--help"`.
ARGS    ?=

.DEFAULT_GOAL := help
.PHONY: help packages servers demo build test test-kubernetes check deny doc install fmt bench chaos frameworks pictures clean
# Each step needs the whole machine, and they share one build directory.
.NOTPARALLEL:

help: ## Show this list
	@echo 'swarm runs job workers where and when they are needed. Start with:'
	@echo
	@echo '    make demo     see it work: a private Redis, an autoscaler, real workers, under a minute'
	@echo '    make test     run every check, as continuous integration does'
	@echo
	@echo 'All targets:'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "    %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

packages: ## Install what is missing (redis-server), with apt, dnf or brew
	@.ci/install-packages

servers: packages ## Fetch more servers for the tests: Valkey 8, Redis 8 and 6.2, a Docker engine
	@.ci/install-test-servers

demo: packages ## Build, then show the autoscaler at work in this terminal
	$(CARGO) run $(LOCKED) --profile $(PROFILE) -- demo $(ARGS)

build: ## Build the optimized program: target/release/swarm
	$(CARGO) build $(LOCKED) --release

# The tests come last, so the last lines are the test runner's.
test: packages ## Run every check: format, lints, docs, licences, all tests
	@CARGO='$(CARGO)' MAKE='$(MAKE)' .ci/test

test-kubernetes: packages ## Run the Kubernetes tests on a real control plane (needs Go, 8 GB; 10 minutes the first time)
	@.ci/install-test-cluster
	$(CARGO) test $(LOCKED) --test it --no-run
	.ci/test-cluster $(CARGO) test $(LOCKED) --test it kubernetes:: -- --include-ignored --test-threads 4

check: ## Check format and lints, warnings as errors; compiles tests and benches too
	$(CARGO) fmt --check
	$(CARGO) clippy $(LOCKED) --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) --no-default-features --lib --examples -- -D warnings

doc: ## Build the API documentation, warnings as errors
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(LOCKED) --no-deps --document-private-items

# The advisories check is left out: it downloads a database on each run, and may fail when nothing here has changed.
deny: ## Check licences and sources of dependencies, if cargo-deny is installed
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	    echo '$(CARGO) deny $(LOCKED) check bans licenses sources'; \
	    $(CARGO) deny $(LOCKED) check bans licenses sources; \
	else \
	    echo 'skipped: licences and sources of dependencies (to check them: cargo install --locked cargo-deny)'; \
	fi

# PREFIX for the program, its manual pages and completions; the unit goes where systemd looks for an administrator's units.
PREFIX  ?= /usr/local
DESTDIR ?=
UNITS   ?= /etc/systemd/system

install: build ## Install program, manual pages, completions and systemd units (PREFIX=/usr/local, DESTDIR=)
	install -D -m 0755 target/release/swarm $(DESTDIR)$(PREFIX)/bin/swarm
	target/release/swarm man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
	    $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d $(DESTDIR)$(UNITS)
	target/release/swarm completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/swarm
	target/release/swarm completions zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_swarm
	target/release/swarm completions fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/swarm.fish
	for unit in swarm-autoscaler swarm-discord; do \
	    sed 's|/usr/local/bin/|$(PREFIX)/bin/|' config/systemd/$$unit.service >$(DESTDIR)$(UNITS)/$$unit.service; \
	done

fmt: ## Format the code
	$(CARGO) fmt

bench: packages ## Run the benchmarks (optimized; minutes)
	$(CARGO) bench $(LOCKED)

chaos: packages ## Kill and freeze workers, Redis and autoscaler at load, and count what went wrong (5 minutes)
	$(CARGO) bench $(LOCKED) --profile $(PROFILE) --bench chaos -- $(ARGS)

frameworks: servers ## Run 2,000 jobs of each framework while its pool comes and goes (15 minutes)
	$(CARGO) test $(LOCKED) --test it frameworks::proof -- --ignored --nocapture --test-threads 3

pictures: packages ## Make the pictures of the documents anew, from real runs (installs chromium, tmux, aha, pngquant)
	$(CARGO) build $(LOCKED)
	.ci/pictures

clean: ## Remove everything that was built
	$(CARGO) clean
