# Two commands are enough: make chat, and make test. Both set up what they need in .venv, once.

PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help chat dates test lint format docs clean

help:
	@echo "make chat     talk with the bot that comes along; no PyTorch is needed"
	@echo "make dates    train a small model on dates for a minute, then talk with it"
	@echo "make test     everything a change must pass: ruff, pyright, pytest"
	@echo "make lint     ruff and pyright alone"
	@echo "make format   let ruff put the code in form"
	@echo "make docs     write docs/cli.md anew from the help pages"
	@echo "make clean    remove .venv and caches; data and runs stay"

# Standard input belongs to the conversation, standard output to its answers: the steps before it get neither.
chat: .venv/.stamp
	@.venv/bin/antiphon chat

dates: .venv/.train.stamp
	@[ -f data/dates/train.tsv ] || { echo "writing dates to learn from: data/dates" >&2; \
		.venv/bin/antiphon data dates --out data/dates </dev/null >/dev/null; }
	@if [ -f runs/dates/model.safetensors ] && { [ ! -f runs/dates/state.safetensors ] \
			|| tail -n 1 runs/dates/log.jsonl | grep -q '"finished": true'; }; then :; \
	elif [ -f runs/dates/state.safetensors ]; then \
		echo "going on with the model that was begun: runs/dates" >&2; \
		.venv/bin/antiphon train data/dates --out runs/dates --minutes 1 --resume </dev/null >&2; \
	else \
		echo "training a small model that reads dates, for a minute: runs/dates" >&2; \
		rm -rf runs/dates; \
		.venv/bin/antiphon train data/dates --out runs/dates --preset dates --minutes 1 </dev/null >&2; \
	fi
	@echo 'write a date in some language, such as "3 de mayo de 1979"' >&2
	@.venv/bin/antiphon chat runs/dates

# Two processes of one thread each: a thread that waits for another at every step would take its core from the tests beside it.
test: lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive .venv/bin/pytest --numprocesses 2 --dist worksteal

lint: .venv/.dev.stamp
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright

format: .venv/.dev.stamp
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

docs: .venv/.dev.stamp
	.venv/bin/python docs/make_cli.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
	find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# All installations are editable, so a change of the code needs no second one.

.venv/.stamp: pyproject.toml | .venv/bin/python
	@echo "installing antiphon into .venv (half a minute)" >&2
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable . </dev/null >&2
	@touch $@

.venv/.train.stamp: pyproject.toml | .venv/bin/python
	@echo "installing antiphon and what it needs to learn into .venv (PyTorch is large: a minute or so)" >&2
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[train]' </dev/null >&2
	@touch .venv/.stamp $@

.venv/.dev.stamp: pyproject.toml | .venv/bin/python
	@echo "installing antiphon and the tools of its tests into .venv (PyTorch is large: a minute or so)" >&2
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' </dev/null >&2
	@touch .venv/.stamp .venv/.train.stamp $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null \
		|| { echo "error: Antiphon needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
