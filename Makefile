# Every target works on a fresh checkout: whatever needs the environment makes it first, once.

BIN := .venv/bin
# Written by setup.sh when an installation is complete; older than what it was made from, it is made again.
INSTALLED := .venv/.installed
CACHES := .mypy_cache .pytest_cache .ruff_cache .hypothesis

.DEFAULT_GOAL := help
.PHONY: help demo test clocked unclocked setup format wheel constraints clean fresh

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## play the demo recording through the live pipeline, onto the console and a broker of its own
	$(BIN)/python -m stream.live --source demo --mqtt embedded

test: $(INSTALLED) ## lint, check the format and the types, run the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(MAKE) --no-print-directory --jobs 2 --output-sync=target clocked unclocked

# Side by side: those that keep time mostly wait, and go first; the others take what is left of the machine.
clocked: $(INSTALLED)
	$(BIN)/pytest -m clocked

unclocked: $(INSTALLED)
	nice -n 19 $(BIN)/pytest -n 2 -m "not clocked"

setup: $(INSTALLED) ## make the environment (.venv), and nothing else

$(INSTALLED): pyproject.toml constraints.txt scripts/setup.sh
	@bash scripts/setup.sh

format: $(INSTALLED) ## put the code into the format that the tests ask for
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

wheel: $(INSTALLED) ## build dist/mmlatch_live-*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# The header stays. `pip list`, unlike `pip freeze`, names no place that a package was installed from.
constraints: $(INSTALLED) ## pin what is in .venv now in constraints.txt
	{ grep '^#' constraints.txt; $(BIN)/python -m pip list --format=freeze --exclude-editable --exclude pip; } > constraints.new
	mv constraints.new constraints.txt

clean: ## remove what the tools made, but for the environment
	rm -rf build dist *.egg-info $(CACHES)
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +

fresh: ## throw the environment away and make it again
	rm -rf .venv
	$(MAKE) setup
