"""Rules of a data set, each broken once on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow", reason="needs pyarrow: the `train` extra")

from fake_episodes import (
    CATEGORIES,
    TASKS,
    FakeReader,
    failed,
    record,
    sentence,
    store_row,
    write_store,
)

from ifailsense_ros.core.checkpoint import sha256_of
from ifailsense_ros.data import checks
from ifailsense_ros.data.build import BuildSettings, build
from ifailsense_ros.data.checks import check
from ifailsense_ros.data.episode_store import read_shard, write_shard
from ifailsense_ros.data.manifest import MANIFEST, SUMMARY, DataSet, ManifestRow, write_manifest
from ifailsense_ros.data.pairs import PairSettings
from ifailsense_ros.data.records import EpisodeRecord, Negative
from ifailsense_ros.data.sinks import Shape, hash_pictures
from ifailsense_ros.data.splits import Shares

EVERY_RULE = [
    "manifest",
    "shards",
    "pictures",
    "groups",
    "episodes",
    "instructions",
    "both labels",
    "twins",
    "truth",
    "phrasings",
    "tasks",
    "hard negatives",
]


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """21 training and 14 test episodes of a store, and two failures beside their twins."""
    test = [store_row(n, "test") for n in range(14)]
    failures = []
    for n in (20, 21):
        twin = store_row(n, "test")
        failures += [twin, failed(twin)]
    write_store(tmp_path / "store", [store_row(n) for n in range(21)])
    write_store(tmp_path / "store", test + failures, shard_episodes=20)
    return build(BuildSettings((f"store:{tmp_path / 'store'}",)), tmp_path / "set")


def broken(*folders: Path, **options: bool) -> dict[str, str]:
    """Rule -> detail, of the rules that are not kept."""
    return {f.rule: f.detail for f in check(folders, **options) if not f.kept}


def rewrite(data: DataSet, change: Callable[[list[ManifestRow]], list[ManifestRow]]) -> None:
    """Another manifest, as if the builder had written it: its hash is right."""
    write_manifest(data.folder, change(list(data.rows())))
    summary = json.loads((data.folder / SUMMARY).read_text())
    summary["sha256"][MANIFEST] = sha256_of(data.folder / MANIFEST)
    (data.folder / SUMMARY).write_text(json.dumps(summary))


def changed(
    rows: list[ManifestRow], which: Callable[[ManifestRow], bool], **changes: object
) -> list[ManifestRow]:
    """The rows with the first that fits changed."""
    place = next(n for n, row in enumerate(rows) if which(row))
    return [*rows[:place], replace(rows[place], **changes), *rows[place + 1 :]]


def test_what_the_builder_makes_keeps_every_rule(data: DataSet) -> None:
    findings = list(check([data.folder]))
    assert [f.rule for f in findings] == EVERY_RULE
    assert [f for f in findings if not f.kept] == []
    details = {f.rule: f.detail for f in findings}
    assert details["pictures"] == f"{8 * 39} decode"
    assert details["both labels"].startswith("70 SMF pairs")
    assert details["twins"].startswith("2 failures")


def test_a_manifest_that_was_edited(data: DataSet) -> None:
    write_manifest(data.folder, list(data.rows())[1:])
    assert "is not the file that manifest.json describes" in broken(data.folder)["manifest"]


@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_a_shard_that_was_changed(data: DataSet, how: str) -> None:
    shard = data.shard(next(iter(data.summary["shards"])))
    if how == "deleted":
        shard.unlink()
    else:
        rows = read_shard(shard)
        write_shard(shard, [replace(rows[0], images=rows[1].images), *rows[1:]])
    found = broken(data.folder)
    assert f"{shard.name} is missing or was changed" in found["shards"]
    if how == "deleted":
        assert "no such shard" in found["pictures"]
    else:
        assert "row 0: other pictures than the manifest describes" in found["pictures"]
    assert "pictures" not in broken(data.folder, pictures=False)


def test_a_picture_that_does_not_decode(data: DataSet) -> None:
    shard = data.shard(next(iter(data.summary["shards"])))
    rows = read_shard(shard)
    write_shard(shard, [replace(rows[0], images=(b"no picture",) * 8), *rows[1:]])
    assert "a picture is not a JPEG" in broken(data.folder)["pictures"]


def planted(rows: list[ManifestRow], **changes: object) -> list[ManifestRow]:
    """The rows with both of a training episode's changed."""
    return [replace(row, **changes) if row.key == "train/3/0" else row for row in rows]


