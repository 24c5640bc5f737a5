"""An episode between START and its freezing: what it knows of itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from ifailsense_ros.core.effects import Boundary, BoundaryKind
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.recording import Frame, Recording, to_keyframes


@dataclass(eq=False)
class OpenEpisode:
    """An episode that is running or ending.

    Attributes:
        request_id: number of its START.
        episode_id: its id.
        instruction: normalised; may be empty.
        instruction_given: START brought it; otherwise it is from the topic.
        started_now: steady time of START.
        named_until: steady time until which the topic may still name its instruction.
        recording: its pairs.
        absent_cameras: that have sent nothing since START.
        ended_now: steady time of END.
        silent_cameras: that were silent when END came.
    """

    request_id: int
    episode_id: uuid.UUID
    instruction: str
    instruction_given: bool
    started_now: int
    named_until: int
    recording: Recording
    absent_cameras: set[str]
    ended_now: int = 0
    silent_cameras: list[str] = field(default_factory=list)

    @property
    def end_ns(self) -> int:
        """Stamp of END, which must be known."""
        assert self.recording.end_ns is not None
        return self.recording.end_ns

    def name(self, text: str, now_ns: int) -> bool:
        """Take an instruction from the topic if it is not too late for that."""
        if self.instruction_given or now_ns > self.named_until:
            return False
        self.instruction = text
        return True

    def contradicts(self, text: str, now_ns: int) -> bool:
        """Whether a text on the topic means that the instruction has changed. Shortly after START
        it does not: a latched one may arrive late.
        """
        if now_ns <= self.named_until or not self.instruction:
            return False
        return text != self.instruction

    def is_named(self, now_ns: int) -> bool:
        """Whether no later text can become its instruction."""
        return self.instruction_given or now_ns >= self.named_until

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
