"""Looking at the world: the exam of contact sheets and its key, the table of the experts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.sim import check_experts, contact_sheet
from ifailsense_ros.sim.robot import World
from ifailsense_ros.sim.rollout import Setup, draw_setup

pytestmark = pytest.mark.sim


def setups(count: int) -> list[Setup]:
    drawn = (draw_setup("dev", index, attempt) for index in range(count) for attempt in range(9))
    found = {setup.index: setup for setup in drawn if setup}
    return list(found.values())


def test_the_key_says_what_stands_above_the_montage() -> None:
    answers = []
    for setup in setups(40):
        entry = contact_sheet.exam_entry(setup)
        done = entry["answer"] == "success"
        answers.append(done)
        assert entry["performed_task"] == setup.task.name
        assert (entry["asked_task"] == setup.task.name) == done
        assert entry["asked"] == (setup.instruction if done else setup.negative_instruction)
    assert 5 < sum(answers) < len(answers) - 5


def test_an_exam(world: World, tmp_path: Path) -> None:
    from ifailsense_ros.sim.render import Camera

    try:
        Camera(world).close()
    except ConfigError as error:
        pytest.skip(f"no OpenGL here: {error}")
    sheet, key = tmp_path / "new" / "sheet.png", tmp_path / "key.csv"
    arguments = ["--episodes", "3", "--look", "0", "--blind", str(key), "--out", str(sheet)]
    assert contact_sheet.main(arguments) == 0
    assert sheet.stat().st_size > 10_000
    with key.open() as file:
        assert [row["index"] for row in csv.DictReader(file)] == ["0", "1", "2"]


def test_an_unknown_look_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert contact_sheet.main(["--look", "wild", "--out", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_table_of_the_experts(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_experts.main(["--scenes", "2", "--tasks", "open_drawer"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| open_drawer | 2 | 2 | 0 | 0 | 0 |"
    assert lines[-1].startswith("| all | 2 |")
