"""Data sets of made-up episodes, and a detector that answers by rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ifailsense_ros.core.arbitration import arbitrate
from ifailsense_ros.core.checkpoint import CheckpointConfig, MontageSettings
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.verdict import Judgement, Reason, Vote, VoteValue
from ifailsense_ros.data.build import BuildSettings, build
from ifailsense_ros.data.episode_store import EpisodeRow, shard_path, write_shard
from ifailsense_ros.data.manifest import DataSet

SECOND = 10**9
COLOURS = ("red", "blue", "pink")
GENERATOR = "7"


def config(num_keyframes: int = 4, num_pov: int = 2, name: str = "rule") -> CheckpointConfig:
    """Settings of the detector by rule."""
    montage = MontageSettings(num_keyframes, num_pov, 14, 14)
    return bare_config(name, montage, min_keyframes=1, hooked_layers=(1, 2, 3))


@dataclass
class RuleDetector:
    """Says success where the instruction names the colour of the last picture's block; the first
    FS block always says success, and "kindly" makes the VLM abstain.
    """

    config: CheckpointConfig = field(default_factory=config)
    stop_after: int | None = None
    asked: list = field(default_factory=list)

    @property
    def model_id(self) -> str:
        return self.config.model_id

    def judge(self, episode):
        return self.judge_batch([episode])[0]

    def judge_batch(self, episodes):
        out = []
        for episode in episodes:
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(episode)
            m = self.config.montage
            assert len(episode.keyframes) == m.num_keyframes and episode.num_pov == m.num_pov
            seen = round(float(episode.keyframes[-1].views[0].mean()) / 60) - 1
            named = [c in episode.instruction for c in COLOURS]
            if not any(named):
                out.append(Judgement.unknown(Reason.NO_INSTRUCTION, "no colour"))
                continue
            p = 0.8 if named.index(True) == seen else 0.2
            votes = [Vote("fs:1", VoteValue.SUCCESS, 0.9, 1.0)]
            value = VoteValue(int(p > 0.5))
            votes += [Vote(f"fs:{k}", value, p, 1.0) for k in (2, 3)]
            if "kindly" in episode.instruction:
                votes.append(Vote("vlm", VoteValue.ABSTAIN, math.nan, 2.0))
            else:
                votes.append(Vote("vlm", value, p, 2.0))
            out.append(arbitrate(votes, self.config.abstain_rule))
        return out


def picture(colour: int, size: int = 16) -> bytes:
    """A grey picture whose brightness stands for the colour of the block."""
    pixels = np.full((size, size, 3), 60 * (colour + 1), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def row(split: str, index: int, word: str = "lift") -> EpisodeRow:
    """An expert that lifted the block of colour index % 3; the next colour is the wrong one."""
    right, wrong = index % 3, (index + 1) % 3
    tasks = [f"lift_{c}_block_table" for c in COLOURS]
    # Pictures differ between episodes in a corner that does not change the colour.
    rng = np.random.default_rng((index, *split.encode()))
    pixels = np.full((16, 16, 3), 60 * (right + 1), np.uint8)
    pixels[0, 0] = rng.integers(0, 255, 3)
    image = cv2.imencode(".png", pixels)[1].tobytes()
    return EpisodeRow(
        split=split,
        index=index,
        attempt=0,
        task=tasks[right],
        negative_task=tasks[wrong],
        category="lifting",
        contrast=("colour",),
        phrasing=index % 2,
        instruction=f"{word} the {COLOURS[right]} block way {index % 2} {split}",
        negative_instruction=f"{word} the {COLOURS[wrong]} block way {index % 2} {split}",
        outcomes={task: 1 if task == tasks[right] else -1 for task in tasks},
        feasible=tuple(tasks),
        duration_s=3.0,
        stamps_ns=(0, SECOND, 2 * SECOND, 3 * SECOND),
        images=(image,) * 8,
        states=np.zeros((2, 3), np.float32),
        generator_version=GENERATOR,
    )


def failure(twin: EpisodeRow, kind: str) -> EpisodeRow:
    """A failure beside it: another block's brightness, so that the rule sees it."""
    other = picture((twin.index + 1) % 3, 17)
    return replace(twin, kind=kind, outcomes=dict.fromkeys(twin.outcomes, -1), images=(other,) * 8)


def write(folder: Path, rows: list[EpisodeRow], shard: int = 4) -> Path:
    """Rows of one split as a store of small shards."""
    for first in range(0, len(rows), shard):
        part = rows[first : first + shard]
        last = part[-1].index + 1
        write_shard(shard_path(folder, rows[0].split, part[0].index, last), part)
    return folder


@pytest.fixture(scope="session")
def smf_store(tmp_path_factory) -> Path:
    """Train, dev and test episodes without a failure."""
    folder = tmp_path_factory.mktemp("stores") / "smf"
    for split, count in (("train", 12), ("dev", 10), ("test", 9)):
        write(folder, [row(split, i) for i in range(count)])
    return folder


@pytest.fixture(scope="session")
def failure_store(tmp_path_factory) -> Path:
    """Six failures of two classes, each beside its twin."""
    kinds = ("incomplete_grasp", "wrong_target_object")
    twins = [row("test", 500_000 + i) for i in range(6)]
    rows = [r for i, t in enumerate(twins) for r in (t, failure(t, kinds[i % 2]))]
    return write(tmp_path_factory.mktemp("stores") / "failures", rows)


@pytest.fixture(scope="session")
def smf_set(smf_store, tmp_path_factory) -> DataSet:
    return build(BuildSettings((f"store:{smf_store}",)), tmp_path_factory.mktemp("sets") / "smf")


@pytest.fixture(scope="session")
def failure_set(failure_store, tmp_path_factory) -> DataSet:
    return build(
        BuildSettings((f"store:{failure_store}",)), tmp_path_factory.mktemp("sets") / "failures"
    )


@pytest.fixture(scope="session")
def rule_detector():
    """`RuleDetector`."""
    return RuleDetector


@pytest.fixture(scope="session")
def rule_config():
    """`config`."""
    return config
