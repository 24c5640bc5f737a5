"""The episode state machine: (event, stamp, steady time) -> effects. No ROS, threads or own clock.

One owner feeds it events and performs its effects. What holds whatever the order of events: every
accepted START gets exactly one final verdict. Two clocks, never mixed: header stamps decide what
belongs to an episode; steady time (`now_ns`) decides how long is waited for anything.

    START -> running -> END -> ending (pairs on their way) -> queued -> judging -> verdict
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable

from ifailsense_ros.core import unjudged
from ifailsense_ros.core.cameras import CameraWatch
from ifailsense_ros.core.early_warning import EarlyWarnings
from ifailsense_ros.core.effects import (
    BoundaryKind,
    ClockJumped,
    Effect,
    InstructionChange,
    Publish,
    TrackerConfig,
)
from ifailsense_ros.core.judging import JudgementQueue
from ifailsense_ros.core.open_episode import OpenEpisode, OpenEpisodes
from ifailsense_ros.core.prompt import normalise_instruction
from ifailsense_ros.core.recording import Decode, FateCounter, Frame, RecentPairs, Shrink
from ifailsense_ros.core.verdict import Judgement


class Tracker:
    """Turns events into verdicts, by way of a detector that somebody else runs.

    Each event method returns the effects to perform, in order. `now_ns` is the steady clock (it is
    clamped if it goes back). Call `tick` at 10 Hz or faster.

    Args:
        config: settings; see `reconfigure`.
        shrink: brings a view (uint8 RGB (H, W, 3)) to the model's cell; none if omitted.
        new_id: draws an episode id where START brings none.
    """

    def __init__(
        self,
        config: TrackerConfig,
        shrink: Shrink | None = None,
        new_id: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self.fates = FateCounter()
        self._shrink = shrink or (lambda view: view)
        self._new_id = new_id
        self._now = 0
        self._active, self._shut_down = True, False
        self._instruction = ""
        self._cameras = CameraWatch()
        self._recent = RecentPairs(config.recent_count, config.recent_span_ns)
        self._episodes = OpenEpisodes(self.counters)
        self._queue = JudgementQueue(config, self.counters)
        self._warnings = EarlyWarnings(
            self._episodes, self._recent, self._queue, self.fates, self.counters
        )

    @property
    def running_id(self) -> uuid.UUID | None:
        """Id of the running episode."""
        return self._episodes.running.episode_id if self._episodes.running else None

    @property
    def running_instruction(self) -> str:
        """Instruction of the running episode as far as it is known; empty without one."""
        return self._episodes.running.instruction if self._episodes.running else ""

    @property
    def waiting(self) -> int:
        """Episodes after END that are not being judged yet."""
        return len(self._episodes.ending) + len(self._queue)

    @property
    def buffered_pairs(self) -> int:
        """Pairs whose fate is open: pairs = used + decimated + dropped + these."""
        return len(self._recent)

    @property
    def candidates(self) -> int:
        """Pairs of the running episode from which its keyframes would be taken now."""
        return self._episodes.running.recording.held(self._recent) if self._episodes.running else 0

    @property
    def idle(self) -> bool:
        """No episode is running, ending, queued or being judged."""
        return not (self._episodes.running or self.waiting or self._queue.busy)

    def stamp_now(self, otherwise_ns: int) -> int:
        """The newest header stamp of any camera: "now" in the time of the stamps."""
        return self._cameras.newest(otherwise_ns)

    def reconfigure(self, config: TrackerConfig) -> None:
        """Change settings. Those of the detector and of early warnings hold at once, those of
        episodes for the ones that start from now on.

        Raises:
            ValueError: cameras, keyframes or buffers would change.
        """
        for name in ("num_keyframes", "cameras", "buffer_capacity", "recent_count"):
            if getattr(config, name) != getattr(self.config, name):
                raise ValueError(f"{name} cannot be changed")
        self.config = self._queue.config = config

    # --- events: episodes -----------------------------------------------------------------------

    def tick(self, now_ns: int) -> list[Effect]:
        """Time passes: timeouts and graces."""
        return self._due(now_ns)

    def start(
        self,
        stamp_ns: int,
        now_ns: int,
        episode_id: uuid.UUID | None = None,
        instruction: str = "",
    ) -> list[Effect]:
        """START of an episode; ends a running one (SUPERSEDED). A repeated START is counted."""
        effects = self._due(now_ns)
        if not self._active:
            self.counters["start_while_inactive"] += 1
            return effects
        running = self._episodes.running
        if running and episode_id == running.episode_id:
            self.counters["start_repeated"] += 1
            return effects
        if running:
            effects += self._give_up(running, unjudged.superseded(), BoundaryKind.END, stamp_ns)
        if self._cameras.is_before(stamp_ns, self.config.jump_back_ns):
            # A bag that loops: its START is older than the last pictures of the round before.
            effects += self._jump("START is stamped before the newest pictures", stamp_ns)
        config, given = self.config, normalise_instruction(instruction)
        started = self._episodes.begin(config, stamp_ns, self._now, episode_id or self._new_id())
        started.instruction, started.instruction_given = given or self._instruction, bool(given)
        started.absent_cameras = self._silent(config)
        return [*effects, started.boundary(BoundaryKind.START, stamp_ns)]

    def end(self, stamp_ns: int, now_ns: int, episode_id: uuid.UUID | None = None) -> list[Effect]:
        """END of the running episode. With another id, twice, or without START: only counted."""
        effects = self._due(now_ns)
        episode = self._episodes.addressed("end", episode_id)
        return effects + (self._end(episode, stamp_ns) if episode else [])

    def abort(
        self, stamp_ns: int, now_ns: int, episode_id: uuid.UUID | None = None
    ) -> list[Effect]:
        """The running episode was given up: UNKNOWN, ABORTED."""
        effects = self._due(now_ns)
        episode = self._episodes.addressed("abort", episode_id)
        if episode is None:
            return effects
        return effects + self._give_up(episode, unjudged.aborted(), BoundaryKind.ABORT, stamp_ns)

    def instruction(self, text: str, now_ns: int) -> list[Effect]:
        """A text on the instruction topic. Empty: there is none for the next episode."""
        effects = self._due(now_ns)
        self._instruction = text = normalise_instruction(text)
        if not text:
            return effects
        for episode in self._episodes.ending:
            if not episode.instruction:  # another text may be meant for the next one
                episode.name(text, self._now)
        running = self._episodes.running
        if running is None or running.name(text, self._now) or running.agrees(text, self._now):
            return effects
        self.counters["instruction_changed"] += 1
        change = running.config.instruction_change
        if change is InstructionChange.END:
            effects += self._end(running, self._last_stamp(running))
        elif change is InstructionChange.UNKNOWN:
            verdict = unjudged.instruction_changed(text)
            effects += self._give_up(running, verdict, BoundaryKind.ABORT)
        return effects

    def activate(self, now_ns: int) -> list[Effect]:
        """Accept episodes (again); a new tracker does. Not after `shut_down`."""
        self._active = not self._shut_down
        return self._due(now_ns)

    def deactivate(self, now_ns: int) -> list[Effect]:
        """Settle everything as UNKNOWN, DEACTIVATED, and accept no START until `activate`."""
        return self._due(now_ns) + self._settle_all(unjudged.deactivated())

    def shut_down(self, now_ns: int) -> list[Effect]:
        """Settle everything as UNKNOWN, SHUT_DOWN; accept no START any more."""
        effects = self._due(now_ns) + self._settle_all(unjudged.shut_down())
        self._shut_down = True
        self._pass_on(self._recent.clear())
        return effects

    # --- events: pictures and clocks ------------------------------------------------------------

    def image(self, camera: str, stamp_ns: int, now_ns: int) -> list[Effect]:
        """A camera sent a picture. Comes before the `pair` that it may become part of."""
        effects = self._due(now_ns)
        if self._cameras.is_before(stamp_ns, self.config.jump_back_ns, camera):
            effects += self._jump(f"the stamps of camera {camera} went back in time", stamp_ns)
        self._cameras.heard(camera, self._now, stamp_ns)
        self._episodes.heard(camera, stamp_ns)
        return effects

    def bad_image(self, camera: str, detail: str, now_ns: int) -> list[Effect]:
        """A camera sent a picture that was refused before it could be paired."""
        effects = self._due(now_ns)
        self._cameras.heard(camera, self._now)
        self.counters["bad_images"] += 1
        self._episodes.heard(camera, fault=f"camera {camera}: {detail}")
        return effects

    def pair(
        self, stamp_ns: int, decode: Decode, now_ns: int, *, can_wait: bool = False
    ) -> list[Effect]:
        """Pictures of all cameras for one time step; `decode` is called only for candidates, or,
        with `can_wait` (see `Frame`), only for keyframes if there is room until END.
        """
        effects = self._due(now_ns)
        self.counters["pairs"] += 1
        self._cameras.paired(stamp_ns)
        frame = Frame(stamp_ns, decode, self._shrink, len(self.config.cameras), can_wait)
        self._pass_on(self._recent.add(frame))
        return effects + self._freeze_ready() if self._episodes.ending else effects

    def clock_jump(self, now_ns: int, detail: str, to_ns: int | None = None) -> list[Effect]:
        """The ROS clock jumped back, to `to_ns` if that is known."""
        return self._due(now_ns) + self._jump(detail, to_ns)

    # --- events: the detector -------------------------------------------------------------------

    def detector_ready(self, now_ns: int, model_id: str = "") -> list[Effect]:
        """The detector is loaded and idle. Until this comes, episodes wait."""
        return self._due(now_ns) + self._queue.detector_ready(self._now, model_id)

    def detector_lost(self, now_ns: int, detail: str, *, for_good: bool = False) -> list[Effect]:
        """The detector died; what it was judging is UNKNOWN, DETECTOR_ERROR.

        With `for_good`, it will not come back: waiting and later episodes are settled alike.
        """
        return self._due(now_ns) + self._queue.detector_lost(self._now, detail, for_good)

    def result(self, request_id: int, judgement: Judgement, now_ns: int) -> list[Effect]:
        """The detector's answer to a `Judge`; one for a request settled before is counted."""
        return self._due(now_ns) + self._queue.result(request_id, judgement, self._now)

    # --- steps of an episode --------------------------------------------------------------------

    def _due(self, now_ns: int) -> list[Effect]:
        """What falls due by `now_ns`; deadlines come before the event that is handled now."""
        # Every message of every bag comes through here: what cannot be due is not asked.
        if now_ns > self._now:
            self._now = now_ns
        elif not self._episodes.ending and self._queue.at_rest:
            return []  # the rest falls due by time alone, and was asked at this time
        effects: list[Effect] = []
        running = self._episodes.running
        if running is not None and running.is_too_long(self._now):
            self.counters["episode_timeouts"] += 1
            effects += self._end(running, self._last_stamp(running))
        if self._episodes.ending:
            effects += self._freeze_ready()
        if not self._queue.at_rest:
            effects += self._queue.due(self._now)
        if self.config.provisional_period_ns:
            effects += self._warnings.due(self.config, self._now)
        if self._now >= self._cameras.last_heard(self._now) + self.config.drain_after_ns:
            self._pass_on(self._recent.clear())
        return effects

    def _end(self, episode: OpenEpisode, end_ns: int) -> list[Effect]:
        full = self.waiting >= self.config.queue_size
        self._over()
        effects: list[Effect] = [episode.end(BoundaryKind.END, end_ns, self._now)]
        if full:
            return [*effects, self._settle(episode, unjudged.queue_full(self.config))]
        episode.silent_cameras = self._silent(episode.config)
        self._episodes.ending.append(episode)
        return effects + self._freeze_ready()

    def _give_up(
        self,
        episode: OpenEpisode,
        verdict: Judgement,
        kind: BoundaryKind,
        stamp_ns: int | None = None,
    ) -> list[Effect]:
        """Settle the running episode without judging it."""
        stamp_ns = self._last_stamp(episode) if stamp_ns is None else stamp_ns
        self._over()
        return [episode.end(kind, stamp_ns, self._now), self._settle(episode, verdict)]

    def _over(self) -> None:
        self._episodes.over()
        self._queue.drop_provisional()

    def _settle(self, episode: OpenEpisode, judgement: Judgement) -> Publish:
        latency = self._now - episode.ended_now
        return self._queue.publish(episode.request_id, episode.frozen(), judgement, latency)

    def _settle_all(self, judgement: Judgement) -> list[Effect]:
        self._active = False
        effects = self._queue.settle_all(judgement, self._now)
        ending = self._episodes.take_ending(lambda _: True)
        effects += [self._settle(episode, judgement) for episode in ending]
        if self._episodes.running:
            effects += self._give_up(self._episodes.running, judgement, BoundaryKind.ABORT)
        return effects

    def _freeze_ready(self) -> list[Effect]:
        effects: list[Effect] = []
        for episode in self._episodes.take_ending(self._is_complete):
            effects += self._freeze(episode)
        return effects

    def _is_complete(self, episode: OpenEpisode) -> bool:
        waited = self._now >= episode.ended_now + episode.config.end_grace_ns
        all_in = waited or self._cameras.pairs_reach(episode.end_ns)
        return all_in and episode.is_named(self._now)

    def _freeze(self, episode: OpenEpisode) -> list[Effect]:
        frames = episode.recording.freeze(self._recent, self.config.min_keyframes)
        self.fates.recount(episode.recording.frames())
        verdict = unjudged.why(episode, frames, self._cameras.stamps_ns)
        if verdict is not None:
            return [self._settle(episode, verdict)]
        return self._queue.submit(
            episode.request_id, episode.frozen(frames), episode.ended_now, self._now
        )

    # --- pairs, stamps and instructions ---------------------------------------------------------

    def _pass_on(self, frames: list[Frame]) -> None:
        """Pairs leave the ring: to the episodes they belong to, or nowhere."""
        for frame in frames:
            for episode in self._episodes:
                episode.recording.take(frame)
            self.fates.count(frame)

    def _jump(self, detail: str, to_ns: int | None) -> list[Effect]:
        self.counters["clock_jumps"] += 1
        effects: list[Effect] = [ClockJumped(detail)]
        # What has ended loses nothing: no pair of the time before can still come.
        for episode in self._episodes.take_ending(lambda _: True):
            effects += self._freeze(episode)
        for frame in self._recent.clear():
            self.fates.count(frame, unneeded="clock_jump")
        running = self._episodes.running
        if running and not running.begins_at(to_ns, self.config.jump_back_ns):
            effects += self._give_up(running, unjudged.clock_jumped(detail), BoundaryKind.ABORT)
        self._cameras.forget_stamps()
        return effects

    def _silent(self, config: TrackerConfig) -> list[str]:
        return self._cameras.silent(config.cameras, self._now - config.camera_silent_ns)

    def _last_stamp(self, episode: OpenEpisode) -> int:
        start_ns = episode.recording.start_ns
        return max(self._cameras.newest(start_ns), start_ns)
