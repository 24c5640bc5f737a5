"""Episodes with nothing done: the oracle's word, the four manners, one path for pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")
pytest.importorskip("pyarrow", reason="needs pyarrow: the `sim` extra")

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.episode_store import EpisodeRow, list_shards, read_episodes, read_notes
from ifailsense_ros.data.failure_classes import FAILURE_CLASSES, INCOMPLETE_GRASP
from ifailsense_ros.data.readers.store import StoreReader
from ifailsense_ros.data.records import EXPERT, UNFINISHED
from ifailsense_ros.sim import unfinished as module
from ifailsense_ros.sim.oracle import Outcome, carried_blocks, judge
from ifailsense_ros.sim.record import record, settings_of
from ifailsense_ros.sim.record_failures import record_failures
from ifailsense_ros.sim.tasks import CATEGORIES, TASKS
from ifailsense_ros.sim.unfinished import (
    ARM,
    BACK,
    CUT,
    MANNERS,
    Course,
    completion,
    course,
    cut,
    main,
    moments,
    record_unfinished,
    report,
)

pytestmark = pytest.mark.sim

STATES_ONLY = settings_of("dev", seed=3, pictures=False)
EPISODES = 2 * len(CATEGORIES)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experts of each category, without pictures."""
    folder = tmp_path_factory.mktemp("experts") / "store"
    record(folder, EPISODES, STATES_ONLY)
    return folder


@pytest.fixture(scope="module")
def experts(store: Path) -> list[EpisodeRow]:
    return list(read_episodes(store))


def path_of(world: Any, row: EpisodeRow) -> list[Any]:
    return [world.state_at(qpos) for qpos in row.states]


def test_completion_is_the_first_moment_the_oracle_says_true(
    world: Any, experts: list[EpisodeRow]
) -> None:
    for row in experts:
        path = path_of(world, row)
        done = completion(row, path)
        words = [
            judge(TASKS[row.task], path[0], path[n], carried_blocks(path[: n + 1]))
            for n in (done - 1, done)
        ]
        assert words[0] is not Outcome.TRUE and words[1] is Outcome.TRUE, row.task


def test_moments_lie_before_it_and_leave_room_for_the_keyframes(
    world: Any, experts: list[EpisodeRow]
) -> None:
    for row in experts:
        path = path_of(world, row)
        found, done = moments(row, path, 4), completion(row, path)
        assert found, row.task
        assert CUT[0] * done <= found[0] and found[-1] <= CUT[1] * done
        assert all(n >= 3 for n in found)
        assert all(n >= 9 for n in moments(row, path, 10))


def test_each_manner_runs_where_its_name_says(world: Any, experts: list[EpisodeRow]) -> None:
    seen: dict[str, int] = dict.fromkeys(MANNERS, 0)
    rng = np.random.default_rng(0)
    for row in experts:
        path = path_of(world, row)
        done = completion(row, path)
        for _ in range(12):
            drawn = course(row, path, 4, rng)
            if drawn is None:
                continue
            manner, states = drawn.manner, drawn.arm
            seen[manner] += 1
            if manner == "put_back":
                since = drawn.things.index(0, 1)
                assert states == list(range(len(path))) and since > done
                assert drawn.things == [n if n < since else 0 for n in states]
                continue
            assert drawn.things == states
            turn, end = max(states), states[-1]
            assert states[: turn + 1] == list(range(turn + 1))  # as the expert up to the turn
            assert states[turn:] == list(range(turn, end - 1, -1))  # and backwards from there
            assert (turn >= done) == (manner == "undone")
            assert (turn == end) == (manner == "stopped")
            if manner != "stopped":
                assert end <= BACK[1] * min(turn, done)
    assert min(seen.values()) > 5, seen


def test_put_back_is_the_experts_arm_in_front_of_the_first_scene(
    world: Any, experts: list[EpisodeRow]
) -> None:
    row = experts[0]
    last = len(row.states) - 1
    seen = Course("put_back", list(range(last + 1)), [*range(last), 0]).states(row)
    assert np.array_equal(seen[:-1], row.states[:-1])
    assert np.array_equal(seen[-1, :ARM], row.states[-1, :ARM])
    assert world.state_at(seen[-1]) == world.state_at(row.states[0])
    assert world.state_at(row.states[-1]) != world.state_at(row.states[0])
    assert world.model.joint("finger_right").qposadr[0] + 1 == ARM


