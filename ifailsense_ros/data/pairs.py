"""D = {tau, g, y} from the catalog's episodes (paper, Sec. IV-A; rules in DESIGN section 9).

Every expert episode appears with its own instruction (y = 1) and with a wrong one of the same
category (y = 0): the designated one where the record has one, else a drawn one. Failures and the
successes beside them, and episodes that come with a label, keep what they have.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ifailsense_ros.data.catalog import (
    EXPERT_ROLE,
    FAILURE_ROLE,
    GIVEN_ROLE,
    TWIN_ROLE,
    Catalog,
)
from ifailsense_ros.data.contrast import contrast_of
from ifailsense_ros.data.negatives import (
    CUT_SHORT,
    EXTRA,
    INFEASIBLE,
    NO_TWIN,
    NO_WRONG_TASK,
    SURPLUS,
    Quota,
    surplus,
    verdict_on,
    verdict_on_positive,
)
from ifailsense_ros.data.records import UNFINISHED
from ifailsense_ros.data.sentences import collect_sentences, keep_apart

MOST_TASKS = 200
"""A category with more tasks has no table of them: its instructions are free text."""

POSITIVE, SEMANTIC = "positive", "semantic"
"""`kind` of a row with success, and of a wrong instruction; failures have their class."""


@dataclass(frozen=True)
class PairSettings:
    """How pairs are made.

    Attributes:
        seed: of every draw.
        balance: leave out what keeps a task from being asked for equally often with either label.
        infeasible: add a negative that was not possible at the start; it does not count.
        unfiltered: add a negative drawn from the whole category, as without oracle and
            feasibility; it does not count.
        test_phrasings: how many sentences of each task are kept for the test splits alone.
    """

    seed: int = 0
    balance: bool = False
    infeasible: bool = False
    unfiltered: bool = False
    test_phrasings: int = 0


def make_pairs(catalog: Catalog, settings: PairSettings) -> None:
    """Fill the catalog's table of pairs, anew."""
    with catalog.db:
        catalog.db.execute("DELETE FROM pairs")
        catalog.db.execute("DELETE FROM sentences")
        catalog.db.execute(
            "UPDATE episodes SET role = ? WHERE role = ? AND EXISTS (SELECT 1 FROM episodes f "
            "WHERE f.spec = episodes.spec AND f.twin = episodes.key)",
            (TWIN_ROLE, EXPERT_ROLE),
        )
    keep_apart(catalog, settings.test_phrasings, settings.seed)
    collect_sentences(catalog, settings.seed)
    parts = catalog.rows(
        "SELECT DISTINCT source, split FROM episodes WHERE role = ? ORDER BY source, split",
        EXPERT_ROLE,
    )
    for source, split in [tuple(part) for part in parts]:
        pairing = _Pairing(catalog, source, split, settings)
        pairing.run()
        if settings.balance:
            pairing.leave_out_surplus()
    _label_failures(catalog)


@dataclass(frozen=True)
class _Pair:
    """An episode with an instruction: the manifest's columns that are not the episode's."""

    label: int
    kind: str
    asked: str
    instruction: str
    phrasing: int | None
    contrast: tuple[str, ...] = ()
    why: str = ""
    unfiltered: bool = False

    def add_to(self, db: sqlite3.Connection, episode: sqlite3.Row) -> None:
        """Insert it, with what the oracle says of the task asked for."""
        outcomes, feasible = _oracle(episode)
        values: tuple[Any, ...] = (
            episode["id"],
            self.label,
            self.kind,
            self.instruction,
            self.asked,
            self.phrasing,
            "+".join(self.contrast),
            None if feasible is None else int(self.asked in feasible),
            outcomes.get(self.asked),
            int(not self.why),
            self.why,
            int(self.unfiltered),
        )
        db.execute(f"INSERT INTO pairs VALUES ({', '.join('?' * len(values))})", values)


def _oracle(episode: sqlite3.Row) -> tuple[dict[str, int], list[str] | None]:
    """Outcomes and feasible tasks of an episode."""
    feasible = episode["feasible"]
    return json.loads(episode["outcomes"]), None if feasible is None else json.loads(feasible)


