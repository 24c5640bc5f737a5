"""Experts of data sets and of stores: the same from either, one shape, one shard in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: the `train` extra")

from fake_episodes import FakeReader, failed, picture, record, sentence, store_row, write_store

from ifailsense_ros.core.checkpoint import sha256_of
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data import experts as module
from ifailsense_ros.data.build import BuildSettings, build
from ifailsense_ros.data.episode_store import EpisodeRow, list_shards
from ifailsense_ros.data.experts import ExpertSet, episode_of
from ifailsense_ros.data.manifest import MANIFEST, DataSet
from ifailsense_ros.data.readers import open_reader
from ifailsense_ros.data.records import EXPERT, UNFINISHED
from ifailsense_ros.data.sinks import Shape
from ifailsense_ros.data.smf import draw_negative_task
from ifailsense_ros.data.splits import Shares

SMALL = Shape(keyframes=4, pov=2, size=12)
BOTH = (EXPERT, UNFINISHED)


def unfinished(row: EpisodeRow) -> EpisodeRow:
    """The same episode with nothing done."""
    return replace(row, kind=UNFINISHED, outcomes=dict.fromkeys(row.outcomes, -1))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores ``train`` (with a failure and its twin), ``validation`` and ``short``."""
    folder = tmp_path_factory.mktemp("stores")
    rows = [store_row(index) for index in range(28)]
    write_store(folder / "short", [unfinished(row) for row in rows])
    rows[7] = replace(rows[7], outcomes={**rows[7].outcomes, rows[7].negative_task: 0})
    write_store(folder / "train", [*rows, failed(rows[2])])
    write_store(folder / "validation", [store_row(index, "validation") for index in range(14)])
    return folder


def made(folder: Path, sources: Sequence[Path]) -> DataSet:
    specs = tuple(f"store:{source}" for source in sources)
    return build(BuildSettings(specs, shape=SMALL), folder, ["made"], open_reader)


@pytest.fixture(scope="module")
def data(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    names = ("train", "validation", "short")
    return made(tmp_path_factory.mktemp("set"), [stores / name for name in names])


def test_a_data_set_gives_the_experts_that_its_store_gives(stores: Path, data: DataSet) -> None:
    ours, theirs = (
        ExpertSet(folder, "validation") for folder in (data.folder, stores / "validation")
    )
    for name in ("experts", "phrasings", "categories", "shard_hashes", "shape"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.pairs() == theirs.pairs()
    assert len(ours) == 14
    assert ours.shape == SMALL
    assert [p.resolve() for p in ours.shards] == [p.resolve() for p in theirs.shards]


def test_the_hash_is_the_manifests_or_that_of_the_shards(stores: Path, data: DataSet) -> None:
    assert ExpertSet(data.folder, "train").hash == sha256_of(data.folder / MANIFEST)
    one, other = (ExpertSet(stores / name, name) for name in ("train", "validation"))
    assert len({one.hash, other.hash, ExpertSet(data.folder, "train").hash}) == 3
    assert one.shard_hashes == [sha256_of(shard) for shard in list_shards(stores / "train")]


def test_only_what_counts(stores: Path, data: DataSet) -> None:
    """The disputed pair, the failure and the success beside it are in the shards alone."""
    experts = ExpertSet(data.folder, "train")
    kept = [row.index for _, row in experts.rows()]
    assert kept == [n for n in range(28) if n not in (2, 7)]
    whole = ExpertSet(stores / "train", "train")
    assert len(whole) == 28
    # Features of a part of a shard are not those of the whole shard.
    assert experts.shard_hashes[0] != whole.shard_hashes[0]
    assert experts.shard_hashes[1] == whole.shard_hashes[1]


def test_rows_come_in_the_order_of_the_experts_one_shard_at_a_time(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts = ExpertSet(data.folder, "train")
    opened: list[Path] = []
    real = module.read_shard
    monkeypatch.setattr(
        module, "read_shard", lambda path, **how: opened.append(path) or real(path, **how)
    )
    rows: Iterator[tuple[int, EpisodeRow]] = experts.rows()
    for expert in experts.experts:
        index, row = next(rows)
        assert (index, row.task, row.instruction) == (
            expert.index, expert.task, expert.instruction,
        )  # fmt: skip
        assert row.decode_images().shape == (2, 4, 12, 12, 3)
        assert experts.shards[: len(opened)] == opened
    assert next(rows, None) is None
    assert [i for n in range(len(opened)) for i, _ in experts.rows_of(n)] == list(range(26))


def test_without_an_oracle_the_manifests_wrong_instruction_is_the_only_one(tmp_path: Path) -> None:
    """As in DROID: each sentence is a task of its own."""

    def free_text(index: int):
        text = f"do thing {index} at once"
        made = record(index, instruction=text, task=text, category="anything", phrasing=None)
        return replace(made, outcomes={}, feasible=None)

    settings = BuildSettings(("fake:here",), Shares.whole("train"), SMALL)
    data = build(settings, tmp_path, ["made"], lambda *_: FakeReader(30, free_text))
    experts = ExpertSet(tmp_path, "train")
    wrong = {r.key: r.instruction for r in data.rows() if not r.label}
    rng = np.random.default_rng(0)
    assert len(experts) == 30
    for expert, (_, row) in zip(experts.experts, experts.rows(), strict=True):
        assert expert.instruction == row.instruction
        (said,) = (wrong[f"episode {n}"] for n in range(30) if f"thing {n} at" in row.task)
        for hard in (0.0, 1.0):
            task = draw_negative_task(expert, experts.categories, rng, hard)
            assert experts.phrasings.draw(task, rng) == said != expert.instruction


def test_sentences_are_the_manifests(tmp_path: Path) -> None:
    """Episodes that a build reworded are trained on in its words."""
    settings = BuildSettings(("fake:here",), Shares.parse("train=0.5,test=0.5"), SMALL)
    settings = replace(settings, pairs=replace(settings.pairs, test_phrasings=1))
    data = build(settings, tmp_path, ["made"], lambda *_: FakeReader(84))
    assert any(row.reworded for row in data.rows("train"))
    said = {text for e in ExpertSet(tmp_path, "train").experts for text in (e.instruction,)}
    assert said == {r.instruction for r in data.rows("train", counted=True) if r.label}
    assert said.isdisjoint(r.instruction for r in data.rows("test", counted=True))


# --- unfinished episodes


@pytest.mark.parametrize("from_store", [True, False])
def test_unfinished_episodes_have_wrong_instructions_only(
    stores: Path, data: DataSet, from_store: bool
) -> None:
    chosen = ExpertSet(stores / "short" if from_store else data.folder, "train", BOTH)
    short = [e for e in chosen.experts if e.unfinished]
    assert len(short) == 28
    assert [e.index for e in chosen.experts] == list(range(len(chosen)))
    made = store_row(0)
    assert (short[0].task, short[0].instruction) == ("", "")
    assert (short[0].negative_task, short[0].negative_instruction) == (made.task, made.instruction)
    assert made.task in short[0].wrong_tasks
    assert set(short[0].wrong_tasks) == set(chosen.categories["lifting"])
    assert "" not in chosen.phrasings.by_task
    assert all("" not in tasks for tasks in chosen.categories.values())
    indices = {e.index for e in short}
    assert [s.success for s in chosen.pairs() if s.index in indices] == [False] * 28
    assert {row.kind for i, row in chosen.rows() if i in indices} == {UNFINISHED}


def test_unfinished_episodes_count_only_where_they_are_asked_for(
    stores: Path, data: DataSet
) -> None:
    found = [row for row in data.rows() if row.kind == UNFINISHED]
    assert {(row.counted, row.why_not_counted, row.label) for row in found} == {
        (False, "cut_short", False)
    }
    assert {row.performed_task for row in found} == {""}
    assert len(ExpertSet(data.folder, "train")) == 26
    assert len(ExpertSet(data.folder, "train", BOTH)) == 26 + 28
    with pytest.raises(DataError, match="no expert episode of split 'train' that counts"):
        ExpertSet(stores / "short", "train")


# --- what is refused


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda row: replace(row, stamps_ns=(0, 1), images=row.images[:4]),
            "row 1 has 2 keyframes",
        ),
        (lambda row: replace(row, images=row.images[:4]), "row 1 has 4 keyframes of 1 PoV"),
    ],
)
def test_episodes_of_another_shape(
    tmp_path: Path, change: Callable[[EpisodeRow], EpisodeRow], match: str
) -> None:
    write_store(tmp_path, [store_row(0), change(store_row(1))])
    with pytest.raises(DataError, match=match):
        ExpertSet(tmp_path, "train")


