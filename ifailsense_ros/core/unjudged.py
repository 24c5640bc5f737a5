"""Why an episode cannot be judged: every UNKNOWN that needs no detector, with its line for people.

Order matters: the reason named is the one to mend first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ifailsense_ros.core.effects import TrackerConfig
from ifailsense_ros.core.open_episode import OpenEpisode
from ifailsense_ros.core.recording import Frame
from ifailsense_ros.core.verdict import Judgement, Reason


def why(
    episode: OpenEpisode,
    keyframes: Sequence[Frame],
    newest_ns: Mapping[str, int],
) -> Judgement | None:
    """The UNKNOWN of an episode that has ended, or None if it can be judged.

    Args:
        episode: its END is known.
        keyframes: what its recording's `freeze` gave.
        newest_ns: newest stamp of each camera.
    """
    config, recording = episode.config, episode.recording
    absent = [camera for camera in config.cameras if camera in episode.absent_cameras]
    if not episode.instruction:
        return Judgement.unknown(
            Reason.NO_INSTRUCTION,
            "no instruction came with START, on its topic before, or within "
            f"{_s(config.instruction_grace_ns)} after START; publish it before START",
        )
    # Absent cameras come before bad images: a camera that never spoke is a cable, not a codec.
    if absent:
        return Judgement.unknown(
            Reason.CAMERA_ABSENT,
            f"camera {_and(absent)} sent nothing during the episode; check its topic, "
            "its QoS and image_transport",
        )
    if episode.silent_cameras:
        return Judgement.unknown(
            Reason.CAMERA_STALE,
            f"camera {_and(episode.silent_cameras)} had sent nothing for "
            f"{_s(config.camera_silent_ns)} when END came",
        )
    if len(keyframes) < config.num_keyframes:
        return _too_few(episode, newest_ns)
    gap = episode.end_ns - keyframes[-1].stamp_ns
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


def superseded() -> Judgement:
    """START during an episode."""
    return Judgement.unknown(
        Reason.SUPERSEDED, "another START came before END; send END or ABORT first"
    )


def aborted() -> Judgement:
    """ABORT."""
    return Judgement.unknown(Reason.ABORTED, "the episode was aborted by its source")


def instruction_changed(text: str) -> Judgement:
    """Another instruction during the episode."""
    return Judgement.unknown(
        Reason.INSTRUCTION_CHANGED,
        f"the instruction changed to {text!r} during the episode; send END first",
    )


def clock_jumped(detail: str) -> Judgement:
    """Time went back during the episode."""
    return Judgement.unknown(Reason.CLOCK_JUMPED, f"{detail}; start the episode again after a jump")


def deactivated() -> Judgement:
    """The node's life cycle."""
    return Judgement.unknown(Reason.DEACTIVATED, "the monitor was deactivated")


def shut_down() -> Judgement:
    """The node's end."""
    return Judgement.unknown(Reason.SHUT_DOWN, "the monitor was shut down")


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


def _too_few(episode: OpenEpisode, newest_ns: Mapping[str, int]) -> Judgement:
    config, recording = episode.config, episode.recording
    frames = recording.frames()
    if recording.faults:
        return Judgement.unknown(
            Reason.BAD_IMAGE,
            f"fewer than {config.min_keyframes} usable pairs; the last fault: "
            f"{recording.faults[-1]}",
        )
    text = f"{len(frames)} pairs between START and END, {config.min_keyframes} are needed"
    if episode.end_ns < recording.start_ns:
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
