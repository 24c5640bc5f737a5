"""Questions about scenes: written beside the shards, read with the episodes they are about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: the `train` extra")

from fake_episodes import store_row, write_store

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.episode_store import EpisodeRow, list_shards
from ifailsense_ros.data.experts import ExpertSet
from ifailsense_ros.data.records import EXPERT, UNFINISHED
from ifailsense_ros.data.scene_questions import (
    QUESTIONS,
    key_of,
    read_questions,
    write_questions,
)


def asked(row: EpisodeRow) -> tuple[tuple[str, str], ...]:
    return ((f"which {row.kind} is it?", str(row.index)), ("is the led on at the end?", "no"))


@pytest.fixture
def rows() -> list[EpisodeRow]:
    experts = [store_row(index) for index in range(6)]
    # The same index and attempt: only their kind tells them from the expert.
    return [*experts, replace(store_row(3), kind=UNFINISHED, outcomes={})]


def test_every_episode_gets_back_its_own(tmp_path: Path, rows: list[EpisodeRow]) -> None:
    write_store(tmp_path, rows)
    write_questions(tmp_path, [(key_of(row), asked(row)) for row in rows[1:]])
    assert [path.name for path in list_shards(tmp_path)] == [
        path.name for path in sorted(tmp_path.iterdir()) if path.name != QUESTIONS
    ]
    there = read_questions(tmp_path)
    assert there.of(rows[0]) == ()
    assert all(there.of(row) == asked(row) for row in rows[1:])


def test_experts_come_with_them(tmp_path: Path, rows: list[EpisodeRow]) -> None:
    write_store(tmp_path, rows)
    write_questions(tmp_path, [(key_of(row), asked(row)) for row in rows])
    both = ExpertSet(tmp_path, "train", (EXPERT, UNFINISHED))
    for (index, row), said in zip(both.rows(), both.scene_questions, strict=True):
        assert both.experts[index].unfinished == (row.kind == UNFINISHED)
        assert said == asked(row)
    assert len(ExpertSet(tmp_path, "train").scene_questions) == 6


def test_a_store_without_them_has_none_and_a_damaged_file_is_named(
    tmp_path: Path, rows: list[EpisodeRow]
) -> None:
    write_store(tmp_path, rows)
    assert ExpertSet(tmp_path, "train").scene_questions == [()] * 6
    (tmp_path / QUESTIONS).write_bytes(b"PAR1 cut")
    with pytest.raises(DataError, match=f"{QUESTIONS}.*sim questions"):
        ExpertSet(tmp_path, "train")
