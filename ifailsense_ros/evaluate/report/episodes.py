"""Rows of one or several results folders, brought together episode by episode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.data.records import Problem
from ifailsense_ros.evaluate.results import Result


@dataclass(frozen=True)
class JudgedEpisode:
    """One instruction in one episode, and what each detector said of it.

    Attributes:
        number: from 1, in the order of the rows.
        first: the first row about it: where it is, what it is about, and its label.
        results: by detector; some may lack it.
    """

    number: int
    first: Result
    results: Mapping[str, Result]

    @property
    def label(self) -> bool | None:
        """Whether the instruction was carried out; None: not known."""
        return self.first.label

    @property
    def duration_s(self) -> float:
        """From START to END; NaN where the stamps are not known."""
        span = self.first.end_ns - self.first.start_ns
        return span / 1e9 if span > 0 else math.nan

    @property
    def differs(self) -> bool:
        """Whether two detectors said different things."""
        return len({r.outcome for r in self.results.values()}) > 1

    def right(self, detector: str) -> bool | None:
        """Whether a detector's verdict is true (UNKNOWN is not); None: label not known."""
        if self.label is None:
            return None
        wanted = Outcome.SUCCESS if self.label else Outcome.FAILURE
        return self.results[detector].outcome == wanted


@dataclass
class Merged:
    """All rows.

    Attributes:
        detectors: in the order in which they appear.
        episodes: in the order of their first row.
        problems: rows that were there twice, and labels that contradict each other.
    """

    detectors: list[str] = field(default_factory=list)
    episodes: list[JudgedEpisode] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def of(self, detector: str) -> list[JudgedEpisode]:
        """The episodes that a detector judged."""
        return [e for e in self.episodes if detector in e.results]


def merge(folders: Sequence[tuple[str, Iterable[Result]]]) -> Merged:
    """Bring rows together that are about the same episode and instruction.

    Args:
        folders: name and rows of each results folder. Of a row that is in two of them the first
            counts, and so does an episode's first label; both are told as problems, once a folder.
    """
    merged = Merged()
    found: dict[tuple[str, str, str], dict[str, Result]] = {}
    for name, rows in folders:
        twice = contradictions = 0
        for row in rows:
            if row.detector not in merged.detectors:
                merged.detectors.append(row.detector)
            results = found.setdefault((row.path, row.key, row.instruction), {})
            if row.detector in results:
                twice += 1
                continue
            if results and next(iter(results.values())).label != row.label:
                contradictions += 1
            results[row.detector] = row
        if twice:
            merged.problems.append(
                Problem(name, f"{twice} rows are in an earlier folder as well; those count")
            )
        if contradictions:
            merged.problems.append(
                Problem(
                    name,
                    f"{contradictions} rows have another label than an earlier row about the same "
                    "episode; the earlier label counts",
                )
            )
    merged.episodes = [
        JudgedEpisode(number, next(iter(results.values())), results)
        for number, results in enumerate(found.values(), start=1)
    ]
    return merged


def worth_showing(episodes: Sequence[JudgedEpisode], most: int) -> list[JudgedEpisode]:
    """At most so many episodes, in their order: those that were not judged right or on which
    detectors differ come before the others.
    """

    def dull(episode: JudgedEpisode) -> bool:
        return not episode.differs and all(episode.right(name) for name in episode.results)

    first = sorted(episodes, key=dull)[:most]
    return sorted(first, key=lambda episode: episode.number)
