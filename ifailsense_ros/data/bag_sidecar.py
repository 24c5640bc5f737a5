"""`episodes.yaml` in a bag's folder: what its topics do not say of its episodes.

    episodes:
      - start: 3.2              # seconds after the first picture of the exocentric camera
        end: 9.8
        instruction: lift the red block
        label: success          # or failure, unknown
        task: lift_red_block    # from here on optional
        category: lifting
        kind: expert            # or a class of failure
        group: desk 4           # what a split must not cut through
        key: drop 3             # a name of its own
        twin: try 3             # a failure's: key of the success beside it

Exact times are `start_ns` and `end_ns`, header stamps in nanoseconds. Without times the entries
are about the episodes on the bag's own topics: found by `episode_id`, or, where no entry has one,
in order.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ifailsense_ros.core.errors import DataError

SIDECAR_NAME = "episodes.yaml"
LABELS: dict[str, bool | None] = {"success": True, "failure": False, "unknown": None}
"""Words for `label`."""

_TEXTS = ("instruction", "task", "category", "kind", "group", "key", "twin")
_NUMBERS = {"start": (int, float), "end": (int, float), "start_ns": int, "end_ns": int}
_NS = 10**9


@dataclass(frozen=True)
class EpisodeNote:
    """One entry.

    Attributes:
        times: START and END, seconds after the first picture or, as integers of nanoseconds,
            stamps; None where the bag's topics say it.
        exact: whether `times` are stamps.
        episode_id: of the episode on the bag's topics, where it is named.
        success: the label; None: unknown.
        instruction, task, category, kind, group, key, twin: see `EpisodeRecord`; "" where not
            said.
    """

    times: tuple[float, float] | None = None
    exact: bool = False
    episode_id: uuid.UUID | None = None
    success: bool | None = None
    instruction: str = ""
    task: str = ""
    category: str = ""
    kind: str = ""
    group: str = ""
    key: str = ""
    twin: str = ""

    def span_ns(self, first_ns: int) -> tuple[int, int]:
        """Stamps of START and END, where the first picture is stamped `first_ns`."""
        assert self.times is not None
        start, end = self.times
        if self.exact:
            return int(start), int(end)
        return first_ns + round(start * _NS), first_ns + round(end * _NS)


@dataclass(frozen=True)
class Sidecar:
    """The file.

    Attributes:
        episodes: its entries, in order.
        stamp_offset_ns: what was added to all stamps when the bag was written (header stamps
            must not be zero); readers take it off.
    """

    episodes: tuple[EpisodeNote, ...] = ()
    stamp_offset_ns: int = 0

    @property
    def bounds_episodes(self) -> bool:
        """Whether START and END come from here and not from a topic."""
        return any(note.times is not None for note in self.episodes)


def read_sidecar(folder: Path) -> Sidecar:
    """The sidecar of a bag's folder; an empty one if there is none.

    Raises:
        DataError: not YAML, or an entry that makes no sense; names file, entry and field.
    """
    path = folder / SIDECAR_NAME
    if not path.is_file():
        return Sidecar()
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: is not YAML ({reason}); mend it") from error
    where = str(path)
    _check_fields(where, content, {"episodes", "stamp_offset_ns"})
    entries = content.get("episodes")
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: episodes: must be a list of at least one entry")
    offset = content.get("stamp_offset_ns", 0)
    if not isinstance(offset, int):
        raise DataError(f"{path}: stamp_offset_ns: {offset!r} is not a whole number")
    notes = tuple(_note(f"{path}: episode {k}", entry) for k, entry in enumerate(entries))
    if len({note.times is None for note in notes}) > 1:
        raise DataError(f"{path}: episodes: either all have start and end, or none")
    if len({note.episode_id is None for note in notes}) > 1:
        raise DataError(f"{path}: episodes: either all have an episode_id, or none")
    if len({note.exact for note in notes}) > 1:
        raise DataError(f"{path}: episodes: either all have start_ns and end_ns, or none")
    keys = [note.key for note in notes if note.key]
    if len(set(keys)) < len(keys):
        raise DataError(f"{path}: episodes: two have the same key")
    starts_and_ends = [time for note in notes for time in note.times or ()]
    if starts_and_ends != sorted(starts_and_ends):
        raise DataError(f"{path}: episodes: overlap or are not in the order of time; sort them")
    return Sidecar(notes, offset)


def write_sidecar(
    folder: Path, entries: Sequence[Mapping[str, Any]], stamp_offset_ns: int = 0
) -> None:
    """Write the sidecar of a bag's folder; fields that are None or "" are left out."""
    kept = [{k: v for k, v in entry.items() if v not in (None, "")} for entry in entries]
    content: dict[str, Any] = {"episodes": kept}
    if stamp_offset_ns:
        content["stamp_offset_ns"] = stamp_offset_ns
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / SIDECAR_NAME).write_text(text, encoding="utf-8")


def _check_fields(where: str, entry: Any, known: set[str]) -> None:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: must hold fields with values ({', '.join(sorted(known))})")
    unknown = [str(name) for name in entry if name not in known]
    if unknown:
        raise DataError(f"{where}: no field {unknown[0]!r}: there are {', '.join(sorted(known))}")


def _note(where: str, entry: Any) -> EpisodeNote:
    _check_fields(where, entry, {*_NUMBERS, *_TEXTS, "label", "episode_id"})
    for name in _TEXTS:
        if not isinstance(entry.get(name, ""), str):
            raise DataError(f"{where}: {name}: {entry[name]!r} is not a text; quote it")
    for name, kind in _NUMBERS.items():
        value = entry.get(name, 0)
        if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value):
            raise DataError(f"{where}: {name}: {value!r} is not a number of the right kind")
    label = entry.get("label", "unknown")
    if label not in LABELS:
        raise DataError(f"{where}: label: {label!r} is none of {', '.join(LABELS)}")
    identifier = entry.get("episode_id")
    try:
        episode_id = None if identifier is None else uuid.UUID(str(identifier))
    except ValueError as error:
        raise DataError(f"{where}: episode_id: {identifier!r} is not a UUID") from error
    exact = "start_ns" in entry or "end_ns" in entry
    names = ("start_ns", "end_ns") if exact else ("start", "end")
    times = None
    if exact or "start" in entry or "end" in entry:
        if set(names) - set(entry) or {"start", "start_ns"} <= set(entry):
            raise DataError(f"{where}: needs both {names[0]} and {names[1]}, in the same unit")
        times = (entry[names[0]], entry[names[1]])
    return EpisodeNote(
        times,
        exact,
        episode_id,
        LABELS[label],
        **{name: entry.get(name, "") for name in _TEXTS},
    )
