"""A detector that answers at once, so that the ingest benchmark measures the node alone."""

from __future__ import annotations

from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.verdict import Judgement, Outcome, Vote, VoteValue


class Double:
    """Always SUCCESS; montage as sim-tiny's, so that the node decodes and shrinks as much."""

    model_id = "double@0"
    config = bare_config("double", MontageSettings(4, 2, 84, 84))

    def judge(self, episode: Episode) -> Judgement:
        """SUCCESS, whatever the episode."""
        vote = Vote("fs:1", VoteValue.SUCCESS, 1.0, 1.0)
        return Judgement(Outcome.SUCCESS, p_success=1.0, votes=(vote,))


def load(device: str = "auto", shuffle_seed: int | None = None) -> Double:
    """What the node's parameter `detector` names."""
    return Double()
