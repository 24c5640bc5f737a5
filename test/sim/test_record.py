"""Recorders: settings, ranges, resuming, what is stored and printed; pictures where there is GL."""

from __future__ import annotations

import collections
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")
pytest.importorskip("pyarrow", reason="needs pyarrow: the `sim` extra")

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.episode_store import list_shards, read_episodes, read_notes
from ifailsense_ros.data.failure_classes import (
    FAILURE_CLASSES,
    INCOMPLETE_GRASP,
    WRONG_ACTION_SEQUENCE,
    WRONG_TARGET_OBJECT,
)
from ifailsense_ros.data.readers.store import StoreReader
from ifailsense_ros.data.records import EXPERT
from ifailsense_ros.sim import record_failures as failures
from ifailsense_ros.sim.failure_sheet import main as failure_sheet
from ifailsense_ros.sim.record import (
    FIRST_FAILURE,
    main,
    record,
    report,
    settings_of,
    speed_line,
)
from ifailsense_ros.sim.record_failures import (
    MOST_PER_CLASS,
    first_index,
    kind_of_index,
    record_failures,
)
from ifailsense_ros.sim.render_again import main as render_main
from ifailsense_ros.sim.render_again import render
from ifailsense_ros.sim.rollout import scene_of
from ifailsense_ros.sim.shards import Summary
from ifailsense_ros.sim.tasks import TASKS

pytestmark = pytest.mark.sim

