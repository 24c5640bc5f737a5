"""Messages to core types and back."""

import math
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from unique_identifier_msgs.msg import UUID

from ifailsense_ros.core.effects import Boundary, BoundaryKind
from ifailsense_ros.core.images import decode_image
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Verdict, Vote, VoteValue
from ifailsense_ros.msg import DetectorVote, EpisodeEvent, FailureVerdict
from ifailsense_ros.ros import conversions

ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@given(st.integers(-(2**31) * 10**9, (2**31 - 1) * 10**9))
def test_stamps_survive(stamp_ns):
    assert conversions.to_ns(conversions.to_time(stamp_ns)) == stamp_ns
    assert conversions.to_ns(conversions.to_duration(stamp_ns)) == stamp_ns


@pytest.mark.parametrize("stamp_ns", [10**30, -(10**30)])
def test_absurd_stamps_are_clamped(stamp_ns):
    assert abs(conversions.to_time(stamp_ns).sec) >= 2**31 - 1


@given(st.uuids())
def test_ids_survive(value):
    assert conversions.to_uuid(conversions.to_uuid_message(value)) == (value if value.int else None)


def test_an_all_zero_id_is_none():
    assert conversions.to_uuid(UUID()) is None


def test_a_verdict_becomes_a_message():
    votes = (
        Vote("fs:2", VoteValue.FAIL, 0.25, 1.0),
        Vote("vlm", VoteValue.NOT_RUN, math.nan, 2.0),
    )
    judgement = Judgement(Outcome.FAILURE, p_success=0.25, votes=votes)
    verdict = Verdict(ID, "open it", 5 * 10**9 + 7, judgement, (1, 2 * 10**9), 1500, "tiny@1")
    message = conversions.to_verdict_message(verdict, "exo_optical")
    assert message.header.stamp == Time(sec=5, nanosec=7)
    assert message.header.frame_id == "exo_optical"
    assert conversions.to_uuid(message.episode_id) == ID
    assert (message.instruction, message.model_id) == ("open it", "tiny@1")
    assert (message.verdict, message.reason_code, message.reason) == (2, 0, "")
    assert message.p_success == 0.25
    assert list(message.keyframe_stamps) == [Time(nanosec=1), Time(sec=2)]
    assert (message.latency.sec, message.latency.nanosec) == (0, 1500)
    fs, vlm = message.votes
    assert (fs.source, fs.vote, fs.p_success, fs.weight) == ("fs:2", DetectorVote.FAIL, 0.25, 1.0)
    assert (vlm.source, vlm.vote, vlm.weight) == ("vlm", DetectorVote.NOT_RUN, 2.0)
    assert math.isnan(vlm.p_success)


def test_an_unknown_carries_its_reason():
    judgement = Judgement.unknown(Reason.CAMERA_STALE, "camera gripper fell behind")
    message = conversions.to_verdict_message(Verdict(ID, "", 0, judgement))
    assert message.verdict == FailureVerdict.UNKNOWN
    assert message.reason_code == FailureVerdict.REASON_CAMERA_STALE
    assert message.reason == "camera gripper fell behind"
    assert math.isnan(message.p_success)
    assert message.votes == []


def test_a_fresh_message_is_unknown():
    assert FailureVerdict().verdict == Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("enumeration", "message", "prefix"),
    [
        (Outcome, FailureVerdict, ""),
        (Reason, FailureVerdict, "REASON_"),
        (VoteValue, DetectorVote, ""),
        (BoundaryKind, EpisodeEvent, ""),
    ],
)
def test_numbers_are_those_of_the_messages(enumeration, message, prefix):
    """Both ways: no name on one side only."""
    constants = {
        name.removeprefix(prefix): getattr(message, name)
        for name in dir(type(message))
        if name.isupper() and name.startswith(prefix) and isinstance(getattr(message, name), int)
    }
    ours = {member.name: int(member) for member in enumeration}
    if enumeration is Outcome:
        constants = {k: v for k, v in constants.items() if not k.startswith("REASON_")}
    assert constants == ours


def test_a_boundary_becomes_an_event():
    boundary = Boundary(BoundaryKind.ABORT, ID, 3 * 10**9, "lift it")
    message = conversions.to_event_message(boundary, "exo")
    assert message.event == EpisodeEvent.ABORT
    assert conversions.to_uuid(message.episode_id) == ID
    assert message.header.stamp == Time(sec=3)
    assert message.instruction == "lift it"


def test_a_picture_becomes_a_message():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    message = conversions.to_image_message(picture[:, ::-1], 10**9, "exo")
    back = decode_image(
        message.height,
        message.width,
        message.encoding,
        message.is_bigendian,
        message.step,
        message.data,
    )
    np.testing.assert_array_equal(back, picture[:, ::-1])
    assert message.header.stamp == Time(sec=1)
