"""What detectors say of a user's own episodes: calibration, and figures before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ifailsense_ros.core.calibration import Calibration, Scores, vote_log_odds
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.smf import Sample
from ifailsense_ros.model.calibration import CALIBRATION_FILE, CalibrationData
from ifailsense_ros.model.checkpoint import LoadedCheckpoint
from ifailsense_ros.model.detector import MAX_BATCH, FailSenseDetector, Measured
from ifailsense_ros.train.calibration_fits import (
    fit_guard,
    fit_temperatures,
    guard_settings,
    scaled,
)
from ifailsense_ros.train.own_data import TRAIN, VALIDATION, Montages

GUARD_FROM = 50
"""Validation montages from which on there is a guard: with fewer it would refuse too many."""

Measure = Callable[[Sequence[bool], Sequence[int], Sequence[str]], dict]
"""Labels, outcomes and groups -> figures (`evaluate.metrics.summary`)."""


def judged(
    detector: FailSenseDetector, montages: Montages, samples: Sequence[Sample]
) -> list[Measured]:
    """What the detector says, sample by sample."""
    said = []
    for start in range(0, len(samples), MAX_BATCH):
        part = samples[start : start + MAX_BATCH]
        said += detector.measure_batch([montages.episode(s.index, s.instruction) for s in part])
    return said


def calibration_of(
    detector: FailSenseDetector,
    montages: Montages,
    parts: dict[str, list[int]],
    asked: tuple[list[Sample], list[Sample]],
    data_hash: str,
) -> tuple[Calibration, CalibrationData]:
    """On the validation episodes, which the blocks did not learn from; the guard's statistics are
    those of the training montages."""
    samples = [*asked[0], *asked[1]]
    measured = [
        (s.success, m)
        for s, m in zip(samples, judged(detector, montages, samples), strict=True)
        if m.logits is not None
    ]
    labels = np.array([y for y, _ in measured], bool)
    if not 0 < labels.sum() < len(labels):
        raise DataError(
            "the validation episodes cannot be judged, so there is nothing to calibrate on; are "
            "the instructions too long for this checkpoint?"
        )
    logits = np.array([m.logits for _, m in measured])
    config = detector.config
    weights = (*config.vote_weights.fs, config.vote_weights.vlm)
    temperatures = fit_temperatures(logits, labels, weights)
    scores = Scores.of(
        labels,
        [m.judgement.outcome for _, m in measured],
        vote_log_odds(scaled(logits, temperatures), weights),
    )
    guard = settings = None
    if len(parts[VALIDATION]) >= GUARD_FROM:
        cells = {name: _cells(detector, montages, parts[name]) for name in (TRAIN, VALIDATION)}
        guard = fit_guard(cells[TRAIN])
        if guard is not None:
            settings = guard_settings(guard, cells[VALIDATION], len(cells[TRAIN]))
    calibration = Calibration(
        data_hash=data_hash,
        split=VALIDATION,
        failures=len(scores.failures),
        successes=len(scores.successes),
        temperatures=temperatures,
        file=CALIBRATION_FILE,
        guard=settings,
    )
    return calibration, CalibrationData(scores, guard)


def _cells(detector: FailSenseDetector, montages: Montages, indices: Sequence[int]) -> np.ndarray:
    """What the guard looks at, (m, N, T, d)."""
    parts = [indices[i : i + MAX_BATCH] for i in range(0, len(indices), MAX_BATCH)]
    return np.concatenate(
        [detector.cells_of([montages.episode(i, "") for i in part]) for part in parts]
    )


def held_out_figures(
    before: LoadedCheckpoint,
    after: LoadedCheckpoint,
    montages: Montages,
    asked: tuple[list[Sample], list[Sample]],
    measure: Measure,
) -> dict[str, Any]:
    """Figures on held-out episodes: of the old checkpoint, of it without its guard, of the new."""
    detectors = {"before": FailSenseDetector(before)}
    if before.calibration is not None and before.calibration.guard is not None:
        detectors["before_without_guard"] = FailSenseDetector(before, guard=False)
    detectors["after"] = FailSenseDetector(after)
    found: dict[str, Any] = {}
    for kind, samples in zip(("held_out", "held_out_wrong_instructions"), asked, strict=True):
        if samples:
            labels = [s.success for s in samples]
            groups = [montages.episodes[s.index].group for s in samples]
            found[kind] = {
                name: measure(
                    labels,
                    [int(m.judgement.outcome) for m in judged(detector, montages, samples)],
                    groups,
                )
                for name, detector in detectors.items()
            }
    return found
