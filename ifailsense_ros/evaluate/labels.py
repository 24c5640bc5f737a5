"""One file of labels for episodes of any bags and data sets: what a person says of them.

CSV, with a header:

    path,key,label,instruction,category,kind
    bags/monday,monday/0,success,,,
    bags/monday,monday/1,failure,lift the red block,lifting,incomplete_grasp

or YAML:

    labels:
      - path: bags/monday
        key: monday/0
        label: success          # or failure, unknown
        instruction: ...        # from here on optional

`path` and `key` are those of `results.parquet`: the path as it was given on the command line,
absolute, or relative to the file of labels. A label of its own beats what the data say.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from ifailsense_ros.core.errors import ConfigError, DataError, text_of
from ifailsense_ros.data.bag_sidecar import LABELS

Key = tuple[str, str]
"""Path and key of an episode."""

_NEEDED = ("path", "key", "label")
_MEANINGS: dict[str, bool | None] = {**LABELS, "": None, "unsure": None}
_WORDS = {label: word for word, label in LABELS.items()}


@dataclass(frozen=True)
class LabelNote:
    """What is said of one episode.

    Attributes:
        label: whether the instruction was carried out; None: nobody can say.
        instruction: asked instead of the recorded one; "": the recorded one.
        category, kind: task category and class of failure; "": what the data say.
    """

    label: bool | None = None
    instruction: str = ""
    category: str = ""
    kind: str = ""


_OPTIONAL = tuple(f.name for f in fields(LabelNote) if f.name != "label")
_COLUMNS = (*_NEEDED, *_OPTIONAL)


def read_labels(file: str | Path) -> dict[Key, LabelNote]:
    """The labels of a file, by path and key as they stand in it.

    Raises:
        ConfigError: neither .yaml, .yml nor .csv.
        DataError: missing, not in one of the two forms, or an entry that makes no sense; names
            file, entry and field.
    """
    file = Path(file)
    is_yaml = _is_yaml(file)
    try:
        text = file.read_text("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{file}: no such file of labels; give one with --labels") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({text_of(error)}); save it as UTF-8") from None
    entries = _yaml_entries(file, text) if is_yaml else _csv_entries(file, text)
    found: dict[Key, LabelNote] = {}
    for where, entry in entries:
        key, note = _note(where, entry)
        if key in found:
            raise DataError(f"{where}: {key[0]} {key[1]} has a label already; keep one of them")
        found[key] = note
    return found


def write_labels(file: str | Path, labels: Mapping[Key, LabelNote]) -> None:
    """Write a file of labels; it is replaced as a whole, so that a crash leaves the older one.

    Raises:
        ConfigError: neither .yaml, .yml nor .csv.
        DataError: it cannot be written.
    """
    file = Path(file)
    rows = [
        {"path": path, "key": key, **asdict(note), "label": _WORDS[note.label]}
        for (path, key), note in labels.items()
    ]
    if _is_yaml(file):
        kept = [{name: row[name] for name in _COLUMNS if row[name] != ""} for row in rows]
        text = yaml.safe_dump({"labels": kept}, sort_keys=False, allow_unicode=True)
    else:
        out = io.StringIO()
        writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = out.getvalue()
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, file)
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({text_of(error)})") from None


class LabelBook:
    """The labels of a file, found under whatever name a path was given.

    Args:
        file: see `read_labels`.

    Raises:
        ConfigError, DataError: as `read_labels`.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self._notes = read_labels(self.file)
        self._as_given: dict[str, dict[str, LabelNote]] = {}
        self._by_place: dict[str, dict[str, LabelNote]] = {}
        for (path, key), note in self._notes.items():
            self._as_given.setdefault(path, {})[key] = note
            place = _place(path, self.file.parent)
            self._by_place.setdefault(place, {})[key] = note

    def of(self, path: str) -> dict[str, LabelNote]:
        """The labels of one path of the command line, by key."""
        return self._as_given.get(path) or self._by_place.get(_place(path, Path()), {})

    def unknown_paths(self, given: list[str]) -> list[str]:
        """Paths of the file that are none of those of the command line."""
        places = {_place(path, Path()) for path in given}
        return [
            path
            for path in self._as_given
            if path not in given and _place(path, self.file.parent) not in places
        ]


def bare_path(path: str) -> str:
    """The folder or file of a path that may be a reader's spec (``name:path?option=value``)."""
    name, colon, rest = path.partition(":")
    if not colon or not name.isidentifier() or Path(path).exists():
        return path
    return rest if Path(rest).exists() else rest.partition("?")[0]


def _place(path: str, base: Path) -> str:
    return os.path.realpath(base / bare_path(path))


def _is_yaml(file: Path) -> bool:
    suffix = file.suffix.lower()
    if suffix not in (".yaml", ".yml", ".csv"):
        raise ConfigError(f"{file}: labels are a .yaml or a .csv file; name it so")
    return suffix != ".csv"


def _yaml_entries(file: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{file}: is not YAML ({text_of(error)}); mend it") from None
    entries = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(entries, list) or set(content) != {"labels"}:
        raise DataError(f"{file}: must hold one list, labels:, of entries with {_NEEDED_TEXT}")
    found = []
    for number, entry in enumerate(entries):
        where = f"{file}: entry {number}"
        if not isinstance(entry, dict):
            raise DataError(f"{where}: must hold fields with values ({_NEEDED_TEXT})")
        found.append((where, entry))
    return found


_NEEDED_TEXT = ", ".join(_NEEDED)


def _csv_entries(file: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = reader.fieldnames or ()
        for name in _NEEDED:
            if name not in header:
                raise DataError(f"{file}: no column {name!r}; the first line names the columns")
        found = []
        for entry in reader:
            where = f"{file}: line {reader.line_num}"
            if None in entry or None in entry.values():
                raise DataError(f"{where}: has not as many fields as the first line; quote commas")
            found.append((where, entry))
    except csv.Error as error:
        raise DataError(f"{file}: is not CSV ({text_of(error)}); mend it") from None
    return found


def _note(where: str, entry: Mapping[Any, Any]) -> tuple[Key, LabelNote]:
    for name, value in entry.items():
        if name not in _COLUMNS:
            raise DataError(f"{where}: no field {name!r}: there are {', '.join(_COLUMNS)}")
        if not isinstance(value, str):
            raise DataError(f"{where}: {name}: {value!r} is not a text; quote it")
    for name in ("path", "key"):
        if not entry.get(name):
            raise DataError(f"{where}: {name} is missing")
    word = str(entry.get("label", "")).strip().lower()
    if word not in _MEANINGS:
        raise DataError(f"{where}: label: {word!r} is none of {', '.join(LABELS)}")
    rest = {name: entry.get(name, "").strip() for name in _OPTIONAL}
    return (entry["path"], entry["key"]), LabelNote(_MEANINGS[word], **rest)
