"""A bag through the tracker without ROS: one verdict per started episode, whatever the bag holds.

The detector is a double that reads the time step off the pictures (their red channel), so that a
wrong keyframe, row or column changes its votes.
"""

from __future__ import annotations

import dataclasses
import math
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ifailsense_ros.core.checkpoint import CheckpointConfig, MontageSettings
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import BagError
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Vote, VoteValue
from ifailsense_ros.evaluate.offline import OfflineVerdict, geometry_of, judge_bag

SECOND = 10**9
ID = uuid.UUID(int=7)

CONFIG = bare_config("double", MontageSettings(4, 2, 8, 8))


class Double:
    """Says SUCCESS iff the last keyframe is at least `threshold` steps into the episode."""

    model_id = "double@0"

    def __init__(self, threshold: int = 15, config: CheckpointConfig = CONFIG) -> None:
        self.config = config
        self.threshold = threshold
        self.judged: list[Episode] = []

    def judge(self, episode: Episode) -> Judgement:
        self.judged.append(episode)
        success = int(episode.keyframes[-1].views[0][0, 0, 0]) >= self.threshold
        value = VoteValue.SUCCESS if success else VoteValue.FAIL
        outcome = Outcome.SUCCESS if success else Outcome.FAILURE
        p = float(success)
        return Judgement(outcome, p_success=p, votes=(Vote("vlm", value, p, 1.0),))


def _run(path: Path, detector: Double | None = None, **options: object) -> list[OfflineVerdict]:
    return list(judge_bag(path, detector or Double(), **options))


def _reasons(verdicts: list[OfflineVerdict]) -> list[Reason]:
    return [v.verdict.judgement.reason for v in verdicts]


def test_one_episode_is_judged_on_its_keyframes(simple_bag: Path) -> None:
    detector = Double()
    (result,) = _run(simple_bag, detector)
    verdict = result.verdict
    assert verdict.judgement.outcome is Outcome.SUCCESS
    assert verdict.episode_id == ID
    assert verdict.instruction == "lift the red block"
    assert verdict.end_ns == round(102.05 * SECOND)
    assert verdict.model_id == "double@0"
    assert result.episode is detector.judged[0]
    # 21 pictures, steps 0..20: first, last, and the nearest to even spacing.
    steps = [int(k.views[0][0, 0, 0]) for k in result.episode.keyframes]
    assert steps == [0, 7, 13, 20]
    assert verdict.keyframe_stamps_ns == tuple(round((100 + s / 10) * SECOND) for s in steps)
    for keyframe, step in zip(result.episode.keyframes, steps, strict=True):
        for pov, view in enumerate(keyframe.views):
            np.testing.assert_array_equal(view, np.full((8, 8, 3), (step, 100 * pov, 7), np.uint8))


def test_the_verdict_is_the_detectors(simple_bag: Path) -> None:
    (result,) = _run(simple_bag, Double(threshold=21))
    assert result.verdict.judgement.outcome is Outcome.FAILURE


def test_several_episodes_and_pictures_between_them(
    bag_maker: Callable, episode_writer: Callable
) -> None:
    with bag_maker() as bag:
        for k, seconds in enumerate((2.0, 1.0, 3.0)):
            start = 100.0 + 10 * k
            episode_writer(
                bag, start, seconds=seconds, episode_id=uuid.UUID(int=k + 1), instruction=f"go {k}"
            )
            bag.image("/exo/image", start + 5, np.full((4, 4, 3), 255, np.uint8))
    verdicts = [v.verdict for v in _run(bag.path)]
    assert [v.episode_id.int for v in verdicts] == [1, 2, 3]
    assert [v.instruction for v in verdicts] == ["go 0", "go 1", "go 2"]
    assert [v.judgement.outcome for v in verdicts] == [
        Outcome.SUCCESS,
        Outcome.FAILURE,  # ten steps only
        Outcome.SUCCESS,
    ]


