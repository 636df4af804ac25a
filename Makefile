# run      the notebooks, in order, on handwritten digits
# lab      the notebooks in JupyterLab
# batch    many runs and one table of them
# course   the exercises for nbgrader, and the proof that its grading works
# book     the executed pages as a site
# browser  the notebooks tried in JupyterLab, in Chromium
# verify   the scores of all kept codes again
# versions tests and pages with the oldest and with the newest packages that pyproject.toml allows
# audit    licences of the packages, and their known vulnerabilities
# test     all other checks
# Each sets up what it needs in .venv. Other data or sizes: make run ARGS="-p dataset shapes -p bits 16"
PYTHON ?= python3
BIN := .venv/bin
LARGE := {'websocket_max_message_size': 104857600}# photographs above 10 MB reach the upload button

.PHONY: run lab batch course book browser verify versions audit test strip clean

run: .venv/installed
	@$(BIN)/python tools/run_notebooks.py $(ARGS)

lab: .venv/installed
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks --ServerApp.tornado_settings="$(LARGE)"

batch: .venv/installed-batch
	@$(BIN)/python tools/batch.py $(or $(BATCH),batches/small.yml) $(ARGS)

course: .venv/installed-course
	@OMP_NUM_THREADS=1 $(BIN)/python tools/course.py $(ARGS)

book: .venv/installed-book
	@$(BIN)/python tools/book.py

test: .venv/installed-test
	@$(BIN)/python tools/stages.py $(ARGS)

browser: .venv/installed-browser
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/browser -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

verify: .venv/installed
	@$(BIN)/python tools/verify.py $(ARGS)

versions: .venv/installed-test
	$(BIN)/python -m pip install --quiet uv
	PATH="$(BIN):$$PATH" $(BIN)/python tools/versions.py $(ARGS)

audit: .venv/installed-test
	$(BIN)/python -m pip install --quiet pip-audit
	@$(BIN)/python tools/audit.py $(ARGS)

strip: .venv/installed-test
	@$(BIN)/python tools/stages.py --strip

clean:
	rm -rf .venv build book/_build *.egg-info

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv: a few minutes and a few GB the first time."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/installed-%: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	@touch $@
