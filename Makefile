# Thin fronts of `cargo xtask ...`, where everything is. `cargo xtask --help` says more.

.PHONY: help demo test test-all bench lint docs

help:
	@cargo xtask --help

# Replay the outage on a scratch PostgreSQL. ARGS="--keep" and the like go to `oxpecker demo`.
demo:
	@cargo xtask demo -- $(ARGS)

# All tests but the slow ones. ARGS goes to nextest.
test:
	@cargo xtask test -- $(ARGS)

test-all:
	@cargo xtask test-all -- $(ARGS)

bench:
	@cargo xtask bench $(ARGS)

lint:
	@cargo xtask lint

docs:
	@cargo xtask docs
