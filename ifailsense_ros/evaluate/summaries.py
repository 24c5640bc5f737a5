"""The figures of results: of each detector over all, by task category and by failure class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ifailsense_ros.core.verdict import Outcome, Reason
from ifailsense_ros.data.failure_classes import FAILURE_CLASSES
from ifailsense_ros.evaluate.metrics import RESAMPLES, summary
from ifailsense_ros.evaluate.results import Result

NO_NAME = "(none)"
"""Category or class where the data name none."""


class Judged(NamedTuple):
    """As much of a `Result` as figures need: a million of them fit in memory."""

    label: bool | None
    outcome: int
    reason: int
    cluster: str
    category: str
    kind: str


class Tally:
    """Collects results while they pass by on their way to the disk.

    Attributes:
        count: of the rows so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._rows: dict[str, list[Judged]] = {}
        self._texts: dict[str, str] = {}

    def through(self, rows: Iterable[Result]) -> Iterator[Result]:
        """The same rows."""
        for row in rows:
            # Once each: they repeat in many rows.
            cluster, category, kind = (
                self._texts.setdefault(text, text) for text in (row.cluster, row.category, row.kind)
            )
            judged = Judged(row.label, row.outcome, row.reason, cluster, category, kind)
            self._rows.setdefault(row.detector, []).append(judged)
            self.count += 1
            yield row

    def figures(self, resamples: int = RESAMPLES) -> dict[str, dict]:
        """`figures_of` each detector, by its name."""
        return {name: figures_of(rows, resamples) for name, rows in self._rows.items()}


def figures_of(rows: Sequence[Judged], resamples: int = RESAMPLES) -> dict:
    """All figures of one detector; UNKNOWN is wrong.

    Args:
        rows: that it judged.
        resamples: of the bootstrap.

    Returns:
        `all`: `metrics.summary` of the labelled episodes, None where there are none; `category`:
        the same for each; `failure_class`: for each, of its failures and of the successes of the
        same groups; `unlabelled`: how many there are, by verdict; `unknown`: how many verdicts are
        UNKNOWN, by reason, labelled or not.
    """
    labelled = [row for row in rows if row.label is not None]
    rest = Counter(Outcome(row.outcome).name for row in rows if row.label is None)
    unknown = Counter(Reason(row.reason).name for row in rows if row.outcome == Outcome.UNKNOWN)
    return {
        "all": _summary(labelled, resamples) if labelled else None,
        "category": _by_category(labelled, resamples),
        "failure_class": _by_class(labelled, resamples),
        "unlabelled": {"n": sum(rest.values()), **{o.name: rest[o.name] for o in Outcome}},
        "unknown": dict(sorted(unknown.items())),
    }


def _summary(rows: Sequence[Judged], resamples: int) -> dict:
    labels = [bool(row.label) for row in rows]
    outcomes = [row.outcome for row in rows]
    return summary(labels, outcomes, [row.cluster for row in rows], resamples=resamples)


def _by_category(rows: Sequence[Judged], resamples: int) -> dict[str, dict]:
    groups = _grouped(rows, lambda row: row.category)
    return {name: _summary(groups[name], resamples) for name in sorted(groups, key=place_of_group)}


def _by_class(rows: Sequence[Judged], resamples: int) -> dict[str, dict]:
    failures = _grouped([row for row in rows if not row.label], lambda row: row.kind)
    successes = _grouped([row for row in rows if row.label], lambda row: row.cluster)
    found = {}
    for name in sorted(failures, key=place_of_group):
        clusters = {row.cluster for row in failures[name]}
        beside = [row for cluster in clusters for row in successes.get(cluster, ())]
        found[name] = _summary([*failures[name], *beside], resamples)
        found[name]["failures"] = len(failures[name])
    return found


def _grouped(rows: Iterable[Judged], key: Callable[[Judged], str]) -> dict[str, list[Judged]]:
    groups: dict[str, list[Judged]] = defaultdict(list)
    for row in rows:
        groups[key(row) or NO_NAME].append(row)
    return groups


def place_of_group(name: str) -> tuple[int, str]:
    """Sorts groups: failure classes in their own order, other names, those without one."""
    if name in FAILURE_CLASSES:
        return FAILURE_CLASSES.index(name), name
    return len(FAILURE_CLASSES) + (name == NO_NAME), name
