"""The rigs in config/: parameters, names and pairing, and the real node with each of them."""

from __future__ import annotations

import array
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

import rclpy
import yaml
from rclpy.qos import ReliabilityPolicy
from ros_peer import MS, ROOT, MonitorProcess, Peer, child_environment

from ifailsense_ros.core.pairing import ApproximatePairing
from ifailsense_ros.msg import FailureVerdict
from ifailsense_ros.ros.parameters import PARAMETERS, objection
from ifailsense_ros.ros.rigs import arguments_of

CONFIGS = sorted((ROOT / "config").rglob("*.yaml"))
RIGS = sorted((ROOT / "config" / "rigs").glob("*.yaml"))


def config_name(path: Path) -> str:
    return path.stem


def parameters_of(path: Path) -> dict[str, object]:
    """The parameters of a file that holds those of one node."""
    (section,) = yaml.safe_load(path.read_text()).values()
    (parameters,) = section.values()
    return parameters


def topics_of(rig: Path) -> dict[str, str]:
    """Its camera topics, as its launch file has them."""
    given = {name: default for name, (default, *_) in arguments_of(rig.stem).items()}
    return {c: "/" + given.get(f"{c}_image", f"{c}/image") for c in ("exo", "gripper")}


def faults_of(parameters: dict[str, object]) -> list[str]:
    """What the node would refuse or pass over."""
    return [
        objection(name, value) if name in PARAMETERS else f"parameter {name} is unknown"
        for name, value in parameters.items()
        if name != "qos_overrides" and (name not in PARAMETERS or objection(name, value))
    ]


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=config_name)
def test_a_config_file_fits_the_nodes_parameters(path):
    assert faults_of(parameters_of(path)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slopp", 0.05),
        ("slop", 1),
        ("slop", 2.0),
        ("queue_size", True),
        ("queue_size", 0),
        ("image_transport", "ffmpeg"),
        ("detector", ""),
    ],
)
def test_a_planted_fault_is_found(name, value):
    (fault,) = faults_of({"pairing_queue": 10, name: value})
    assert name in fault


@pytest.mark.parametrize("path", RIGS, ids=config_name)
def test_qos_overrides_go_by_the_topics_of_the_launch_file(path):
    parameters = parameters_of(path)
    suffix = "/compressed" if parameters["image_transport"] == "compressed" else ""
    overrides = parameters["qos_overrides"]
    assert set(overrides) == {topic + suffix for topic in topics_of(path).values()}
    assert all(o["subscription"]["reliability"] == "reliable" for o in overrides.values())


@pytest.mark.parametrize("path", RIGS, ids=config_name)
def test_the_documentation_has_the_rig(path):
    text = (ROOT / "docs" / "rigs.md").read_text()
    assert f"../config/rigs/{path.name}" in text
    assert f"{path.stem}.launch.py" in text
    for topic in topics_of(path).values():
        assert topic in text


# --- pairing at the rig's frame rates -------------------------------------------------------------

RATES = {
    "franka_realsense": [(30, 30)],
    "droid_zed": [(15, 15)],
    # In poor light a camera drops to half its rate by itself.
    "usb_cameras": [(30, 30), (30, 15), (15, 15)],
}
"""Hz of the two cameras. They run freely; the cameras of simulation.yaml do not."""

JITTER_MS = 5


def paired_share(slop_ns: int, queue: int, rates: tuple[int, int], phase: float) -> float:
    """Of the slower camera's pictures, how many find a partner; the phase in periods."""
    draw = random.Random(0)
    stream = [
        (round(1e9 / rate * (i + (phase if camera else 0.0))) + draw.randint(0, JITTER_MS * MS), c)
        for camera, (c, rate) in enumerate(zip(("exo", "gripper"), rates, strict=True))
        for i in range(4 * rate)
    ]
    pairing = ApproximatePairing(("exo", "gripper"), slop_ns, queue)
    pairs = sum(len(pairing.add(camera, stamp, None)) for stamp, camera in sorted(stream))
    return pairs / (4 * min(rates))


