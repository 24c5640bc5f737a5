"""The builder's working file: what was read so far, in SQLite, so that memory does not grow.

It lies beside the data set while that is being built. What a shard holds and the shard's own entry
are committed together, so that a build that was stopped knows exactly where it was.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifailsense_ros.data.records import Problem

EXPERT_ROLE, TWIN_ROLE, FAILURE_ROLE, GIVEN_ROLE = "expert", "twin", "failure", "given"
"""What an episode is for: to be paired; the success beside a failure; a failure; labelled as is."""

_TABLES = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS episodes (
    id INTEGER PRIMARY KEY,
    spec INTEGER NOT NULL, position INTEGER NOT NULL,
    source TEXT NOT NULL, key TEXT NOT NULL, grp TEXT NOT NULL, split TEXT NOT NULL,
    role TEXT NOT NULL, kind TEXT NOT NULL, success INTEGER NOT NULL,
    instruction TEXT NOT NULL, task TEXT NOT NULL, category TEXT NOT NULL, phrasing INTEGER,
    recorded TEXT NOT NULL, recorded_phrasing INTEGER,
    negative_task TEXT, negative_instruction TEXT, contrast TEXT,
    outcomes TEXT NOT NULL, feasible TEXT, why TEXT NOT NULL, generator TEXT NOT NULL,
    twin TEXT, shard TEXT NOT NULL, row INTEGER NOT NULL, sha TEXT NOT NULL, shuffle REAL NOT NULL,
    UNIQUE (spec, key));
CREATE TABLE IF NOT EXISTS shards (
    name TEXT PRIMARY KEY, spec INTEGER NOT NULL, split TEXT NOT NULL, sha TEXT NOT NULL,
    episodes INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS problems (
    spec INTEGER NOT NULL, place TEXT NOT NULL, what TEXT NOT NULL, UNIQUE (spec, place, what));
CREATE TABLE IF NOT EXISTS sentences (
    source TEXT NOT NULL, split TEXT NOT NULL, task TEXT NOT NULL, category TEXT NOT NULL,
    phrasing INTEGER NOT NULL, instruction TEXT NOT NULL, owed INTEGER NOT NULL,
    tie REAL NOT NULL, PRIMARY KEY (source, split, task, instruction));
CREATE TABLE IF NOT EXISTS pairs (
    episode INTEGER NOT NULL, label INTEGER NOT NULL, kind TEXT NOT NULL,
    instruction TEXT NOT NULL, asked_task TEXT NOT NULL, phrasing INTEGER, contrast TEXT NOT NULL,
    feasible INTEGER, oracle INTEGER, counted INTEGER NOT NULL, why TEXT NOT NULL,
    unfiltered INTEGER NOT NULL);
"""

_INDEXES = """
CREATE INDEX IF NOT EXISTS by_shuffle ON episodes (source, split, role, shuffle, id);
CREATE INDEX IF NOT EXISTS by_place ON episodes (split, shard, row, id);
CREATE INDEX IF NOT EXISTS by_twin ON episodes (spec, twin);
CREATE INDEX IF NOT EXISTS by_owed ON sentences (source, split, task, phrasing, owed DESC, tie);
CREATE INDEX IF NOT EXISTS by_owed_any ON sentences (source, split, task, owed DESC, tie);
CREATE INDEX IF NOT EXISTS by_category ON sentences (source, split, category, owed DESC, tie);
CREATE INDEX IF NOT EXISTS by_episode ON pairs (episode);
"""


@dataclass(frozen=True)
class ShardEntry:
    """A shard of the data set.

    Attributes:
        name: in the manifest: ``shards/FILE``, or ``storeN/FILE`` for a store used as it is.
        spec: number of the source it belongs to.
        split: whose episodes it holds.
        sha: of the file.
        episodes: how many.
        last: one more than the highest episode index in it.
    """

    name: str
    spec: int
    split: str
    sha: str
    episodes: int
    last: int


class Catalog:
    """Episodes, shards, problems, sentences and pairs of a data set in the making.

    Args:
        path: the file, made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(path, timeout=0)
        self.db.row_factory = sqlite3.Row
        # A build can be repeated: surviving a power cut is not worth an fsync a shard.
        self.db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + _TABLES)
        # Two builds in one folder would write over each other's shards.
        self.db.execute("PRAGMA locking_mode = EXCLUSIVE")

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    # --- settings

    def setting(self, name: str, value: object) -> object:
        """The stored value of a setting, which is `value` if there was none."""
        with self.db:
            self.db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, _dump(value)))
        (stored,) = self.db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return json.loads(stored)

    # --- reading the sources

    def add(self, shard: ShardEntry, episodes: list[Mapping[str, Any]]) -> None:
        """Commit a shard with its episodes (the columns of the table, without id)."""
        with self.db:
            self.db.execute(
                "INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?, ?, ?)",
                (shard.name, shard.spec, shard.split, shard.sha, shard.episodes, shard.last),
            )
            for episode in episodes:
                columns = ", ".join(episode)
                marks = ", ".join("?" * len(episode))
                self.db.execute(
                    f"INSERT INTO episodes ({columns}) VALUES ({marks})",
                    tuple(episode.values()),
                )

    def position_of(self, spec: int, key: str) -> int | None:
        """Where in its source an episode stood that was read already; None if it was not."""
        found = self.db.execute(
            "SELECT position FROM episodes WHERE spec = ? AND key = ?", (spec, key)
        ).fetchone()
        return None if found is None else int(found[0])

    def next_index(self, split: str) -> int:
        """The first episode index of a split that no shard of our own holds yet."""
        (last,) = self.db.execute(
            "SELECT MAX(last) FROM shards WHERE split = ? AND name LIKE 'shards/%'", (split,)
        ).fetchone()
        return last or 0

    def note(self, spec: int, problem: Problem) -> None:
        """List something that was left out; the same problem is listed once."""
        with self.db:
            self.db.execute(
                "INSERT OR IGNORE INTO problems VALUES (?, ?, ?)",
                (spec, problem.where, problem.what),
            )

    # --- asking

    def index(self) -> None:
        """Make the indexes that everything after reading needs."""
        self.db.executescript(_INDEXES)

    def count(self, table: str) -> int:
        """Number of rows of a table."""
        return int(self.db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])

    def rows(self, query: str, *values: object) -> Iterator[sqlite3.Row]:
        """The rows of a query, as a stream."""
        return iter(self.db.execute(query, values))

    def pages(self, source: str, split: str, size: int = 500) -> Iterator[list[sqlite3.Row]]:
        """The experts of a source and split in shuffled order, page by page.

        The table may be written to between pages.
        """
        after = (-1.0, -1)
        while True:
            page = self.db.execute(
                "SELECT * FROM episodes WHERE source = ? AND split = ? AND role = ? "
                "AND (shuffle, id) > (?, ?) ORDER BY shuffle, id LIMIT ?",
                (source, split, EXPERT_ROLE, *after, size),
            ).fetchall()
            if not page:
                return
            yield page
            after = (page[-1]["shuffle"], page[-1]["id"])


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True)
