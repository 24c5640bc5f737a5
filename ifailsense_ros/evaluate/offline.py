"""The offline path: the episodes of a bag judged as the live node judges them, without ROS."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.effects import TrackerConfig
from ifailsense_ros.core.episode import POV_NAMES, Episode
from ifailsense_ros.core.errors import IFailSenseError
from ifailsense_ros.core.montage import MontageGeometry, fit_cell
from ifailsense_ros.core.pairing import DEFAULT_QUEUE_SIZE, DEFAULT_SLOP_NS
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Verdict
from ifailsense_ros.data.bag_sidecar import Sidecar
from ifailsense_ros.data.readers.bag_episodes import with_boundaries
from ifailsense_ros.data.replay import BagReplay
from ifailsense_ros.data.rosbag import BagEvent, BagTopics, read_events


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


class BagEpisodes:
    """The started episodes of a bag, as the live node would have judged them.

    Args:
        path: rosbag2 folder, or a single .mcap or .db3 file.
        config: tracker settings.
        geometry: of the montage that the pictures are for.
        topics: names in the bag; None: the node's defaults.
        sidecar: of the bag's folder; with times, it and not the episode topic bounds the episodes.
        slop_ns: largest difference of stamps in a pair, nanoseconds.
        pairing_queue: messages that may wait for a partner, per camera.

    Attributes:
        labels: what the success topic says of each episode; complete after the last one.
        starts: stamp of START of each episode.
    """

    def __init__(
        self,
        path: str | Path,
        config: TrackerConfig,
        geometry: MontageGeometry,
        *,
        topics: BagTopics | None = None,
        sidecar: Sidecar | None = None,
        slop_ns: int = DEFAULT_SLOP_NS,
        pairing_queue: int = DEFAULT_QUEUE_SIZE,
    ) -> None:
        self._path = path
        self._config = config
        self._geometry = geometry
        self._sidecar = sidecar or Sidecar()
        topics = topics or BagTopics()
        bounded = self._sidecar.bounds_episodes
        self._topics = dataclasses.replace(topics, episode="") if bounded else topics
        self._pairing = (slop_ns, pairing_queue)
        self.labels: dict[uuid.UUID, bool] = {}
        self.starts: dict[uuid.UUID, int] = {}

    def __iter__(self) -> Iterator[OfflineVerdict]:
        """Each episode with its pictures at cell size. Where it has any, the verdict is still to be
        made by a detector; otherwise it is the tracker's own.

        Raises:
            BagError: unreadable, damaged, or without a topic that is needed.
        """
        cameras, geometry = self._config.cameras, self._geometry
        slop_ns, queue = self._pairing
        replay = BagReplay(
            self._config,
            lambda episode: _ASKED,
            shrink=lambda view: fit_cell(view, geometry),
            slop_ns=slop_ns,
            pairing_queue=queue,
        )
        self.labels, self.starts = replay.labels, replay.starts
        events: Iterable[BagEvent] = read_events(
            self._path, self._topics, num_pov=len(cameras), labels=True
        )
        if self._sidecar.bounds_episodes:
            events = with_boundaries(events, self._sidecar)
        for published in replay.run(events):
            yield OfflineVerdict(published.verdict, published.episode)


_ASKED = Judgement(Outcome.SUCCESS, p_success=1.0)
"""Stands for the detector's answer while the bag is replayed: the tracker only passes it on."""


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
        detector: judges in this thread. What it raises beyond our own errors is an UNKNOWN.
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
    episodes = BagEpisodes(
        path,
        tracker_config_for(detector, config),
        geometry_of(detector),
        topics=topics,
        slop_ns=slop_ns,
        pairing_queue=pairing_queue,
    )
    for started in episodes:
        verdict = dataclasses.replace(started.verdict, model_id=detector.model_id)
        if started.episode is not None:
            judgement = judged_or_unknown(detector, started.episode)
            verdict = dataclasses.replace(verdict, judgement=judgement)
        yield OfflineVerdict(verdict, started.episode)


def judged_or_unknown(detector: Detector, episode: Episode) -> Judgement:
    """The detector's answer. A failing detector is an UNKNOWN, not a crash, as in the worker."""
    try:
        return detector.judge(episode)
    except IFailSenseError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        return Judgement.unknown(Reason.DETECTOR_ERROR, f"{type(error).__name__}: {text}")
