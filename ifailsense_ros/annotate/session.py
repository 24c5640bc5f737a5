"""What a person has said so far: kept in the file of labels after every key."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ifailsense_ros.annotate.episodes import Found
from ifailsense_ros.core.errors import ConfigError, DataError, text_of
from ifailsense_ros.evaluate.labels import LabelNote, bare_path, read_labels, write_labels

WORDS: dict[str, bool | None] = {"success": True, "failure": False, "unsure": None}
"""What can be said. An episode without an entry was not looked at yet."""
_NAMES = {label: word for word, label in WORDS.items()}


class Session:
    """Labels of a list of episodes, and the way back. Methods may be called from any thread.

    Entries of the file about other episodes stay in it. While the session is open, nobody else can
    open one on the same file.

    Args:
        episodes: in the order in which they are shown; at least one.
        file: of labels (.csv or .yaml); made by the first label.

    Raises:
        ConfigError: another session has the file, or its name ends otherwise.
        DataError: the file makes no sense, or its folder cannot be written to.
    """

    def __init__(self, episodes: Sequence[Found], file: Path) -> None:
        self.episodes = list(episodes)
        self.file = file
        self._mutex = threading.Lock()
        self._lock = _taken(file)
        try:
            self._notes = _labels_of(file)
        except BaseException:
            self.close()
            raise
        self._seen = _signature(file)
        known = {(_place(path, file.parent), key): (path, key) for path, key in self._notes}
        self._keys = [
            known.get((_place(e.path, Path()), e.key), (_written(e.path, file), e.key))
            for e in self.episodes
        ]
        self._undo: list[tuple[int, LabelNote | None]] = []

    def close(self) -> None:
        """Let others have the file."""
        _lock_path(self.file).unlink(missing_ok=True)  # while nobody else can have it
        self._lock.close()

    def label_of(self, number: int) -> str | None:
        """What was said of an episode; None: nothing yet."""
        note = self._notes.get(self._keys[number])
        return None if note is None else _NAMES[note.label]

    def counts(self) -> dict[str, int]:
        """How many of the session's episodes have which label, and how many `total` there are."""
        said = Counter(self.label_of(n) for n in range(len(self.episodes)))
        return {**{word: said[word] for word in WORDS}, "total": len(self.episodes)}

    def next_open(self, after: int = -1) -> int | None:
        """The first episode behind `after` that has no label, or the first of all; None: all have
        one.
        """
        open_ones = [n for n, key in enumerate(self._keys) if key not in self._notes]
        return next((n for n in open_ones if n > after), next(iter(open_ones), None))

    def label(self, number: int, word: str) -> None:
        """Say something of an episode, and save it.

        Raises:
            DataError: it could not be saved, and is not said then.
        """
        with self._mutex:
            key = self._keys[number]
            before = self._notes.get(key)
            note = before or LabelNote()
            if note.label is not WORDS[word]:
                # What class of failure it was is no longer known.
                note = dataclasses.replace(note, label=WORDS[word], kind="")
            self._save(key, note)
            self._undo.append((number, before))

    def undo(self) -> int | None:
        """Take the last label of this session back; returns its episode, or None.

        Raises:
            DataError: as `label`.
        """
        with self._mutex:
            if not self._undo:
                return None
            number, before = self._undo[-1]
            self._save(self._keys[number], before)
            self._undo.pop()
            return number

    def _save(self, key: tuple[str, str], note: LabelNote | None) -> None:
        if _signature(self.file) != self._seen:
            raise DataError(
                f"{self.file}: was changed by another program; end `ifailsense annotate` (Ctrl-C) "
                "and start it again, nothing but this label is lost"
            )
        changed = {k: n for k, n in self._notes.items() if k != key or note is not None}
        if note is not None:
            changed[key] = note
        write_labels(self.file, changed)
        self._notes, self._seen = changed, _signature(self.file)


def _labels_of(file: Path) -> dict[tuple[str, str], LabelNote]:
    """What a file holds; nothing where it is not there yet, if its name is one that can be."""
    try:
        return read_labels(file)
    except DataError:
        if file.exists():
            raise
        return {}


def _written(path: str, file: Path) -> str:
    """How a path stands in the file: relative to it where it was given relative; specs as given."""
    if bare_path(path) != path or os.path.isabs(path):
        return path
    return os.path.relpath(path, file.parent)


def _place(path: str, base: Path) -> str:
    return os.path.realpath(base / bare_path(path))


def _signature(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _lock_path(file: Path) -> Path:
    return file.with_name(f".{file.name}.lock")


def _taken(file: Path) -> IO[str]:
    """An open file that nobody else can take; freed when this process ends, however it does."""
    path = _lock_path(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({text_of(error)}); give another") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock.fileno()).st_ino != path.stat().st_ino:
            raise OSError("whoever had it has just ended")
    except OSError:
        lock.close()
        raise ConfigError(
            f"{file}: another `ifailsense annotate` has it open; end that one, or give another file"
        ) from None
    return lock