class _Pairing:
    """The pairs of one source in one split.

    A category with a table of tasks is drawn from by task; where every instruction is a task of
    its own (DROID), by sentence.
    """

    def __init__(self, catalog: Catalog, source: str, split: str, settings: PairSettings) -> None:
        self._db = catalog.db
        self._catalog = catalog
        self._part = (source, split)
        self._settings = settings
        self._tasks: dict[str, list[str]] = {}
        self._quota = Quota()
        for task, category, owed in catalog.rows(
            "SELECT task, category, SUM(owed) FROM sentences WHERE source = ? AND split = ? "
            "AND category IN (SELECT category FROM sentences WHERE source = ? AND split = ? "
            "GROUP BY category HAVING COUNT(DISTINCT task) <= ?) "
            "GROUP BY task, category ORDER BY task",
            *self._part,
            *self._part,
            MOST_TASKS,
        ):
            self._tasks.setdefault(category, []).append(task)
            self._quota.owed[task] = self._quota.owed.get(task, 0) + owed

    def run(self) -> None:
        """Pair every expert episode."""
        for page in self._catalog.pages(*self._part):
            with self._db:
                for episode in page:
                    self._pair(episode)

    def leave_out_surplus(self) -> None:
        """Mark pairs as not counted until every task is asked for as often with either label.

        Where instructions are free text, sentences were dealt out evenly to begin with.
        """
        from_where = (
            "FROM pairs p JOIN episodes e ON e.id = p.episode WHERE e.source = ? AND e.split = ? "
            "AND p.kind = ? AND p.counted = 1 AND e.category = ?"
        )
        for category in sorted(self._tasks):
            part = (*self._part, SEMANTIC, category)
            counts = {
                (right, wrong): n
                for right, wrong, n in self._catalog.rows(
                    f"SELECT e.task, p.asked_task, COUNT(*) {from_where} GROUP BY 1, 2", *part
                )
            }
            with self._db:
                for (right, wrong), n in surplus(counts).items():
                    self._db.execute(
                        "UPDATE pairs SET counted = 0, why = ? WHERE counted = 1 AND episode IN "
                        f"(SELECT e.id {from_where} AND e.task = ? AND p.asked_task = ? "
                        "ORDER BY e.shuffle DESC, e.id LIMIT ?)",
                        (SURPLUS, *part, right, wrong, n),
                    )

    def _pair(self, episode: sqlite3.Row) -> None:
        negative = self._negative_of(episode)
        why = negative.why if isinstance(negative, _Pair) else negative
        contrast = negative.contrast if isinstance(negative, _Pair) else ()
        right = (episode["task"], episode["instruction"], episode["phrasing"])
        _Pair(1, POSITIVE, *right, contrast, why, self._settings.unfiltered).add_to(
            self._db, episode
        )
        wrong = {negative.instruction: negative} if isinstance(negative, _Pair) else {}
        if self._settings.unfiltered and _oracle(episode) == ({}, None):
            # There was nothing to filter by: the same pair is in both sets.
            wrong = {text: replace(pair, unfiltered=True) for text, pair in wrong.items()}
        for extra in self._extras(episode):
            # The same sentence drawn twice is one pair that belongs to both sets.
            known = wrong.get(extra.instruction, extra)
            wrong[extra.instruction] = replace(
                known, unfiltered=known.unfiltered or extra.unfiltered
            )
        for pair in wrong.values():
            pair.add_to(self._db, episode)

    def _negative_of(self, episode: sqlite3.Row) -> _Pair | str:
        """The pair with the wrong instruction, or why there is none."""
        right, wrong = episode["task"], episode["negative_task"]
        if wrong is not None:
            known = episode["contrast"]
            contrast = tuple(known.split("+")) if known else contrast_of(right, wrong)
            said = (wrong, episode["negative_instruction"], episode["phrasing"])
            return _Pair(0, SEMANTIC, *said, contrast, episode["why"])
        if episode["why"]:
            return str(episode["why"])
        if episode["category"] not in self._tasks:
            return self._any_sentence(episode)
        outcomes, feasible = _oracle(episode)
        allowed = [t for t in self._others(episode) if not verdict_on(t, outcomes, feasible)]
        if not allowed:
            return NO_WRONG_TASK
        task, contrast = self._quota.draw(right, allowed, self._rng(episode, "negative"))
        said = (task, *self._sentence(task, episode["phrasing"], owed=True))
        return _Pair(0, SEMANTIC, *said, contrast)

    def _any_sentence(self, episode: sqlite3.Row) -> _Pair | str:
        """A wrong instruction of a category that has no table of tasks: the most owed sentence."""
        outcomes, feasible = _oracle(episode)
        for task, text, number in self._db.execute(
            "SELECT task, instruction, phrasing FROM sentences "
            "WHERE source = ? AND split = ? AND category = ? ORDER BY owed DESC, tie LIMIT 100",
            (*self._part, episode["category"]),
        ).fetchall():
            if task != episode["task"] and not verdict_on(task, outcomes, feasible):
                self._use(task, text)
                said = (task, text, None if number < 0 else number)
                return _Pair(0, SEMANTIC, *said, contrast_of(episode["task"], task))
        return NO_WRONG_TASK

    def _others(self, episode: sqlite3.Row) -> list[str]:
        return [t for t in self._tasks.get(episode["category"], ()) if t != episode["task"]]

    def _extras(self, episode: sqlite3.Row) -> Iterator[_Pair]:
        """The pairs that do not count, as asked for."""
        if not (self._settings.infeasible or self._settings.unfiltered):
            return
        others = self._others(episode)
        outcomes, feasible = _oracle(episode)
        knows = bool(outcomes) or feasible is not None
        wanted = {
            "infeasible": [t for t in others if verdict_on(t, outcomes, feasible) == INFEASIBLE],
            "unfiltered": others if knows else [],
        }
        for name, tasks in wanted.items():
            if not getattr(self._settings, name) or not tasks:
                continue
            task = tasks[int(self._rng(episode, name).integers(len(tasks)))]
            said = (task, *self._sentence(task, episode["phrasing"], owed=False))
            contrast = contrast_of(episode["task"], task)
            why = verdict_on(task, outcomes, feasible) or EXTRA
            yield _Pair(0, SEMANTIC, *said, contrast, why, name == "unfiltered")

    def _rng(self, episode: sqlite3.Row, purpose: str) -> np.random.Generator:
        words = "\0".join((str(self._settings.seed), purpose, episode["source"], episode["key"]))
        seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:16], "big")
        return np.random.default_rng(seed)

    def _sentence(self, task: str, phrasing: int | None, *, owed: bool) -> tuple[str, int | None]:
        """A sentence for a task: of the same phrasing if there is one, the most owed one first."""
        query = "SELECT instruction, phrasing FROM sentences WHERE source = ? AND split = ? "
        order = "ORDER BY owed DESC, tie LIMIT 1"
        found = None
        if phrasing is not None:
            found = self._db.execute(
                f"{query} AND task = ? AND phrasing = ? {order}", (*self._part, task, phrasing)
            ).fetchone()
        if found is None:
            found = self._db.execute(
                f"{query} AND task = ? {order}", (*self._part, task)
            ).fetchone()
        text, number = found
        if owed:
            self._use(task, text)
        return text, None if number < 0 else number

    def _use(self, task: str, text: str) -> None:
        """Note that a sentence was used as a negative once more."""
        self._db.execute(
            "UPDATE sentences SET owed = owed - 1 "
            "WHERE source = ? AND split = ? AND task = ? AND instruction = ?",
            (*self._part, task, text),
        )


