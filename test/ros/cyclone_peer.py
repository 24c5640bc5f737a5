"""A robot without ROS: Eclipse Cyclone DDS speaks to the monitor by its wire types alone.

Run by test_cyclone.py as `python cyclone_peer.py DOMAIN`, with CYCLONEDDS_URI set: publishes
instruction, events and pictures of two episodes, prints each verdict it hears as a JSON line.
The types are written by hand from the .msg files, so they also hold the wire format.
"""

# No `from __future__ import annotations`: cyclonedds reads the annotations as types.
import json
import math
import sys
import time
from dataclasses import dataclass, field

from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import array, float32, int32, sequence, uint8, uint16, uint32
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

START, END = 1, 2
ZERO = [0] * 16
HEIGHT, WIDTH = 24, 32


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
class Duration(IdlStruct, typename="builtin_interfaces::msg::dds_::Duration_"):
    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time = field(default_factory=Time)
    frame_id: str = ""


@dataclass
class String(IdlStruct, typename="std_msgs::msg::dds_::String_"):
    data: str = ""


@dataclass
class UUID(IdlStruct, typename="unique_identifier_msgs::msg::dds_::UUID_"):
    uuid: array[uint8, 16] = field(default_factory=lambda: list(ZERO))


@dataclass
class Image(IdlStruct, typename="sensor_msgs::msg::dds_::Image_"):
    header: Header
    height: uint32
    width: uint32
    encoding: str
    is_bigendian: uint8
    step: uint32
    data: sequence[uint8]


@dataclass
class EpisodeEvent(IdlStruct, typename="ifailsense_ros::msg::dds_::EpisodeEvent_"):
    header: Header
    episode_id: UUID
    event: uint8
    instruction: str


@dataclass
class DetectorVote(IdlStruct, typename="ifailsense_ros::msg::dds_::DetectorVote_"):
    source: str
    vote: uint8
    p_success: float32
    weight: float32


@dataclass
class FailureVerdict(IdlStruct, typename="ifailsense_ros::msg::dds_::FailureVerdict_"):
    header: Header
    episode_id: UUID
    instruction: str
    verdict: uint8
    reason_code: uint16
    reason: str
    p_success: float32
    votes: sequence[DetectorVote]
    keyframe_stamps: sequence[Time]
    latency: Duration
    model_id: str


RELIABLE = Policy.Reliability.Reliable(duration(seconds=1))
PLAIN = Qos(RELIABLE, Policy.History.KeepLast(50))
LATCHED = Qos(RELIABLE, Policy.History.KeepLast(10), Policy.Durability.TransientLocal)


class Robot:
    """Two cameras, a planner and a listener."""

    def __init__(self, domain: int) -> None:
        participant = DomainParticipant(domain)
        self._keep = participant

        def topic(name: str, kind: type) -> Topic:
            return Topic(participant, f"rt/{name}", kind)

        self._cameras = [
            DataWriter(participant, topic(f"{camera}/image", Image), qos=PLAIN)
            for camera in ("exo", "gripper")
        ]
        self._instruction = DataWriter(participant, topic("instruction", String), qos=LATCHED)
        self._episode = DataWriter(participant, topic("episode", EpisodeEvent), qos=PLAIN)
        self._verdicts = DataReader(
            participant, topic("monitor/verdict", FailureVerdict), qos=LATCHED
        )
        self._now_ms = 1_700_000_000_000

    def wait_for_the_monitor(self) -> None:
        """Until it has subscribed to everything and its verdicts are found."""
        writers = [*self._cameras, self._instruction, self._episode]
        while not (
            all(w.get_matched_subscriptions() for w in writers)
            and self._verdicts.get_matched_publications()
        ):
            time.sleep(0.05)
        time.sleep(0.5)

    def episode(self, number: int, brighter: bool) -> FailureVerdict:
        """Play an episode; returns its verdict."""
        self._instruction.write(String(f"lift block {number}"))
        time.sleep(0.2)
        identity = UUID([number] * 16)
        self._event(START, identity)
        for i in range(12):
            level = 10 + 15 * i if brighter else 250 - 15 * i
            pixels = [level] * (HEIGHT * WIDTH * 3)
            for writer in self._cameras:
                writer.write(Image(self._header(), HEIGHT, WIDTH, "rgb8", 0, WIDTH * 3, pixels))
            self._now_ms += 100
            time.sleep(0.05)
        self._event(END, UUID())
        while True:
            for sample in self._verdicts.take(10):
                if isinstance(sample, FailureVerdict):
                    return sample
            time.sleep(0.02)

    def _event(self, event: int, identity: UUID) -> None:
        self._episode.write(EpisodeEvent(self._header(), identity, event, ""))
        time.sleep(0.05)

    def _header(self) -> Header:
        return Header(Time(self._now_ms // 1000, self._now_ms % 1000 * 1_000_000), "cyclone")


def main() -> None:
    """Two episodes, two lines."""
    robot = Robot(int(sys.argv[1]))
    robot.wait_for_the_monitor()
    for number, brighter in ((1, True), (2, False)):
        verdict = robot.episode(number, brighter)
        print(
            json.dumps(
                {
                    "id": list(verdict.episode_id.uuid),
                    "instruction": verdict.instruction,
                    "verdict": verdict.verdict,
                    "reason_code": verdict.reason_code,
                    "reason": verdict.reason,
                    "p_success": round(verdict.p_success, 3),
                    "votes": [
                        [v.source, v.vote, round(v.p_success, 3), v.weight] for v in verdict.votes
                    ],
                    "keyframes": len(verdict.keyframe_stamps),
                    "stamp_s": verdict.header.stamp.sec + verdict.header.stamp.nanosec / 1e9,
                    "frame_id": verdict.header.frame_id,
                    "latency_s": verdict.latency.sec + verdict.latency.nanosec / 1e9,
                    "model_id": verdict.model_id,
                    "nan": math.isnan(verdict.p_success),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
