"""examples/record_episodes.sh, with a program in the place of `ros2` that prints its arguments."""

from __future__ import annotations

import os
import subprocess

import pytest
from stand_in import ROOT

from ifailsense_ros.data.rosbag import BagTopics

SCRIPT = ROOT / "examples" / "record_episodes.sh"


@pytest.fixture
def record(tmp_path):
    """Runs the script; returns its exit status, the words of `ros2`, and the rest of the output."""
    program = tmp_path / "ros2"
    program.write_text('#!/bin/sh\nprintf "<%s>\\n" "$@"\n')
    program.chmod(0o755)

    def run(*arguments: str, **variables: str) -> tuple[int, list[str], str]:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
        result = subprocess.run(
            ["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True
        )
        lines = result.stdout.splitlines()
        words = [line[1:-1] for line in lines if line.startswith("<")]
        rest = "\n".join(line for line in lines if not line.startswith("<"))
        return result.returncode, words, rest + result.stderr

    return run


def topics_of(words: list[str]) -> list[str]:
    return words[words.index("--topics") + 1 :]


def test_it_records_what_the_offline_reader_needs_and_what_the_monitor_said(record):
    status, words, hint = record("my bag")
    assert status == 0
    assert words[:6] == ["bag", "record", "--storage", "mcap", "--output", "my bag"]
    names = {topic.removesuffix("/compressed") for topic in topics_of(words)}
    wanted = BagTopics()
    assert {wanted.exo, wanted.gripper, wanted.instruction, wanted.episode} <= names
    monitor = {"episode_events", "verdict", "verdict/provisional"}
    assert {f"/monitor/{topic}" for topic in monitor} <= names
    assert "/diagnostics" in names
    assert "--include-hidden-topics" not in words
    assert f"--exo-topic {wanted.exo} --gripper-topic {wanted.gripper}" in hint
    assert f"--episode-topic {wanted.episode}" in hint


def test_an_action_is_recorded_with_its_hidden_status(record):
    _, words, hint = record("bag", ACTION="/execute", MONITOR="/left/monitor", EXO="/front/raw")
    assert "--include-hidden-topics" in words[: words.index("--topics")]
    assert {"/execute/_action/status", "/front/raw", "/left/monitor/verdict"} <= set(
        topics_of(words)
    )
    assert "--exo-topic /front/raw" in hint
    assert "--episode-topic /left/monitor/episode_events" in hint


def test_without_a_folder_it_says_how(record):
    status, words, output = record()
    assert status != 0
    assert not words
    assert "usage: record_episodes.sh FOLDER" in output
