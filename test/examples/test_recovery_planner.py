"""examples/recovery_planner.py over real rclpy and DDS, with stand-ins for robot and monitor."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("py_trees")
pytest.importorskip("rclpy")

import py_trees
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from stand_in import ROOT, load_example
from std_msgs.msg import String

from ifailsense_ros.action import ExecuteInstruction
from ifailsense_ros.msg import FailureVerdict

example = load_example("recovery_planner")

SUCCESS, FAILURE, UNKNOWN = (
    FailureVerdict.SUCCESS,
    FailureVerdict.FAILURE,
    FailureVerdict.UNKNOWN,
)
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Rig:
    """The planner, and everybody it talks to."""

    def __init__(self, world, context, **parameters) -> None:
        self.world, self.accepts = world, True
        self.goals, self.reports = [], []
        node = world.monitor_node
        ActionServer(
            node,
            ExecuteInstruction,
            "execute_instruction",
            execute_callback=lambda handle: ExecuteInstruction.Result(),
            goal_callback=lambda goal: GoalResponse.ACCEPT if self.accepts else GoalResponse.REJECT,
            handle_accepted_callback=self.goals.append,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
        )
        self.request = node.create_publisher(String, "request", LATCHED)
        self.verdict = node.create_publisher(FailureVerdict, "/monitor/verdict", LATCHED)
        self.early = node.create_publisher(
            FailureVerdict, "/monitor/verdict/provisional", QoSProfile(depth=10)
        )
        node.create_subscription(String, "report", lambda m: self.reports.append(m.data), 10)
        given = [Parameter(name, value=value) for name, value in parameters.items()]
        self.planner = example.Planner(context=context, parameter_overrides=given)
        world.executor.add_node(self.planner)
        self.tree = py_trees.trees.BehaviourTree(example.serve(self.planner))

    def until(self, done) -> None:
        self.world.until(lambda: (self.tree.tick(), done())[1])

    def ask(self, what: str = "lift it") -> None:
        self.request.publish(String(data=what))

    def goal(self, number: int):
        self.until(lambda: len(self.goals) >= number)
        return self.goals[number - 1]

    def end(self, handle, *, done: bool = True) -> None:
        def send(handle):
            if handle.is_cancel_requested:
                handle.canceled()
            else:
                (handle.succeed if done else handle.abort)()
            return ExecuteInstruction.Result(done=done)

        handle.execute(send)

    def judge(self, handle, verdict: int, publisher=None, p_success: float = math.nan) -> None:
        message = FailureVerdict(verdict=verdict, p_success=p_success)
        if handle is not None:
            message.episode_id = handle.goal_id
        (publisher or self.verdict).publish(message)

    def attempt(self, number: int, verdict: int):
        handle = self.goal(number)
        self.end(handle)
        self.judge(handle, verdict)
        return handle.request


@pytest.fixture
def rig(world):
    rigs = []

    def make(**parameters) -> Rig:
        rigs.append(Rig(world, world.node.context, **parameters))
        return rigs[-1]

    yield make
    for made in rigs:
        world.executor.remove_node(made.planner)
        made.planner.destroy_node()


def test_it_is_short() -> None:
    text = (ROOT / "examples" / "recovery_planner.py").read_text()
    assert len(text.splitlines()) < 200


def test_success_is_reported(rig) -> None:
    made = rig()
    made.ask("lift it")
    request = made.attempt(1, SUCCESS)
    assert (request.instruction, request.seed) == ("lift it", 0)
    made.until(lambda: made.reports == ["done"])
    assert len(made.goals) == 1


def test_failures_are_asked_anew_and_then_a_person(rig) -> None:
    made = rig(max_tries=3)
    made.ask()
    assert [made.attempt(n, FAILURE).seed for n in (1, 2, 3)] == [0, 1, 2]
    made.until(lambda: made.reports == ["ask for help"])
    made.ask("another thing")
    assert made.attempt(4, SUCCESS).seed == 0, "a new task, a new count"
    made.until(lambda: made.reports == ["ask for help", "done"])


def test_unknown_is_for_a_person(rig) -> None:
    made = rig()
    made.ask()
    made.attempt(1, UNKNOWN)
    made.until(lambda: made.reports == ["ask for help"])


def test_silence_is_no_success(rig) -> None:
    made = rig(verdict_timeout=0.2)
    made.ask()
    made.end(made.goal(1))
    made.until(lambda: made.reports == ["ask for help"])


def test_verdicts_on_other_episodes_are_passed_over(rig) -> None:
    made = rig()
    made.judge(None, SUCCESS)
    made.ask()
    handle = made.goal(1)
    made.judge(None, SUCCESS)
    made.end(handle)
    made.judge(None, SUCCESS)
    made.judge(handle, FAILURE)
    assert made.goal(2).request.seed == 1


def test_what_the_robot_could_not_do_is_tried_as_it_was(rig) -> None:
    made = rig(max_tries=2)
    made.ask()
    made.end(made.goal(1), done=False)
    assert made.goal(2).request.seed == 0
    made.end(made.goal(2), done=False)
    made.until(lambda: made.reports == ["ask for help"])


def test_a_robot_that_refuses_is_not_asked_for_ever(rig) -> None:
    made = rig()
    made.accepts = False
    made.ask()
    made.until(lambda: made.reports == ["ask for help"])
    assert made.goals == []


def test_early_warnings_give_an_attempt_up(rig) -> None:
    made = rig(give_up_below=0.2, give_up_after=2)
    made.ask()
    handle = made.goal(1)
    made.until(lambda: made.early.get_subscription_count())
    for p_success in (0.1, 0.5, 0.1, 0.1):
        assert not handle.is_cancel_requested
        made.judge(handle, FAILURE, made.early, p_success)
    made.until(lambda: handle.is_cancel_requested)
    made.end(handle, done=False)
    assert made.goal(2).request.seed == 1, "asked anew"


def test_given_up_too_late_the_verdict_counts(rig) -> None:
    made = rig(give_up_below=0.2, give_up_after=1)
    made.ask()
    handle = made.goal(1)
    made.end(handle)
    made.until(lambda: made.early.get_subscription_count())
    made.judge(handle, FAILURE, made.early, 0.1)
    made.judge(handle, SUCCESS)
    made.until(lambda: made.reports == ["done"])
