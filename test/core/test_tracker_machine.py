"""Model-based test of the tracker: whatever happens, every START gets exactly one verdict."""

import dataclasses
import uuid
from collections import Counter

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ifailsense_ros.core.effects import (
    Abandon,
    Boundary,
    BoundaryKind,
    ClockJumped,
    InstructionChange,
    Judge,
    JudgeProvisional,
    Publish,
    PublishProvisional,
    TrackerConfig,
)
from ifailsense_ros.core.errors import ImageError
from ifailsense_ros.core.tracker import Tracker
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason

MS = 1_000_000
IDS = [None] + [uuid.UUID(int=i) for i in range(1, 4)]
TEXTS = ["", "  ", "lift the red block", "push the blue block", "open the drawer"]
VIEWS = (np.zeros((2, 3, 3), np.uint8),) * 2
DETECTOR_REASONS = {Reason.DETECTOR_ERROR, Reason.DETECTOR_OUT_OF_MEMORY, Reason.VLM_ABSTAINED}


def decode_good():
    return VIEWS


def decode_bad():
    raise ImageError("picture cannot be decoded: cut short")


def decode_crash():
    raise RuntimeError("the decoder itself is broken")


def decode_late():
    return [lambda: VIEWS[0]] * 2


def decode_late_bad():
    return [lambda: VIEWS[0], decode_bad]


