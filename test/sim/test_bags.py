"""Recorded bags: content, order, truth; the committed demo bags; rendering where there is GL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.keyframes import select_keyframes
from ifailsense_ros.data.failure_classes import (
    INADEQUATE_GRIP_RETENTION,
    INCOMPLETE_GRASP,
    WRONG_TARGET_OBJECT,
)
from ifailsense_ros.data.rosbag import (
    BoundaryRecorded,
    ImageRecorded,
    InstructionRecorded,
    read_events,
)
from ifailsense_ros.sim.record_bag import (
    SEMANTIC,
    main,
    roll_out,
    truth_of,
    write_bag,
)
from ifailsense_ros.sim.robot import World
from ifailsense_ros.sim.rollout import Rollout
from ifailsense_ros.sim.tasks import CATEGORIES

pytestmark = pytest.mark.sim

DEMO = Path(__file__).resolve().parents[2] / "bags" / "demo"
DEMO_BAGS = sorted(folder.name for folder in DEMO.iterdir() if folder.is_dir())


def truth(folder: Path) -> dict[str, Any]:
    lines = (folder / "truth.yaml").read_text().splitlines()
    return {key: json.loads(value) for key, value in (line.split(": ", 1) for line in lines)}


def flat_pictures(rollout: Rollout) -> list[list[np.ndarray]]:
    """Stand-ins for rendered pictures: the time step in red, the camera in green."""
    steps = range(len(rollout.states))
    return [[np.full((16, 16, 3), (2 * k, 90 * c, 0), np.uint8) for k in steps] for c in (0, 1)]


def check_bag(folder: Path, rollout: Rollout | None = None) -> None:
    """What every bag must be, whatever made it."""
    events = list(read_events(folder))
    start, end = (e for e in events if isinstance(e, BoundaryRecorded))
    (instruction,) = (e for e in events if isinstance(e, InstructionRecorded))
    views = [[e for e in events if isinstance(e, ImageRecorded) and e.pov == p] for p in (0, 1)]
    stamps = [[e.stamp_ns for e in row] for row in views]
    assert (start.event, end.event) == (1, 2)
    assert start.episode_id == end.episode_id is not None
    assert start.instruction == instruction.text == truth(folder)["instruction"]
    assert instruction.receive_ns < start.receive_ns
    assert start.stamp_ns < min(stamps[0][0], stamps[1][0])
    assert end.stamp_ns > max(stamps[0][-1], stamps[1][-1])
    assert len(stamps[0]) == len(stamps[1]) > 15
    assert set(np.diff(stamps[0])) == {100_000_000}
    received = [e.receive_ns for e in events]
    assert received == sorted(received)
    assert {e.picture.frame_id for row in views for e in row} == {
        "exo_camera_optical_frame",
        "gripper_camera_optical_frame",
    }
    if rollout is not None:
        assert len(stamps[0]) == len(rollout.states)
        picks = select_keyframes(stamps[0], 4)
        assert picks == select_keyframes([int(s) for s in rollout.stamps_ns], 4)


@pytest.mark.parametrize("kind", ["success", SEMANTIC])
def test_bag_of_an_episode(world: World, tmp_path: Path, kind: str) -> None:
    rollout = roll_out(world, "dev", 2, kind)
    write_bag(tmp_path / "bag", rollout, kind, flat_pictures(rollout))
    check_bag(tmp_path / "bag", rollout)
    first = next(e for e in read_events(tmp_path / "bag") if isinstance(e, ImageRecorded))
    assert np.abs(first.picture.decode().astype(int) - (0, 0, 0)).max() < 8
    said = truth(tmp_path / "bag")
    assert said["truth"] == ("success" if kind == "success" else "failure")
    assert (said["performed_task"] == said["instructed_task"]) == (kind == "success")
    with pytest.raises(ConfigError, match="exists already"):
        write_bag(tmp_path / "bag", rollout, kind, flat_pictures(rollout))


def test_same_episode_same_bytes(world: World, tmp_path: Path) -> None:
    for name in ("a", "b"):
        rollout = roll_out(world, "dev", 1, "success")
        write_bag(tmp_path / name / "bag", rollout, "success", flat_pictures(rollout))
    for file in ("bag.mcap", "metadata.yaml", "truth.yaml"):
        a, b = ((tmp_path / name / "bag" / file).read_bytes() for name in ("a", "b"))
        assert a == b, file


def test_semantic_twin_shows_the_same_episode(world: World) -> None:
    a, b = (roll_out(world, "dev", 0, kind) for kind in ("success", SEMANTIC))
    assert np.array_equal(a.states, b.states)
    assert truth_of(a, "success")["instruction"] != truth_of(b, SEMANTIC)["instruction"]


def test_wrong_target_says_what_was_done_instead(world: World) -> None:
    said = truth_of(roll_out(world, "dev", 0, WRONG_TARGET_OBJECT), WRONG_TARGET_OBJECT)
    assert said["truth"] == "failure"
    assert said["performed_task"] != said["instructed_task"]
    assert said["contrast"]


def test_faults_are_refused_where_they_make_no_sense(world: World) -> None:
    with pytest.raises(ConfigError, match="no grip"):
        roll_out(world, "dev", 2, INADEQUATE_GRIP_RETENTION)
    with pytest.raises(ConfigError, match="choose one of"):
        roll_out(world, "dev", 2, "explode")


# The committed demo bags are made by scripts/make_demo_bags.sh, whose first lines state the rule.


def test_demo_bags_are_those_of_the_rule() -> None:
    said = [truth(DEMO / name) for name in DEMO_BAGS]
    by_index = {index: [t for t in said if t["seed"]["index"] == index] for index in range(6)}
    assert len(said) == 12
    assert {t["seed"]["split"] for t in said} == {"test"}
    # The standard data sets have base seed 0.
    assert {t["seed"]["base"] for t in said} == {1}
    for twins in by_index.values():
        assert sorted(t["truth"] for t in twins) == ["failure", "success"]
        assert len({t["performed_task"] for t in twins}) == 1
    assert [twins[0]["category"] for twins in by_index.values()] == list(CATEGORIES)
    failures = [t["kind"] for twins in by_index.values() for t in twins if t["kind"] != "success"]
    control = {0: INCOMPLETE_GRASP, 4: INADEQUATE_GRIP_RETENTION}
    assert failures == [control.get(index, SEMANTIC) for index in range(6)]


@pytest.mark.parametrize("name", DEMO_BAGS)
def test_committed_demo_bag(name: str) -> None:
    check_bag(DEMO / name)
    said = truth(DEMO / name)
    assert (said["truth"] == "success") == (said["kind"] == "success")


@pytest.mark.parametrize("name", DEMO_BAGS)
def test_the_world_of_today_makes_the_demo_bags(world: World, name: str) -> None:
    """Else they are remade: the demo shows the world that the checkpoint was trained on."""
    said = truth(DEMO / name)
    seed = said["seed"]
    rollout = roll_out(
        world, seed["split"], seed["index"], said["kind"], seed=seed["base"], look=said["look"]
    )
    assert truth_of(rollout, said["kind"]) == said
    check_bag(DEMO / name, rollout)


def test_demo_bags_are_small_enough_to_commit() -> None:
    assert sum(f.stat().st_size for f in DEMO.rglob("*") if f.is_file()) <= 12_000_000


@pytest.fixture
def camera(world: World) -> Iterator[Any]:
    """A renderer, or a skip where this machine has no OpenGL."""
    from ifailsense_ros.sim.render import Camera

    try:
        camera = Camera(world)
    except ConfigError as error:
        pytest.skip(f"no OpenGL here: {error}")
    with camera:
        yield camera


def test_without_opengl_there_is_one_line(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import mujoco

    def broken(*_: object) -> None:
        raise ImportError("no EGL device\nat all")

    monkeypatch.setattr(mujoco, "Renderer", broken)
    assert main(["--split", "dev", "--index", "0", "--out", str(tmp_path / "bag")]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "no EGL device at all" in err
    assert "MUJOCO_GL" in err
    assert not (tmp_path / "bag").exists()


def test_rendered_pictures_show_what_happened(world: World, camera: Any) -> None:
    rollout = roll_out(world, "dev", 2, "success")
    exo, wrist = camera.pictures(rollout.states[[0, -1]])
    assert exo[0].shape == wrist[0].shape == (224, 224, 3)
    again = camera.pictures(rollout.states[[0]])
    assert np.array_equal(again[0][0], exo[0])
    changed = np.abs(exo[1].astype(int) - exo[0]).max(axis=2) > 60
    assert 200 < changed.sum() < 0.3 * changed.size  # the pushed block, not the whole picture


def test_record_bag_command(camera: Any, tmp_path: Path) -> None:
    out = tmp_path / "bag"
    command = ["--split", "dev", "--index", "0", "--kind", INCOMPLETE_GRASP, "--out", str(out)]
    assert main(command) == 0
    check_bag(out)
    assert truth(out)["truth"] == "failure"
    assert main(command) == 2
