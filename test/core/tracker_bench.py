"""A tracker with a clock, cameras and a detector, for the tests by example."""

import dataclasses
import uuid

import numpy as np

from ifailsense_ros.core.effects import (
    Judge,
    Publish,
    TrackerConfig,
)
from ifailsense_ros.core.errors import ImageError
from ifailsense_ros.core.tracker import Tracker
from ifailsense_ros.core.verdict import Judgement, Outcome

MS = 1_000_000
S = 1000 * MS
T0 = 1000 * S
SUCCESS = Judgement(Outcome.SUCCESS, p_success=0.9)
ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)


class Bench:
    """A tracker with a clock: stamps are T0 + t, steady time is t."""

    def __init__(self, ready=True, **settings):
        self.config = dataclasses.replace(TrackerConfig(), **settings)
        self.tracker = Tracker(self.config, shrink=lambda v: v[:2, :2])
        self.now = 0
        self.effects = []
        self.decoded = []
        if ready:
            self.do(self.tracker.detector_ready(0, "double@0"))

    def do(self, effects):
        self.effects += effects
        return effects

    def of(self, kind):
        return [e for e in self.effects if isinstance(e, kind)]

    @property
    def verdicts(self):
        return [e.verdict for e in self.of(Publish)]

    def only_reason(self):
        (verdict,) = self.verdicts
        assert verdict.judgement.outcome is Outcome.UNKNOWN
        return verdict.judgement.reason

    def wait(self, ms):
        self.now += ms * MS
        return self.do(self.tracker.tick(self.now))

    def start(self, offset_ms=0, episode_id=None, text="lift the block"):
        stamp = T0 + self.now + offset_ms * MS
        return self.do(self.tracker.start(stamp, self.now, episode_id, text))

    def end(self, offset_ms=0, episode_id=None):
        return self.do(self.tracker.end(T0 + self.now + offset_ms * MS, self.now, episode_id))

    def say(self, text):
        return self.do(self.tracker.instruction(text, self.now))

    def film(self, ms, step_ms=100, cameras=("exo", "gripper"), decode=None):
        """Pictures at the beginning of each step; returns the stamps."""
        stamps = []
        for _ in range(ms // step_ms):
            stamp = T0 + self.now
            for camera in cameras:
                self.do(self.tracker.image(camera, stamp, self.now))
            if len(cameras) == 2:
                self.do(self.tracker.pair(stamp, decode or self.decoder(stamp), self.now))
            stamps.append(stamp)
            self.wait(step_ms)
        return stamps

    def decoder(self, stamp):
        def decode():
            self.decoded.append(stamp)
            return [np.full((3, 4, 3), camera, np.uint8) for camera in range(2)]

        return decode

    def answer(self, judgement=SUCCESS):
        request = self.of(Judge)[-1].request_id
        return self.do(self.tracker.result(request, judgement, self.now))


def bad_decode():
    raise ImageError("encoding 'x' is unknown")


def film_one_episode(bench, ms=2000, **start):
    bench.film(500)
    bench.start(**start)
    bench.film(ms)
    bench.end()
    bench.film(500)
