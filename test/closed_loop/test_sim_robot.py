"""The simulated robot over real ROS 2: its action, and the closed loop against the headless one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")
pytest.importorskip("rclpy")
pytest.importorskip("py_trees")

import rclpy
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from ifailsense_ros.action import ExecuteInstruction
from ifailsense_ros.closed_loop.experiment import carry_out
from ifailsense_ros.closed_loop.monitors import Watching
from ifailsense_ros.closed_loop.scenes import SAMPLE_NS, Course, Stage, setup_of
from ifailsense_ros.closed_loop.settings import load_settings
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.msg import EpisodeEvent
from ifailsense_ros.ros import conversions, sim_robot_node

pytestmark = pytest.mark.sim

ROOT = Path(__file__).resolve().parents[2]
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Rig:
    """The robot's node, and a client of it, in this process."""

    def __init__(self, context, monkeypatch, stage, parameters: dict) -> None:
        monkeypatch.setattr(sim_robot_node, "Stage", lambda settings, pictures: stage)
        self.stop = types.SimpleNamespace(requested=False)
        given = [Parameter(name, value=value) for name, value in parameters.items()]
        self.robot = sim_robot_node.SimRobot(self.stop, context=context, parameter_overrides=given)
        self.node = Node("client", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        for node in (self.robot, self.node):
            self.executor.add_node(node)
        self.client = ActionClient(self.node, ExecuteInstruction, "execute_instruction")
        self.report = self.node.create_publisher(String, "report", 10)
        self.requests, self.events, self.pictures = [], [], []
        for kind, topic, sink, qos in (
            (String, "request", self.requests, LATCHED),
            (EpisodeEvent, "episode", self.events, 100),
            (CompressedImage, "exo/image/compressed", self.pictures, 100),
        ):
            self.node.create_subscription(kind, topic, sink.append, qos)
        self.until(lambda: self.requests and self.client.server_is_ready())
        self.until(lambda: self.report.get_subscription_count())

    def until(self, done, timeout_s: float = 60.0):
        end = time.monotonic() + timeout_s
        while not (value := done()):
            assert time.monotonic() < end, "waited in vain"
            self.executor.spin_once(timeout_sec=0.01)
            self.robot.work()
        return value

    def send(self, instruction: str, seed: int = 0):
        goal = ExecuteInstruction.Goal(instruction=instruction, seed=seed)
        future = self.client.send_goal_async(goal)
        self.until(future.done)
        return future.result()

    def result(self, handle):
        future = handle.get_result_async()
        self.until(future.done)
        return future.result()

    def close(self) -> None:
        self.executor.shutdown()
        for node in (self.robot, self.node):
            node.destroy_node()


@pytest.fixture
def make_rig(monkeypatch, stage):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=random.SystemRandom().randint(1, 100))
    rigs = []

    def make(**parameters) -> Rig:
        given = {"split": "dev", "seed": 7, "rate": 1000.0, **parameters}
        rigs.append(Rig(context, monkeypatch, stage, given))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()
    context.try_shutdown()


def test_a_goal_is_an_episode(make_rig) -> None:
    rig = make_rig(first=0, count=1)
    (request,) = rig.requests
    handle = rig.send(request.data)
    answer = rig.result(handle)
    assert answer.status == GoalStatus.STATUS_SUCCEEDED and answer.result.done
    rig.until(lambda: len(rig.events) == 2)
    start, end = rig.events
    assert (start.event, end.event) == (EpisodeEvent.START, EpisodeEvent.END)
    assert start.episode_id == end.episode_id == handle.goal_id
    assert start.instruction == request.data
    first, last = (conversions.to_ns(event.header.stamp) for event in rig.events)
    rig.until(lambda: conversions.to_ns(rig.pictures[-1].header.stamp) == last)
    inside = [conversions.to_ns(p.header.stamp) for p in rig.pictures]
    inside = [stamp for stamp in inside if stamp >= first]
    assert inside == list(range(first, last + 1, SAMPLE_NS))


def test_the_person_hears_the_report_and_asks_for_the_next_thing(make_rig, capsys) -> None:
    rig = make_rig(first=0, count=2)
    for number in range(2):
        rig.until(lambda n=number: len(rig.requests) == n + 1)
        rig.result(rig.send(rig.requests[-1].data))
        rig.report.publish(String(data="done"))
    rig.until(lambda: rig.stop.requested)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [task["index"] for task in told] == [0, 1]
    assert all(task["report"] == "done" and task["tries"] == 1 for task in told)
    assert {request.data for request in rig.requests} == {task["instruction"] for task in told}


