"""Rows of one or more manifests as a SQL table: what checks and data cards ask.

The table lives in a temporary file of SQLite's own, so that memory does not grow with it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice

from ifailsense_ros.data.manifest import DataSet, ManifestRow

_COLUMNS = """
    folder INTEGER, pair_id TEXT, split TEXT, source TEXT, key TEXT, grp TEXT, shard TEXT,
    row INTEGER, instruction TEXT, label INTEGER, asked TEXT, performed TEXT, category TEXT,
    contrast TEXT, attributes INTEGER, phrasing INTEGER, kind TEXT, pairing TEXT, feasible INTEGER,
    oracle INTEGER, counted INTEGER, why TEXT, unfiltered INTEGER, twin TEXT, sha TEXT
"""


def words_of(instruction: str) -> str:
    """An instruction without what does not change its words: case, blanks, punctuation."""
    return " ".join(re.sub(r"[^\w\s]", " ", instruction.lower()).split())


def _values(folder: int, row: ManifestRow) -> tuple[object, ...]:
    return (
        folder,
        row.pair_id,
        row.split,
        row.source,
        row.key,
        row.group,
        row.shard,
        row.row,
        words_of(row.instruction),
        row.label,
        row.asked_task,
        row.performed_task,
        row.category,
        "+".join(row.contrast),
        len(row.contrast),
        row.phrasing,
        row.kind,
        row.pairing,
        row.feasible,
        row.oracle,
        row.counted,
        row.why_not_counted,
        row.unfiltered,
        row.twin,
        row.episode_sha256,
    )


class Tally:
    """A table ``rows`` of all pairs; `folder` counts the data sets, in the order given.

    Of instructions it has the words alone (`words_of`).

    Args:
        sets: whose rows.

    Raises:
        DataError: a manifest cannot be read.
    """

    def __init__(self, sets: Sequence[DataSet]) -> None:
        self._db = sqlite3.connect("")
        self._db.execute(f"CREATE TABLE rows ({_COLUMNS})")
        marks = ", ".join("?" * (_COLUMNS.count(",") + 1))
        for number, data in enumerate(sets):
            values = (_values(number, row) for row in data.rows())
            while batch := list(islice(values, 1000)):
                self._db.executemany(f"INSERT INTO rows VALUES ({marks})", batch)
        for columns in ("grp, split", "sha, split", "instruction, split", "folder, source, key"):
            name = columns.replace(", ", "_")
            self._db.execute(f"CREATE INDEX by_{name} ON rows ({columns})")

    def ask(self, query: str, *values: object) -> Iterator[tuple]:
        """The rows of a query, as a stream."""
        return iter(self._db.execute(query, values))

    def one(self, query: str, *values: object) -> tuple:
        """The only row of a query."""
        return next(self.ask(query, *values))
