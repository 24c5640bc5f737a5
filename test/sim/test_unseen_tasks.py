"""The unseen world without its physics: starts, oracle, sentences, the first-frame probe."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.episode_store import EpisodeRow
from ifailsense_ros.data.failure_classes import CONTROL_FAILURES
from ifailsense_ros.sim import instructions as desk
from ifailsense_ros.sim import tasks as desk_tasks
from ifailsense_ros.sim.oracle import Outcome
from ifailsense_ros.sim.unseen.instructions import (
    PHRASINGS,
    TEST_PHRASINGS,
    TRAIN_PHRASINGS,
    content_words,
    instruction_for,
    known_share,
)
from ifailsense_ros.sim.unseen.leak import probe
from ifailsense_ros.sim.unseen.scenes import SCENES, draw_start
from ifailsense_ros.sim.unseen.tasks import BINS, PAIRS, TASKS, State, contrast, judge

CATEGORIES = {"lifting", "rotating", "pushing", "opening_closing", "placing", "lighting"}
ON_JOINTS = [name for name, spec in SCENES.items() if not spec.free]
ALONG_A_LINE = [t for t in TASKS.values() if t.verb != "place"]


def _start(scene: str, seed: int) -> State:
    start = draw_start(SCENES[scene], np.random.default_rng(seed))
    return State(start.value, start.position)


def _moved(start: State, way: float, task_axis: tuple[float, float, float]) -> State:
    position = np.array(start.position) + way * np.array(task_axis)
    return State(start.value + way, tuple(position))


def test_two_opposite_tasks_of_one_category_in_every_scene() -> None:
    for scene, (a, b) in PAIRS.items():
        assert a.sign == -b.sign
        assert a.category == b.category == SCENES[scene].category
        assert a.category in CATEGORIES
        assert len(contrast(a, b)) in (1, 2)
    assert len(TASKS) == 2 * len(SCENES)


@given(st.sampled_from(ON_JOINTS), st.integers(0, 10_000))
def test_both_tasks_are_open_at_every_start(scene: str, seed: int) -> None:
    start = _start(scene, seed)
    for task in PAIRS[scene]:
        assert judge(task, start, start) is Outcome.FALSE
        if task.end is not None:
            assert task.sign * (task.end - start.value) - task.slack >= 0, "already half done"
            at_the_end = State(task.end)
            assert judge(task, start, at_the_end) is Outcome.TRUE


@given(st.sampled_from(ALONG_A_LINE), st.integers(0, 1000), st.floats(-2.0, 2.0, allow_nan=False))
def test_the_two_tasks_never_both_come_true(task, seed: int, way: float) -> None:
    start = _start(task.scene, seed)
    end = _moved(start, way, task.spec.axis)
    a, b = (judge(t, start, end) for t in PAIRS[task.scene])
    assert Outcome.FALSE in (a, b)


@pytest.mark.parametrize("task", ALONG_A_LINE, ids=lambda t: t.name)
def test_dead_band(task) -> None:
    start = _start(task.scene, 1)
    low, high = task.moved
    for share, outcome in ((0.9, Outcome.FALSE), (1.5, Outcome.DISPUTED)):
        end = _moved(start, task.sign * low * share, task.spec.axis)
        assert judge(task, start, end) is outcome
    far = task.sign * 1.01 * high if task.end is None else task.end - start.value
    assert judge(task, start, _moved(start, far, task.spec.axis)) is Outcome.TRUE


@pytest.mark.parametrize("task", PAIRS["coffee"] + PAIRS["cylinder"], ids=lambda t: t.name)
def test_a_thing_that_fell_over_or_hangs_in_the_air_is_disputed(task) -> None:
    start = _start(task.scene, 2)
    end = _moved(start, task.sign * 0.12, task.spec.axis)
    assert judge(task, start, end) is Outcome.TRUE
    assert judge(task, start, State(end.value, end.position, upright=0.1)) is Outcome.DISPUTED
    raised = (*end.position[:2], end.position[2] + 0.1)
    assert judge(task, start, State(end.value, raised)) is Outcome.DISPUTED


@pytest.mark.parametrize("colour", BINS)
def test_a_cube_is_in_one_bin_at_most(colour: str) -> None:
    start = _start("bins", 3)
    own, other = (TASKS[f"place_cube_{c}_bin"] for c in (colour, *(set(BINS) - {colour})))
    x, y = BINS[colour]
    inside = State(x, (x, y, 0.04))
    assert judge(own, start, inside) is Outcome.TRUE
    assert judge(other, start, inside) is Outcome.FALSE
    on_the_rim = State(x, (x, y + 0.085, 0.04))
    assert judge(own, start, on_the_rim) is Outcome.DISPUTED
    in_the_air = State(x, (x, y, 0.2))
    assert judge(own, start, in_the_air) is Outcome.DISPUTED
    assert judge(own, start, start) is Outcome.FALSE


def test_starts_are_drawn_without_a_task_and_by_seed() -> None:
    for spec in SCENES.values():
        a, again, other = (draw_start(spec, np.random.default_rng(seed)) for seed in (5, 5, 6))
        assert a == again
        assert a != other
        assert spec.start[0] <= a.value <= spec.start[1]


# --- sentences


def test_every_family_has_eleven_sentences_and_no_other_has_any() -> None:
    assert {task.family for task in TASKS.values()} == set(PHRASINGS)
    for family, sentences in PHRASINGS.items():
        assert len(set(sentences)) == len(TRAIN_PHRASINGS) + len(TEST_PHRASINGS), family


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
def test_test_sentences_are_new_but_not_their_words(task) -> None:
    trained = [instruction_for(task, k) for k in TRAIN_PHRASINGS]
    words = set().union(*map(content_words, trained))
    for phrasing in TEST_PHRASINGS:
        sentence = instruction_for(task, phrasing)
        assert sentence not in trained
        assert content_words(sentence) <= words
    with pytest.raises(IndexError, match=r"0\.\.10"):
        instruction_for(task, 11)


def test_no_sentence_of_a_scene_asks_for_both_tasks() -> None:
    for a, b in PAIRS.values():
        said = [{instruction_for(t, k) for k in range(11)} for t in (a, b)]
        assert not said[0] & said[1]


def test_the_desk_is_not_trained_in_a_test_sentence_of_this_world() -> None:
    asked = {instruction_for(t, k) for t in TASKS.values() for k in TEST_PHRASINGS}
    trained = {
        desk.instruction_for(t, k) for t in desk_tasks.TASKS.values() for k in desk.TRAIN_PHRASINGS
    }
    assert not asked & trained


def test_the_desk_knows_some_words_but_not_all() -> None:
    assert 0.3 < known_share(TEST_PHRASINGS) < 0.8


# --- the probe


def _row(index: int, tell: bool, rng: np.random.Generator) -> EpisodeRow:
    task, negative = PAIRS["drawer"] if rng.random() < 0.5 else PAIRS["drawer"][::-1]
    pictures = rng.integers(90, 160, (2, 2, 32, 32, 3)).astype(np.uint8)
    if tell:
        pictures[0, 0, 8:24, 8:24] = 220 if task.sign > 0 else 30
    pictures[0, 1, :16] = 220 if task.sign > 0 else 30
    return EpisodeRow(
        split="test",
        index=index,
        attempt=0,
        task=task.name,
        negative_task=negative.name,
        category=task.category,
        contrast=("verb",),
        phrasing=0,
        instruction="open",
        negative_instruction="close",
        outcomes={task.name: 1, negative.name: -1},
        feasible=(task.name, negative.name),
        duration_s=1.0,
        stamps_ns=(0, 10**9),
        images=tuple(cv2.imencode(".jpg", p)[1].tobytes() for v in pictures for p in v),
        states=np.zeros((2, 3), np.float32),
        generator_version="test",
        source="metaworld",
    )


@pytest.mark.parametrize("tell", [True, False])
def test_the_probe_finds_a_planted_leak_and_no_other(tell: bool) -> None:
    rng = np.random.default_rng(0)
    rows = [_row(index, tell, rng) for index in range(60)]
    first, last = probe(rows, 0), probe(rows, -1)
    assert last.accuracy > 0.95
    if tell:
        assert first.accuracy > first.chance[1] + 0.2
    else:
        assert first.chance[0] <= first.accuracy <= first.chance[1]


def test_the_probe_wants_enough_episodes() -> None:
    with pytest.raises(DataError, match="10 a scene"):
        probe([_row(0, False, np.random.default_rng(0))], 0)


def test_failure_classes_are_control_errors() -> None:
    failures = pytest.importorskip("ifailsense_ros.sim.unseen.failures", reason="needs mujoco")
    assert set(failures.SCENES_OF) == set(failures.EDITS) < set(CONTROL_FAILURES)
    assert all(set(scenes) <= set(SCENES) for scenes in failures.SCENES_OF.values())
