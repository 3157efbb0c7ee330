.DEFAULT_GOAL := help
.PHONY: help test lint bench setup

# Incremental builds pay only when something is built again, and CI builds once: without them it is
# faster and needs half the disk.
ifdef CI
export CARGO_INCREMENTAL := 0
endif

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## Install the servers and clients that the tests need into .testdeps/ (no root)
	@tests/setup

# The binaries come first: the end-to-end tests start them, and cargo does not build another package's
# binaries for a test.
test: setup ## Run all tests; installs what they need by itself
	cargo build --workspace --bins
	cargo test --workspace

lint: ## Check formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

bench: setup ## Measure throughput with release builds; pass options in ARGS='...'
	cargo build --release --workspace --bins --example bench_rules
	cargo run --release -p tests --bin bench -- $(ARGS)
