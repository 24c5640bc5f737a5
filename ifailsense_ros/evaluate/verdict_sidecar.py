"""Verdicts on the episodes of a LeRobot data set, in a parquet file beside it.

    verdicts.parquet   one row an episode (`EpisodeVerdict`)
    montages/          the picture that was judged, one an episode

Texts instead of codes and null instead of NaN: the file is for pandas, not for us.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ifailsense_ros.core.errors import ConfigError, DataError, text_of
from ifailsense_ros.core.verdict import Outcome, Vote
from ifailsense_ros.data.export.lerobot_rows import EpisodeLabel

SIDECAR, MONTAGES = "verdicts.parquet", "montages"
FOLDER = "ifailsense"
"""Where the sidecar is by default: in the data set's folder, where LeRobot leaves it alone."""

FORMAT = 1
"""Of the file; raised when a column changes its meaning."""

_META_KEY = b"ifailsense_verdicts"
_BATCH = 1000


@dataclass(frozen=True)
class NamedVote:
    """One voter's part: its name, its `VoteValue` by name, its p_success (None where it has none)
    and omega.
    """

    source: str
    vote: str
    p_success: float | None
    weight: float

    @classmethod
    def of(cls, vote: Vote) -> NamedVote:
        """The same vote in the form of the sidecar."""
        p = None if math.isnan(vote.p_success) else vote.p_success
        return cls(vote.source, vote.value.name, p, vote.weight)


@dataclass(frozen=True)
class EpisodeVerdict:
    """What a detector says of one episode.

    Attributes:
        episode_index: LeRobot's number of the episode.
        verdict: name of the `Outcome`.
        p_success: None for UNKNOWN.
        votes: FS blocks from shallow to deep, then the VLM.
        model_id: of the detector.
        montage: picture beside the file ("montages/episode_000000.jpg"); "" where there is none.
        reason: name of the `Reason`; "NONE" unless the verdict is UNKNOWN.
        detail: one line for people; "" for SUCCESS and FAILURE.
        instruction: that was judged.
        length: time steps.
        own_label: the data set's own word; None where it has none.
    """

    episode_index: int
    verdict: str
    p_success: float | None
    votes: tuple[NamedVote, ...]
    model_id: str
    montage: str
    reason: str
    detail: str
    instruction: str
    length: int
    own_label: bool | None

    @property
    def success(self) -> bool | None:
        """The verdict as a label; None: UNKNOWN."""
        return None if self.verdict == Outcome.UNKNOWN.name else self.verdict == "SUCCESS"


_VOTE = pa.struct(
    [
        ("source", pa.string()),
        ("vote", pa.string()),
        ("p_success", pa.float64()),
        ("weight", pa.float64()),
    ]
)
_TYPES = {
    "episode_index": pa.int64(),
    "p_success": pa.float64(),
    "votes": pa.list_(_VOTE),
    "length": pa.int64(),
    "own_label": pa.bool_(),
}
SCHEMA = pa.schema([(f.name, _TYPES.get(f.name, pa.string())) for f in fields(EpisodeVerdict)])


def verdicts_table(rows: Sequence[EpisodeVerdict]) -> pa.Table:
    """Rows as a table of `SCHEMA`."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)


def verdicts_of_table(table: pa.Table) -> Iterator[EpisodeVerdict]:
    """The rows of a table of `SCHEMA`."""
    for row in table.to_pylist():
        votes = tuple(NamedVote(**vote) for vote in row.pop("votes"))
        yield EpisodeVerdict(votes=votes, **row)


def write_verdicts(
    folder: Path, rows: Iterable[EpisodeVerdict], settings: Mapping[str, Any]
) -> None:
    """Write the sidecar as a stream; the file appears only when it is complete.

    Args:
        folder: of the sidecar; it must exist.
        rows: in the order of the data set.
        settings: how they were made, as JSON values.
    """
    part = folder / f"{SIDECAR}.part"
    text = json.dumps({"settings": dict(settings), "format": FORMAT}, sort_keys=True)
    schema = SCHEMA.with_metadata({_META_KEY: text.encode()})
    rows = iter(rows)
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        while some := list(islice(rows, _BATCH)):
            writer.write_table(verdicts_table(some).replace_schema_metadata(schema.metadata))
    os.replace(part, folder / SIDECAR)


def read_settings(folder: Path) -> dict[str, Any]:
    """How the verdicts of a sidecar were made.

    Raises:
        ConfigError: there is no sidecar.
        DataError: it is damaged, or of another release.
    """
    path = folder / SIDECAR
    with _reading(path):
        schema = pq.read_schema(path)
        meta = json.loads((schema.metadata or {})[_META_KEY])
    if meta.get("format") != FORMAT or schema.names != SCHEMA.names:
        raise DataError(f"{path}: of another release; delete it and label again")
    return meta["settings"]


def read_verdicts(folder: Path) -> dict[int, EpisodeVerdict]:
    """The verdicts of a sidecar, by episode.

    Raises:
        ConfigError: there is no sidecar.
        DataError: it is damaged, or of another release.
    """
    read_settings(folder)
    with _reading(folder / SIDECAR):
        return {
            row.episode_index: row for row in verdicts_of_table(pq.read_table(folder / SIDECAR))
        }


def copy_labels(
    verdicts: Mapping[int, EpisodeVerdict], indices: Iterable[int]
) -> dict[int, EpisodeLabel]:
    """What a copy of the data set says of its episodes; those without a verdict are UNKNOWN.

    Args:
        verdicts: of a sidecar.
        indices: of the episodes in the copy, by their numbers in the data set.
    """
    own = any(row.own_label is not None for row in verdicts.values())
    labels = {}
    for index in indices:
        row = verdicts.get(index)
        columns: dict[str, Any] = {
            "verdict": row.verdict if row else Outcome.UNKNOWN.name,
            "p_success": row.p_success if row else None,
            "reason": row.reason if row else "",
            "model_id": row.model_id if row else "",
            "source_episode": index,
        }
        if own:
            columns["own_label"] = row.own_label if row else None
        labels[index] = EpisodeLabel(row.success if row else None, columns)
    return labels


class _reading:
    """What a damaged or missing sidecar makes pyarrow raise becomes one line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        if not self._path.is_file():
            raise ConfigError(
                f"{self._path}: there are no verdicts yet: label the data set first "
                "(the same command without --dry-run)"
            )

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, pa.ArrowException | OSError | ValueError | KeyError):
            raise DataError(
                f"{self._path}: cannot be read ({text_of(error)}); delete it and label again"
            ) from error
