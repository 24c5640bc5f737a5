"""The second half of the tracker: frozen episodes wait for the detector, one at a time.

As pure as the tracker: (event, steady time) -> effects. It settles each episode it was given
exactly once, also when the detector hangs, dies or never gets ready.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from ifailsense_ros.core import unjudged
from ifailsense_ros.core.effects import (
    Abandon,
    Effect,
    Judge,
    JudgeProvisional,
    Publish,
    PublishProvisional,
    TrackerConfig,
)
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.verdict import Judgement, Reason, Verdict


@dataclass
class _Frozen:
    """An episode that waits for the detector, or is being judged.

    Attributes:
        request_id: what the detector's answer will name.
        episode: frozen.
        ended_now: steady time of its END; of a snapshot, when it was taken.
        waiting_since: steady time since which it waits for the detector, or the detector works.
        settled: nothing is to be published any more.
        running_id: of a snapshot, the request id of the running episode; 0 for a final one.
    """

    request_id: int
    episode: Episode
    ended_now: int
    waiting_since: int
    settled: bool = False
    running_id: int = 0


class JudgementQueue:
    """Hands episodes to the detector in the order of their END.

    Args:
        config: of the tracker.
        counters: shared with the tracker.
    """

    def __init__(self, config: TrackerConfig, counters: Counter[str]) -> None:
        self.config = config
        self._counters = counters
        self._queue: deque[_Frozen] = deque()
        self._judging: _Frozen | None = None
        self._ready = False
        self._fault = ""
        self._gone_since = 0
        self._model_id = ""
        self._last_provisional = 0

    def __len__(self) -> int:
        """Episodes that wait."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether the detector has a request that it has not answered."""
        return self._judging is not None

    @property
    def at_rest(self) -> bool:
        """Whether nothing waits and nothing is being judged."""
        return self._judging is None and not self._queue

    @property
    def free(self) -> bool:
        """Whether the detector has nothing to do, and nothing waits for it."""
        return self._ready and not self.busy and not self._queue

    def submit(
        self, request_id: int, episode: Episode, ended_now: int, now_ns: int
    ) -> list[Effect]:
        """Take a frozen episode. `ended_now`: steady time of its END."""
        self._queue.append(_Frozen(request_id, episode, ended_now, now_ns))
        return self._dispatch(now_ns)

    def judge_provisionally(self, running_id: int, episode: Episode, now_ns: int) -> list[Effect]:
        """Have the detector, which must be free, judge a snapshot of the running episode."""
        assert self.free
        self._last_provisional -= 1
        request_id = self._last_provisional
        self._judging = _Frozen(request_id, episode, now_ns, now_ns, running_id=running_id)
        return [JudgeProvisional(request_id, episode)]

    def drop_provisional(self) -> None:
        """The running episode is over: an answer about its snapshot comes too late."""
        if self._judging and self._judging.running_id:
            self._judging.settled = True

    def due(self, now_ns: int) -> list[Effect]:
        """What falls due by `now_ns`."""
        config = self.config
        effects: list[Effect] = []
        judged = self._judging
        if judged and now_ns >= judged.waiting_since + config.detector_timeout_ns:
            self._counters["detector_timeouts"] += 1
            self._judging = None
            self._ready, self._gone_since = False, now_ns
            # The verdict first: to start another process may fail.
            effects += self._settle(judged, unjudged.too_slow(config), now_ns)
            effects.append(Abandon(judged.request_id))
        while self._queue and not self._ready:
            since = max(self._queue[0].waiting_since, self._gone_since)
            if now_ns < since + config.detector_start_timeout_ns:
                break
            effects += self._settle(self._queue.popleft(), unjudged.not_ready(config), now_ns)
        return effects

    def detector_ready(self, now_ns: int, model_id: str) -> list[Effect]:
        """The detector is loaded and idle."""
        self._ready, self._fault = True, ""
        self._model_id = model_id or self._model_id
        return self._dispatch(now_ns)

    def detector_lost(self, now_ns: int, detail: str, for_good: bool) -> list[Effect]:
        """The detector died."""
        self._ready, self._gone_since = False, now_ns
        self._fault = detail if for_good else ""
        lost, self._judging = self._judging, None
        effects: list[Effect] = []
        if lost:
            effects = self._settle(lost, Judgement.unknown(Reason.DETECTOR_ERROR, detail), now_ns)
        return effects + self._dispatch(now_ns)

    def result(self, request_id: int, judgement: Judgement, now_ns: int) -> list[Effect]:
        """The detector's answer."""
        judged = self._judging
        if judged is None or judged.request_id != request_id:
            self._counters["late_results"] += 1
            return []
        self._judging = None
        if judged.settled:
            self._counters["late_results"] += 1
        elif judged.running_id:
            return [self._warn(judged, judgement, now_ns), *self._dispatch(now_ns)]
        effects = self._settle(judged, judgement, now_ns, judged=True)
        return effects + self._dispatch(now_ns)

    def settle_all(self, judgement: Judgement, now_ns: int) -> list[Effect]:
        """Everything here gets this verdict."""
        effects: list[Effect] = []
        if self._judging:
            # It stays the detector's job until it answers: it must not get two at a time.
            effects += self._settle(self._judging, judgement, now_ns)
        while self._queue:
            effects += self._settle(self._queue.popleft(), judgement, now_ns)
        return effects

    def publish(
        self,
        request_id: int,
        episode: Episode,
        judgement: Judgement,
        latency_ns: int,
        judged: Episode | None = None,
    ) -> Publish:
        """The final verdict on an episode; `judged` if the detector saw it."""
        self._counters["verdicts"] += 1
        self._counters[f"verdict_{judgement.outcome.name.lower()}"] += 1
        verdict = self._verdict(episode, judgement, latency_ns, judged)
        return Publish(request_id, verdict, judged)

    def _verdict(
        self, episode: Episode, judgement: Judgement, latency_ns: int, judged: Episode | None
    ) -> Verdict:
        return Verdict(
            episode_id=episode.episode_id,
            instruction=episode.instruction,
            end_ns=episode.end_ns,
            judgement=judgement,
            keyframe_stamps_ns=judged.keyframe_stamps_ns if judged else (),
            latency_ns=latency_ns,
            model_id=self._model_id,
        )

    def _warn(self, frozen: _Frozen, judgement: Judgement, now_ns: int) -> PublishProvisional:
        self._counters["provisional_verdicts"] += 1
        latency = now_ns - frozen.ended_now
        verdict = self._verdict(frozen.episode, judgement, latency, frozen.episode)
        return PublishProvisional(frozen.running_id, verdict, frozen.episode)

    def _dispatch(self, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        if self._fault:
            verdict = Judgement.unknown(Reason.DETECTOR_ERROR, self._fault)
            while self._queue:
                effects += self._settle(self._queue.popleft(), verdict, now_ns)
        elif self._ready and self._judging is None and self._queue:
            self._judging = self._queue.popleft()
            self._judging.waiting_since = now_ns
            effects.append(Judge(self._judging.request_id, self._judging.episode))
        return effects

    def _settle(
        self, frozen: _Frozen, judgement: Judgement, now_ns: int, *, judged: bool = False
    ) -> list[Effect]:
        if frozen.settled:
            return []
        frozen.settled = True
        if frozen.running_id:
            return []  # nothing is owed: the episode's own verdict is still to come
        seen = frozen.episode if judged else None
        latency = now_ns - frozen.ended_now
        return [self.publish(frozen.request_id, frozen.episode, judgement, latency, seen)]
