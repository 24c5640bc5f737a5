"""Malformed messages into the node's seams: nothing is raised, and every refusal is counted.

    python -m benchmarks.fuzz --messages 100000

Hypothesis makes streams of Image, CompressedImage, EpisodeEvent, String and GoalStatusArray
messages with anything a message can hold (sizes that do not fit, unknown encodings, cut JPEGs,
stamps of any sign, ids that come back, texts of any characters) and pours them into the node's
intake and its tracker. All that comes out is converted and serialized, as it would be published.
The same checks run on a few thousand messages in test/ros/test_fuzz.py.
"""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from collections import Counter
from typing import Any

import cv2
import numpy as np
from action_msgs.msg import GoalStatus, GoalStatusArray
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from ifailsense_ros.core.effects import (
    Abandon,
    Boundary,
    ClockJumped,
    Judge,
    JudgeProvisional,
    Publish,
    PublishProvisional,
    TrackerConfig,
)
from ifailsense_ros.core.montage import MontageGeometry, annotate, compose, fit_cell
from ifailsense_ros.core.tracker import Tracker
from ifailsense_ros.core.verdict import Judgement, Outcome
from ifailsense_ros.msg import EpisodeEvent
from ifailsense_ros.ros import conversions
from ifailsense_ros.ros.image_source import make_reader, make_synchronizer
from ifailsense_ros.ros.intake import Intake

MS = 1_000_000
CAMERAS = ("exo", "gripper")
GEOMETRY = MontageGeometry(2, 4, 8, 8)
STEPS_A_STREAM = 30

_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "bayer_rggb8", "yuv422", "8UC3")
_JPEG = cv2.imencode(".jpg", np.full((8, 8, 3), 99, np.uint8))[1].tobytes()
_PNG = cv2.imencode(".png", np.full((8, 8, 3), 99, np.uint8))[1].tobytes()


# From one message to the next: mostly on, sometimes anywhere.
_time_steps = st.one_of(
    st.sampled_from([0, 33 * MS, 100 * MS, 100 * MS, 100 * MS]),
    st.sampled_from([33 * MS, 100 * MS]),
    st.integers(-3000 * MS, 3000 * MS),
    st.integers(-(2**61), 2**61),
)
_uints = st.one_of(st.integers(0, 12), st.integers(0, 2**32 - 1))
_texts = st.one_of(st.sampled_from(["lift the block", "push it", "", " \n"]), st.text(max_size=40))
_encodings = st.one_of(st.sampled_from([*_ENCODINGS, "16UC1", "32FC1"]), st.text(max_size=12))
_ids = st.one_of(
    st.integers(0, 3).map(lambda i: uuid.UUID(int=i).bytes), st.binary(min_size=16, max_size=16)
)


@st.composite
def _images(draw: Any) -> Image:
    if draw(st.integers(0, 3)):  # three of four are good: something must be judged
        height, width, encoding = 6, 8, "rgb8"
        step, data = 24, bytes([draw(st.integers(0, 255))]) * 144
    else:
        height, width, step = draw(_uints), draw(_uints), draw(_uints)
        encoding, data = draw(_encodings), draw(st.binary(max_size=300))
    message = Image(height=height, width=width, step=step, encoding=encoding)
    message.is_bigendian = draw(st.integers(0, 255)) if draw(st.booleans()) else 0
    message.data = data
    return message


@st.composite
def _compressed(draw: Any) -> CompressedImage:
    data = draw(st.sampled_from([_JPEG, _JPEG, _PNG]))
    kind = draw(st.integers(0, 5))
    if kind == 0:
        data = data[: draw(st.integers(0, len(data)))]
    elif kind == 1:
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=9)) + data[at:]
    elif kind == 2:
        data = draw(st.binary(max_size=300))
    names = st.sampled_from(["jpeg", "png", "rgb8; jpeg compressed bgr8", "16UC1; png compressed"])
    return CompressedImage(format=draw(st.one_of(names, st.text(max_size=20))), data=data)


@st.composite
def _events(draw: Any) -> EpisodeEvent:
    message = EpisodeEvent(event=draw(st.one_of(st.integers(1, 3), st.integers(0, 255))))
    message.episode_id.uuid = np.frombuffer(draw(_ids), np.uint8)
    message.instruction = draw(_texts)
    return message


@st.composite
def _goals(draw: Any) -> GoalStatusArray:
    array = GoalStatusArray()
    for _ in range(draw(st.integers(0, 3))):
        status = GoalStatus(status=draw(st.one_of(st.integers(0, 6), st.integers(-128, 127))))
        status.goal_info.goal_id.uuid = np.frombuffer(draw(_ids), np.uint8)
        status.goal_info.stamp.sec = draw(st.one_of(st.just(0), st.integers(-(2**31), 2**31 - 1)))
        array.status_list.append(status)
    return array


