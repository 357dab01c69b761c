# One command each for a demo, the tests and the checks. `make help` lists them.
PYTHON_IN_VENV := .venv/bin/python
SOURCES := pyproject.toml constraints.txt scripts/make_venv.sh
BROWSER ?= yes
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo setup test format format-check lint types screenshot clean

help:
	@echo "make demo                  open notebooks/quickstart.ipynb in JupyterLab; Ctrl+C ends it"
	@echo "make demo BROWSER=no       the same, but only print the address"
	@echo "make test                  run every test, in a real kernel and a real browser too"
	@echo "make test ARGS='-k lr -x'  pass arguments to pytest; ARGS='-n 0' runs them one by one"
	@echo "make format lint types     format the code; lint it; check its types"
	@echo "make format-check          say what 'make format' would change"
	@echo "make screenshot            draw docs/dashboard-light.png and docs/dashboard-dark.png anew"
	@echo "make setup                 only make .venv, with all that tests and checks need"
	@echo "make clean                 remove .venv and everything built"
	@echo "PYTHON=/path/to/python     with any of them: the Python (3.11 or later) that .venv is made with"

.venv/demo.stamp: $(SOURCES)
	@sh scripts/make_venv.sh demo
	@touch $@

.venv/dev.stamp: $(SOURCES)
	@sh scripts/make_venv.sh dev
	@touch $@ .venv/demo.stamp

setup: .venv/dev.stamp

demo: .venv/demo.stamp
	@$(PYTHON_IN_VENV) -m scripts.demo --browser=$(BROWSER)

test: .venv/dev.stamp
	@$(PYTHON_IN_VENV) -m scripts.ensure_browser
	@$(PYTHON_IN_VENV) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

format: .venv/dev.stamp
	@$(PYTHON_IN_VENV) -m ruff format .
	@$(PYTHON_IN_VENV) -m ruff check --fix-only --select I .

format-check: .venv/dev.stamp
	@$(PYTHON_IN_VENV) -m ruff format --check .

lint: .venv/dev.stamp
	@$(PYTHON_IN_VENV) -m ruff check .

types: .venv/dev.stamp
	@$(PYTHON_IN_VENV) -m mypy

screenshot: .venv/dev.stamp
	@$(PYTHON_IN_VENV) -m scripts.ensure_browser
	@$(PYTHON_IN_VENV) -m scripts.screenshot

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
