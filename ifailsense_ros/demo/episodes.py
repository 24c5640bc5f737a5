"""The demo's bags and what is known about them: the truth is read here and nowhere else."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import yaml

from ifailsense_ros.core.errors import BagError
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.data.rosbag import BoundaryRecorded, open_bag, read_events

TRUTH_FILE = "truth.yaml"


@dataclass(frozen=True)
class DemoEpisode:
    """One bag with one episode.

    Attributes:
        path: of the bag.
        episode_id: of its START; how a verdict is recognised.
        instruction: as the sidecar says it.
        truth: SUCCESS or FAILURE, from the simulator's state.
        kind: "success", "semantic_misalignment", or a class of failure.
        duration_s: of the recording.
        scene: index of the scene; twins share it.
    """

    path: Path
    episode_id: uuid.UUID
    instruction: str
    truth: Outcome
    kind: str
    duration_s: float
    scene: int = 0

    @property
    def name(self) -> str:
        """Of the bag's folder."""
        return self.path.name


def load_episodes(folder: Path) -> list[DemoEpisode]:
    """The bags in a folder that have a truth beside them: by scene, the success before its twin.

    Raises:
        BagError: no such folder, no such bag in it, or one that cannot be read.
    """
    if not folder.is_dir():
        raise BagError(f"{folder}: no such folder: run the demo in a checkout, or give --bags")
    paths = sorted(p.parent for p in folder.glob(f"*/{TRUTH_FILE}"))
    if not paths:
        raise BagError(f"{folder}: holds no bag with a {TRUTH_FILE}: give the folder of demo bags")
    episodes = [_load(path) for path in paths]
    return sorted(episodes, key=lambda e: (e.scene, e.truth is not Outcome.SUCCESS, e.name))


def _load(path: Path) -> DemoEpisode:
    try:
        truth = yaml.safe_load((path / TRUTH_FILE).read_text(encoding="utf-8"))
        outcome = Outcome[truth["truth"].upper()]
        instruction, kind = str(truth["instruction"]), str(truth["kind"])
        scene = int(truth["seed"]["index"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        text = " ".join(str(error).split())
        raise BagError(
            f"{path / TRUTH_FILE}: not a truth file ({text}): record the bag again"
        ) from error
    with open_bag(path) as bag:
        duration = bag.duration_s
    starts = [
        e.episode_id for e in read_events(path) if isinstance(e, BoundaryRecorded) and e.event == 1
    ]
    if len(starts) != 1 or starts[0] is None:
        raise BagError(f"{path}: a demo bag holds one START with an id, this one {len(starts)}")
    return DemoEpisode(path, starts[0], instruction, outcome, kind, duration, scene)
