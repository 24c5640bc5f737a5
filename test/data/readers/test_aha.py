"""AHA's two layouts, written as FailGen (folders) and AHA's evaluation (questions) have them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.failure_classes import FAILURE_CLASSES
from ifailsense_ros.data.readers import open_reader
from ifailsense_ros.data.readers.aha import FAILURES, AhaReader

QUESTION = (
    "<image>\n In the image, it contains many frames from a single view at different time steps "
    "in a matrix arrangement depicting the robot arm performing {}.        Each frame is labeled "
    "with the corresponding timestep. For the given sub-tasks, first determine it has succeed."
)


def write_keyframes(folder: Path, views: dict[str, Sequence[np.ndarray]]) -> Path:
    """FailGen's save_keyframe_data."""
    folder.mkdir(parents=True)
    for view, pictures in views.items():
        for step, picture in enumerate(pictures):
            cv2.imwrite(str(folder / f"{view}_{step}.png"), picture[..., ::-1])
    return folder


def entry(number: int, image: str, sub_task: str, answer: str) -> dict[str, Any]:
    return {
        "id": str(number),
        "image": image,
        "conversations": [
            {"from": "human", "value": QUESTION.format(sub_task)},
            {"from": "gpt", "value": answer},
        ],
    }


def write_strip(path: Path, cells: Sequence[np.ndarray], total: int, suffix: str = "png") -> None:
    """Keyframes side by side with 10 black pixels between them; white where not yet happened."""
    height, width = cells[0].shape[:2]
    strip = np.zeros((height, total * width + (total - 1) * 10, 3), np.uint8)
    for i in range(total):
        left = i * (width + 10)
        strip[:, left : left + width] = cells[i] if i < len(cells) else 255
    cv2.imwrite(str(path.with_suffix(f".{suffix}")), strip[..., ::-1])


def flat(value: int) -> np.ndarray:
    return np.full((48, 64, 3), value, np.uint8)


@pytest.fixture
def failgen(tmp_path: Path) -> Path:
    root = tmp_path / "failgen"
    for name, offset in (
        ("basketball_in_hoop_grasp_wp1_episode0", 0),
        ("close_jar_no_rotation_wp2_episode3", 40),
        ("open_drawer_wrong_object_episode11", 80),
    ):
        views = {v: [flat(offset + 10 * n + i) for i in range(4)] for n, v in enumerate(VIEWS)}
        write_keyframes(root / name, views)
    (root / "notes").mkdir()
    return root


VIEWS = ("front", "wrist", "overhead")


def test_keyframe_folders(failgen: Path) -> None:
    grasp, no_rotation, wrong_object = open_reader(f"aha:{failgen}")
    assert grasp.key == grasp.group == "basketball_in_hoop_grasp_wp1_episode0"
    assert grasp.instruction == "basketball in hoop"
    assert grasp.kind == "incomplete_grasp"
    assert (no_rotation.kind, no_rotation.instruction) == ("missing_rotation", "close jar")
    assert (wrong_object.kind, wrong_object.category) == ("wrong_target_object", "opening_closing")
    assert [r.success for r in (grasp, no_rotation, wrong_object)] == [False] * 3
    assert (grasp.num_pov, len(grasp.stamps_ns)) == (2, 4)
    keyframes = grasp.episode(4, 2).keyframes
    assert [[v[0, 0, 0] for v in k.views] for k in keyframes] == [[i, 10 + i] for i in range(4)]


def test_views_are_chosen(failgen: Path) -> None:
    record = next(iter(open_reader(f"aha:{failgen}?views=overhead,front,wrist")))
    assert record.num_pov == 3
    assert [v[0, 0, 0] for v in record.read([2])[0].views] == [22, 2, 12]
    (one,) = AhaReader(failgen / "close_jar_no_rotation_wp2_episode3", views="wrist")
    assert (one.num_pov, one.read([0])[0].views[0][0, 0, 0]) == (1, 50)


def test_every_failure_type_of_failgen_is_one_of_the_seven_classes() -> None:
    assert len(FAILURES) == 11
    assert set(FAILURES.values()) == set(FAILURE_CLASSES)


