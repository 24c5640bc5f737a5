"""Detectors that look at nothing: what an accuracy must be better than."""

from __future__ import annotations

from collections.abc import Sequence

from ifailsense_ros.core.checkpoint import CheckpointConfig, MontageSettings
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.verdict import Judgement, Outcome


class ConstantDetector:
    """Says the same of every episode.

    Args:
        outcome: SUCCESS or FAILURE.
        montage: which keyframes it is shown.
    """

    def __init__(self, outcome: Outcome, montage: MontageSettings) -> None:
        self._config = bare_config(f"always-{outcome.name.lower()}", montage)
        self._judgement = Judgement(outcome, p_success=float(outcome is Outcome.SUCCESS))

    @property
    def model_id(self) -> str:
        """See `core.detection.Detector`."""
        return self._config.name

    @property
    def config(self) -> CheckpointConfig:
        """See `core.detection.Detector`."""
        return self._config

    def judge(self, episode: Episode) -> Judgement:
        """See `core.detection.Detector`."""
        return self._judgement

    def judge_batch(self, episodes: Sequence[Episode]) -> list[Judgement]:
        """As `judge`, of each."""
        return [self._judgement] * len(episodes)
