"""The report's page: sound HTML, true numbers, nothing loaded, other people's text stays text."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyarrow", reason="needs pyarrow: the `train` extra")
pytest.importorskip("scipy", reason="needs SciPy: the `train` extra")
pytest.importorskip("jinja2", reason="needs Jinja2: the `train` extra")

from html_page import Node, parse
from made_results import DETECTORS, made_results, write_folder

from ifailsense_ros.cli import main
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.data.records import Problem
from ifailsense_ros.evaluate.report import text, write
from ifailsense_ros.evaluate.report.cards import SAID
from ifailsense_ros.evaluate.report.episodes import merge
from ifailsense_ros.evaluate.report.figures import comparisons, figures_of
from ifailsense_ros.evaluate.report.page import METRICS
from ifailsense_ros.evaluate.report.pictures import Picture, find_picture
from ifailsense_ros.evaluate.report.write import WrittenReport, write_report
from ifailsense_ros.evaluate.results import Result, write_problems, write_results

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x=\'',
    "</title></style></bdi></li></ul><h1>mine",
    "{{ 7 * 7 }} {% raw %} {{ policy }}",
    "javascript:alert(1)",
    "<!-- -- --!> <![CDATA[ ]]> &lt; &amp;lt; &#60;",
    "\u202egnp.erutcip\u2066 \x00\x1b[31m \udcff",
    "https://example.org/x.png?<b>",
    "a" * 5000,
)
RESAMPLES = 100
_ID = re.compile(r"^[a-z][a-z0-9-]*$")


def pictures(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (28, 56, 3), np.uint8) for _ in range(count)]


def quick(folders, *arguments, **settings) -> WrittenReport:
    """The page with coarse intervals."""
    return write_report(folders, *arguments, resamples=RESAMPLES, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """60 episodes, two detectors."""
    return write_folder(tmp_path_factory.mktemp("r") / "res", made_results(60), pictures())


@pytest.fixture(scope="module")
def page(folder) -> Node:
    return parse(quick([folder]).path.read_text("utf-8"))


def check(page: Node, beside: bool = False) -> None:
    """What holds of every page."""
    ids = [n.attributes["id"] for n in page.all() if "id" in n.attributes]
    assert len(set(ids)) == len(ids) and all(_ID.match(i) for i in ids)
    for node in page.all():
        assert not [n for n in node.attributes if n.startswith("on") or n == "style"], node
        assert node.attributes.get("aria-labelledby", ids[0]) in ids
        if "href" in node.attributes:
            assert node.attributes["href"][1:] in ids and node.attributes["href"][0] == "#"
        if node.tag in ("select", "input"):
            assert any(node in label.all() for label in page.all("label"))
        if node.tag == "button":
            assert node.text or node.attributes.get("aria-label")
        assert node.tag not in ("iframe", "object", "embed", "base", "link")
    assert len(list(page.all("script"))) == 1 and len(list(page.all("style"))) == 1
    for image in page.all("img"):
        assert image.attributes["alt"] and image.attributes["loading"] == "lazy"
        start = "montages/" if beside else "data:image/"
        assert image.attributes["src"].startswith(start)
        assert int(image.attributes["width"]) > 0 and int(image.attributes["height"]) > 0
    for svg in page.all("svg"):
        assert svg.attributes.get("aria-hidden") or svg.attributes["aria-label"]
    for table in page.all("table"):
        width = {len(r) for r in table.rows()}
        assert len(width) <= 1, f"rows of {width} cells"
    for region in page.all(role="region"):
        assert region.attributes["aria-label"] and region.attributes["tabindex"] == "0"


def tables(section: Node) -> Iterator[list[list[str]]]:
    for table in section.all("table"):
        yield table.rows()


# --- sound, and true


def test_the_page_is_sound_and_loads_nothing(page) -> None:
    check(page)
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert "img-src data:;" in policy
    assert page.one("html").attributes["lang"] == "en"
    assert "width=device-width" in page.one("meta", name="viewport").attributes["content"]


def test_headline_metrics_stand_on_the_page(page, folder) -> None:
    merged = merge([("", made_results(60))])
    summaries = [figures_of(name, merged.of(name), RESAMPLES).summary for name in DETECTORS]
    head, *rows = next(tables(page.one("section", id="metrics")))
    assert head == ["share", *DETECTORS]
    for (key, title, meaning), row in zip(METRICS, rows, strict=False):
        assert row[0] == f"{title} {meaning}"
        for cell, found in zip(row[1:], summaries, strict=True):
            low, high = found[f"{key}_95"]
            assert cell == f"{100 * found[key]:.1f} % {100 * low:.1f}–{100 * high:.1f}"
    assert len(rows) == len(METRICS) + 1


def test_confusion_reasons_and_problems_stand_on_the_page(page) -> None:
    rows = [r for r in made_results(60) if r.detector == DETECTORS[0]]

    def count(label, outcome) -> str:
        return str(sum(r.label is label and r.outcome == outcome for r in rows))

    confusion = list(page.one("section", id="metrics").all("table", class_="confusion"))
    assert len(confusion) == 2
    for row, label in zip(confusion[0].rows()[1:], (True, False, None), strict=True):
        numbers = [cell.split()[0] for cell in row[1:]]
        assert numbers == [count(label, o) for o in (Outcome.SUCCESS, Outcome.FAILURE, 0)]
    (reasons,) = tables(page.one("section", id="reasons"))
    assert sum(int(r[1]) for r in reasons[1:]) == sum(r.outcome == 0 for r in rows)
    (problems,) = tables(page.one("section", id="problems"))
    assert [r[0] for r in problems[1:]] == ["bags/session_9", "labels.csv: line 14"]


def test_comparison_stands_on_the_page(page) -> None:
    (found,) = comparisons(merge([("", made_results(60))]), RESAMPLES)
    section = page.one("section", id="comparison")
    table = section.one("table", class_="mcnemar").rows()
    assert [r[1:] for r in table[1:]] == [
        [str(found.both_right), str(found.only_a)],
        [str(found.only_b), str(found.both_wrong)],
    ]
    facts = section.one("ul", class_="facts").text
    assert f"exact test: p = {found.p:.3f}" in facts
    links = [a.attributes["href"] for a in section.all("a")]
    assert links == [f"#e{e.number}" for e in found.differing]


def test_bars_are_as_long_as_their_numbers(page) -> None:
    for cell in page.one("section", id="groups").all("td", class_="barred"):
        number = float(cell.one("span", class_="number").text.split()[0])
        assert float(cell.one("rect", class_="fill").attributes["width"]) == number


def test_cards_say_what_was_judged(page) -> None:
    rows = {(r.key, r.detector): r for r in made_results(60)}
    cards = list(page.all("li", class_="card"))
    assert len(cards) == 60
    for number, card in enumerate(cards):
        both = [rows[f"episode_{number:04d}", name] for name in DETECTORS]
        assert card.attributes["id"] == f"e{number + 1}"
        assert both[0].instruction in card.one("button").text
        letters = "".join("USF"[r.outcome] for r in both)
        assert card.attributes["data-outcomes"] == letters
        assert ("data-differs" in card.attributes) == (letters[0] != letters[1])
        for r, worth, said in zip(
            both, card.attributes["data-worths"], card.one("ul").all("li"), strict=True
        ):
            assert Outcome(r.outcome).name in said.text and r.detector in said.text
            truth = {True: "right", False: "missed failure" if not r.label else "false alarm"}
            wanted = (
                "no verdict"
                if not r.outcome
                else ("truth not known" if r.label is None else truth[r.right])
            )
            assert wanted in said.text
            assert SAID[worth] == wanted
            if r.outcome:
                sure = r.p_success if r.outcome == Outcome.SUCCESS else 1 - r.p_success
                assert f"{100 * min(sure, 0.999):.1f} % sure" in said.text
        ballots = list(tables(card.one("details")))
        assert [b[1:][0][0] for b in ballots] == ["fs:2", "fs:2"]
        assert len(ballots[0]) == 5


def test_one_detector_needs_no_comparison(tmp_path) -> None:
    made = write_folder(tmp_path / "r", made_results(8, detectors=DETECTORS[:1]), pictures())
    page = parse(quick([made]).path.read_text("utf-8"))
    check(page)
    assert not list(page.all(id="comparison")) and not list(page.all("select", name="detector"))


def test_without_labels_verdicts_or_rows_the_page_still_stands(tmp_path) -> None:
    rows = made_results(6)
    unlabelled = [replace(r, label=None, category="", kind="") for r in rows]
    silent = [replace(r, outcome=0, reason=3, p_success=math.nan, montage="") for r in rows]
    bare = [replace(r, sources=(), votes=(), p_votes=(), weights=()) for r in silent]
    success = [replace(r, label=True) for r in rows]
    for name, some in {
        "unlabelled": unlabelled, "silent": silent, "bare": bare, "success": success, "no": []
    }.items():  # fmt: skip
        made = write_folder(tmp_path / name, some, [])
        page = parse(quick([made]).path.read_text("utf-8"))
        check(page)
    assert "0 episodes" in page.one("header").text


def test_folders_are_brought_together(tmp_path) -> None:
    rows = made_results(10)
    parts = [
        write_folder(tmp_path / name[-4:], [r for r in rows if r.detector == name], pictures())
        for name in DETECTORS
    ]
    with pytest.raises(ConfigError, match="name the page with --out"):
        quick(parts)
    made = quick(parts, tmp_path / "sub" / "both.html")
    page = parse(made.path.read_text("utf-8"))
    check(page)
    assert (made.detectors, made.episodes) == (2, 10)
    # The same pictures lie in both folders, as different files.
    assert len(list(page.all("img"))) == 20
    assert "as seen by" in page.one(id="e1").text


def test_pictures_beside_are_linked_from_where_the_page_is(folder, tmp_path) -> None:
    made = quick([folder], folder / "beside.html", pictures="beside")
    page = parse(made.path.read_text("utf-8"))
    check(page, beside=True)
    assert made.size < quick([folder]).size and not made.inline
    for image in page.all("img"):
        assert (folder / image.attributes["src"]).is_file()
    away = quick([folder], tmp_path / "a b" / "x.html", pictures="beside")
    src = next(parse(away.path.read_text("utf-8")).all("img")).attributes["src"]
    assert (away.path.parent / src).resolve().is_file()


def test_auto_leaves_many_pictures_beside(folder, tmp_path, monkeypatch) -> None:
    assert quick([folder], tmp_path / "a.html").inline
    monkeypatch.setattr(write, "INLINE_LIMIT", 1000)
    assert not quick([folder], tmp_path / "b.html").inline
    assert quick([folder], tmp_path / "c.html", pictures="inline").inline


def test_gallery_is_bounded_and_says_so(folder, tmp_path) -> None:
    made = quick([folder], tmp_path / "few.html", most_shown=7)
    page = parse(made.path.read_text("utf-8"))
    check(page)
    assert len(list(page.all("li", class_="card"))) == 7
    assert "7 of 60 episodes" in page.one(id="gallery").text
    links = [a.attributes["href"][2:] for a in page.one(id="comparison").all("a")]
    shown = [c.attributes["id"][1:] for c in page.all("li", class_="card")]
    assert set(links) <= set(shown)


# --- other people's text


def hostile_rows() -> list[Result]:
    rows = made_results(2 * len(HOSTILE))
    out = []
    for number, row in enumerate(rows):
        bad = HOSTILE[number % len(HOSTILE)].replace("\udcff", "")
        out.append(
            replace(
                row,
                detector=row.detector + HOSTILE[0],
                instruction=bad,
                path=bad,
                key=f"{bad} {number // 2}",
                category=bad,
                kind=bad,
                task=bad,
                detail=bad,
                group=bad,
                sources=(bad, "b", "c", "vlm"),
                outcome=0 if number % 3 == 0 else row.outcome,
                reason=15 if number % 3 == 0 else 0,
            )
        )
    return out


def hostile_folder(folder: Path) -> Path:
    write_results(folder, hostile_rows(), {bad: bad for bad in HOSTILE[:7]})
    (folder / "problems.json").write_text(
        json.dumps([{"where": bad, "what": bad} for bad in HOSTILE])
    )
    return folder


def test_hostile_text_stays_text(tmp_path) -> None:
    made = quick([hostile_folder(tmp_path / "<b>&'\" x")])
    raw = made.path.read_text("utf-8")
    page = parse(raw)
    check(page)
    assert [t.tag for t in page.one("html").all("h1")] == ["h1"]
    assert not list(page.all("img"))
    shown = page.text
    for bad in HOSTILE[:7]:
        assert " ".join(bad.split()) in shown
    assert "49" not in shown.split()
    for sign in "\u202e\u2066\x00\x1b":
        assert sign not in raw
    assert "a" * text.LONGEST + "… (3000 more characters)" in shown
    assert "a" * (text.LONGEST + 1) not in raw
    script = page.one("script").text
    assert script == " ".join(asset("report.js").split())


@given(st.text(max_size=60))
def test_any_text_is_printable_and_bounded(value: str) -> None:
    shown = text.plain(value)
    shown.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]", shown)
    assert len(shown) == len(value)
    assert text.plain("x" * 9999).startswith("x" * text.LONGEST + "…")


def test_pictures_outside_of_the_folder_are_not_taken(tmp_path) -> None:
    home = tmp_path / "res"
    made = write_folder(home, made_results(6), pictures())
    outside = tmp_path / "secret.jpg"
    outside.write_bytes((home / "montages" / "00000.jpg").read_bytes())
    (home / "notes.jpg").write_text("no picture")
    (home / "link.jpg").symlink_to(outside)
    cv2.imwrite(str(home / "old.bmp"), pictures()[0])
    for name, why in {
        "../secret.jpg": "outside", str(outside): "outside", "link.jpg": "outside",
        "notes.jpg": "cannot be read", "gone.jpg": "not there", "montages": "cannot be read",
        "old.bmp": "neither", "a\0b": "cannot be read", "": "outside",
    }.items():  # fmt: skip
        found = find_picture(home, name)
        assert isinstance(found, str) and why in found, name
    assert isinstance(find_picture(home, "montages/00001.jpg"), Picture)
    rows = [replace(r, montage="../secret.jpg") for r in made_results(6)]
    write_results(home, rows, {})
    page = parse(quick([made]).path.read_text("utf-8"))
    check(page)
    assert not list(page.all("img"))
    assert "montage lies outside of the results folder" in page.one(id="problems").text


def test_a_picture_that_is_a_bomb_is_not_opened(tmp_path) -> None:
    ok, png = cv2.imencode(".png", np.zeros((4, 4), np.uint8))
    data = bytearray(png.tobytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(data)
    assert ok and find_picture(tmp_path, "x.png") == "cannot be read as a picture"


# --- colours


def asset(name: str) -> str:
    return (files("ifailsense_ros.evaluate.report") / "assets" / name).read_text("utf-8")


def contrast(a: str, b: str) -> float:
    """WCAG's contrast ratio of two #rrggbb."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_read_in_light_and_dark() -> None:
    light, dark = re.findall(r":root \{(.*?)\}", asset("report.css"), re.DOTALL)
    for block in (light, dark):
        colours = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", block))
        assert len(colours) == 16
        for name, colour in colours.items():
            if name in ("paper", "soft", "line"):
                continue
            for ground in ("paper", "soft"):
                assert contrast(colour, colours[ground]) >= 4.5, (name, ground)


