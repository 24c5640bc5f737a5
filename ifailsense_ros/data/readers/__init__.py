"""Readers of recorded episodes: each format becomes `EpisodeRecord`s (see data.records).

A reader is named by a spec, ``name:path``, to which options of the reader can be added:
``lerobot:/data/set?exo=observation.images.top``.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from urllib.parse import parse_qsl

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.records import EpisodeReader

READERS: dict[str, str] = {
    "aha": "ifailsense_ros.data.readers.aha:AhaReader",
    "authors": "ifailsense_ros.data.readers.authors:AuthorsReader",
    "calvin": "ifailsense_ros.data.readers.calvin:CalvinReader",
    "droid": "ifailsense_ros.data.readers.droid:DroidReader",
    "lerobot": "ifailsense_ros.data.readers.lerobot:LerobotReader",
    "rosbag": "ifailsense_ros.data.readers.rosbag:RosbagReader",
    "store": "ifailsense_ros.data.readers.store:StoreReader",
}
"""Name of the format -> module and class."""


def parse_spec(spec: str) -> tuple[str, str, dict[str, str]]:
    """Name of the format, path and options of a spec.

    Raises:
        ConfigError: not a spec, or no such format.
    """
    name, colon, rest = spec.partition(":")
    if not colon or not rest or name not in READERS:
        raise ConfigError(
            f"{spec!r} is not a data set: give name:path, with one of the names "
            f"{', '.join(sorted(READERS))}"
        )
    if "?" not in rest or Path(rest).exists():
        return name, rest, {}
    path, _, query = rest.partition("?")
    return name, path, dict(parse_qsl(query, keep_blank_values=True))


def open_reader(spec: str, keep_going: bool = False) -> EpisodeReader:
    """The reader that a spec names.

    Args:
        spec: ``name:path`` or ``name:path?option=value&option=value``.
        keep_going: list what cannot be read in `problems` instead of raising.

    Raises:
        ConfigError: not a spec, no such format, or no such option.
        DataError: no such path, or not a data set of that format.
    """
    name, path, options = parse_spec(spec)
    module, _, attribute = READERS[name].partition(":")
    reader = getattr(importlib.import_module(module), attribute)
    known = set(inspect.signature(reader).parameters) - {"path", "keep_going"}
    for option in options:
        if option not in known:
            there = ", ".join(sorted(known)) or "no options"
            raise ConfigError(f"{spec!r}: {name} has no option {option!r}: it has {there}")
    return reader(path, keep_going=keep_going, **options)
