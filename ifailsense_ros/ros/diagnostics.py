"""What the node says of itself once a second on /diagnostics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from ifailsense_ros.core.tracker import Tracker
from ifailsense_ros.model.dispatch import ClientCounts
from ifailsense_ros.ros.image_source import Synchronizer

UNLOADED, LOADING, READY, LOST, FAILED = "unloaded", "loading", "ready", "lost", "failed"
NO_STAMP, MALFORMED = "no_stamp", "malformed"


@dataclass
class DetectorHealth:
    """What is known of the detector.

    Attributes:
        state: unloaded, loading, ready, lost (being restarted) or failed (until it is configured
            again).
        detail: one line for lost and failed.
        model_id: once it is ready.
        restarts: how often it had to be started again.
        latency_ns: of the last judged episode, from END to verdict.
    """

    state: str = UNLOADED
    detail: str = ""
    model_id: str = ""
    restarts: int = 0
    latency_ns: int | None = None


@dataclass
class CameraCounts:
    """Counts of one camera. received = used + decimated + dropped + buffered, at any time.

    Attributes:
        received: messages taken from the middleware.
        refused: malformed or without a stamp, by reason.
        last_now: steady time of the last one, nanoseconds.
        frame_id: of the last one.
    """

    received: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    last_now: int | None = None
    frame_id: str = ""
    rate_hz: float = 0.0
    _rate_from: tuple[int, int] = (0, 0)

    def measure_rate(self, now_ns: int) -> None:
        """Mean rate since the last call."""
        since, count = self._rate_from
        if since and now_ns > since:
            self.rate_hz = (self.received - count) * 1e9 / (now_ns - since)
        self._rate_from = (now_ns, self.received)


def detector_status(
    name: str, health: DetectorHealth, waiting: int, static: Mapping[str, Any]
) -> DiagnosticStatus:
    """The detector and its queue; `static` is what is known before it is loaded."""
    level = {
        UNLOADED: DiagnosticStatus.OK,
        LOADING: DiagnosticStatus.WARN,
        READY: DiagnosticStatus.OK,
        LOST: DiagnosticStatus.WARN,
        FAILED: DiagnosticStatus.ERROR,
    }[health.state]
    values: dict[str, Any] = {
        "detector state": health.state,
        "model id": health.model_id,
        **static,
        "restarts": health.restarts,
        "latency of last verdict [s]": "" if health.latency_ns is None else health.latency_ns / 1e9,
        "episodes waiting": waiting,
    }
    text = f"{health.state}: {health.detail}" if health.detail else health.state
    return _status(f"{name}: detector", level, text, values)


def lifecycle_status(name: str, state: str, refusal: str) -> DiagnosticStatus:
    """Where the node is in its life; `refusal` is why it was not configured when it was asked."""
    level = DiagnosticStatus.ERROR if refusal else DiagnosticStatus.OK
    text = f"{state}: {refusal}" if refusal else state
    return _status(f"{name}: lifecycle", level, text, {"state": state})


def episodes_status(name: str, tracker: Tracker, goals: int) -> DiagnosticStatus:
    """What became of the events and episodes; `goals` of check_episode wait for a verdict."""
    running = tracker.running_id
    values = {
        "running episode": running or "",
        "keyframe candidates": tracker.candidates,
        "check_episode goals": goals,
        **dict(sorted(tracker.counters.items())),
    }
    text = "an episode is running" if running else "no episode is running"
    return _status(f"{name}: episodes", DiagnosticStatus.OK, text, values)


def camera_values(
    camera: str, counts: CameraCounts, tracker: Tracker, synchronizer: Synchronizer
) -> dict[str, int]:
    """received = used + decimated + the dropped/... + buffered."""
    dropped = Counter(tracker.fates.dropped)
    dropped.update(synchronizer.dropped(camera))
    dropped.update(counts.refused)
    return {
        "received": counts.received,
        "used": tracker.fates.used,
        "decimated": tracker.fates.decimated,
        "buffered": synchronizer.waiting(camera) + tracker.buffered_pairs,
        "dropped": dropped.total(),
        **{f"dropped/{reason}": count for reason, count in sorted(dropped.items())},
    }


def camera_status(
    name: str, camera: str, counts: CameraCounts, values: Mapping[str, int], now_ns: int
) -> DiagnosticStatus:
    """One camera. Silence is a warning: nobody knows yet whether an episode will need it."""
    level, text, age = DiagnosticStatus.WARN, "nothing received yet", ""
    if counts.last_now is not None:
        age = round((now_ns - counts.last_now) / 1e9, 3)
        silent = age > 2.0
        level = DiagnosticStatus.WARN if silent else DiagnosticStatus.OK
        text = "silent" if silent else "receiving"
    extra = {"rate [Hz]": round(counts.rate_hz, 2), "age [s]": age, "frame id": counts.frame_id}
    return _status(f"{name}: camera {camera}", level, text, {**values, **extra})


def client_status(name: str, client: str, asked: ClientCounts, waiting: int) -> DiagnosticStatus:
    """What became of the requests of one client of a shared detector; `waiting` of them wait."""
    counts, latency_ns = asked.counts, asked.latency_ns
    not_judged = counts.total() - counts["asked"] - counts["judged"]
    values = {
        "waiting": waiting,
        **{what: counts[what] for what in ("asked", "judged", "refused", "expired", "failed")},
        "latency of last judgement [s]": "" if latency_ns is None else latency_ns / 1e9,
    }
    text = f"{not_judged} of {counts['asked']} not judged" if not_judged else "served"
    return _status(f"{name}: client {client}", DiagnosticStatus.OK, text, values)


def _status(name: str, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id="ifailsense_ros", values=pairs
    )
