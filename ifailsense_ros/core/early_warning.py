"""Early warnings: the running episode is judged on what it has, when nothing else has to be done.

What they cost is bounded: at most one is with the detector, none is asked for while a final
judgement is under way or waits, and what could not be asked in its turn is not made up for.
"""

from __future__ import annotations

from collections import Counter

from ifailsense_ros.core.effects import Effect, TrackerConfig
from ifailsense_ros.core.judging import JudgementQueue
from ifailsense_ros.core.open_episode import OpenEpisodes
from ifailsense_ros.core.recording import FateCounter, RecentPairs


class EarlyWarnings:
    """Asks for provisional judgements.

    Args:
        episodes: of the tracker.
        recent: pairs that have not reached the episodes yet.
        queue: in front of the detector.
        fates: of the pairs.
        counters: `provisional_skipped_busy` (the detector, or final judgements wait),
            `provisional_skipped_early` (too few keyframes yet, or no instruction).
    """

    def __init__(
        self,
        episodes: OpenEpisodes,
        recent: RecentPairs,
        queue: JudgementQueue,
        fates: FateCounter,
        counters: Counter[str],
    ) -> None:
        self._episodes = episodes
        self._recent = recent
        self._queue = queue
        self._fates = fates
        self._counters = counters

    def due(self, config: TrackerConfig, now_ns: int) -> list[Effect]:
        """The request that falls due by `now_ns`, if any."""
        episode, period = self._episodes.running, config.provisional_period_ns
        if episode is None or not period or now_ns < episode.warned_now + period:
            return []
        episode.warned_now = now_ns
        if self._episodes.ending or not self._queue.free:
            self._counters["provisional_skipped_busy"] += 1
            return []
        frames = episode.recording.snapshot(self._recent, config.min_keyframes)
        self._fates.recount([*frames, *episode.recording.frames()])
        if not frames or not episode.instruction:
            self._counters["provisional_skipped_early"] += 1
            return []
        return self._queue.judge_provisionally(episode.request_id, episode.so_far(frames), now_ns)
