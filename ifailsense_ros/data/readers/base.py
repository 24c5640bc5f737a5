"""What the readers share: problems noted instead of raised, and files read with one clear error."""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ifailsense_ros.core.errors import ConfigError, DataError, ImageError, text_of
from ifailsense_ros.core.images import decode_compressed
from ifailsense_ros.data.records import EpisodeRecord, Problem


class BaseReader(ABC):
    """An `EpisodeReader` over a file or folder. Making one looks only whether the path is there.

    Attributes:
        source: name of the data set, the same for every reader of a format.
        path: what is read.
        keep_going: parts that cannot be read are noted in `problems`, and the rest is read.
        problems: what was left out so far, and why.

    Raises:
        DataError: there is no such path.
    """

    source: str

    def __init__(self, path: str | Path, *, keep_going: bool = False) -> None:
        self.path = Path(path)
        self.keep_going = keep_going
        self.problems: list[Problem] = []
        if not self.path.exists():
            raise DataError(f"{self.path}: no such file or folder; give the data set's own folder")

    def __iter__(self) -> Iterator[EpisodeRecord]:
        """The records, in the order of the data set; `problems` starts anew."""
        self.problems = []
        return self.records()

    @abstractmethod
    def records(self) -> Iterator[EpisodeRecord]:
        """The records; what may fail stands inside `with self.noting(...)`."""

    @contextmanager
    def noting(self, where: str | Path) -> Iterator[None]:
        """Ends the block at a DataError; raises it only if the reader does not `keep_going`.

        What is raised names `where`, whether or not the error did. `yield` may stand inside: what a
        consumer does with a record raises outside of it. Those who decode pictures use it too, so
        that a corrupt one is listed with everything else.

        Args:
            where: file, and the episode in it if there are several.
        """
        try:
            yield
        except DataError as error:
            if self.keep_going:
                self.problems.append(Problem(str(where), str(error).removeprefix(f"{where}: ")))
            elif str(where) in str(error):
                raise
            else:
                raise DataError(f"{where}: {error}") from error


def need(module: str, what: str, package: str | None = None) -> Any:
    """Import a reader's own package, which is an extra.

    Not a DataError, since all episodes lack it: `keep_going` does not list it once for each.

    Args:
        module: to import.
        what: cannot be read without it ("DROID's trajectory.h5").
        package: its name on PyPI, where that differs.

    Raises:
        ConfigError: it is not installed, or broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{what} needs {module}, which cannot be imported ({text_of(error)}): "
            f"pip install {package or module}"
        ) from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: missing, unreadable, or not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; copy the data set again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({text_of(error)})") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"{path}: is not JSON ({text_of(error)}); copy the data set again"
        ) from error


def read_picture(path: Path) -> np.ndarray:
    """A PNG or JPEG file as uint8 RGB (H, W, 3).

    Raises:
        DataError: missing, truncated, or neither PNG nor JPEG.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; copy the data set again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({text_of(error)})") from error
    return decode_picture(data, str(path))


def decode_picture(data: bytes, where: str) -> np.ndarray:
    """PNG or JPEG bytes as uint8 RGB (H, W, 3).

    Args:
        data: the file's content.
        where: file and field, for the error.

    Raises:
        DataError: truncated, neither PNG nor JPEG, or of an absurd size.
    """
    try:
        return decode_compressed("", data)
    except ImageError as error:
        reason = str(error).removeprefix("compressed image of format '': ").partition(": ")[0]
        raise DataError(f"{where}: {reason}; copy the data set again") from error
