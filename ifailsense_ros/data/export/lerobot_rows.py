"""The rows and the metadata of episodes on their way into a copy of their data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.export import lerobot_files as files
from ifailsense_ros.data.export.lerobot_plan import SUCCESS, KeptEpisode
from ifailsense_ros.data.export.lerobot_stats import column_stats, is_quantile
from ifailsense_ros.data.readers.lerobot_meta import OWN, open_parquet, reading

LABEL_TYPES = {
    "verdict": pa.string(),
    "p_success": pa.float64(),
    "reason": pa.string(),
    "model_id": pa.string(),
    "own_label": pa.bool_(),
    "source_episode": pa.int64(),
}
"""Columns behind "ifailsense/" in the metadata of a labelled copy's episodes."""

_TYPES = {"success": pa.bool_(), **{f"{OWN}{name}": kind for name, kind in LABEL_TYPES.items()}}
_HUGGINGFACE = b"huggingface"


@dataclass(frozen=True)
class EpisodeLabel:
    """What a copy says of an episode.

    Attributes:
        success: None: not known; then `next.success` is false in all its rows, which have no word
            for it, and `success` of the episode is null.
        columns: further columns of the episodes' metadata, of `LABEL_TYPES`; the same for all
            episodes.
    """

    success: bool | None
    columns: Mapping[str, Any] = field(default_factory=dict)

    def of_rows(self, length: int) -> np.ndarray:
        """`next.success`: true in the last row of a success."""
        values = np.zeros(length, bool)
        values[-1:] = bool(self.success)
        return values


