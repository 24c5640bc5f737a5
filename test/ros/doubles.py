"""Detector doubles for the node's tests. They look at the pixels, and do on demand what real
detectors do to people: fail, hang, die, eat the memory.

Used as parameter `detector:=doubles:load`; this folder is on the path of the tests.
"""

from __future__ import annotations

import os
import signal
import time

from ifailsense_ros.core.checkpoint import (
    AnswerWords,
    BaseModel,
    CheckpointConfig,
    MontageSettings,
)
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import CheckpointError
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Vote, VoteValue


def make_config(num_pov: int = 2, min_keyframes: int = 4) -> CheckpointConfig:
    """Settings of a checkpoint with small cells."""
    return bare_config(
        "double",
        MontageSettings(4, num_pov, 16, 24),
        prompt="<image> evaluate en {instruction}",
        words=AnswerWords(("success",), ("fail",)),
        base=BaseModel("base"),
        min_keyframes=min_keyframes,
    )


class Unreadable(Judgement):
    """The node's process fails to read it."""

    def __reduce__(self):
        return int, ("not a number",)


class Double:
    """SUCCESS if every view of the last keyframe is brighter than in the first one."""

    model_id = "double@0"

    def __init__(self, num_pov: int = 2, min_keyframes: int = 4) -> None:
        self.config = make_config(num_pov, min_keyframes)

    def judge(self, episode: Episode) -> Judgement:
        m = self.config.montage
        for keyframe in episode.keyframes:
            assert len(keyframe.views) == m.num_pov
            for view in keyframe.views:
                assert view.shape == (m.cell_height, m.cell_width, 3)
        command, _, argument = episode.instruction.partition(" ")
        if command == "raise":
            raise RuntimeError("two\nlines of trouble")
        if command == "memory":
            raise MemoryError("no 3 GB left")
        if command == "sleep":
            time.sleep(float(argument))
        if command == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if command == "garble":
            return Unreadable(Outcome.SUCCESS, p_success=1.0)
        if command == "abstain":
            return Judgement.unknown(Reason.VLM_ABSTAINED, "the VLM said 'perhaps'")
        if command == "hesitate":
            return Judgement.unknown(Reason.LOW_CONFIDENCE, "SUCCESS is not sure enough")
        if command == "wonder":
            return Judgement.unknown(Reason.OUT_OF_DISTRIBUTION, "the pictures are unlike any")
        first, last = episode.keyframes[0].views, episode.keyframes[-1].views
        brighter = all(b.mean() > a.mean() for a, b in zip(first, last, strict=True))
        p = 0.9 if brighter else 0.2
        value = VoteValue.SUCCESS if brighter else VoteValue.FAIL
        votes = (Vote("fs:1", value, p, 1.0), Vote("vlm", value, p, 2.0))
        return Judgement(Outcome.SUCCESS if brighter else Outcome.FAILURE, p_success=p, votes=votes)


def load(device: str = "auto", shuffle_seed: int | None = None) -> Double:
    """Two PoV."""
    return Double()


def load_exo_only(device: str = "auto", shuffle_seed: int | None = None) -> Double:
    """One PoV; a single frame is enough."""
    return Double(num_pov=1, min_keyframes=1)


def load_broken(device: str = "auto", shuffle_seed: int | None = None) -> Double:
    """Cannot be loaded."""
    raise CheckpointError("checkpoint /x: model.safetensors has another sha256; fetch it again")


def load_slowly(device: str = "auto", shuffle_seed: int | None = None) -> Double:
    """Takes longer to load than anybody would wait."""
    time.sleep(60.0)
    return Double()