def test_pictures_of_another_size(tmp_path: Path) -> None:
    small = [store_row(n) for n in range(4)]
    png = cv2.imencode(".png", picture(3, size=16))[1].tobytes()
    large = [replace(store_row(n), images=(png,) * 8) for n in range(4, 8)]
    for name, rows in (("a", small), ("b", large)):
        write_store(tmp_path / name, rows)
    made(tmp_path / "set", [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(DataError, match=r"different sizes.* 12, .* 16\)"):
        ExpertSet(tmp_path / "set", "train")


def test_files_that_are_not_those_of_the_build(tmp_path: Path) -> None:
    write_store(tmp_path / "a", [store_row(n) for n in range(4)])
    made(tmp_path / "set", [tmp_path / "a"])
    write_store(tmp_path / "a", [store_row(n, phrasing=9) for n in range(4)])
    with pytest.raises(DataError, match="not the file that the data set was built from"):
        ExpertSet(tmp_path / "set", "train")
    (shard,) = list_shards(tmp_path / "a")
    shard.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        ExpertSet(tmp_path / "set", "train")


def test_what_is_not_there_is_named_in_one_line(stores: Path, data: DataSet) -> None:
    for folder, split, match in (
        (stores / "nowhere", "train", "no such folder"),
        (stores, "train", "no data set either"),
        (data.folder, "exam", "no expert episode of split 'exam'"),
    ):
        with pytest.raises(DataError, match=match) as caught:
            ExpertSet(folder, split)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="kinds drop: choose from expert, unfinished"):
        ExpertSet(stores / "train", "train", ("drop",))


def test_an_unfinished_build_is_said_so(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).touch()
    with pytest.raises(DataError, match=r"no manifest\.json"):
        ExpertSet(tmp_path, "train")


# --- one PoV


def test_one_pov_is_the_exocentric_one() -> None:
    views = [cv2.imencode(".png", picture(n)[..., ::-1])[1].tobytes() for n in range(8)]
    row = replace(store_row(0), images=tuple(views))
    one, two = episode_of(row, 1), episode_of(row, 2)
    assert (one.num_pov, two.num_pov) == (1, 2)
    for step, (k1, k2) in enumerate(zip(one.keyframes, two.keyframes, strict=True)):
        assert np.array_equal(k1.views[0], k2.views[0])
        assert np.array_equal(k1.views[0], picture(step))
    assert episode_of(row, 1, sentence("open_drawer", 1)).instruction == "please open drawer way 1"


def test_more_pov_than_there_are() -> None:
    row = replace(store_row(0), images=store_row(0).images[:4])
    with pytest.raises(DataError, match="1 PoV, 2 asked for"):
        episode_of(row, 2)