@pytest.mark.parametrize("what", ["group", "episode_sha256", "instruction"])
def test_anything_of_the_test_split_that_is_planted_in_training_is_found(
    data: DataSet, what: str
) -> None:
    stolen = next(getattr(row, what) for row in data.rows("test") if row.pairing == "smf")
    rule = {"group": "groups", "episode_sha256": "episodes", "instruction": "instructions"}[what]
    rewrite(data, lambda rows: planted(rows, **{what: stolen}))
    found = broken(data.folder, pictures=False)
    assert list(found) == [rule]
    assert (stolen if what != "episode_sha256" else "same pictures") in found[rule]


def test_a_leak_between_two_folders_is_found(tmp_path: Path, data: DataSet) -> None:
    write_store(tmp_path / "again", [store_row(n, "test") for n in range(7)])
    spec = f"store:{tmp_path / 'again'}?split=test"
    stolen = [store_row(n, "test") for n in range(7)]
    write_store(tmp_path / "again", [replace(r, split="train") for r in stolen])
    other = build(BuildSettings((spec.replace("?split=test", "?split=train"),)), tmp_path / "other")
    assert broken(other.folder) == {}
    assert set(broken(data.folder, other.folder)) == {"groups", "episodes", "instructions"}
    allowed = broken(data.folder, other.folder, shared_phrasings=True)
    assert set(allowed) == {"groups", "episodes"}


def test_the_words_are_compared_and_not_the_typing(data: DataSet) -> None:
    stolen = next(row.instruction for row in data.rows("test"))
    shouted = f"  {stolen.upper()}! ".replace(" ", "  ")
    rewrite(data, lambda rows: planted(rows, instruction=shouted))
    assert "instructions" in broken(data.folder, pictures=False)


def test_an_episode_with_one_label_only(data: DataSet) -> None:
    rewrite(data, lambda rows: [r for r in rows if r.key != "train/3/0" or r.label])
    assert broken(data.folder, pictures=False) == {
        "both labels": "desk train/3/0: 1 with success, 0 with failure"
    }


def test_a_failure_without_its_success(data: DataSet) -> None:
    twin = next(row.key for row in data.rows() if row.pairing == "twins" and row.label)
    rewrite(data, lambda rows: [r for r in rows if r.key != twin])
    assert f"desk {twin}/drop" in broken(data.folder, pictures=False)["twins"]
    assert "twins" in broken(data.folder, pictures=False)


@pytest.mark.parametrize(
    ("label", "changes"),
    [
        (True, {"oracle": -1}),
        (True, {"oracle": 0}),
        (True, {"performed_task": "open_drawer", "asked_task": "close_drawer"}),
        (False, {"oracle": 1}),
        (False, {"oracle": 0}),
        (False, {"feasible": False}),
        (False, {"asked_task": "open_drawer", "performed_task": "open_drawer"}),
    ],
)
def test_a_label_that_contradicts_what_is_known(data: DataSet, label: bool, changes: dict) -> None:
    def which(row: ManifestRow) -> bool:
        return row.pairing == "smf" and row.label == label

    rewrite(data, lambda rows: changed(rows, which, **changes))
    found = broken(data.folder, pictures=False)
    assert list(found) == ["truth"]
    assert "contradicts what is known" in found["truth"]
    # A pair that does not count may.
    rewrite(data, lambda rows: [replace(r, counted=False) for r in rows])
    assert broken(data.folder, pictures=False) == {}


