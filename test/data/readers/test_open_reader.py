"""Specs, what all readers share, and files with flipped bytes: one clear line or a record."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from test_aha import entry, flat, write_keyframes, write_strip
from test_authors import KEYFRAMES, keyframe_row, write_rows
from test_calvin import frame, write_calvin

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.readers import READERS, base, open_reader
from ifailsense_ros.data.records import EXPERT, EpisodeRecord, Problem


@pytest.mark.parametrize("name", READERS)
def test_every_name_opens_a_reader(name: str, tmp_path: Path) -> None:
    with pytest.raises((DataError, ConfigError), match="nowhere") as caught:
        open_reader(f"{name}:{tmp_path}/nowhere")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["", "calvin", "calvin:", "rlds:/data", "/data/calvin"])
def test_not_a_spec(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a data set: give name:path, .* calvin, droid"):
        open_reader(spec)


def test_options(tmp_path: Path) -> None:
    for name in ("keep_going", "path"):  # not from a spec
        with pytest.raises(
            ConfigError, match=f"aha has no option '{name}': it has pictures, views"
        ):
            open_reader(f"aha:{tmp_path}?{name}=1")
    assert open_reader(f"aha:{tmp_path}", keep_going=True).keep_going
    # A path may hold a question mark.
    odd = tmp_path / "what?views=front"
    odd.mkdir()
    assert open_reader(f"aha:{odd}").path == odd


class Counting(base.BaseReader):
    """Five parts, of which those divisible by three cannot be read."""

    source = "counting"

    def records(self) -> Iterator[EpisodeRecord]:
        for number in range(5):
            with self.noting(f"part {number}"):
                if number % 3 == 0:
                    raise DataError("field: damaged")
                yield EpisodeRecord(
                    "counting", str(number), "", "a", "", "", EXPERT, True, (0,), 1, lambda _: ()
                )


def test_problems_are_raised_or_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^part 0: field: damaged$"):
        list(Counting(tmp_path))
    reader = Counting(tmp_path, keep_going=True)
    for _ in range(2):  # a second pass starts anew
        assert [r.key for r in reader] == ["1", "2", "4"]
        assert reader.problems == [
            Problem("part 0", "field: damaged"),
            Problem("part 3", "field: damaged"),
        ]


def test_errors_of_a_consumer_are_not_taken_for_the_data_sets(tmp_path: Path) -> None:
    reader = Counting(tmp_path, keep_going=True)

    def consume() -> None:
        for _ in reader:
            raise DataError("of the consumer")

    with pytest.raises(DataError, match="of the consumer"):
        consume()
    assert len(reader.problems) == 1


def test_pictures_that_ask_for_gigabytes() -> None:
    """A damaged header once cost half a minute and 2 GB."""
    small = np.zeros((40, 30, 3), np.uint8)
    png = bytearray(cv2.imencode(".png", small)[1].tobytes())
    jpeg = bytearray(cv2.imencode(".jpg", small)[1].tobytes())
    for data in (png, jpeg):
        assert base.decode_picture(bytes(data), "a").shape == (40, 30, 3)
    png[16:24] = (20000).to_bytes(4, "big") * 2
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = (20000).to_bytes(2, "big") * 2
    for data in (png, jpeg):
        with pytest.raises(DataError, match=r"^a: says it is 20000x20000 pixels; copy"):
            base.decode_picture(bytes(data), "a")
    png[16:24] = (30).to_bytes(4, "big") + (40).to_bytes(4, "big")
    png[33:37] = (2**31 - 1).to_bytes(4, "big")  # the length of the first chunk of pixels
    with pytest.raises(DataError, match="a chunk of 2147483647 bytes in"):
        base.decode_picture(bytes(png), "a")


def make_calvin(folder: Path) -> str:
    write_calvin(
        folder / "training",
        {n: frame(n) for n in range(6)},
        [(0, 5, "open_drawer", "pull the drawer"), (1, 6, "stack_block", "stack the blocks")],
        [(0, 5)],
    )
    return f"calvin:{folder}"


def make_droid(folder: Path) -> str:
    test_droid = pytest.importorskip("test_droid")
    pictures = [test_droid.coded(i, 0) for i in range(8)]
    for outcome in ("success", "failure"):
        test_droid.write_droid(
            folder / outcome / "2023-03-07" / "time",
            {"ext1": pictures, "wrist": pictures},
            [67 * i for i in range(8)],
            sidecars=outcome == "success",
            success=outcome == "success",
        )
    return f"droid:{folder}"


def make_aha(folder: Path) -> str:
    for n in range(2):
        write_keyframes(
            folder / f"close_jar_slip_wp{n}_episode0",
            {view: [flat(i) for i in range(3)] for view in ("front", "wrist")},
        )
    return f"aha:{folder}"


def make_questions(folder: Path) -> str:
    folder.mkdir()
    name = "close_jar_slip_wp0_episode0_combined_view_"
    for step in (0, 1):
        write_strip(folder / f"{name}{step}", [flat(i) for i in range(step + 2)], 3)
    content = [entry(i, f"{name}{i}.png", "close the jar", "Yes.") for i in (0, 1)]
    (folder / "a.json").write_text(json.dumps(content))
    return f"aha:{folder / 'a.json'}"


def make_authors(folder: Path) -> str:
    rows = [keyframe_row(i) for i in range(4)]
    write_rows(folder / "train-00000-of-00001.parquet", KEYFRAMES, rows, row_group_size=2)
    return f"authors:{folder}"


def make_lerobot(folder: Path) -> str:
    pytest.importorskip("av")
    shutil.copytree(Path(__file__).resolve().parent / "lerobot-0.4.4", folder)
    return f"lerobot:{folder}"


def make_bag(folder: Path) -> str:
    demo = Path(__file__).resolve().parents[3] / "bags" / "demo"
    for name in ("test-00-success", "test-04-drop"):
        shutil.copytree(demo / name, folder / name, ignore=shutil.ignore_patterns("truth.yaml"))
    return f"rosbag:{folder}"


MAKERS: dict[str, Callable[[Path], str]] = {
    "lerobot": make_lerobot,
    "rosbag": make_bag,
    "calvin": make_calvin,
    "droid": make_droid,
    "aha": make_aha,
    "questions": make_questions,
    "authors": make_authors,
}


def _harm(data: bytes, dice: random.Random) -> bytes:
    """Cut, zeroed or flipped bytes, as failing disks and broken downloads leave them."""
    how = dice.randrange(3)
    at = dice.randrange(len(data))
    if how == 0:
        return data[:at]
    length = min(len(data) - at, dice.choice([1, 4, 64, 4096]))
    middle = bytes(length) if how == 1 else dice.randbytes(length)
    return data[:at] + middle + data[at + length :]


def read_all(spec: str) -> tuple[int, Sequence[Problem]]:
    """Everything there is, pictures included; only what the interface allows may be raised."""
    reader: Any = open_reader(spec, keep_going=True)
    count = 0
    for record in reader:
        with reader.noting(record.key):
            episode = record.episode(2, record.num_pov)
            assert all(v.dtype == np.uint8 for k in episode.keyframes for v in k.views)
            count += 1
    return count, reader.problems


@pytest.mark.parametrize("name", MAKERS)
def test_damaged_bytes_never_raise_anything_else(name: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    spec = MAKERS[name](whole)
    count, problems = read_all(spec)
    assert count >= 2
    assert not problems
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    dice = random.Random(7)
    noted = 0
    for number in range(12):
        copy = Path(shutil.copytree(whole, tmp_path / f"copy{number}"))
        victim = copy / dice.choice(files)
        victim.write_bytes(_harm(victim.read_bytes(), dice))
        try:
            _, problems = read_all(spec.replace(str(whole), str(copy)))
        except DataError as error:  # nothing of the data set is left
            problems = [Problem("", str(error))]
        assert all("\n" not in p.what and p.what for p in problems)
        noted += bool(problems)
        shutil.rmtree(copy)
    assert noted >= 2
