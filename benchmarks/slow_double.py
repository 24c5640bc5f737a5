"""A detector that takes five seconds over every episode."""

from __future__ import annotations

import time

from benchmarks import ingest_double
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.verdict import Judgement

TAKES_S = 5.0


class Double(ingest_double.Double):
    """Always SUCCESS."""

    def judge(self, episode: Episode) -> Judgement:
        """Sleeps first."""
        time.sleep(TAKES_S)
        return super().judge(episode)


def load(device: str = "auto", shuffle_seed: int | None = None) -> Double:
    """What the node's parameter `detector` names."""
    return Double()