def test_lopsided_tasks_and_phrasings(tmp_path: Path) -> None:
    def lopsided(index: int):
        return record(int(index % 12 == 0), key=f"{index}", group=f"{index}", phrasing=0)

    def build_from(name: str, **pairs: object) -> DataSet:
        asked = BuildSettings(
            ("fake:x",), Shares.whole("train"), Shape(2, 1, 8), PairSettings(**pairs)
        )
        return build(asked, tmp_path / name, [], lambda spec, go: FakeReader(60, lopsided))

    found = broken(build_from("as_it_is").folder)
    assert set(found) == {"phrasings", "tasks"}
    assert "build with --balance" in found["tasks"]
    assert broken(build_from("balanced", balance=True).folder) == {}


def test_mostly_easy_negatives(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    easy = ("verb", "object", "direction")
    rewrite(data, lambda rows: [replace(r, contrast=easy if r.contrast else ()) for r in rows])
    assert broken(data.folder, pictures=False) == {}  # 14 and 21 are too few to say
    monkeypatch.setattr(checks, "FEW", 20)
    assert broken(data.folder, pictures=False) == {
        "hard negatives": "desk train: only 0.00 are hard"
    }


def test_many_breaches_are_counted(data: DataSet) -> None:
    rewrite(data, lambda rows: [r for r in rows if r.label or r.pairing != "smf"])
    detail = broken(data.folder, pictures=False)["both labels"]
    assert detail.endswith("and 32 more")
    assert "\n" not in detail


@st.composite
def records(draw: st.DrawFn) -> list[EpisodeRecord]:
    """Episodes of which oracle, feasibility and designated negatives say anything at all."""
    made = []
    for index in range(draw(st.integers(1, 25))):
        task, category = TASKS[draw(st.integers(0, len(TASKS) - 1))]
        others = [name for name, _ in TASKS if name != task]
        said = st.sampled_from([-1, 0, 1])
        outcomes = draw(st.dictionaries(st.sampled_from(others), said))
        if outcomes:
            outcomes[task] = draw(st.sampled_from([1, 1, 1, 0, -1]))
        possible = draw(st.none() | st.lists(st.sampled_from(others), unique=True))
        wrong = draw(st.sampled_from([t for t in CATEGORIES[category] if t != task]))
        phrasing = draw(st.integers(0, 2))
        given_negative = Negative(wrong, sentence(wrong, phrasing))
        made.append(
            record(
                index,
                group=f"session {draw(st.integers(0, 5))}",
                task=task,
                category=category,
                instruction=sentence(task, phrasing),
                phrasing=phrasing,
                outcomes=outcomes,
                feasible=None if possible is None else (task, *possible),
                negative=draw(st.none() | st.just(given_negative)),
            )
        )
    return made


@settings(max_examples=15, deadline=None)
@given(records(), st.integers(0, 3), st.booleans(), st.integers(0, 2))
def test_whatever_the_episodes_are_no_label_is_wrong_and_nothing_leaks(
    made: list[EpisodeRecord], seed: int, extras: bool, test_phrasings: int
) -> None:
    pairs = PairSettings(seed, True, extras, extras, test_phrasings)
    with TemporaryDirectory() as folder:
        data = build(
            BuildSettings(("fake:x",), Shares.parse("train=1"), Shape(2, 1, 8), pairs),
            Path(folder),
            [],
            lambda spec, go: FakeReader(len(made), made.__getitem__),
        )
        rows = list(data.rows())
        found = broken(data.folder)
        # These two are about proportions, which so few episodes need not have.
        found.pop("hard negatives", None)
        found.pop("phrasings", None)
    assert found == {}
    for task, _ in TASKS:
        labels = [row.label for row in rows if row.counted and row.asked_task == task]
        assert 2 * sum(labels) == len(labels)
    for row in rows:
        truth = made[int(row.key.split()[1])]
        assert row.label == (row.asked_task == truth.task)
        if row.counted and not row.label:
            assert truth.outcomes.get(row.asked_task, -1) == -1
            assert truth.feasible is None or row.asked_task in truth.feasible


def test_pictures_are_told_apart_by_content() -> None:
    one, other = bytes(np.arange(9, dtype=np.uint8)), b"x"
    assert hash_pictures([one, other]) != hash_pictures([other, one])
    assert hash_pictures([one, other]) != hash_pictures([one + other])
