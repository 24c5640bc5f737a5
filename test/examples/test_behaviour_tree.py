"""examples/behaviour_tree.py over real rclpy and DDS, with a stand-in for the monitor."""

from __future__ import annotations

import pytest

pytest.importorskip("py_trees")
pytest.importorskip("rclpy")

import py_trees
from py_trees.common import Status
from stand_in import FakeMonitor, load_example
from unique_identifier_msgs.msg import UUID

from ifailsense_ros.msg import EpisodeEvent, FailureVerdict

START, END, ABORT = EpisodeEvent.START, EpisodeEvent.END, EpisodeEvent.ABORT

example = load_example("behaviour_tree")


class Action(py_trees.behaviour.Behaviour):
    """Does what it is told, and counts how often it was started."""

    def __init__(self, result: Status = Status.SUCCESS) -> None:
        super().__init__("action")
        self.result, self.started = result, 0

    def initialise(self) -> None:
        self.started += 1

    def update(self) -> Status:
        return self.result


class Rig:
    """A tree with one checked action, and the monitor it talks to."""

    def __init__(self, world, *, timeout: float = 60.0) -> None:
        self.world, self.action = world, Action()
        self.root = example.Checked("checked", self.action, "lift it", timeout=timeout)
        self.tree = py_trees.trees.BehaviourTree(self.root)
        self.tree.setup(node=world.node)
        self.monitor: FakeMonitor | None = None

    def watch(self) -> FakeMonitor:
        self.monitor = FakeMonitor(self.world.monitor_node)
        return self.monitor

    def tick(self) -> Status:
        self.tree.tick()
        return self.root.status

    def tick_until(self, *statuses: Status) -> Status:
        self.world.until(lambda: self.tick() in statuses)
        return self.root.status

    def tick_until_phase(self, phase: str) -> None:
        self.world.until(lambda: (self.tick(), self.root.feedback_message)[1] == phase)

    def heard(self, *events: int) -> list[bytes]:
        """Wait for these events; returns the ids that came with them."""
        self.world.until(lambda: len(self.monitor.events) >= len(events))
        assert [event for event, _ in self.monitor.events] == list(events)
        return [episode_id for _, episode_id in self.monitor.events]


@pytest.fixture
def rig(world):
    py_trees.blackboard.Blackboard.clear()
    return Rig(world)


@pytest.mark.parametrize(
    ("verdict", "reason", "status"),
    [
        (FailureVerdict.SUCCESS, 0, Status.SUCCESS),
        (FailureVerdict.FAILURE, 0, Status.FAILURE),
        (FailureVerdict.UNKNOWN, FailureVerdict.REASON_CAMERA_STALE, Status.FAILURE),
    ],
)
def test_only_success_succeeds(rig, verdict, reason, status):
    monitor = rig.watch()
    monitor.answer = lambda episode_id: monitor.say(episode_id, verdict, reason)
    assert rig.tick_until(Status.SUCCESS, Status.FAILURE) == status
    start, end = rig.heard(START, END)
    assert start == end != bytes(16)
    assert monitor.instructions[0] == "lift it"
    assert rig.action.started == 1, "not once more while the verdict was awaited"
    seen = py_trees.blackboard.Blackboard.get("verdict")
    assert (seen.verdict, seen.reason_code) == (verdict, reason)


def test_a_second_attempt_is_another_episode(rig):
    monitor = rig.watch()
    answers = iter([FailureVerdict.FAILURE, FailureVerdict.SUCCESS])
    monitor.answer = lambda episode_id: monitor.say(episode_id, next(answers))
    assert rig.tick_until(Status.SUCCESS, Status.FAILURE) == Status.FAILURE
    assert rig.tick() == Status.RUNNING, "the old verdict does not hold for the new attempt"
    assert rig.tick_until(Status.SUCCESS, Status.FAILURE) == Status.SUCCESS
    first, _, second, _ = rig.heard(START, END, START, END)
    assert first != second
    assert rig.action.started == 2


def test_verdicts_on_other_episodes_are_passed_over(rig):
    monitor = rig.watch()
    ends = []

    def answer(episode_id) -> None:
        monitor.say(UUID(uuid=[7] * 16), FailureVerdict.SUCCESS)
        monitor.say(UUID(), FailureVerdict.SUCCESS)
        ends.append(episode_id)

    monitor.answer = answer
    rig.tick_until_phase("waiting for the verdict")
    rig.world.until(lambda: ends)
    # A message of the same publisher comes after those: when it is there, they have been.
    seen = []
    rig.world.node.create_subscription(FailureVerdict, "/monitor/verdict", seen.append, 10)
    rig.world.until(lambda: rig.world.node.count_subscribers("/monitor/verdict") == 2)
    monitor.say(UUID(uuid=[8] * 16), FailureVerdict.SUCCESS)
    rig.world.until(lambda: seen and bytes(seen[-1].episode_id.uuid) == bytes([8] * 16))
    assert rig.tick() == Status.RUNNING
    monitor.say(ends[0], FailureVerdict.FAILURE)
    assert rig.tick_until(Status.SUCCESS, Status.FAILURE) == Status.FAILURE


def test_a_latched_verdict_from_before_is_not_heard(world):
    py_trees.blackboard.Blackboard.clear()
    monitor = FakeMonitor(world.monitor_node)
    monitor.say(UUID(), FailureVerdict.SUCCESS)  # the id of a decorator that has not started yet
    rig = Rig(world)
    rig.monitor = monitor
    rig.tick_until_phase("waiting for the verdict")
    rig.heard(START, END)
    assert rig.tick() == Status.RUNNING


def test_without_a_monitor_the_robot_does_not_move(rig):
    for _ in range(5):
        assert rig.tick() == Status.RUNNING
    assert rig.root.feedback_message == "waiting for the monitor"
    assert rig.action.started == 0
    rig.watch()
    rig.world.until(lambda: (rig.tick(), rig.action.started)[1] == 1)


def test_silence_is_no_success(world):
    rig = Rig(world, timeout=0.0)
    rig.watch()
    assert rig.tick_until(Status.SUCCESS, Status.FAILURE) == Status.FAILURE
    rig.heard(START, END)


def test_an_action_that_fails_is_an_abort(rig):
    rig.watch()
    rig.action.result = Status.FAILURE
    assert rig.tick_until(Status.SUCCESS, Status.FAILURE) == Status.FAILURE
    start, abort = rig.heard(START, ABORT)
    assert start == abort


def test_an_interrupted_action_is_an_abort(rig):
    rig.watch()
    rig.action.result = Status.RUNNING
    rig.tick_until_phase("acting")
    rig.root.stop(Status.INVALID)  # what a selector does when something before it wants to run
    assert rig.action.status == Status.INVALID
    start, abort = rig.heard(START, ABORT)
    assert start == abort


def test_a_verdict_that_comes_before_the_end_counts(rig):
    """The monitor may give up early, e.g. INSTRUCTION_CHANGED."""
    monitor = rig.watch()
    rig.action.result = Status.RUNNING
    rig.tick_until_phase("acting")
    rig.world.until(lambda: monitor.events)
    unknown = FailureVerdict.REASON_INSTRUCTION_CHANGED
    episode_id = UUID(uuid=list(monitor.events[0][1]))
    monitor.say(episode_id, FailureVerdict.UNKNOWN, unknown)
    rig.action.result = Status.SUCCESS
    assert rig.tick_until(Status.SUCCESS, Status.FAILURE) == Status.FAILURE
    assert py_trees.blackboard.Blackboard.get("verdict").reason_code == unknown
