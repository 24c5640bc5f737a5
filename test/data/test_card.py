"""Data card and contact sheet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: the `train` extra")

from fake_episodes import FakeReader, failed, record, store_row, unreadable, write_store

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.build import BuildSettings, build
from ifailsense_ros.data.card import CELL, card, contact_sheet, write_card
from ifailsense_ros.data.manifest import DataSet
from ifailsense_ros.data.pairs import PairSettings
from ifailsense_ros.data.sinks import Shape
from ifailsense_ros.data.splits import Shares
from ifailsense_ros.data.tally import Tally


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """14 episodes of two categories, and a failure beside its twin."""
    twin = store_row(20)
    failure = failed(twin)
    rows = [store_row(n) for n in range(14)]
    rows[3] = replace(rows[3], feasible=(rows[3].task,))
    write_store(tmp_path / "store", [*rows, twin, failure], shard_episodes=16)
    settings = BuildSettings(
        (f"store:{tmp_path / 'store'}",), pairs=PairSettings(unfiltered=True), licence="CC0-1.0"
    )
    return build(settings, tmp_path / "set", ["ifailsense", "data", "build", "--out", "a set"])


def test_card_says_where_it_comes_from_and_what_is_in_it(data: DataSet) -> None:
    text = card(data, Tally([data]))
    # 13 episodes with either label, a failure and its twin
    assert "28 pairs of an episode and an instruction that count, over 15 episodes" in text
    assert "16 episodes of desk, generator version 7" in text
    assert "licence: CC0-1.0" in text
    assert "command: `ifailsense data build --out 'a set'`" in text
    assert data.summary["sha256"]["manifest.parquet"] in text
    assert "| train | drop | 1 |" in text
    assert "| train | infeasible |" in text
    assert "## What the unfiltered set has instead" in text


def test_numbers_of_the_card_add_up(data: DataSet) -> None:
    text = card(data, Tally([data]))
    section = text.split("## Pairs that count")[1].split("##")[0]
    cells = [line.split("|")[3:6] for line in section.splitlines() if line.startswith("| train")]
    episodes, good, bad = np.array(cells, int).sum(axis=0)
    rows = list(data.rows(counted=True))
    assert (good, bad) == (sum(r.label for r in rows), sum(not r.label for r in rows))
    assert episodes == len({r.episode_sha256 for r in rows})


def test_sheet_has_a_tile_for_every_category_and_failure(data: DataSet) -> None:
    tally = Tally([data])
    sheet = contact_sheet(data, tally, per_category=1, zoom=1, columns=4)
    assert sheet.dtype == np.uint8
    tile = (2 * CELL + 60 + 12, 4 * CELL + 12)
    assert sheet.shape == (tile[0], 4 * tile[1], 3)
    for column in range(4):  # two categories, the failure, its twin
        montage = sheet[60 : 60 + 2 * CELL, column * tile[1] : column * tile[1] + 4 * CELL]
        assert (montage < 250).any(axis=2).mean() > 0.99
    assert contact_sheet(data, tally, per_category=2, zoom=2, columns=2).shape[0] > 2 * tile[0]


def test_nothing_to_show(tmp_path: Path) -> None:
    settings = BuildSettings(("fake:x",), Shares.whole("train"), Shape(2, 1, 8))
    made = build(settings, tmp_path, [], lambda spec, go: FakeReader(1, lambda n: record(0)))
    with pytest.raises(DataError, match="no pair counts"):
        contact_sheet(made, Tally([made]))
    text = card(made, Tally([made]), sheet=None)
    assert "0 pairs of an episode and an instruction that count, over 0 episodes" in text
    assert "no_wrong_task" in text
    assert "sheet.png" not in text


def test_what_was_left_out_is_listed(tmp_path: Path) -> None:
    settings = BuildSettings(("fake:x",), Shares.whole("train"), Shape(2, 1, 8), keep_going=True)
    made = build(settings, tmp_path, [], lambda spec, go: FakeReader(220, unreadable))
    listed = card(made, Tally([made])).split("## What was left out")[1].splitlines()[2:]
    assert (
        listed[0]
        == "- `fake:x`: fake episode 3: episode 3.npz: rgb_static is missing; copy it again"
    )
    assert listed[-1] == "- and 3 more in `problems.parquet`"
    assert len(listed) == 21


def test_card_and_sheet_are_written(data: DataSet, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    text = write_card(data, out)
    assert (out / "card.md").read_text("utf-8") == text
    assert "(sheet.png)" in text
    assert cv2.imread(str(out / "sheet.png")).shape[1] > 4 * CELL
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_card(data, tmp_path / "file")
