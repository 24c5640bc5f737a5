"""Questions about the scenes of recorded episodes, with their answers: `questions.parquet`.

They lie beside the shards of an episode store, one row an episode. Whether the bulb is lit, and
which block is in the drawer, a base VLM can tell; a base made here learns it from these.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ifailsense_ros.core.errors import DataError, text_of
from ifailsense_ros.data.episode_store import EpisodeRow

QUESTIONS = "questions.parquet"

Key = tuple[str, int, int, str]
"""Split, index, attempt and kind of an episode."""
Asked = tuple[tuple[str, str], ...]
"""Questions and answers."""

_TEXTS = pa.list_(pa.string())
_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("index", pa.int64()),
        ("attempt", pa.int64()),
        ("kind", pa.string()),
        ("questions", _TEXTS),
        ("answers", _TEXTS),
    ]
)


@dataclass(frozen=True)
class SceneQuestions:
    """What can be asked about the episodes of a store."""

    by_episode: dict[Key, Asked]

    def of(self, row: EpisodeRow) -> Asked:
        """About one episode; none where there are none."""
        return self.by_episode.get(key_of(row), ())


def key_of(row: EpisodeRow) -> Key:
    """What tells an episode from the others of its store."""
    return (row.split, row.index, row.attempt, row.kind)


def write_questions(folder: Path, asked: Iterable[tuple[Key, Asked]]) -> Path:
    """Write the questions of a store, whole or not at all; returns the file."""
    rows = [
        {
            **dict(zip(("split", "index", "attempt", "kind"), key, strict=True)),
            "questions": [question for question, _ in of_episode],
            "answers": [answer for _, answer in of_episode],
        }
        for key, of_episode in asked
    ]
    path = Path(folder) / QUESTIONS
    part = path.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), part, compression="zstd")
    os.replace(part, path)
    return path


def read_questions(folder: Path) -> SceneQuestions:
    """The questions of a store; empty where it has none.

    Raises:
        DataError: the file cannot be read.
    """
    path = Path(folder) / QUESTIONS
    if not path.exists():
        return SceneQuestions({})
    try:
        rows = pq.read_table(path, schema=_SCHEMA).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: cannot be read ({text_of(error)}); write it again with "
            "`ifailsense sim questions`"
        ) from error
    known: dict[tuple[str, str], tuple[str, str]] = {}  # few texts, in thousands of episodes

    def pairs(row: dict) -> Asked:
        both = zip(row["questions"], row["answers"], strict=True)
        return tuple(known.setdefault(pair, pair) for pair in both)

    return SceneQuestions(
        {(r["split"], r["index"], r["attempt"], r["kind"]): pairs(r) for r in rows}
    )