def copy_rows(
    source: Path,
    out: Path,
    kept: Mapping[int, KeptEpisode],
    labels: Mapping[int, EpisodeLabel] | None,
) -> None:
    """Write a file of rows again: without the episodes that are dropped, with the new numbers and
    labels. One row group is in memory at a time.

    Args:
        source, out: of the data set and of the copy.
        kept: by old number; those of other files do no harm.
        labels: by old number; None: the rows are not labelled.

    Raises:
        DataError: the file is damaged, or has not the rows that the metadata promise.
    """
    seen = dict.fromkeys((e.old for e in kept.values() if e.data == source), 0)
    writer: pq.ParquetWriter | None = None
    part = files.part(out)
    try:
        with open_parquet(source) as file:
            for group in range(file.num_row_groups):
                with reading(source):
                    table = file.read_row_group(group)
                numbers = _integers(table, "episode_index", source)
                table = table.filter(pa.array(np.isin(numbers, list(seen))))
                if not len(table):
                    continue
                table = _edited(table, source, kept, labels, seen)
                writer = writer or pq.ParquetWriter(part, table.schema, compression="snappy")
                writer.write_table(table.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()
    for old, count in seen.items():
        if count != kept[old].length:
            raise DataError(
                f"{source}: {count} rows of episode {old} where the metadata promise "
                f"{kept[old].length}: it was cut off; copy it again"
            )
    files.finish(out)


def _edited(
    table: pa.Table,
    source: Path,
    kept: Mapping[int, KeptEpisode],
    labels: Mapping[int, EpisodeLabel] | None,
    seen: dict[int, int],
) -> pa.Table:
    old = _integers(table, "episode_index", source)
    values = {"episode_index": np.empty_like(old), "index": np.empty_like(old)}
    success = np.zeros(len(old), bool)
    bounds = [0, *(np.flatnonzero(np.diff(old)) + 1).tolist(), len(old)]
    for first, end in pairwise(bounds):
        episode = kept[int(old[first])]
        done = seen[episode.old]
        seen[episode.old] += end - first
        if seen[episode.old] > episode.length:
            raise DataError(f"{source}: more rows of episode {episode.old} than the metadata say")
        values["episode_index"][first:end] = episode.new
        values["index"][first:end] = episode.start + done + np.arange(end - first)
        if labels is not None:
            rows = labels[episode.old].of_rows(episode.length)
            success[first:end] = rows[done : done + end - first]
    columns = {name: pa.array(column) for name, column in values.items()}
    if labels is not None:
        columns[SUCCESS] = pa.array(success)
    return _with_columns(table, columns)


def _with_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """A table with columns set or added, also in what HuggingFace's `datasets` says of them."""
    metadata = dict(table.schema.metadata or {})
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.append_column(name, values) if at < 0 else table.set_column(at, name, values)
    if _HUGGINGFACE in metadata:
        said = json.loads(metadata[_HUGGINGFACE])
        features = (said.get("info") or {}).get("features")
        if isinstance(features, dict):
            for name, values in columns.items():
                features[name] = {"dtype": str(values.type), "_type": "Value"}
            metadata[_HUGGINGFACE] = json.dumps(said).encode()
    return table.replace_schema_metadata(metadata)


def _integers(table: pa.Table, name: str, source: Path) -> np.ndarray:
    with reading(source):
        values = table.column(name).combine_chunks()
        if pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            values = values.flatten()
        return values.to_numpy(zero_copy_only=False).astype(np.int64)


def row_stats(
    stats: Mapping[str, Any], episode: KeptEpisode, label: EpisodeLabel | None
) -> dict[str, Any]:
    """The statistics that change in a copy, as "feature/statistic" -> list.

    Args:
        stats: those of the data set, by the same names.
        episode: whose they are.
        label: what its rows say; None: they are not labelled.
    """
    changed: dict[str, Any] = {}
    for feature, start in (("index", episode.start), ("episode_index", episode.new)):
        low = stats.get(f"{feature}/min")
        if low is None:
            continue
        for name in ("min", "max", "mean", *_quantiles(stats, feature)):
            if stats.get(f"{feature}/{name}") is not None:
                moved = np.asarray(stats[f"{feature}/{name}"]) + (start - np.asarray(low))
                changed[f"{feature}/{name}"] = moved.tolist()
    if label is not None:
        rows = label.of_rows(episode.length)
        for name, value in column_stats(rows).items():
            changed[f"{SUCCESS}/{name}"] = value.tolist()
        for name in _quantiles(stats, SUCCESS):
            quantile = np.quantile(rows.astype(float), int(name[1:]) / 100)
            changed[f"{SUCCESS}/{name}"] = [float(quantile)]
    return changed


def _quantiles(stats: Mapping[str, Any], feature: str) -> list[str]:
    names = (name.removeprefix(f"{feature}/") for name in stats if name.startswith(f"{feature}/"))
    return [name for name in names if is_quantile(name)]


def label_columns(label: EpisodeLabel) -> dict[str, Any]:
    """A label as columns of the episodes' metadata."""
    return {"success": label.success} | {f"{OWN}{k}": v for k, v in label.columns.items()}


def copy_episode_table(
    source: Path,
    out: Path,
    kept: Mapping[int, KeptEpisode],
    labels: Mapping[int, EpisodeLabel] | None,
    begins: Mapping[tuple[int, str], float],
) -> Iterator[dict[str, Any]]:
    """Write a file of meta/episodes (v3.0) again; yields the statistics of its episodes.

    Args:
        source, out: of the data set and of the copy.
        kept, labels: by old number.
        begins: (old number, camera) -> when the episode begins in its new video, in seconds.

    Raises:
        DataError: the file is damaged.
    """
    with reading(source):
        table = pq.read_table(source)
    old = _integers(table, "episode_index", source)
    mask = np.isin(old, list(kept))
    if not mask.any():
        return
    table = table.filter(pa.array(mask))
    episodes = [kept[int(number)] for number in old[mask]]
    changed: dict[str, list[Any]] = {
        "episode_index": [e.new for e in episodes],
        "dataset_from_index": [e.start for e in episodes],
        "dataset_to_index": [e.start + e.length for e in episodes],
    }
    for key in episodes[0].videos:
        name = f"videos/{key}"
        spans = table.select([f"{name}/from_timestamp", f"{name}/to_timestamp"]).to_pydict()
        lengths = [b - a for a, b in zip(*spans.values(), strict=True)]
        first = [begins[e.old, key] for e in episodes]
        changed[f"{name}/from_timestamp"] = first
        changed[f"{name}/to_timestamp"] = [a + s for a, s in zip(first, lengths, strict=True)]
    names = [name for name in table.column_names if name.startswith("stats/")]
    rows = table.select(names).to_pylist()
    for row, episode in zip(rows, episodes, strict=True):
        label = None if labels is None else labels[episode.old]
        said = {name.removeprefix("stats/"): value for name, value in row.items()}
        row |= {f"stats/{k}": v for k, v in row_stats(said, episode, label).items()} if row else {}
        if label is not None:
            for name, value in label_columns(label).items():
                changed.setdefault(name, []).append(value)
    edited = {name for row in rows for name in row if _changes(name)}
    changed |= {name: [row.get(name) for row in rows] for name in sorted(edited)}
    for name, values in changed.items():
        at = table.schema.get_field_index(name)
        known = _TYPES.get(name) or (None if at < 0 else table.schema.field(at).type)
        column = _column(values, known)
        table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
    files.write_parquet(out, table)
    yield from rows


def _changes(name: str) -> bool:
    return name.split("/")[1] in ("index", "episode_index", SUCCESS)


def _column(values: Sequence[Any], known: pa.DataType | None) -> pa.Array:
    if known is not None and pa.types.is_list(known) and pa.types.is_boolean(known.value_type):
        values = [None if v is None else [bool(x) for x in v] for v in values]
    return pa.array(values, known)
