# The commands that people and CI use. Each is a short script in scripts/.
PYTHON ?= python3
export PYTHON

.PHONY: help demo test install lint types tests chaos format serve clean

help:            ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

demo:            ## Start a relay and three volunteers on this machine, and chat
	@scripts/install demo
	@.venv/bin/python -m scripts.demo

test: install lint types tests ## Everything that CI checks

install:         ## Make .venv with all that tests need, Chromium included
	@scripts/install dev
	@scripts/chromium

lint:            ## Style and formatting
	@scripts/lint

types:           ## Types, of Python and of the page
	@scripts/types

tests:           ## All tests
	@scripts/tests

ROUNDS ?= 100
chaos: install   ## Kill volunteers under replies, ROUNDS times
	@.venv/bin/python -m benchmarks.chaos --rounds $(ROUNDS)

format:          ## Format the code
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

serve:           ## Start a relay alone
	@scripts/install demo
	@.venv/bin/python -m relay serve

clean:           ## Remove what was built here
	rm -rf .venv .demo node_modules .pytest_cache .ruff_cache .hypothesis
