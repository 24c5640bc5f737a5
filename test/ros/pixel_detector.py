"""A detector whose votes change with every pixel of the montage and every letter of the prompt.

For the test that the live node and the offline path see the same; imported by the node's worker
process and by the test.
"""

from __future__ import annotations

import sys
import zlib
from dataclasses import replace

from ifailsense_ros.core.arbitration import arbitrate
from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.prompt import build_prompt
from ifailsense_ros.core.verdict import Judgement, Vote, VoteValue

CONFIG = bare_config(
    "pixels", MontageSettings(4, 2, 84, 84), prompt="<image> evaluate en {instruction}"
)


class PixelDetector:
    """Votes from checksums."""

    model_id = "pixels@0"
    config = CONFIG

    def judge(self, episode: Episode) -> Judgement:
        """Each voter's p_success is a checksum of the montage, the prompt and its own number."""
        m = CONFIG.montage
        geometry = MontageGeometry(m.num_pov, m.num_keyframes, m.cell_height, m.cell_width)
        content = compose(episode, geometry).tobytes()
        content += build_prompt(episode.instruction, CONFIG.prompt).encode()
        votes = []
        for voter, weight in (("fs:0", 1.0), ("fs:1", 1.0), ("fs:2", 1.0), ("vlm", 2.0)):
            p = zlib.crc32(content + voter.encode()) / 2**32
            value = VoteValue.SUCCESS if p > 0.5 else VoteValue.FAIL
            votes.append(Vote(voter, value, p, weight))
        return arbitrate(votes, CONFIG.abstain_rule)


def make(device: str = "auto", shuffle_seed: int | None = None) -> PixelDetector:
    """What the node's `detector` parameter names."""
    return PixelDetector()


class Contrary(PixelDetector):
    """Judges another instruction."""

    def judge(self, episode: Episode) -> Judgement:
        """As of its parent."""
        return super().judge(replace(episode, instruction=f"not {episode.instruction}"))


def make_two_faced(device: str = "auto", shuffle_seed: int | None = None) -> PixelDetector:
    """Another detector in the node's worker process than offline: what a replay must find."""
    spec = sys.modules["__main__"].__spec__
    live = spec is not None and spec.name == "ifailsense_ros.model.worker"
    return Contrary() if live else PixelDetector()