class Bench:
    """An intake with its tracker, whose effects are carried out as the node does.

    Args:
        compressed: which of the two image messages the cameras send.
    """

    def __init__(self, compressed: bool) -> None:
        config = TrackerConfig(
            cameras=CAMERAS,
            min_keyframes=1,
            end_grace_ns=0,
            instruction_grace_ns=0,
            provisional_period_ns=1,
        )
        self.tracker = Tracker(config, shrink=lambda view: fit_cell(view, GEOMETRY))
        synchronizer = make_synchronizer("builtin", CAMERAS, 50 * MS, 10)
        read = make_reader("builtin", compressed=compressed)
        self.intake = Intake(self.tracker, synchronizer, read, lambda: 1)
        self.sent: Counter[str] = Counter()
        self.known: dict[str, int] = {}
        self._perform(self.tracker.detector_ready(time.monotonic_ns(), "double@0"))

    def send(self, kind: str, message: Any) -> None:
        """As if a message had come."""
        self.sent[kind] += 1
        if kind in CAMERAS:
            self.intake.on_image(kind, serialize_message(message))
        else:
            getattr(self.intake, f"on_{kind}")(message)
        for effects in self.intake.work():
            self._perform(effects)

    def settle(self) -> None:
        """The end: everything gets its verdict."""
        self._perform(self.tracker.shut_down(time.monotonic_ns()))

    def check(self) -> None:
        """What was refused was counted; nothing is lost."""
        counters, sent = self.tracker.counters, self.sent
        for camera in CAMERAS:
            values = self.intake.values(camera)
            accounted = sum(values[key] for key in ("used", "decimated", "dropped", "buffered"))
            assert values["received"] == sent[camera] == accounted, values
        events = ("starts", "start_repeated", "event_unknown")
        events += tuple(
            f"{kind}{how}"
            for kind in ("end", "abort")
            for how in ("s", "_repeated", "_other_id", "_without_start")
        )
        # Those of goals are counted with the others.
        assert sum(counters[name] for name in events) >= sent["episode"]
        assert counters["verdicts"] == counters["starts"]

    def _perform(self, effects: Any) -> None:
        for effect in effects:
            if isinstance(effect, Judge | JudgeProvisional):
                # Looks at every pixel, and answers at once.
                mean = np.mean([np.mean(v) for k in effect.episode.keyframes for v in k.views])
                judgement = Judgement(Outcome.SUCCESS, p_success=float(mean) / 255)
                now_ns = time.monotonic_ns()
                self._perform(self.tracker.result(effect.request_id, judgement, now_ns))
            elif isinstance(effect, Publish | PublishProvisional):
                serialize_message(conversions.to_verdict_message(effect.verdict))
                if effect.episode is not None and isinstance(effect, Publish):
                    montage = compose(effect.episode, GEOMETRY)
                    picture = annotate(montage, effect.verdict, GEOMETRY, scale=1)
                    serialize_message(conversions.to_image_message(picture, effect.verdict.end_ns))
            elif isinstance(effect, Boundary):
                serialize_message(conversions.to_event_message(effect))
            elif isinstance(effect, ClockJumped):
                self.intake.reset_pairing()
            else:
                assert isinstance(effect, Abandon), effect


class _Stream:
    """Draws messages and sends them, with a clock that goes where hypothesis wants."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw
        compressed = draw(st.booleans())
        self.bench = Bench(compressed)
        self._pictures = _compressed() if compressed else _images()
        self._stamp_ns = 1000 * 10**9

    def step(self, kind: str) -> None:
        """Send what a kind of step consists of."""
        if kind == "instruction":
            self.bench.send(kind, String(data=self._draw(_texts)))
        elif kind == "goal_status":
            self.bench.send(kind, self._draw(_goals()))
        elif kind == "episode":
            self._event(self._draw(_events()))
        elif kind == "whole episode":
            self._event(EpisodeEvent(event=EpisodeEvent.START, instruction="lift the block"))
            for _ in range(self._draw(st.integers(3, 6))):
                self._film(CAMERAS, 100 * MS)
            self._event(EpisodeEvent(event=EpisodeEvent.END))
        else:
            self._film(CAMERAS if kind == "pair" else (kind,), self._draw(_time_steps))

    def _event(self, message: EpisodeEvent) -> None:
        self._send("episode", message)

    def _film(self, cameras: tuple[str, ...], step_ns: int) -> None:
        self._stamp_ns += step_ns
        if abs(self._stamp_ns) > 2**61:  # what a stamp holds
            self._stamp_ns = 1000 * 10**9
        for camera in cameras:
            self._send(camera, self._draw(self._pictures))

    def _send(self, kind: str, message: Any) -> None:
        message.header.stamp = conversions.to_time(self._stamp_ns)
        self.bench.send(kind, message)


@st.composite
def streams(draw: Any) -> Bench:
    """A bench that has taken a stream of messages."""
    stream = _Stream(draw)
    kinds = [*CAMERAS, "pair", "pair", "episode", "instruction", "goal_status", "whole episode"]
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=5, max_size=STEPS_A_STREAM)):
        stream.step(kind)
    stream.bench.settle()
    return stream.bench


def run(examples: int, seed_: int) -> Counter[str]:
    """Pour streams in and check.

    Args:
        examples: number of streams.
        seed_: of hypothesis.

    Returns:
        How many messages of each kind, verdicts by outcome, and streams.
    """
    total: Counter[str] = Counter()

    @seed(seed_)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(streams())
    def pour(bench: Bench) -> None:
        bench.check()
        total.update(bench.sent)
        total["streams"] += 1
        total["messages"] += bench.sent.total()
        for name, count in bench.tracker.counters.items():
            if name.startswith("verdict"):
                total[name] += count
        total["pictures refused"] += bench.tracker.fates.dropped["bad_image"]

    pour()
    return total


def main(argv: list[str] | None = None) -> int:
    """Run it in rounds, so that the number of messages and not of streams decides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    total: Counter[str] = Counter()
    round_, started = 0, time.monotonic()
    while total["messages"] < args.messages:
        total += run(200, args.seed + round_)
        round_ += 1
        rate = total["messages"] / (time.monotonic() - started)
        print(f"\r{total['messages']} messages, {rate:.0f} a second", end="", flush=True)
    print()
    for name, count in sorted(total.items()):
        print(f"{name:24} {count}")
    print("nothing was raised; every message is accounted for")
    return 0


if __name__ == "__main__":
    sys.exit(main())
