"""Verdict: SUCCESS, FAILURE, or UNKNOWN with a reason; and the votes it came from.

The numbers are those of FailureVerdict.msg and DetectorVote.msg; a test holds them together.
"""

from __future__ import annotations

import enum
import math
import uuid
from dataclasses import dataclass, field


class Outcome(enum.IntEnum):
    """What the verdict says. UNKNOWN is zero: whoever forgets to look sees not-success."""

    UNKNOWN = 0
    SUCCESS = 1
    FAILURE = 2


class Reason(enum.IntEnum):
    """Why a verdict is UNKNOWN; NONE for SUCCESS and FAILURE."""

    NONE = 0
    TOO_FEW_KEYFRAMES = 1
    CAMERA_ABSENT = 2
    CAMERA_STALE = 3
    NO_INSTRUCTION = 4
    BAD_IMAGE = 5
    CLOCK_JUMPED = 6
    INSTRUCTION_CHANGED = 7
    SUPERSEDED = 8
    ABORTED = 9
    QUEUE_FULL = 10
    DETECTOR_ERROR = 11
    DETECTOR_OUT_OF_MEMORY = 12
    DETECTOR_TIMEOUT = 13
    VLM_ABSTAINED = 14
    LOW_CONFIDENCE = 15
    OUT_OF_DISTRIBUTION = 16
    DEACTIVATED = 17
    SHUT_DOWN = 18


class VoteValue(enum.IntEnum):
    """What one voter says (paper, Sec. IV-B.2: y_k and y_vlm)."""

    FAIL = 0
    SUCCESS = 1
    ABSTAIN = 2
    NOT_RUN = 3


@dataclass(frozen=True)
class Vote:
    """One voter's part.

    Attributes:
        source: "fs:<layer>" or "vlm".
        value: the vote.
        p_success: 0..1; NaN for ABSTAIN and NOT_RUN.
        weight: omega of the paper's vote, >= 0.
    """

    source: str
    value: VoteValue
    p_success: float
    weight: float


@dataclass(frozen=True)
class Judgement:
    """What a detector says of an episode, before anything of ROS is added.

    Attributes:
        outcome: SUCCESS, FAILURE, or UNKNOWN.
        reason: NONE unless outcome is UNKNOWN.
        detail: one line for people; empty for SUCCESS and FAILURE.
        p_success: 0..1; NaN for UNKNOWN.
        votes: the votes, FS blocks from shallow to deep, then the VLM.
        montage_distance: of the montage from those of training (core/guard.py); NaN where the
            detector has no such guard. No part of the verdict: judgements compare without it.
    """

    outcome: Outcome
    reason: Reason = Reason.NONE
    detail: str = ""
    p_success: float = math.nan
    votes: tuple[Vote, ...] = ()
    montage_distance: float = field(default=math.nan, compare=False)

    @classmethod
    def unknown(cls, reason: Reason, detail: str, votes: tuple[Vote, ...] = ()) -> Judgement:
        """An UNKNOWN judgement with its reason and one line for people."""
        return cls(Outcome.UNKNOWN, reason, detail, math.nan, votes)


@dataclass(frozen=True)
class Verdict:
    """A judgement bound to its episode; becomes one FailureVerdict message or report row.

    Attributes:
        episode_id: of the episode.
        instruction: that was judged.
        end_ns: stamp of END, nanoseconds.
        judgement: what the detector or the tracker said.
        keyframe_stamps_ns: of the keyframes that were judged, oldest first.
        latency_ns: from END as the judge saw it to the verdict, steady clock, nanoseconds.
        model_id: name and short hash of the checkpoint.
    """

    episode_id: uuid.UUID
    instruction: str
    end_ns: int
    judgement: Judgement
    keyframe_stamps_ns: tuple[int, ...] = ()
    latency_ns: int = 0
    model_id: str = ""
