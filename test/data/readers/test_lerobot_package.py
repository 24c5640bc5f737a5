"""Data sets that the `lerobot` package wrote (make_lerobot_fixture.py): 0.3.3 for v2.1, 0.4.4 for
v3.0, AV1 video by its default settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ifailsense_ros.data.readers.lerobot import LerobotReader

pytest.importorskip("av")
HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(("package", "version"), [("0.3.3", "v2.1"), ("0.4.4", "v3.0")])
def test_data_set_of_the_package(
    picture_numbers: tuple[Callable, Callable], package: str, version: str
) -> None:
    folder = HERE / f"lerobot-{package}"
    info = json.loads((folder / "meta/info.json").read_text())
    assert info["codebase_version"] == version
    assert info["features"]["observation.images.front"]["info"]["video.codec"] == "av1"
    records = list(LerobotReader(folder))
    tasks = ("put the cup in the sink", "open the drawer", "put the cup in the sink")
    assert tuple(r.instruction for r in records) == tasks
    assert [r.success for r in records] == [True, True, False]
    first = 0
    for record, length in zip(records, (8, 5, 7), strict=True):
        assert record.stamps_ns == tuple(round(k * 1e9 / 15) for k in range(length))
        for step, keyframe in enumerate(record.read(range(length))):
            shown = [picture_numbers[1](view) for view in keyframe.views]
            assert shown == [first + step, first + step + 100]
            assert [view.shape for view in keyframe.views] == [(32, 64, 3)] * 2
        first += length
