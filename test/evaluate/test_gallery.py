"""The gallery: which mistakes, what they share, the right pictures, a page that holds."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: the `train` extra")
pytest.importorskip("scipy", reason="needs SciPy: the `train` extra")

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.verdict import Outcome, Reason
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.evaluate.asked import AskedSet
from ifailsense_ros.evaluate.gallery import main, make_gallery, report
from ifailsense_ros.evaluate.mistakes import (
    confidence,
    mistake_of,
    shares,
    voters,
    worst,
    wrong_voters,
)
from ifailsense_ros.evaluate.predict import OWN, meta_of
from ifailsense_ros.evaluate.predictions import Prediction, predict, write_predictions


def pair(number: int = 0, **changes: Any) -> Prediction:
    """A success that the detector called one."""
    made = Prediction(
        pair_id=f"{number:04d}",
        split="dev",
        source="desk",
        key=f"dev/{number}/0",
        instruction="push the red block left",
        label=True,
        asked_task="push_red_block_left",
        performed_task="push_red_block_left",
        category="pushing",
        contrast=("direction",),
        phrasing=3,
        kind="positive",
        pairing="smf",
        twin="",
        outcome=int(Outcome.SUCCESS),
        reason=0,
        p_success=0.9,
        sources=("fs:1", "vlm"),
        votes=(1, 1),
        p_votes=(0.8, 1.0),
        weights=(1.0, 2.0),
    )
    return replace(made, **changes)


ALARM = {"outcome": int(Outcome.FAILURE), "p_success": 0.2, "votes": (1, 0)}
MISSED = {"label": False, "kind": "semantic", "performed_task": "push_red_block_right"}
NO_WORD = {
    "outcome": int(Outcome.UNKNOWN),
    "reason": int(Reason.VLM_ABSTAINED),
    "p_success": math.nan,
    "votes": (0, 2),
}


# --- which, and what they share


def test_the_surest_mistakes_come_first() -> None:
    made = [
        pair(0),
        pair(1, **ALARM),
        pair(2, **MISSED),
        pair(3, **NO_WORD),
        pair(4, **MISSED, p_success=0.6),
        pair(5, **{**ALARM, "label": False}),
    ]
    found = worst(made, 50)
    assert [p.pair_id for p in found] == ["0002", "0001", "0004"]
    assert [confidence(p) for p in found] == pytest.approx([0.9, 0.8, 0.6])
    assert [mistake_of(p) for p in found] == ["missed failure", "false alarm", "missed failure"]
    assert worst(made, 1) == found[:1]
    assert mistake_of(made[3]) == "no verdict" and confidence(made[3]) == 0


def test_lift_is_the_error_rate_over_that_of_all() -> None:
    """Ten of a hundred are wrong, eight of them among the twenty drawers."""
    drawer = {"asked_task": "open_drawer", "category": "opening_closing", "contrast": ("verb",)}
    made = [pair(n, **(ALARM if n < 2 else {})) for n in range(80)]
    made += [pair(n, **drawer, **(ALARM if n < 88 else {})) for n in range(80, 100)]
    found = {(s.attribute, s.value): s for s in shares(made)}
    one = found["category", "opening_closing"]
    assert (one.pairs, one.mistakes) == (20, 8)
    assert one.lift == pytest.approx(4.0)
    assert one.low < 0.4 < one.high and one.clear
    other = found["category", "pushing"]
    assert other.lift == pytest.approx(0.25) and other.clear
    assert found["contrast", "verb"].mistakes == found["asked task", "open_drawer"].mistakes == 8
    assert (found["colour", "red"].pairs, found["colour", "-"].pairs) == (80, 20)
    assert found["direction", "left"].mistakes == 2
    # Kind, label and phrasing are the same for all: nothing to say.
    assert {"kind", "label", "phrasing", "duration"}.isdisjoint(a for a, _ in found)
    assert next(s.value for s in shares(made) if s.attribute == "category") == "opening_closing"


def test_durations_are_cut_into_quarters() -> None:
    made = [pair(n, **(ALARM if n >= 6 else {})) for n in range(8)]
    durations = {p.pair_id: 1.0 + n for n, p in enumerate(made)}
    (one,) = (s for s in shares(made, durations) if s.attribute == "duration")
    assert (one.value, one.pairs, one.mistakes, one.lift) == ("above 6.2 s", 2, 2, 4.0)


def test_a_task_that_is_a_sentence_has_no_colour() -> None:
    made = [pair(0, **ALARM), pair(1, asked_task="pick up the red cup", **ALARM)]
    found = {(s.attribute, s.value) for s in shares(made)}
    assert {("colour", "red"), ("colour", "-")} <= found


def test_no_mistake_shares_nothing() -> None:
    assert shares([pair(0), pair(1)]) == []


def test_no_verdict_is_a_mistake_but_no_confident_one() -> None:
    made = [pair(0), pair(1, **NO_WORD, category="placing")]
    assert {s.value: s.mistakes for s in shares(made) if s.attribute == "category"} == {
        "placing": 1
    }
    assert worst(made, 5) == []


def test_who_was_wrong() -> None:
    made = [pair(0), pair(1, **ALARM), pair(2, **NO_WORD)]
    assert [(v.source, v.right_in_mistakes) for v in voters(made)] == [("fs:1", 1), ("vlm", 0)]
    assert [v.error for v in voters(made)] == pytest.approx([1 / 3, 2 / 3])
    assert [wrong_voters(p) for p in made] == [0, 1, 2]


# --- the page


@pytest.fixture
def judged(smf_store: Path, rule_detector: Any) -> tuple[list[Prediction], dict[str, Any]]:
    """The dev split as judged by rule, with three verdicts turned round and one taken back."""
    detector = rule_detector()
    found = list(predict(detector, smf_store, "dev", progress=False))
    assert all(p.right for p in found)
    for n, p_success in ((0, 0.02), (2, 0.15), (5, 0.95)):
        wrong = Outcome.FAILURE if found[n].label else Outcome.SUCCESS
        found[n] = replace(found[n], outcome=int(wrong), p_success=p_success)
    found[7] = replace(found[7], outcome=0, reason=14, p_success=math.nan)
    meta = meta_of(detector, AskedSet(smf_store, "dev"), Ablation(), OWN, ["ifailsense", "predict"])
    return found, meta


class Page(HTMLParser):
    """Collects texts and pictures, and sees to it that what opens closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def test_the_page_shows_the_right_episodes_and_opens_offline(
    judged: tuple[list[Prediction], dict[str, Any]], smf_store: Path, tmp_path: Path
) -> None:
    found, meta = judged
    made = make_gallery(found, meta, smf_store, tmp_path / "out")
    assert (made.pairs, made.mistakes, len(made.shown)) == (20, 4, 3)
    assert [p.pair_id for p in made.shown] == [found[n].pair_id for n in (0, 5, 2)]
    text = made.page.read_text("utf-8")
    page = Page(text)
    assert not page.open
    assert len(page.links) == 7 and "http" not in text
    for link in page.links:
        assert cv2.imread(str(made.page.parent / link)) is not None, link
    for rank, shown in enumerate(made.shown, start=1):
        assert shown.instruction in page.text
        # The block's colour is the picture's brightness: the page shows that episode.
        index = int(shown.key.split("/")[1])
        stored = cv2.imread(str(made.page.parent / f"images/{rank:03d}-stored.jpg"))
        assert stored.shape == (2 * 16, 4 * 16, 3)
        assert abs(float(np.median(stored)) - 60 * (index % 3 + 1)) < 6
    for word in ("missed failure", "false alarm", "no verdict", meta["checkpoint"], "dev"):
        assert word in page.text
    with (made.page.parent / "mistakes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["pair_id"] for row in rows] == [p.pair_id for p in made.shown]
    assert {row["duration_s"] for row in rows} == {"3.0"}
    with (made.page.parent / "shares.csv").open(encoding="utf-8") as file:
        assert {row["attribute"] for row in csv.DictReader(file)} >= {"label", "colour"}
    assert "4 mistakes in 20 pairs, the 3 surest shown" in report(made)


def test_words_of_the_data_are_no_markup(
    judged: tuple[list[Prediction], dict[str, Any]], smf_store: Path, tmp_path: Path
) -> None:
    found, meta = judged
    found[0] = replace(found[0], instruction='<script>x</script> & "so"')
    made = make_gallery(found, meta, smf_store, tmp_path / "out", count=1)
    text = made.page.read_text("utf-8")
    assert "<script" not in text
    assert '<script>x</script> & "so"' in Page(text).text


def test_one_pov_and_fewer_keyframes_are_shown_as_they_were_seen(
    judged: tuple[list[Prediction], dict[str, Any]], smf_store: Path, tmp_path: Path
) -> None:
    found, meta = judged
    sizes = {}
    for num_pov, num_keyframes in ((2, 4), (1, 4), (1, 2)):
        montage = {**meta["montage"], "num_pov": num_pov, "num_keyframes": num_keyframes}
        out = tmp_path / f"{num_pov}-{num_keyframes}"
        make_gallery(found, {**meta, "montage": montage}, smf_store, out, count=1)
        sizes[num_pov, num_keyframes] = cv2.imread(str(out / "sheet.jpg")).shape
    cell = meta["montage"]["cell_width"]
    assert sizes[1, 4][1] - sizes[1, 2][1] == 2 * cell
    assert sizes[2, 4][0] - sizes[1, 4][0] == cell


def test_of_a_control_the_whole_episode_is_shown(
    judged: tuple[list[Prediction], dict[str, Any]], smf_store: Path, tmp_path: Path
) -> None:
    found, meta = judged
    shown = {**meta["montage"], "num_keyframes": 1}  # what it saw tells nothing
    control = {**meta, "montage": shown, "ablation": "first_frame_only"}
    make_gallery(found, control, smf_store, tmp_path, count=1)
    height, width, _ = cv2.imread(str(tmp_path / "images/001-seen.jpg")).shape
    assert width > 4 * 84 * 2 and height > 2 * 84 * 2


def test_no_mistake_is_said_and_not_drawn(
    judged: tuple[list[Prediction], dict[str, Any]], smf_store: Path, tmp_path: Path
) -> None:
    right = [p for p in judged[0] if p.right]
    made = make_gallery(right, judged[1], smf_store, tmp_path / "out")
    assert (made.mistakes, made.shown, made.shares) == (0, [], [])
    assert Page(made.page.read_text("utf-8")).links == []
    assert not (tmp_path / "out" / "sheet.jpg").exists()


# --- the command


def test_command(
    judged: tuple[list[Prediction], dict[str, Any]],
    smf_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_predictions(tmp_path / "dev.parquet", *judged)
    command = ["--predictions", str(tmp_path / "dev.parquet"), "--out", str(tmp_path / "out")]
    assert main([*command, "--data", str(smf_store), "--worst", "2"]) == 0
    assert "the 2 surest shown" in capsys.readouterr().out
    assert (tmp_path / "out" / "index.html").exists()
    (tmp_path / "empty").mkdir()
    for wrong in (["--data", str(tmp_path / "empty")], ["--data", str(smf_store), "--worst", "0"]):
        assert main([*command, *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_test_split_is_not_looked_at_unless_told(
    judged: tuple[list[Prediction], dict[str, Any]], smf_store: Path, tmp_path: Path
) -> None:
    found, meta = judged
    of_test = {**meta, "split": "test", "data_hash": AskedSet(smf_store, "test").hash}
    with pytest.raises(ConfigError, match="tunes on it"):
        make_gallery(found, of_test, smf_store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="has no pair"):  # those of dev
        make_gallery(found, of_test, smf_store, tmp_path / "out", of_test=True)


def test_other_data_are_refused(
    judged: tuple[list[Prediction], dict[str, Any]], failure_store: Path, tmp_path: Path
) -> None:
    found, meta = judged
    with pytest.raises(DataError, match="split 'dev'"):
        make_gallery(found, meta, failure_store, tmp_path / "out")
    with pytest.raises(DataError, match="not what was judged"):
        make_gallery(found, {**meta, "split": "test"}, failure_store, tmp_path, of_test=True)
