"""One compiled world for all physics tests; no picture is rendered unless a test says so."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def world() -> Any:
    """A `robot.World`; each test resets it by performing an episode."""
    robot = pytest.importorskip("ifailsense_ros.sim.robot", reason="needs mujoco")
    return robot.World()
