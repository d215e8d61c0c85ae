# The project's commands. They need Python >= 3.11 with venv, and make; everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
PARTS := proto jobs server worker client web local
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test unit test-compose coverage format lint check sync audit docs docs-pictures notebooks proto \
    proto-released bench bench-engine bench-plane clean packages chaos soak soak-rate fuzz abuse

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: .venv/installed ## install everything into .venv

.venv/installed: constraints.txt dev.txt $(PARTS:%=%/pyproject.toml)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Convlens needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install -q -r dev.txt $(PARTS:%=-e ./%)
	touch $@

demo: install ## explain the example photos end to end and write the pictures to out/
	$(BIN)/python -m convlens.local.demo out examples/photos/*.png examples/photos/*.jpg
	@echo "To explore photos of your own in a browser: $(BIN)/convlens up --web, then open http://127.0.0.1:8080"

check: format lint unit ## what to run before each commit

test: install ## all tests: unit, property, integration, conformance, abuse and chaos (N=2: in two processes)
	$(BIN)/python -m pytest $(if $(N),-n $(N) --dist loadfile)

# The folders of tests/unit that neither build networks (engine, worker) nor draw scenes (shapes).
UNIT := client jobs local proto scripts server web

unit: install ## the unit tests that compile no network, in less than a minute
	$(BIN)/python -m pytest -q -n 4 --dist loadfile $(UNIT:%=tests/unit/%)

coverage: install ## lines that tests reach, processes they start included (TESTS=folders; default: unit and integration)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q $(or $(TESTS),tests/unit tests/integration)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

packages: install .venv-packages/installed ## build and check the distributions, and install the SDK at its lowest and newest versions
	$(BIN)/python -m pytest tests/packages -m packages

.venv-packages/installed: scripts/packages.txt
	$(PYTHON) -m venv .venv-packages
	.venv-packages/bin/pip install -q -r scripts/packages.txt
	touch $@

test-compose: install ## build and run the container stack: needs root and a container engine
	$(BIN)/python -m pytest tests/compose -m compose

format: install ## format the code and sort its imports
	$(BIN)/ruff check --quiet --select I --fix
	$(BIN)/ruff format

lint: install ## ruff, mypy --strict (benchmarks, too), import-linter, the generated client, buf (style, and breaking changes since the last release)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python scripts/generate_sync.py --check
	$(BIN)/mypy $(PARTS:%=%/convlens) bench
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint && ../$(BIN)/buf breaking --against released.binpb

sync: install ## generate the synchronous client from the asynchronous one
	$(BIN)/python scripts/generate_sync.py

audit: .venv-audit/installed ## look up known vulnerabilities of the versions in constraints.txt
	.venv-audit/bin/python scripts/audit.py constraints.txt

.venv-audit/installed: scripts/audit.txt
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install -q -r scripts/audit.txt
	touch $@

docs: install ## build the documentation as a site in site/, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "the site is in site/; to read it: $(BIN)/python -m http.server -d site"

notebooks: install ## run the example notebooks, whose outputs are committed
	$(BIN)/python scripts/run_notebooks.py

docs-pictures: install ## draw the pictures in docs/pictures
	$(BIN)/python docs/gallery.py
	$(BIN)/python docs/explore_picture.py

proto: .venv-proto/installed ## generate the stubs from proto/convlens/v1/*.proto (OUT=folder: elsewhere)
	PATH="$(CURDIR)/.venv-proto/bin:$$PATH" .venv-proto/bin/python proto/generate.py $(OUT)

.venv-proto/installed: proto/generator.txt
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/pip install -q -r proto/generator.txt
	touch $@

proto-released: install ## at a release: record the API that `make lint` compares later changes with
	cd proto && ../$(BIN)/buf build --exclude-source-info -o released.binpb

bench: bench-engine bench-plane ## run every benchmark

bench-engine: install ## time each map against a forward pass and against peers, stock VGG16
	$(BIN)/python bench/engine/ratios.py

bench-plane: install ## images per second through the whole service, beside peers (ROWS=map-raw,unary: only these)
	$(BIN)/python -m bench.plane $(if $(ROWS),--rows $(ROWS))

clean: ## remove .venv and everything that was generated
	rm -rf .venv .venv-audit .venv-fuzz .venv-packages .venv-peers .venv-proto out site .coverage* .mypy_cache .ruff_cache .pytest_cache

chaos: install ## inject every fault under load, 10,000 jobs in all (JOBS=n)
	PYTHONPATH=tests/support $(BIN)/python -m chaos --jobs $(or $(JOBS),10000)

abuse: install ## attack real processes with ten times the load of `make test` (SCALE=n)
	$(BIN)/python -m pytest tests/abuse --abuse-scale $(or $(SCALE),10) --timeout 3600

FUZZ_SECONDS ?= 60
FUZZERS := fuzz-images fuzz-tensors fuzz-requests

.PHONY: $(FUZZERS)

fuzz: $(FUZZERS) ## fuzz image decoding, tensors and requests (FUZZ_SECONDS=60 each)

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

soak: install ## run mixed traffic for an hour and report leaks (SOAK_MINUTES=n)
	PYTHONPATH=tests/support $(BIN)/python -m soak --minutes $(or $(SOAK_MINUTES),60)

soak-rate: install ## run small calls for an hour with a small Redis (RATE=500 MAXMEMORY=256mb SOAK_MINUTES=n)
	PYTHONPATH=tests/support $(BIN)/python -m soak --calls-per-second $(or $(RATE),500) \
	    --maxmemory $(or $(MAXMEMORY),256mb) --minutes $(or $(SOAK_MINUTES),60)