def _label_failures(catalog: Catalog) -> None:
    """Failures, the successes beside them, and episodes that come with a label."""
    twins = (
        "SELECT e.*, t.task AS twin_task, t.outcomes AS twin_outcomes FROM episodes e "
        "LEFT JOIN episodes t ON t.spec = e.spec AND t.key = e.twin AND t.role = ? WHERE e.role = ?"
    )
    with catalog.db:
        for episode in catalog.rows(twins, TWIN_ROLE, FAILURE_ROLE):
            # The twin says what was asked for; the failure's own task may be what it did instead.
            asked = episode["twin_task"] or episode["task"]
            why = verdict_on(asked, _oracle(episode)[0], None)
            if not why and episode["kind"] == UNFINISHED:
                why = CUT_SHORT
            if not why and (
                episode["twin_task"] is None
                or verdict_on_positive(asked, json.loads(episode["twin_outcomes"]))
            ):
                why = NO_TWIN
            _labelled(episode, asked, why).add_to(catalog.db, episode)
        for episode in catalog.rows(
            "SELECT e.*, (SELECT COUNT(*) FROM episodes f JOIN pairs p ON p.episode = f.id "
            "WHERE f.spec = e.spec AND f.twin = e.key AND p.counted = 1) AS failures "
            "FROM episodes e WHERE e.role = ?",
            TWIN_ROLE,
        ):
            why = verdict_on_positive(episode["task"], _oracle(episode)[0])
            why = why or ("" if episode["failures"] else NO_TWIN)
            _labelled(episode, episode["task"], why).add_to(catalog.db, episode)
        for episode in catalog.rows("SELECT * FROM episodes WHERE role = ?", GIVEN_ROLE):
            _labelled(episode, episode["task"], "").add_to(catalog.db, episode)


def _labelled(episode: sqlite3.Row, asked: str, why: str) -> _Pair:
    """An episode with its own instruction and its own label."""
    kind = POSITIVE if episode["success"] else (episode["kind"] or "failure")
    said = (asked, episode["instruction"], episode["phrasing"])
    return _Pair(episode["success"], kind, *said, why=why)
