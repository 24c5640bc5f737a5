"""Questions about scenes say what the oracle sees."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")
pytest.importorskip("pyarrow", reason="needs pyarrow: the `sim` extra")

from ifailsense_ros.data.episode_store import read_episodes
from ifailsense_ros.data.scene_questions import read_questions
from ifailsense_ros.sim.layout import DRAWER_STROKE
from ifailsense_ros.sim.oracle import BlockState, WorldState
from ifailsense_ros.sim.questions import changes_of, facts_of, main, questions_of
from ifailsense_ros.sim.record import record, settings_of

pytestmark = pytest.mark.sim

ON_TABLE = BlockState(0.52, 0.4, 0.02, 0.0)


@pytest.fixture
def state(world) -> WorldState:
    """Bulb on, LED off, drawer closed, three blocks on the table."""
    some = world.state_at(world.data.qpos)
    z = next(
        z / 1000
        for z in range(100)
        if dict(
            facts_of(
                replace(some, blocks=dict.fromkeys(some.blocks, replace(ON_TABLE, z=z / 1000)))
            )
        )["where is the red block"]
        == "table"
    )
    places = {c: replace(ON_TABLE, z=z, y=y) for c, y in (("red", 0.4), ("blue", 0), ("pink", -9))}
    return WorldState(places, drawer=0.0, door=0.0, switch=0.02, led=False)


def test_facts_of_a_state(state: WorldState) -> None:
    said = dict(facts_of(state))
    assert said["is the light bulb on"] == "yes" and said["is the led on"] == "no"
    assert said["how far is the drawer open"] == "0"
    assert said["how far right is the door"] in ("2", "3")
    rights = [said[f"how far right is the {c} block"] for c in ("red", "blue", "pink")]
    assert rights == ["0", "4", "9"]  # the picture's left is +y; what is beyond counts as the edge
    assert said["how far away is the red block"] == "5"
    assert said["what hour does the red block point to"] == "0"
    for yaw, hour in ((math.pi / 2, "3"), (-math.pi / 2, "9"), (2 * math.pi - 0.01, "0")):
        turned = replace(state.blocks["red"], yaw=yaw)
        other = dict(facts_of(replace(state, blocks={**state.blocks, "red": turned})))
        assert other["what hour does the red block point to"] == hour


def test_a_block_in_the_air_points_nowhere(state: WorldState) -> None:
    lifted = replace(state.blocks["blue"], z=0.3)
    said = dict(facts_of(replace(state, blocks={**state.blocks, "blue": lifted})))
    assert said["where is the blue block"] == "air"
    assert "what hour does the blue block point to" not in said


def test_start_and_end_are_asked_apart(state: WorldState) -> None:
    said = dict(questions_of(state, replace(state, switch=-0.02, drawer=DRAWER_STROKE)))
    assert said["is the light bulb on at the start?"] == "yes"
    assert said["is the light bulb on at the end?"] == "no"
    assert said["how far is the drawer open at the start?"] == "0"
    assert said["how far is the drawer open at the end?"] == "5"


def test_changes_are_asked_about_where_the_oracle_is_sure(state: WorldState) -> None:
    red = state.blocks["red"]

    def changes(**red_is: float) -> dict[str, str]:
        blocks = {**state.blocks, "red": replace(red, **red_is)}
        return dict(changes_of(state, replace(state, blocks=blocks, drawer=DRAWER_STROKE)))

    same = dict(changes_of(state, state))
    assert set(same.values()) == {"no"} and len(same) == 4 + 2 * 3
    assert [q for q, a in changes().items() if a == "yes"] == ["did the drawer move?"]
    assert changes(x=red.x + 0.1)["did the red block move?"] == "yes"
    assert changes(x=red.x + 0.02)["did the red block move?"] == "no"
    assert "did the red block move?" not in changes(x=red.x + 0.05)
    # across the place where yaw starts anew
    assert changes(yaw=2 * math.pi - 1)["did the red block turn?"] == "yes"
    assert changes(yaw=2 * math.pi - 0.1)["did the red block turn?"] == "no"
    assert "did the red block turn?" not in changes(yaw=math.radians(40))
    assert "did the red block turn?" not in changes(z=0.3)
    dark = dict(changes_of(state, replace(state, switch=-0.02, led=True)))
    assert dark["did the light bulb change?"] == dark["did the led change?"] == "yes"


def test_a_store_gets_them_for_all_of_its_episodes(
    tmp_path: Path, world, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, 3, settings_of("dev", seed=3, pictures=False))
    assert main(["--data", str(tmp_path)]) == 0
    assert "questions.parquet" in capsys.readouterr().out
    there = read_questions(tmp_path)
    for row in read_episodes(tmp_path, pictures=False):
        ends = (world.state_at(row.states[n]) for n in (0, -1))
        assert there.of(row) == questions_of(*ends) != ()
    assert main(["--data", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
