"""What the tracker is told once (its settings) and what it asks for (its effects)."""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass
from typing import TypeAlias

from ifailsense_ros.core.episode import POV_NAMES, Episode
from ifailsense_ros.core.verdict import Verdict

MILLISECOND = 1_000_000
SECOND = 1_000_000_000


class InstructionChange(enum.Enum):
    """What a different instruction on the topic does to a running episode."""

    UNKNOWN = "unknown"
    """The episode is settled at once: UNKNOWN, INSTRUCTION_CHANGED."""
    END = "end"
    """It is the episode's END, at the newest stamp seen; the episode is judged."""
    IGNORE = "ignore"
    """Nothing; the new instruction is for the next episode."""


@dataclass(frozen=True)
class TrackerConfig:
    """Settings of the tracker. Durations in nanoseconds; each says by which clock it is measured.

    Attributes:
        num_keyframes: T of the checkpoint.
        min_keyframes: an episode with fewer pairs is UNKNOWN; between this and T, keyframes are
            repeated to make T.
        cameras: names of the cameras in PoV order; for messages to people.
        pre_roll_ns: stamps; pairs from this long before START belong to the episode.
        end_grace_ns: steady clock; longest wait after END for pairs still on their way.
        instruction_grace_ns: steady clock; an instruction this long after START still counts.
        instruction_change: see `InstructionChange`.
        camera_stale_ns: stamps; the first pair must come this soon after START, the last pair must
            be no older than this at END.
        camera_silent_ns: steady clock; at END every camera must have sent within this time.
        detector_timeout_ns: steady clock; longest judgement.
        detector_start_timeout_ns: steady clock; longest wait of an episode for a detector that
            is not ready.
        episode_timeout_ns: steady clock; a running episode ends by itself; 0: never.
        provisional_period_ns: steady clock; a running episode is judged on what it has each time
            this has passed; 0: never.
        queue_size: episodes that may wait for judgement.
        buffer_capacity: keyframe candidates kept per episode, at least 2 T; 0: 16 T.
        recent_count: most undecoded pairs kept for late START and END events.
        recent_span_ns: stamps; undecoded pairs are kept for this long.
        drain_after_ns: steady clock; without any picture for this long, late events are no longer
            waited for, and the recent pairs are passed on.
        jump_back_ns: stamps; a camera (or START) this much older than its newest means that time
            has jumped back.
    """

    num_keyframes: int = 4
    min_keyframes: int = 4
    cameras: tuple[str, ...] = POV_NAMES
    pre_roll_ns: int = 200 * MILLISECOND
    end_grace_ns: int = 300 * MILLISECOND
    instruction_grace_ns: int = 500 * MILLISECOND
    instruction_change: InstructionChange = InstructionChange.UNKNOWN
    camera_stale_ns: int = 1 * SECOND
    camera_silent_ns: int = 2 * SECOND
    detector_timeout_ns: int = 60 * SECOND
    detector_start_timeout_ns: int = 120 * SECOND
    episode_timeout_ns: int = 0
    provisional_period_ns: int = 0
    queue_size: int = 8
    buffer_capacity: int = 0
    recent_count: int = 32
    recent_span_ns: int = 1 * SECOND
    drain_after_ns: int = 5 * SECOND
    jump_back_ns: int = 1 * SECOND

    def __post_init__(self) -> None:
        if not 1 <= self.min_keyframes <= self.num_keyframes:
            raise ValueError(
                f"min_keyframes is {self.min_keyframes}, must be in 1..{self.num_keyframes}"
            )
        if not self.cameras:
            raise ValueError("cameras: at least one is needed")
        if 0 < self.buffer_capacity < 2 * self.num_keyframes:
            raise ValueError(
                f"buffer_capacity is {self.buffer_capacity}, "
                f"must be at least {2 * self.num_keyframes} for {self.num_keyframes} keyframes"
            )
        for name in ("queue_size", "recent_count", "jump_back_ns"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name in vars(self):
            if name.endswith("_ns") and getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must not be negative")

    @property
    def candidates(self) -> int:
        """`buffer_capacity`, with its default filled in."""
        return self.buffer_capacity or 16 * self.num_keyframes


@dataclass(frozen=True, eq=False)
class Judge:
    """Have the detector judge this; answer with `Tracker.result`.

    Attributes:
        request_id: one per accepted START; ids of episodes may come twice (bag loops), this not.
        episode: frozen, keyframes at the model's cell size.
    """

    request_id: int
    episode: Episode


@dataclass(frozen=True, eq=False)
class JudgeProvisional:
    """Have the detector judge what a running episode has so far; answer as to `Judge`.

    Attributes:
        request_id: negative, so that it is never one of an episode.
        episode: a snapshot.
    """

    request_id: int
    episode: Episode


@dataclass(frozen=True)
class Abandon:
    """The detector took too long over this request: stop it, then `Tracker.detector_ready`."""

    request_id: int


@dataclass(frozen=True, eq=False)
class Publish:
    """A final verdict; exactly one comes for every accepted START.

    Attributes:
        request_id: of the episode.
        verdict: to publish.
        episode: what was judged; None when it did not come to that.
    """

    request_id: int
    verdict: Verdict
    episode: Episode | None = None


@dataclass(frozen=True, eq=False)
class PublishProvisional:
    """An early warning about the episode that is running; its final verdict is still to come.

    Attributes:
        request_id: of the episode.
        verdict: its `end_ns` is the stamp of the newest keyframe.
        episode: the snapshot that was judged.
    """

    request_id: int
    verdict: Verdict
    episode: Episode


class BoundaryKind(enum.IntEnum):
    """Numbers of EpisodeEvent.msg."""

    START = 1
    END = 2
    ABORT = 3


@dataclass(frozen=True)
class Boundary:
    """A boundary of an episode as the tracker understood it, whatever its source.

    Attributes:
        kind: START, END, or ABORT (also for clock jumps, deactivation and shut-down).
        episode_id: drawn by the tracker where START brought none.
        stamp_ns: of the boundary.
        instruction: as known at that moment.
    """

    kind: BoundaryKind
    episode_id: uuid.UUID
    stamp_ns: int
    instruction: str


@dataclass(frozen=True)
class ClockJumped:
    """Stamps start anew: reset the pairing of the cameras."""

    detail: str


Effect: TypeAlias = (
    Judge | JudgeProvisional | Abandon | Publish | PublishProvisional | Boundary | ClockJumped
)
