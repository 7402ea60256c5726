# Two commands do all the set-up: `make serve` runs the service, `make test` runs the tests.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: serve test test-container check format pictures clean

serve: $(VENV)/.installed-serve  ## Serve the shipped models on http://127.0.0.1:8000, on the CPU
	$(BIN)/glimpse serve

test: $(VENV)/.installed-dev  ## Run the tests
	$(BIN)/pytest

test-container:  ## Build the container image, run it and ask it; needs Docker
	tests/container.sh

check: $(VENV)/.installed-dev  ## Lint, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

pictures: $(VENV)/.installed-dev  ## Make the documents' pictures with the service that runs on port 8000
	$(BIN)/python docs/make_pictures.py

clean:  ## Remove what the other commands made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Glimpse needs 3.11 to 3.13: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed-serve: $(VENV)/bin/python pyproject.toml
	@echo "installing the service, which takes about a minute"
	$(PIP) --editable '.[cpu]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing all that training and the tests need, which takes some minutes"
	$(PIP) --constraint constraints.txt --editable '.[cpu,train,dev]'
	touch $@ $(VENV)/.installed-serve
