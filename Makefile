.PHONY: demo test test-samplers dev lint quality reference screenshots clean

PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)  ## a synthetic world, a walk-forward over three weeks, top-5 lists and metrics beside the baselines
	TGN_SOURCE=synthetic $(BIN)/tgn backtest --weeks 2 --show-lists

test: $(READY)  ## every test but those that need a compiled sampler
	$(BIN)/pytest tgn_assets_tests

test-samplers:  ## compiles torch-sparse and torch-scatter (15 minutes and more) and shows that both sampling paths agree
	$(PYTHON) -m venv .samplers
	.samplers/bin/pip install --quiet --constraint constraints.txt torch torch_geometric numpy pandas pytest setuptools wheel ninja
	FORCE_ONLY_CPU=1 .samplers/bin/pip install --quiet --constraint constraints.txt --no-build-isolation torch-scatter torch-sparse
	.samplers/bin/python -m pytest -p no:cacheprovider -o addopts= -o filterwarnings= tgn_assets_tests/samplers

dev: $(READY)  ## the Dagster UI, with the history of `make demo` and `tgn` in it
	$(BIN)/tgn dev

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

DATA ?= ../shared/data
LOGS := $(basename $(notdir $(wildcard $(DATA)/*.parquet)))

quality: $(READY) $(LOGS:%=quality-%)  ## docs/quality.md anew: every log of $(DATA), with each part left out in turn

quality-%:
	TGN_HOME=.tgn/quality/$* TGN_SOURCE=$(DATA)/$*.parquet TGN_USER_COLUMN=user TGN_EVENT_COLUMN=item \
		TGN_TIMESTAMP_COLUMN=ts $(BIN)/tgn backtest --weeks 4
	$(BIN)/python benchmarks/quality.py .tgn/quality/$*

screenshots: $(READY)  ## the pictures of docs/images anew; needs Chromium
	SCREENSHOTS=1 $(BIN)/pytest -n 0 tgn_assets_tests/e2e

reference: $(READY)  ## docs/reference.md anew, from the code
	$(BIN)/python -m tgn_assets.reference > docs/reference.md

clean:  ## removes the environment; TGN_HOME stays
	rm -rf .venv .samplers
