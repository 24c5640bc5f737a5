"""Why an episode cannot be judged: every UNKNOWN that needs no detector, with its line for people.

Order matters: the reason named is the one to mend first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ifailsense_ros.core.effects import TrackerConfig
from ifailsense_ros.core.recording import Frame, Recording
from ifailsense_ros.core.verdict import Judgement, Reason


def why(
    config: TrackerConfig,
    instruction: str,
    recording: Recording,
    keyframes: Sequence[Frame],
    absent_cameras: Sequence[str],
    silent_cameras: Sequence[str],
    newest_ns: Mapping[str, int],
) -> Judgement | None:
    """The UNKNOWN of an episode that has ended, or None if it can be judged.

    Args:
        config: of the tracker.
        instruction: of the episode, normalised.
        recording: of the episode, its END known.
        keyframes: what `Recording.freeze` gave.
        absent_cameras: that sent nothing since START.
        silent_cameras: that had sent nothing for `camera_silent_ns` when END came.
        newest_ns: newest stamp of each camera.
    """
    assert recording.end_ns is not None
    frames = recording.frames()
    if not instruction:
        return Judgement.unknown(
            Reason.NO_INSTRUCTION,
            "no instruction came with START, on its topic before, or within "
            f"{_s(config.instruction_grace_ns)} after START; publish it before START",
        )
    # Absent cameras come before bad images: a camera that never spoke is a cable, not a codec.
    if absent_cameras:
        return Judgement.unknown(
            Reason.CAMERA_ABSENT,
            f"camera {_and(absent_cameras)} sent nothing during the episode; check its topic, "
            "its QoS and image_transport",
        )
    if len(keyframes) < config.num_keyframes:
        return _too_few(config, recording, frames, newest_ns)
    if silent_cameras:
        return Judgement.unknown(
            Reason.CAMERA_STALE,
            f"camera {_and(silent_cameras)} had sent nothing for "
            f"{_s(config.camera_silent_ns)} when END came",
        )
    gap = recording.end_ns - keyframes[-1].stamp_ns
    if gap > config.camera_stale_ns:
        return Judgement.unknown(
            Reason.CAMERA_STALE,
            f"the last pair{_oldest(newest_ns)} is {_s(gap)} older than END, more than "
            f"{_s(config.camera_stale_ns)}; the end of the episode was not seen",
        )
    gap = keyframes[0].stamp_ns - recording.start_ns
    if gap > config.camera_stale_ns:
        return Judgement.unknown(
            Reason.CAMERA_STALE,
            f"the first pair came {_s(gap)} after START, more than "
            f"{_s(config.camera_stale_ns)}; the beginning of the episode was not seen",
        )
    return None


def queue_full(config: TrackerConfig) -> Judgement:
    """Too many episodes wait already."""
    return Judgement.unknown(
        Reason.QUEUE_FULL,
        f"{config.queue_size} episodes wait for judgement already; the detector is slower than "
        "the episodes",
    )


def too_slow(config: TrackerConfig) -> Judgement:
    """The detector did not answer."""
    return Judgement.unknown(
        Reason.DETECTOR_TIMEOUT,
        f"the detector did not answer within {_s(config.detector_timeout_ns)}; it is restarted",
    )


def not_ready(config: TrackerConfig) -> Judgement:
    """The detector did not get ready in time."""
    return Judgement.unknown(
        Reason.DETECTOR_TIMEOUT,
        f"the detector was not ready within {_s(config.detector_start_timeout_ns)}",
    )


def _too_few(
    config: TrackerConfig,
    recording: Recording,
    frames: Sequence[Frame],
    newest_ns: Mapping[str, int],
) -> Judgement:
    if recording.faults:
        return Judgement.unknown(
            Reason.BAD_IMAGE,
            f"fewer than {config.min_keyframes} usable pairs; the last fault: "
            f"{recording.faults[-1]}",
        )
    text = f"{len(frames)} pairs between START and END, {config.min_keyframes} are needed"
    assert recording.end_ns is not None
    if recording.end_ns < recording.start_ns:
        text += "; END is stamped before START"
    elif not frames and newest_ns:
        newest = max(newest_ns.values())
        if newest < recording.start_ns:
            text += (
                f"; the newest picture is stamped {_s(recording.start_ns - newest)} before START:"
                " do cameras and events use the same clock (use_sim_time)?"
            )
        else:
            text += "; the cameras' pictures could not be paired: is the slop too small?"
    return Judgement.unknown(Reason.TOO_FEW_KEYFRAMES, text)


def _oldest(newest_ns: Mapping[str, int]) -> str:
    """Names the camera that fell behind, where one did."""
    if len(set(newest_ns.values())) < 2:
        return ""
    return f" (camera {min(newest_ns, key=lambda camera: newest_ns[camera])} fell behind)"


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)


def _s(duration_ns: int) -> str:
    return f"{duration_ns / 1e9:.3g} s"
