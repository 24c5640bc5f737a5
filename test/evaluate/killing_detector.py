"""A detector that takes its process, or the process that began it, along; once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.verdict import Judgement, Outcome
from ifailsense_ros.evaluate.baselines.constant import ConstantDetector

VICTIM, MARK = "TEST_VICTIM", "TEST_MARK"
NEEDLE = "drawer"
"""It happens at the first episode whose instruction says this."""


class Killer(ConstantDetector):
    """Kills `VICTIM` ("worker" or "driver") unless the file `MARK` is there already."""

    def judge(self, episode: Episode) -> Judgement:
        mark = Path(os.environ[MARK])
        if NEEDLE in episode.instruction and not mark.exists():
            mark.touch()
            of_worker = os.environ[VICTIM] == "worker"
            os.kill(os.getpid() if of_worker else os.getppid(), signal.SIGKILL)
            time.sleep(60)  # until it is over
        return super().judge(episode)

    def judge_batch(self, episodes) -> list[Judgement]:
        return [self.judge(episode) for episode in episodes]


def make(device: str, shuffle_seed: int | None) -> Killer:
    return Killer(Outcome.SUCCESS, MontageSettings(4, 2, 28, 28))
