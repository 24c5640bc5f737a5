"""Episodes between START and their freezing: what each knows of itself, and which there are."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ifailsense_ros.core.effects import Boundary, BoundaryKind, TrackerConfig
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.recording import Frame, Recording, to_keyframes


@dataclass(eq=False)
class OpenEpisode:
    """An episode that is running or ending.

    Attributes:
        config: the tracker's when it started: no rule changes between START and END.
        request_id: number of its START.
        episode_id: its id.
        started_now: steady time of START.
        named_until: steady time until which the topic may still name its instruction.
        recording: its pairs.
        instruction: normalised; may be empty.
        instruction_given: START brought it; otherwise it is from the topic.
        absent_cameras: that were silent when START came, and have sent nothing since.
        warned_now: steady time of START, or of its last turn for an early warning.
        ended_now: steady time of END.
        silent_cameras: that were silent when END came, and sent no picture of before END since.
    """

    config: TrackerConfig
    request_id: int
    episode_id: uuid.UUID
    started_now: int
    named_until: int
    recording: Recording
    instruction: str = ""
    instruction_given: bool = False
    absent_cameras: list[str] = field(default_factory=list)
    warned_now: int = 0
    ended_now: int = 0
    silent_cameras: list[str] = field(default_factory=list)

    @property
    def end_ns(self) -> int:
        """Stamp of END, which must be known."""
        assert self.recording.end_ns is not None
        return self.recording.end_ns

    def is_too_long(self, now_ns: int) -> bool:
        """Whether it has run for as long as it may."""
        timeout_ns = self.config.episode_timeout_ns
        return bool(timeout_ns) and now_ns >= self.started_now + timeout_ns

    def name(self, text: str, now_ns: int) -> bool:
        """Take an instruction from the topic if it is not too late for that."""
        if self.instruction_given or now_ns > self.named_until:
            return False
        self.instruction = text
        return True

    def agrees(self, text: str, now_ns: int) -> bool:
        """Whether a text on the topic does not mean that the instruction has changed. Shortly
        after START it never does: a latched one may arrive late.
        """
        return now_ns <= self.named_until or not self.instruction or text == self.instruction

    def is_named(self, now_ns: int) -> bool:
        """Whether no later text can become its instruction."""
        return self.instruction_given or now_ns >= self.named_until

    def begins_at(self, stamp_ns: int | None, margin_ns: int) -> bool:
        """Whether it began in the time after a jump to this stamp: START overtook the pictures."""
        if stamp_ns is None or len(self.recording):
            return False
        return abs(self.recording.start_ns - stamp_ns) <= margin_ns

    def end(self, kind: BoundaryKind, end_ns: int, now_ns: int) -> Boundary:
        """The episode is over."""
        self.recording.end_ns, self.ended_now = end_ns, now_ns
        return self.boundary(kind, end_ns)

    def boundary(self, kind: BoundaryKind, stamp_ns: int) -> Boundary:
        """One of its boundaries, to be told to others."""
        return Boundary(kind, self.episode_id, stamp_ns, self.instruction)

    def frozen(self, frames: Iterable[Frame] = ()) -> Episode:
        """The immutable Episode with these keyframes."""
        start_ns = self.recording.start_ns
        return Episode(
            self.episode_id, self.instruction, to_keyframes(frames), start_ns, self.end_ns
        )

    def so_far(self, frames: Sequence[Frame]) -> Episode:
        """What is known before END, as an Episode that ends with the last of these keyframes."""
        start_ns, end_ns = self.recording.start_ns, frames[-1].stamp_ns
        return Episode(self.episode_id, self.instruction, to_keyframes(frames), start_ns, end_ns)


class OpenEpisodes:
    """At most one episode is running; several may be ending.

    Args:
        counters: of STARTs, and of events that address no running episode; shared with the
            tracker.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self.running: OpenEpisode | None = None
        self.ending: list[OpenEpisode] = []
        self._counters = counters
        self._last_request = 0
        self._ended_ids: deque[uuid.UUID] = deque(maxlen=32)

    def __iter__(self) -> Iterator[OpenEpisode]:
        return iter([*self.ending, self.running] if self.running else self.ending)

    def begin(
        self, config: TrackerConfig, start_ns: int, now_ns: int, episode_id: uuid.UUID
    ) -> OpenEpisode:
        """START of an episode, which is the running one from now on; returns it."""
        self._last_request += 1
        self._counters["starts"] += 1
        self.running = OpenEpisode(
            config=config,
            request_id=self._last_request,
            episode_id=episode_id,
            started_now=now_ns,
            named_until=now_ns + config.instruction_grace_ns,
            recording=Recording(
                start_ns, config.pre_roll_ns, config.num_keyframes, config.candidates
            ),
            warned_now=now_ns,
        )
        return self.running

    def heard(self, camera: str, stamp_ns: int | None = None, fault: str = "") -> None:
        """A camera sent a picture, or something that was no picture and has no stamp."""
        running = self.running
        if not (self.ending or fault or (running and running.absent_cameras)):
            return  # as of nearly every picture: nothing is noted
        for episode in self:
            if camera in episode.absent_cameras:
                episode.absent_cameras.remove(camera)
            # Events overtake pictures: the camera had spoken before END, and END came first.
            silent = camera in episode.silent_cameras
            if silent and stamp_ns is not None and stamp_ns <= episode.end_ns:
                episode.silent_cameras.remove(camera)
            if fault:
                episode.recording.note_fault(fault)

    def addressed(self, event: str, episode_id: uuid.UUID | None) -> OpenEpisode | None:
        """The running episode if the event means it; otherwise the event is counted."""
        if self.running and episode_id in (None, self.running.episode_id):
            self._counters[f"{event}s"] += 1
            return self.running
        if episode_id in self._ended_ids:
            self._counters[f"{event}_repeated"] += 1
        else:
            self._counters[f"{event}_other_id" if self.running else f"{event}_without_start"] += 1
        return None

    def over(self) -> None:
        """The running episode runs no more."""
        assert self.running is not None
        self._ended_ids.append(self.running.episode_id)
        self.running = None

    def take_ending(self, ready: Callable[[OpenEpisode], bool]) -> list[OpenEpisode]:
        """Remove the ending episodes that are ready; returns them, oldest first."""
        taken = [episode for episode in self.ending if ready(episode)]
        self.ending = [episode for episode in self.ending if episode not in taken]
        return taken
