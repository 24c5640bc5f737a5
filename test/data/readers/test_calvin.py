"""CALVIN's layout, written with NumPy as its own recorder does, and files made to do harm."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.readers import open_reader
from ifailsense_ros.data.readers.calvin import CalvinReader
from ifailsense_ros.data.readers.safe_npy import load_pickled_npy
from ifailsense_ros.data.records import EXPERT

Annotation = tuple[int, int, str, str]  # start, end, task, sentence


def write_calvin(
    folder: Path,
    frames: dict[int, tuple[np.ndarray, np.ndarray]],
    annotations: Sequence[Annotation],
    recordings: Sequence[tuple[int, int]],
) -> Path:
    """A split of CALVIN, with the fields, dtypes and names of mees/calvin's dataset/README."""
    (folder / "lang_annotations").mkdir(parents=True)
    for number, (static, gripper) in frames.items():
        np.savez_compressed(
            folder / f"episode_{number:07d}.npz",
            actions=np.zeros(7),
            rel_actions=np.zeros(7),
            robot_obs=np.zeros(15),
            scene_obs=np.zeros(24),
            rgb_static=static,
            rgb_gripper=gripper,
            rgb_tactile=np.zeros((16, 12, 6), np.uint8),
            depth_static=np.zeros((4, 4), np.float32),
        )
    np.save(folder / "ep_start_end_ids.npy", np.array(recordings))
    content = {
        "language": {
            "ann": [sentence for *_, sentence in annotations],
            "task": [task for _, _, task, _ in annotations],
            "emb": np.zeros((len(annotations), 1, 384), np.float32),
        },
        "info": {"episodes": [], "indx": [(start, end) for start, end, *_ in annotations]},
    }
    np.save(folder / "lang_annotations" / "auto_lang_ann.npy", content, allow_pickle=True)
    return folder


