"""`ifailsense replay`: what counts as agreement, and the command over real DDS."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.cli import main
from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Verdict, Vote, VoteValue
from ifailsense_ros.data.rosbag import BagTopics
from ifailsense_ros.ros import replay_command
from ifailsense_ros.ros.agreement import compare, differences, offline_row
from ifailsense_ros.ros.replay_command import live_setup

ROOT = Path(__file__).resolve().parents[2]
BAGS = [ROOT / "bags" / "demo" / name for name in ("test-00-success", "test-04-drop")]
MONTAGE = MontageSettings(4, 2, 84, 84)
TOLERANCE = 1e-3


def _verdict(number: int = 1, outcome: Outcome = Outcome.FAILURE) -> Verdict:
    votes = (
        Vote("fs:1", VoteValue.FAIL, 0.25, 1.0),
        Vote("vlm", VoteValue.ABSTAIN, math.nan, 2.0),
    )
    judgement = Judgement(outcome, p_success=0.25, votes=votes)
    if outcome is Outcome.UNKNOWN:
        judgement = Judgement.unknown(Reason.CAMERA_STALE, "too late", votes)
    stamps = (1, 2, 3, 4)
    return Verdict(uuid.UUID(int=number), "lift it", 5, judgement, stamps, 0, "double@0")


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_verdict_agrees_with_itself(outcome: Outcome) -> None:
    row = offline_row(_verdict(outcome=outcome))
    assert list(differences(row, copy.deepcopy(row), 0.0)) == []


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("instruction",), "drop it", "instruction: offline lift it, live drop it"),
        (("verdict",), "SUCCESS", "verdict: offline FAILURE, live SUCCESS"),
        (("reason_code",), "QUEUE_FULL", "reason_code: offline NONE"),
        (("stamp_ns",), 6, "stamp_ns: offline 5, live 6"),
        (("keyframe_stamps_ns",), [1, 2, 4, 5], "keyframe_stamps_ns: offline [1, 2, 3, 4]"),
        (("model_id",), "other", "model_id: offline double@0, live other"),
        (("p_success",), 0.252, "p_success: offline 0.25, live 0.252"),
        (("p_success",), None, "p_success: offline 0.25, live None"),
        (("votes", 0, "vote"), "SUCCESS", "vote fs:1: offline"),
        (("votes", 0, "p_success"), 0.5, "vote fs:1: offline"),
        (("votes", 1, "p_success"), 0.5, "vote vlm: offline"),
        (("votes", 0, "weight"), 2.0, "vote fs:1: offline"),
        (("votes",), [], "votes: offline 2, live 0"),
    ],
)
def test_every_difference_is_told(path: tuple, value: Any, says: str) -> None:
    offline = offline_row(_verdict())
    live = copy.deepcopy(offline)
    place = live
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    found = list(differences(offline, live, TOLERANCE))
    assert len(found) == 1
    assert found[0].startswith(says)


@given(p=st.floats(0, 1), error=st.floats(-TOLERANCE / 2, TOLERANCE / 2))
def test_rounding_is_no_difference(p: float, error: float) -> None:
    offline = {**offline_row(_verdict()), "p_success": p}
    assert list(differences(offline, {**offline, "p_success": p + error}, TOLERANCE)) == []


def test_episodes_are_found_in_any_order() -> None:
    rows = [offline_row(_verdict(n)) for n in (1, 2, 3)]
    ids = {row["episode_id"] for row in rows}
    compared = compare(rows, rows[::-1], ids, TOLERANCE)
    assert [found for _, _, found in compared] == [[], [], []]
    compared = compare(rows, rows[1:], ids, TOLERANCE)
    assert [found for _, _, found in compared] == [["verdicts: offline 1, live 0"], [], []]
    compared = compare(rows[1:], [*rows, rows[2]], ids, TOLERANCE)
    told = {row["episode_id"][-1]: found for _, row, found in compared}
    assert told == {
        "2": [],
        "3": ["verdicts: offline 1, live 2"],
        "1": ["verdicts: offline 0, live 1"],
    }


def test_ids_that_the_node_draws() -> None:
    """An episode without an id has another one live than offline: its END names it."""
    offline, live = offline_row(_verdict(1)), offline_row(_verdict(2))
    ((key, _, found),) = compare([offline], [live], set(), TOLERANCE)
    assert (key, found) == ("episode with END at 5", [])


def test_setup_follows_the_bag() -> None:
    setup = live_setup(BAGS, BagTopics(), MONTAGE)
    assert setup.remaps == {
        "exo/image/compressed": "/exo/image/compressed",
        "gripper/image/compressed": "/gripper/image/compressed",
        "episode": "/episode",
        "instruction": "/instruction",
    }
    assert setup.parameters["image_transport"] == "compressed"
    override = "qos_overrides./gripper/image/compressed.subscription"
    assert setup.parameters[f"{override}.reliability"] == "reliable"
    one = live_setup(BAGS[:1], BagTopics(), MontageSettings(4, 1, 84, 84))
    assert "gripper/image/compressed" not in one.remaps


def test_bags_of_different_topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setups = iter([live_setup(BAGS[:1], BagTopics(), MONTAGE), None])
    monkeypatch.setattr(replay_command, "_setup_of", lambda *_: next(setups))
    with pytest.raises(ConfigError, match=r"differ from those of .*replay it by itself"):
        live_setup(BAGS, BagTopics(), MONTAGE)


def test_without_ros(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(replay_command, "find_spec", lambda name: None)
    assert main(["replay", str(BAGS[0])]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ifailsense: replay needs ROS 2, and rclpy is not there: ")
    assert error.count("\n") == 1


def test_mistakes_before_anything_is_started(capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("rclpy")
    detector = ["--detector", "baseline:always-success"]
    assert main(["replay", "nowhere", *detector]) == 2
    assert "nowhere: no such bag" in capsys.readouterr().err
    assert main(["replay", str(BAGS[0]), "--rate", "0", *detector]) == 2
    assert "--rate 0.0: must be greater than 0" in capsys.readouterr().err
    assert main(["replay", str(BAGS[0]), "--exo-topic", "/top", *detector]) == 2
    assert "topic /top is missing" in capsys.readouterr().err


def _replay(*arguments: str) -> subprocess.CompletedProcess:
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "test" / "ros")])
    return subprocess.run(
        [sys.executable, "-m", "ifailsense_ros.cli", "replay", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=140,
    )


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_live_and_offline_agree_on_sim_time() -> None:
    pytest.importorskip("rclpy")
    done = _replay(*map(str, BAGS), "--rate", "2", "--clock", "--detector", "pixel_detector:make")
    assert done.returncode == 0, done.stderr
    *episodes, summary = done.stdout.splitlines()
    assert [line.split()[0] for line in episodes] == ["agrees", "agrees"]
    assert summary.startswith("2 of 2 episodes: live and offline agree (rate 2, /clock, domain ")


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_disagreement_is_found() -> None:
    pytest.importorskip("rclpy")
    done = _replay(str(BAGS[0]), "--rate", "3", "--detector", "pixel_detector:make_two_faced")
    assert done.returncode == 1, done.stderr
    first, *found, summary = done.stdout.splitlines()
    assert first.startswith(f"DIFFERS  {BAGS[0].name}  episode ")
    assert any(line.startswith("    p_success: offline ") for line in found)
    assert any(line.startswith("    vote vlm: offline ") for line in found)
    assert summary.startswith("0 of 1 episodes")
