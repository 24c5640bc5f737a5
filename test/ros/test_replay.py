"""The replayer, the listener and the example replanner as processes, over real DDS."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import (  # noqa: E402
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from ifailsense_ros.core.verdict import Reason  # noqa: E402
from ifailsense_ros.data.rosbag import (  # noqa: E402
    BoundaryRecorded,
    ImageRecorded,
    InstructionRecorded,
    read_events,
)
from ifailsense_ros.msg import DetectorVote, EpisodeEvent, FailureVerdict  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BAG = ROOT / "bags" / "demo" / "test-00-success"
TWIN = ROOT / "bags" / "demo" / "test-00-missed-grasp"
RELIABLE = QoSProfile(depth=500, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class Peer:
    """A node of the test in a domain of its own, spun by hand, and processes in that domain."""

    def __init__(self, domain: int, folder: Path) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("peer", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._folder = folder
        self._environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONPATH": str(ROOT)}
        self._children: list[subprocess.Popen] = []

    def spin_until(self, done: Callable[[], bool], timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, "waited in vain"
            self._executor.spin_once(timeout_sec=0.05)

    def start(self, *command: str) -> subprocess.Popen:
        """A Python process; its output goes to files named out and err."""
        with (self._folder / "out").open("w") as out, (self._folder / "err").open("w") as err:
            child = subprocess.Popen(
                [sys.executable, "-u", *command],
                env=self._environment,
                cwd=ROOT,
                stdout=out,
                stderr=err,
            )
        self._children.append(child)
        return child

    def out(self) -> list[str]:
        return (self._folder / "out").read_text().splitlines()

    def err(self) -> str:
        return (self._folder / "err").read_text()

    def close(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    peer = Peer(random.randint(1, 100), tmp_path)
    yield peer
    peer.close()


def _ns(stamp: Time) -> int:
    return stamp.sec * 10**9 + stamp.nanosec


# --- replay ---------------------------------------------------------------------------------------


def test_two_bags_arrive_whole_with_their_own_stamps(peer: Peer) -> None:
    got: dict[str, list] = {"exo": [], "gripper": [], "instruction": [], "episode": []}
    best_effort: list[CompressedImage] = []
    for name in ("exo", "gripper"):
        topic = f"{name}/image/compressed"
        peer.node.create_subscription(CompressedImage, topic, got[name].append, RELIABLE)
        # As the monitor subscribes. On a busy machine this may lose some, so it is not counted.
        peer.node.create_subscription(
            CompressedImage, topic, best_effort.append, qos_profile_sensor_data
        )
    peer.node.create_subscription(String, "instruction", got["instruction"].append, LATCHED)
    peer.node.create_subscription(EpisodeEvent, "episode", got["episode"].append, RELIABLE)
    child = peer.start(
        "-m", "ifailsense_ros.ros.replay", str(BAG), str(TWIN), "--rate", "8", "--pause", "0.2"
    )
    peer.spin_until(lambda: child.poll() is not None)
    assert child.returncode == 0, peer.err()
    peer.spin_until(
        lambda: len(got["episode"]) == 4 and len(got["exo"]) == len(got["gripper"]) == 56
    )
    assert peer.out() == [f"replay {BAG}: 59 messages", f"replay {TWIN}: 59 messages"]

    assert best_effort
    events = [*read_events(BAG), *read_events(TWIN)]
    for pov, name in enumerate(("exo", "gripper")):
        recorded = [e for e in events if isinstance(e, ImageRecorded) and e.pov == pov]
        assert [_ns(m.header.stamp) for m in got[name]] == [e.stamp_ns for e in recorded]
    assert [m.data for m in got["instruction"]] == [
        e.text for e in events if isinstance(e, InstructionRecorded)
    ]
    assert [(m.event, _ns(m.header.stamp)) for m in got["episode"]] == [
        (e.event, e.stamp_ns) for e in events if isinstance(e, BoundaryRecorded)
    ]


def test_rate_and_late_subscriber(peer: Peer) -> None:
    """At rate 0.7 a bag of 3.0 s takes 4.3 s; the instruction reaches whoever comes later."""
    times: list[float] = []
    late: list[str] = []
    peer.node.create_subscription(
        EpisodeEvent, "episode", lambda m: times.append(time.monotonic()), RELIABLE
    )
    child = peer.start("-m", "ifailsense_ros.ros.replay", str(BAG), "--rate", "0.7", "--wait", "0")
    # Nobody is waited for, so START may be missed; END comes after it in any case.
    peer.spin_until(lambda: bool(late) or peer.node.count_publishers("/instruction") > 0)
    peer.node.create_subscription(String, "instruction", lambda m: late.append(m.data), LATCHED)
    peer.spin_until(lambda: child.poll() is not None)
    assert child.returncode == 0
    assert late == ["pick the red block up from the table"]
    if len(times) == 2:
        assert times[1] - times[0] == pytest.approx(2.9 / 0.7, abs=0.5)


def test_nobody_listens(peer: Peer) -> None:
    child = peer.start("-m", "ifailsense_ros.ros.replay", str(BAG), "--wait", "0.5")
    assert child.wait(timeout=30) == 2
    assert peer.err().count("\n") == 1
    assert "no subscriber on /episode, /exo/image/compressed" in peer.err()
    assert peer.out() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((str(ROOT / "bags"),), "metadata.yaml is missing"),
        ((str(BAG), "nowhere"), "nowhere: no such bag"),
        ((str(BAG), "--rate", "-1"), "--rate -1.0: must be greater than 0"),
    ],
)
def test_mistakes_are_told_before_anything_is_played(
    peer: Peer, arguments: tuple[str, ...], says: str
) -> None:
    child = peer.start("-m", "ifailsense_ros.ros.replay", *arguments)
    assert child.wait(timeout=30) == 2
    assert says in peer.err()
    assert peer.err().count("\n") == 1
    assert peer.out() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_replay_ends_at_once(peer: Peer, number: signal.Signals) -> None:
    child = peer.start("-m", "ifailsense_ros.ros.replay", str(BAG), "--wait", "0", "--rate", "0.01")
    peer.spin_until(lambda: peer.node.count_publishers("/instruction") > 0)
    time.sleep(0.5)
    child.send_signal(number)
    assert child.wait(timeout=10) == 130, peer.err()
    assert "Traceback" not in peer.err()


# --- listen and replan ----------------------------------------------------------------------------


def _verdict(episode: int, verdict: int, reason: int = 0, text: str = "") -> FailureVerdict:
    message = FailureVerdict(verdict=verdict, reason_code=reason, reason=text)
    message.instruction = "lift the red block"
    message.header.stamp = Time(sec=7, nanosec=5)
    message.episode_id.uuid = np.frombuffer(uuid.UUID(int=episode << 96).bytes, np.uint8)
    message.p_success = math.nan if verdict == FailureVerdict.UNKNOWN else 0.25
    message.votes = [
        DetectorVote(source="fs:1", vote=DetectorVote.SUCCESS, p_success=0.75, weight=1.0),
        DetectorVote(source="vlm", vote=DetectorVote.ABSTAIN, p_success=math.nan, weight=2.0),
    ]
    message.keyframe_stamps = [Time(sec=5), Time(sec=6, nanosec=1)]
    message.latency.nanosec = 250_000_000
    message.model_id = "double@0"
    return message


def test_listener_writes_down_verdicts_and_montages(peer: Peer, tmp_path: Path) -> None:
    verdicts = peer.node.create_publisher(FailureVerdict, "/monitor/verdict", LATCHED)
    montages = peer.node.create_publisher(Image, "/monitor/montage", RELIABLE)
    verdicts.publish(_verdict(1, FailureVerdict.FAILURE))  # before the listener is there: latched
    folder = tmp_path / "montages"
    child = peer.start("-m", "ifailsense_ros.ros.listen", "--montage-dir", str(folder))
    peer.spin_until(lambda: montages.get_subscription_count() > 0 and len(peer.out()) == 1)
    rgb = np.full((4, 6, 3), (250, 10, 20), np.uint8)
    picture = Image(height=4, width=6, encoding="rgb8", step=18)
    picture.header.stamp = Time(sec=7, nanosec=5)
    picture.data = rgb.tobytes()
    montages.publish(picture)
    picture.encoding = "nonsense"
    montages.publish(picture)
    verdicts.publish(_verdict(2, FailureVerdict.UNKNOWN, Reason.CAMERA_STALE, "too late"))
    peer.spin_until(lambda: len(peer.out()) == 3)

    lines = [json.loads(line) for line in peer.out()]
    first, second = (item for item in lines if item["kind"] == "verdict")
    assert first == {
        "kind": "verdict",
        "episode_id": str(uuid.UUID(int=1 << 96)),
        "instruction": "lift the red block",
        "verdict": "FAILURE",
        "reason_code": "NONE",
        "reason": "",
        "p_success": 0.25,
        "votes": [
            {"source": "fs:1", "vote": "SUCCESS", "p_success": 0.75, "weight": 1.0},
            {"source": "vlm", "vote": "ABSTAIN", "p_success": None, "weight": 2.0},
        ],
        "stamp_ns": 7_000_000_005,
        "keyframe_stamps_ns": [5_000_000_000, 6_000_000_001],
        "latency_s": 0.25,
        "model_id": "double@0",
    }
    assert (second["verdict"], second["reason_code"]) == ("UNKNOWN", "CAMERA_STALE")
    assert second["p_success"] is None
    (montage,) = (item for item in lines if item["kind"] == "montage")
    assert montage["stamp_ns"] == 7_000_000_005
    np.testing.assert_array_equal(cv2.imread(montage["path"])[..., ::-1], rgb)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=10) == 0
    assert "Traceback" not in peer.err()


def test_replanner_answers_every_kind_of_verdict(peer: Peer) -> None:
    verdicts = peer.node.create_publisher(FailureVerdict, "/cell/monitor/verdict", LATCHED)
    failures = peer.node.create_publisher(FailureVerdict, "/cell/monitor/failure", RELIABLE)
    verdicts.publish(_verdict(99, FailureVerdict.SUCCESS))  # old: must not be acted upon
    child = peer.start(
        str(ROOT / "examples" / "replanner.py"), "--ros-args", "-p", "monitor:=/cell/monitor"
    )
    peer.spin_until(
        lambda: verdicts.get_subscription_count() > 0 and failures.get_subscription_count() > 0
    )
    peer.spin_until(lambda: True)
    time.sleep(0.5)

    def send(publisher, message: FailureVerdict) -> str:
        before = len(peer.out())
        publisher.publish(message)
        peer.spin_until(lambda: len(peer.out()) > before)
        return peer.out()[-1]

    assert send(failures, _verdict(1, FailureVerdict.FAILURE)).startswith("[00000001] re-ground")
    assert "(2)" in send(failures, _verdict(2, FailureVerdict.FAILURE))
    assert "ask a person" in send(failures, _verdict(3, FailureVerdict.FAILURE))
    assert "next step" in send(verdicts, _verdict(4, FailureVerdict.SUCCESS))
    assert "(1)" in send(failures, _verdict(5, FailureVerdict.FAILURE))  # success resets the count
    actions = {}
    for reason in Reason:
        if reason is not Reason.NONE:
            message = _verdict(10 + reason, FailureVerdict.UNKNOWN, reason, f"why {reason.name}")
            actions[reason] = send(verdicts, message)
    assert "cameras" in actions[Reason.CAMERA_ABSENT]
    assert "START, END" in actions[Reason.NO_INSTRUCTION]
    assert "without the monitor" in actions[Reason.DETECTOR_TIMEOUT]
    assert "another side" in actions[Reason.VLM_ABSTAINED]
    assert "nothing to do" in actions[Reason.ABORTED]
    assert "ask a person" in send(verdicts, _verdict(50, FailureVerdict.UNKNOWN, 999, "new"))
    verdicts.publish(_verdict(60, FailureVerdict.FAILURE))  # comes on its own topic: not twice
    time.sleep(0.5)
    assert not any("[0000003c]" in line or "[00000063]" in line for line in peer.out())
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=10) == 0
    assert "Traceback" not in peer.err()
