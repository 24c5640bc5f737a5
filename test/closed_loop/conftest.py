"""A stage whose camera needs no OpenGL, and a detector that says what it is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for stand_ins.py


@pytest.fixture(scope="session")
def stage() -> Any:
    """One world for all tests; its pictures have the height of the red block as their grey."""
    pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")
    from stand_ins import GreyCamera

    from ifailsense_ros.closed_loop.scenes import Stage
    from ifailsense_ros.closed_loop.settings import load_settings

    made = Stage(load_settings(), pictures=False)
    made.camera = GreyCamera()
    return made
