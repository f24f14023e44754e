# Each command of the book; `make help` lists them.
PYTHON ?= python3
PY := .venv/bin/python
# MXNet's last release wants this old one; only `make mxnet-record` needs it.
PYTHON38 ?= python3.8
# Tests run in a process a core; each takes up to two gigabytes.
SPREAD = -n auto --maxprocesses 4
# A Python named on the command line wins over the one .venv was made with.
ENVIRONMENT = $(PYTHON) tools/environment.py \
  $(if $(filter file,$(origin PYTHON)),--keep)

.DEFAULT_GOAL := help
# The steps share .venv, _build and the processor: one after the other.
.NOTPARALLEL:

.PHONY: help
help: ## list these commands
	@echo 'make COMMAND, where COMMAND is one of'
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | \
	  awk -F ':.*## ' '{ printf "  %-13s %s\n", $$1, $$2 }'
	@echo 'PYTHON=python3.13 picks another Python for .venv.'

.PHONY: env
env: ## make .venv and install the requirements (done once)
	@command -v $(PYTHON) >/dev/null || { echo \
	  'No $(PYTHON) here. Install Python 3.11 to 3.13 (Debian, Ubuntu:' \
	  'sudo apt install python3 python3-venv),' \
	  'or name one: make book PYTHON=python3.12' >&2; exit 1; }
	@$(ENVIRONMENT)

.PHONY: book
book: env ## build the pages from the stored outputs (about a minute)
	@$(PY) tools/build.py

.PHONY: test
test: env lint book unit notebooks browser ## check everything (15 to 30 minutes)
	@echo 'All checks passed.'

.PHONY: lint
lint: env ## check the style of package, tools, tests and notebooks
	@echo '== style'
	@$(PY) -m ruff check --no-cache .

.PHONY: unit
unit: env ## run the tests of the package and of the book's sources
	@echo '== tests'
	@$(PY) -m pytest $(SPREAD) --dist loadfile --no-loadscope-reorder tests \
	  --ignore=tests/browser

.PHONY: notebooks
notebooks: env ## run every notebook, compare with its stored outputs
	@echo '== notebooks, run again and compared (several minutes)'
	@$(PY) -m pytest -p tools.nbval_book $(SPREAD) --dist loadfile \
	  --no-loadscope-reorder book

.PHONY: browser
browser: book ## look at the pages in Chromium: figures, links, weight, axe
	@echo '== pages in a browser'
	@$(PY) -m pytest $(SPREAD) tests/browser

.PHONY: pdf
pdf: book ## print the book as one PDF, with Chromium
	@$(PY) tools/pdf.py

.PHONY: figures
figures: env ## write the moving figures' data and still pictures anew
	@$(PY) tools/figures.py

.PHONY: colab
colab: env ## write the notebooks as Colab can run them
	@$(PY) tools/colab.py

.PHONY: shuffle
shuffle: env ## run all notebooks in random order, twice, and at once
	@$(PY) tools/shuffle.py $(NOTEBOOK)

.PHONY: execute
execute: env ## run all notebooks, or NOTEBOOK=path, and store the outputs
	@$(PY) tools/execute.py $(NOTEBOOK)

.PHONY: lab
lab: env ## open the book in JupyterLab
	@$(PY) -m jupyterlab --notebook-dir=book

.PHONY: slides
slides: env ## make slides of the chapters, shown without a network
	@$(PY) tools/slides.py

# Some systems have a NAME in every shell; only the one given here counts.
.PHONY: assignment
assignment: env ## make an nbgrader assignment NAME of EXERCISES in COURSE
	@$(PY) tools/assignment.py $(if $(COURSE),--course '$(COURSE)') \
	  $(if $(filter command line,$(origin NAME)),--name '$(NAME)') $(EXERCISES)

.PHONY: weights
weights: env ## train and measure the shipped weights (hours; resumes)
	@mkdir -p _build/weights
	@set -e; train() { $(PY) -m d2lssd train --recipe $$1 --weights $$2 --exam \
	  $$4 --save $$3/$$1.safetensors \
	  --checkpoint _build/weights/$$1.checkpoint; }; \
	train source none d2lssd/weights; \
	train balanced none d2lssd/weights; \
	train varied balanced _build/weights; \
	train finer _build/weights/varied.safetensors _build/weights; \
	train fitted _build/weights/finer.safetensors _build/weights; \
	train odd _build/weights/fitted.safetensors _build/weights; \
	train worn _build/weights/odd.safetensors _build/weights; \
	train wild _build/weights/worn.safetensors d2lssd/weights \
	  "--precision=0.9 --judge=0.9"; \
	train touching _build/weights/odd.safetensors _build/weights; \
	train crowded _build/weights/touching.safetensors _build/weights; \
	train plain _build/weights/crowded.safetensors d2lssd/weights \
	  --judge=0.992; \
	train heaped _build/weights/worn.safetensors _build/weights; \
	train clear _build/weights/heaped.safetensors d2lssd/weights \
	  "--precision=0.97 --judge=0.988"

.PHONY: experiments
experiments: env ## run the experiments, or ONLY=name (hours; resumes)
	@$(PY) tools/experiments.py $(if $(ONLY),--only $(ONLY))

.PHONY: bench
bench: env ## measure beside the reference library (10 minutes, all quiet)
	@$(PY) tools/bench.py

.PHONY: mxnet-record
mxnet-record: env ## record MXNet's answers anew (with PYTHON38, on x86-64)
	@command -v $(PYTHON38) >/dev/null || { echo \
	  'No $(PYTHON38) here. pyenv, conda or uv provide Python 3.8; then:' \
	  'make mxnet-record PYTHON38=/path/to/python3.8' >&2; exit 1; }
	$(PYTHON38) -m venv .venv-mxnet
	.venv-mxnet/bin/pip install -q -r tests/mxnet_record/requirements.txt
	.venv-mxnet/bin/python tests/mxnet_record/record.py
	$(PY) tests/mxnet_record/compare.py

.PHONY: clean
clean: ## remove what was built, except .venv
	rm -rf _build build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -type d \
	  \( -name __pycache__ -o -name .ipynb_checkpoints \) -print0 | \
	  xargs -0 rm -rf

.PHONY: distclean
distclean: clean ## remove .venv as well
	rm -rf .venv .venv-mxnet
