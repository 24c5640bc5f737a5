"""Building a data set: read the sources, pair every expert episode, write the manifest.

Everything is drawn from the seed and the episodes' names, so the same command makes the same
manifest, byte for byte. A build that was stopped goes on where it was when it is given again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ifailsense_ros import __version__
from ifailsense_ros.core.checkpoint import sha256_of
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.catalog import (
    EXPERT_ROLE,
    FAILURE_ROLE,
    GIVEN_ROLE,
    TWIN_ROLE,
    Catalog,
)
from ifailsense_ros.data.ingest import Source, read_source
from ifailsense_ros.data.manifest import (
    FORMAT,
    MANIFEST,
    PROBLEMS,
    SUMMARY,
    DataSet,
    ManifestRow,
    write_manifest,
    write_problems,
)
from ifailsense_ros.data.pairs import PairSettings, make_pairs
from ifailsense_ros.data.readers import open_reader
from ifailsense_ros.data.readers.store import StoreReader
from ifailsense_ros.data.records import EpisodeReader
from ifailsense_ros.data.sinks import Shape
from ifailsense_ros.data.splits import Shares

WORKING = ".building"
"""Folder of the catalog while a data set is being built."""


@dataclass(frozen=True)
class BuildSettings:
    """What decides what a data set holds.

    Attributes:
        sources: specs, ``name:path``.
        shares: of the splits; None keeps the splits of episode stores.
        shape: of the stored pictures.
        pairs: how pairs are made.
        keep_going: list what cannot be used instead of stopping.
        experts: episodes without a label are expert episodes, and their instruction is their task
            where none is named.
        licence: of the data, for the data card.
    """

    sources: tuple[str, ...]
    shares: Shares | None = None
    shape: Shape = field(default_factory=lambda: Shape(4, 2, 224))
    pairs: PairSettings = field(default_factory=PairSettings)
    keep_going: bool = False
    experts: bool = False
    licence: str = ""


def build(
    settings: BuildSettings,
    folder: Path,
    command: Sequence[str] = (),
    open_source: Callable[[str, bool], EpisodeReader] = open_reader,
) -> DataSet:
    """Make a data set, or finish one; a finished one of the same sources is left as it is.

    Args:
        settings: what it holds.
        folder: where; made if it is not there.
        command: how it was called, for the record.
        open_source: opens a spec.

    Raises:
        ConfigError: the folder holds a data set of other settings, or a split came out empty.
        DataError: a source cannot be read.
    """
    folder = Path(folder)
    readers = [open_source(spec, settings.keep_going) for spec in settings.sources]
    sources = [
        Source(n, spec, reader)
        for n, (spec, reader) in enumerate(zip(settings.sources, readers, strict=True))
    ]
    identity = json.loads(json.dumps({**asdict(settings), "stores": _stores(sources)}))
    # Whoever stumbles over a problem gives the command again with --keep-going.
    del identity["keep_going"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror})") from error
    if (folder / SUMMARY).exists():
        made = DataSet(folder)
        if made.summary["identity"] != identity:
            raise _other(folder)
        return made
    try:
        summary = _make(settings, folder, sources, identity, command)
    except sqlite3.OperationalError as error:
        raise DataError(
            f"{folder / WORKING}: {error}; is another build at work there, or the disk full?"
        ) from error
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{folder / WORKING}: damaged ({error}); delete it and build again"
        ) from error
    part = folder / f"{SUMMARY}.part"
    part.write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", "utf-8")
    os.replace(part, folder / SUMMARY)  # what makes the data set complete
    shutil.rmtree(folder / WORKING)
    return DataSet(folder)


def _make(
    settings: BuildSettings,
    folder: Path,
    sources: Sequence[Source],
    identity: dict[str, Any],
    command: Sequence[str],
) -> dict[str, Any]:
    """Write everything but the summary, which is returned."""
    with closing(Catalog(folder / WORKING / "catalog.sqlite")) as catalog:
        if catalog.setting("identity", identity) != identity:
            raise _other(folder)
        for source in sources:
            read_source(
                catalog,
                source,
                folder,
                settings.shape,
                settings.shares,
                settings.pairs.seed,
                keep_going=settings.keep_going,
                experts=settings.experts,
            )
        catalog.index()
        _refuse_empty(catalog, settings)
        make_pairs(catalog, settings.pairs)
        write_manifest(folder, _manifest_rows(catalog))
        problems = catalog.rows("SELECT spec, place, what FROM problems ORDER BY rowid")
        write_problems(
            folder, ((settings.sources[spec], place, what) for spec, place, what in problems)
        )
        return _summary(catalog, folder, sources, identity, command)


def _other(folder: Path) -> ConfigError:
    return ConfigError(
        f"{folder}: holds a data set of other settings or other source files; give another --out, "
        "or delete it"
    )


def _stores(sources: Sequence[Source]) -> list[list[list[Any]]]:
    """Shards of the stores that are used as they are: names and sizes, to notice a change."""
    return [
        [[shard.name, shard.stat().st_size] for shard in source.reader.shards]
        if isinstance(source.reader, StoreReader)
        else []
        for source in sources
    ]


def _refuse_empty(catalog: Catalog, settings: BuildSettings) -> None:
    there = {name for (name,) in catalog.rows("SELECT DISTINCT split FROM episodes")}
    if not there:
        first = next(catalog.rows("SELECT place, what FROM problems ORDER BY rowid"), None)
        because = "" if first is None else f", the first: {first['place']}: {first['what']}"
        raise DataError(
            f"{', '.join(settings.sources)}: no episode that can be used; "
            f"{catalog.count('problems')} problems{because}"
        )
    wanted = {name for name, _ in settings.shares.parts} if settings.shares else set()
    if missing := sorted(wanted - there):
        (groups,) = next(catalog.rows("SELECT COUNT(DISTINCT grp) FROM episodes"))
        raise ConfigError(
            f"--split: nothing fell to {', '.join(missing)}, there are {groups} groups (scenes or "
            "sessions) in all; give larger shares, another --seed, or use --as-split"
        )


_PAIRINGS = {EXPERT_ROLE: "smf", TWIN_ROLE: "twins", FAILURE_ROLE: "twins", GIVEN_ROLE: "given"}

_PAIR_QUERY = """
SELECT e.*, p.label, p.kind AS pair_kind, p.instruction AS said, p.asked_task,
    p.phrasing AS pair_phrasing, p.contrast AS pair_contrast, p.feasible AS pair_feasible,
    p.oracle, p.counted, p.why AS pair_why, p.unfiltered, t.task AS twin_task,
    (SELECT MIN(f.key) FROM episodes f INDEXED BY by_twin
        WHERE f.spec = e.spec AND f.twin = e.key) AS failure
