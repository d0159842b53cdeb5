# make run, make test, make check (what CI runs), make test-contract, make compare-docs, make fuzz, make bench, make deb.

PEERS := tests/interop/node_modules/.package-lock.json
LINTER := tests/contract/node_modules/.package-lock.json
SCHEMATHESIS := tests/contract/.venv/installed
# nextest runs tests in parallel over processes; plain cargo runs the same tests where it isn't installed.
# Either runs all of them, whatever fails on the way.
RUN_TESTS := $(shell cargo nextest --version >/dev/null 2>&1 && echo "cargo nextest run" || echo "cargo test") --no-fail-fast

# Where cargo builds: CARGO_TARGET_DIR or a configuration file may say so. Asked only by who needs it.
TARGET = $(shell cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

.PHONY: run test rust-test interop test-contract compare-docs check fmt lint lint-openapi doc deny fuzz bench deb

run:
	cargo run --release

test: rust-test interop
	@if [ -z "$$COUCHDB_URL" ]; then \
	echo "interop with CouchDB skipped: set COUCHDB_URL (and COUCHDB_URL_2) to http://admin:password@host:port"; fi
	@if [ -z "$$COUCHDB_CLUSTER_URLS" ]; then \
	echo "interop with a cluster skipped: tests/couchdb/cluster.rs says what to set"; fi

rust-test:
	$(RUN_TESTS) --locked

interop: $(PEERS)
	cargo build --locked
	cd tests/interop && COUCHREP_BIN=$(TARGET)/debug/couchrep node --test --test-concurrency=1

$(PEERS): tests/interop/package-lock.json tests/interop/package.json
	cd tests/interop && npm ci
	touch $@

# All of it, whatever fails on the way.
check:
	@$(MAKE) --no-print-directory --keep-going fmt lint lint-openapi doc test deny

fmt:
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml

lint:
	cargo clippy --locked --all-targets -- -D warnings

lint-openapi: $(LINTER)
	cd tests/contract && npx redocly lint --config redocly.yaml ../../openapi.yaml

$(LINTER): tests/contract/package-lock.json tests/contract/package.json
	cd tests/contract && npm ci
	touch $@

# Each answer of a server beside what openapi.yaml says of it. Not a part of check: it draws other requests each time, for
# one to two minutes. SEED=N repeats a run, PHASES=examples,coverage draws nothing.
test-contract: $(SCHEMATHESIS)
	cargo build --locked
	tests/contract/run.sh $(TARGET)/debug/couchrep tests/contract/.venv

$(SCHEMATHESIS): tests/contract/requirements.txt
	python3 -m venv tests/contract/.venv
	tests/contract/.venv/bin/pip install --quiet --requirement tests/contract/requirements.txt
	touch $@

# What couchrep and CouchDB make of the same replicator documents, side by side, and why each difference. CouchDB's side is
# recorded in tests/data; COUCHDB_URL=http://admin:password@host:port records it anew.
compare-docs: $(PEERS)
	cargo build --locked
	@if [ -n "$$COUCHDB_URL" ]; then node tests/interop/replicator-docs.mjs "$$COUCHDB_URL" --record; fi
	COUCHREP_BIN=$(TARGET)/debug/couchrep node tests/interop/replicator-docs.mjs --compare

# With private items: the docs' readers are whoever changes the code.
doc:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --no-deps --document-private-items

deny:
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --locked check; \
	else echo "cargo-deny isn't installed: licences, advisories and bans are unchecked"; fi

# Looks for an input that breaks a property of fuzz/properties: make fuzz FUZZ=json SECONDS=600 (or multipart, revtree, cookie,
# token). Tells how long it ran and how many inputs it tried, and fails if one broke a property; else it keeps what it learnt in
# fuzz/corpus, which tests/fuzzed.rs replays. The first run builds all dependencies anew: a C++ compiler is needed.
FUZZ ?= json
SECONDS ?= 60
fuzz:
	fuzz/run.sh $(FUZZ) $(SECONDS)

# BENCH passes options on: make bench BENCH="--docs 20000"
bench: $(PEERS)
	cargo build --release --locked
	COUCHREP_BIN=$(TARGET)/release/couchrep node bench/main.mjs $(BENCH)

# A package for Debian and its kin in target/: the binary, the systemd unit, man pages, completions. BIN=PATH packs a binary
# that is there already.
deb:
	$(if $(BIN),,cargo build --release --locked --bin couchrep)
	contrib/deb/build $(or $(BIN),$(TARGET)/release/couchrep) $(TARGET)