def test_latency_is_that_of_the_bag(bag_maker: Callable, episode_writer: Callable) -> None:
    """No picture is stamped at or after END, so the grace runs out; the next message is late."""
    with bag_maker() as bag:
        episode_writer(bag, 100.0, episode_id=ID)
        bag.instruction(160.0, "something else, a minute later")
    (result,) = _run(bag.path)
    assert 0 < result.verdict.latency_ns <= 0.6 * SECOND


def test_a_bag_that_ends_without_end(bag_maker: Callable, episode_writer: Callable) -> None:
    with bag_maker() as bag:
        episode_writer(bag, 100.0, episode_id=ID)
        bag.episode(110.0, 1, uuid.UUID(int=8), "go")
    first, second = _run(bag.path)
    assert first.verdict.judgement.outcome is Outcome.SUCCESS
    assert second.verdict.judgement.reason is Reason.SHUT_DOWN
    assert second.verdict.judgement.detail == "the bag is over before END came"
    assert math.isnan(second.verdict.judgement.p_success)
    assert second.episode is None


def test_superseded_aborted_and_stray_events(bag_maker: Callable, episode_writer: Callable) -> None:
    with bag_maker() as bag:
        bag.topic("/exo/image", "sensor_msgs/msg/Image")
        bag.topic("/gripper/image", "sensor_msgs/msg/Image")
        bag.episode(1.0, 2)  # END without START
        bag.episode(2.0, 1, uuid.UUID(int=1), "a")
        bag.episode(3.0, 2, uuid.UUID(int=9))  # END of another
        bag.episode(4.0, 1, uuid.UUID(int=2), "b")  # supersedes 1
        bag.episode(5.0, 3, uuid.UUID(int=2))  # ABORT
        bag.episode(5.5, 2, uuid.UUID(int=2))  # END after that
        bag.episode(6.0, 77)  # no such event
        episode_writer(bag, 10.0, episode_id=uuid.UUID(int=3))
    verdicts = _run(bag.path)
    assert [v.verdict.episode_id.int for v in verdicts] == [1, 2, 3]
    assert _reasons(verdicts) == [Reason.SUPERSEDED, Reason.ABORTED, Reason.NONE]


def test_no_instruction(bag_maker: Callable, episode_writer: Callable) -> None:
    with bag_maker() as bag:
        episode_writer(bag, 100.0, instruction="  \n ")
    (result,) = _run(bag.path)
    assert result.verdict.judgement.reason is Reason.NO_INSTRUCTION


def test_instruction_in_start_is_enough(bag_maker: Callable) -> None:
    with bag_maker() as bag:
        bag.episode(99.9, 1, ID, "from the event")
        for k in range(20):
            for pov, topic in enumerate(("/exo/image", "/gripper/image")):
                bag.image(topic, 100 + 0.1 * k + 0.01 * pov, np.full((9, 9, 3), k, np.uint8))
        bag.episode(101.95, 2, ID)
    (result,) = _run(bag.path)
    assert result.verdict.instruction == "from the event"
    assert result.verdict.judgement.outcome is Outcome.SUCCESS


def test_camera_without_a_single_picture(bag_maker: Callable, episode_writer: Callable) -> None:
    """The topic is in the bag, so it is no mistake in names: the episode is UNKNOWN."""
    with bag_maker() as bag:
        bag.topic("/gripper/image", "sensor_msgs/msg/Image")
        episode_writer(bag, 100.0, povs=(0,))
    (result,) = _run(bag.path)
    assert result.verdict.judgement.reason is Reason.CAMERA_ABSENT
    assert "gripper" in result.verdict.judgement.detail


def test_camera_missing_altogether_is_an_error(
    bag_maker: Callable, episode_writer: Callable
) -> None:
    with bag_maker() as bag:
        episode_writer(bag, 100.0, povs=(0,))
    with pytest.raises(BagError, match="/gripper/image is missing"):
        _run(bag.path)


