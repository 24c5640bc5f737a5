"""Building data sets: both labels, the oracle's word, splits, resuming, and flat memory."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: the `train` extra")

import pyarrow.parquet as pq
from fake_episodes import (
    CATEGORIES,
    FakeReader,
    record,
    sentence,
    store_row,
    unreadable,
    write_store,
)

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.build import WORKING, BuildSettings, build
from ifailsense_ros.data.catalog import Catalog
from ifailsense_ros.data.manifest import MANIFEST, PROBLEMS, DataSet, ManifestRow
from ifailsense_ros.data.pairs import PairSettings
from ifailsense_ros.data.records import Negative
from ifailsense_ros.data.sinks import Shape
from ifailsense_ros.data.splits import Shares

SMALL = Shape(keyframes=4, pov=2, size=8)
Make = Callable[..., DataSet]


def settings(**changes: object) -> BuildSettings:
    made = BuildSettings(("fake:here",), Shares.whole("train"), SMALL)
    return replace(made, **changes)


def built(folder: Path, reader: FakeReader, **changes: object) -> DataSet:
    return build(settings(**changes), folder, ["made"], lambda spec, keep_going: reader)


def by_episode(rows: list[ManifestRow]) -> dict[str, list[ManifestRow]]:
    found: dict[str, list[ManifestRow]] = {}
    for row in rows:
        found.setdefault(row.key, []).append(row)
    return found


# --- pairs


def test_each_episode_once_with_either_label(tmp_path: Path) -> None:
    rows = list(built(tmp_path, FakeReader(70)).rows())
    assert len(rows) == 140
    assert len({row.pair_id for row in rows}) == 140
    for key, pair in by_episode(rows).items():
        good, bad = sorted(pair, key=lambda row: not row.label)
        made = record(int(key.split()[1]))
        assert (good.label, bad.label) == (True, False)
        assert (good.kind, bad.kind) == ("positive", "semantic")
        assert good.instruction == made.instruction
        assert good.asked_task == good.performed_task == bad.performed_task == made.task
        assert bad.asked_task in set(CATEGORIES[made.category]) - {made.task}
        # The wrong sentence has the same number, so that style says nothing.
        assert bad.instruction == sentence(bad.asked_task, good.phrasing)
        assert bad.phrasing == good.phrasing == made.phrasing
        assert good.contrast == bad.contrast != ()
        assert (good.oracle, bad.oracle, bad.feasible) == (1, -1, True)
        assert good.counted and bad.counted


def test_labels_balance_per_task_and_half_are_hard(tmp_path: Path) -> None:
    rows = [r for r in built(tmp_path, FakeReader(210)).rows()]
    for task in {row.asked_task for row in rows}:
        labels = Counter(row.label for row in rows if row.asked_task == task)
        assert abs(labels[True] - labels[False]) <= 6, task
    wrong = [row for row in rows if not row.label]
    assert sum(len(row.contrast) == 1 for row in wrong) >= len(wrong) / 2


def test_balance_makes_it_exact_and_says_what_was_left_out(tmp_path: Path) -> None:
    def lopsided(index: int):
        return record(0 if index % 3 else 1, key=f"{index}", group=f"{index}")

    rows = list(built(tmp_path, FakeReader(60, lopsided), pairs=PairSettings(0, True)).rows())
    counted = Counter((row.asked_task, row.label) for row in rows if row.counted)
    for task in {row.asked_task for row in rows}:
        assert counted[task, True] == counted[task, False]
    left_out = [row for row in rows if not row.counted]
    assert {row.why_not_counted for row in left_out} == {"surplus"}
    assert len(left_out) == 40


def test_a_negative_that_came_true_or_was_infeasible_or_disputed_is_never_drawn(
    tmp_path: Path,
) -> None:
    outcomes = {"open_drawer": 1, "close_drawer": 1, "move_slider_left": 0, "move_slider_right": -1}

    def make(index: int):
        made = record(index)
        return replace(made, outcomes=outcomes) if made.task == "open_drawer" else made

    rows = list(built(tmp_path, FakeReader(70, make)).rows())
    wrong = [r for r in rows if r.performed_task == "open_drawer" and not r.label]
    assert {row.asked_task for row in wrong} == {"move_slider_right"}


def test_the_designated_negative_is_used_with_its_phrasing(tmp_path: Path) -> None:
    def make(index: int):
        return record(index * 7, negative=Negative("lift_pink_block_table", "fetch the pink one"))

    rows = list(built(tmp_path, FakeReader(4, make)).rows())
    assert {row.instruction for row in rows if not row.label} == {"fetch the pink one"}
    assert all(row.contrast == ("colour",) for row in rows)


@pytest.mark.parametrize(
    ("outcomes", "feasible", "why"),
    [
        ({"lift_pink_block_table": 1}, None, "came_true"),
        ({"lift_pink_block_table": 0}, None, "disputed"),
        ({"lift_red_block_table": 0}, None, "disputed"),
        ({"lift_red_block_table": -1}, None, "not_carried_out"),
        ({}, ("lift_red_block_table",), "infeasible"),
    ],
)
def test_a_designated_pair_that_breaks_a_rule_counts_on_neither_side(
    tmp_path: Path, outcomes: dict, feasible: tuple | None, why: str
) -> None:
    negative = Negative("lift_pink_block_table", "fetch the pink one")

    def make(index: int):
        made = record(index * 7, negative=negative)
        return made if index else replace(made, outcomes=outcomes, feasible=feasible)

    pairs = by_episode(list(built(tmp_path, FakeReader(2, make)).rows()))
    assert [(r.counted, r.why_not_counted) for r in pairs["episode 0"]] == [(False, why)] * 2
    assert all(r.counted for r in pairs["episode 7"])


def test_extra_negatives_are_marked_and_do_not_count(tmp_path: Path) -> None:
    def make(index: int):
        made = record(index)
        return replace(made, feasible=(made.task, "open_drawer", "lift_red_block_table"))

    asked = PairSettings(infeasible=True, unfiltered=True)
    rows = list(built(tmp_path, FakeReader(70, make), pairs=asked).rows())
    reasons = Counter(r.why_not_counted for r in rows if not r.label)
    assert reasons["infeasible"] >= 50
    assert {r.feasible for r in rows if r.why_not_counted == "infeasible"} == {False}
    for pairs in by_episode(rows).values():
        assert sum(r.unfiltered and r.label for r in pairs) == 1
        assert sum(r.unfiltered and not r.label for r in pairs) == 1
        assert sum(r.counted and r.label for r in pairs) <= 1
    assert any(r.unfiltered and r.why_not_counted == "infeasible" for r in rows)


def test_without_an_oracle_the_unfiltered_set_is_the_set(tmp_path: Path) -> None:
    def make(index: int):
        return record(index, outcomes={}, feasible=None)

    rows = list(built(tmp_path, FakeReader(14, make), pairs=PairSettings(unfiltered=True)).rows())
    assert len(rows) == 28
    assert all(r.unfiltered and r.counted and r.oracle is None and r.feasible is None for r in rows)


def test_a_category_of_one_task_has_no_negatives(tmp_path: Path) -> None:
    def make(index: int):
        return record(0, key=f"{index}")

    rows = list(built(tmp_path, FakeReader(3, make)).rows())
    assert [(r.label, r.counted, r.why_not_counted) for r in rows] == [
        (True, False, "no_wrong_task")
    ] * 3


def test_where_every_instruction_is_a_task_of_its_own_negatives_are_a_permutation(
    tmp_path: Path,
) -> None:
    def make(index: int):
        text = f"put thing {index} away"
        return record(
            0,
            key=f"{index}",
            instruction=text,
            task=text,
            outcomes={},
            feasible=None,
            phrasing=None,
        )

    rows = list(built(tmp_path, FakeReader(300, make)).rows(counted=True))
    asked = Counter((r.instruction, r.label) for r in rows)
    assert len(rows) == 600
    assert sum(asked[f"put thing {i} away", False] == 1 for i in range(300)) >= 299
    assert all(r.contrast == () and r.asked_task != r.performed_task for r in rows if not r.label)


def test_sentences_kept_for_the_test_are_said_nowhere_else(tmp_path: Path) -> None:
    shares = Shares.parse("train=0.5,validation=0.2,test=0.3")
    asked = PairSettings(test_phrasings=1)
    rows = list(built(tmp_path / "a", FakeReader(210), shares=shares, pairs=asked).rows())
    said = {
        test: {(r.asked_task, r.instruction) for r in rows if (r.split == "test") == test}
        for test in (True, False)
    }
    assert not said[True] & said[False]
    for task in {row.asked_task for row in rows}:
        assert [sum(t == task for t, _ in said[test]) for test in (True, False)] == [1, 2]
    recorded = {f"episode {n}": record(n) for n in range(210)}
    for row in (row for row in rows if row.label):
        made = recorded[row.key]
        assert row.asked_task == made.task
        assert row.reworded == (row.instruction != made.instruction)
        assert row.instruction == sentence(made.task, row.phrasing)
    assert 0.2 < sum(row.reworded for row in rows) / len(rows) < 0.7
    # Of three sentences a task none can be kept when three are asked for.
    asked = PairSettings(test_phrasings=3)
    rows = list(built(tmp_path / "b", FakeReader(210), shares=shares, pairs=asked).rows())
    assert not any(row.reworded for row in rows)


# --- failures and given labels


def test_failures_stand_beside_their_twins(tmp_path: Path) -> None:
    def make(index: int):
        twin = record(index // 2, key=f"{index // 2}", group=f"scene {index // 2}")
        if index % 2 == 0:
            return twin
        outcomes = dict.fromkeys(twin.outcomes, -1)
        return replace(
            twin,
            key=f"{twin.key}/drop",
            kind="drop",
            success=False,
            twin=twin.key,
            outcomes=outcomes,
        )

    rows = list(built(tmp_path, FakeReader(20, make)).rows())
    assert Counter((r.kind, r.label, r.pairing, r.counted) for r in rows) == {
        ("positive", True, "twins", True): 10,
        ("drop", False, "twins", True): 10,
    }
    found = {row.key: row for row in rows}
    for n in range(10):
        good, bad = found[f"{n}"], found[f"{n}/drop"]
        assert (good.twin, bad.twin) == (bad.key, good.key)
        assert good.instruction == bad.instruction
        assert bad.asked_task == good.asked_task
        assert bad.performed_task == ""


def test_a_wrong_target_says_what_was_asked_and_what_was_done(tmp_path: Path) -> None:
    def make(index: int):
        twin = record(0)
        other = "lift_blue_block_table"
        outcomes = {twin.task: -1, other: 1}
        return (
            twin,
            replace(twin, key="f", kind="wrong_target_object", success=False, twin=twin.key,
                    task=other, outcomes=outcomes),
        )[index]  # fmt: skip

    (bad,) = [r for r in built(tmp_path, FakeReader(2, make)).rows() if not r.label]
    assert (bad.asked_task, bad.performed_task) == (
        "lift_red_block_table",
        "lift_blue_block_table",
    )
    assert bad.counted and bad.oracle == -1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"twin": "nobody"}, "no_twin"),
        ({"outcomes": {"lift_red_block_table": 1}}, "came_true"),
        ({"outcomes": {"lift_red_block_table": 0}}, "disputed"),
        ({"feasible": ()}, ""),
    ],
)
def test_a_failure_without_a_twin_or_without_the_oracles_word_does_not_count(
    tmp_path: Path, changes: dict, why: str
) -> None:
    failed = {"key": "f", "kind": "drop", "success": False, "twin": "episode 0", **changes}
    if "outcomes" not in changes:
        failed["outcomes"] = {"lift_red_block_table": -1}

    def make(index: int):
        return record(0) if index == 0 else record(0, **failed)

    rows = {r.kind: r for r in built(tmp_path, FakeReader(2, make)).rows()}
    assert (rows["drop"].counted, rows["drop"].why_not_counted) == (not why, why)
    # Else it is no twin of a countable failure, and there is nothing to pair it with.
    assert rows["positive"].counted == (not why)


def test_what_is_known_of_a_twins_wrong_instruction_does_not_matter(tmp_path: Path) -> None:
    negative = Negative("lift_pink_block_table", "fetch the pink one")
    known = {"lift_red_block_table": 1, "lift_pink_block_table": 1}

    def make(index: int):
        twin = record(0, negative=negative, outcomes=known)
        missed = {"kind": "drop", "success": False, "twin": twin.key, "negative": None}
        return replace(twin, key="f", outcomes={}, **missed) if index else twin

    assert all(row.counted for row in built(tmp_path, FakeReader(2, make)).rows())


def test_a_build_goes_on_with_keep_going(tmp_path: Path) -> None:
    def broken_at_the_end(index: int):
        return unreadable(63) if index == 60 else record(index)

    def fragile(index: int):
        made = broken_at_the_end(index)
        return replace(made, read=lambda steps: pytest.fail("read again")) if index < 50 else made

    with pytest.raises(DataError, match="rgb_static"):
        built(tmp_path, FakeReader(61, broken_at_the_end))
    data = built(tmp_path, FakeReader(61, fragile), keep_going=True)
    assert len(by_episode(list(data.rows()))) == 60
    assert data.summary["problems"] == 1


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        built(tmp_path / "file", FakeReader(3))


def test_labels_that_are_given_are_kept(tmp_path: Path) -> None:
    def make(index: int):
        return record(index, kind="", success=index % 2 == 0, twin=None)

    rows = list(built(tmp_path, FakeReader(6, make)).rows())
    assert [(r.kind, r.label, r.pairing) for r in sorted(rows, key=lambda r: r.key)] == [
        ("positive", True, "given"),
        ("failure", False, "given"),
    ] * 3


# --- reproducible, resumable, bounded


def test_the_same_settings_make_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    def hashes(name: str, seed: int = 0) -> dict:
        shares = Shares.parse("train=0.6,test=0.4")
        made = built(tmp_path / name, FakeReader(80), shares=shares, pairs=PairSettings(seed))
        return {**made.summary["sha256"], **made.summary["shards"]}

    assert hashes("a") == hashes("b")
    assert hashes("a")[MANIFEST] != hashes("c", seed=1)[MANIFEST]


@pytest.mark.parametrize("stop_at", [0, 7, 60, 119])
def test_a_build_that_was_stopped_goes_on(tmp_path: Path, stop_at: int) -> None:
    shares = Shares.parse("train=0.5,test=0.5")
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "a", FakeReader(120, stop_at=stop_at), shares=shares)
    with pytest.raises(DataError, match=r"no manifest\.json"):
        DataSet(tmp_path / "a")
    resumed = built(tmp_path / "a", FakeReader(120), shares=shares).summary
    at_once = built(tmp_path / "b", FakeReader(120), shares=shares).summary
    assert resumed["sha256"] == at_once["sha256"]
    assert resumed["shards"] == at_once["shards"]
    assert not (tmp_path / "a" / WORKING).exists()
    assert sorted(p.name for p in (tmp_path / "a" / "shards").iterdir()) == sorted(
        name.split("/")[1] for name in resumed["shards"]
    )


def test_what_is_done_is_not_read_again(tmp_path: Path) -> None:
    def fragile(index: int):
        made = record(index)
        return replace(made, read=lambda steps: pytest.fail("read again")) if index < 100 else made

    with pytest.raises(KeyboardInterrupt):
        built(tmp_path, FakeReader(120, stop_at=110))
    assert len(list(built(tmp_path, FakeReader(120, fragile)).rows())) == 240


def test_a_finished_set_is_left_alone_and_other_settings_are_refused(tmp_path: Path) -> None:
    first = built(tmp_path, FakeReader(14))
    before = (tmp_path / MANIFEST).stat().st_mtime_ns
    assert built(tmp_path, FakeReader(0)).summary == first.summary
    assert (tmp_path / MANIFEST).stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="other settings"):
        built(tmp_path, FakeReader(14), pairs=PairSettings(seed=1))


def test_memory_does_not_grow_with_the_episodes(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        data = built(tmp_path / f"{count}", FakeReader(count), shape=Shape(2, 1, 8))
        assert sum(1 for _ in data.rows()) == 2 * count
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    peak(60)  # imports and caches
    few, many = peak(600), peak(2600)
    # Batches are full in both; one more is a megabyte. Episodes that are held would be six.
    assert many < few + 2_000_000


# --- what cannot be used


def test_problems_stop_the_build_or_are_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rgb_static is missing"):
        built(tmp_path / "a", FakeReader(20, unreadable))
    made = built(tmp_path / "b", FakeReader(20, unreadable), keep_going=True)
    problems = pq.read_table(made.folder / PROBLEMS).to_pylist()
    assert [p["where"] for p in problems] == ["fake episode 3", "fake episode 5", "fake episode 13"]
    assert "rgb_static is missing" in problems[0]["what"]
    assert "task is not known" in problems[1]["what"]
    assert {p["spec"] for p in problems} == {"fake:here"}
    assert made.summary["problems"] == 3
    assert len(by_episode(list(made.rows()))) == 17


def test_a_split_of_which_nothing_can_be_used(tmp_path: Path) -> None:
    def make(index: int):
        return record(index, success=None, kind="")

    with pytest.raises(DataError, match="3 problems, the first: fake episode 0: whether"):
        built(tmp_path, FakeReader(3, make), keep_going=True)


def test_unlabelled_episodes_are_experts_if_the_user_says_so(tmp_path: Path) -> None:
    def make(index: int):
        text = f"Put  thing {index % 5} away."
        known = {"success": None, "kind": "", "outcomes": {}, "feasible": None, "phrasing": None}
        return record(index * 7, task="", instruction=text, **known)

    rows = list(built(tmp_path, FakeReader(20, make), experts=True).rows())
    assert Counter((r.kind, r.label, r.counted) for r in rows) == {
        ("positive", True, True): 20,
        ("semantic", False, True): 20,
    }
    assert {r.performed_task for r in rows} == {f"put thing {n} away" for n in range(5)}
    assert all(r.asked_task != r.performed_task for r in rows if not r.label)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"instruction": "  "}, "instruction is empty"),
        ({"category": ""}, "category is not known"),
        ({"kind": "", "success": None}, "whether it succeeded is not said"),
        ({"key": "episode 0"}, "the key occurs twice"),
        ({"stamps_ns": (1, 2)}, "4 keyframes cannot be picked from 2"),
        ({"num_pov": 1}, "1 PoV, 2 asked for"),
    ],
)
def test_a_record_that_lacks_something_is_one_clear_error(
    tmp_path: Path, changes: dict, complaint: str
) -> None:
    def make(index: int):
        return record(index, **(changes if index == 1 else {}))

    with pytest.raises(DataError, match=complaint) as caught:
        built(tmp_path, FakeReader(3, make))
    assert "\n" not in str(caught.value)
    assert "fake episode" in str(caught.value)


def test_a_key_that_occurs_twice_is_noticed_far_apart_as_well(tmp_path: Path) -> None:
    def make(index: int):
        return record(index, key=f"{index % 70}")

    with pytest.raises(DataError, match="fake 0: the key occurs twice"):
        built(tmp_path, FakeReader(71, make))


def test_splits_must_be_named_and_must_not_come_out_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no splits of its own; give --split"):
        built(tmp_path / "a", FakeReader(3), shares=None)
    shares = Shares.parse("train=0.999,test=0.001")
    with pytest.raises(ConfigError, match=r"nothing fell to test, there are 2 groups"):
        built(tmp_path / "b", FakeReader(8), shares=shares)
    with pytest.raises(DataError, match="no episode that can be used"):
        built(tmp_path / "c", FakeReader(0))


def test_a_damaged_working_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path, FakeReader(60, stop_at=55))
    (tmp_path / WORKING / "catalog.sqlite").write_bytes(b"nothing of the kind" * 1000)
    for side in (tmp_path / WORKING).glob("*-*"):
        side.unlink()
    with pytest.raises(DataError, match="delete it and build again"):
        built(tmp_path, FakeReader(60))


def test_two_builds_in_one_folder_do_not_meet(tmp_path: Path) -> None:
    def make(index: int):
        if index == 3:
            with pytest.raises(DataError, match="is another build at work there"):
                built(tmp_path, FakeReader(10))
        return record(index)

    assert len(list(built(tmp_path, FakeReader(10, make)).rows())) == 20


# --- splits, pictures, stores


def test_a_group_is_never_cut(tmp_path: Path) -> None:
    shares = Shares.parse("train=0.5,validation=0.25,test=0.25")
    rows = list(built(tmp_path, FakeReader(160), shares=shares).rows())
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row.group, set()).add(row.split)
    assert len(splits) == 40
    assert all(len(found) == 1 for found in splits.values())
    assert {row.split for row in rows} == {"train", "validation", "test"}
    # What is said as wrong in a split is also said as right there.
    for split in ("train", "validation", "test"):
        said = {
            label: {r.instruction for r in rows if r.split == split and r.label == label}
            for label in (True, False)
        }
        assert said[False] <= said[True]


def test_pictures_come_back_with_stamps_and_labels(tmp_path: Path) -> None:
    data = built(tmp_path, FakeReader(3), shape=Shape(4, 2, 16))
    for row, pairs in data.episodes("train"):
        pictures = row.decode_images()
        index = int(pairs[0].key.split()[1])
        assert pictures.shape == (2, 4, 16, 16, 3)
        assert row.stamps_ns == (0, 2 * 10**9, 3 * 10**9, 5 * 10**9)
        assert row.duration_s == 5
        assert np.abs(pictures[0, 0, 0, 0].astype(int) - [index * 8, 0, 0]).max() <= 4
        assert [pair.label for pair in pairs] == [True, False]


def test_a_store_is_used_as_it_is(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [store_row(n) for n in range(25)])
    write_store(tmp_path / "store", [store_row(n, "test") for n in range(5)])
    spec = f"store:{tmp_path / 'store'}"
    data = build(BuildSettings((spec,)), tmp_path / "set")
    rows = list(data.rows())
    assert Counter((r.split, r.label) for r in rows) == {
        ("train", True): 25,
        ("train", False): 25,
        ("test", True): 5,
        ("test", False): 5,
    }
    assert not (tmp_path / "set" / "shards").exists()
    for row, pairs in data.episodes("test"):
        assert (row.split, row.index) == ("test", int(pairs[0].key.split("/")[1]))
        good, bad = pairs
        assert (bad.asked_task, bad.instruction) == (row.negative_task, row.negative_instruction)
        assert good.contrast == row.contrast
    assert data.summary["sources"][0]["generator"] == ["7"]
    # The folder can be moved together with the store.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").rename(tmp_path / "elsewhere" / "store")
    (tmp_path / "set").rename(tmp_path / "elsewhere" / "set")
    assert len(list(DataSet(tmp_path / "elsewhere" / "set").episodes())) == 30


def test_a_store_in_other_splits_and_one_that_changed(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [store_row(n) for n in range(25)])
    spec = f"store:{tmp_path / 'store'}"
    whole = BuildSettings((spec,), Shares.whole("test"))
    assert {r.split for r in build(whole, tmp_path / "set").rows()} == {"test"}
    write_store(tmp_path / "store", [store_row(n, "dev") for n in ()] or [store_row(90)])
    with pytest.raises(ConfigError, match="other source files"):
        build(whole, tmp_path / "set")


def test_a_store_with_a_broken_shard(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [store_row(n) for n in range(30)])
    broken = tmp_path / "store" / "train-000010-000020.parquet"
    broken.write_bytes(broken.read_bytes()[:-50])
    spec = f"store:{tmp_path / 'store'}"
    with pytest.raises(DataError, match="train-000010"):
        build(BuildSettings((spec,)), tmp_path / "set")
    data = build(BuildSettings((spec,), keep_going=True), tmp_path / "other")
    assert len(list(data.rows())) == 40
    assert data.summary["problems"] == 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"images": ()}, "stored without pictures; render them first"),
        ({"stamps_ns": (0, 1), "images": (b"x",) * 4}, "has 2 keyframes of 2 PoV"),
    ],
)
def test_a_store_of_another_shape(tmp_path: Path, changes: dict, complaint: str) -> None:
    write_store(tmp_path / "store", [store_row(0, **changes)])
    with pytest.raises(DataError, match=complaint):
        build(BuildSettings((f"store:{tmp_path / 'store'}",)), tmp_path / "set")


def test_two_sources_in_one_set(tmp_path: Path) -> None:
    readers = {
        "fake:a": FakeReader(60),
        "fake:b": FakeReader(60, lambda n: record(n, source="other")),
    }
    two = replace(settings(), sources=tuple(readers))
    data = build(two, tmp_path, [], lambda spec, keep_going: readers[spec])
    assert Counter(row.source for row in data.rows()) == {"fake": 120, "other": 120}
    assert [s["episodes"] for s in data.summary["sources"]] == [60, 60]
    assert sum(1 for _ in data.episodes()) == 120


def test_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    data = built(tmp_path, FakeReader(3))
    pq.write_table(
        pq.read_table(tmp_path / MANIFEST).drop_columns(["reworded"]), tmp_path / MANIFEST
    )
    with pytest.raises(DataError, match=r"manifest\.parquet: has other columns"):
        next(data.rows())
    (tmp_path / MANIFEST).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"manifest\.parquet: cannot be read"):
        next(data.rows())
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="format None, this program reads 1"):
        DataSet(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: cannot be read"):
        DataSet(tmp_path)


def test_catalog_lists_a_problem_once(tmp_path: Path) -> None:
    from ifailsense_ros.data.records import Problem

    catalog = Catalog(tmp_path / "c.sqlite")
    for _ in range(2):
        catalog.note(0, Problem("here", "broken"))
    assert catalog.count("problems") == 1
    catalog.close()


def test_a_picture_larger_than_asked_for_is_squashed_like_a_montage_cell(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :30] = 255

    def make(index: int):
        from ifailsense_ros.core.episode import Keyframe

        made = record(index)
        return replace(made, read=lambda steps: tuple(Keyframe(s, (wide, wide)) for s in steps))

    (row, _), *_ = built(tmp_path, FakeReader(2, make), shape=Shape(4, 2, 10)).episodes()
    pictures = row.decode_images()
    assert pictures.shape[2:] == (10, 10, 3)
    assert pictures[0, 0, :, :4].min() > 200
    assert pictures[0, 0, :, 6:].max() < 60
    assert cv2.imdecode(np.frombuffer(row.images[0], np.uint8), cv2.IMREAD_COLOR) is not None
