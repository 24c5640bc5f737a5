"""examples/recovery_dispatch.py: its table against the message's constants, and over DDS."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip("rclpy")

from stand_in import ROOT, FakeMonitor, load_example
from std_msgs.msg import String
from unique_identifier_msgs.msg import UUID

from ifailsense_ros.core.verdict import Reason
from ifailsense_ros.msg import FailureVerdict

example = load_example("recovery_dispatch")
NEEDS_NOTHING = {Reason.SUPERSEDED, Reason.ABORTED}


def verdict(outcome: int, reason: int = 0, instruction: str = "lift it") -> FailureVerdict:
    return FailureVerdict(verdict=outcome, reason_code=reason, instruction=instruction)


def test_every_reason_has_recoveries_and_ends_with_a_person():
    assert set(example.RECOVERIES) == {reason.value for reason in Reason}
    for reason in Reason:
        recoveries = example.RECOVERIES[reason.value]
        last = example.NOTHING if reason in NEEDS_NOTHING else example.ASK
        assert recoveries[-1] == last, reason
        assert len(set(recoveries)) == len(recoveries)


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_recoveries_come_in_turn_and_the_last_one_stays(reason):
    outcome = FailureVerdict.UNKNOWN if reason else FailureVerdict.FAILURE
    dispatcher, recoveries = example.Dispatcher(), example.RECOVERIES[reason.value]
    tried = [dispatcher.next(verdict(outcome, reason.value)) for _ in range(len(recoveries) + 2)]
    assert tried == [*recoveries, recoveries[-1], recoveries[-1]]


def test_success_starts_the_lists_of_its_instruction_anew():
    dispatcher = example.Dispatcher()
    failure = FailureVerdict.FAILURE
    first = dispatcher.next(verdict(failure))
    other = dispatcher.next(verdict(failure, instruction="push it"))
    assert first == other, "another instruction has a list of its own"
    assert dispatcher.next(verdict(FailureVerdict.SUCCESS)) is None
    assert dispatcher.next(verdict(failure)) == first
    assert dispatcher.next(verdict(failure, instruction="push it")) != first


def test_a_reason_of_a_newer_monitor_is_for_a_person():
    dispatcher = example.Dispatcher()
    assert dispatcher.next(verdict(FailureVerdict.UNKNOWN, 999)) == example.ASK


def test_the_tree_in_the_documentation():
    """Ports of the C++ decorator, and codes that mean what the text says they mean."""
    text = (ROOT / "docs" / "recovery.md").read_text()
    tree = ElementTree.fromstring(text.split("```xml")[1].split("```")[0])
    (checked,) = tree.iter("Checked")
    assert set(checked.attrib) <= set(re.findall(r'(?:Input|Output)Port<.*?>\("(\w+)"', text))
    (condition,) = tree.iter("AreErrorCodesPresent")
    codes = {int(code) for code in condition.get("error_codes_to_check").split(";")}
    assert codes == {Reason.CAMERA_ABSENT, Reason.CAMERA_STALE}


def test_over_dds(world):
    monitor = FakeMonitor(world.monitor_node)
    monitor.say(UUID(), FailureVerdict.FAILURE)  # old: latched, and not to be recovered from
    node = example.RecoveryDispatch(context=world.context)
    world.executor.add_node(node)
    recoveries = []
    topic = "/recovery_dispatch/recovery"
    world.node.create_subscription(String, topic, lambda m: recoveries.append(m.data), 10)
    world.until(
        lambda: (
            world.monitor_node.count_subscribers("/monitor/verdict")
            and node.count_subscribers(topic)
        )
    )
    stale = FailureVerdict.REASON_CAMERA_STALE
    monitor.say(UUID(), FailureVerdict.SUCCESS)
    monitor.say(UUID(), FailureVerdict.UNKNOWN, stale)
    monitor.say(UUID(), FailureVerdict.UNKNOWN, stale)
    world.until(lambda: len(recoveries) >= 2)
    assert recoveries == list(example.RECOVERIES[stale][:2])
    node.destroy_node()