def test_nothing_is_done_beyond_dispute(world: Any, experts: list[EpisodeRow]) -> None:
    for row in experts:
        found = cut(world, row, 4, seed=3)
        assert found is not None, row.task
        manner, short = found
        assert manner in MANNERS
        assert (short.kind, short.task, short.group) == (UNFINISHED, row.task, row.group)
        assert short.outcomes[row.task] == -1
        rivals = [t for t in TASKS.values() if t.category == row.category]
        assert max(short.outcomes[t.name] for t in rivals) < 1
        assert len(short.states) == 1 + round(10 * short.duration_s)
        assert np.array_equal(short.states[0], row.states[0])


def test_an_episode_without_a_moment_is_left_out(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.course
    lost = next(iter(read_episodes(store))).task

    def nowhere(row: EpisodeRow, *args: Any) -> Any:
        return None if row.task == lost else real(row, *args)

    monkeypatch.setattr(module, "course", nowhere)
    summary = record_unfinished(store, tmp_path / "out")
    text = report(summary)
    made = list(read_episodes(tmp_path / "out"))
    assert 0 < len(made) < EPISODES
    assert lost not in {row.task for row in made}
    assert f"{EPISODES - len(made)} without a moment for it: {lost}" in text


def test_a_store_of_them(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], experts: list[EpisodeRow]
) -> None:
    command = ["--data", str(store), "--workers", "1", "--out"]
    for name in ("a", "b"):
        assert main([*command, str(tmp_path / name)]) == 0
    out = capsys.readouterr().out
    assert all(manner in out for manner in MANNERS) and "per core-hour" in out
    (a,), (b,) = (list_shards(tmp_path / name) for name in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()  # drawn from the episodes' seeds alone
    assert a.name == list_shards(store)[0].name
    settings = read_notes(a)["settings"]
    assert settings["kind"] == UNFINISHED
    assert settings["states_from"] == str(store)
    rows = list(read_episodes(tmp_path / "a"))
    assert [r.index for r in rows] == [e.index for e in experts]
    for row, expert in zip(rows, experts, strict=True):
        assert row.stamps_ns[0] == 0 and row.stamps_ns[-1] == round(row.duration_s * 1e9)
        assert row.instruction == expert.instruction
    # A reader takes them for what they are: no success, of a class of their own.
    records = list(StoreReader(tmp_path / "a"))
    assert {(r.kind, r.success) for r in records} == {(UNFINISHED, False)}
    assert UNFINISHED not in FAILURE_CLASSES


def test_failures_are_not_cut(tmp_path: Path) -> None:
    record_failures(tmp_path / "set", 1, STATES_ONLY, kinds=(INCOMPLETE_GRASP,))
    record_unfinished(tmp_path / "set", tmp_path / "out")
    before, after = (list(read_episodes(tmp_path / name)) for name in ("set", "out"))
    assert [r.kind for r in before] == [EXPERT, INCOMPLETE_GRASP]
    assert [r.kind for r in after] == [UNFINISHED]


def test_what_is_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="data itself"):
        record_unfinished(store, store)
    assert main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_pictures_take_the_path_of_the_experts(world: Any, tmp_path: Path) -> None:
    from ifailsense_ros.sim.render import Camera

    try:
        Camera(world).close()
    except ConfigError as error:
        pytest.skip(f"no OpenGL here: {error}")
    record(tmp_path / "a", 1, settings_of("dev", size=64))
    record_unfinished(tmp_path / "a", tmp_path / "b")
    (expert,), (short,) = (read_episodes(tmp_path / name) for name in ("a", "b"))
    first, wrist = short.images[0], short.images[4]
    assert (first, wrist) == (expert.images[0], expert.images[4])  # the same start, to the byte
    assert short.images[3] != expert.images[3]
    assert short.decode_images().shape == expert.decode_images().shape
