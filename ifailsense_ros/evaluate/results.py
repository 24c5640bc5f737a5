"""A results folder: what detectors said of episodes, row by row, and what could not be judged.

    results.parquet   one row an episode and detector (`Result`)
    metrics.json      the paper's metrics with intervals, over all and by category and class
    problems.json     what could not be read, as a list of {where, what}
    montages/         the picture that was judged, one an episode
    report.html       made from all of these

The same rows and meta always give the same bytes of `results.parquet`, however they were computed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ifailsense_ros.core.errors import DataError, text_of
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.data.records import Problem

RESULTS, METRICS, PROBLEMS = "results.parquet", "metrics.json", "problems.json"
MONTAGES, REPORT = "montages", "report.html"

FORMAT = 1
"""Of `results.parquet`; raised when a column changes its meaning."""

_BATCH = 1000
_META_KEY = b"ifailsense_results"


@dataclass(frozen=True)
class Result:
    """One episode judged by one detector.

    Attributes:
        detector: `model_id` of what judged.
        path: bag, data set or store as the user gave it (a bag in a folder of bags: the folder as
            given, and the bag below it).
        key: of the episode within `path`; (detector, path, key) names a row.
        instruction: g.
        label: whether the instruction was carried out; None: not known.
        category, kind, task: task category; "expert" or "positive" for a success, "semantic" or a
            failure class; task. "" where unknown.
        outcome, reason: numbers of `core.verdict.Outcome` and `Reason`.
        detail: one line for people; "" for SUCCESS and FAILURE.
        p_success: 0..1; NaN for UNKNOWN.
        sources, votes, p_votes, weights: of every voter: its name, the number of its `VoteValue`,
            its p_success (NaN where it has none) and omega.
        montage: picture beside `results.parquet` ("montages/xyz.jpg"); "" where there is none.
        start_ns, end_ns: stamps of START and END; 0 where unknown.
        group: scene or session, the same for episodes that are not independent of each other; ""
            where unknown. Intervals draw whole groups.
    """

    detector: str
    path: str
    key: str
    instruction: str
    label: bool | None
    category: str
    kind: str
    task: str
    outcome: int
    reason: int
    detail: str
    p_success: float
    sources: tuple[str, ...]
    votes: tuple[int, ...]
    p_votes: tuple[float, ...]
    weights: tuple[float, ...]
    montage: str
    start_ns: int
    end_ns: int
    group: str = ""

    @property
    def right(self) -> bool | None:
        """Whether the verdict is true; UNKNOWN is wrong. None where the truth is not known."""
        if self.label is None:
            return None
        return self.outcome == (Outcome.SUCCESS if self.label else Outcome.FAILURE)

    @property
    def cluster(self) -> str:
        """What a bootstrap draws whole: the group, or the episode alone."""
        return self.group or f"{self.path}\n{self.key}"


_TYPES = {
    "label": pa.bool_(),
    "outcome": pa.int8(),
    "reason": pa.int16(),
    "p_success": pa.float64(),
    "sources": pa.list_(pa.string()),
    "votes": pa.list_(pa.int8()),
    "p_votes": pa.list_(pa.float64()),
    "weights": pa.list_(pa.float64()),
    "start_ns": pa.int64(),
    "end_ns": pa.int64(),
}
RESULT_SCHEMA = pa.schema([(f.name, _TYPES.get(f.name, pa.string())) for f in fields(Result)])
"""Columns of `results.parquet`, and of shards of it."""

_TUPLES = ("sources", "votes", "p_votes", "weights")


def results_table(rows: Sequence[Result]) -> pa.Table:
    """Rows as a table of `RESULT_SCHEMA`."""
    return pa.Table.from_pylist([vars(row) for row in rows], schema=RESULT_SCHEMA)


def results_of_table(table: pa.Table) -> Iterator[Result]:
    """The rows of a table of `RESULT_SCHEMA`."""
    for record in table.to_pylist():
        for name in _TUPLES:
            record[name] = tuple(record[name])
        yield Result(**record)


def write_results(folder: str | Path, rows: Iterable[Result], meta: Mapping[str, Any]) -> None:
    """Write `results.parquet` as a stream; the file appears only when it is complete.

    Args:
        folder: results folder; made if it is not there.
        rows: the results, in the order in which they shall stand.
        meta: how they were made: strings, numbers, lists and dicts of them. What differs from one
            run to the next (dates, numbers of workers) does not belong here.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{RESULTS}.part"
    text = json.dumps({**meta, "format": FORMAT}, sort_keys=True)
    schema = RESULT_SCHEMA.with_metadata({_META_KEY: text.encode()})
    rows = iter(rows)
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        while some := list(islice(rows, _BATCH)):
            writer.write_table(results_table(some).replace_schema_metadata(schema.metadata))
    os.replace(part, folder / RESULTS)


def read_results(folder: str | Path) -> tuple[list[Result], dict[str, Any]]:
    """All rows of a results folder, and how they were made.

    Raises:
        DataError: as `iterate_results`.
    """
    return list(iterate_results(folder)), results_meta(folder)


def iterate_results(folder: str | Path) -> Iterator[Result]:
    """The rows of a results folder as a stream.

    Raises:
        DataError: no results in the folder, of another release, or damaged.
    """
    results_meta(folder)
    path = Path(folder) / RESULTS
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                yield from results_of_table(pa.Table.from_batches([batch]))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: cannot be read ({text_of(error)}); make it again with `ifailsense evaluate`"
        ) from None


def results_meta(folder: str | Path) -> dict[str, Any]:
    """How the rows of a results folder were made.

    Raises:
        DataError: no results in the folder, of another release, or damaged.
    """
    path = Path(folder) / RESULTS
    try:
        schema = pq.read_schema(path)
        meta = json.loads((schema.metadata or {})[_META_KEY])
    except FileNotFoundError:
        raise DataError(
            f"{folder}: no {RESULTS} in it; make it with `ifailsense evaluate --out {folder}`, or "
            "give the same command again if it was stopped"
        ) from None
    except KeyError:
        raise DataError(f"{path}: holds no results; make them with `ifailsense evaluate`") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({text_of(error)}); make it again with `ifailsense evaluate`"
        ) from None
    if meta.pop("format", None) != FORMAT or schema.names != RESULT_SCHEMA.names:
        raise DataError(f"{path}: of another release; make it again with `ifailsense evaluate`")
    return meta


def write_problems(folder: str | Path, problems: Iterable[Problem]) -> None:
    """Write `problems.json`."""
    write_json(Path(folder) / PROBLEMS, [{"where": p.where, "what": p.what} for p in problems])


def read_problems(folder: str | Path) -> list[Problem]:
    """What could not be judged; empty where the folder says nothing of it.

    Raises:
        DataError: the file cannot be read.
    """
    path = Path(folder) / PROBLEMS
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text("utf-8"))
        return [Problem(entry["where"], entry["what"]) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: cannot be read ({text_of(error)}); make it again with `ifailsense evaluate`"
        ) from None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file of ours; it appears only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)