def test_given_up_half_way(make_rig) -> None:
    rig = make_rig(first=0, rate=20.0)
    handle = rig.send(rig.requests[0].data)
    rig.until(lambda: len(rig.pictures) > 6)
    handle.cancel_goal_async()
    answer = rig.result(handle)
    assert answer.status == GoalStatus.STATUS_CANCELED
    assert not answer.result.done and answer.result.reason == "given up"
    rig.until(lambda: len(rig.events) == 2)
    assert rig.events[-1].event == EpisodeEvent.ABORT
    assert rig.result(rig.send(rig.requests[0].data, seed=1)).result.done, "and once more"


def test_what_cannot_be_done_is_refused_or_aborted(make_rig) -> None:
    rig = make_rig(first=3, rate=20.0)  # the drawer
    assert not rig.send("make coffee").accepted
    running = rig.send("close the drawer")
    assert not rig.send("close the drawer").accepted, "busy"
    assert rig.result(running).result.done
    answer = rig.result(rig.send("put the block into the drawer"))
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert not answer.result.done and "no way" in answer.result.reason
    assert len(rig.events) == 2, "what has not begun is no episode"


@pytest.mark.parametrize(
    ("parameters", "named"),
    [({"split": "exam"}, "split"), ({"seed": -1}, "seed"), ({"rate": 0.0}, "rate")],
)
def test_a_wrong_parameter_is_one_line(make_rig, parameters, named) -> None:
    with pytest.raises(ConfigError, match=named):
        make_rig(**parameters)


# --- everything together --------------------------------------------------------------------------


def closed_loop_over_ros(folder: Path, first: int, count: int) -> list[dict]:
    """Robot, monitor and planner as three processes; what the robot says of its tasks."""
    paths = [str(ROOT), str(ROOT / "test" / "ros"), *sys.path]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 100)),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    rig = str(ROOT / "config" / "rigs" / "simulation.yaml")
    detector = ["-p", "detector:=pixel_detector:make"]
    tasks = ["-p", "seed:=7", "-p", f"first:={first}", "-p", f"count:={count}", "-p", "rate:=4.0"]
    commands = {
        "monitor": ["-m", "ifailsense_ros.ros.monitor", "--ros-args", "--params-file", rig],
        "planner": [str(ROOT / "examples" / "recovery_planner.py")],
        "robot": ["-m", "ifailsense_ros.ros.sim_robot", "--ros-args", *tasks],
    }
    commands["monitor"] += detector
    running = {}
    try:
        for name, words in commands.items():
            with (folder / f"{name}.log").open("w") as log:
                running[name] = subprocess.Popen(
                    [sys.executable, *words], env=environment, cwd=ROOT, stdout=log, stderr=log
                )
        status = running["robot"].wait(240)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait(30)
    text = (folder / "robot.log").read_text()
    assert status == 0, text
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.timeout(360)
@pytest.mark.skipif(
    os.environ.get("MUJOCO_GL") == "disable", reason="no OpenGL here: set MUJOCO_GL to egl"
)
def test_over_ros_it_is_as_in_the_experiment(tmp_path, monkeypatch) -> None:
    """With a detector whose verdicts change with every pixel."""
    monkeypatch.syspath_prepend(str(ROOT / "test" / "ros"))
    from pixel_detector import PixelDetector

    told = closed_loop_over_ros(tmp_path, first=8, count=3)
    settings = load_settings()
    stage = Stage(settings, pictures=True)
    for task in told:
        setup = setup_of("dev", 7, task["index"], settings.tasks.look)
        rows = list(carry_out(Course(stage, setup), Watching(PixelDetector()), settings))
        assert task == {
            "index": setup.index,
            "instruction": setup.instruction,
            "tries": len(rows),
            "kinds": [row.kind for row in rows],
            "done": [row.done for row in rows],
            "success": rows[-1].success,
            "report": rows[-1].choice,
        }
    assert [task["index"] for task in told] == [8, 9, 10]
    assert max(task["tries"] for task in told) > 1, "something was tried again"
