"""From the voters' logits to a judgement: votes, arbitration, the guard, calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from ifailsense_ros.core.arbitration import VLM_SOURCE, arbitrate, vlm_is_decisive
from ifailsense_ros.core.calibration import (
    Limits,
    calibrated,
    check_rates,
    sigmoid,
    vote_log_odds,
)
from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.verdict import Judgement, Reason, Vote, VoteValue
from ifailsense_ros.model.calibration import CalibrationData
from ifailsense_ros.model.vlm import Answer


@dataclass(frozen=True, eq=False)
class Measured:
    """A judgement, and what it was made from; the latter is what calibration needs.

    Attributes:
        judgement: of the episode.
        logits: (K + 1,) float64 of the FS blocks and the VLM, raw; NaN where one has no say. None
            where there was no pass.
        cells: (N, T, d) float32 from `cell_features`; None where there was no pass.
    """

    judgement: Judgement
    logits: np.ndarray | None = None
    cells: np.ndarray | None = None


class Decision:
    """What a checkpoint's settings make of logits.

    Where the pass can stop at the deepest hook, a VLM that could not change the outcome has no say:
    not in p_success and not in calibration, whether it was run or not. So a verdict is the same
    with and without the short-circuit, and error rates that were calibrated with one are kept with
    the other.

    Args:
        config: of the checkpoint.
        calibration: of the checkpoint, or None.
        can_stop: whether the pass can stop at the deepest hook.
        max_missed_failures, max_false_alarms, guard: see `FailSenseDetector`.

    Raises:
        ConfigError: a rate that the checkpoint's calibration cannot promise.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        calibration: CalibrationData | None,
        *,
        can_stop: bool,
        max_missed_failures: float | None = None,
        max_false_alarms: float | None = None,
        guard: bool = True,
    ) -> None:
        self._config, self._can_stop, self._guards = config, can_stop, guard
        rates = (max_missed_failures, max_false_alarms)
        check_rates(config.calibration, config.model_id, *rates)
        self._limits, self._guard = Limits(), None
        if calibration is not None:
            self._limits = Limits.of(calibration.scores, *rates)
            self._guard = calibration.guard

    @property
    def is_guarded(self) -> bool:
        """Whether pictures unlike any in training are UNKNOWN."""
        return self._guards and self._guard is not None

    def wants_vlm(self, fs_logits: torch.Tensor) -> list[int]:
        """Rows of (B, K) whose outcome the VLM could still change."""
        if not self._can_stop:
            return list(range(len(fs_logits)))
        return [i for i, row in enumerate(fs_logits) if self._is_open(row)]

    def distances(self, cells: np.ndarray) -> list[float]:
        """Of the montages' cells (B, N, T, d) from those of training; NaN without a guard."""
        if self._guard is None:
            return [math.nan] * len(cells)
        return self._guard.distances(cells).tolist()

    def judge(
        self, fs_logits: torch.Tensor, answer: Answer | None, distance: float
    ) -> tuple[Judgement, np.ndarray]:
        """One episode's judgement, and the logits (K + 1,) that it rests on.

        Args:
            fs_logits: (K,).
            answer: of the VLM; None where it was not run.
            distance: from `distances`.
        """
        c, weights = self._config, self._config.vote_weights
        has_say = answer is not None and (not self._can_stop or self._is_open(fs_logits))
        logits = np.array([*fs_logits.tolist(), answer.logit if has_say else math.nan])
        shown = [*fs_logits.sigmoid().tolist(), answer.p_success if has_say else math.nan]
        scaled = logits
        if c.calibration is not None:
            degrees = c.calibration.temperatures
            scaled = logits / [*degrees.fs, degrees.vlm]
            shown = sigmoid(scaled).tolist()
        values = [*self._fs_values(fs_logits), answer.value if has_say else VoteValue.NOT_RUN]
        sources = [*(f"fs:{layer}" for layer in c.hooked_layers), VLM_SOURCE]
        parts = zip(sources, values, shown, [*weights.fs, weights.vlm], strict=True)
        judgement = arbitrate([Vote(*part) for part in parts], c.abstain_rule)
        if answer is not None and not has_say:
            judgement = self._with_answer(judgement, answer)
        return self._checked(judgement, scaled, distance), logits

    def _checked(self, judgement: Judgement, scaled: np.ndarray, distance: float) -> Judgement:
        """The guard, then what the calibration makes of the judgement."""
        c, weights = self._config, self._config.vote_weights
        judgement = replace(judgement, montage_distance=distance)
        if c.calibration is None or judgement.reason is Reason.DETECTOR_ERROR:
            return judgement
        if self.is_guarded:
            limit = c.calibration.guard.threshold
            if not distance <= limit:
                text = (
                    "the pictures are unlike those the checkpoint was trained on: distance "
                    f"{distance:.3g}, where at most {limit:.3g} is like them"
                )
                unknown = Judgement.unknown(Reason.OUT_OF_DISTRIBUTION, text, judgement.votes)
                return replace(unknown, montage_distance=distance)
        odds = float(vote_log_odds(scaled, [*weights.fs, weights.vlm]))
        judgement = calibrated(judgement, odds, c.calibration.temperatures.vote, self._limits)
        return replace(judgement, montage_distance=distance)

    def _with_answer(self, judgement: Judgement, answer: Answer) -> Judgement:
        """The same judgement, with what the VLM said although nobody had to ask it."""
        p = answer.p_success
        if self._config.calibration is not None:
            p = float(sigmoid(answer.logit / self._config.calibration.temperatures.vlm))
        vote = replace(judgement.votes[-1], value=answer.value, p_success=p)
        return replace(judgement, votes=(*judgement.votes[:-1], vote))

    def _fs_values(self, fs_logits: torch.Tensor) -> list[VoteValue]:
        return [
            VoteValue.SUCCESS if p > 0.5 else VoteValue.FAIL for p in fs_logits.sigmoid().tolist()
        ]

    def _is_open(self, fs_logits: torch.Tensor) -> bool:
        weights = self._config.vote_weights
        votes = [
            Vote("fs", value, math.nan, weight)
            for value, weight in zip(self._fs_values(fs_logits), weights.fs, strict=True)
        ]
        return vlm_is_decisive(votes, weights.vlm)
