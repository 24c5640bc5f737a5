"""What every detector looks like to the tracker, the worker process and the offline path."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.verdict import Judgement


@runtime_checkable
class Detector(Protocol):
    """Judges one frozen episode at a time.

    Attributes:
        model_id: name and short hash of the checkpoint, as in `FailureVerdict.model_id`.
        config: the checkpoint's settings; the montage's geometry and `min_keyframes` among them.
    """

    @property
    def model_id(self) -> str: ...

    @property
    def config(self) -> CheckpointConfig: ...

    def judge(self, episode: Episode) -> Judgement:
        """Judge an episode of `config.montage.num_keyframes` keyframes (paper, Sec. IV-B).

        Out of memory becomes a Judgement with its reason. Exceptions are programming errors or a
        broken machine; the worker turns them into UNKNOWN / DETECTOR_ERROR.
        """
        ...