@pytest.mark.parametrize(
    ("rig", "rates"), [(rig, rates) for rig, cases in RATES.items() for rates in cases]
)
def test_free_running_cameras_pair_at_every_phase(rig, rates):
    parameters = parameters_of(ROOT / "config" / "rigs" / f"{rig}.yaml")
    slop_ns = round(parameters["slop"] * 1e9)
    queue = parameters.get("pairing_queue", PARAMETERS["pairing_queue"].default)
    shares = [paired_share(slop_ns, queue, rates, phase / 10) for phase in range(10)]
    assert min(shares) > 0.95


@pytest.mark.parametrize("rate", [15, 30])
def test_with_a_slop_below_half_a_period_there_are_phases_without_pairs(rate):
    """Why the rigs' slop is what it is."""
    slop_ns = round(0.5e9 / rate) - 2 * JITTER_MS * MS
    assert paired_share(slop_ns, 10, (rate, rate), 0.0) > 0.95
    assert paired_share(slop_ns, 10, (rate, rate), 0.5) == 0.0


# --- the real node --------------------------------------------------------------------------------


class RigMonitor(MonitorProcess):
    """The monitor with a rig's file and names, and with the double as detector."""

    def __init__(self, log: Path, rig: Path, names: dict[str, str], given: dict[str, str]) -> None:
        words = ["--params-file", str(rig), "-p", "detector:=doubles:load"]
        words += [word for item in names.items() for word in ("-r", ":=".join(item))]
        words += [word for item in given.items() for word in ("-p", ":=".join(item))]
        command = [sys.executable, "-m", "ifailsense_ros.ros.monitor", "--ros-args", *words]
        self._log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                command, env=child_environment(), cwd=ROOT, stdout=out, stderr=out
            )


def picture(encoding: str, width: int, height: int, channels: int):
    """Makes pictures of one grey level as a rig's driver sends them."""
    from sensor_msgs.msg import Image

    def make(level: int) -> Image:
        step = width * channels
        data = array.array("B", bytes([level]) * (step * height))
        return Image(height=height, width=width, encoding=encoding, step=step, data=data)

    return make


def jpeg(level: int):
    import cv2
    import numpy as np
    from sensor_msgs.msg import CompressedImage

    encoded = cv2.imencode(".jpg", np.full((480, 640, 3), level, np.uint8))[1]
    return CompressedImage(format="jpeg", data=array.array("B", encoded.tobytes()))


DRIVERS = {
    "franka_realsense": (picture("rgb8", 320, 240, 3), {}),
    "droid_zed": (picture("bgra8", 320, 180, 4), {}),
    "usb_cameras": (jpeg, {}),
    "simulation": (jpeg, {"use_sim_time": "true"}),
}
"""What each rig's cameras send, and what its launch file sets. Smaller pictures than real ones: how
much a machine can take is not the question here.
"""


@pytest.mark.parametrize("path", RIGS, ids=config_name)
def test_an_episode_on_the_rig(path, domain, tmp_path):
    make, given = DRIVERS[path.stem]
    compressed = parameters_of(path)["image_transport"] == "compressed"
    suffix = "/compressed" if compressed else ""
    topics = {camera: topic + suffix for camera, topic in topics_of(path).items()}
    names = {f"{camera}/image{suffix}": topic for camera, topic in topics.items()}
    context = rclpy.Context()
    remaps = [word for item in names.items() for word in ("-r", ":=".join(item))]
    rclpy.init(args=["--ros-args", *remaps], context=context, domain_id=domain)
    peer = Peer(context, compressed=compressed)
    monitor = RigMonitor(tmp_path / "log", path, names, given)
    try:
        peer.connect(monitor)
        for topic in topics.values():
            (subscription,) = peer.node.get_subscriptions_info_by_topic(topic)
            assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        peer.episode("brighten it", count=6, make=make, step_ms=67)
        peer.stamp_ns += 100 * MS
        peer.film(1, make=make)  # a pair after END: nothing more is waited for
        verdict = peer.next_verdict(monitor)
        assert verdict.verdict == FailureVerdict.SUCCESS, (verdict.reason, monitor.output)
        assert len(verdict.keyframe_stamps) == 4
        assert "unknown and has no effect" not in monitor.output
    finally:
        monitor.close()
        peer.close()
        context.try_shutdown()
