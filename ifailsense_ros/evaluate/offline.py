"""The offline path: the episodes of a bag judged as the live node judges them, without ROS."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.effects import TrackerConfig
from ifailsense_ros.core.episode import POV_NAMES, Episode
from ifailsense_ros.core.montage import MontageGeometry, fit_cell
from ifailsense_ros.core.pairing import DEFAULT_QUEUE_SIZE, DEFAULT_SLOP_NS
from ifailsense_ros.core.verdict import Verdict
from ifailsense_ros.data.replay import BagReplay
from ifailsense_ros.data.rosbag import BagTopics, read_events


@dataclass(frozen=True, eq=False)
class OfflineVerdict:
    """What the offline path says of one started episode.

    Attributes:
        verdict: as the node would have published it; the latency is in the bag's receive time and
            holds no computing time.
        episode: what was judged; None when the tracker decided without the detector.
    """

    verdict: Verdict
    episode: Episode | None


def tracker_config_for(detector: Detector, base: TrackerConfig | None = None) -> TrackerConfig:
    """Tracker settings with T, N and the fewest keyframes of the detector's checkpoint."""
    config = detector.config
    return dataclasses.replace(
        base or TrackerConfig(),
        num_keyframes=config.montage.num_keyframes,
        min_keyframes=config.min_keyframes,
        cameras=POV_NAMES[: config.montage.num_pov],
    )


def geometry_of(detector: Detector) -> MontageGeometry:
    """The montage geometry of the detector's checkpoint."""
    return MontageGeometry(**dataclasses.asdict(detector.config.montage))


def judge_bag(
    path: str | Path,
    detector: Detector,
    *,
    topics: BagTopics | None = None,
    config: TrackerConfig | None = None,
    slop_ns: int = DEFAULT_SLOP_NS,
    pairing_queue: int = DEFAULT_QUEUE_SIZE,
) -> Iterator[OfflineVerdict]:
    """Verdicts on the episodes of a bag.

    Args:
        path: rosbag2 folder, or a single .mcap or .db3 file.
        detector: judges in this thread.
        topics: names in the bag; None: the node's defaults.
        config: tracker settings, None: the node's defaults; T, N and the fewest keyframes are
            taken from the detector.
        slop_ns: largest difference of stamps in a pair, nanoseconds.
        pairing_queue: messages that may wait for a partner, per camera.

    Yields:
        One verdict per started episode, UNKNOWN ones included.

    Raises:
        BagError: unreadable, damaged, or without a topic that is needed.
    """
    geometry = geometry_of(detector)
    replay = BagReplay(
        tracker_config_for(detector, config),
        detector.judge,
        model_id=detector.model_id,
        shrink=lambda view: fit_cell(view, geometry),
        slop_ns=slop_ns,
        pairing_queue=pairing_queue,
    )
    num_pov = detector.config.montage.num_pov
    for published in replay.run(read_events(path, topics, num_pov=num_pov)):
        yield OfflineVerdict(published.verdict, published.episode)
