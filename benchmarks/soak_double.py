"""A detector for the soak: it looks at the pixels, and the instruction can make it misbehave."""

from __future__ import annotations

import os
import signal
import time

from benchmarks import ingest_double
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason


class Double(ingest_double.Double):
    """SUCCESS if the last keyframe is brighter than the first one."""

    def judge(self, episode: Episode) -> Judgement:
        """Does what the first word of the instruction says, if it is one of its commands."""
        command, _, argument = episode.instruction.partition(" ")
        if command == "raise":
            raise RuntimeError("as it was told")
        if command == "memory":
            raise MemoryError("as it was told")
        if command == "abstain":
            return Judgement.unknown(Reason.VLM_ABSTAINED, "as it was told")
        if command == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if command == "sleep":
            time.sleep(float(argument))
        first, last = (episode.keyframes[i].views[0].mean() for i in (0, -1))
        outcome = Outcome.SUCCESS if last > first else Outcome.FAILURE
        return Judgement(outcome, p_success=float(last > first))


def load(device: str = "auto", shuffle_seed: int | None = None) -> Double:
    """What the node's parameter `detector` names."""
    return Double()
