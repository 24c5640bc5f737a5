"""Which episodes of a LeRobotDataset go into a copy of it, and where they will be there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.readers.lerobot_meta import (
    LerobotInfo,
    VideoPart,
    entry_of,
    episode_files,
    episode_rows,
    read_info,
)

SUCCESS = "next.success"
LABEL_NAMES = (SUCCESS, "success", "is_episode_successful")
"""Columns that hold a data set's own labels, of its rows or its episodes."""


@dataclass(frozen=True)
class KeptEpisode:
    """An episode that goes into the copy.

    Attributes:
        old, new: its number in the data set and in the copy.
        length: time steps.
        start: number of its first row in the copy.
        data: file of its rows, in the data set.
        videos: camera -> part of a video, in the data set.
    """

    old: int
    new: int
    length: int
    start: int
    data: Path
    videos: Mapping[str, VideoPart]


@dataclass(frozen=True)
class CopyPlan:
    """What a copy will hold.

    Attributes:
        info: of the data set.
        content: of its meta/info.json.
        kept: old number -> episode, in the order of the new numbers.
        members: file of rows or of a video -> how many episodes of the data set are in it.
        total: episodes of the data set.
        own_labels: names of the columns that hold labels already.
    """

    info: LerobotInfo
    content: Mapping[str, Any]
    kept: Mapping[int, KeptEpisode]
    members: Mapping[Path, int]
    total: int
    own_labels: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is dropped."""
        return len(self.kept) == self.total

    @property
    def videos(self) -> tuple[str, ...]:
        """Cameras that are stored as video, depth included."""
        return video_keys(self.info)

    def by_file(self) -> dict[Path, list[KeptEpisode]]:
        """Files of rows in order, and the kept episodes of each."""
        files: dict[Path, list[KeptEpisode]] = {}
        for episode in sorted(self.kept.values(), key=lambda e: (e.data, e.start)):
            files.setdefault(episode.data, []).append(episode)
        return files

    def by_video(self) -> dict[tuple[str, Path], list[KeptEpisode]]:
        """Cameras and videos, and the kept episodes of each."""
        files: dict[tuple[str, Path], list[KeptEpisode]] = {}
        for episode in self.kept.values():
            for key, part in episode.videos.items():
                files.setdefault((key, part.path), []).append(episode)
        return files


def video_keys(info: LerobotInfo) -> tuple[str, ...]:
    """Features that are stored as video."""
    return tuple(key for key, f in info.features.items() if f["dtype"] == "video")


def plan_copy(root: Path, keep: Callable[[int], bool]) -> CopyPlan:
    """Plan the copy of a data set.

    Args:
        root: of the data set.
        keep: whether the episode of this number goes into the copy.

    Raises:
        DataError: not a LeRobotDataset that can be read, or no episode is kept.
    """
    info = read_info(root)
    content = json.loads((root / "meta" / "info.json").read_text("utf-8"))
    found: list[tuple[Path, int, KeptEpisode]] = []
    members: dict[Path, int] = {}
    labels = {name for name in LABEL_NAMES if name in info.features}
    total = 0
    for row in rows_of(info):
        index = row.get("episode_index")
        if not isinstance(index, int) or not isinstance(row.get("length"), int):
            raise DataError(f"{root}: an episode of the metadata has no number or no length")
        labels |= {name for name in LABEL_NAMES if row.get(name) is not None}
        total += 1
        kept_too = keep(index)
        try:
            entry = entry_of(info, row, video_keys(info))
        except DataError:
            if kept_too:
                raise
            continue  # what is missing of it is dropped anyway
        for file in (entry.data, *(part.path for part in entry.videos.values())):
            members[file] = members.get(file, 0) + 1
        if kept_too:
            order = row.get("dataset_from_index", index)
            episode = KeptEpisode(index, 0, row["length"], 0, entry.data, entry.videos)
            found.append((entry.data, order, episode))
    if not found:
        raise ConfigError(f"{root}: no episode would be left: keep other verdicts")
    if len({episode.old for _, _, episode in found}) < len(found):
        raise DataError(f"{root}: two episodes have the same number; copy it again")
    numbers = {old: new for new, old in enumerate(sorted(e.old for _, _, e in found))}
    kept: dict[int, KeptEpisode] = {}
    start = 0
    for _, _, e in sorted(found, key=lambda item: item[:2]):
        new = numbers[e.old]
        kept[e.old] = KeptEpisode(e.old, new, e.length, start, e.data, e.videos)
        start += e.length
    return CopyPlan(
        info, content, dict(sorted(kept.items())), members, total, tuple(sorted(labels))
    )


def rows_of(info: LerobotInfo) -> Iterator[dict[str, Any]]:
    """What the metadata say of each episode, without statistics.

    Raises:
        DataError: a file cannot be read.
    """
    for file in episode_files(info):
        yield from episode_rows(file)


def copied_splits(plan: CopyPlan) -> dict[str, str]:
    """The splits of info.json ("0:80") in the numbers of the copy."""
    splits = {}
    for name, text in dict(plan.content.get("splits") or {}).items():
        first, _, end = str(text).partition(":")
        if not (first.isdecimal() and end.isdecimal()):
            continue
        numbers = [sum(old < int(bound) for old in plan.kept) for bound in (first, end)]
        splits[name] = f"{numbers[0]}:{numbers[1]}"
    return splits or {"train": f"0:{len(plan.kept)}"}
