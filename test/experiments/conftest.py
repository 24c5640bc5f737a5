"""A workplace of made-up data and a worker without a model."""

from __future__ import annotations

import pytest
from made_up import FakeWorker, data_set

from ifailsense_ros.experiments.cells import all_cells
from ifailsense_ros.experiments.opening import Chosen
from ifailsense_ros.experiments.runner import Runner
from ifailsense_ros.experiments.state import Workplace
from ifailsense_ros.train.recipes import RECIPES


@pytest.fixture
def place(tmp_path):
    for name in ("training", "smf", "failures", "unseen"):
        data_set(tmp_path / "data" / name)
    return Workplace.of(tmp_path / "data", tmp_path / "out", all_cells(RECIPES), RECIPES)


@pytest.fixture
def worker(place):
    return FakeWorker(place)


@pytest.fixture
def chosen(tmp_path):
    return Chosen(tmp_path / "docs" / "results" / "chosen.csv", uncommitted=True)


@pytest.fixture
def said():
    return []


@pytest.fixture
def runner(place, chosen, worker, said):
    return Runner(place, chosen, worker, said.append)
