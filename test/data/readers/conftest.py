"""A simulated episode, for the round trips through every format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from ifailsense_ros.data.rosbag import ImageRecorded, InstructionRecorded, read_events

DEMO = Path(__file__).resolve().parents[3] / "bags" / "demo"


@dataclass(frozen=True, eq=False)
class Recorded:
    """What there is to export: pictures of both PoV at every stamp, what was asked, the label."""

    stamps_ns: tuple[int, ...]
    views: np.ndarray  # uint8 RGB (steps, PoV, H, W, 3)
    instruction: str
    task: str
    category: str
    kind: str
    success: bool


def read_demo(name: str, every: int) -> Recorded:
    """One of the demo's episodes, each so many time steps one."""
    events = list(read_events(DEMO / name))
    images = [e for e in events if isinstance(e, ImageRecorded)]
    exo = [e for e in images if e.pov == 0][::every]
    gripper = [e for e in images if e.pov == 1][::every]
    truth = yaml.safe_load((DEMO / name / "truth.yaml").read_text())
    return Recorded(
        stamps_ns=tuple(e.stamp_ns for e in exo),
        views=np.stack(
            [[e.picture.decode() for e in pair] for pair in zip(exo, gripper, strict=True)]
        ),
        instruction=next(e.text for e in events if isinstance(e, InstructionRecorded)),
        task=truth["performed_task"],
        category=truth["category"],
        kind=truth["kind"],
        success=truth["truth"] == "success",
    )


@pytest.fixture(scope="session")
def simulated() -> Recorded:
    """A success."""
    return read_demo("test-00-success", every=4)


@pytest.fixture(scope="session")
def simulated_drop() -> Recorded:
    """A control failure."""
    return read_demo("test-04-drop", every=4)
