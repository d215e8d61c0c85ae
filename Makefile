# The commands of the project. They need Python >= 3.11 with venv, and make; everything else they install into .venv.

PYTHON ?= python3
BIN := .venv/bin
PARTS := proto jobs server worker client local
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test test-compose lint audit proto bench bench-engine bench-plane clean chaos soak soak-rate fuzz abuse

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: .venv/installed ## everything into .venv

.venv/installed: constraints.txt dev.txt $(PARTS:%=%/pyproject.toml)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Convlens needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install -q -r dev.txt $(PARTS:%=-e ./%)
	touch $@

demo: install ## the main job, end to end, to pictures in out/
	$(BIN)/python -m convlens.local.demo out examples/photos/*.png examples/photos/*.jpg

test: install ## unit, integration and conformance tests
	$(BIN)/python -m pytest

test-compose: install ## the container stack, for real: needs root and a container engine
	$(BIN)/python -m pytest tests/compose -m compose

lint: install ## ruff, mypy --strict, import-linter, buf
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(PARTS:%=%/convlens)
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint

audit: .venv-audit/installed ## known vulnerabilities of what constraints.txt pins
	.venv-audit/bin/python scripts/audit.py constraints.txt

.venv-audit/installed: scripts/audit.txt
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install -q -r scripts/audit.txt
	touch $@

proto: .venv-proto/installed ## the stubs again, from proto/convlens/v1/*.proto (OUT=folder: elsewhere)
	PATH="$(CURDIR)/.venv-proto/bin:$$PATH" .venv-proto/bin/python proto/generate.py $(OUT)

.venv-proto/installed: proto/generator.txt
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/pip install -q -r proto/generator.txt
	touch $@

bench: bench-engine bench-plane ## every benchmark

bench-engine: install ## each map against a forward pass and against peers, stock VGG16
	$(BIN)/python bench/engine/ratios.py

bench-plane: install ## images a second through the whole service beside peers' (ROWS=map-raw,unary: only these)
	$(BIN)/python -m bench.plane $(if $(ROWS),--rows $(ROWS))

clean: ## away with .venv and all that was generated
	rm -rf .venv .venv-audit .venv-fuzz .venv-peers .venv-proto out .mypy_cache .ruff_cache .pytest_cache

chaos: install ## every fault under load, 10,000 jobs in all (JOBS=n)
	PYTHONPATH=tests/support $(BIN)/python -m chaos --jobs $(or $(JOBS),10000)

abuse: install ## hostile callers against real processes, ten times the load of `make test` (SCALE=n)
	$(BIN)/python -m pytest tests/abuse --abuse-scale $(or $(SCALE),10) --timeout 3600

FUZZ_SECONDS ?= 60
FUZZERS := fuzz-images fuzz-tensors fuzz-requests

.PHONY: $(FUZZERS)

fuzz: $(FUZZERS) ## image decoding, tensors and requests, each for a while (FUZZ_SECONDS=60)

$(FUZZERS): fuzz-%: install .venv-fuzz/installed
	PYTHONPATH=tests/support $(BIN)/python tests/fuzz/seeds.py $* out/$@/seeds
	mkdir -p out/$@/grown
	.venv-fuzz/bin/python tests/fuzz/fuzz_$*.py out/$@/grown out/$@/seeds -artifact_prefix=out/$@/ \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -timeout=20 -rss_limit_mb=4096 -print_final_stats=1

.venv-fuzz/installed: tests/fuzz/requirements.txt constraints.txt
	$(PYTHON) -m venv .venv-fuzz
	PIP_CONSTRAINT=constraints.txt .venv-fuzz/bin/pip install -q -r tests/fuzz/requirements.txt -e proto -e jobs -e server
	.venv-fuzz/bin/pip install -q --no-deps -e worker # without its TensorFlow
	touch $@

soak: install ## mixed traffic for an hour, and what it leaves behind (SOAK_MINUTES=n)
	PYTHONPATH=tests/support $(BIN)/python -m soak --minutes $(or $(SOAK_MINUTES),60)

soak-rate: install ## small calls for an hour to a service with a small Redis (RATE=500 MAXMEMORY=256mb SOAK_MINUTES=n)
	PYTHONPATH=tests/support $(BIN)/python -m soak --calls-per-second $(or $(RATE),500) \
	    --maxmemory $(or $(MAXMEMORY),256mb) --minutes $(or $(SOAK_MINUTES),60)
