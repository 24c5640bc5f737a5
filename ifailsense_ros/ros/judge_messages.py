"""What monitors and the detector they share say to each other, as core types and back. Pure."""

from __future__ import annotations

import array
import uuid
from dataclasses import dataclass

import numpy as np

from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.episode import POV_NAMES, Episode, Keyframe
from ifailsense_ros.core.montage import MontageGeometry, fit_cell
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Vote, VoteValue
from ifailsense_ros.model.handle import Ready
from ifailsense_ros.ros import conversions
from ifailsense_ros.srv import GetDetector, JudgeEpisode


@dataclass(frozen=True)
class SharedDetector:
    """What a monitor knows of the checkpoint of a shared detector: see `model.handle.Wants`."""

    montage: MontageSettings
    min_keyframes: int


def geometry_of(m: MontageSettings) -> MontageGeometry:
    """Of a checkpoint's montage. Raises ValueError."""
    return MontageGeometry(m.num_pov, m.num_keyframes, m.cell_height, m.cell_width)


def to_request(
    episode: Episode, geometry: MontageGeometry, client: str, patience_s: float
) -> JudgeEpisode.Request:
    """An episode as it is sent to the shared detector.

    Args:
        episode: of the detector's number of keyframes and PoV.
        geometry: of the detector's montage; views of another size are brought to its cell.
        client: who asks.
        patience_s: how long the answer is waited for, seconds; 0: for ever.
    """
    views = [fit_cell(view, geometry) for keyframe in episode.keyframes for view in keyframe.views]
    return JudgeEpisode.Request(
        client=client,
        patience=patience_s,
        episode_id=conversions.to_uuid_message(episode.episode_id),
        instruction=episode.instruction,
        start=conversions.to_time(episode.start_ns),
        end=conversions.to_time(episode.end_ns),
        keyframe_stamps=[conversions.to_time(stamp) for stamp in episode.keyframe_stamps_ns],
        num_pov=episode.num_pov,
        cell_height=geometry.cell_height,
        cell_width=geometry.cell_width,
        # Of all types the setter takes, only array.array is not checked element by element.
        views=array.array("B", b"".join(view.tobytes() for view in views)),
    )


def to_episode(request: JudgeEpisode.Request, geometry: MontageGeometry) -> Episode:
    """The episode of a request.

    Raises:
        ValueError: it is not what this detector judges; the text says what is wrong.
    """
    sent = (len(request.keyframe_stamps), request.num_pov, request.cell_height, request.cell_width)
    wanted = (
        geometry.num_keyframes,
        geometry.num_pov,
        geometry.cell_height,
        geometry.cell_width,
    )
    if sent != wanted:
        raise ValueError(f"the episode has {_shape(sent)}; this detector judges {_shape(wanted)}")
    shape = (*wanted, 3)
    if len(request.views) != np.prod(shape):
        raise ValueError(f"views has {len(request.views)} bytes, not {np.prod(shape)}")
    views = np.frombuffer(request.views, np.uint8).reshape(shape)
    return Episode(
        # Not conversions.to_uuid: here an id of zero is one like any other.
        episode_id=uuid.UUID(bytes=bytes(request.episode_id.uuid)),
        instruction=request.instruction,
        keyframes=tuple(
            Keyframe(conversions.to_ns(stamp), tuple(povs))
            for stamp, povs in zip(request.keyframe_stamps, views, strict=True)
        ),
        start_ns=conversions.to_ns(request.start),
        end_ns=conversions.to_ns(request.end),
    )


def _shape(values: tuple[int, ...]) -> str:
    keyframes, povs, height, width = values
    return f"{keyframes} keyframes of {povs} PoV at {width}x{height}"


def to_response(judgement: Judgement, model_id: str) -> JudgeEpisode.Response:
    """A judgement as it is sent back."""
    return JudgeEpisode.Response(
        verdict=int(judgement.outcome),
        reason_code=int(judgement.reason),
        reason=judgement.detail,
        p_success=float(judgement.p_success),
        votes=[conversions.to_vote_message(vote) for vote in judgement.votes],
        model_id=model_id,
    )


def to_judgement(response: JudgeEpisode.Response) -> Judgement:
    """The judgement in a response. Numbers are float32, as in FailureVerdict.

    Raises:
        ValueError: an outcome, reason or vote that this release does not know.
    """
    return Judgement(
        outcome=Outcome(response.verdict),
        reason=Reason(response.reason_code),
        detail=response.reason,
        p_success=response.p_success,
        votes=tuple(
            Vote(vote.source, VoteValue(vote.vote), vote.p_success, vote.weight)
            for vote in response.votes
        ),
    )


def to_description(ready: Ready, instance: uuid.UUID) -> GetDetector.Response:
    """What the shared detector says of itself."""
    m = ready.config.montage
    return GetDetector.Response(
        instance=conversions.to_uuid_message(instance),
        model_id=ready.model_id,
        num_keyframes=m.num_keyframes,
        min_keyframes=ready.config.min_keyframes,
        num_pov=m.num_pov,
        cell_height=m.cell_height,
        cell_width=m.cell_width,
    )


def to_ready(response: GetDetector.Response) -> Ready:
    """What the shared detector said of itself.

    Raises:
        ValueError: no episode could be what it wants.
    """
    r = response
    if not (1 <= r.min_keyframes <= r.num_keyframes and 1 <= r.num_pov <= len(POV_NAMES)):
        raise ValueError(
            f"it wants {r.min_keyframes} to {r.num_keyframes} keyframes of {r.num_pov} PoV"
        )
    montage = MontageSettings(r.num_keyframes, r.num_pov, r.cell_height, r.cell_width)
    geometry_of(montage)
    return Ready(r.model_id, SharedDetector(montage, r.min_keyframes))
