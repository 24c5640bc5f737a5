"""What a detector said, or says, of an episode: for those who ask, after they have looked."""

from __future__ import annotations

import math
import os
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any, Protocol

from ifailsense_ros.annotate.episodes import Found
from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.verdict import Outcome, Reason, VoteValue
from ifailsense_ros.evaluate.labels import bare_path


class Verdicts(Protocol):
    """Where verdicts come from."""

    def of(self, found: Found) -> list[dict[str, Any]]:
        """What is shown: one dict a detector, with `detector`, `verdict`, `p_success`, `detail`
        and `votes`; empty where nothing is known.

        Raises:
            IFailSenseError: it cannot be judged.
        """
        ...


class NoVerdicts:
    """Nobody was asked."""

    def of(self, found: Found) -> list[dict[str, Any]]:
        """Nothing."""
        return []


class KeptVerdicts:
    """Those of a results folder that `ifailsense evaluate` wrote.

    Raises:
        DataError: it is none.
    """

    def __init__(self, folder: Path) -> None:
        from ifailsense_ros.evaluate.results import read_results

        results, _ = read_results(folder)
        self._by_key: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for r in results:
            votes = zip(r.sources, r.votes, strict=True)
            self._by_key[_place(r.path), r.key].append(
                _said(r.detector, r.outcome, r.reason, r.detail, r.p_success, votes)
            )

    def of(self, found: Found) -> list[dict[str, Any]]:
        """The verdicts of all detectors of the folder."""
        return self._by_key.get((_place(found.path), found.key), [])


class FreshVerdicts:
    """A detector's, which is loaded at the first question.

    Args:
        spec: as of `evaluate.baselines.load.open_detector`.
    """

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._detector: Detector | None = None
        self._mutex = threading.Lock()

    def of(self, found: Found) -> list[dict[str, Any]]:
        """The verdict; takes as long as judging does.

        Raises:
            CheckpointError: the detector cannot be loaded.
            ConfigError: there is none of that name, or a package of its is missing.
            DataError: the episode has too few keyframes or cameras for it.
        """
        with self._mutex:
            if self._detector is None:
                self._detector = self._load()
            montage = self._detector.config.montage
            try:
                episode = found.record.episode(
                    montage.num_keyframes, montage.num_pov, found.instruction
                )
            except DataError as error:
                raise DataError(f"{self._detector.model_id} cannot judge it: {error}") from None
            j = self._detector.judge(episode)
        votes = [(v.source, v.value) for v in j.votes]
        return [_said(self._detector.model_id, j.outcome, j.reason, j.detail, j.p_success, votes)]

    def _load(self) -> Detector:
        try:
            from ifailsense_ros.evaluate.baselines.load import open_detector

            return open_detector(self._spec)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"--detector {self._spec}: needs {error.name}; pip install {error.name}"
            ) from error


def _said(
    detector: str, outcome: int, reason: int, detail: str, p_success: float, votes: Any
) -> dict[str, Any]:
    why = "" if reason == Reason.NONE else Reason(reason).name
    return {
        "detector": detector,
        "verdict": Outcome(outcome).name,
        "p_success": None if math.isnan(p_success) else round(p_success, 3),
        "detail": ": ".join(part for part in (why, detail) if part),
        "votes": [[source, VoteValue(vote).name.lower()] for source, vote in votes],
    }


def _place(path: str) -> str:
    return os.path.realpath(bare_path(path))
