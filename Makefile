# make demo   students of the shipped teacher on built-in shapes, in a few minutes on a CPU
# make test   the tests
# make check  style and types
# make docs   the documentation site, in build/site
# make web    the page that `foundry3d view` shows (needs node and npm)
# make commands  docs/command-line.md, the table of commands
# make chaos  attacks: kills, damaged files, hostile options; some minutes
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DOCS_READY := .venv/.docs-ready

.PHONY: demo test check docs web chaos clean commands

demo: $(READY)
	$(BIN)/foundry3d demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

docs: $(DOCS_READY)
	$(BIN)/python website/pages.py build/docs
	$(BIN)/zensical build --strict --clean
	$(BIN)/python website/links.py build/site

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $@

web: edge/web/node_modules/.ready
	cd edge/web && npm run --silent build

edge/web/node_modules/.ready: edge/web/package-lock.json
	cd edge/web && npm ci --no-audit --no-fund --silent
	@touch $@

commands: $(READY)
	$(BIN)/python -c "from pathlib import Path; from foundry3d.cli import with_commands; \
		page = Path('docs/command-line.md'); page.write_text(with_commands(page.read_text()))"

chaos: $(READY)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m chaos $(CHAOS)

check: $(READY)
	$(BIN)/ruff check foundry3d tests examples benchmarks edge website
	$(BIN)/ruff format --check foundry3d tests examples benchmarks edge website
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "foundry3d needs Python 3.11 or newer; run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(READY)

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .cache edge/web/node_modules edge/web/dist
