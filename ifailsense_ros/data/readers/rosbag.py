"""rosbag2 folders (MCAP or sqlite3, raw or compressed pictures) as records.

Episodes begin and end where the bag's EpisodeEvents say so, or `episodes.yaml` in its folder
(data.bag_sidecar), which also gives labels; so does a topic of std_msgs/Bool. The pairs of an
episode and its keyframes are those of the live node.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ifailsense_ros.core.effects import TrackerConfig
from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import BagError, ConfigError, DataError, ImageError
from ifailsense_ros.core.keyframes import KeyframeBuffer
from ifailsense_ros.data.bag_sidecar import LABELS, EpisodeNote, read_sidecar
from ifailsense_ros.data.readers.bag_episodes import BagEpisode, PairSeen, find_episodes
from ifailsense_ros.data.readers.base import BaseReader
from ifailsense_ros.data.records import EXPERT, EpisodeRecord
from ifailsense_ros.data.rosbag import Bag, BagTopics, ImageRecorded, events_of, open_bag
from ifailsense_ros.data.task_categories import verb_category


@dataclass(frozen=True, eq=False)
class BagRecord(EpisodeRecord):
    """A record whose keyframes are chosen as the live node chooses them.

    A node does not know how long an episode will be: it keeps a bounded, evenly spaced sample of
    candidates, and passes over pictures that cannot be decoded. Up to 16 T pairs this is the plain
    even spacing.

    Attributes:
        origin_ns: stamp from which on pairs belong to the episode.
    """

    origin_ns: int = 0

    def keyframes(self, num_keyframes: int) -> tuple[Keyframe, ...]:
        """T time steps with all their views, decoded.

        Raises:
            DataError: fewer usable time steps, or the bag cannot be read.
        """
        config = TrackerConfig(num_keyframes=num_keyframes, min_keyframes=num_keyframes)
        usable = list(range(len(self.stamps_ns)))
        seen: dict[int, Keyframe] = {}
        fault = ""
        while len(usable) >= num_keyframes:
            buffer: KeyframeBuffer[int] = KeyframeBuffer(
                num_keyframes, config.candidates, self.origin_ns
            )
            for step in usable:
                buffer.add(self.stamps_ns[step], step)
            picks = [step for _, step in buffer.select()]
            try:
                for step in picks:
                    if step not in seen:
                        (seen[step],) = self.read((step,))
            except DataError as error:
                if not isinstance(error.__cause__, ImageError):
                    raise
                usable.remove(step)
                fault = f"; the last fault: {error}"
            else:
                return tuple(seen[step] for step in picks)
        raise DataError(
            f"{self.source} {self.key}: {num_keyframes} keyframes cannot be picked from "
            f"{len(usable)} usable pairs{fault}"
        )


class RosbagReader(BaseReader):
    """Reads a rosbag2 folder, a single .mcap or .db3 file, or a folder of rosbag2 folders.

    Args:
        path: of the bag or bags.
        keep_going: note bags and episodes that cannot be read in `problems` and go on.
        exo, gripper, instruction, episode, success: topics, see `BagTopics`.
        num_pov: N, 1 or 2; with 1 no gripper camera is looked for.
        label: "success" or "failure", of episodes that have none; "": unknown.

    Attributes:
        topics: where the monitor's inputs are.
        default_label: of episodes that have none.

    Raises:
        ConfigError: an option with a value it cannot have.
        DataError: no such path, or (without `keep_going`, while iterating) no bag in it, a bag
            that cannot be read or an episode that could not be judged.
    """

    source = "rosbag"

    def __init__(
        self,
        path: str | Path,
        *,
        keep_going: bool = False,
        exo: str = BagTopics.exo,
        gripper: str = BagTopics.gripper,
        instruction: str = BagTopics.instruction,
        episode: str = BagTopics.episode,
        success: str = BagTopics.success,
        num_pov: int | str = 2,
        label: str = "",
    ) -> None:
        super().__init__(path, keep_going=keep_going)
        if str(num_pov) not in ("1", "2"):
            raise ConfigError(f"num_pov={num_pov}: there can be 1 PoV (exocentric) or 2")
        if label and label not in LABELS:
            raise ConfigError(f"label={label}: must be one of {', '.join(LABELS)}")
        self.topics = BagTopics(exo, gripper, instruction, episode, success)
        self._num_pov = int(num_pov)
        self.default_label = LABELS[label] if label else None

    def records(self) -> Iterator[EpisodeRecord]:
        """The records, bag by bag in the order of their paths."""
        for bag in self.bags():
            with self.noting(bag):
                try:
                    yield from self._records_of(bag)
                except BagError as error:
                    raise DataError(str(error)) from error

    def bags(self) -> list[Path]:
        """The bags there are, in the order of their paths.

        Raises:
            DataError: none.
        """
        if self.path.is_file():
            return [self.path]
        found, seen = [], set()
        for folder, below, files in os.walk(self.path, followlinks=True):
            below.sort()
            place = os.path.realpath(folder)
            if place in seen:  # two links to one folder, or a link to a folder above
                below.clear()
                continue
            seen.add(place)
            # Without its metadata.yaml (the recorder was killed) a bag is refused by name.
            if any(name == "metadata.yaml" or name.endswith((".mcap", ".db3")) for name in files):
                below.clear()
                found.append(Path(folder))
        if not found:
            raise DataError(f"{self.path}: no rosbag2 in it (metadata.yaml, *.mcap or *.db3)")
        return sorted(found)

    def name_of(self, bag: Path) -> str:
        """What a bag's episodes are named by: its place below the folder of bags, or its own
        name.
        """
        return bag.resolve().name if bag == self.path else bag.relative_to(self.path).as_posix()

    def _records_of(self, bag: Path) -> Iterator[EpisodeRecord]:
        sidecar = read_sidecar(bag if bag.is_dir() else bag.parent)
        name = self.name_of(bag)
        episodes = find_episodes(bag, sidecar, self.topics, self._num_pov)
        for number, episode in enumerate(episodes):
            where = f"{bag}: episode {number}"
            with self.noting(where):
                if not episode.pairs:
                    judgement = episode.verdict.judgement
                    raise DataError(f"{where}: {judgement.reason.name}: {judgement.detail}")
                yield self._record(bag, name, number, episode, sidecar.stamp_offset_ns)

    def _record(
        self, bag: Path, name: str, number: int, episode: BagEpisode, offset_ns: int
    ) -> BagRecord:
        note, instruction = episode.note, episode.verdict.instruction
        labels = (note.success, episode.label, self.default_label)
        success = next((label for label in labels if label is not None), None)
        stamps = tuple(pair.stamps_ns[0] - offset_ns for pair in episode.pairs)
        start_ns = episode.start_ns - offset_ns

        def read(steps: Sequence[int]) -> tuple[Keyframe, ...]:
            try:
                with open_bag(bag) as opened:
                    return tuple(
                        Keyframe(stamps[step], self._views(opened, episode.pairs[step]))
                        for step in steps
                    )
            except BagError as error:
                raise DataError(str(error)) from error

        return BagRecord(
            source=self.source,
            key=key_of(self.path, name, number, note),
            # The episodes of one bag share a session.
            group=note.group or name,
            instruction=instruction,
            **facts_of(note, instruction, success),
            success=success,
            stamps_ns=stamps,
            num_pov=self._num_pov,
            read=read,
            twin=f"{self.path.resolve().name}/{note.twin}" if note.twin else None,
            start_ns=start_ns,
            end_ns=episode.end_ns - offset_ns,
            origin_ns=start_ns - TrackerConfig.pre_roll_ns,
        )

    def _views(self, bag: Bag, pair: PairSeen) -> tuple[np.ndarray, ...]:
        topics = dataclasses.replace(self.topics, episode="")
        views = []
        for wanted in enumerate(pair.stamps_ns):
            received = (pair.receive_ns[wanted[0]],) * 2
            events = events_of(bag, topics, num_pov=self._num_pov, received=received)
            pictures = (e for e in events if isinstance(e, ImageRecorded))
            picture = next((p for p in pictures if (p.pov, p.stamp_ns) == wanted), None)
            if picture is None:
                raise DataError(
                    f"{bag.path}: the picture stamped {wanted[1]} ns is gone: read anew"
                )
            try:
                views.append(picture.picture.decode())
            except ImageError as error:
                raise DataError(
                    f"{bag.path}: the picture stamped {wanted[1]} ns: {error}"
                ) from error
        return tuple(views)


def key_of(path: Path, name: str, number: int, note: EpisodeNote) -> str:
    """The key of an episode.

    Args:
        path: of the bag or the folder of bags.
        name: of its bag, see `RosbagReader.name_of`.
        number: of the episode in its bag.
        note: the sidecar's.
    """
    return f"{path.resolve().name}/{note.key}" if note.key else f"{name}/{number}"


def facts_of(note: EpisodeNote, instruction: str, success: bool | None) -> dict[str, str]:
    """`task`, `category` and `kind` of an episode: the sidecar's, or what can be told without it.

    Without task names an episode did what its sentence says, or not.
    """
    return {
        "task": note.task or (instruction.lower().rstrip(" .") if success else ""),
        "category": note.category or verb_category(instruction),
        "kind": note.kind or (EXPERT if success else ""),
    }