def frame(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of CALVIN's sizes that tell their frame number."""
    return (
        np.full((200, 200, 3), number % 251, np.uint8),
        np.full((84, 84, 3), 250 - number % 251, np.uint8),
    )


@pytest.fixture
def calvin(tmp_path: Path) -> Path:
    """Two recordings with a gap between them, three windows, two of which overlap."""
    numbers = [*range(40, 60), *range(100, 112)]
    write_calvin(
        tmp_path / "task_D_D" / "training",
        {n: frame(n) for n in numbers},
        [
            (40, 56, "lift_red_block_table", "lift the red block"),
            (44, 60, "push_blue_block_left", "slide the blue block to the left"),
            (100, 112, "turn_on_led", "push the button to turn on the led light"),
        ],
        [(40, 59), (100, 111)],
    )
    return tmp_path / "task_D_D"


def test_windows(calvin: Path) -> None:
    reader = open_reader(f"calvin:{calvin}")
    first, second, third = list(reader)
    assert first.key == "training/000000/40-56"
    assert (first.task, first.category) == ("lift_red_block_table", "lifting")
    assert first.instruction == "lift the red block"
    assert (first.success, first.kind, first.num_pov) == (True, EXPERT, 2)
    assert third.category == "lighting"
    # The annotated end is not part of the window: 16 frames at 30 Hz.
    assert len(first.stamps_ns) == 16
    assert first.stamps_ns[0] == 40 * 10**9 // 30
    assert first.stamps_ns[-1] == 55 * 10**9 // 30
    # Windows of one recording share frames, so no split may separate them.
    assert first.group == second.group == "training/40-59"
    assert third.group == "training/100-111"
    assert reader.problems == []


def test_keyframes_are_first_last_and_evenly_spaced(calvin: Path) -> None:
    record = next(iter(CalvinReader(calvin)))
    episode = record.episode(4, 2)
    assert [k.views[0][0, 0, 0] for k in episode.keyframes] == [40, 45, 50, 55]
    assert [k.views[1].shape for k in episode.keyframes] == [(84, 84, 3)] * 4
    assert record.episode(2, 1).num_pov == 1


def test_only_needed_frames_are_read(calvin: Path) -> None:
    for n in (41, 42, 43):  # between the keyframes of the first window
        (calvin / "training" / f"episode_{n:07d}.npz").write_bytes(b"damaged")
    record = next(iter(CalvinReader(calvin)))
    assert record.episode(4, 2).keyframe_stamps_ns[0] == record.stamps_ns[0]


def test_splits(calvin: Path) -> None:
    write_calvin(
        calvin / "validation",
        {n: frame(n) for n in range(4)},
        [(0, 4, "open_drawer", "pull the drawer")],
        [(0, 3)],
    )
    assert [r.key.split("/")[0] for r in CalvinReader(calvin)] == ["training"] * 3 + ["validation"]
    assert [r.task for r in CalvinReader(calvin, split="validation")] == ["open_drawer"]
    assert [r.task for r in CalvinReader(calvin / "validation")] == ["open_drawer"]
    assert [r.task for r in open_reader(f"calvin:{calvin}?split=validation")] == ["open_drawer"]
    with pytest.raises(DataError, match=r"has no test/"):
        CalvinReader(calvin, split="test")


def test_round_trip(tmp_path: Path, simulated: Any) -> None:
    steps = len(simulated.stamps_ns)
    write_calvin(
        tmp_path / "validation",
        {500 + i: tuple(simulated.views[i]) for i in range(steps)},
        [(500, 500 + steps, "lift_red_block_table", simulated.instruction)],
        [(500, 500 + steps - 1)],
    )
    (record,) = CalvinReader(tmp_path)
    keyframes = record.read(range(steps))
    assert record.instruction == simulated.instruction
    assert record.category == simulated.category
    assert record.success is simulated.success
    # CALVIN stores frame numbers: stamps are those of 30 Hz.
    assert record.stamps_ns == tuple((500 + i) * 10**9 // 30 for i in range(steps))
    for i, keyframe in enumerate(keyframes):
        assert keyframe.stamp_ns == record.stamps_ns[i]
        for pov in (0, 1):
            np.testing.assert_array_equal(keyframe.views[pov], simulated.views[i, pov])


def _np1(content: object) -> bytes:
    """The bytes NumPy 1 wrote when CALVIN was released: protocol 3, names under numpy.core."""
    array = np.empty((), object)
    array[()] = content
    header = b"\x93NUMPY\x01\x00\x76\x00" + (
        b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"
    )
    return header + pickle.dumps(array, protocol=3).replace(b"numpy._core", b"numpy.core")


def test_annotations_written_by_old_numpy(calvin: Path) -> None:
    path = calvin / "training" / "lang_annotations" / "auto_lang_ann.npy"
    content = load_pickled_npy(path)
    # Frame numbers as NumPy scalars, sentences as an array: variants seen in derived data sets.
    content["info"]["indx"] = [tuple(np.int64(n) for n in pair) for pair in content["info"]["indx"]]
    content["language"]["ann"] = np.array(content["language"]["ann"])
    path.write_bytes(_np1(content))
    assert b"numpy.core" in path.read_bytes()
    records = list(CalvinReader(calvin))
    assert [r.stamps_ns[0] for r in records] == [n * 10**9 // 30 for n in (40, 44, 100)]
    assert records[0].instruction == "lift the red block"


plain = st.recursive(
    st.integers(-(2**40), 2**40) | st.text(max_size=5) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=30)
@given(plain)
def test_safe_npy_reads_what_numpy_wrote(tmp_path_factory: Any, content: object) -> None:
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    np.save(path, {"content": content, "number": np.arange(6.0).reshape(2, 3)}, allow_pickle=True)
    got = load_pickled_npy(path)
    assert got["content"] == content
    np.testing.assert_array_equal(got["number"], np.arange(6.0).reshape(2, 3))


class _Call:
    """Pickles as a call of any function: what an attacker would put into the file."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize("name", ["os.mkdir", "eval", "numpy.load", "getattr"])
def test_malicious_annotations_are_refused(calvin: Path, name: str) -> None:
    target = calvin / "was_run"
    call = {
        "os.mkdir": _Call(os.mkdir, str(target)),
        "eval": _Call(eval, f"__import__('os').mkdir({str(target)!r})"),
        "numpy.load": _Call(np.load, str(target)),
        "getattr": _Call(getattr, "", "join"),
    }[name]
    path = calvin / "training" / "lang_annotations" / "auto_lang_ann.npy"
    np.save(path, {"language": call}, allow_pickle=True)
    with pytest.raises(DataError, match=r"auto_lang_ann\.npy: asks to load .*: refused") as caught:
        list(CalvinReader(calvin))
    assert name.split(".")[-1] in str(caught.value)
    assert not target.exists()
    # The attack is real: pickle itself would have run it.
    if name in ("os.mkdir", "eval"):
        np.load(path, allow_pickle=True)
        assert target.is_dir()


def test_forged_numpy_objects_are_refused(tmp_path: Path) -> None:
    """A dtype that calls bytes objects would let NumPy follow pointers made up by the file."""
    path = tmp_path / "a.npy"
    array = np.zeros(1, np.dtype([("a", np.int64)]))
    np.save(path, {"a": array}, allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy: cannot be read"):
        load_pickled_npy(path)
    # An instruction that sets attributes of a class instead of an instance's.
    header = _np1({})[:128]
    forged = b"\x80\x03cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb."
    path.write_bytes(header + forged)
    with pytest.raises(DataError, match=r"a\.npy: cannot be read"):
        load_pickled_npy(path)


def test_plain_arrays_and_cut_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(3))
    with pytest.raises(DataError, match="not one object"):
        load_pickled_npy(path)
    np.save(path, {"a": list(range(1000))}, allow_pickle=True)
    whole = path.read_bytes()
    for cut in (0, 5, 100, 130, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"a\.npy: cannot be read"):
            load_pickled_npy(path)
    with pytest.raises(DataError, match="is missing"):
        load_pickled_npy(tmp_path / "b.npy")


def _resave(path: Path, **arrays: np.ndarray) -> None:
    np.savez(path, **arrays)


def test_corrupt_frames_name_file_and_field(calvin: Path) -> None:
    path = calvin / "training" / "episode_0000040.npz"
    whole = path.read_bytes()
    static, gripper = frame(40)

    def why() -> str:
        with pytest.raises(DataError) as caught:
            next(iter(CalvinReader(calvin))).episode(4, 2)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"{path}: ")
        return str(caught.value)

    path.write_bytes(whole[: len(whole) // 2])
    assert "no .npz file, or a truncated one" in why()
    at = whole.index(b"rgb_static.npy") + 80
    path.write_bytes(whole[:at] + bytes(60) + whole[at + 60 :])
    assert "rgb_static cannot be read" in why()
    _resave(path, rgb_static=static)
    assert "rgb_gripper is missing" in why()
    _resave(path, rgb_static=static, rgb_gripper=gripper.astype(np.float32))
    assert "rgb_gripper is float32" in why()
    _resave(path, rgb_static=static[..., 0], rgb_gripper=gripper)
    assert "rgb_static is uint8 of shape (200, 200)" in why()


def test_keep_going_lists_and_reads_the_rest(calvin: Path) -> None:
    folder = calvin / "training"
    path = folder / "lang_annotations" / "auto_lang_ann.npy"
    content = load_pickled_npy(path)
    good = {field: content["language"][field][0] for field in ("ann", "task")}
    bad: list[tuple[Any, Any, Any]] = [
        ((50, 50), "open_drawer", "open it"),  # empty
        ((50, 105), "open_drawer", "open it"),  # across two recordings
        ((44, 60), "open_window", "open it"),  # no task of CALVIN's
        ((44, 60), "open_drawer", ""),  # no sentence
        (44, "open_drawer", "open it"),  # no pair
    ]
    for bounds, task, sentence in bad:
        content["info"]["indx"].append(bounds)
        content["language"]["task"].append(task)
        content["language"]["ann"].append(sentence)
    np.save(path, content, allow_pickle=True)
    (folder / "episode_0000100.npz").unlink()  # the first frame of the third window

    with pytest.raises(DataError, match=r"ann\.npy: annotation 2: .*_0000100\.npz: is missing"):
        list(CalvinReader(calvin))
    reader = CalvinReader(calvin, keep_going=True)
    records = list(reader)
    assert [r.key for r in records] == ["training/000000/40-56", "training/000001/44-60"]
    assert records[0].instruction == good["ann"]
    wheres, whats = zip(*((p.where, p.what) for p in reader.problems), strict=True)
    assert [w.rsplit(" ", 1)[1] for w in wheres] == ["2", "3", "4", "5", "6", "7"]
    assert all(w.startswith(f"{path}: annotation ") for w in wheres)
    for what, word in zip(
        whats,
        ["is missing", "not start before end", "not in one recording", "open_window", "''", "pair"],
        strict=True,
    ):
        assert word in what
        assert "\n" not in what
    # A second pass starts anew.
    assert len(list(reader)) == 2
    assert len(reader.problems) == 6


def test_corrupt_split_does_not_hide_the_other(calvin: Path) -> None:
    write_calvin(
        calvin / "validation",
        {n: frame(n) for n in range(4)},
        [(0, 4, "open_drawer", "pull the drawer")],
        [(0, 3)],
    )
    np.save(calvin / "training" / "ep_start_end_ids.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"ep_start_end_ids\.npy: is float64 of shape \(3,\)"):
        list(CalvinReader(calvin))
    reader = CalvinReader(calvin, keep_going=True)
    assert [r.task for r in reader] == ["open_drawer"]
    assert len(reader.problems) == 1
    # A header cut inside a bracket: NumPy lets the tokenizer's error through.
    path = calvin / "training" / "ep_start_end_ids.npy"
    path.write_bytes(path.read_bytes().replace(b"), }", b"    "))
    with pytest.raises(DataError, match=r"ep_start_end_ids\.npy: cannot be read"):
        list(CalvinReader(calvin))


@pytest.mark.parametrize("field", ["ann", "task"])
def test_annotations_without_a_field(calvin: Path, field: str) -> None:
    path = calvin / "training" / "lang_annotations" / "auto_lang_ann.npy"
    content = load_pickled_npy(path)
    shorter = {**content, "language": {**content["language"], field: ["only one"]}}
    np.save(path, shorter, allow_pickle=True)
    with pytest.raises(DataError, match="lists of different length"):
        list(CalvinReader(calvin))
    del content["language"][field]
    np.save(path, content, allow_pickle=True)
    with pytest.raises(DataError, match=rf"auto_lang_ann\.npy: language\.{field} is missing"):
        list(CalvinReader(calvin))


def test_not_calvin(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        CalvinReader(tmp_path / "nowhere")
    with pytest.raises(DataError, match="give the folder of a CALVIN data set"):
        CalvinReader(tmp_path)
