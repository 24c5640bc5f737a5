"""Which episodes a bag holds, and which pairs belong to each: what the live tracker says of it.

The bag is replayed through the tracker and the pairing of the live node, without decoding a
picture.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ifailsense_ros.core.effects import BoundaryKind, TrackerConfig
from ifailsense_ros.core.episode import POV_NAMES, Episode
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.core.pairing import Pair
from ifailsense_ros.core.recording import Decode
from ifailsense_ros.core.verdict import Judgement, Outcome, Verdict
from ifailsense_ros.data.bag_sidecar import EpisodeNote, Sidecar
from ifailsense_ros.data.replay import BagReplay
from ifailsense_ros.data.rosbag import (
    BagEvent,
    BagTopics,
    BoundaryRecorded,
    ImageRecorded,
    read_events,
)

_KEPT_PAIRS = 1024
"""Pairs remembered between episodes; the tracker itself looks back 32."""


@dataclass(frozen=True)
class PairSeen:
    """Where in a bag a pair is: header stamp and receive time of each camera's picture."""

    stamps_ns: tuple[int, ...]
    receive_ns: tuple[int, ...]


@dataclass(frozen=True)
class BagEpisode:
    """A started episode.

    Attributes:
        verdict: the tracker's; UNKNOWN, with its reason, where a detector would not have been
            asked. Its SUCCESS means nothing else.
        start_ns, end_ns: stamps of START and END.
        pairs: that belong to it, in order; empty where the verdict is UNKNOWN.
        note: what the sidecar says of it.
        label: what the success topic says of it; None: nothing.
    """

    verdict: Verdict
    start_ns: int = 0
    end_ns: int = 0
    pairs: tuple[PairSeen, ...] = ()
    note: EpisodeNote = field(default_factory=EpisodeNote)
    label: bool | None = None


def find_episodes(
    bag: Path, sidecar: Sidecar, topics: BagTopics, num_pov: int
) -> Iterator[BagEpisode]:
    """The started episodes of a bag.

    Args:
        bag: rosbag2 folder or file.
        sidecar: of its folder; with times, it and not the episode topic bounds the episodes.
        topics: names in the bag.
        num_pov: N.

    Raises:
        BagError: the bag cannot be read, or lacks a topic.
        DataError: the sidecar does not fit the bag.
    """
    scan = _Scan(num_pov)
    if sidecar.bounds_episodes:
        topics = dataclasses.replace(topics, episode="")
    events: Iterable[BagEvent] = read_events(bag, topics, num_pov=num_pov, labels=True)
    if sidecar.bounds_episodes:
        events = with_boundaries(events, sidecar)
    found = list(scan.run(events))
    notes = notes_for(bag, [episode.verdict.episode_id for episode in found], sidecar)
    for episode, note in zip(found, notes, strict=True):
        label = scan.labels.get(episode.verdict.episode_id)
        yield dataclasses.replace(episode, note=note, label=label)


class _Scan:
    """A replay whose pairs give their number instead of pictures."""

    def __init__(self, num_pov: int) -> None:
        self._num_pov = num_pov
        self._pairs: list[PairSeen] = []
        self._first_kept = 0
        self._judged: deque[tuple[PairSeen, ...]] = deque()
        # First and last keyframe are the first and last pair of an episode, whatever T is.
        config = TrackerConfig(num_keyframes=2, min_keyframes=2, cameras=POV_NAMES[:num_pov])
        self._replay = BagReplay(config, self._judge, decoder=self._remember)
        self.labels = self._replay.labels

    def run(self, events: Iterable[BagEvent]) -> Iterator[BagEpisode]:
        """Every started episode, in the order of their verdicts."""
        for published in self._replay.run(events):
            episode = published.episode
            if episode is None:
                yield BagEpisode(published.verdict)
            else:
                members = self._judged.popleft()
                yield BagEpisode(published.verdict, episode.start_ns, episode.end_ns, members)

    def _remember(self, pair: Pair) -> Decode:
        if self._replay.tracker.idle and len(self._pairs) > 2 * _KEPT_PAIRS:
            self._first_kept += len(self._pairs) - _KEPT_PAIRS
            del self._pairs[:-_KEPT_PAIRS]
        number = np.array([self._first_kept + len(self._pairs)])
        self._pairs.append(PairSeen(pair.stamps_ns, tuple(m.receive_ns for m in pair.messages)))
        return lambda: [number] * self._num_pov

    def _judge(self, episode: Episode) -> Judgement:
        first, last = (int(k.views[0][0]) - self._first_kept for k in episode.keyframes)
        # Pairs come in the order of their stamps: all between the two belong to it as well.
        self._judged.append(tuple(self._pairs[first : last + 1]))
        return Judgement(Outcome.SUCCESS, p_success=1.0)


def with_boundaries(events: Iterable[BagEvent], sidecar: Sidecar) -> Iterator[BagEvent]:
    """Put START and END of the sidecar's episodes between the pictures of a bag.

    A boundary comes right before the first picture that is not older than it; the tracker knows
    pictures that came too early for it.
    """
    waiting: deque[BoundaryRecorded] | None = None
    receive_ns = 0
    for event in events:
        if isinstance(event, ImageRecorded):
            receive_ns = event.receive_ns
            if waiting is None and event.pov == 0:
                notes = sidecar.episodes
                waiting = deque(b for note in notes for b in _boundaries(note, event.stamp_ns))
            while waiting and waiting[0].stamp_ns <= event.stamp_ns:
                yield dataclasses.replace(waiting.popleft(), receive_ns=receive_ns)
        yield event
    for boundary in waiting or ():
        yield dataclasses.replace(boundary, receive_ns=receive_ns)


def _boundaries(note: EpisodeNote, first_ns: int) -> Iterator[BoundaryRecorded]:
    start, end = note.span_ns(first_ns)
    identifier = note.episode_id or uuid.uuid5(uuid.NAMESPACE_OID, f"{start} {end}")
    yield BoundaryRecorded(0, start, BoundaryKind.START, identifier, note.instruction)
    yield BoundaryRecorded(0, end, BoundaryKind.END, identifier, note.instruction)


def notes_for(bag: Path, found: Sequence[uuid.UUID], sidecar: Sidecar) -> list[EpisodeNote]:
    """The sidecar's entry about each episode; an empty one where there is none.

    Args:
        bag: for the error.
        found: ids of the bag's episodes, in the order of their verdicts.
        sidecar: of its folder.

    Raises:
        DataError: the sidecar does not fit the bag.
    """
    notes = sidecar.episodes
    if not notes:
        return [EpisodeNote()] * len(found)
    if not sidecar.bounds_episodes and notes[0].episode_id is not None:
        by_id = {note.episode_id: note for note in notes}
        unknown = set(by_id) - set(found)
        if unknown:
            raise DataError(
                f"{bag}: the sidecar names episode_id {min(map(str, unknown))}, which is not in "
                "the bag: mend it"
            )
        return [by_id.get(identifier, EpisodeNote()) for identifier in found]
    if len(notes) != len(found):
        raise DataError(
            f"{bag}: {len(notes)} entries in the sidecar, {len(found)} episodes in the bag: name "
            "them by episode_id"
        )
    return list(notes)