def test_one_pov_needs_no_gripper_camera(bag_maker: Callable, episode_writer: Callable) -> None:
    with bag_maker() as bag:
        episode_writer(bag, 100.0, povs=(0,))
    one = dataclasses.replace(CONFIG, montage=dataclasses.replace(CONFIG.montage, num_pov=1))
    (result,) = _run(bag.path, Double(config=one))
    assert result.verdict.judgement.outcome is Outcome.SUCCESS
    assert result.episode.num_pov == 1


def test_pictures_that_cannot_be_decoded(bag_maker: Callable) -> None:
    with bag_maker() as bag:
        bag.episode(99.9, 1, ID, "go")
        for k in range(20):
            for topic in ("/exo/image", "/gripper/image"):
                bag.message(
                    topic,
                    "sensor_msgs/msg/Image",
                    100 + 0.1 * k,
                    header=bag.header(100 + 0.1 * k),
                    height=2,
                    width=2,
                    encoding="32FC1",
                    is_bigendian=0,
                    step=8,
                    data=np.zeros(16, np.uint8),
                )
        bag.episode(102.0, 2, ID)
    (result,) = _run(bag.path)
    assert result.verdict.judgement.reason is Reason.BAD_IMAGE
    assert "depth" in result.verdict.judgement.detail
    assert "camera exo" in result.verdict.judgement.detail


@pytest.mark.parametrize("stamp", [0.0, -5.0])
def test_pictures_without_a_stamp(bag_maker: Callable, stamp: float) -> None:
    with bag_maker() as bag:
        bag.episode(99.9, 1, ID, "go")
        for k in range(20):
            for topic in ("/exo/image", "/gripper/image"):
                bag.image(topic, 100 + 0.1 * k, np.zeros((4, 4, 3), np.uint8), stamp=stamp)
        bag.episode(102.0, 2, ID)
    (result,) = _run(bag.path)
    assert result.verdict.judgement.outcome is Outcome.UNKNOWN
    assert "stamp is zero" in result.verdict.judgement.detail


def test_too_few_pictures(bag_maker: Callable, episode_writer: Callable) -> None:
    with bag_maker() as bag:
        episode_writer(bag, 100.0, seconds=0.2)
    (result,) = _run(bag.path)
    assert result.verdict.judgement.reason is Reason.TOO_FEW_KEYFRAMES


def test_two_rounds_of_the_same_recording(bag_maker: Callable, episode_writer: Callable) -> None:
    """A looped bag: receive time goes on, stamps jump back, ids come again."""
    with bag_maker() as bag:
        for again in (0.0, 50.0):
            bag.episode(again + 99.9, 1, ID, "go", stamp=99.9)
            for k in range(21):
                for topic in ("/exo/image", "/gripper/image"):
                    at = 100 + 0.1 * k
                    bag.image(topic, again + at, np.full((9, 9, 3), k, np.uint8), stamp=at)
            bag.episode(again + 102.05, 2, ID, stamp=102.05)
    first, second = _run(bag.path)
    assert first.verdict.keyframe_stamps_ns == second.verdict.keyframe_stamps_ns
    assert _reasons([first, second]) == [Reason.NONE, Reason.NONE]


def test_a_detector_that_fails_costs_one_verdict(
    bag_maker: Callable, episode_writer: Callable
) -> None:
    class Failing(Double):
        def judge(self, episode: Episode) -> Judgement:
            if len(self.judged) == 0:
                self.judged.append(episode)
                raise RuntimeError("no\nluck")
            return super().judge(episode)

    with bag_maker() as bag:
        episode_writer(bag, 100.0)
        episode_writer(bag, 110.0)
    first, second = _run(bag.path, Failing())
    assert first.verdict.judgement.reason is Reason.DETECTOR_ERROR
    assert first.verdict.judgement.detail == "RuntimeError: no luck"
    assert second.verdict.judgement.outcome is Outcome.SUCCESS


def test_same_bag_twice_gives_the_same(simple_bag: Path) -> None:
    assert [v.verdict for v in _run(simple_bag)] == [v.verdict for v in _run(simple_bag)]


def test_sizes_of_the_cells_are_the_checkpoints() -> None:
    geometry = geometry_of(Double())
    assert (geometry.height, geometry.width) == (16, 32)
