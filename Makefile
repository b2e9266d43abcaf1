# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
BIN     = .venv/bin
MONTH  ?=
LOGS   ?= data/logs
BOOK   ?= data/book
PRICES ?= data/price_book.toml
EXPORTS ?= data/exports

.DEFAULT_GOAL := help
.PHONY: help setup settle schedule demo test test-long soak faults faults-input lint lock bench bench-scale mutants fuzz clean \
        setup-spark test-spark spark-cluster spark-stop spark-trial

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(BIN)/.ready  ## set up .venv with the locked packages and `settle`

$(BIN)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "settlement needs Python 3.11 or newer; say which: make setup PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

settle: setup  ## settle a month and export it for finance: make settle MONTH=2026-02
	@test -n "$(MONTH)" || { echo "say which month: make settle MONTH=2026-02" >&2; exit 2; }
	@$(BIN)/settle run $(MONTH) --logs $(LOGS) --book $(BOOK) --prices $(PRICES)
	@$(BIN)/settle export $(MONTH) --book $(BOOK) --out $(EXPORTS)/$(MONTH)

demo: setup  ## make 20 million calls that reach tiers three and four, and settle them
	@rm -rf data/demo
	@$(BIN)/python -m settlement.sample --demo data/demo/logs
	@$(BIN)/settle run 2026-03 --logs data/demo/logs --book data/demo/book --prices $(PRICES)
	@$(BIN)/settle explain 2026-03 0100009001 --book data/demo/book

schedule: setup  ## run the service that settles every month that is over
	@$(BIN)/python -m jobs.scheduler --logs $(LOGS) --book $(BOOK) --prices $(PRICES)

test: setup lint  ## everything CI runs: lint, types, tests
	@$(BIN)/python -m pytest -n auto --dist loadfile

test-long: setup  ## the random months again, many more of them
	@SETTLE_TEST_EXAMPLES=2000 $(BIN)/python -m pytest --timeout 0 tests/test_random_months.py

soak: setup  ## live through 36 months of the service with kills, held books and late files: make soak MONTHS=36 SEED=1
	@$(BIN)/python -m tests.soak $(if $(MONTHS),--months $(MONTHS)) $(if $(SEED),--seed $(SEED))

faults: setup  ## kill, refuse, cut the power and crowd at every point there is (needs strace)
	@$(BIN)/python -m tests.faults --json data/faults/result.json

faults-input: setup  ## damage small logs in every way: flipped bits, truncations (10 minutes; STEP=3 tries a third)
	@$(BIN)/python -m tests.damage $(if $(STEP),--step $(STEP))

setup-spark: setup $(BIN)/.spark  ## add Spark to .venv, for `--engine spark` (needs Java 17 or newer)

$(BIN)/.spark: requirements-spark.lock | $(BIN)/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-spark.lock
	@touch $@

test-spark: setup-spark  ## every engine's whole conformance suite, on two Spark executors
	@SETTLE_TEST_SPARK="local-cluster[2,1,1024]" $(BIN)/python -m pytest --timeout 0 tests/test_engines.py

spark-cluster: setup-spark  ## start a Spark cluster here: a master and two workers
	@$(BIN)/python -m tests.standalone start

spark-stop: setup  ## stop it
	@$(BIN)/python -m tests.standalone stop

spark-trial: setup-spark  ## settle 20 million calls on that cluster while parts of it are killed
	@$(BIN)/python -m tests.spark_trial $(or $(CALLS),20000000) build/spark/trial

lint: setup  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

$(BIN)/.mutants: $(BIN)/.ready requirements-mutants.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-mutants.lock
	@touch $@

mutants: $(BIN)/.mutants  ## change the core in a thousand small ways: which changes does no test notice?
	@ulimit -v 12000000; CI=true $(BIN)/mutmut run
	@$(BIN)/mutmut results

$(BIN)/.fuzz: $(BIN)/.ready requirements-fuzz.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	@touch $@

FUZZ_SECONDS ?= 60
fuzz: $(BIN)/.fuzz  ## hand the readers of files bytes that reach ever more of them: make fuzz FUZZ_SECONDS=60
	@$(BIN)/python -c 'import atheris' 2>/dev/null \
	  || { echo "fuzzing is left out: atheris has no wheel for this Python or machine" >&2; exit 0; }; \
	for target in prices contracts footers settings; do \
	  echo "$$target"; $(BIN)/python -m tests.fuzz $$target --seconds $(FUZZ_SECONDS) || exit 1; done

$(BIN)/.bench: $(BIN)/.ready requirements-bench.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

# BENCH="…" hands further options to either; `python -m tests.bench.compare --help` lists them.
bench: $(BIN)/.bench  ## compare with other engines: make bench ROWS=20000000 RUNS=3 CASES="once count"
	@$(BIN)/python -m tests.bench.compare $(if $(ROWS),--rows $(ROWS)) $(if $(RUNS),--runs $(RUNS)) $(if $(CASES),--cases $(CASES)) \
	  --markdown data/bench/result.md $(BENCH)

bench-scale: $(BIN)/.bench  ## draw the growth: make bench-scale ROWS="1000000 10000000" ACCOUNTS="10000"
	@$(BIN)/python -m tests.bench.scale $(if $(ROWS),--rows $(ROWS)) $(if $(RUNS),--runs $(RUNS)) $(if $(ACCOUNTS),--accounts $(ACCOUNTS)) \
	  $(if $(OUT),--out $(OUT)) $(BENCH)

bench-life: setup  ## settle ten years of months into one book: make bench-life MONTHS=120 ACCOUNTS=10000
	@$(BIN)/python -m tests.bench.life $(or $(MONTHS),120) $(or $(ACCOUNTS),10000)

lock: setup  ## renew the locks (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  pyproject.toml --group dev -o requirements.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --constraint requirements.lock --group pyproject.toml:bench -o requirements-bench.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --constraint requirements.lock --group pyproject.toml:mutants -o requirements-mutants.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --constraint requirements.lock --group pyproject.toml:fuzz -o requirements-fuzz.lock
	@echo "pyspark>=4.0,<5" | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header - -o requirements-spark.lock

clean:  ## remove what `make settle` made (book and exports of the sample)
	@rm -rf data/book data/exports