class TrackerMachine(RuleBasedStateMachine):
    """Feeds random events and checks every effect against a small model."""

    @initialize(
        change=st.sampled_from(list(InstructionChange)),
        queue_size=st.integers(1, 3),
        minimum=st.integers(1, 4),
        episode_timeout=st.sampled_from([0, 3000 * MS]),
        provisional_period=st.sampled_from([0, 200 * MS, 1000 * MS]),
    )
    def set_up(self, change, queue_size, minimum, episode_timeout, provisional_period):
        self.tracker = Tracker(
            TrackerConfig(
                num_keyframes=4,
                min_keyframes=minimum,
                instruction_change=change,
                queue_size=queue_size,
                episode_timeout_ns=episode_timeout,
                provisional_period_ns=provisional_period,
                detector_timeout_ns=2000 * MS,
                detector_start_timeout_ns=4000 * MS,
                buffer_capacity=12,
                recent_count=6,
                recent_span_ns=500 * MS,
            )
        )
        self.now = 0
        self.stamp = 5_000_000 * MS
        self.starts: list[uuid.UUID] = []
        self.verdicts: Counter[int] = Counter()
        self.asked: dict[int, bool] = {}
        self.outstanding: list[int] = []
        self.provisional: dict[int, int] = {}
        self.running = None
        self.ready = False

    # --- effects against the model ---

    def perform(self, effects):
        for effect in effects:
            if isinstance(effect, Boundary):
                if effect.kind is BoundaryKind.START:
                    assert self.running is None
                    self.starts.append(effect.episode_id)
                    self.running = effect.episode_id
                else:
                    assert self.running == effect.episode_id
                    self.running = None
            elif isinstance(effect, Judge):
                assert self.ready, "a detector that is not ready was asked"
                assert not self.outstanding, "the detector was asked two things at once"
                assert effect.request_id not in self.asked
                assert self.verdicts[effect.request_id] == 0
                self.asked[effect.request_id] = True
                self.outstanding.append(effect.request_id)
                self.check_episode(effect.episode)
            elif isinstance(effect, JudgeProvisional):
                assert self.ready and not self.outstanding
                assert effect.request_id < 0 and effect.request_id not in self.provisional
                assert self.running is not None
                assert self.tracker.waiting == 0, "a final judgement has to wait for a warning"
                self.provisional[effect.request_id] = len(self.starts)
                self.outstanding.append(effect.request_id)
                self.check_episode(effect.episode)
            elif isinstance(effect, PublishProvisional):
                assert self.running == effect.verdict.episode_id
                assert effect.request_id == len(self.starts)
                assert self.verdicts[effect.request_id] == 0, "a warning after the verdict"
                assert effect.verdict.end_ns == effect.episode.keyframe_stamps_ns[-1]
            elif isinstance(effect, Abandon):
                assert self.outstanding == [effect.request_id]
                self.outstanding.clear()
                self.ready = False
            elif isinstance(effect, Publish):
                self.verdicts[effect.request_id] += 1
                self.check_verdict(effect)
            else:
                assert isinstance(effect, ClockJumped), effect

    def check_episode(self, episode):
        stamps = episode.keyframe_stamps_ns
        assert len(stamps) == 4
        assert list(stamps) == sorted(stamps)
        config = self.tracker.config
        assert all(episode.start_ns - config.pre_roll_ns <= s <= episode.end_ns for s in stamps)
        assert len(set(stamps)) >= config.min_keyframes
        assert episode.instruction.strip() == episode.instruction != ""
        assert all(len(k.views) == 2 for k in episode.keyframes)

    def check_verdict(self, effect):
        verdict = effect.verdict
        assert self.verdicts[effect.request_id] == 1, "a second verdict on one episode"
        assert 1 <= effect.request_id <= len(self.starts), "a verdict without START"
        assert verdict.episode_id == self.starts[effect.request_id - 1]
        assert verdict.latency_ns >= 0
        judgement = verdict.judgement
        assert (judgement.reason is Reason.NONE) == (judgement.outcome is not Outcome.UNKNOWN)
        if judgement.outcome is Outcome.UNKNOWN:
            assert judgement.detail
            assert "\n" not in judgement.detail
        else:
            assert effect.request_id in self.asked
            assert verdict.keyframe_stamps_ns == effect.episode.keyframe_stamps_ns

    # --- events ---

    @rule(ms=st.sampled_from([0, 1, 50, 299, 300, 1000, 2000, 5000]))
    def time_passes(self, ms):
        self.now += ms * MS
        self.perform(self.tracker.tick(self.now))

    @rule(
        step_ms=st.sampled_from([-50, 0, 33, 100, 100, 400]),
        count=st.integers(1, 9),
        decode=st.sampled_from(
            [decode_good] * 4
            + [decode_late] * 2
            + [decode_bad, decode_late_bad, decode_crash, lambda: VIEWS[:1]]
        ),
        can_wait=st.booleans(),
    )
    def pairs(self, step_ms, count, decode, can_wait):
        for _ in range(count):
            self.stamp += step_ms * MS
            self.now += abs(step_ms) * MS
            for camera in ("exo", "gripper"):
                self.perform(self.tracker.image(camera, self.stamp, self.now))
            effects = self.tracker.pair(self.stamp, decode, self.now, can_wait=can_wait)
            self.perform(effects)

    @rule()
    def somebody_asks_for_the_candidates(self):
        config = self.tracker.config
        most = config.buffer_capacity + 1 + config.recent_count
        assert self.tracker.candidates <= most

    @rule(camera=st.sampled_from(["exo", "gripper"]), late_ms=st.sampled_from([0, 700, 1500]))
    def one_camera_only(self, camera, late_ms):
        self.perform(self.tracker.image(camera, self.stamp - late_ms * MS, self.now))

    @rule(camera=st.sampled_from(["exo", "gripper"]))
    def refused_image(self, camera):
        self.perform(self.tracker.bad_image(camera, "encoding 'x' is unknown", self.now))

    @rule(
        which=st.sampled_from(IDS),
        offset_ms=st.sampled_from([-3000, -400, 0, 0, 0, 200, 5000]),
        text=st.sampled_from(TEXTS),
    )
    def start(self, which, offset_ms, text):
        stamp = self.stamp + offset_ms * MS
        self.perform(self.tracker.start(stamp, self.now, which, text))

    @rule(
        pairs=st.integers(1, 12),
        text=st.sampled_from(TEXTS[2:]),
        ready=st.booleans(),
        settle_ms=st.sampled_from([0, 0, 400]),
        can_wait=st.booleans(),
    )
    def whole_episode(self, pairs, text, ready, settle_ms, can_wait):
        """Random events alone seldom make an episode that can be judged."""
        self.start(None, 0, text)
        self.pairs(100, pairs, decode_good, can_wait)
        self.end(None, -50)
        if ready:
            self.detector_ready()
        self.time_passes(settle_ms)

    @rule(which=st.sampled_from(IDS), offset_ms=st.sampled_from([-5000, -400, 0, 0, 0, 200, 5000]))
    def end(self, which, offset_ms):
        self.perform(self.tracker.end(self.stamp + offset_ms * MS, self.now, which))

    @rule(which=st.sampled_from(IDS))
    def abort(self, which):
        self.perform(self.tracker.abort(self.stamp, self.now, which))

    @rule(text=st.sampled_from(TEXTS))
    def instruction(self, text):
        self.perform(self.tracker.instruction(text, self.now))

    @rule(back_ms=st.sampled_from([1500, 20_000]), known=st.booleans())
    def clock_jumps(self, back_ms, known):
        self.stamp -= back_ms * MS
        to_ns = self.stamp if known else None
        self.perform(self.tracker.clock_jump(self.now, "the clock went back", to_ns))

    @rule()
    def detector_ready(self):
        if not self.outstanding:
            self.ready = True
            self.perform(self.tracker.detector_ready(self.now, "double@0"))

    @precondition(lambda self: self.ready)
    @rule(for_good=st.booleans())
    def detector_dies(self, for_good):
        self.ready = False
        self.outstanding.clear()
        self.perform(self.tracker.detector_lost(self.now, "it died", for_good=for_good))

    @rule(
        outcome=st.sampled_from(list(Outcome)),
        reason=st.sampled_from(sorted(DETECTOR_REASONS)),
        late=st.integers(0, 2),
    )
    def detector_answers(self, outcome, reason, late):
        if late == 1 and self.asked:
            request = min(self.asked)
        elif late == 2 and self.provisional:
            request = max(self.provisional)
        elif self.outstanding:
            request = self.outstanding[0]
        else:
            request = 10_000
        if request in self.outstanding:
            self.outstanding.remove(request)
        judgement = (
            Judgement.unknown(reason, "the detector could not say")
            if outcome is Outcome.UNKNOWN
            else Judgement(outcome, p_success=0.5)
        )
        self.perform(self.tracker.result(request, judgement, self.now))

    @rule(
        change=st.sampled_from(list(InstructionChange)),
        queue_size=st.integers(1, 3),
        period=st.sampled_from([0, 100 * MS]),
        grace=st.sampled_from([0, 300 * MS, 2000 * MS]),
        timeout=st.sampled_from([0, 1000 * MS]),
    )
    def settings_change(self, change, queue_size, period, grace, timeout):
        self.tracker.reconfigure(
            dataclasses.replace(
                self.tracker.config,
                instruction_change=change,
                queue_size=queue_size,
                provisional_period_ns=period,
                end_grace_ns=grace,
                instruction_grace_ns=grace,
                episode_timeout_ns=timeout,
            )
        )

    @rule()
    def deactivate_and_activate(self):
        self.perform(self.tracker.deactivate(self.now))
        assert self.verdicts.total() == len(self.starts)
        before = len(self.starts)
        self.perform(self.tracker.start(self.stamp, self.now, None, "not now"))
        assert len(self.starts) == before
        self.perform(self.tracker.activate(self.now))

    # --- what always holds ---

    @invariant()
    def counts_agree(self):
        if not hasattr(self, "tracker"):
            return
        tracker = self.tracker
        assert tracker.counters["starts"] == len(self.starts)
        assert tracker.counters["verdicts"] == self.verdicts.total()
        open_episodes = len(self.starts) - self.verdicts.total()
        # The greatest queue size there ever was; one is judged and one runs beside it.
        assert open_episodes <= 2 + 3
        assert tracker.running_id == self.running
        fates = tracker.fates
        counted = fates.used + fates.decimated + fates.dropped.total() + tracker.buffered_pairs
        assert tracker.counters["pairs"] == counted
        assert tracker.buffered_pairs <= tracker.config.recent_count

    def teardown(self):
        if not hasattr(self, "tracker"):
            return
        if self.running is not None and len(self.starts) % 2:
            self.perform(self.tracker.end(self.stamp, self.now))
            # Liveness without any help: with time alone, everything that ended is settled.
            self.now += 60_000 * MS
            for _ in range(20):
                self.now += 5000 * MS
                self.perform(self.tracker.tick(self.now))
            assert self.verdicts.total() == len(self.starts)
        self.perform(self.tracker.shut_down(self.now))
        assert all(self.verdicts[i] == 1 for i in range(1, len(self.starts) + 1))
        assert self.verdicts.total() == len(self.starts)
        self.perform(self.tracker.activate(self.now))
        before = len(self.starts)
        self.perform(self.tracker.start(self.stamp, self.now, None, "too late"))
        assert len(self.starts) == before


TrackerMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestTracker = TrackerMachine.TestCase
