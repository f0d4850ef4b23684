# Run with `make -C <folder>` from anywhere. Everything is built below this folder: .venv, build, out.
root := $(shell cd "$$(dirname "$(strip $(MAKEFILE_LIST))")" && pwd)
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Nodes started from here talk on this machine only unless the caller says otherwise.
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
# A Python of another ROS-wheels environment would hand these down, and ours would load that one's libraries.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

WORKERS ?= 2
PYTEST_ARGS ?=
OUT ?= out/demo
DATA ?=
in_env := cd "$(root)" && . .venv/setup.sh &&

.PHONY: help setup demo play test lint bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' "$(root)/Makefile" | expand -t 16
	@echo "Variables: PYTHON=python3.11  EXTRAS=dev,view  TORCH_INDEX=<URL>  OUT=out/demo  DATA=<recording>  PYTEST_ARGS='-k scene'"

setup:  ## build .venv: PyTorch, the project, ROS 2 (the sourced one, or wheels) and the message types
	@"$(root)/scripts/setup.sh"

demo: setup  ## simulated cameras, the real nodes, objects in out/demo
	@$(in_env) python -m gena3d_ros.demo --out "$(OUT)"

play: setup  ## the same with a recorded RGB-D folder: make play DATA=folder OUT=out/play
	@test -n "$(DATA)" || { echo "make play: name a recorded folder, DATA=..." >&2; exit 2; }
	@$(in_env) python -m gena3d_ros.demo --recording "$(DATA)" --out "$(OUT)"

lint: setup  ## ruff and mypy
	@$(in_env) failed=0; ruff check . || failed=1; ruff format --check . || failed=1; mypy || failed=1; exit $$failed

test: lint  ## lint, then the whole test suite
	@$(in_env) OMP_NUM_THREADS=1 python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

bench: setup  ## timings of the pipeline, stage by stage
	@$(in_env) gena3d bench pipeline

clean:  ## remove everything that the other targets made
	@cd "$(root)" && rm -rf .venv build install log out dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find "$(root)" -name __pycache__ -type d -prune -exec rm -rf {} +
