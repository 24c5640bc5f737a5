"""Messages to core types and back. Pure: needs the message classes, but no node."""

from __future__ import annotations

import array
import uuid

import numpy as np
from builtin_interfaces.msg import Duration, Time
from sensor_msgs.msg import Image
from unique_identifier_msgs.msg import UUID

from ifailsense_ros.core.effects import Boundary
from ifailsense_ros.core.verdict import Verdict, Vote
from ifailsense_ros.msg import DetectorVote, EpisodeEvent, FailureVerdict

_SECOND_NS = 1_000_000_000
_MAX_SECONDS = 2**31 - 1


def to_ns(time: Time | Duration) -> int:
    """A stamp or duration in nanoseconds."""
    return time.sec * _SECOND_NS + time.nanosec


def to_time(stamp_ns: int) -> Time:
    """A stamp as a message. What the message cannot hold (years before 1901 or after 2038) is
    clamped: a verdict with an odd stamp is better than none.
    """
    return Time(**_parts(stamp_ns))


def to_duration(duration_ns: int) -> Duration:
    """A duration as a message, clamped as `to_time`."""
    return Duration(**_parts(duration_ns))


def _parts(value_ns: int) -> dict[str, int]:
    seconds, nanoseconds = divmod(value_ns, _SECOND_NS)
    return {"sec": min(max(seconds, -_MAX_SECONDS - 1), _MAX_SECONDS), "nanosec": nanoseconds}


def to_uuid(message: UUID) -> uuid.UUID | None:
    """An id, or None if the message is all zero: its sender left it to us."""
    value = uuid.UUID(bytes=bytes(message.uuid))
    return value if value.int else None


def to_uuid_message(value: uuid.UUID) -> UUID:
    """An id as a message."""
    return UUID(uuid=np.frombuffer(value.bytes, np.uint8))


def to_verdict_message(verdict: Verdict, frame_id: str = "") -> FailureVerdict:
    """A final verdict as it is published.

    Args:
        verdict: of the tracker.
        frame_id: of the exocentric camera.
    """
    judgement = verdict.judgement
    message = FailureVerdict(
        episode_id=to_uuid_message(verdict.episode_id),
        instruction=verdict.instruction,
        verdict=int(judgement.outcome),
        reason_code=int(judgement.reason),
        reason=judgement.detail,
        p_success=float(judgement.p_success),
        votes=[to_vote_message(vote) for vote in judgement.votes],
        keyframe_stamps=[to_time(stamp) for stamp in verdict.keyframe_stamps_ns],
        latency=to_duration(verdict.latency_ns),
        model_id=verdict.model_id,
    )
    message.header.stamp = to_time(verdict.end_ns)
    message.header.frame_id = frame_id
    return message


def to_vote_message(vote: Vote) -> DetectorVote:
    """One voter's part."""
    return DetectorVote(
        source=vote.source,
        vote=int(vote.value),
        p_success=float(vote.p_success),
        weight=float(vote.weight),
    )


def to_event_message(boundary: Boundary, frame_id: str = "") -> EpisodeEvent:
    """A boundary of an episode as the tracker understood it."""
    message = EpisodeEvent(
        episode_id=to_uuid_message(boundary.episode_id),
        event=int(boundary.kind),
        instruction=boundary.instruction,
    )
    message.header.stamp = to_time(boundary.stamp_ns)
    message.header.frame_id = frame_id
    return message


def to_image_message(picture: np.ndarray, stamp_ns: int, frame_id: str = "") -> Image:
    """A picture as a message.

    Args:
        picture: uint8 RGB (H, W, 3).
        stamp_ns: header stamp, nanoseconds.
        frame_id: header frame.
    """
    height, width, channels = picture.shape
    message = Image(height=height, width=width, encoding="rgb8", step=width * channels)
    # Of all types the setter takes, only array.array is not checked element by element.
    message.data = array.array("B", np.ascontiguousarray(picture).tobytes())
    message.header.stamp = to_time(stamp_ns)
    message.header.frame_id = frame_id
    return message