def test_round_trip_of_keyframes(tmp_path: Path, simulated_drop: Any) -> None:
    exo, gripper = simulated_drop.views[:, 0], simulated_drop.views[:, 1]
    name = simulated_drop.instruction.replace(" ", "_") + "_slip_wp2_episode0"
    write_keyframes(tmp_path / name, {"front": list(exo), "wrist": list(gripper)})
    (record,) = AhaReader(tmp_path)
    assert record.instruction == simulated_drop.instruction
    assert record.success is simulated_drop.success
    assert record.kind == "inadequate_grip_retention"
    # The format has no stamps, only an order.
    assert record.stamps_ns == tuple(i * 10**9 for i in range(len(exo)))
    for step, keyframe in enumerate(record.read(range(len(exo)))):
        for pov in (0, 1):
            np.testing.assert_array_equal(keyframe.views[pov], simulated_drop.views[step, pov])


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Two sub-tasks of one episode: three keyframes, the first two have happened at first."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    name = "apple_in_bowl_slip_wp1_episode2_combined_view"
    for step in (0, 1):
        write_strip(folder / f"{name}_{step}", [flat(10 + i) for i in range(step + 2)], 3)
    content = [
        entry(0, f"./{name}_0.png", "pick up of the apple", "Yes, the robot succeed."),
        entry(1, f"./{name}_1.png", "place the apple into bowl", "No, it slipped."),
    ]
    path = tmp_path / "REFLECT_test.json"
    path.write_text(json.dumps(content))
    return path


def test_questions_about_strips(questions: Path) -> None:
    pick, place = open_reader(f"aha:{questions}")
    assert (pick.instruction, place.instruction) == (
        "pick up of the apple",
        "place the apple into bowl",
    )
    assert (pick.success, pick.kind, pick.category) == (True, "", "lifting")
    assert (place.success, place.kind) == (False, "inadequate_grip_retention")
    assert pick.group == place.group
    assert pick.key != place.key
    assert [len(r.stamps_ns) for r in (pick, place)] == [2, 3]
    assert [k.views[0].shape for k in place.read(range(3))] == [(48, 64, 3)] * 3
    assert [k.views[0][0, 0, 0] for k in place.read(range(3))] == [10, 11, 12]
    assert [k.views[0][0, 0, 0] for k in pick.episode(2, 1).keyframes] == [10, 11]


def test_questions_with_keyframe_folders_beside_them(tmp_path: Path) -> None:
    """As make_json.py numbers them: picture k of an episode shows keyframes 1 to k + 2."""
    name = "put_pear_slip_wp1_episode0"
    write_keyframes(
        tmp_path / "data" / name,
        {view: [flat(10 * n + i) for i in range(5)] for n, view in enumerate(VIEWS)},
    )
    path = tmp_path / "output.json"
    path.write_text(json.dumps([entry(1, f"/somewhere/else/{name}/1.png", "open it", "No, x")]))
    (record,) = AhaReader(path)
    assert (record.num_pov, len(record.stamps_ns)) == (2, 3)
    assert [[v[0, 0, 0] for v in k.views] for k in record.read(range(3))] == [
        [1, 11],
        [2, 12],
        [3, 13],
    ]
    path.write_text(json.dumps([entry(1, f"{name}/3.png", "open it", "No, x")]))
    with pytest.raises(DataError, match="4 keyframes after the first, not 5"):
        list(AhaReader(path))


def test_round_trip_of_questions(tmp_path: Path, simulated: Any) -> None:
    exo = simulated.views[:, 0]
    name = "lift_slip_wp0_episode0_combined_view"
    write_strip(tmp_path / f"{name}_{len(exo) - 2}", list(exo), len(exo))
    content = [entry(0, f"{name}_{len(exo) - 2}.png", simulated.instruction, "Yes, it did.")]
    (tmp_path / "a.json").write_text(json.dumps(content))
    (record,) = AhaReader(tmp_path / "a.json")
    assert record.instruction == simulated.instruction
    assert record.success is simulated.success
    assert record.category == simulated.category
    for step, keyframe in enumerate(record.read(range(len(exo)))):
        np.testing.assert_array_equal(keyframe.views[0], exo[step])