STATES_ONLY = settings_of("dev", seed=3, pictures=False)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"split": "exam"}, "--split"),
        ({"seed": -1}, "--seed"),
        ({"look": "wild"}, "--look"),
        ({"keyframes": 0}, "--keyframes"),
        ({"size": 4}, "--size"),
        ({"video": True, "pictures": False}, "--video"),
        ({"tasks": ("lift_red_block_table", "fly")}, "no task fly"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        settings_of(**{"split": "dev", **options})


def test_recorded_twice_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        record(tmp_path / name, 4, STATES_ONLY)
    (a,), (b,) = (list_shards(tmp_path / name) for name in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()
    assert read_notes(a)["settings"] == STATES_ONLY
    rows = list(read_episodes(tmp_path / "a", "dev"))
    assert [row.index for row in rows] == [0, 1, 2, 3]
    assert len({row.group for row in rows}) == 4
    for row in rows:
        assert (row.source, row.kind) == ("desk", EXPERT)
        assert row.group == f"desk/3/dev/{row.index}/{row.attempt}"
        assert set(row.outcomes) == set(TASKS)
        assert len(row.stamps_ns) == 4
        assert row.stamps_ns[-1] == round(row.duration_s * 1e9)
        assert len(row.states) == 1 + round(row.duration_s * 10)


def test_another_base_seed_gives_other_scenes() -> None:
    assert scene_of("dev", 0, 0, seed=1) != scene_of("dev", 0, 0, seed=2)


def test_the_indices_of_failure_sets_are_theirs_alone(tmp_path: Path) -> None:
    """Seeds are made of the index among others: experts and failures never share one."""
    with pytest.raises(ConfigError, match="belong to failure sets"):
        record(tmp_path, 100, STATES_ONLY, first=FIRST_FAILURE - 50)
    assert not list(tmp_path.iterdir())
    ranges = [range(first_index(k), first_index(k) + MOST_PER_CLASS) for k in FAILURE_CLASSES]
    assert ranges[0].start == FIRST_FAILURE
    assert all(a.stop == b.start for a, b in pairwise(ranges))
    assert ranges[-1].stop <= 1_000_000  # six digits in a shard's name
    for kind, r in zip(FAILURE_CLASSES, ranges, strict=True):
        assert kind_of_index(r.start) == kind_of_index(r.stop - 1) == kind


def test_failures_lie_beside_their_twins(tmp_path: Path) -> None:
    kinds = (INCOMPLETE_GRASP, WRONG_TARGET_OBJECT)
    summary = record_failures(tmp_path, 2, STATES_ONLY, kinds=kinds)
    assert sum(summary.counted("failed").values()) == 4
    rows = list(read_episodes(tmp_path, "dev"))
    assert [r.kind for r in rows] == [EXPERT, kinds[0]] * 2 + [EXPERT, kinds[1]] * 2
    for twin, failure in zip(rows[::2], rows[1::2], strict=True):
        for name in (
            "index", "attempt", "task", "category", "phrasing", "instruction", "feasible",
            "duration_s", "stamps_ns", "group",
        ):  # fmt: skip
            assert getattr(twin, name) == getattr(failure, name), name
        assert twin.states.shape == failure.states.shape
        assert np.array_equal(twin.states[0], failure.states[0])
        assert twin.outcomes[twin.task] == 1
        assert failure.outcomes[twin.task] == -1
        if failure.kind == WRONG_TARGET_OBJECT:
            assert failure.outcomes[failure.negative_task] == 1
    assert len({r.category for r in rows[:4]}) == 2  # categories take turns
    records = list(StoreReader(tmp_path))
    assert [r.twin for r in records[1::2]] == [r.key for r in records[::2]]
    text = failures.report(summary)
    assert f"{INCOMPLETE_GRASP}: 2 failures with twins over 2 tasks" in text


def test_a_scene_that_leaves_no_place_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = failures.perform_failure, []

    def stubborn(world: Any, success: Any, kind: str) -> Any:
        if not refused:
            refused.append(success.setup.attempt)
            raise failures.NoPlaceError("no")
        return real(world, success, kind)

    monkeypatch.setattr(failures, "perform_failure", stubborn)
    summary = record_failures(tmp_path, 1, STATES_ONLY, kinds=(WRONG_ACTION_SEQUENCE,))
    assert sum(summary.counted("no_place").values()) == 1
    assert next(iter(read_episodes(tmp_path))).attempt > refused[0]
    assert "1 scenes given up" in failures.report(summary)


@pytest.mark.parametrize(
    ("per_class", "kinds", "match"),
    [
        (0, FAILURE_CLASSES, "--per-class"),
        (MOST_PER_CLASS + 1, FAILURE_CLASSES, "--per-class"),
        (1, ("explode",), "--classes"),
        (1, (), "--classes"),
    ],
)
def test_wrong_failure_sets_are_named(
    tmp_path: Path, per_class: int, kinds: tuple[str, ...], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        record_failures(tmp_path, per_class, STATES_ONLY, kinds=kinds)


def test_report_counts_what_the_expert_failed() -> None:
    tally = {
        "performed open_drawer": 9,
        "performed push_red_block_left": 5,
        "rejected expert_failed open_drawer": 1,
        "rejected expert_disputed push_red_block_left": 5,
        "rejected negative_disputed push_red_block_left": 2,
        "rejected no_feasible_pair": 7,
    }
    text = report(Summary(tally, {"physics": 14.0, "pictures": 42.0}, 14))
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines()}
    assert lines["open_drawer"] == ["9", "1", "0.900"]
    assert lines["push_red_block_left"] == ["5", "5", "0.500"]
    assert lines["all"] == ["14", "6", "0.700"]
    assert "no_feasible_pair 7" in text
    assert "negative_disputed 2" in text
    assert "900 per core-hour" in text  # 56 s for 14
    assert "physics 1.00 s" in text and "pictures 3.00 s" in text


def test_speed_line_names_what_was_made() -> None:
    assert speed_line(Summary({}, {"physics": 2.0}, 4), "pairs").startswith(
        "4 pairs made now, 7200"
    )


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--episodes", "2", "--split", "dev", "--tasks", "open_drawer,close_drawer"]
    command += ["--no-pictures", "--workers", "1", "--out", str(tmp_path / "set")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "open_drawer" in out and "per core-hour" in out
    assert {r.task for r in read_episodes(tmp_path / "set")} <= {"open_drawer", "close_drawer"}
    assert main([*command, "--seed", "5"]) == 2  # another seed into the same folder
    err = capsys.readouterr().err
    assert "made with seed 0, not 5" in err.splitlines()[-1]


def test_default_folder_and_errors_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Path] = []

    def fake(folder: Path, *_: Any, **__: Any) -> Summary:
        asked.append(folder)
        return Summary(collections.Counter({"performed open_drawer": 1}), {}, 0)

    monkeypatch.setattr("ifailsense_ros.sim.record.record", fake)
    assert main(["--tasks", "all", "--episodes", "680", "--seed", "1"]) == 0
    assert asked == [Path("data/desk-train-1")]
    assert main(["--episodes", "5", "--tasks", "fly"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_render_refuses_what_it_cannot_render(tmp_path: Path) -> None:
    record(tmp_path / "a", 1, STATES_ONLY)
    with pytest.raises(ConfigError, match="data itself"):
        render(tmp_path / "a", tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no shard"):
        render(tmp_path / "empty", tmp_path / "b")


# --- with OpenGL


@pytest.fixture
def gl(world: Any) -> None:
    """Skips where this machine has no OpenGL."""
    from ifailsense_ros.sim.render import Camera

    try:
        Camera(world).close()
    except ConfigError as error:
        pytest.skip(f"no OpenGL here: {error}")


@pytest.mark.usefixtures("gl")
def test_pictures_made_again_are_the_same_bytes_or_of_another_size(tmp_path: Path) -> None:
    record(tmp_path / "a", 1, settings_of("dev", size=64, video=True))
    (row,) = read_episodes(tmp_path / "a")
    assert row.decode_images().shape == (2, 4, 64, 64, 3)
    for name in ("exo", "wrist"):
        video = cv2.VideoCapture(str(tmp_path / "a" / "video" / f"dev-000000-expert-{name}.mp4"))
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) == len(row.states)
        assert video.get(cv2.CAP_PROP_FPS) == 10
        ok, frame = video.read()
        assert ok
        first = row.decode_images()[("exo", "wrist").index(name), 0]
        assert np.abs(frame[..., ::-1].astype(int) - first).mean() < 12  # both are lossy

    command = ["--data", str(tmp_path / "a"), "--workers", "1", "--out"]
    assert render_main([*command, str(tmp_path / "same")]) == 0
    (same,) = read_episodes(tmp_path / "same")
    assert same.images == row.images
    assert render_main([*command, str(tmp_path / "b"), "--size", "96", "--keyframes", "6"]) == 0
    (other,) = read_episodes(tmp_path / "b")
    assert other.decode_images().shape == (2, 6, 96, 96, 3)
    assert (other.task, other.group) == (row.task, row.group)
    assert np.array_equal(other.states, row.states)
    assert render_main([*command, str(tmp_path / "b"), "--size", "48"]) == 2


@pytest.mark.usefixtures("gl")
def test_sheet_of_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = settings_of("dev", size=32)
    record_failures(tmp_path / "set", 1, small, kinds=(WRONG_ACTION_SEQUENCE,))
    twin, failure = read_episodes(tmp_path / "set")
    assert [a == b for a, b in zip(twin.images, failure.images, strict=True)][::4] == [True, True]
    assert twin.images != failure.images
    command = ["--data", str(tmp_path / "set"), "--out", str(tmp_path / "sheet.png")]
    assert failure_sheet(command) == 0
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    half = (picture.shape[1] - 8) // 2
    assert picture.shape[1] == 2 * 4 * 84 * 2 + 8
    assert (picture[30:, :160] == picture[30:, half + 8 : half + 168]).all()  # the same start
    assert (picture[30:, half - 160 : half] != picture[30:, -160:]).any()
    assert failure_sheet([*command, "--kind", INCOMPLETE_GRASP]) == 2
