"""A bag through the same tracker as the live node, without ROS: events in, final verdicts out.

The steady clock of this path is the bag's receive time, so graces and timeouts fall where they
fell when the bag was recorded. Membership and keyframes depend on header stamps alone.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from ifailsense_ros.core.effects import (
    BoundaryKind,
    ClockJumped,
    Effect,
    Judge,
    Publish,
    TrackerConfig,
)
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import IFailSenseError
from ifailsense_ros.core.pairing import (
    DEFAULT_QUEUE_SIZE,
    DEFAULT_SLOP_NS,
    ApproximatePairing,
    Pair,
)
from ifailsense_ros.core.pictures import are_small, views_of
from ifailsense_ros.core.recording import Decode, Shrink
from ifailsense_ros.core.tracker import Tracker
from ifailsense_ros.core.verdict import Judgement, Reason
from ifailsense_ros.data.rosbag import (
    BagEvent,
    BoundaryRecorded,
    ImageRecorded,
    InstructionRecorded,
    LabelRecorded,
)

_TICK_NS = 100_000_000
# Longest time that is let pass after the last message for what still has to be settled.
_FLUSH_NS = 10_000_000_000


class BagReplay:
    """Feeds recorded events to a tracker and performs its effects at once.

    Args:
        config: tracker settings.
        judge: answers the tracker's requests, in this thread. What it raises beyond our own
            errors is an UNKNOWN, as in the worker process.
        model_id: for the verdicts.
        shrink: brings a view to the model's cell; None: as it is.
        slop_ns: see `ApproximatePairing`.
        pairing_queue: messages that may wait for a partner, per camera.
        decoder: what gives the views of a pair of `ImageRecorded`, once they are needed; None:
            `core.pictures.views_of`, as the live node has it.

    Attributes:
        labels: what the success topic says, by id: each label is about the episode that started
            last.
        starts: stamp of START of each episode, by id.
    """

    def __init__(
        self,
        config: TrackerConfig,
        judge: Callable[[Episode], Judgement],
        *,
        model_id: str = "",
        shrink: Shrink | None = None,
        slop_ns: int = DEFAULT_SLOP_NS,
        pairing_queue: int = DEFAULT_QUEUE_SIZE,
        decoder: Callable[[Pair], Decode] | None = None,
    ) -> None:
        self._judge_episode = judge
        self._model_id = model_id
        self._cameras = config.cameras
        self._decoder = decoder
        self.tracker = Tracker(config, shrink=shrink)
        self.pairing = ApproximatePairing(config.cameras, slop_ns, pairing_queue)
        self.labels: dict[uuid.UUID, bool] = {}
        self.starts: dict[uuid.UUID, int] = {}
        self._latest: uuid.UUID | None = None
        self._now = 0
        self._verdicts: deque[Publish] = deque()

    def run(self, events: Iterable[BagEvent]) -> Iterator[Publish]:
        """Verdicts in the order in which they fall, exactly one per started episode."""
        started = False
        for event in events:
            if isinstance(event, LabelRecorded):  # which a monitor does not hear
                if self._latest is not None:
                    self.labels[self._latest] = event.success
                continue
            if not started:
                self._now, started = event.receive_ns, True
                self._perform(self.tracker.detector_ready(self._now, self._model_id))
            receive_ns = event.receive_ns
            if self._now + _TICK_NS < receive_ns:
                self._pass_time(receive_ns)
            elif self._now < receive_ns:
                self._now = receive_ns
            if isinstance(event, ImageRecorded):
                self._image(event)
            elif isinstance(event, InstructionRecorded):
                self._perform(self.tracker.instruction(event.text, self._now))
            else:
                self._boundary(event)
            if self._verdicts:
                yield from self._take()
        self._finish()
        yield from self._take()

    def _image(self, event: ImageRecorded) -> None:
        tracker, now = self.tracker, self._now
        camera, stamp_ns = self._cameras[event.pov], event.stamp_ns
        if stamp_ns <= 0:
            detail = "header.stamp is zero or negative"
            self._perform(tracker.bad_image(camera, detail, now))
            return
        if effects := tracker.image(camera, stamp_ns, now):
            self._perform(effects)
        for pair in self.pairing.add(camera, stamp_ns, event):
            if self._decoder is not None:
                decode, can_wait = self._decoder(pair), True
            else:
                pictures = [recorded.picture for recorded in pair.messages]
                decode = partial(views_of, self._cameras, pictures)
                can_wait = are_small(pictures)
            if effects := tracker.pair(pair.stamp_ns, decode, now, can_wait=can_wait):
                self._perform(effects)

    def _boundary(self, event: BoundaryRecorded) -> None:
        tracker, now = self.tracker, self._now
        # A sender that leaves the stamp empty means now.
        stamp_ns = event.stamp_ns or tracker.stamp_now(event.receive_ns)
        if event.event == BoundaryKind.START:
            effects = tracker.start(stamp_ns, now, event.episode_id, event.instruction)
        elif event.event == BoundaryKind.END:
            effects = tracker.end(stamp_ns, now, event.episode_id)
        elif event.event == BoundaryKind.ABORT:
            effects = tracker.abort(stamp_ns, now, event.episode_id)
        else:
            tracker.counters["boundary_unknown"] += 1
            return
        self._perform(effects)
        if (running := tracker.running_id) is not None:
            self._latest = running
            self.starts.setdefault(running, event.stamp_ns)

    def _pass_time(self, until_ns: int) -> None:
        """Tick through a gap in the recording, as the node's timer does."""
        while self._now + _TICK_NS < until_ns and not self.tracker.idle:
            self._now += _TICK_NS
            self._perform(self.tracker.tick(self._now))
        self._now = max(self._now, until_ns)

    def _finish(self) -> None:
        """The bag is over: let the graces run out, then settle what never got its END."""
        end = self._now + _FLUSH_NS
        running = self.tracker.running_id
        while self.tracker.waiting and self._now < end:
            self._now += _TICK_NS
            self._perform(self.tracker.tick(self._now))
        for effect in self.tracker.shut_down(self._now):
            if isinstance(effect, Publish) and effect.verdict.episode_id == running:
                judgement = Judgement.unknown(Reason.SHUT_DOWN, "the bag is over before END came")
                verdict = dataclasses.replace(effect.verdict, judgement=judgement)
                effect = dataclasses.replace(effect, verdict=verdict)
            self._perform([effect])

    def _perform(self, effects: Sequence[Effect]) -> None:
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            if isinstance(effect, Publish):
                self._verdicts.append(effect)
            elif isinstance(effect, Judge):
                judgement = self._judge(effect.episode)
                # What follows from the answer comes before what follows from the event.
                todo.extendleft(
                    reversed(self.tracker.result(effect.request_id, judgement, self._now))
                )
            elif isinstance(effect, ClockJumped):
                self.pairing.reset()

    def _judge(self, episode: Episode) -> Judgement:
        """As the worker process does it: a failing detector is an UNKNOWN, not a crash."""
        try:
            return self._judge_episode(episode)
        except IFailSenseError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            return Judgement.unknown(Reason.DETECTOR_ERROR, f"{type(error).__name__}: {text}")

    def _take(self) -> Iterator[Publish]:
        while self._verdicts:
            yield self._verdicts.popleft()