# --- command


def test_command_writes_the_page(folder, tmp_path, capsys) -> None:
    assert main(["report", str(folder), "--out", str(tmp_path / "x.html")]) == 0
    said = capsys.readouterr().out
    assert "60 episodes, 2 detectors, 2 problems" in said and "in the page" in said
    assert (tmp_path / "x.html").is_file() and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        (["{folder}", "--gallery", "-1"], "--gallery -1"),
        (["{folder}", "--out", "{folder}/results.parquet/x.html"], "cannot be written"),
    ],
)
def test_a_mistake_is_one_line(folder, capsys, arguments, said) -> None:
    assert main(["report", *(a.format(folder=folder) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_rows_of_another_release_are_refused(tmp_path) -> None:
    for change in ({"outcome": 7}, {"reason": 99}, {"votes": (9, 0, 0, 0)}, {"votes": (1,)}):
        row = replace(made_results(1)[0], **change)
        write_results(tmp_path, [row], {})
        with pytest.raises(DataError, match="does not know"):
            quick([tmp_path])


def test_many_problems_are_cut(tmp_path) -> None:
    write_results(tmp_path, made_results(1), {})
    write_problems(tmp_path, [Problem(f"bag {i}", "bad") for i in range(500)])
    page = parse(quick([tmp_path]).path.read_text("utf-8"))
    assert "300 more in problems.json" in page.one(id="problems").text


def test_pages_are_the_same_for_the_same_results(folder, tmp_path) -> None:
    first = quick([folder], tmp_path / "a.html").path.read_bytes()
    assert quick([folder], tmp_path / "b.html").path.read_bytes() == first


def test_report_needs_no_torch() -> None:
    code = "import sys, ifailsense_ros.evaluate.report.write; print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    assert run.stdout.strip() == "False"
