# make demo   watch the monitor judge twelve recorded episodes over real ROS 2
# make test   run the tests
# make data   record the standard simulated data sets into data/ (half an hour; stop and go on at will)
# make sim-tiny  data, then the training of sim-tiny, into runs/sim-tiny (hours; docs/training.md)
# make experiments   train and judge everything in docs/results.md, and write it (many hours; likewise)
# make closed-loop   does a robot that listens to the monitor get more done? (an hour or two; likewise)
#
# They set up what they need in $(VENV), from pinned versions, and nothing outside of it.
#   PYTHON=python3.12   the interpreter to make it with
#   VENV=folder         where
#   DEMO_ARGS="..."     passed to the demo, e.g. DEMO_ARGS=--shuffle-weights
#   EXPERIMENTS_ARGS="..."  passed to the experiments, e.g. EXPERIMENTS_ARGS="--only 'sim-tiny/*'"
#   TRAINERS=1      processes that train sim-tiny; a run goes on with as many as it was begun with
#   CLOSED_LOOP_ARGS="..."  passed to the closed loop, e.g. CLOSED_LOOP_ARGS="--split dev --tasks 20"
#   PYTEST_ARGS="..."   passed to pytest, e.g. PYTEST_ARGS="test/core -k tracker"

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV ?= .venv
DEMO_ARGS ?=
EXPERIMENTS_ARGS ?=
CLOSED_LOOP_ARGS ?=
TRAINERS ?= 2
PYTEST_ARGS ?=

RUN := $(VENV)/bin/python

# A sourced ROS install, or another environment's ROS wheels, would mix with ours.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE RMW_IMPLEMENTATION ROS_DISTRO

.DEFAULT_GOAL := help
.PHONY: help env demo test test-sim data sim-tiny experiments closed-loop lint format lock colcon clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

env:
	@scripts/setup_env.sh $(VENV) $(PYTHON)

demo: env
	@$(RUN) -m ifailsense_ros.demo $(DEMO_ARGS)

test: env
	@$(RUN) -m pytest $(PYTEST_ARGS)

# The simulator's tests: physics only; MUJOCO_GL=egl adds the rendering ones.
test-sim: env
	@$(RUN) -m pip install --disable-pip-version-check --no-input -q -r requirements-sim.lock
	@$(RUN) -m pytest -m sim $(PYTEST_ARGS)

data: env
	@$(RUN) -m pip install --disable-pip-version-check --no-input -q -r requirements-sim.lock
	@PYTHON=$(RUN) scripts/make_data.sh data

sim-tiny: export ACCELERATE_USE_CPU = true
sim-tiny: export OMP_NUM_THREADS = 1
sim-tiny: data
	@$(RUN) -m torch.distributed.run --standalone --nproc-per-node $(TRAINERS) \
		-m ifailsense_ros.train.run --recipe sim-tiny --data data/training --out runs/sim-tiny

experiments: env
	@$(RUN) -m pip install --disable-pip-version-check --no-input -q -r requirements-sim.lock
	@$(RUN) -m ifailsense_ros.cli experiments --data data $(EXPERIMENTS_ARGS)

closed-loop: export MUJOCO_GL ?= egl
closed-loop: export LP_NUM_THREADS = 1
closed-loop: export OMP_NUM_THREADS = 1
closed-loop: env
	@$(RUN) -m pip install --disable-pip-version-check --no-input -q -r requirements-sim.lock
	@$(RUN) -m ifailsense_ros.cli closed-loop --out runs/closed_loop $(CLOSED_LOOP_ARGS)
	@$(RUN) -m ifailsense_ros.cli closed-loop early --out runs/closed_loop_early $(CLOSED_LOOP_ARGS)
	@$(RUN) -m ifailsense_ros.cli closed-loop report --loop runs/closed_loop --early runs/closed_loop_early

lint: env
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m pytest -q test/test_imports.py

format: env
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

# Remake requirements.lock from requirements.in.
lock:
	@scripts/make_lock.sh $(PYTHON)

# Build with colcon against the ROS wheels of a distribution: make colcon DISTRO=kilted
DISTRO ?= jazzy
colcon:
	@scripts/check_colcon.sh $(DISTRO) $(PYTHON)

clean:
	rm -rf $(VENV) build install log out .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