FROM episodes e JOIN pairs p ON p.episode = e.id
LEFT JOIN episodes t ON t.spec = e.spec AND t.key = e.twin
ORDER BY e.split, e.shard, e.row, e.id, p.rowid
"""


def _manifest_rows(catalog: Catalog) -> Iterator[ManifestRow]:
    for found in catalog.rows(_PAIR_QUERY):
        source, group = found["source"], found["grp"]
        words = (source, found["key"], found["sha"], found["pair_kind"], found["said"])
        contrast = found["pair_contrast"]
        feasible = found["pair_feasible"]
        yield ManifestRow(
            pair_id=hashlib.sha256("\0".join(words).encode()).hexdigest()[:16],
            split=found["split"],
            source=found["source"],
            key=found["key"],
            group=group if group.startswith(f"{source}/") else f"{source}/{group}",
            shard=found["shard"],
            row=found["row"],
            instruction=found["said"],
            reworded=found["instruction"] != found["recorded"],
            label=bool(found["label"]),
            asked_task=found["asked_task"],
            performed_task=_performed(found),
            category=found["category"],
            contrast=tuple(contrast.split("+")) if contrast else (),
            phrasing=found["pair_phrasing"],
            kind=found["pair_kind"],
            pairing=_PAIRINGS[found["role"]],
            feasible=None if feasible is None else bool(feasible),
            oracle=found["oracle"],
            counted=bool(found["counted"]),
            why_not_counted=found["pair_why"],
            unfiltered=bool(found["unfiltered"]),
            twin=found["twin"] or found["failure"] or "",
            episode_sha256=found["sha"],
        )


def _performed(found: sqlite3.Row) -> str:
    """An expert's task; what a failure did instead, if it did something."""
    task = str(found["task"])
    if found["success"]:
        return task
    return task if found["twin_task"] not in (None, task) else ""


def _summary(
    catalog: Catalog,
    folder: Path,
    sources: Sequence[Source],
    identity: dict[str, Any],
    command: Sequence[str],
) -> dict[str, Any]:
    """What `manifest.json` holds."""
    shards = catalog.rows("SELECT name, sha, episodes FROM shards ORDER BY name")
    return {
        "format": FORMAT,
        "identity": identity,
        "command": list(command),
        "versions": {
            "ifailsense_ros": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "pyarrow": pa.__version__,
        },
        "sources": [_source_entry(catalog, folder, source) for source in sources],
        "shards": {name: {"sha256": sha, "episodes": n} for name, sha, n in shards},
        "pairs": catalog.count("pairs"),
        "problems": catalog.count("problems"),
        "sha256": {name: sha256_of(folder / name) for name in (MANIFEST, PROBLEMS)},
    }


def _source_entry(catalog: Catalog, folder: Path, source: Source) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "spec": source.spec,
        "episodes": next(
            catalog.rows("SELECT COUNT(*) FROM episodes WHERE spec = ?", source.number)
        )[0],
    }
    for column in ("source", "generator"):
        found = catalog.rows(
            f"SELECT DISTINCT {column} FROM episodes WHERE spec = ? AND {column} != '' ORDER BY 1",
            source.number,
        )
        entry[column] = [name for (name,) in found]
    if isinstance(source.reader, StoreReader):
        entry["path"] = os.path.relpath(source.reader.path, folder)
    return entry