def test_corrupt_folders_are_listed(failgen: Path) -> None:
    names = sorted(p.name for p in failgen.iterdir() if p.name != "notes")
    (failgen / names[0] / "wrist_2.png").unlink()
    for view in VIEWS:
        for path in (failgen / names[1]).glob(f"{view}_*.png"):
            if view == "wrist":
                path.unlink()
    cut = failgen / names[2] / "front_3.png"
    cut.write_bytes(cut.read_bytes()[:40])
    with pytest.raises(DataError, match=r"keyframes are missing: \{'front': 4, 'wrist': 3\}"):
        list(AhaReader(failgen))
    reader = AhaReader(failgen, keep_going=True)
    (record,) = reader
    assert [Path(p.where).name for p in reader.problems] == names[:2]
    assert "no pictures wrist_<k>.png (views there: front, overhead)" in reader.problems[1].what
    # Damage inside a picture shows when it is decoded; whoever does so lists it likewise.
    with pytest.raises(DataError, match=r"front_3\.png: truncated after 40 bytes"):
        record.episode(4, 2)
    with reader.noting(record.key):
        record.episode(4, 2)
    assert reader.problems[-1].where == names[2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conversations": []}, r"no image and conversations of texts \(there is: \['conv"),
        ({"image": "a.png"}, "'a.png', neither <episode>_combined_view_<k>"),
        ({"image": "x_combined_view_0.png"}, r"'x_combined_view_0\.png' is not in "),
        ({"answer": "Maybe"}, "the answer is 'Maybe', neither Yes nor No"),
        ({"question": "What is this?"}, "does not say 'the robot arm performing"),
    ],
)
def test_corrupt_questions_are_listed(questions: Path, change: dict[str, Any], said: str) -> None:
    content = json.loads(questions.read_text())
    if "answer" in change:
        content[0]["conversations"][1]["value"] = change["answer"]
    elif "question" in change:
        content[0]["conversations"][0]["value"] = change["question"]
    else:
        content[0].update(change)
    questions.write_text(json.dumps([*content, "no entry"]))
    with pytest.raises(DataError, match=rf"REFLECT_test\.json: entry 0: .*{said}"):
        list(AhaReader(questions))
    reader = AhaReader(questions, keep_going=True)
    assert [r.success for r in reader] == [False]
    assert [p.where for p in reader.problems] == [f"{questions}: entry {i}" for i in (0, 2)]
    assert all("\n" not in p.what for p in reader.problems)


def test_a_strip_of_another_width(questions: Path) -> None:
    path = next((questions.parent / "pictures").glob("*_1.png"))
    cv2.imwrite(str(path), np.zeros((48, 100, 3), np.uint8))
    *_, record = AhaReader(questions)
    with pytest.raises(DataError, match="100 pixels wide, which is not 3 keyframes"):
        record.read([0])


def test_a_strip_with_more_cells_than_questions(tmp_path: Path) -> None:
    """Eight cells of 1280 pixels can also be cut into five of 2054: the gaps tell."""
    name = "boil_pot_slip_wp5_episode2_combined_view_3"
    for width, total in ((1280, 8), (64, 5)):
        write_strip(tmp_path / name, [np.full((4, width, 3), 90, np.uint8)] * 5, total)
        (tmp_path / "a.json").write_text(json.dumps([entry(0, f"{name}.png", "go", "Yes.")]))
        (record,) = AhaReader(tmp_path / "a.json")
        if total == 8:
            with pytest.raises(DataError, match="10310 pixels wide, which is not 5 keyframes"):
                record.read([0])
    assert record.read([4])[0].views[0].shape == (4, 64, 3)


def test_pictures_that_are_there_twice(questions: Path) -> None:
    shutil.copytree(questions.parent / "pictures", questions.parent / "old")
    with pytest.raises(DataError, match=r"_view_0\.png is in .* more than once; name one"):
        list(AhaReader(questions))
    assert len(list(AhaReader(questions, pictures=questions.parent / "old"))) == 2


def test_not_aha(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name at least one viewpoint"):
        AhaReader(tmp_path, views=" ,")
    with pytest.raises(DataError, match="as FailGen does"):
        list(AhaReader(tmp_path))
    path = tmp_path / "a.json"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"a\.json: is no list of questions"):
        list(AhaReader(path))
    with pytest.raises(DataError, match="give the one with the pictures"):
        AhaReader(path, pictures=tmp_path / "none")
